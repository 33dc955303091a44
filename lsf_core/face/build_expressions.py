"""The 52 shapes of the template: ICT-FaceKit's scan-based shapes read through the registration, then made
to fit.

Order of the work: read and mirror-average; continue into what the registration does not cover (inner mouth,
sockets, back of the head); move teeth and tongue with the jaw; turn the eyeballs; solve the contacts
(build_contacts); lashes last. All arrays are in metres in the template's frame; deltas are (V, 3), shapes
(52, V, 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from scipy.sparse.csgraph import connected_components

from lsf_core.arkit import ARKIT_NAMES, INDEX, mirrored
from lsf_core.face.build_ict import LOWER_TEETH, Ict, rigid_motion
from lsf_core.face.build_mpfb import PART_NAMES, MpfbHead
from lsf_core.face.build_surface import laplacian
from lsf_core.face.build_topology import EYE_INNER, EYE_MARGIN, EYE_OUTER, Topology

JAW_SHAPES = ("jawOpen", "jawForward", "jawLeft", "jawRight")
GAZE_DEGREES = {
    "eyeLookUp": (-22.0, 0.0), "eyeLookDown": (28.0, 0.0), "eyeLookIn": (0.0, -32.0), "eyeLookOut": (0.0, 32.0),
}
"""Turn of the left eye at weight 1: about x (positive looks down) and about y (positive looks to the
subject's left)."""
BROW_GAIN = {"browDownLeft": 1.5, "browDownRight": 1.5, "browInnerUp": 1.25}
"""ICT's average scan lowers the brows by 3 mm: on a contact sheet nobody saw the anger in it."""
Motion = tuple[np.ndarray, np.ndarray]
"""Rotation (3, 3) and shift (3,): x -> R x + t."""
FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass
class Builder:
    """What every step needs. vertices (V, 3): the neutral mean head."""

    head: MpfbHead
    topology: Topology
    vertices: np.ndarray

    def __post_init__(self) -> None:
        self.skin = self.head.part == PART_NAMES.index("skin")
        self.lap = laplacian(self.head.faces, len(self.vertices))
        # bending with a little stretching: continues a slope, yet stays bounded far from what is known
        self.smooth = (self.lap.T @ self.lap + 0.02 * (self.lap + self.lap.T) / 2).tocsr()

    def part(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.head.part == PART_NAMES.index(name))

    def eye_centre(self, side: int) -> tuple[np.ndarray, float]:
        """Centre (3,) and radius of the eyeball without its cornea; side 0 left, 1 right (least-squares
        sphere)."""
        return fit_sphere(self.vertices[self.part(("eye_left", "eye_right")[side])])

    def fill(self, values: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Continue values (V, C) from known (V,) into the rest of the skin; other parts keep their values."""
        free = np.flatnonzero(~known & self.skin)
        fixed = np.flatnonzero(known & self.skin)
        right = -self.smooth[free][:, fixed] @ values[fixed]
        matrix = (self.smooth[free][:, free] + 1e-9 * sp.eye(len(free))).tocsc()
        out = values.copy()
        out[free] = spla.splu(matrix).solve(np.asarray(right))
        return out


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Least-squares sphere through points (N, 3): |p|^2 = 2 p.c + k is linear in c and k."""
    a = np.c_[2 * points, np.ones(len(points))]
    solution = np.linalg.lstsq(a, (points**2).sum(axis=1), rcond=None)[0]
    centre = solution[:3]
    return centre, float(np.sqrt(solution[3] + centre @ centre))


def symmetric(shapes: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Average of each shape (52, V, 3) with the mirror image of its counterpart on the other side."""
    other = np.array([INDEX[mirrored(n)] for n in ARKIT_NAMES])
    return (shapes + shapes[other][:, mirror] * FLIP) / 2


def rotation_about(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]] if axis == "x" else [[c, 0, s], [0, 1, 0], [-s, 0, c]])


def jaw_motions(ict: Ict, scale: float, rotation: np.ndarray, shift: np.ndarray) -> dict[str, Motion]:
    """Rigid motion of the lower jaw in each jaw shape, from ICT's lower teeth, in the template's frame.

    scale, rotation, shift: ICT frame -> template frame."""
    teeth = slice(*LOWER_TEETH)
    before = scale * ict.vertices[teeth] @ rotation.T + shift
    motions = {}
    for name in JAW_SHAPES:
        after = before + scale * ict.expressions[INDEX[name]][teeth] @ rotation.T
        motions[name] = rigid_motion(before, after)
    return motions


def _moved(points: np.ndarray, motion: Motion) -> np.ndarray:
    return points @ motion[0].T + motion[1] - points


def skin_shapes(build: Builder, covered: np.ndarray, read: np.ndarray, motions: dict[str, Motion], weight: np.ndarray
                ) -> np.ndarray:
    """ICT's deltas `read` (52, V, 3), good on covered (V,), continued over the whole skin.

    The rim of the neck and the far side of the head stay still, so do the depths of the eye sockets and the
    palate side of the mouth's tube; its floor goes with the jaw.
    """
    top, vertices = build.topology, build.vertices
    known = covered.copy()
    values = np.where(covered[None, :, None], read, 0.0)
    still = build.skin & (weight <= 0) & _beyond(build, covered, 8)
    still |= build.head.rim
    for eye in top.eyes:
        still[eye[12:].ravel()] = True
    palate = top.mouth[13:][:, np.r_[0:8, 31:38]]
    floor = top.mouth[13:16][:, np.r_[15:24]]
    # the back of the tube is the throat: still
    still[palate.ravel()] = True
    still[top.mouth[-1]] = True
    known[still] = True
    for eye in top.eyes:
        # the lid's thickness goes with its front edge
        for ring in (EYE_MARGIN + 1, EYE_MARGIN + 2):
            values[:, eye[ring]] = values[:, eye[EYE_MARGIN]]
            known[eye[ring]] = True
    for name, motion in motions.items():
        values[INDEX[name]][floor.ravel()] = _moved(vertices[floor.ravel()], motion)
    known[floor.ravel()] = True
    values[:, still] = 0.0
    # nothing but the jaw moves the floor of the mouth
    moved = build.fill(values.transpose(1, 0, 2).reshape(len(vertices), -1), known)
    return moved.reshape(len(vertices), len(values), 3).transpose(1, 0, 2)


def emphasise(shapes: np.ndarray) -> None:
    """Brow shapes (52, V, 3) strengthened in place by BROW_GAIN."""
    for name, gain in BROW_GAIN.items():
        shapes[INDEX[name]] *= gain


def soften(build: Builder, shapes: np.ndarray, passes: int = 3) -> None:
    """Smooth the shapes a little in place (displacements, not positions) away from lips and lids.

    ICT's creases are finer than the template's mesh; carried over they turn into single standing vertices.
    """
    free = build.skin & ~build.head.rim
    free[build.topology.mouth[2:].ravel()] = False
    for eye in build.topology.eyes:
        free[eye[3:].ravel()] = False
    step = sp.diags(np.where(free, 0.5, 0.0)) @ build.lap
    for _ in range(passes):
        for shape in shapes:
            shape -= step @ shape


def _beyond(build: Builder, covered: np.ndarray, steps: int) -> np.ndarray:
    """Vertices more than `steps` edges away from the covered ones (V,) bool."""
    adjacency = (build.lap != 0).astype(float)
    near = covered.astype(float)
    for _ in range(steps):
        near = (adjacency @ near > 0).astype(float)
    return near == 0


def carry_inner_parts(build: Builder, shapes: np.ndarray, mpfb: np.ndarray, motions: dict[str, Motion]) -> None:
    """Lower teeth and tongue go rigidly with the jaw; MPFB's tongueOut is kept whole; eyeballs turn about
    their centres."""
    for name in PART_NAMES[1:]:
        shapes[:, build.part(name)] = 0.0
    for name, motion in motions.items():
        for part in ("teeth_lower", "tongue"):
            index = build.part(part)
            shapes[INDEX[name]][index] = _moved(build.vertices[index], motion)
    shapes[INDEX["tongueOut"]] = mpfb[INDEX["tongueOut"]]
    for side, name in enumerate(("Left", "Right")):
        centre, _ = build.eye_centre(side)
        ball = build.part(f"eye_{name.lower()}")
        for gaze, (pitch, yaw) in GAZE_DEGREES.items():
            turn = rotation_about("y", yaw if side == 0 else -yaw) @ rotation_about("x", pitch)
            shapes[INDEX[gaze + name]][ball] = (build.vertices[ball] - centre) @ (turn.T - np.eye(3))


def lash_roots(build: Builder, side: int) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    """Lash vertices (P,), lid edge vertices (28,) and the rows (P, 28) that read the edge at each lash vertex.

    Upper lashes hang on the upper lid's edge only, lower ones on the lower; between the two nearest edge vertices the
    share goes with the distance, so that a lash bends as its lid does.
    """
    lashes = build.part(("lashes_left", "lashes_right")[side])
    rim = build.topology.eyes[side][EYE_MARGIN]
    faces = build.head.faces[np.isin(build.head.faces, lashes).all(axis=1)]
    number = {int(v): i for i, v in enumerate(lashes)}
    ends = np.array([[number[int(f[k])], number[int(f[(k + 1) % 4])]] for f in faces for k in range(4)])
    graph = sp.coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(lashes), len(lashes)))
    pieces, piece = connected_components(graph, directed=False)
    points, edge = build.vertices[lashes], build.vertices[rim]
    place = np.arange(len(rim))
    is_upper = (place <= EYE_INNER) | (place >= EYE_OUTER)
    is_lower = (place >= EYE_INNER) & (place <= EYE_OUTER)
    distance = np.linalg.norm(points[:, None] - edge[None], axis=2)
    weights = np.zeros(distance.shape)
    for i in range(pieces):
        own = np.flatnonzero(piece == i)
        # a piece belongs to the lid whose edge it touches along its length
        to_lid = [np.sort(distance[own][:, lid].min(axis=1))[: len(own) // 2].mean() for lid in (is_upper, is_lower)]
        lid = np.flatnonzero(is_upper if to_lid[0] < to_lid[1] else is_lower)
        near = lid[np.argsort(distance[own][:, lid], axis=1)[:, :2]]
        share = 1 / np.maximum(np.take_along_axis(distance[own], near, axis=1), 1e-5) ** 2
        for v, (a, b), (wa, wb) in zip(own, near, share, strict=True):
            weights[v, a], weights[v, b] = wa / (wa + wb), wb / (wa + wb)
    return lashes, rim, sp.csr_matrix(weights)


def carry_lashes(build: Builder, shapes: np.ndarray, mpfb: np.ndarray) -> None:
    """Lashes go with their lid's edge, plus MPFB's own turn of the lash against the lid as far as the lid goes."""
    for side in (0, 1):
        lashes, rim, rows = lash_roots(build, side)
        for i in range(len(shapes)):
            own, new = rows @ mpfb[i][rim], rows @ shapes[i][rim]
            travelled, travels = np.linalg.norm(own, axis=1), np.linalg.norm(new, axis=1)
            ratio = np.where(travelled > 1e-4, np.clip(travels / np.maximum(travelled, 1e-4), 0, 1), 0.0)
            shapes[i][lashes] = new + ratio[:, None] * (mpfb[i][lashes] - own)
