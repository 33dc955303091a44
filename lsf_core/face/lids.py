"""Lids and eyeballs: no shape draws a lid through the eye that it lies on, whatever the faces of the lid.

The eye is known by its radius in every direction: corneas bulge, drawn eyes are no spheres. Tested are points on the
lid's faces, not its vertices alone: the faces of a coarse lid cut deep between them. Only the side of the skin that
looks away from the eye is tested; the lining of the lid goes with it, or it would be pushed out through the skin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.sparse import csr_matrix
from scipy.spatial.transform import Rotation

from .mesh import Surface
from .parts import Part, eye_turns
from .register import Registration
from .teeth import front_depth

WEIGHTS = (1.0, 0.5)
"""Of a shape, at which its lids are kept off the eye: vertices move on straight lines, eyes bulge."""
MARGIN_MM, MARGIN_PART_MM = 0.25, 0.05
"""How far a lid that has moved over the eye stays above it, at weight 1 and on the way."""
NEAR_MM, FAR_MM = 2.0, 6.0
"""A point that rests in the eye keeps its own depth: the neutral is never judged. One that moves so far is lifted all
the way."""
REACH_MM = 10.0
BEHIND_MM = 2.0
"""Skin so far outside the eye, or so far behind its centre, is no lid."""
SAMPLE_MM = 0.8
"""Spacing of the points on the faces of a lid."""
SKIN_CELLS, SKIN_MM = 3, 1.0
"""Cells of the map of radii to one in which the outermost skin is looked for, and how deep a layer it is."""
FACING, DEEP_MM = 0.25, 3.0
"""Cosine from which a face looks out of the eye, and how deep in the eye the lowest corner of a lid's face may rest."""
STILL_MM = 0.2
"""What moves less than this is not tested."""
SHOWN_MM, CELL_MM, SLIT_MM2 = 2.0, 0.5, 8.0
"""How far about the rims the eye is looked for from the front, and in what cells; one of which less than so much is
seen in the neutral is shut there."""
PASSES = 8
GRID, GRID_EDGE = 160, 1.4
"""Cells along a side of the map of radii, and the half side in stereographic units: 109 degrees from the front."""


@dataclass
class Ball:
    """An eyeball by its radius in every direction. radius (GRID,GRID) mm: stereographic about the front.
    turn (3,3): how the eye has turned about its centre since the radii were taken."""

    centre: np.ndarray
    radius: np.ndarray
    turn: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, triangles: np.ndarray, centre: np.ndarray) -> Ball:
        """Of the vertices (m,3) and triangles (t,3) of an eye, all layers, the face to +z; mm."""
        size = float(np.median(np.linalg.norm(points - centre, axis=1)))
        corner = points[triangles] - centre
        edge = np.linalg.norm(corner - np.roll(corner, 1, axis=1), axis=2).max(1)
        cell = size * GRID_EDGE / GRID
        spots = [points - centre]
        steps = np.clip(np.ceil(edge / cell), 1, 60).astype(int)
        for n in np.unique(steps):
            spots.append(np.einsum("pk,tki->tpi", _grid(n), corner[steps == n]).reshape(-1, 3))
        out = np.concatenate(spots)
        away = np.linalg.norm(out, axis=1)
        at = np.round(_chart(out / np.maximum(away, 1e-9)[:, None])).astype(int)
        inside = ((at >= 0) & (at < GRID)).all(1)
        radius = np.zeros((GRID, GRID))
        np.maximum.at(radius, tuple(at[inside].T), away[inside])
        nearest = distance_transform_edt(radius == 0.0, return_distances=False, return_indices=True)
        return cls(centre, radius[tuple(nearest)], np.eye(3))

    def turned(self, turn: np.ndarray) -> Ball:
        """The eye turned about its centre by a rotation (3,3)."""
        return replace(self, turn=turn)

    def depth(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far points (n,3) lie outside the ball (n,), negative inside, and the directions (n,3) outward."""
        out = points - self.centre
        distance = np.linalg.norm(out, axis=1)
        direction = out / np.maximum(distance, 1e-9)[:, None]
        at = _chart(direction @ self.turn).T
        return distance - map_coordinates(self.radius, at, order=1, mode="nearest"), direction


def _chart(direction: np.ndarray) -> np.ndarray:
    """Place (n,2) in the map of unit directions (n,3), in cells."""
    flat = direction[:, :2] / np.maximum(1.0 + direction[:, 2:], 0.2)
    return (flat / GRID_EDGE + 1.0) * (GRID - 1) / 2


def _grid(steps: int) -> np.ndarray:
    """Barycentric weights (p,3) of a triangular grid with `steps` steps along an edge, corners too."""
    i, j = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    use = i + j <= steps
    return np.stack([i[use], j[use], steps - i[use] - j[use]], 1) / steps


class Lids:
    """The skin about one eyeball, made ready to be kept out of it."""

    def __init__(self, surface: Surface, ball: Ball, turns: Mapping[int, np.ndarray] | None = None) -> None:
        """surface: the skin in mm, the face to +z. turns: rotation (3,3) of the eye in those shapes that turn it."""
        self.ball, self.turns, self.eye = ball, turns or {}, np.zeros((0, 3, 3))
        rest = surface.vertices
        far = float(ball.radius.max()) + REACH_MM
        behind = ball.centre[2] - BEHIND_MM
        lid = (np.linalg.norm(rest - ball.centre, axis=1) < far) & (rest[:, 2] > behind)
        # The faces of a coarse lid may end far from the eye.
        near = surface.triangles[lid[surface.triangles].any(1)]
        self.index, local = np.unique(near, return_inverse=True)
        self.triangles = local.reshape(-1, 3)
        self.rest = rest[self.index]
        self.points, self.owner = self._points()
        places = self.points @ self.rest
        self.still = ball.depth(places)[0]
        self.before = places[:, 2] > behind
        lowest = self.still[: len(self.rest)][self.triangles].min(1)
        self.outer = ((self._outward(self.rest) > FACING) & (lowest > -DEEP_MM)) | (lowest > MARGIN_MM)

    @classmethod
    def of(cls, result: Registration, parts: list[Part], side: str, surface: Surface) -> Lids | None:
        """The lids of one side, "left" or "right", over the eye among the parts of a mesh; None without an eye."""
        eye = [part for part in parts if part.kind == f"eye_{side}"]
        if not eye:
            return None
        index = np.concatenate([part.vertices for part in eye])
        local = np.full(len(result.whole.vertices), -1)
        local[index] = np.arange(len(index))
        triangles = local[result.whole.triangles]
        triangles = triangles[(triangles >= 0).all(1)]
        points = result.whole.vertices[index]
        made = cls(surface, Ball.of(points, triangles, eye[0].centre), eye_turns(result, side))
        made.eye = points[triangles]
        return made

    def _points(self) -> tuple[csr_matrix, np.ndarray]:
        """Matrix (n+s,n) that places the n vertices and s points inside the faces and on their edges; the triangle (s,)
        of each of these."""
        corner = self.rest[self.triangles]
        edge = np.linalg.norm(corner - np.roll(corner, 1, axis=1), axis=2).max(1)
        steps = np.clip(np.ceil(edge / SAMPLE_MM), 1, 40).astype(int)
        weights, owners = [np.zeros((0, 3))], [np.zeros(0, int)]
        for n in np.unique(steps):
            which, grid = np.flatnonzero(steps == n), _grid(n)
            grid = grid[grid.max(1) < 1.0]
            weights.append(np.tile(grid, (len(which), 1)))
            owners.append(np.repeat(which, len(grid)))
        weight, owner = np.concatenate(weights), np.concatenate(owners)
        n, s = len(self.rest), len(owner)
        rows = np.concatenate([np.arange(n), np.repeat(n + np.arange(s), 3)])
        cols = np.concatenate([np.arange(n), self.triangles[owner].ravel()])
        values = np.concatenate([np.ones(n), weight.ravel()])
        return csr_matrix((values, (rows, cols)), (n + s, n)), owner

    def _outward(self, posed: np.ndarray) -> np.ndarray:
        """(t,) cosine of each triangle's normal with the direction out of the eye."""
        a, b, c = (posed[self.triangles[:, k]] for k in range(3))
        normal, out = np.cross(b - a, c - a), (a + b + c) / 3 - self.ball.centre
        size = np.linalg.norm(normal, axis=1) * np.linalg.norm(out, axis=1)
        return (normal * out).sum(1) / np.maximum(size, 1e-12)

    def _seen(self, posed: np.ndarray) -> np.ndarray:
        """(n+s,) bool: points of the posed skin (n,3) that look out of the eye and have no skin outside of them."""
        out = self.points @ posed - self.ball.centre
        away = np.linalg.norm(out, axis=1)
        at = np.round(_chart(out / np.maximum(away, 1e-9)[:, None]) / SKIN_CELLS).astype(int)
        at = np.clip(at, 0, GRID // SKIN_CELLS)
        highest = np.zeros((GRID // SKIN_CELLS + 1,) * 2)
        np.maximum.at(highest, tuple(at.T), away)
        outer = self.outer & (self._outward(posed) > FACING)
        corner = np.zeros(len(posed), bool)
        corner[self.triangles[outer]] = True
        return (away > highest[tuple(at.T)] - SKIN_MM) & np.concatenate([corner, outer[self.owner]])

    def clear(self, deltas: np.ndarray, shapes: Iterable[int] | None = None) -> None:
        """Push the lids out of the eye, in place on deltas (52,n,3) of the whole skin; `shapes`: only these."""
        for k in range(len(deltas)) if shapes is None else shapes:
            own = deltas[k, self.index].astype(np.float64)
            if len(own) and np.abs(own).max() > STILL_MM:
                deltas[k, self.index] += self._push(own, self.turns.get(k))

    def _push(self, delta: np.ndarray, turn: np.ndarray | None) -> np.ndarray:
        """What is to be added to one shape's delta (n,3) about the eye."""
        length = np.linalg.norm(self.points @ delta, axis=1)
        seen = self._seen(self.rest + delta)
        # The lining keeps its own depth and no more, or it would be pushed out through the skin.
        use = np.flatnonzero(self.before & (length > STILL_MM) & (seen | (np.arange(len(seen)) < len(delta))))
        points, still = self.points[use], self.still[use]
        share = np.clip((length[use] - NEAR_MM) / (FAR_MM - NEAR_MM), 0.0, 1.0)
        floor = np.minimum(still, MARGIN_MM)
        low = np.where(seen[use], floor + share * (MARGIN_MM - floor), np.minimum(still, 0.0))
        total = np.zeros_like(delta)
        for weight in WEIGHTS:
            ball = self.ball
            if turn is not None:
                ball = ball.turned(Rotation.from_rotvec(weight * Rotation.from_matrix(turn).as_rotvec()).as_matrix())
            goal = low if weight == 1.0 else np.where(seen[use], np.minimum(low, MARGIN_PART_MM), -np.inf)
            total += self._lift(points, self.rest + weight * (delta + total), goal, ball) / weight
        return total

    def shown(self, delta: np.ndarray, rims: np.ndarray) -> float:
        """Share of the eye seen from the front in the neutral that is seen with delta (n,3) of the whole skin; rims
        (m,3): points of both lids' rims."""
        low, high = rims[:, :2].min(0) - SHOWN_MM, rims[:, :2].max(0) + SHOWN_MM
        eye = front_depth(self.eye.reshape(-1, 3), np.arange(3 * len(self.eye)).reshape(-1, 3), low, high, CELL_MM)
        still, now = (int((eye > front_depth(self.rest + move, self.triangles, low, high, CELL_MM) + 0.05).sum())
                      for move in (0.0, delta[self.index].astype(np.float64)))
        return now / still if still * CELL_MM**2 > SLIT_MM2 else 0.0

    @staticmethod
    def _lift(points: csr_matrix, posed: np.ndarray, goal: np.ndarray, ball: Ball) -> np.ndarray:
        """Displacements (n,3) that lift the posed points (s of n vertices) to the depths `goal` (s,)."""
        moved = np.zeros_like(posed)
        need = goal - ball.depth(points @ posed)[0]
        close = need > -1.0
        points, goal, need = points[close], goal[close], need[close]
        for _ in range(PASSES):
            bad = need > 0.01
            if not bad.any():
                break
            rows = points[bad].tocoo()
            square = np.bincount(rows.row, rows.data**2)
            lift = np.zeros(len(posed))
            np.maximum.at(lift, rows.col, rows.data * (need[bad] / square)[rows.row])
            moved += lift[:, None] * ball.depth(posed)[1]
            need = goal - ball.depth(points @ (posed + moved))[0]
        return moved
