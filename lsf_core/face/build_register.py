"""Register the template to ICT-FaceKit's neutral once, so that every ICT head can be read in the template's
topology.

Lips and lids are matched by structure, not by distance: both meshes carry closed rings round the mouth and
the eyes, so a lip vertex is (place along the ring, arc length from the line where the lips meet). This is
what keeps upper and lower lip apart. The rest follows by closest points under a Laplacian penalty on
displacements (after Amberg et al. 2007, "Optimal Step Nonrigid ICP", section 3, with displacements in place
of affine maps), started from a statistical fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from lsf_core.face import build_ict
from lsf_core.face.build_ict import Ict, ring_rows
from lsf_core.face.build_mpfb import PART_NAMES, MpfbHead
from lsf_core.face.build_surface import Surface, laplacian, triangulate, vertex_normals
from lsf_core.face.build_topology import (
    EYE_INNER,
    EYE_MARGIN,
    EYE_OUTER,
    MOUTH_CORNER,
    MOUTH_SEAL,
    MOUTH_SIZE,
    Topology,
)

LIP_RINGS = range(3, 12)
"""Template rings whose ICT counterpart is found by structure: from just inside the vermilion border to the
inner lip."""
BORDER_BEYOND = 0.0015
"""The upper vermilion border lies this far (m) outside ICT's outermost mouth ring, measured at its landmark
51."""
PAIRS = {
    "nose_tip": 30, "nasion": 27, "nose_base": 33, "nose_wing_left": 35, "nose_wing_right": 31, "chin_bottom": 8,
    "brow_inner_left": 22, "brow_inner_right": 21, "brow_middle_left": 24, "brow_middle_right": 19,
    "brow_outer_left": 26, "brow_outer_right": 17,
}
"""Template landmark -> place in ICT's Multi-PIE 68."""


@dataclass
class Correspondence:
    """neutral (V, 3): the template in the shape of ICT's neutral, in ICT's frame (m). rows (V, N) sparse:
    reads ICT data at the template's vertices; rows of vertices outside `covered` (V,) bool are empty."""

    neutral: np.ndarray
    rows: sp.csr_matrix
    covered: np.ndarray
    distance: np.ndarray


def _places(template_ring: np.ndarray, template_stops: list[int], ict_ring: np.ndarray, ict_stops: list[int]
            ) -> np.ndarray:
    """Fractional place on the ICT ring (points) of each vertex of the template ring (points), by arc length
    between matching stops; stops are listed in walking order, start at 0 and are closed by the ring's
    size."""
    def lengths(points: np.ndarray) -> np.ndarray:
        step = np.linalg.norm(np.diff(np.r_[points, points[:1]], axis=0), axis=1)
        return np.r_[0, np.cumsum(step)]

    t, s = lengths(template_ring), lengths(ict_ring)
    out = np.zeros(len(template_ring))
    bounds = zip(zip(template_stops, [*template_stops[1:], len(template_ring)], strict=True),
                 zip(ict_stops, [*ict_stops[1:], len(ict_ring)], strict=True), strict=True)
    for (t0, t1), (i0, i1) in bounds:
        share = (t[t0:t1] - t[t0]) / (t[t1] - t[t0])
        out[t0:t1] = np.interp(share, (s[i0: i1 + 1] - s[i0]) / (s[i1] - s[i0]), np.arange(i0, i1 + 1))
    return out


def lip_rows(ict: Ict, vertices: np.ndarray, topology: Topology) -> tuple[np.ndarray, sp.csr_matrix]:
    """Template lip vertices (P,) and the rows (P, N) that read ICT at their counterparts. vertices:
    template, any pose."""
    rings, mouth = ict.mouth_rings, topology.mouth
    stops = [0, MOUTH_CORNER, MOUTH_SIZE // 2, MOUTH_SIZE - MOUTH_CORNER]
    ict_stops = [0, build_ict.MOUTH_LEFT, build_ict.MOUTH_SIZE // 2, build_ict.MOUTH_SIZE - build_ict.MOUTH_LEFT]
    place = _places(vertices[mouth[MOUTH_SEAL]], stops, ict.vertices[rings[build_ict.MOUTH_SEAL]], ict_stops)

    count = len(ict.vertices)
    index, radial, places = [], [], []
    for k in range(MOUTH_SIZE):
        column = np.stack([ring_rows(rings, np.array([float(r)]), place[k: k + 1], count) @ ict.vertices
                           for r in range(len(rings))])[:, 0]
        depth = np.r_[0, np.cumsum(np.linalg.norm(np.diff(column, axis=0), axis=1))]
        depth -= depth[build_ict.MOUTH_SEAL]
        own = vertices[mouth[:, k]]
        own_depth = np.r_[0, np.cumsum(np.linalg.norm(np.diff(own, axis=0), axis=1))]
        own_depth -= own_depth[MOUTH_SEAL]
        upper = k <= MOUTH_CORNER or k >= MOUTH_SIZE - MOUTH_CORNER
        # ICT's ring 0 runs inside the upper border but well under the lower one; rings 1.5 is about the lower border
        border = depth[0] - BORDER_BEYOND if upper else depth[1] * 0.5 + depth[2] * 0.5
        scale = border / own_depth[2]
        for r in LIP_RINGS:
            index.append(mouth[r, k])
            radial.append(np.interp(own_depth[r] * scale, depth, np.arange(len(depth))))
            places.append(place[k])
    return np.array(index), ring_rows(rings, np.array(radial), np.array(places), count)


def lid_rows(ict: Ict, vertices: np.ndarray, topology: Topology) -> tuple[np.ndarray, sp.csr_matrix]:
    """The same for the lids' front edges, both sides (the right one by ICT's mirror-symmetric rim)."""
    stops, ict_stops = [0, EYE_INNER, EYE_OUTER], [0, build_ict.EYE_INNER, build_ict.EYE_OUTER]
    index, rows = [], []
    mirror = ict_mirror(ict)
    for side, rim in enumerate((ict.left_lid, mirror[ict.left_lid])):
        ring = topology.eyes[side][EYE_MARGIN]
        place = _places(vertices[ring], stops, ict.vertices[rim], ict_stops)
        index.append(ring)
        rows.append(ring_rows(np.stack([rim, rim]), np.zeros(len(ring)), place, len(ict.vertices)))
    return np.concatenate(index), sp.vstack(rows).tocsr()


def ict_mirror(ict: Ict) -> np.ndarray:
    """(N,) the vertex on the other side; ICT's neutral is symmetric to 0.05 mm."""
    from scipy.spatial import cKDTree

    return cKDTree(ict.vertices).query(ict.vertices * [-1, 1, 1])[1]


def similarity(points: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale s, rotation R, shift t of target ~ s R x + t (Umeyama 1991)."""
    a, b = points.mean(axis=0), target.mean(axis=0)
    u, sigma, vt = np.linalg.svd((target - b).T @ (points - a))
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(flip) @ vt
    scale = (sigma * flip).sum() / ((points - a) ** 2).sum()
    return float(scale), rotation, b - scale * rotation @ a


def register(ict: Ict, head: MpfbHead, topology: Topology, mean: np.ndarray, modes: np.ndarray, weight: np.ndarray
             ) -> Correspondence:
    """mean (V, 3), modes (K, V, 3), weight (V,): identity space and fit weights of the template."""
    skin_triangles = triangulate(ict.skin_faces)
    surface = Surface(ict.vertices, skin_triangles)
    skin = np.flatnonzero(head.part == PART_NAMES.index("skin"))
    own_triangles = triangulate(head.faces[(head.part[head.faces] == 0).all(axis=1)])

    lip_index, lips = lip_rows(ict, mean, topology)
    lid_index, lids = lid_rows(ict, mean, topology)
    mark_index = np.array([topology.landmarks[n] for n in PAIRS])
    marks = ict.vertices[ict.landmarks68[list(PAIRS.values())]]
    fixed_index = np.r_[mark_index, lip_index, lid_index]
    fixed_goal = np.concatenate([marks, lips @ ict.vertices, lids @ ict.vertices])
    structured = np.zeros(len(mean), bool)
    structured[np.r_[lip_index, lid_index, topology.mouth[8:].ravel()]] = True
    for eye in topology.eyes:
        structured[eye[EYE_MARGIN:].ravel()] = True
    chin = np.array([n == "chin_bottom" or n.startswith("brow") for n in PAIRS])
    fixed_weight = np.r_[np.where(chin, 0.2, 1.0), np.full(len(lip_index), 0.5), np.full(len(lid_index), 2.0)]

    # 1. pose and identity: ridge fit of the modes to the fixed points, then also to closest points
    coefficients = np.zeros(len(modes))
    scale, rotation, shift = similarity(mean[fixed_index], fixed_goal)
    for step in range(6):
        current = mean + np.tensordot(coefficients, modes, axes=1)
        scale, rotation, shift = similarity(current[fixed_index], fixed_goal)
        posed = scale * current @ rotation.T + shift
        basis = scale * modes @ rotation.T
        index, goal, w = fixed_index, fixed_goal, fixed_weight
        if step >= 2:
            near = np.flatnonzero((weight > 0.3) & ~structured)
            normals = vertex_normals(posed, own_triangles)[near]
            triangle, bary, distance = surface.closest(posed[near], normals)
            use = distance < 0.015
            index = np.r_[index, near[use]]
            goal = np.concatenate([goal, surface.rows(triangle, bary)[np.flatnonzero(use)] @ ict.vertices])
            w = np.r_[w, 0.15 * weight[near[use]]]
        origin = scale * mean @ rotation.T + shift
        a = (basis[:, index] * np.sqrt(w)[None, :, None]).reshape(len(modes), -1).T
        b = ((goal - origin[index]) * np.sqrt(w)[:, None]).ravel()
        coefficients = np.linalg.solve(a.T @ a + 2e-6 * np.eye(len(modes)), a.T @ b)
    start = scale * (mean + np.tensordot(coefficients, modes, axes=1)) @ rotation.T + shift

    # 2. non-rigid: closest points with a bending penalty that is relaxed step by step
    lap = laplacian(head.faces, len(mean), start)
    bend = (lap.T @ lap).tocsr()
    current = start.copy()
    for stiffness in (300, 100, 40, 15, 6, 3, 1.5, 0.8, 0.5, 0.5):
        near = np.flatnonzero((weight > 0.02) & ~structured)
        normals = vertex_normals(current, own_triangles)[near]
        triangle, bary, distance = surface.closest(current[near], normals)
        goal = surface.rows(triangle, bary) @ ict.vertices
        use = distance < 0.02
        w = np.zeros(len(mean))
        target = np.zeros((len(mean), 3))
        w[near[use]] = weight[near[use]] * np.exp(-((distance[use] / 0.008) ** 2))
        target[near[use]] = goal[use] * w[near[use], None]
        np.add.at(w, fixed_index, 3 * fixed_weight)
        np.add.at(target, fixed_index, 3 * fixed_weight[:, None] * fixed_goal)
        system = (stiffness * bend + sp.diags(w) + 1e-6 * sp.eye(len(mean))).tocsc()
        current = start + spla.splu(system).solve(target - w[:, None] * start)

    # 3. read-out: closest point on the surface; lips and lids by structure
    near = np.flatnonzero((weight > 0.02) & ~structured)
    normals = vertex_normals(current, own_triangles)[near]
    triangle, bary, distance = surface.closest(current[near], normals)
    use = distance < 0.003
    covered = np.zeros(len(mean), bool)
    covered[near[use]] = True
    covered[np.r_[lip_index, lid_index]] = True
    gaps = np.zeros(len(mean))
    select = sp.csr_matrix((np.ones(use.sum()), (near[use], np.flatnonzero(use))), shape=(len(mean), len(near)))
    rows = select @ surface.rows(triangle, bary)
    for found, part in ((lip_index, lips), (lid_index, lids)):
        scatter = sp.csr_matrix((np.ones(len(found)), (found, np.arange(len(found)))), shape=(len(mean), len(found)))
        rows += scatter @ part
    neutral = current.copy()
    neutral[covered] = (rows @ ict.vertices)[covered]
    gaps[near] = distance
    hidden = np.setdiff1d(skin, np.flatnonzero(covered))
    neutral[hidden] = current[hidden]
    return Correspondence(neutral, rows.tocsr(), covered, gaps)
