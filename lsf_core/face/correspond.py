"""Closest points between two surfaces that cannot mistake an upper lip for a lower one.

The search runs in position + normal + label space. A label is a smooth number in [-1,1] on the surface: +1 on the upper
lip (or lid), -1 on the lower, 0 far away and at the corners. It is the difference of the ways along the mesh to
two sets of seeds, so it tells touching lips apart even where their points and normals do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from .mesh import Surface

NORMAL_MM = 8.0
"""How many millimetres a unit difference of normals counts in the search."""
LABEL_MM = 30.0
"""How many millimetres a unit difference of labels counts, beyond LABEL_SLACK."""
LABEL_SLACK = 0.7
"""Labels of two topologies differ a little everywhere; only a difference of sides may steer the search."""
SURE_SHARE = 0.35
"""A point is surely on one side if the way to the other one's seeds is longer by this share of the labels' reach."""


def barycentric(points: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Barycentric weights (...,3) of the points of triangles abc closest to `points` (...,3).

    Region tests after Ericson, Real-Time Collision Detection (2005), section 5.1.5, for many triangles at once.
    """
    ab, ac = b - a, c - a

    def dot(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.einsum("...i,...i->...", p, q)

    ap, bp, cp = points - a, points - b, points - c
    d1, d2, d3, d4, d5, d6 = dot(ab, ap), dot(ac, ap), dot(ab, bp), dot(ac, bp), dot(ab, cp), dot(ac, cp)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    with np.errstate(divide="ignore", invalid="ignore"):
        total = va + vb + vc
        inside = np.stack([va / total, vb / total, vc / total], -1)
        t_ab = np.clip(d1 / (d1 - d3), 0, 1)
        t_ac = np.clip(d2 / (d2 - d6), 0, 1)
        t_bc = np.clip((d4 - d3) / ((d4 - d3) + (d5 - d6)), 0, 1)
    zero = np.zeros_like(t_ab)
    result = np.nan_to_num(inside, nan=1 / 3)
    for mask, weights in (
        ((va <= 0) & (d4 - d3 >= 0) & (d5 - d6 >= 0), (zero, 1 - t_bc, t_bc)),
        ((vb <= 0) & (d2 >= 0) & (d6 <= 0), (1 - t_ac, zero, t_ac)),
        ((vc <= 0) & (d1 >= 0) & (d3 <= 0), (1 - t_ab, t_ab, zero)),
        ((d6 >= 0) & (d5 <= d6), (zero, zero, zero + 1)),
        ((d3 >= 0) & (d4 <= d3), (zero, zero + 1, zero)),
        ((d1 <= 0) & (d2 <= 0), (zero + 1, zero, zero)),
    ):
        result = np.where(mask[..., None], np.nan_to_num(np.stack(weights, -1), nan=0.0), result)
    return result / np.maximum(result.sum(-1, keepdims=True), 1e-12)


@dataclass
class Match:
    """Closest points found: on triangle (N,) with barycentric weights (N,3); position and normal (N,3); label (N,L)."""

    triangle: np.ndarray
    weights: np.ndarray
    position: np.ndarray
    normal: np.ndarray
    label: np.ndarray

    def interpolate(self, triangles: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Per-vertex `values` (W,...) of the searched surface at the matches (N,...)."""
        return np.einsum("nk,nk...->n...", self.weights, values[triangles[self.triangle]])


class Finder:
    """Closest points on a surface in millimetres, by position, normal and labels (W,L)."""

    def __init__(self, surface: Surface, labels: np.ndarray | None = None, *, samples: int = 0,
                 allowed: np.ndarray | None = None) -> None:
        """`samples`: area samples beside the triangle centres, so that large triangles are found too.
        `allowed` (T,) bool: triangles that may be matched."""
        self.surface = surface
        self.labels = np.zeros((len(surface.vertices), 0)) if labels is None else labels
        tri = surface.triangles if allowed is None else surface.triangles[allowed]
        keep = np.arange(len(surface.triangles)) if allowed is None else np.flatnonzero(allowed)
        part = Surface(surface.vertices, tri, surface.weld) if allowed is not None else surface
        owner = [keep]
        weight = [np.full((len(tri), 3), 1 / 3)]
        if samples:
            position, _, which = part.sample(samples)
            a, b, c = (surface.vertices[tri[which, k]] for k in range(3))
            owner.append(keep[which])
            weight.append(barycentric(position, a, b, c))
        self.owner = np.concatenate(owner)
        self.tree = cKDTree(self._features(self.owner, np.concatenate(weight)))

    def _features(self, triangle: np.ndarray, weights: np.ndarray) -> np.ndarray:
        corner = self.surface.triangles[triangle]

        def mix(values: np.ndarray) -> np.ndarray:
            return np.einsum("nk,nki->ni", weights, values[corner])

        return np.concatenate(
            [mix(self.surface.vertices), NORMAL_MM * mix(self.surface.normals)], axis=1
        )

    def query(self, points: np.ndarray, normals: np.ndarray, labels: np.ndarray | None = None, k: int = 8) -> Match:
        """Match points (N,3) mm with unit normals (N,3) and labels (N,L)."""
        labels = np.zeros((len(points), 0)) if labels is None else labels
        query = np.concatenate([points, NORMAL_MM * normals], axis=1)
        _, near = self.tree.query(query, k=min(k, len(self.owner)), workers=-1)
        triangle = self.owner[near.reshape(len(points), -1)]
        corner = self.surface.triangles[triangle]
        a, b, c = (self.surface.vertices[corner[..., i]] for i in range(3))
        weights = barycentric(np.broadcast_to(points[:, None], a.shape), a, b, c)

        def mix(values: np.ndarray) -> np.ndarray:
            return np.einsum("nmk,nmki->nmi", weights, values[corner])

        position, normal, label = mix(self.surface.vertices), mix(self.surface.normals), mix(self.labels)
        cost = ((position - points[:, None]) ** 2).sum(-1)
        cost += NORMAL_MM**2 * ((normal - normals[:, None]) ** 2).sum(-1)
        conflict = np.maximum(np.abs(label - labels[:, None]) - LABEL_SLACK, 0.0)
        cost += LABEL_MM**2 * (conflict**2).sum(-1)
        best = np.argmin(cost, axis=1)
        row = np.arange(len(points))
        normal = normal[row, best]
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        return Match(triangle[row, best], weights[row, best], position[row, best], normal, label[row, best])


def geodesic(surface: Surface, seeds: np.ndarray, limit: float) -> np.ndarray:
    """Distance (W,) along edges to the nearest of `seeds` (indices); infinite beyond `limit`."""
    if len(seeds) == 0:
        return np.full(len(surface.vertices), np.inf)
    # The graph is symmetric, so `directed` only spares scipy a transposed copy.
    return dijkstra(surface.edge_graph, directed=True, indices=seeds, min_only=True, limit=limit)


def pair_label(surface: Surface, upper: np.ndarray, lower: np.ndarray, reach: float) -> np.ndarray:
    """Smooth label (W,): +1 near the `upper` seeds, -1 near the `lower`, 0 beyond `reach` (mm along the mesh).

    By the difference of the two ways: their ratio would leave the inside of a lip, far from both, without a side.
    """
    up, low = (np.minimum(geodesic(surface, seeds, 2 * reach), 2 * reach) for seeds in (upper, lower))
    near = np.minimum(up, low)
    fade = np.clip(2.0 * (1.0 - near / reach), 0.0, 1.0)
    return fade * np.clip((low - up) / (SURE_SHARE * reach), -1.0, 1.0)


def opening_ratio(surface: Surface, upper: np.ndarray, lower: np.ndarray) -> float:
    """Length of the way along the surface from the middle of `upper` to `lower` (vertex indices) over the straight way.

    0 where a side has no vertices; infinite where there is no way.
    """
    if len(upper) == 0 or len(lower) == 0:
        return 0.0
    x = surface.vertices[upper, 0]
    low, high = np.percentile(x, [30, 70])
    middle = upper[(x >= low) & (x <= high)]
    middle = middle if len(middle) else upper
    straight, _ = cKDTree(surface.vertices[lower]).query(surface.vertices[middle])
    along = geodesic(surface, lower, 6.0 * float(straight.max()) + 1.0)[middle]
    return float(np.median(along / np.maximum(straight, 1e-6)))
