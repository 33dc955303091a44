"""What the template's mesh means: rings round the mouth and the eyes, lips, lids, landmarks.

MakeHuman's head is all quads with clean concentric edge rings: 38 vertices round the mouth, 28 round each
eye, carried on into the mouth tube and the eye socket. Walking them gives every lip and lid vertex two
exact coordinates (which ring, which place on it), so that nothing here depends on distances. Vertex numbers
are those of MakeHuman's base mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lsf_core.errors import MeshError


class QuadMesh:
    """Walks over a quad mesh. faces (M, 4)."""

    def __init__(self, faces: np.ndarray) -> None:
        self.edge_faces: dict[frozenset[int], set[int]] = {}
        self.neighbours: dict[int, set[int]] = {}
        for k, face in enumerate(faces.tolist()):
            for a, b in zip(face, face[1:] + face[:1], strict=True):
                self.edge_faces.setdefault(frozenset((a, b)), set()).add(k)
                self.neighbours.setdefault(a, set()).add(b)
                self.neighbours.setdefault(b, set()).add(a)

    def straight_on(self, a: int, b: int) -> int | None:
        """The vertex after b when coming from a, straight across b; None where b has not four neighbours."""
        if len(self.neighbours[b]) != 4:
            return None
        beside = self.edge_faces[frozenset((a, b))]
        ahead = [c for c in self.neighbours[b] if c != a and not self.edge_faces[frozenset((b, c))] & beside]
        return ahead[0] if len(ahead) == 1 else None

    def walk(self, a: int, b: int, count: int) -> list[int]:
        """Up to `count` vertices straight on from the edge a -> b; stops before coming round to a."""
        path = [a, b]
        while len(path) < count:
            c = self.straight_on(path[-2], path[-1])
            if c is None or c == a:
                break
            path.append(c)
        return path

MOUTH_SEED = (5342, 362)
"""MakeHuman vertices on the midline of the upper lip: the outermost whole ring round the mouth, and the
next one in."""
EYE_SEED = (6946, 6929)
"""The same above the left eye: outside the first whole ring, and on it."""
MOUTH_RINGS, MOUTH_SIZE, MOUTH_CORNER, MOUTH_SEAL = 18, 38, 12, 8
"""Rings walked, vertices in each, place of the left corner (from the upper middle, towards the left), ring
that seals."""
EYE_RINGS, EYE_SIZE, EYE_INNER, EYE_OUTER, EYE_MARGIN = 18, 28, 7, 22, 6
"""Rings walked, vertices in each, places of the inner and outer corner (from the upper middle), ring of the
lid's edge."""

_MIDDLE = {"nasion": 132, "nose_bridge": 164, "nose_tip": 5054, "nose_base": 317, "chin": 5162, "chin_bottom": 5296}
_LEFT = {
    "nostril": 7094, "nose_wing": 11673, "brow_inner": 6983, "brow_middle": 6979, "brow_outer": 6982,
    "ear_top": 12012, "ear_lobe": 12005, "ear_front": 12324,
}


@dataclass(frozen=True)
class Topology:
    """Rings and landmarks as vertex indices of the cut.

    mouth (R, 38): ring 0 lies outside the lips, ring `MOUTH_SEAL` is where they meet, later ones line the
    mouth; place 0 is the upper middle, 12 the left corner, 19 the lower middle, 26 the right corner. eyes
    ((R, 28) left, right): ring `EYE_MARGIN` is the lid's front edge, later ones line the socket; place 0 is
    the upper middle, 7 the inner corner, 22 the outer.
    """

    mouth: np.ndarray
    eyes: tuple[np.ndarray, np.ndarray]
    landmarks: dict[str, int]

    @property
    def lip_upper_inner(self) -> np.ndarray:
        """From the right corner to the left corner (both included) along the upper lip's inner line."""
        ring = self.mouth[MOUTH_SEAL]
        return np.concatenate([ring[MOUTH_SIZE - MOUTH_CORNER:], ring[: MOUTH_CORNER + 1]])

    @property
    def lip_lower_inner(self) -> np.ndarray:
        ring = self.mouth[MOUTH_SEAL]
        return ring[MOUTH_CORNER: MOUTH_SIZE - MOUTH_CORNER + 1][::-1]

    def lid_upper(self, side: int) -> np.ndarray:
        """From the inner to the outer corner, both included; side 0 left, 1 right."""
        ring = self.eyes[side][EYE_MARGIN]
        return np.concatenate([ring[EYE_OUTER:], ring[: EYE_INNER + 1]])[::-1]

    def lid_lower(self, side: int) -> np.ndarray:
        return self.eyes[side][EYE_MARGIN][EYE_INNER: EYE_OUTER + 1]


def _rings(mesh: QuadMesh, column: list[int], towards: np.ndarray, size: int) -> np.ndarray:
    """The closed rings that cross a column of vertices. towards (V,): the ring is walked to where this
    value is larger."""
    rings = []
    on_column = set(column)
    for vertex in column:
        sides = [v for v in mesh.neighbours[vertex] if v not in on_column]
        start = max(sides, key=lambda v: towards[v])
        ring = mesh.walk(vertex, start, 4 * size)
        if len(ring) != size:
            raise MeshError(f"The ring through vertex {vertex} has {len(ring)} vertices, not {size}: other base mesh")
        rings.append(ring)
    return np.array(rings)


def read_topology(vertices: np.ndarray, faces: np.ndarray, source: np.ndarray, mirror: np.ndarray) -> Topology:
    """Walk the rings of the cut. source, mirror: see build_mpfb.MpfbHead."""
    mesh = QuadMesh(faces)
    cut = {int(s): i for i, s in enumerate(source)}
    column = mesh.walk(cut[MOUTH_SEED[0]], cut[MOUTH_SEED[1]], MOUTH_RINGS)
    mouth = _rings(mesh, column, vertices[:, 0], MOUTH_SIZE)
    column = mesh.walk(cut[EYE_SEED[0]], cut[EYE_SEED[1]], EYE_RINGS + 1)
    left = _rings(mesh, column[1:], -vertices[:, 0], EYE_SIZE)
    eyes = (left, mirror[left])

    seal, corner = mouth[MOUTH_SEAL], MOUTH_CORNER
    marks = {name: cut[v] for name, v in _MIDDLE.items()}
    for name, v in _LEFT.items():
        marks[f"{name}_left"], marks[f"{name}_right"] = cut[v], int(mirror[cut[v]])
    for side, ring in zip(("left", "right"), (left, mirror[left]), strict=True):
        margin = ring[EYE_MARGIN]
        marks[f"eye_inner_{side}"], marks[f"eye_outer_{side}"] = int(margin[EYE_INNER]), int(margin[EYE_OUTER])
        marks[f"eye_upper_{side}"], marks[f"eye_lower_{side}"] = int(margin[0]), int(margin[14])
    marks |= {
        "mouth_left": int(seal[corner]), "mouth_right": int(seal[MOUTH_SIZE - corner]),
        "lip_upper_top": int(mouth[2][0]), "lip_upper_inner": int(seal[0]),
        "lip_lower_inner": int(seal[MOUTH_SIZE // 2]), "lip_lower_bottom": int(mouth[2][MOUTH_SIZE // 2]),
        "lip_peak_left": int(mouth[2][2]), "lip_peak_right": int(mouth[2][MOUTH_SIZE - 2]),
    }
    return Topology(mouth, eyes, marks)
