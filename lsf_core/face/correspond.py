"""Closest points between two surfaces that cannot mistake an upper lip for a lower one.

The search runs in position + normal + label space. A label is a smooth number in [-1,1] on the surface: +1 on the upper
lip (or lid), -1 on the lower, 0 far away and at the corners. It is the difference of the ways along the mesh to
two sets of seeds, so it tells touching lips apart even where their points and normals do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from .mesh import Surface

NORMAL_MM = 8.0
"""How many millimetres a unit difference of normals counts in the search."""
LABEL_MM = 30.0
"""How many millimetres a unit difference of labels counts, beyond LABEL_SLACK."""
LABEL_SLACK = 0.7
"""Labels of two topologies differ a little everywhere; only a difference of sides may steer the search."""
AT_ONCE = 2048
"""Points whose candidates are compared at a time."""
SURE_SHARE = 0.35
"""A point is surely on one side if the way to the other one's seeds is longer by this share of the labels' reach."""


def dot(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Inner products along the last axis."""
    return np.einsum("...i,...i->...", p, q)


def barycentric(points: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Barycentric weights (...,3) of the points of triangles abc closest to `points` (...,3).

    Region tests after Ericson, Real-Time Collision Detection (2005), section 5.1.5, for many triangles at once.
    """
    return _barycentric(b - a, c - a, points - a)


def _barycentric(ab: np.ndarray, ac: np.ndarray, ap: np.ndarray) -> np.ndarray:
    """As `barycentric`, from the ways (...,3) from corner a to b, to c and to the point."""
    d1, d2, bb, bc, cc = dot(ab, ap), dot(ac, ap), dot(ab, ab), dot(ab, ac), dot(ac, ac)
    d3, d4, d5, d6 = d1 - bb, d2 - bc, d1 - bc, d2 - cc
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    total = va + vb + vc
    line = total <= 1e-12 * bb * cc
    total = np.where(line, 1.0, total)
    at_b, at_c = vb / total, vc / total
    past_b, past_c = d4 - d3, d5 - d6
    opposite = past_b + past_c  # the length of the edge from b to c, squared
    on_ab, on_ac, on_bc = (np.clip(way / np.where(length > 0.0, length, 1.0), 0.0, 1.0)
                           for way, length in ((d1, bb), (d2, cc), (past_b, opposite)))
    for region, b, c in (
        ((va <= 0) & (past_b >= 0) & (past_c >= 0), 1.0 - on_bc, on_bc),
        ((vb <= 0) & (d2 >= 0) & (d6 <= 0), 0.0, on_ac),
        ((vc <= 0) & (d1 >= 0) & (d3 <= 0), on_ab, 0.0),
        ((d6 >= 0) & (d5 <= d6), 0.0, 1.0),
        ((d3 >= 0) & (d4 <= d3), 1.0, 0.0),
        ((d1 <= 0) & (d2 <= 0), 0.0, 0.0),
    ):
        at_b, at_c = np.where(region, b, at_b), np.where(region, c, at_c)
    if line.any():  # rounding would choose among the regions of a triangle that is a line: its longest edge is it
        from_a = np.maximum(bb, cc) >= opposite
        to_b = from_a & (bb >= cc)
        at_b = np.where(line, np.where(to_b, on_ab, np.where(from_a, 0.0, 1.0 - on_bc)), at_b)
        at_c = np.where(line, np.where(to_b, 0.0, np.where(from_a, on_ac, on_bc)), at_c)
    return np.stack([np.maximum(1.0 - at_b - at_c, 0.0), at_b, at_c], -1)


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
        # Splits at middles instead of medians: made in half the time, searched in the same.
        self.tree = cKDTree(self._features(self.owner, np.concatenate(weight)), balanced_tree=False)

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
        near = near.reshape(len(points), -1)
        # Some thousand at a time: what is worked on stays in the processor's cache, and memory is bounded.
        parts = [self._best(self.owner[near[i: i + AT_ONCE]], points[i: i + AT_ONCE], normals[i: i + AT_ONCE],
                            labels[i: i + AT_ONCE]) for i in range(0, max(len(points), 1), AT_ONCE)]
        return Match(*(np.concatenate(found) for found in zip(*parts, strict=True)))

    def _best(self, triangle: np.ndarray, points: np.ndarray, normals: np.ndarray, labels: np.ndarray
              ) -> tuple[np.ndarray, ...]:
        """The fields of a Match: the best of the triangles (N,k) for each of the points (N,3)."""
        corner = self.surface.triangles[triangle]
        a, b, c = (self.surface.vertices[corner[..., i]] for i in range(3))
        ab, ac, ap = b - a, c - a, points[:, None] - a
        weights = _barycentric(ab, ac, ap)
        away = weights[..., 1:2] * ab + weights[..., 2:] * ac - ap
        normal = sum(weights[..., i: i + 1] * self.surface.normals[corner[..., i]] for i in range(3))
        turned = normal - normals[:, None]
        cost = dot(away, away) + NORMAL_MM**2 * dot(turned, turned)
        if labels.shape[1]:
            conflict = np.einsum("nmk,nmki->nmi", weights, self.labels[corner]) - labels[:, None]
            conflict = np.maximum(np.abs(conflict) - LABEL_SLACK, 0.0)
            cost += LABEL_MM**2 * dot(conflict, conflict)
        row, best = np.arange(len(points)), np.argmin(cost, axis=1)
        triangle, weights, normal = triangle[row, best], weights[row, best], normal[row, best]
        normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        label = np.einsum("nk,nki->ni", weights, self.labels[corner[row, best]])
        return triangle, weights, points + away[row, best], normal, label


def geodesic(surface: Surface, seeds: np.ndarray, limit: float, starts: np.ndarray | None = None) -> np.ndarray:
    """Distance (W,) along edges to the nearest of `seeds` (indices); infinite beyond `limit`. `starts` (len(seeds),):
    distances already gone at the seeds."""
    count = len(surface.vertices)
    if len(seeds) == 0:
        return np.full(count, np.inf)
    graph = surface.edge_graph
    if starts is None:  # The graph is symmetric, so `directed` only spares scipy a transposed copy.
        return dijkstra(graph, directed=True, indices=seeds, min_only=True, limit=limit)
    # One vertex more, joined to every seed by an edge as long as its start; no edge leads back there.
    joined = csr_matrix((np.concatenate([graph.data, np.maximum(starts, 1e-9)]),
                         np.concatenate([graph.indices, seeds]), np.append(graph.indptr, graph.nnz + len(seeds))),
                        shape=(count + 1, count + 1))
    return dijkstra(joined, directed=True, indices=count, limit=limit)[:count]


def pair_label(surface: Surface, upper: np.ndarray, lower: np.ndarray, reach: float) -> np.ndarray:
    """Smooth label (W,): +1 near the `upper` seeds, -1 near the `lower`, 0 beyond `reach` (mm along the mesh).

    By the difference of the two ways: their ratio would leave the inside of a lip, far from both, without a side.
    """
    up, low = (np.minimum(geodesic(surface, seeds, 2 * reach), 2 * reach) for seeds in (upper, lower))
    return label_of_ways(up, low, reach)


def label_of_ways(up: np.ndarray, low: np.ndarray, reach: float) -> np.ndarray:
    """Label (W,) of vertices so far (W,) from the upper seeds and the lower ones, at most 2 * `reach` mm."""
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
