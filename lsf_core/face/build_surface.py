"""Small geometry kit of the template's builder: cotangent-free Laplacian, closest points, smooth fill."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from scipy.spatial import cKDTree


def triangulate(faces: np.ndarray) -> np.ndarray:
    """(M, 4) quads or -1 padded triangles -> (T, 3)."""
    first, quads = faces[:, :3], faces[faces[:, 3] >= 0]
    return np.concatenate([first, quads[:, [0, 2, 3]]])


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, weighted by area."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, triangles[:, k], normal)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)


def laplacian(faces: np.ndarray, count: int, vertices: np.ndarray | None = None) -> sp.csr_matrix:
    """Random-walk Laplacian I - D^-1 W of the edges of quads (count, count); W = 1, or 1/length where
    vertices are given."""
    ends = np.concatenate([np.stack([faces[:, k], faces[:, (k + 1) % 4]], 1) for k in range(4)])
    ends = np.unique(np.sort(ends, axis=1), axis=0)
    weight = np.ones(len(ends))
    if vertices is not None:
        weight = 1 / np.maximum(np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1), 1e-5)
    w = sp.coo_matrix((np.r_[weight, weight], (np.r_[ends[:, 0], ends[:, 1]], np.r_[ends[:, 1], ends[:, 0]])),
                      shape=(count, count)).tocsr()
    degree = np.asarray(w.sum(axis=1)).ravel()
    return (sp.eye(count) - sp.diags(1 / np.maximum(degree, 1e-12)) @ w).tocsr()


def fill(values: np.ndarray, known: np.ndarray, lap: sp.csr_matrix, order: int = 2) -> np.ndarray:
    """Continue values (V, C) smoothly from the known vertices (V,) bool into the others: least bending
    (order 2) or least stretching (order 1) in the Laplacian's sense."""
    operator = lap.copy() if order == 1 else (lap.T @ lap).tocsr()
    free = np.flatnonzero(~known)
    if not len(free):
        return values
    fixed = np.flatnonzero(known)
    right = -operator[free][:, fixed] @ values[fixed]
    out = values.copy()
    out[free] = spla.splu((operator[free][:, free] + 1e-9 * sp.eye(len(free))).tocsc()).solve(np.asarray(right))
    return out


class Surface:
    """Closest points on a triangle mesh, as barycentric rows. vertices (N, 3), triangles (T, 3)."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        self.vertices, self.triangles = vertices, triangles
        self.tree = cKDTree(vertices[triangles].mean(axis=1))
        a, b, c = (vertices[triangles[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        self.normals = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)

    def closest(self, points: np.ndarray, normals: np.ndarray | None = None, candidates: int = 24
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """-> triangle (P,), barycentric (P, 3), distance (P,). With normals (P, 3), triangles that face
        away by more than 60 degrees are left out where any other candidate is left."""
        _, near = self.tree.query(points, k=min(candidates, len(self.triangles)))
        corner = self.vertices[self.triangles[near]]
        bary = closest_barycentric(points[:, None], corner)
        hit = (bary[..., None] * corner).sum(axis=2)
        distance = np.linalg.norm(hit - points[:, None], axis=2)
        cost = distance.copy()
        if normals is not None:
            cost[(self.normals[near] * normals[:, None]).sum(axis=2) < 0.5] += 1.0
        best = cost.argmin(axis=1)
        row = np.arange(len(points))
        return near[row, best], bary[row, best], cost[row, best]

    def rows(self, triangle: np.ndarray, bary: np.ndarray) -> sp.csr_matrix:
        """Barycentric interpolation as a sparse matrix (P, N)."""
        row = np.repeat(np.arange(len(triangle)), 3)
        return sp.csr_matrix((bary.ravel(), (row, self.triangles[triangle].ravel())),
                             shape=(len(triangle), len(self.vertices)))


def closest_barycentric(points: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Barycentric coordinates (..., 3) of the point of a triangle (..., 3, 3) closest to points (..., 3).

    Method: Ericson, Real-Time Collision Detection (2005), section 5.1.5, by regions; here vectorised as the
    best of the plane's foot, where it is inside, and the three edges.
    """
    a, b, c = corner[..., 0, :], corner[..., 1, :], corner[..., 2, :]
    points = np.broadcast_to(points, a.shape)
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    denominator = np.maximum(d00 * d11 - d01 * d01, 1e-24)
    v = (d11 * d20 - d01 * d21) / denominator
    w = (d00 * d21 - d01 * d20) / denominator
    plane = np.stack([1 - v - w, v, w], -1)
    options, costs = [plane], [np.where((plane >= 0).all(-1), 0.0, np.inf)]

    def along(p: np.ndarray, q: np.ndarray, i: int, j: int) -> None:
        edge = q - p
        t = np.clip(((points - p) * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-24), 0, 1)
        bary = np.zeros(plane.shape)
        bary[..., i], bary[..., j] = 1 - t, t
        options.append(bary)
        costs.append(((p + t[..., None] * edge - points) ** 2).sum(-1))

    along(a, b, 0, 1)
    along(b, c, 1, 2)
    along(c, a, 2, 0)
    best = np.argmin(np.stack(costs, -1), -1)
    return np.take_along_axis(np.stack(options, -2), best[..., None, None], -2)[..., 0, :]
