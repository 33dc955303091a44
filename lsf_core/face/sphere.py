"""Balls among the parts of a mesh: eyeballs are the surest sign of a face's place and turn, where they are modelled."""

from __future__ import annotations

import itertools

import numpy as np

from .mesh import Surface

MAX_PAIRS = 3


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Algebraic sphere fit: centre (3,), radius, root mean square residual."""
    middle = points.mean(0)
    local = points - middle
    system = np.concatenate([2 * local, np.ones((len(local), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(system, (local**2).sum(1), rcond=None)
    centre = solution[:3]
    radius = float(np.sqrt(max(solution[3] + centre @ centre, 0.0)))
    residual = np.linalg.norm(local - centre, axis=1) - radius
    return centre + middle, radius, float(np.sqrt(np.mean(residual**2)))


def eye_pairs(mesh: Surface) -> list[tuple[np.ndarray, np.ndarray]]:
    """Centres of the pairs of parts most like two eyeballs: round, alike, some radii apart. At most MAX_PAIRS."""
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.triangles.ravel()] = True
    order = np.flatnonzero(used)[np.argsort(mesh.component[used], kind="stable")]
    bounds = np.flatnonzero(np.diff(mesh.component[order])) + 1
    parts = [part for part in np.split(order, bounds) if len(part) >= 12]
    balls: list[tuple[np.ndarray, float, int]] = []
    for part in parts:
        points = mesh.vertices[part]
        extent = np.ptp(points, axis=0)
        if extent.max() > 2.2 * max(extent.min(), 1e-12):
            continue
        centre, radius, error = fit_sphere(points)
        if error < 0.16 * radius and extent.max() < 3.0 * radius:
            balls.append((centre, radius, len(part)))
    balls = sorted(balls, key=lambda ball: -ball[1])[:24]
    found = []
    for (a, ra, na), (b, rb, nb) in itertools.combinations(balls, 2):
        apart = float(np.linalg.norm(a - b))
        unlike = abs(np.log(ra / rb)) + 0.5 * abs(np.log(na / nb))
        if 2.1 < apart / max(ra, rb) < 9.0 and unlike < 0.4:
            found.append((unlike - 0.3 * np.log(ra), a, b))
    chosen: list[tuple[np.ndarray, np.ndarray]] = []
    for _, a, b in sorted(found, key=lambda entry: entry[0]):
        near = 0.1 * np.linalg.norm(a - b)
        # The white and the cornea of the same eyes are one pair.
        doubled = any(np.linalg.norm((a + b) / 2 - (c + d) / 2) < near for c, d in chosen)
        if not doubled:
            chosen.append((a, b))
    return chosen[:MAX_PAIRS]
