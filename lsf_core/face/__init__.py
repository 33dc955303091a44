"""Geometry of faces: any neutral mesh becomes a rig with the 52 ARKit shapes, and its identity is read.

    vertices, triangles = load_mesh("head.obj")
    made = rig(vertices, triangles)        # made.deltas (52,V,3) in the mesh's own space and vertex order

A mesh that holds no face raises lsf_core.errors.MeshError. No bpy, no torch.
"""

from .guide import read_landmarks
from .mesh import load_mesh
from .rig import Rig, read_identity, rig
from .store import RigStore
from .template import Template, load_template

__all__ = ["Rig", "RigStore", "Template", "load_mesh", "load_template", "read_identity", "read_landmarks", "rig"]
