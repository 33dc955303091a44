"""Read ICT-FaceKit Light: neutral, identities, expressions, lip and lid rings. MIT License, (c) 2020 USC ICT.

The npz is described in its own README (arrays verts, faces, identity, expressions, expression_names,
landmarks68, ...). Its unit is the centimetre; everything leaves this module in metres, y up, face to +z,
subject's left = +x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from lsf_core.arkit import ARKIT_NAMES
from lsf_core.errors import MeshError
from lsf_core.face.build_topology import QuadMesh

CENTIMETRE = 0.01
SKIN = 11248
"""Vertices [0, SKIN) are face, head and neck; the mouth and eye sockets follow up to POCKETS."""
POCKETS = 14062
LOWER_TEETH = (19247, 21451)
MOUTH_COLUMN = (1147, 1178)
"""Edge on the midline under the nose; walking on crosses the mouth's rings from vertex MOUTH_FIRST on."""
MOUTH_FIRST, MOUTH_RINGS, MOUTH_SIZE, MOUTH_SEAL, MOUTH_LEFT = 5525, 25, 74, 7, 19
EYE_START, EYE_SIZE, EYE_INNER, EYE_OUTER = (3787, 3786), 42, 7, 29
"""First edge of the left lid's rim, walked from the upper middle towards the inner corner."""


@dataclass
class Ict:
    """vertices (N, 3) m; faces (M, 4); identity (100, N, 3); expressions (52, N, 3) in ARKIT order,
    tongueOut zero."""

    vertices: np.ndarray
    faces: np.ndarray
    identity: np.ndarray
    expressions: np.ndarray
    landmarks68: np.ndarray

    @cached_property
    def skin_faces(self) -> np.ndarray:
        """Quads of face, head and neck, and of the first rings of the mouth socket (S, 4)."""
        used = np.zeros(len(self.vertices), bool)
        used[:SKIN] = True
        used[self.mouth_rings.ravel()] = True
        return self.faces[used[self.faces].all(axis=1)]

    @cached_property
    def _walker(self) -> QuadMesh:
        return QuadMesh(self.faces[(self.faces < POCKETS).all(axis=1)])

    @cached_property
    def mouth_rings(self) -> np.ndarray:
        """(25, 74): ring 0 near the vermilion border, 7 where the lips meet; place 0 upper middle, 19 left
        corner."""
        column = self._walker.walk(*MOUTH_COLUMN, 60)
        start = column.index(MOUTH_FIRST)
        rings, on_column = [], set(column)
        for v in column[start: start + MOUTH_RINGS]:
            sides = [n for n in self._walker.neighbours[v] if n not in on_column]
            beside = sides[int(np.argmax(self.vertices[sides, 0]))]
            ring = self._walker.walk(v, beside, 300)
            if len(ring) != MOUTH_SIZE:
                raise MeshError(f"ICT-FaceKit: the mouth ring at vertex {v} has {len(ring)} vertices, not 74.")
            rings.append(ring)
        return np.array(rings)

    @cached_property
    def left_lid(self) -> np.ndarray:
        """(42,) rim of the left lids: place 0 upper middle, 7 inner corner, 29 outer corner."""
        ring = self._walker.walk(*EYE_START, 300)
        if len(ring) != EYE_SIZE:
            raise MeshError(f"ICT-FaceKit: the lid's rim has {len(ring)} vertices, not {EYE_SIZE}.")
        return np.array(ring)


def load_ict(path: Path) -> Ict:
    """Read ict_facekit.npz and form the 51 ARKit shapes that it has (two of them from their halves)."""
    if not path.exists():
        raise MeshError(f"{path} does not exist; give --ict the npz of ICT-FaceKit Light.")
    with np.load(path) as data:
        found = {str(n): e.astype(np.float64) * CENTIMETRE
                 for n, e in zip(data["expression_names"], data["expressions"], strict=True)}
        vertices = data["verts"].astype(np.float64) * CENTIMETRE
        shapes = np.zeros((len(ARKIT_NAMES), *vertices.shape))
        for i, name in enumerate(ARKIT_NAMES):
            if name in found:
                shapes[i] = found[name]
            elif name + "Left" in found:
                shapes[i] = found[name + "Left"] + found[name + "Right"]
            elif name != "tongueOut":
                raise MeshError(f"{path} has no shape for {name}.")
        return Ict(vertices, data["faces"].astype(np.int64), data["identity"].astype(np.float64) * CENTIMETRE, shapes,
                   data["landmarks68"].astype(np.int64))


def rigid_motion(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation R (3, 3) and shift t (3,) that best turn points before (N, 3) into after: R x + t
    (Kabsch 1976)."""
    a, b = before.mean(axis=0), after.mean(axis=0)
    u, _, vt = np.linalg.svd((after - b).T @ (before - a))
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return rotation, b - rotation @ a


def ring_rows(rings: np.ndarray, radial: np.ndarray, place: np.ndarray, count: int) -> sp.csr_matrix:
    """Rows that read a closed grid of rings (R, S) at fractional ring `radial` (N,) and place (N,) -> (N,
    count) sparse."""
    size = rings.shape[1]
    low = np.clip(np.floor(radial).astype(int), 0, len(rings) - 2)
    a = np.clip(radial - low, 0, 1)
    left = np.floor(place).astype(int)
    b = place - left
    row = np.arange(len(radial))
    parts = [((1 - a) * (1 - b), rings[low, left % size]), (a * (1 - b), rings[low + 1, left % size]),
             ((1 - a) * b, rings[low, (left + 1) % size]), (a * b, rings[low + 1, (left + 1) % size])]
    return sp.csr_matrix((np.concatenate([w for w, _ in parts]),
                          (np.tile(row, 4), np.concatenate([c for _, c in parts]))), shape=(len(radial), count))
