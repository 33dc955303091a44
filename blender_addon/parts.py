"""Objects that belong to a face: teeth, tongue, eyeballs, lashes, brows, beard. The head lists them in `lsf_parts`.

The engine sees the head and its parts as one mesh, in the head's space, and so knows what is a tongue and what an eye.
What it gives back is cut apart again: each object gets the shape keys that move it, under the same names as the head's.
All of them are then animated by the same Action in the same slot, so that a take is one thing however many objects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import bpy
import numpy as np

from . import compat, mapper, mesh_io
from .mesh_io import MeshData
from .report import Problem

STILL = 1e-4
"""A shape that moves no vertex of a part farther than this share of the head's size does not move it."""


@dataclass(frozen=True, eq=False)
class Joined:
    """A head and its parts as the engine gets them: vertex arrays one after the other, the head's first."""

    names: tuple[str, ...]
    """Of the objects."""
    meshes: tuple[MeshData, ...]
    """Each with its vertices in the engine's space of the head."""

    @property
    def vertices(self) -> np.ndarray:
        """(V, 3) of all objects, engine's space."""
        return np.concatenate([mesh.vertices for mesh in self.meshes])

    @property
    def triangles(self) -> np.ndarray:
        """(T, 3) int32 into `vertices`."""
        starts = np.cumsum([0, *(len(mesh.vertices) for mesh in self.meshes[:-1])])
        shifted = [mesh.triangles + start for mesh, start in zip(self.meshes, starts, strict=True)]
        return np.concatenate(shifted).astype(np.int32)

    def split(self, deltas: np.ndarray) -> list[np.ndarray]:
        """Displacements (K, V, 3) of all in the engine's space, as (K, V_i, 3) of each object in its own."""
        ends = np.cumsum([len(mesh.vertices) for mesh in self.meshes])
        pieces = np.split(deltas, ends[:-1], axis=1)
        return [mesh.from_engine(piece) for mesh, piece in zip(self.meshes, pieces, strict=True)]

    def moving(self, deltas: np.ndarray, number: int) -> np.ndarray:
        """(K,) bool: which displacements (K, V, 3), engine's space, move the object at this place of `names`."""
        start = sum(len(mesh.vertices) for mesh in self.meshes[:number])
        own = deltas[:, start : start + len(self.meshes[number].vertices)]
        size = float(np.ptp(self.meshes[0].vertices, axis=0).max())
        return np.asarray(np.abs(own).max(axis=(1, 2), initial=0.0) > STILL * size)

    def unchanged(self, target: bpy.types.Object) -> bool:
        """Whether the neutral meshes of the head and its parts are still the same ones. Cheap."""
        now = together(target)
        return self.names == tuple(thing.name for thing in now) and all(
            np.array_equal(mesh.basis, mesh_io.basis_of(thing)) for mesh, thing in zip(self.meshes, now, strict=True))


def together(target: bpy.types.Object) -> list[bpy.types.Object]:
    """The head and the objects of its list, each once, the head first."""
    listed = [item.object for item in target.lsf_parts if item.object is not None]
    return list(dict.fromkeys([target, *listed]))


def keyed(target: bpy.types.Object) -> list[bpy.types.Object]:
    """Those of `together` that have shape keys."""
    return [thing for thing in together(target) if thing.data is not None and thing.data.shape_keys is not None]


def refusal(target: bpy.types.Object, scene: bpy.types.Scene) -> str | None:
    """Why the parts cannot be animated with the head, in words for the panel; None if they can. Cheap."""
    worn: dict[Any, str] = {}
    for thing in together(target):
        if thing != target:
            reason = mesh_io.refusal(thing, scene)
            if reason:
                return f"Parts of '{target.name}': {reason}"
        elif thing.data.override_library is not None and mapper.plan(target).make:
            return mesh_io.overridden(target)
        if thing.data in worn:
            return (f"'{worn[thing.data]}' and '{thing.name}' share the mesh '{thing.data.name}', and shape keys "
                    "belong to the mesh: give each its own (Object > Relations > Make Single User > Object & Data).")
        worn[thing.data] = thing.name
    return None


def read(target: bpy.types.Object) -> Joined:
    """The neutral meshes of the head and its parts. Raises Problem as `mesh_io.read` does."""
    head = mesh_io.read(target)
    meshes = [head]
    to_head = np.array(target.matrix_world.inverted_safe(), np.float64)
    for part in together(target)[1:]:
        matrix = to_head @ np.array(part.matrix_world, np.float64)
        linear, offset = head.to_engine @ matrix[:3, :3], head.to_engine @ matrix[:3, 3]
        own = mesh_io.read(part)
        meshes.append(replace(own, vertices=own.basis.astype(np.float64) @ linear.T + offset, to_engine=linear))
    return Joined(tuple(thing.name for thing in together(target)), tuple(meshes))


def missing_keys(thing: bpy.types.Object, names: tuple[str, ...]) -> list[str]:
    """Which of the shapes `names` may have to be made on a part: none where we made those that move it before, or where
    they would be lost."""
    present = set(mesh_io.existing_keys(thing))
    complete = mesh_io.made_keys(thing) or thing.data.override_library is not None
    return [] if complete else [name for name in names if name not in present]


def assign(target: bpy.types.Object, action: bpy.types.Action | None, tag: str) -> list[str]:
    """Let the Action animate the shape keys of the head and all its parts, or none of them.

    tag: custom property of our own Actions. One of the artist's that was active before gets a fake user, so that it
    survives saving; the names of these are returned.
    """
    set_aside = []
    for thing in keyed(target):
        before = compat.assigned(thing.data.shape_keys).action
        if before is not None and tag not in before:
            before.use_fake_user = True
            set_aside.append(before.name)
        compat.assign_action(thing.data.shape_keys, action)
    return list(dict.fromkeys(set_aside))


def release(part: bpy.types.Object, tag: str) -> None:
    """End that a take of ours animates an object which is no part any more. Its shape keys stay, at rest."""
    shape_keys = part.data.shape_keys if part.data is not None else None
    action = compat.assigned(shape_keys).action if shape_keys is not None else None
    if shape_keys is None or action is None or tag not in action:
        return
    compat.assign_action(shape_keys, None)
    for block in shape_keys.key_blocks:
        block.value = 0.0


def chosen(target: bpy.types.Object, things: list[bpy.types.Object]) -> list[bpy.types.Object]:
    """Of these objects, the meshes that can be added to the head's list. Raises Problem if there are none."""
    fresh = [thing for thing in things if thing.type == "MESH" and thing not in together(target)]
    if not fresh:
        raise Problem("Select the teeth, tongue, eyes or lashes in the 3D view first: mesh objects that are not in the "
                      f"list of '{target.name}' yet.")
    return fresh


def _is_part(self: Any, candidate: bpy.types.Object) -> bool:
    return candidate.type == "MESH" and candidate != self.id_data


class LSFPart(bpy.types.PropertyGroup):
    """One object that belongs to a face."""

    object: bpy.props.PointerProperty(
        name="Object", type=bpy.types.Object, poll=_is_part,
        description="Teeth, tongue, an eyeball, lashes, brows or a beard: an object that moves with the face",
        override={"LIBRARY_OVERRIDABLE"},
    )


def register() -> None:
    bpy.utils.register_class(LSFPart)
    bpy.types.Object.lsf_parts = bpy.props.CollectionProperty(
        type=LSFPart, name="Parts", override={"LIBRARY_OVERRIDABLE", "USE_INSERTION"})
    bpy.types.Object.lsf_active_part = bpy.props.IntProperty(name="Active Part", options={"HIDDEN"})


def unregister() -> None:
    del bpy.types.Object.lsf_active_part
    del bpy.types.Object.lsf_parts
    bpy.utils.unregister_class(LSFPart)
