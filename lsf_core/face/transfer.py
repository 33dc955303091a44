"""Deformation transfer: the template's expressions on the registered template, then on the mesh's own vertices.

First step, Sumner and Popović, Deformation Transfer for Triangle Meshes (SIGGRAPH 2004): each triangle of the
registered template is asked to deform by the gradient of its counterpart in the template. In the form of Botsch et al.
(2006) this is a Poisson equation with the cotangent Laplacian: one sparse factorisation serves all shapes.
Second step: the deltas are read at each vertex of the mesh through the labelled correspondence, and one more
factorised solve smooths them to the millimetre and fills in what no correspondence covers (mouth bag, nostrils,
eye sockets).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, diags
from scipy.spatial import cKDTree

from ..arkit import INDEX
from .correspond import Finder
from .mesh import Surface
from .register import Registration, factorised, smoothness

SCREEN_MM, SCREEN_DRAWN_MM = 3.0, 6.0
"""Beyond this length the transfer follows the plain offsets, below it the gradients: gradients alone drift. People's
offsets hardly change with their features' sizes; those of a drawn head do."""
SMOOTH_MM = 0.7
"""Length over which transferred offsets are smoothed; about the resolution of the template around the lips."""
UNLIKE_MM = 4.0
"""A vertex that jawOpen would take this far from the mean of its neighbours is half distrusted; on heads of 1,000
vertices as on dense ones lips differ less from vertex to vertex where both are right."""
TORN_MM, TORN_SHARE, TORN_RAMP_MM = 6.0, 0.5, 4.0
"""An edge at the lips that jawOpen lengthens by more than this and this share of its length begins to be torn, and is
wholly so some millimetres on. Dense meshes have none: skin is not so steep even at the corners."""
TORN_WEIGHT = 0.2
"""Pull between neighbours 1 mm apart at torn edges, against 1 of a sure match."""
TORN_NEAR_MM, TORN_ROUNDS = 10.0, 2
TORN_TOLD_MM = 2.0
"""So much of a tear that is left is told."""
AT_ONCE = 8
"""Fields carried at a time: half as long as one by one, and memory for no more than these."""
COVER_MM = 6.0
"""A vertex farther than this from the registered template is not covered by it."""


def gradient_basis(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (T,3 corners,3) of the three hat functions of each triangle, and areas (T,)."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    double = np.linalg.norm(cross, axis=1)
    normal = cross / np.maximum(double, 1e-12)[:, None]
    # Slivers have huge gradients and no say in how a face moves; the floor bounds them.
    safe = np.maximum(double, 1e-3 * np.median(double[double > 0]))[:, None]
    return np.stack([np.cross(normal, c - b), np.cross(normal, a - c), np.cross(normal, b - a)], 1) / safe[:, None], \
        0.5 * double


def frames(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(T,3,3) columns e1, e2 and the normal over the square root of its length (Sumner and Popović 2004, section 3)."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    normal = cross / np.sqrt(np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-12))
    return np.stack([b - a, c - a, normal], axis=2)


def deform_template(source: np.ndarray, deltas: np.ndarray, target: np.ndarray, triangles: np.ndarray,
                    scale: np.ndarray | float = 1.0, screen: float = SCREEN_MM) -> np.ndarray:
    """Transfer `deltas` (K,W,3) of `source` (W,3) to `target` (W,3), all mm, same triangles (T,3). Returns (K,W,3).

    `scale` (W,) or number: factor for the plain offsets that anchor the solution at lengths beyond `screen` mm.
    """
    count = len(source)
    basis, area = gradient_basis(target, triangles)
    pairs = np.einsum("t,tic,tjc->tij", area, basis, basis)
    rows = np.repeat(triangles, 3, axis=1).ravel()
    cols = np.tile(triangles, (1, 3)).ravel()
    stiff = coo_matrix((pairs.ravel(), (rows, cols)), shape=(count, count)).tocsc()
    mass = np.bincount(triangles.ravel(), np.repeat(area / 3, 3), minlength=count) + 1e-6
    mass = mass / screen**2
    moving = np.abs(deltas).max((0, 2)) > 1e-3
    mass[~moving] *= 1e4  # what never moves in the template must not move here
    solver = factorised((stiff + diags(mass)).tocsc())
    inverse = np.linalg.inv(frames(source, triangles) + 1e-9 * np.eye(3))
    goal = np.broadcast_to(np.reshape(scale, (-1, 1)), (count, 1))
    # Integrates gradients (T,3) against the hat functions: (count, 3 T).
    place = np.broadcast_to(3 * np.arange(len(triangles))[:, None, None] + np.arange(3), basis.shape)
    rows = np.broadcast_to(triangles[..., None], basis.shape).ravel()
    integral = csr_matrix(((area[:, None, None] * basis).ravel(), (rows, place.ravel())),
                          shape=(count, 3 * len(triangles)))
    result = np.empty((len(deltas), count, 3))
    for k, delta in enumerate(deltas):
        change = frames(source + delta, triangles) @ inverse - np.eye(3)  # deformation gradient minus identity
        change = np.clip(change, -6, 6)
        # The gradient that the displacement should have on the target: change @ grad x, and grad x = projector.
        right = integral @ change.transpose(0, 2, 1).reshape(-1, 3)
        result[k] = solver.solve(right + mass[:, None] * goal * delta)
    return result


def skin_deltas(result: Registration) -> np.ndarray:
    """The template's expressions on the registered skin: (52,S,3) mm, before contacts."""
    prepared = result.prepared
    source = prepared.vertices[prepared.skin]
    deltas = prepared.template.expressions[:, prepared.skin].astype(np.float64) * 1000.0
    return deform_template(source, deltas, result.vertices[prepared.skin], prepared.surface.triangles,
                           screen=SCREEN_DRAWN_MM if result.fit.shape.style.any() else SCREEN_MM)


class Carrier:
    """Carries fields from the registered skin (S,...) to the mesh's skin vertices, smoothed and filled in.

    Everything that does not depend on the field (matches, factorisation) is done once in the constructor.
    """

    def __init__(self, result: Registration) -> None:
        prepared, whole = result.prepared, result.whole
        self.index = np.flatnonzero(result.skin)
        local = np.full(len(whole.vertices), -1)
        local[self.index] = np.arange(len(self.index))
        triangles = local[whole.triangles[result.skin[whole.triangles].all(1)]]
        self.surface = Surface(whole.vertices[self.index], triangles, np.arange(len(self.index)))
        self.template = Surface(result.vertices[prepared.skin], prepared.surface.triangles, prepared.surface.weld)
        finder = Finder(self.template, prepared.labels, samples=20000)
        self.match = finder.query(self.surface.vertices, self.surface.normals, result.labels[self.index], k=10)
        distance = np.linalg.norm(self.match.position - self.surface.vertices, axis=1)
        agree = (self.match.normal * self.surface.normals).sum(1)
        trust = self.match.interpolate(self.template.triangles, 0.05 + prepared.weight)
        cover = np.clip((agree - 0.2) / 0.4, 0, 1) * np.exp(-((distance / COVER_MM) ** 2)) * np.minimum(trust, 1.0)
        cover[np.abs(self.match.label - result.labels[self.index]).max(1) > 1.0] = 0.0  # the other lip or lid
        cover[cover < 0.004] = 0.0
        # Far from the template (shoulders, the back of long hair) nothing moves.
        self.far = np.clip(distance / 20.0 - 1.0, 0.0, 1.0)
        jaw = prepared.template.expressions[INDEX["jawOpen"], prepared.skin].astype(np.float64) * 1000.0
        self.cover = cover * self._agreement(jaw, cover)
        lips = result.vertices[np.concatenate([prepared.template.loops[f"lip_{side}_inner"]
                                               for side in ("upper", "lower")])]
        near = cKDTree(lips).query(self.surface.vertices, distance_upper_bound=TORN_NEAR_MM)[0] < TORN_NEAR_MM
        self.at_lips = np.flatnonzero(near[self.surface.edges].all(1))
        system = self._system()
        self.solver = factorised(system)
        self._share_tears(system, jaw)
        left = self.torn(self.carry(jaw[None])[0])
        if left.max(initial=0.0) > TORN_TOLD_MM:
            result.warnings.append(
                f"At a corner of the mouth {int((left > 0.0).sum())} edges of the mesh tear when the jaw opens, as its "
                "faces join both lips there: give it more edges at the corner, or smooth the shape jawOpen there.")

    def torn(self, delta: np.ndarray) -> np.ndarray:
        """How far (mm) a shape (n,3) lengthens each edge at the lips (`at_lips`) beyond what skin bears."""
        a, b = self.surface.vertices[self.surface.edges[self.at_lips]].transpose(1, 0, 2)
        da, db = delta[self.surface.edges[self.at_lips]].transpose(1, 0, 2)
        length = np.linalg.norm(a - b, axis=1)
        return np.linalg.norm(a + da - b - db, axis=1) - (1.0 + TORN_SHARE) * length - TORN_MM

    def _share_tears(self, system: csc_matrix, jaw: np.ndarray) -> None:
        """Where one edge at the lips would take the whole opening of the mouth, its neighbours take their share.

        The corners of a coarse mouth are webs: their faces join the lips where the template has a slit, and no match
        is right for a vertex that belongs to both.
        """
        n, edges = len(self.surface.vertices), self.surface.edges[self.at_lips]
        length = np.linalg.norm(self.surface.vertices[edges[:, 0]] - self.surface.vertices[edges[:, 1]], axis=1)
        tear = np.zeros(len(edges))
        for _ in range(TORN_ROUNDS):
            new = np.clip(self.torn(self.carry(jaw[None])[0]) / TORN_RAMP_MM, 0.0, 1.0)
            if not (new > tear).any():
                return
            tear = np.maximum(tear, new)
            worst = np.zeros(n)
            np.maximum.at(worst, edges.ravel(), np.repeat(tear, 2))
            pull = TORN_WEIGHT * worst[edges].max(1) / np.maximum(length, 1.0)
            both = np.concatenate([edges, edges[:, ::-1]])
            joined = coo_matrix((np.tile(pull, 2), (both[:, 0], both[:, 1])), shape=(n, n)).tocsr()
            self.solver = factorised((system + diags(np.asarray(joined.sum(1)).ravel()) - joined).tocsc())

    def _agreement(self, jaw: np.ndarray, cover: np.ndarray) -> np.ndarray:
        """(n,) near 0 for a vertex that would move wholly unlike its neighbours in jawOpen: its match is on the wrong
        lip. jaw (S,3): jawOpen of the template.

        At the corners of the mouth no label tells the lips apart, and the normal of a coarse rim may point anywhere.
        """
        e = self.surface.edges
        n = len(self.surface.vertices)
        read = self.match.interpolate(self.template.triangles, jaw)
        length = np.linalg.norm(self.surface.vertices[e[:, 0]] - self.surface.vertices[e[:, 1]], axis=1)
        w = 1.0 / np.maximum(length, 1.0)
        both = np.concatenate([e, e[:, ::-1]])
        near = coo_matrix((np.tile(w, 2) * (cover[both[:, 1]] + 1e-6), (both[:, 0], both[:, 1])), shape=(n, n))
        near = near.tocsr()
        total = np.maximum(np.asarray(near.sum(1)).ravel(), 1e-12)
        unlike = np.linalg.norm(read - near @ read / total[:, None], axis=1)
        unlike[np.bincount(e.ravel(), minlength=n) == 0] = 0.0
        return 1.0 / (1.0 + (unlike / UNLIKE_MM) ** 6)

    def _system(self) -> csc_matrix:
        surface = self.surface
        e = surface.edges
        n = len(surface.vertices)
        length = np.linalg.norm(surface.vertices[e[:, 0]] - surface.vertices[e[:, 1]], axis=1)
        count = np.bincount(e.ravel(), minlength=n)
        mean = np.bincount(e.ravel(), np.repeat(length, 2), minlength=n) / np.maximum(count, 1)
        lap = diags(4.0 / np.maximum(mean, 0.25) ** 2) @ smoothness(surface)  # about the Laplacian in 1/mm^2
        bend = SMOOTH_MM**4 * (lap.T @ lap)
        w = 1.0 / np.maximum(length, 0.25) ** 2
        both = np.concatenate([e, e[:, ::-1]])
        adjacency = coo_matrix((np.tile(w, 2), (both[:, 0], both[:, 1])), shape=(n, n)).tocsr()
        stretch = diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
        return (diags(self.cover + self.far + 1e-6) + bend + 2e-3 * stretch).tocsc()

    def carry(self, field: np.ndarray) -> np.ndarray:
        """(K,S,3) on the registered skin -> (K,n,3) on the mesh's skin vertices (`index`)."""
        result = np.empty((len(field), len(self.index), 3), np.float32)
        for k in range(0, len(field), AT_ONCE):
            values = np.moveaxis(field[k: k + AT_ONCE], 0, 1)
            read = self.match.interpolate(self.template.triangles, np.ascontiguousarray(values))
            solved = self.solver.solve((self.cover[:, None, None] * read).reshape(len(read), -1))
            result[k: k + AT_ONCE] = np.moveaxis(solved.reshape(read.shape), 1, 0)
        return result
