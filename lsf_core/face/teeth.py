"""Lips and teeth: no shape draws the skin through the teeth that stand behind it in the neutral."""

from __future__ import annotations

import numpy as np

from ..arkit import ARKIT_NAMES
from .parts import Part
from .register import Registration

CELL_MM = 0.6
MARGIN_MM = 0.25
BEHIND_MM = 4.0
"""Skin up to so far behind the front of the teeth belongs to the lips; what lies deeper lines the mouth."""
MOST_MM = 4.0


def front_depth(points: np.ndarray, triangles: np.ndarray, low: np.ndarray, high: np.ndarray,
                cell: float) -> np.ndarray:
    """Depth map of a triangle mesh seen from the front: the largest z per cell (X,Y) of the box low..high (2,) in x and
    y, -inf where nothing is."""
    corner = points[triangles]
    inside = (corner[..., :2].max(1) > low).all(1) & (corner[..., :2].min(1) < high).all(1)
    corner = corner[inside]
    shape = np.ceil((high - low) / cell).astype(int)
    depth = np.full(shape[0] * shape[1], -np.inf)
    if len(corner):
        edge = np.linalg.norm(corner[:, [1, 2, 0], :2] - corner[..., :2], axis=2).max(1)
        steps = np.clip(np.ceil(1.6 * edge / cell), 1, 200).astype(int)
        for n in np.unique(steps):
            i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
            use = i + j <= n
            weights = np.stack([i[use], j[use], n - i[use] - j[use]], 1) / n
            spots = np.einsum("pk,tki->tpi", weights, corner[steps == n]).reshape(-1, 3)
            at = np.floor((spots[:, :2] - low) / cell).astype(int)
            good = ((at >= 0) & (at < shape)).all(1)
            np.maximum.at(depth, at[good, 0] * shape[1] + at[good, 1], spots[good, 2])
    return depth.reshape(shape)


def clear_teeth(result: Registration, parts: list[Part], moves: list[np.ndarray], rest: np.ndarray,
                deltas: np.ndarray) -> None:
    """Push lips off the teeth, in place on `deltas` (52,n,3) of the skin `rest` (n,3), at weight 1 of mouth and jaw
    shapes.

    moves: deltas (52,m,3) of each part. Skin that is in the teeth in the neutral keeps its own depth there.
    """
    teeth = [(p.vertices, m) for p, m in zip(parts, moves, strict=True) if p.kind.startswith("mouth_teeth")]
    if not teeth:
        return
    index = np.concatenate([vertices for vertices, _ in teeth])
    own = np.concatenate([move for _, move in teeth], axis=1)
    place = np.full(len(result.whole.vertices), -1)
    place[index] = np.arange(len(index))
    triangles = place[result.whole.triangles]
    triangles = triangles[(triangles >= 0).all(1)]
    points = result.whole.vertices[index]
    low = points[:, :2].min(0) - np.array([6.0, 25.0])
    high = points[:, :2].max(0) + np.array([6.0, 10.0])
    still = front_depth(points, triangles, low, high, CELL_MM)
    front = still.max(1)  # of each column of cells

    def cells(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.floor((p[:, :2] - low) / CELL_MM).astype(int)
        inside = ((at >= 1) & (at < np.array(still.shape) - 1)).all(1)
        return np.clip(at[:, 0], 0, still.shape[0] - 1), np.clip(at[:, 1], 0, still.shape[1] - 1), inside

    column, row, inside = cells(rest)
    lips = np.flatnonzero(inside & (rest[:, 2] > front[column] - BEHIND_MM) & np.isfinite(front[column]))
    if len(lips) == 0:
        return
    sunk = np.minimum(rest[lips, 2] - still[column[lips], row[lips]] - MARGIN_MM, 0.0)
    sunk[~np.isfinite(sunk)] = 0.0
    for k, name in enumerate(ARKIT_NAMES):
        if not name.startswith(("mouth", "jaw")) or np.abs(deltas[k, lips]).max() < 1e-3:
            continue
        moved = np.abs(own[k]).max() > 1e-3
        map_now = front_depth(points + own[k], triangles, low, high, CELL_MM) if moved else still
        posed = rest[lips] + deltas[k, lips]
        x, y, seen = cells(posed)
        around = np.max([map_now[np.clip(x + i, 0, map_now.shape[0] - 1), np.clip(y + j, 0, map_now.shape[1] - 1)]
                         for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
        need = np.where(seen & np.isfinite(around), around + MARGIN_MM + sunk - posed[:, 2], 0.0)
        deltas[k, lips, 2] += np.clip(need, 0.0, MOST_MM)
