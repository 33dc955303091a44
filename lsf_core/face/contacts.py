"""Contacts of one face: lids meet in a blink, lips meet when mouthClose counters jawOpen.

Transferred shapes come close to this; a face differs from the template, so a residual of a few tenths of a millimetre
to a few millimetres stays. It is measured between the rims of the opening and removed by a smooth field near the rims.
"""

from __future__ import annotations

import numpy as np

from ..arkit import INDEX
from .correspond import geodesic
from .mesh import Surface
from .prepared import loop_pairs
from .register import Registration

LIP_REACH_MM = 14.0
LID_REACH_MM = 9.0
LID_OVERLAP_MM = 0.4
"""How far the upper lid passes the lower in a blink: covers what the registration is off at the rims."""


def arc_fraction(points: np.ndarray) -> np.ndarray:
    """Position (N,) of the points of a polyline (N,3) along it, 0 at the start and 1 at the end."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return length / max(length[-1], 1e-9)


def along(points: np.ndarray, fraction: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Points (M,3) of a polyline at the arc fractions `at` (M,)."""
    return np.stack([np.interp(at, fraction, points[:, k]) for k in range(points.shape[1])], axis=1)


def rim_field(surface: Surface, rest: np.ndarray, loop: np.ndarray, values: np.ndarray, reach: float) -> np.ndarray:
    """Spread (N,3) `values` of the rim's vertices `loop` over the surface: full on the rim, zero `reach` mm away."""
    distance = geodesic(surface, loop, reach)
    near = np.flatnonzero(np.isfinite(distance))
    fade = np.clip(1.0 - distance[near] / reach, 0.0, 1.0)
    fade = fade * fade * (3.0 - 2.0 * fade)
    gap = np.linalg.norm(rest[near][:, None] - rest[loop][None], axis=2)
    weight = np.exp(-((gap - gap.min(1, keepdims=True)) / 1.5))
    weight /= weight.sum(1, keepdims=True)
    field = np.zeros_like(rest)
    field[near] = fade[:, None] * (weight @ values)
    return field


def meet(surface: Surface, rest: np.ndarray, posed: np.ndarray, upper: np.ndarray, lower: np.ndarray, *,
         keep_rest: bool, upper_share: float, reach: float, overlap: float = 0.0) -> np.ndarray:
    """Field (W,3) that, added to `posed` (W,3), brings two rims together (or to their distance at rest).

    upper, lower: rims as ordered vertices with shared ends. `overlap`: mm that the upper rim goes past the lower one.
    """
    up, low = arc_fraction(rest[upper]), arc_fraction(rest[lower])
    total = np.zeros_like(posed)
    past = np.array([0.0, -overlap, 0.0])
    up_past, low_past = np.sin(np.pi * up)[:, None] * past, np.sin(np.pi * low)[:, None] * past
    # The spread mixes neighbouring rim values, so one pass leaves a rest; three leave a few hundredths of a millimetre.
    for _ in range(3):
        now = posed + total
        need_up = along(now[lower], low, up) - now[upper] + up_past
        need_low = along(now[upper], up, low) - now[lower] - low_past
        if keep_rest:
            need_up -= along(rest[lower], low, up) - rest[upper]
            need_low -= along(rest[upper], up, low) - rest[lower]
        total += rim_field(surface, rest, upper, upper_share * need_up, reach)
        total += rim_field(surface, rest, lower, (1 - upper_share) * need_low, reach)
    return total


def correct_template(result: Registration, deltas: np.ndarray) -> np.ndarray:
    """Corrected expressions (52,S,3) on the registered skin: blinks and mouthClose close the openings of this face."""
    prepared = result.prepared
    rest = result.vertices[prepared.skin]
    local = np.full(len(result.vertices), -1)
    local[prepared.skin] = np.arange(len(prepared.skin))
    surface = Surface(rest, prepared.surface.triangles, prepared.surface.weld)
    deltas = deltas.copy()
    pairs = {name: (local[upper], local[lower]) for name, (upper, lower) in loop_pairs(prepared.template).items()}
    jaw, close = INDEX["jawOpen"], INDEX["mouthClose"]
    deltas[close] += meet(surface, rest, rest + deltas[jaw] + deltas[close], *pairs["lip"],
                          keep_rest=True, upper_share=0.35, reach=LIP_REACH_MM)
    for side in ("left", "right"):
        blink = INDEX[f"eyeBlink{side.capitalize()}"]
        deltas[blink] += meet(surface, rest, rest + deltas[blink], *pairs[f"lid_{side}"],
                              keep_rest=False, upper_share=0.8, reach=LID_REACH_MM, overlap=LID_OVERLAP_MM)
    return deltas
