"""Weights for shape keys that exist: copied where a key is an ARKit shape, solved where it is a viseme or a pose.

Only numpy. The wanted face of a frame is what the 52 shapes that `rig` made for this very mesh would do; the weights of
the mesh's own keys that come nearest to it, each in [0, 1], are a bounded least squares problem, all frames at once.
"""

from __future__ import annotations

import numpy as np

from ...arkit import ARKIT_NAMES, INDEX
from .names import Matched

SMOOTH_S = 0.015
"""Time constant of the smoothing: shorter than a phone, longer than the jumps between keys that look alike."""
RIDGE = 0.003
"""Cost of a weight as a share of its key's own energy: of keys that do the same, all share the work."""
SWEEPS = 300
TOLERANCE = 1e-4


def solve_weights(keys: np.ndarray, shapes: np.ndarray, weights: np.ndarray, fps: float = 30.0) -> np.ndarray:
    """Weights (F,K) float32 in [0,1] of `keys` (K,V,3) that come nearest to the motion `weights` (F,S) of `shapes`.

    shapes (S,V,3) and keys: displacements in the same space and unit. Raises ValueError for arrays that do not fit.
    """
    return solve_products(*products(keys, shapes), weights, fps)


def products(keys: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All that solving needs of a mesh: inner products of keys (K,V,3) with each other (K,K), of shapes (S,V,3) with
    keys (S,K). Raises ValueError for arrays that do not fit."""
    if keys.shape[1:] != shapes.shape[1:]:
        raise ValueError(f"keys {keys.shape} and shapes {shapes.shape} do not fit together.")
    flat = keys.reshape(len(keys), -1).astype(np.float64)
    return flat @ flat.T, shapes.reshape(len(shapes), -1).astype(np.float64) @ flat.T


def solve_products(own: np.ndarray, shared: np.ndarray, weights: np.ndarray, fps: float = 30.0) -> np.ndarray:
    """`solve_weights` from the `products` own (K,K) and shared (S,K) and the motion (F,S).

    Minimises |keys x - shapes w|^2 over the frames plus a ridge and the squared change between frames (SMOOTH_S), by
    coordinate descent in the box: even frames and odd frames in turn, each coordinate exactly. Keys that move nothing
    get 0. Raises ValueError for arrays that do not fit.
    """
    if weights.ndim != 2 or shared.shape != (weights.shape[1], len(own)):
        raise ValueError(f"products {own.shape}, {shared.shape} and weights {weights.shape} do not fit together.")
    frames, count = len(weights), len(own)
    energy = np.diag(own)
    alive = energy > 1e-12 * max(float(energy.max(initial=0.0)), 1e-30)
    x = np.zeros((frames + 2, count))  # a frame of padding at both ends: the neighbours of the first and the last
    if not alive.any() or frames == 0:
        return x[1:-1].astype(np.float32)
    unit = float(energy[alive].mean())
    gram, energy = own / unit, energy / unit
    wanted = np.asarray(weights, np.float64) @ shared / unit
    bond = (SMOOTH_S * fps) ** 2
    links = np.full(frames, 2.0)
    links[0] -= 1.0
    links[-1] -= 1.0
    groups = [np.arange(start, frames, 2) for start in range(min(2, frames))]
    for _ in range(SWEEPS):
        change = 0.0
        for group in groups:
            rows = group + 1
            around = (x[rows - 1] * (group > 0)[:, None] + x[rows + 1] * (group < frames - 1)[:, None]) * bond
            now = x[rows]
            for k in np.flatnonzero(alive):
                pull = wanted[group, k] - now @ gram[:, k] + energy[k] * (now[:, k] + around[:, k])
                new = np.clip(pull / (energy[k] * (1.0 + RIDGE + bond * links[group])), 0.0, 1.0)
                change = max(change, float(np.abs(new - now[:, k]).max()))
                now[:, k] = new
            x[rows] = now
        if change < TOLERANCE:
            break
    return x[1:-1].astype(np.float32)


def retarget(matched: Matched, names: list[str], keys: np.ndarray, shapes: np.ndarray, weights: np.ndarray,
             fps: float = 30.0) -> np.ndarray:
    """Weights (F,K) for the keys `names` (K,), displacements `keys` (K,V,3), of a motion `weights` (F,52).

    Keys that stand for an ARKit shape get its weight; keys that are poses (visemes, blink) are solved for what the
    ARKit shapes that the mesh lacks would have done; all others stay at 0. shapes (52,V,3): what `rig` made for it.
    """
    out = np.zeros((len(weights), len(names)), np.float32)
    for key, shape in matched.arkit.items():
        out[:, names.index(key)] = weights[:, INDEX[shape]]
    poses = [names.index(key) for key in matched.poses]
    lacking = [INDEX[shape] for shape in ARKIT_NAMES if shape in matched.missing]
    if poses and lacking:
        out[:, poses] = solve_weights(keys[poses], shapes[lacking], weights[:, lacking], fps)
    return out
