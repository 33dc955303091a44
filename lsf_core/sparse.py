"""Sparse keys: which frames of a motion need a key, so that an animator can hold the curves in the hand.

The curves between the keys are those that Blender draws for keys with *Auto Clamped* handles and no auto smoothing.
Only places and values are stored: the handles come by themselves, stay smooth when a key is moved, and never swing
beyond the keys, so that weights stay in [0, 1]. `between` computes the same curves (rules: Blender's manual, F-curve
handle types; checked against Blender in tests/blender/test_edits_in_blender.py).

A key is added where the error is largest, until no weight is off by more than TOLERANCE and no point of the face by
more than TOLERANCE_MM. All curves of a take are worked on at once, end to end in one long row, so that numpy takes a
second for ten minutes of 52 curves. Numpy alone: this runs inside Blender's Python.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arkit import ARKIT_NAMES, INDEX
from .lips import GAP_ROW
from .motion import GAP_PROMINENCE_MM, LID_PROMINENCE, Motion, minima

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]
    Mask = NDArray[np.bool_]

TOLERANCE = 0.01
"""Weight that a curve may be off at any frame."""

TOLERANCE_MM = 0.2
"""Millimetres that any point of an adult's face may be off at any frame, all curves together."""

_PROBE_MM = 0.15  # bound at the probes, so that the points between them, and heads other than the template, keep theirs
_LIP_MM = 0.05  # a shape that moves the lips apart by less than this in the whole take closes no mouth
_EXTREME = 1.5  # an extreme is worth this much more error than a frame beside it: there handles lie flat
_REACH = 1 / 2.5614  # length of an auto handle, in segments: Blender's constant for round curves
_BLOCK = 4096  # frames at a time where the face's points are measured

_TEMPLATE = Path(__file__).resolve().parent.parent / "assets" / "template_head.npz"


def sparse_keys(weights: Floats, keep: Mask | None = None, probes: Floats | None = None,
                tolerance: float = TOLERANCE) -> Mask:
    """Where curves need keys: (F, C) bool, the first and last frame always among them. A key has its frame's weight.

    weights: (F, C) in any units. keep: (F, C), keys that must be there, such as `exact_keys`. probes: (C, P, 3) mm,
    what a weight of 1 moves points of the face by (`face_probes`); None: the face is not looked at. tolerance: in
    units of weights.
    """
    weights = np.asarray(weights, np.float64)
    per_curve = np.full(weights.shape[1], tolerance)
    if probes is not None:
        # One shape that moves the face far is bound by the millimetres anyway: cheaper known from the start.
        peak = np.linalg.norm(probes, axis=2).max(axis=1, initial=1e-9)
        per_curve = np.minimum(per_curve, TOLERANCE_MM / peak)
    row = _Row(weights, per_curve, keep)
    row.refine()
    while probes is not None:
        worst = _worst_shapes(row.errors(), probes)
        if not len(worst):
            break
        row.refine(worst)
    return row.mask()


def exact_keys(motion: Motion) -> Mask:
    """(F, 52): the keys that are kept whatever the tolerance, at the moments a viewer does not forgive.

    The shapes that move the lips apart, where the lips have come closest (their gap is kept to some 0.01 mm), and the
    lids where they are shut.
    """
    weights = motion.weights
    keep = np.zeros(weights.shape, bool)
    lips = np.flatnonzero(np.abs(GAP_ROW) * np.ptp(weights, axis=0) > _LIP_MM)
    lids = np.array([INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]])
    opening = 1.0 - weights[:, lids].max(axis=1)
    for columns, curve, prominence in ((lips, motion.lip_gap_mm(), GAP_PROMINENCE_MM), (lids, opening, LID_PROMINENCE)):
        frames = np.array(minima(curve, prominence), int).ravel()
        keep[np.ix_(frames, columns)] = True
    return keep


@lru_cache(maxsize=1)
def face_probes(path: Path = _TEMPLATE) -> Floats:
    """(52, P, 3) float32 mm: what each ARKit shape moves some 80 points of the template head by.

    The points: those that some shape moves furthest, and the landmarks.
    """
    with np.load(path, allow_pickle=False) as file:
        moved = file["expressions_mm"].astype(np.float32)
        names = [str(name) for name in file["expression_names"]]
        points = [*np.linalg.norm(moved, axis=2).argmax(axis=1), *file["landmark_index"]]
    return moved[[names.index(name) for name in ARKIT_NAMES]][:, np.unique(points)]


def between(weights: Floats, keys: Mask) -> Floats:
    """The curves through the keys at every frame: (F, C) float64."""
    row = _Row(np.asarray(weights, np.float64), np.full(keys.shape[1], np.inf), keys)
    row.refine()
    return weights + row.errors()


class _Row:
    """All curves end to end: curve c holds the places c * F to (c + 1) * F. Keys at both ends part them."""

    def __init__(self, weights: Floats, tolerance: Floats, keep: Mask | None) -> None:
        self.frames, self.curves = weights.shape
        self.y = np.ascontiguousarray(weights.T).ravel()
        self.tolerance = np.repeat(tolerance, self.frames)
        keys = np.zeros((self.curves, self.frames), bool) if keep is None else keep.T.copy()
        keys[:, [0, -1]] = True
        self.keys = keys.ravel()
        self.off = np.zeros(len(self.y))  # curve less weight
        slope = np.diff(self.y)
        extreme = np.zeros(len(self.y), bool)
        extreme[1:-1] = slope[:-1] * slope[1:] < 0
        self.worth = np.where(extreme, _EXTREME, 1.0)
        # Swings that will need keys at their ends in any case are given them at once: saves rounds.
        ends = np.flatnonzero(extreme | self.keys)
        swing = np.abs(np.diff(self.y[ends]))
        least = np.minimum(np.append(swing, np.inf), np.insert(swing, 0, np.inf))
        self.keys[ends[(least > 2 * self.tolerance[ends]) & np.isfinite(least)]] = True
        self.places = np.flatnonzero(self.keys)

    def mask(self) -> Mask:
        """(F, C): where keys are."""
        return self.keys.reshape(self.curves, self.frames).T

    def errors(self) -> Floats:
        """(F, C): the curves as they are less the weights."""
        return self.off.reshape(self.curves, self.frames).T

    def refine(self, places: NDArray[np.int64] | None = None) -> None:
        """Add keys at `places`, if any, and then wherever a curve is off by more than its tolerance."""
        touched = None if places is None else self._add(places)
        while True:
            places = self._measure(touched)
            if not len(places):
                return
            touched = self._add(places)

    def _add(self, places: NDArray[np.int64]) -> Mask:
        """Put keys there; which segments are other curves for it: a key's handles hang on both its neighbours."""
        self.keys[places] = True
        self.off[places] = 0.0
        self.places = np.flatnonzero(self.keys)
        where = np.searchsorted(self.places, places)
        touched = np.zeros(len(self.places) + 2, bool)
        for step in (-2, -1, 0, 1):
            touched[where + step] = True
        return touched[:-3]

    def _measure(self, segments: Mask | None) -> NDArray[np.int64]:
        """Follow the curves in the segments (None: all); the place that is off most in each that is off too far."""
        keys = self.places
        values = self.y[keys]
        length = np.diff(keys)
        chosen = np.flatnonzero(length > 1 if segments is None else segments & (length > 1))
        if not len(chosen):
            return chosen
        _, _, right, right_y = self._handles(keys, values, chosen)
        left, left_y, _, _ = self._handles(keys, values, chosen + 1)
        inside = length[chosen] - 1
        first = np.cumsum(inside) - inside
        of = np.repeat(np.arange(len(chosen)), inside)  # which of the chosen segments a place is in
        step = np.arange(len(of)) - first[of] + 1
        place = keys[chosen][of] + step
        reach = length[chosen]
        t = _parameter(step / reach[of], right / reach, left / reach, of)
        y0, y1, y2, y3 = values[chosen], right_y, left_y, values[chosen + 1]
        linear, square, cubic = 3 * (y1 - y0), 3 * (y2 - 2 * y1 + y0), y3 - y0 + 3 * (y1 - y2)
        off = ((cubic[of] * t + square[of]) * t + linear[of]) * t + y0[of] - self.y[place]
        self.off[place] = off
        off = np.abs(off)
        need = np.where(off > self.tolerance[place], off * self.worth[place], 0.0)
        most = np.maximum.reduceat(need, first)
        hits = np.flatnonzero((need == most[of]) & (need > 0))
        hits = hits[np.diff(of[hits], prepend=-1) > 0]  # the first of several that are as bad
        return place[hits]

    def _handles(self, keys: NDArray[np.int64], values: Floats, of: NDArray[np.int64]) -> tuple[Floats, ...]:
        """Auto Clamped handles of the keys with the numbers `of`: length and height of the left one, of the right one.

        A handle points along the mean of the slopes to both neighbours, flat at extremes and at a curve's ends; one
        that would reach beyond its neighbour's height stops there and takes the other one of its key with it.
        """
        x, y = keys[of], values[of]
        is_first, is_last = x % self.frames == 0, (x + 1) % self.frames == 0
        last, following = values[of - 1], values.take(of + 1, mode="clip")
        before, after = (x - keys[of - 1]).astype(np.float64), (keys.take(of + 1, mode="clip") - x).astype(np.float64)
        before, after = np.where(is_first, after, before), np.where(is_last, before, after)
        up, on = y - last, following - y
        slope = (up / before + on / after) / 2
        before = np.minimum(before, 5 * after)
        after = np.minimum(after, 5 * before)
        left, right = _REACH * before, _REACH * after
        left_y, right_y = y - slope * left, y + slope * right
        left_stop = np.where(up >= 0, np.maximum(left_y, last), np.minimum(left_y, last))
        right_stop = np.where(up >= 0, np.minimum(right_y, following), np.maximum(right_y, following))
        by_left = left_stop != left_y
        by_right = (right_stop != right_y) & ~by_left
        right_y = np.where(by_left, y + (y - left_stop) / left * right, right_stop)
        left_y = np.where(by_right, y - (right_stop - y) / right * left, left_stop)
        flat = (up * on <= 0) | is_first | is_last
        return left, np.where(flat, y, left_y), right, np.where(flat, y, right_y)


def _newton(u: Floats, a: Floats | float, b: Floats | float, start: Floats, steps: int) -> Floats:
    """t at which a Bezier curve over [0, 1] with handles of lengths a and b is at x = u, sought from `start`."""
    linear, square, cubic = 3 * a, 3 * (1 - b) - 6 * a, 1 + 3 * a - 3 * (1 - b)
    t = np.array(start, np.float64)
    for _ in range(steps):
        t -= (((cubic * t + square) * t + linear) * t - u) / ((3 * cubic * t + 2 * square) * t + linear)
    return t


_GRID = np.linspace(0.0, 1.0, 2049)
_USUAL = _newton(_GRID, _REACH, _REACH, _GRID, 6)


def _parameter(u: Floats, a: Floats, b: Floats, of: NDArray[np.int64]) -> Floats:
    """t at x = u (N,) of the segments `of` (N,) with handles a, b (S,): from a table where both are of usual length."""
    t = np.interp(u, _GRID, _USUAL)
    odd = np.flatnonzero(((np.abs(a - _REACH) > 1e-9) | (np.abs(b - _REACH) > 1e-9))[of])
    if len(odd):
        t[odd] = _newton(u[odd], a[of[odd]], b[of[odd]], t[odd], 4)
    return t


def _worst_shapes(errors: Floats, probes: Floats) -> NDArray[np.int64]:
    """For each frame in which a point of the face is off too far: the place (as in _Row) of the shape most to blame."""
    frames, places = len(errors), []
    for start in range(0, frames, _BLOCK):
        off = errors[start : start + _BLOCK].astype(np.float32)
        moved = np.tensordot(off, probes, axes=1)  # (B, P, 3) mm
        far = np.einsum("fpx,fpx->fp", moved, moved)
        point = far.argmax(axis=1)
        bad = np.flatnonzero(far[np.arange(len(off)), point] > _PROBE_MM**2)
        blame = off[bad] * np.einsum("cfx,fx->fc", probes[:, point[bad]], moved[bad, point[bad]])
        places.append(blame.argmax(axis=1) * frames + start + bad)
    return np.concatenate(places)
