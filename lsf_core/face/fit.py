"""The statistical fit: pose, scale and shape of the template's head on a mesh, by closest points and a Gaussian
prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from .correspond import NORMAL_MM, Finder
from .facing import Similarity
from .guide import Guide
from .mesh import Surface
from .prepared import Prepared, Shape

PIN_WEIGHT = 8.0
"""How many independent samples of the surface a landmark set by hand counts as."""
TRUST = 300.0
"""How many independent samples the whole surface counts as at the end, against the prior: residuals are correlated."""
POINT_SHARE = 0.2
"""Weight of a point-to-point residual beside a point-to-plane one."""


@dataclass
class Fit:
    """A statistical fit: pose, shape, and the misfit (see `fit_shape`)."""

    pose: Similarity
    shape: Shape
    misfit: float
    person: np.ndarray | None = None
    """Identity (K,) where it is another one than the shape's: found with less regard to the mesh's facets and style."""

    @property
    def strangeness(self) -> float:
        """How unlike a face it is: the misfit plus half the shape's oddity.

        Enough unlikely identity lets the model imitate a blob; either number alone would let one through.
        """
        return self.misfit + 0.5 * self.shape.odd


class SampleNearest:
    """Nearest of many samples of the mesh, in the canonical frame of `start`: fast and rough."""

    def __init__(self, start: Similarity, samples: np.ndarray, normals: np.ndarray) -> None:
        self.start, self.points, self.normals = start, start.to_canonical(samples), normals @ start.rotation
        self.tree = cKDTree(np.concatenate([self.points, NORMAL_MM * self.normals], 1))

    def __call__(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, index = self.tree.query(np.concatenate([points, NORMAL_MM * normals], 1), workers=-1)
        return self.points[index], self.normals[index]


class SurfaceNearest:
    """Exact closest points of the mesh's surface in the canonical frame of `start`: independent of its topology."""

    def __init__(self, start: Similarity, mesh: Surface) -> None:
        self.start = start
        self.finder = Finder(Surface(start.to_canonical(mesh.vertices), mesh.triangles, mesh.weld), samples=30000)

    def __call__(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        match = self.finder.query(points, normals)
        return match.position, match.normal


def vertex_area(surface: Surface) -> np.ndarray:
    a, b, c = (surface.vertices[surface.triangles[:, k]] for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return np.bincount(surface.triangles.ravel(), np.repeat(area / 3, 3), minlength=len(surface.vertices))


def fit_shape(nearest: SampleNearest | SurfaceNearest, prepared: Prepared, guide: Guide, *, shape: Shape | None = None,
              styled: bool = False, close: bool = True, steps: int = 12, count: int = 1500, trust: float = TRUST,
              point_share: float = POINT_SHARE) -> Fit:
    """Similarity and shape by point-to-plane iterations with a Gaussian prior on the shape's coefficients.

    The misfit is the trimmed mean distance over the face in mm plus a penalty for normals that disagree. With `shape`
    given, the start is taken as already close, unless `close` is False. The guide's landmarks pull with PIN_WEIGHT
    each. `styled`: with the style modes too, which go before the identity's. `trust`,
    `point_share`: see TRUST and POINT_SHARE.
    """
    skin = prepared.surface
    drawn = len(prepared.style) if styled else 0
    moves = prepared.moves[..., len(prepared.style) - drawn:]
    k = moves.shape[2]
    rng = np.random.default_rng(4)
    chance = vertex_area(skin) * (0.03 + prepared.weight)
    pick = rng.choice(len(skin.vertices), size=min(count, int((chance > 0).sum())), replace=False,
                      p=chance / chance.sum())
    base, base_normal, weight = skin.vertices[pick], skin.normals[pick], 0.03 + prepared.weight[pick]
    basis = moves[pick].reshape(3 * len(pick), k).astype(np.float64)
    pinned = prepared.local[guide.index]
    pin_base, pin_basis = skin.vertices[pinned], moves[pinned].reshape(3 * len(pinned), k).astype(np.float64)
    pin_goal = nearest.start.to_canonical(guide.points)
    c = np.zeros(k) if shape is None else np.concatenate([shape.style, shape.identity])
    # The search runs in the canonical frame of the start; `pose` is the correction found since.
    pose = Similarity(1.0, np.eye(3), np.zeros(3))
    for step in range(steps):
        model = base + (basis @ c).reshape(-1, 3)
        x, n = pose.to_mesh(model), base_normal @ pose.rotation.T
        y, m = nearest(x, n)
        gap = np.linalg.norm(x - y, axis=1)
        agree = (n * m).sum(1)
        # From rigid to supple: a wrong pose must be mended by the pose, not painted over by a strange identity.
        t = 1.0 if shape is not None and close else step / max(steps - 1, 1)
        free = 0 if t < 0.3 else min(k, round(k * min(1.0, (t - 0.2) / 0.5) ** 2 + 4 + drawn))
        effective = 20.0 * (trust / 20.0) ** t
        sigma = max(2.0, 16.0 * (1.0 - t))
        w = weight * np.clip(agree, 0, 1) ** 2 / (1 + (gap / sigma) ** 2) ** 2
        w *= effective / max(w.sum(), 1e-9)
        # The equations are set up in the model's own frame, where the modes stand still.
        centre = model.mean(0)
        matrix, right = _equations(model - centre, basis[:, :free], pose.to_canonical(y) - model, m @ pose.rotation,
                                   w * pose.scale**2, point_share)
        matrix[np.arange(7, 7 + free), np.arange(7, 7 + free)] += 1.0
        right[7:] -= c[:free]
        matrix[np.diag_indices(7)] *= 1.0 + 1e-6
        if len(pinned):
            at = pin_base + (pin_basis @ c).reshape(-1, 3)
            pull = np.concatenate([_rigid(at - centre), pin_basis[:, :free]], axis=1) * pose.scale
            matrix += PIN_WEIGHT * pull.T @ pull
            right += PIN_WEIGHT * pull.T @ ((pose.to_canonical(pin_goal) - at) * pose.scale).reshape(-1)
        solution = np.linalg.solve(matrix, right)
        turn = Rotation.from_rotvec(np.clip(solution[:3], -0.3, 0.3)).as_matrix()
        grow = float(np.exp(np.clip(solution[6], -0.1, 0.1)))
        # Turning and growing happen about the centre of the points, which decouples them from the shift.
        pose = pose.after(Similarity(grow, turn, centre + solution[3:6] - grow * turn @ centre))
        c[:free] = np.clip(c[:free] + solution[7:], -4.0, 4.0)
    face = weight > 0.5
    x = pose.to_mesh(base[face] + (basis @ c).reshape(-1, 3)[face])
    n = base_normal[face] @ pose.rotation.T
    y, m = nearest(x, n)
    off = 1.0 - (n * m).sum(1)
    cost = np.linalg.norm(x - y, axis=1) / pose.scale + 6.0 * off
    score = float(np.sort(cost)[: int(0.85 * len(cost))].mean() + 8.0 * off.mean())
    return Fit(nearest.start.after(pose), Shape(c[drawn:], c[:drawn]), score)


def _rigid(x: np.ndarray) -> np.ndarray:
    """(3N,7): how points x (N,3) move with turn, shift and growth about the origin."""
    jac = np.zeros((len(x), 3, 7))
    jac[:, 0, 1], jac[:, 0, 2] = x[:, 2], -x[:, 1]
    jac[:, 1, 0], jac[:, 1, 2] = -x[:, 2], x[:, 0]
    jac[:, 2, 0], jac[:, 2, 1] = x[:, 1], -x[:, 0]
    jac[:, :, 3:6] = np.eye(3)
    jac[:, :, 6] = x
    return jac.reshape(-1, 7)


def _equations(x: np.ndarray, basis: np.ndarray, gap: np.ndarray, normal: np.ndarray, weight: np.ndarray,
               point_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations (7+F,7+F) and (7+F,) of closing the gaps (N,3) of points x (N,3) about the origin by turn,
    shift, growth and modes (3N,F), with weights (N,).

    Point-to-plane, with a weak point-to-point part that keeps flat regions from sliding.
    """
    free = basis.shape[1]
    jac = np.empty((len(x), 3, 7 + free))
    jac[:, :, :7] = _rigid(x).reshape(-1, 3, 7)
    jac[:, :, 7:] = basis.reshape(len(x), 3, free)
    plane = np.einsum("ni,nik->nk", normal * np.sqrt(weight)[:, None], jac)
    jac *= np.sqrt(point_share * weight)[:, None, None]
    flat = jac.reshape(-1, 7 + free)
    right = plane.T @ (np.sqrt(weight) * (normal * gap).sum(1))
    right += flat.T @ (np.sqrt(point_share * weight)[:, None] * gap).reshape(-1)
    return plane.T @ plane + flat.T @ flat, right
