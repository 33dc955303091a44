"""Where the face is: the similarity that lays the template head on a mesh of unknown pose, scale and surroundings.

Many starts (rotations x sizes) of a trimmed iterative-closest-point search on a few hundred points, all at once;
then the caller fits the statistical shape to the best few and compares. No picture, no landmark, no assumption on axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

SIZES = (1.0, 0.8, 0.62, 0.48, 0.36)
"""Tried shares of the mesh's height that the template head (cut below the neck) may take: head alone to half a body."""
PRUNE = {1: 500, 4: 150, 8: 60, 12: 30}
"""After which step of the search how many of the starts go on."""
TRIM = 0.75
"""The share of model points, nearest first, that must fit: hair and hats hide the rest."""
FALLBACK_SIZES = (1.2, 0.9, 0.65, 0.4, 0.25, 0.16, 0.11)
"""The same for the second search: masks without a skull to whole bodies."""


@dataclass
class Similarity:
    """x_mesh = scale * rotation @ x_canonical + translation; canonical is the template's frame in millimetres."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def to_mesh(self, points: np.ndarray) -> np.ndarray:
        return self.scale * points @ self.rotation.T + self.translation

    def to_canonical(self, points: np.ndarray) -> np.ndarray:
        return (points - self.translation) @ self.rotation / self.scale

    def after(self, inner: Similarity) -> Similarity:
        """The similarity that applies `inner` first, then this one."""
        return Similarity(
            self.scale * inner.scale, self.rotation @ inner.rotation, self.to_mesh(inner.translation[None])[0]
        )


def start_rotations() -> np.ndarray:
    """(R,3,3): the 24 axis-aligned rotations and 400 spread evenly: any pose has one within about 20 degrees."""
    axis = Rotation.create_group("O").as_matrix()
    # Super-Fibonacci spiral (Alexa, CVPR 2022): low-discrepancy rotations without a table.
    n, phi, psi = 400, np.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(n) + 0.5
    r, big = np.sqrt(s / n), np.sqrt(1 - s / n)
    a, b = 2 * np.pi * s / phi, 2 * np.pi * s / psi
    quaternion = np.stack([r * np.sin(a), r * np.cos(a), big * np.sin(b), big * np.cos(b)], 1)
    return np.concatenate([axis, Rotation.from_quat(quaternion).as_matrix()])


def plane_steps(placed: np.ndarray, goal: np.ndarray, normal: np.ndarray, weight: np.ndarray,
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One Gauss-Newton step of S similarities at once: (growth (S,), turn (S,3,3), shift (S,3), centre (S,3)).

    placed, goal, normal (S,N,3), weight (S,N). Point-to-plane (Chen and Medioni 1991) with a tenth of point-to-point:
    on something as round as a head it converges many times faster than point-to-point alone.
    """
    w = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
    centre = np.einsum("sn,sni->si", w, placed)
    x = placed - centre[:, None]
    size = np.sqrt(np.einsum("sn,sni->s", w, x**2))[:, None, None]
    zero, one = np.zeros_like(x[..., 0]), np.ones_like(x[..., 0])
    u = x / size  # unit lengths condition the seven unknowns alike
    jac = np.stack([
        np.stack([zero, u[..., 2], -u[..., 1], one, zero, zero, u[..., 0]], -1),
        np.stack([-u[..., 2], zero, u[..., 0], zero, one, zero, u[..., 1]], -1),
        np.stack([u[..., 1], -u[..., 0], zero, zero, zero, one, u[..., 2]], -1),
    ], axis=2)
    gap = (goal - placed) / size
    plane = np.einsum("sni,snik->snk", normal, jac)
    flat, w3 = jac.reshape(len(x), -1, 7), np.repeat(w, 3, axis=1)[..., None]
    pull, pull3 = (plane * w[..., None]).transpose(0, 2, 1), (flat * w3).transpose(0, 2, 1)
    matrix = pull @ plane + 0.1 * pull3 @ flat
    right = pull @ (normal * gap).sum(2)[..., None] + 0.1 * pull3 @ gap.reshape(len(x), -1, 1)
    matrix += 1e-6 * np.eye(7)
    step = np.linalg.solve(matrix, right)[..., 0]
    turn = Rotation.from_rotvec(np.clip(step[:, :3], -0.4, 0.4)).as_matrix()
    # Closest points pull the model smaller each step; damped, a wrong start cannot shrink to a point.
    return np.exp(np.clip(step[:, 6], -0.1, 0.1)), turn, step[:, 3:6] * size[:, 0], centre


def find_facing(points: np.ndarray, normals: np.ndarray, model: np.ndarray, model_normals: np.ndarray, *,
                keep: int = 8, sizes: tuple[float, ...] = SIZES) -> list[Similarity]:
    """The `keep` most promising similarities from model to mesh, best first, distinct from each other.

    points (N,3), normals (N,3): samples of the mesh, spread by area. model (M,3) mm, model_normals (M,3): samples of
    the template's skin. `sizes`: shares of the mesh's height that the model may take.
    """
    rotation = np.repeat(start_rotations(), len(sizes), axis=0)
    share = np.tile(sizes, len(rotation) // len(sizes))
    turned = np.einsum("sij,mj->smi", rotation, model)
    few = points[:: max(1, len(points) // 1000)]
    along = rotation[:, :, 1] @ few.T
    top, height = along.max(1), np.ptp(along, axis=1)
    model_up = turned @ rotation[:, :, 1, None]
    scale = share * height / np.ptp(model[:, 1])
    # The head is the top of whatever is there: put the crown at the top, centre on the points of that slab.
    slab = along > (top - share * height)[:, None]
    centre = slab @ few / np.maximum(slab.sum(1), 1)[:, None]
    translation = centre - scale[:, None] * turned.mean(1)
    lift = top - (scale * model_up.max((1, 2)) + (translation * rotation[:, :, 1]).sum(1))
    translation += lift[:, None] * rotation[:, :, 1]
    return descend(points, normals, model, model_normals, (scale, rotation, translation), keep=keep)


def descend(points: np.ndarray, normals: np.ndarray, model: np.ndarray, model_normals: np.ndarray,
            starts: tuple[np.ndarray, np.ndarray, np.ndarray], *, keep: int, apart_mm: float = np.inf
            ) -> list[Similarity]:
    """Trimmed point-to-plane steps from many starts at once, the worse ones dropped on the way.

    starts: scale (S,), rotation (S,3,3), translation (S,3). Two results are distinct from 12 degrees, 8 % of the scale
    or `apart_mm` (model's unit) on.
    """
    scale, rotation, translation = starts
    tree = cKDTree(points)

    def cost_of(s: np.ndarray, r: np.ndarray, t: np.ndarray, used: slice) -> tuple[np.ndarray, ...]:
        placed = s[:, None, None] * np.einsum("sij,mj->smi", r, model[used]) + t[:, None]
        distance, index = tree.query(placed.reshape(-1, 3), workers=1)
        distance, index = distance.reshape(len(s), -1) / s[:, None], index.reshape(len(s), -1)
        agree = np.einsum("smi,smi->sm", np.einsum("sij,mj->smi", r, model_normals[used]), normals[index])
        # A wrong-facing match counts as 20 mm away: normals tell a face from the back of a head.
        return distance + 10.0 * (1.0 - agree), index, agree, placed

    def mean_cost(cost: np.ndarray) -> np.ndarray:
        return np.sort(cost, axis=1)[:, : int(TRIM * cost.shape[1])].mean(1)

    for step in range(16):
        used = slice(None, None, 3 if step < 2 else 2 if step < 6 else 1)
        cost, index, agree, placed = cost_of(scale, rotation, translation, used)
        if step in PRUNE:
            best = np.argsort(mean_cost(cost))[: PRUNE[step]]
            scale, rotation, translation, cost, index, agree, placed = (
                x[best] for x in (scale, rotation, translation, cost, index, agree, placed)
            )
        limit = np.sort(cost, axis=1)[:, int(TRIM * cost.shape[1]), None]
        weight = (cost <= limit) * np.clip(agree + 0.3, 0.05, 1.0)
        grow, turn, shift, centre = plane_steps(placed, points[index], normals[index], weight)
        scale, rotation = scale * grow, turn @ rotation
        translation = grow[:, None] * np.einsum("sij,sj->si", turn, translation - centre) + centre + shift
    score = mean_cost(cost_of(scale, rotation, translation, slice(None))[0])
    middle = scale[:, None] * np.einsum("sij,j->si", rotation, model.mean(0)) + translation
    found: list[int] = []
    for i in np.argsort(score).tolist():
        same = any(
            np.trace(rotation[i].T @ rotation[f]) > 1 + 2 * np.cos(np.radians(12))
            and abs(np.log(scale[i] / scale[f])) < 0.08
            and np.linalg.norm(middle[i] - middle[f]) < apart_mm * scale[f]
            for f in found
        )
        if not same:
            found.append(i)
        if len(found) == keep:
            break
    return [Similarity(float(scale[i]), rotation[i], translation[i]) for i in found]


def starts_around(pose: Similarity, model: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts that keep the turn of `pose` and vary place and scale: a face need not sit in its skull as the template's.

    A head with a big skull is found by its skull; up and down along it the face must be looked for by itself.
    """
    shift = np.array([-90.0, -70.0, -50.0, -32.0, -16.0, 0.0, 16.0, 32.0])  # mm along the head's own up
    ahead = np.array([-15.0, 0.0, 15.0])
    size = np.array([0.65, 0.8, 1.0, 1.2])
    nod = Rotation.from_rotvec(np.radians(np.array([[-20.0, 0.0, 0.0], [0.0, 0.0, 0.0], [20.0, 0.0, 0.0]]))).as_matrix()
    up, z, s, n = (x.ravel() for x in np.meshgrid(shift, ahead, size, np.arange(3), indexing="ij"))
    rotation = pose.rotation @ nod[n.astype(int)]
    middle = pose.to_mesh(model.mean(0)[None] + np.stack([0 * up, up, z], 1))
    scale = pose.scale * s
    return scale, rotation, middle - scale[:, None] * (rotation @ model.mean(0))


def starts_at_eyes(first: np.ndarray, second: np.ndarray, left: np.ndarray, right: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts that put the model's eyes, left and right (3,) mm, on two points of the mesh, either way round, all
    turns."""
    apart = np.linalg.norm(left - right)
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    turns, scales, moves = [], [], []
    for a, b in ((first, second), (second, first)):
        x = (a - b) / np.linalg.norm(a - b)
        u = np.cross(x, np.eye(3)[np.abs(x).argmin()])
        u /= np.linalg.norm(u)
        v = np.cross(x, u)
        y = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v
        side = np.broadcast_to(x, y.shape)
        turn = np.stack([side, y, np.cross(side, y)], axis=2)
        for share in (1.0, 0.8):  # drawn eyes are farther apart for the face's size
            scale = np.full(len(angle), share * np.linalg.norm(a - b) / apart)
            turns.append(turn)
            scales.append(scale)
            moves.append((a + b) / 2 - scale[:, None] * (turn @ ((left + right) / 2)))
    return np.concatenate(scales), np.concatenate(turns), np.concatenate(moves)
