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
FALLBACK_SIZES = (1.2, 0.9, 0.65, 0.4, 0.25, 0.16)
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
    """(R,3,3): the 24 axis-aligned rotations and 60 spread evenly (any pose has one within about 30 degrees)."""
    axis = Rotation.create_group("O").as_matrix()
    # Super-Fibonacci spiral, Alexa 2022: low-discrepancy rotations without a table.
    n, phi, psi = 60, np.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(n) + 0.5
    r, big = np.sqrt(s / n), np.sqrt(1 - s / n)
    a, b = 2 * np.pi * s / phi, 2 * np.pi * s / psi
    quaternion = np.stack([r * np.sin(a), r * np.cos(a), big * np.sin(b), big * np.cos(b)], 1)
    return np.concatenate([axis, Rotation.from_quat(quaternion).as_matrix()])


def batch_similarity(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    """Least-squares similarities (Umeyama 1991) of S pairs of point sets (S,N,3) with weights (S,N):
    scales (S,), rotations (S,3,3), translations (S,3)."""
    w = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
    ms, mt = np.einsum("sn,sni->si", w, source), np.einsum("sn,sni->si", w, target)
    s0, t0 = source - ms[:, None], target - mt[:, None]
    cov = np.einsum("sn,sni,snj->sij", w, t0, s0)
    u, d, vt = np.linalg.svd(cov)
    sign = np.ones_like(d)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    scale = (d * sign).sum(1) / np.maximum(np.einsum("sn,sni->s", w, s0**2), 1e-12)
    return scale, rotation, mt - scale[:, None] * np.einsum("sij,sj->si", rotation, ms)


def find_facing(points: np.ndarray, normals: np.ndarray, model: np.ndarray, model_normals: np.ndarray, *,
                keep: int = 8, trim: float = 0.75,
                sizes: tuple[float, ...] = SIZES) -> list[Similarity]:
    """The `keep` most promising similarities from model to mesh, best first, distinct from each other.

    points (N,3), normals (N,3): samples of the mesh, spread by area. model (M,3) mm, model_normals (M,3): samples of
    the template's skin. `trim`: the share of model points, nearest first, that must fit (hair and hats hide the rest).
    `sizes`: shares of the mesh's height that the model may take.
    """
    tree = cKDTree(points)
    rotation = np.repeat(start_rotations(), len(sizes), axis=0)
    share = np.tile(sizes, len(rotation) // len(sizes))
    turned = np.einsum("sij,mj->smi", rotation, model)
    along = np.einsum("ni,si->sn", points, rotation[:, :, 1])
    top, height = along.max(1), np.ptp(along, axis=1)
    model_up = turned @ rotation[:, :, 1, None]
    scale = share * height / np.ptp(model[:, 1])
    # The head is the top of whatever is there: put the crown at the top, centre on the points of that slab.
    slab = along > (top - share * height)[:, None]
    centre = (slab[..., None] * points).sum(1) / np.maximum(slab.sum(1), 1)[:, None]
    middle = turned.mean(1)
    translation = centre - scale[:, None] * middle
    lift = top - (scale * model_up.max((1, 2)) + (translation * rotation[:, :, 1]).sum(1))
    translation += lift[:, None] * rotation[:, :, 1]

    def cost_of(s: np.ndarray, r: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        placed = s[:, None, None] * np.einsum("sij,mj->smi", r, model) + t[:, None]
        distance, index = tree.query(placed.reshape(-1, 3), workers=1)
        distance, index = distance.reshape(len(s), -1) / s[:, None], index.reshape(len(s), -1)
        agree = np.einsum("sij,mj,smi->sm", r, model_normals, normals[index])
        # A wrong-facing match counts as 20 mm away: normals tell a face from the back of a head.
        return distance + 10.0 * (1.0 - agree), index, agree

    def mean_cost(cost: np.ndarray) -> np.ndarray:
        return np.sort(cost, axis=1)[:, : int(trim * cost.shape[1])].mean(1)

    for step in range(18):
        cost, index, agree = cost_of(scale, rotation, translation)
        if step in (4, 9):
            best = np.argsort(mean_cost(cost))[: 100 if step == 4 else 3 * keep]
            scale, rotation, translation, cost, index, agree = (
                x[best] for x in (scale, rotation, translation, cost, index, agree)
            )
        limit = np.sort(cost, axis=1)[:, int(trim * cost.shape[1]), None]
        weight = (cost <= limit) * np.clip(agree + 0.3, 0.05, 1.0)
        new_scale, rotation, translation = batch_similarity(
            np.broadcast_to(model, (len(scale), *model.shape)), points[index], weight
        )
        # Closest points pull the model smaller each step; damped, a wrong start cannot shrink to a point.
        scale = np.clip(new_scale, 0.9 * scale, 1.1 * scale)
    score = mean_cost(cost_of(scale, rotation, translation)[0])
    found: list[Similarity] = []
    for i in np.argsort(score):
        same = any(
            np.trace(rotation[i].T @ f.rotation) > 1 + 2 * np.cos(np.radians(12))
            and abs(np.log(scale[i] / f.scale)) < 0.08
            for f in found
        )
        if not same:
            found.append(Similarity(float(scale[i]), rotation[i], translation[i]))
        if len(found) == keep:
            break
    return found
