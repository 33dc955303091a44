"""Sparse keys: which frames of a motion need a key, so that an animator can hold the curves in the hand.

The curves between the keys are those that Blender draws for keys with *Auto Clamped* handles and no auto smoothing.
Only places and values are stored: the handles come by themselves, stay smooth when a key is moved, and never swing
beyond the keys, so that weights stay in [0, 1]. `between` computes the same curves (rules: Blender's manual, F-curve
handle types; checked against Blender in tests/blender/test_edits_in_blender.py).

A key is added where the error is largest, until no weight is off by more than TOLERANCE and no point of the face by
more than TOLERANCE_MM; then each is left out that the others can do without. All curves of a take are worked on at
once, end to end in one long row, so that numpy takes a second for ten minutes of 52 curves. Numpy alone: this runs
inside Blender's Python.
"""

from __future__ import annotations

from collections.abc import Iterator
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
_BLOCK = 1024  # frames at a time where the face's points are measured, and
_AT_ONCE = 1 << 15  # places at a time where curves are followed: what a processor's cache holds
_APART = 4  # keys: those that are nearer bear on the same stretch of curve
_FLAT = 3e-6  # weight: a segment that rises by less is where it is, wherever its handles end
_LONGEST = 512  # frames of the segments that the table of usual handles is for

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
    face = None if probes is None else _Probes(probes)
    frames = np.arange(len(weights))
    while face is not None:
        bad, blame = face.blame(row.errors(frames), frames)
        if not len(bad):
            break
        frames = row.refine(np.unique(blame.argmax(axis=1) * len(weights) + bad))
    row.thin(face)
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
        self.tolerance = tolerance
        keys = np.zeros((self.curves, self.frames), bool) if keep is None else keep.T.copy()
        keys[:, [0, -1]] = True
        self.fixed = keys.ravel()
        self.keys = self.fixed.copy()
        self.off = np.zeros(len(self.y))  # curve less weight
        slope = np.diff(self.y)
        extreme = np.zeros(len(self.y), bool)
        extreme[1:-1] = slope[:-1] * slope[1:] < 0
        self.worth = np.where(extreme, _EXTREME, 1.0)
        # Swings that will need keys at their ends in most cases are given them at once: saves rounds.
        ends = np.flatnonzero(extreme | self.keys)
        swing = np.abs(np.diff(self.y[ends]))
        least = np.minimum(np.append(swing, np.inf), np.insert(swing, 0, np.inf))
        self.keys[ends[(least > 2 * self.tolerance[ends // self.frames]) & np.isfinite(least)]] = True
        self.places = np.flatnonzero(self.keys)

    def mask(self) -> Mask:
        """(F, C): where keys are."""
        return self.keys.reshape(self.curves, self.frames).T

    def errors(self, frames: NDArray[np.int64] | slice = slice(None)) -> Floats:
        """(F, C), or of these frames: the curves as they are less the weights."""
        return self.off.reshape(self.curves, self.frames)[:, frames].T

    def refine(self, places: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Add keys at `places`, if any, and then wherever a curve is off by more than its tolerance. Returns the frames
        in which a curve changed."""
        changed, touched = np.zeros(self.frames, bool), None
        while places is None or len(places):
            if places is not None:
                touched = self._add(places)
                changed[places % self.frames] = True
            bad = []
            for segments, of, place, _ in self._follow(touched):
                changed[place % self.frames] = True
                bad.append(self._worst(segments, of, place))
            places = np.concatenate([np.zeros(0, np.int64), *bad])
        return np.flatnonzero(changed)

    def thin(self, probes: _Probes | None) -> None:
        """Remove keys that turn out not to be needed, now that their neighbours are there.

        Every fourth key of a curve at a time: so far apart, no two of them bear on the same stretch of the curve.
        """
        for turn in range(_APART):
            first = np.searchsorted(self.places, np.arange(self.curves) * self.frames)
            number = np.arange(len(self.places)) - first[self.places // self.frames]  # of each key in its curve
            tried = self.places[(number % _APART == turn) & ~self.fixed[self.places]]
            if len(tried):
                self._try_without(tried, probes)

    def _try_without(self, tried: NDArray[np.int64], probes: _Probes | None) -> None:
        """Remove keys, and put back those without which a curve, or the face, would be off too far."""
        old = self.off.copy()
        self.keys[tried] = False
        self.places = np.flatnonzero(self.keys)
        tolerance = self.tolerance[tried // self.frames]
        # Most are needed at their own place already, and cheaply found out.
        needed = np.abs(self._measure(np.searchsorted(self.places, tried) - 1, None, tried)) > tolerance
        self.keys[tried[needed]] = True
        tried, tolerance = tried[~needed], tolerance[~needed]
        self.places = np.flatnonzero(self.keys)
        after = np.searchsorted(self.places, tried)
        segments = after[:, None] + np.array([-2, -1, 0])  # a key's neighbours have other handles without it
        curve = tried // self.frames * self.frames
        start = np.maximum(self.places[np.maximum(after - 2, 0)], curve)
        count = np.minimum(self.places.take(after + 1, mode="clip"), curve + self.frames - 1) - start
        touched, worst = np.zeros(len(self.places), bool), np.zeros(len(self.places))
        touched[segments] = True
        for segment, _, _, most in self._follow(touched[:-1]):
            worst[segment] = most

        def put_back(which: Mask | NDArray[np.int64]) -> NDArray[np.int64]:
            self.keys[tried[which]] = True
            _, changed = _ranges(start[which], count[which])
            self.off[changed] = old[changed]
            return changed

        back = (worst[segments] > tolerance[:, None]).any(axis=1)
        put_back(back)
        if probes is not None:
            kept = np.flatnonzero(~back)
            owner, place = _ranges(start[kept], count[kept])
            of = np.full(len(self.off), -1)  # which removal made a place what it is
            of[place] = kept[owner]
            of_frame = of.reshape(self.curves, self.frames).T
            frames = np.unique(place % self.frames)
            while len(frames):
                bad, blame = probes.blame(self.errors(frames), frames)
                guilty = of_frame[bad, np.where(of_frame[bad] >= 0, blame, -np.inf).argmax(axis=1)]
                undone = put_back(np.unique(guilty[guilty >= 0]))
                of[undone] = -1
                frames = np.unique(undone % self.frames)
        self.places = np.flatnonzero(self.keys)

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

    def _worst(self, segments: NDArray[np.int64], of: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of places in the segments number `of`, the one that is off most in each that is off too far."""
        off = np.abs(self.off[place])
        bad = np.flatnonzero(off > self.tolerance[self.places[segments] // self.frames][of])
        if not len(bad):
            return bad
        need, of, place = off[bad] * self.worth[place[bad]], of[bad], place[bad]
        first = np.flatnonzero(np.diff(of, prepend=-1))
        most = np.repeat(np.maximum.reduceat(need, first), np.diff(first, append=len(of)))
        hits = np.flatnonzero(need == most)
        return place[hits[np.diff(of[hits], prepend=-1) > 0]]  # the first of several that are as bad

    def _follow(self, segments: Mask | None) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64],
                                                               Floats]]:
        """Follow the curves in the segments (None: all), some at a time, and note in `off` what they are off by.

        Yields segments (S,), for each place within them (N,) the number of its segment among these and the place, and
        how far each segment is off at most (S,).
        """
        length = np.diff(self.places)
        chosen = np.flatnonzero(length > 1 if segments is None else segments & (length > 1))
        total = np.cumsum(length[chosen] - 1)
        cuts = np.searchsorted(total, np.arange(_AT_ONCE, total[-1] if len(total) else 0, _AT_ONCE))
        for part in np.split(chosen, np.unique(cuts)):
            if not len(part):
                continue
            inside = length[part] - 1
            of, place = _ranges(self.places[part] + 1, inside)
            off = self.off[place] = self._measure(part, of, place)
            yield part, of, place, np.maximum.reduceat(np.abs(off), np.cumsum(inside) - inside)

    def _measure(self, segments: NDArray[np.int64], of: NDArray[np.int64] | None, place: NDArray[np.int64]) -> Floats:
        """The curve less the weight at places (N,), each in the segment number `of` (N,) of these, or in its own."""
        keys, reach = self.places[segments], self.places[segments + 1] - self.places[segments]
        y0, y3 = self.y[keys], self.y[keys + reach]
        _, _, right, y1 = self._handles(segments)
        left, y2, _, _ = self._handles(segments + 1)
        of = np.arange(len(place)) if of is None else of
        t = _parameter(place - keys[of], reach, right / reach, left / reach, np.abs(y3 - y0) > _FLAT, of)
        linear, square, cubic = 3 * (y1 - y0), 3 * (y2 - 2 * y1 + y0), y3 - y0 + 3 * (y1 - y2)
        return ((cubic[of] * t + square[of]) * t + linear[of]) * t + y0[of] - self.y[place]

    def _handles(self, of: NDArray[np.int64]) -> tuple[Floats, ...]:
        """Auto Clamped handles of the keys with the numbers `of`: length and height of the left one, of the right one.

        A handle points along the mean of the slopes to both neighbours, flat at extremes and at a curve's ends; one
        that would reach beyond its neighbour's height stops there and takes the other one of its key with it.
        """
        x, x_last, x_next = self.places[of], self.places[of - 1], self.places.take(of + 1, mode="clip")
        y, last, following = self.y[x], self.y[x_last], self.y[x_next]
        is_first, is_last = x % self.frames == 0, (x + 1) % self.frames == 0
        before, after = (x - x_last).astype(np.float64), (x_next - x).astype(np.float64)
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


def _ranges(start: NDArray[np.int64], count: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers start, start + 1 ... of each range, `count` of them: which range each is of, and the numbers."""
    of = np.repeat(np.arange(len(count)), count)
    return of, (start - np.cumsum(count) + count)[of] + np.arange(len(of))


def _newton(u: Floats, a: Floats, b: Floats) -> Floats:
    """t at which Bezier curves over [0, 1] with handles of lengths a and b are at x = u, all (N,); to some 1e-8."""
    linear, square, cubic = 3 * a, 3 * (1 - b) - 6 * a, 1 + 3 * a - 3 * (1 - b)
    t, rest = u.copy(), np.arange(len(u))
    for steps in (3, 4):  # most are there after three steps
        at, one, two, three = t[rest], linear[rest], square[rest], cubic[rest]
        for _ in range(steps):
            step = (((three * at + two) * at + one) * at - u[rest]) / ((3 * three * at + 2 * two) * at + one)
            at -= step
        t[rest] = at
        rest = rest[np.abs(step) > 1e-4]
    return t


@lru_cache(maxsize=1)
def _usual() -> Floats:
    """t at every frame of segments of up to _LONGEST frames with handles of usual length: frame i of n at
    n (n - 1) / 2 + i."""
    of, step = _ranges(np.zeros(_LONGEST, np.int64), np.arange(1, _LONGEST + 1))
    reach = np.full(len(of), _REACH)
    return _newton(step / (of + 1), reach, reach)


def _parameter(step: NDArray[np.int64], reach: NDArray[np.int64], a: Floats, b: Floats, rising: Mask,
               of: NDArray[np.int64]) -> Floats:
    """t at the frames `step` (N,) of the segments `of` (N,), `reach` (S,) frames long with handles a, b (S,) in shares
    of that: from a table where these are of usual length. Where not `rising` (S,), any t will do."""
    plain = (np.abs(a - _REACH) < 1e-9) & (np.abs(b - _REACH) < 1e-9) & (reach <= _LONGEST)
    table = np.where(reach <= _LONGEST, reach * (reach - 1) // 2, 0)
    t = _usual()[table[of] + np.minimum(step, _LONGEST - 1)]
    odd = np.flatnonzero((~plain & rising)[of])
    if len(odd):
        segment = of[odd]
        t[odd] = _newton(step[odd] / reach[segment], a[segment], b[segment])
    return t


class _Probes:
    """Points of the face by whose movement errors are measured."""

    def __init__(self, moves: Floats) -> None:
        """moves: (C, P, 3) mm, as `face_probes`."""
        self.moves = np.asarray(moves, np.float32)
        self.flat = self.moves.transpose(0, 2, 1).reshape(len(self.moves), -1)
        self.most = np.linalg.norm(self.moves, axis=2).max(axis=1, initial=0.0)

    def blame(self, errors: Floats, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
        """Those of the frames (F,) with errors (F, C) in which a point is off too far (B,), and what each shape adds to
        the square of its distance there (B, C)."""
        bad, blame = [np.zeros(0, np.int64)], [np.zeros((0, len(self.moves)), np.float32)]
        errors = np.asarray(errors, np.float32)
        doubtful = np.abs(errors) @ self.most > _PROBE_MM  # even if all shapes moved one point one way
        errors, frames = errors[doubtful], frames[doubtful]
        for start in range(0, len(frames), _BLOCK):
            off = errors[start : start + _BLOCK]
            moved = (off @ self.flat).reshape(len(off), 3, -1)  # (B, 3, P) mm
            far = moved[:, 0] ** 2 + moved[:, 1] ** 2 + moved[:, 2] ** 2
            point = far.argmax(axis=1)
            hit = np.flatnonzero(far[np.arange(len(off)), point] > _PROBE_MM**2)
            bad.append(frames[start + hit])
            blame.append(off[hit] * np.einsum("cfx,fx->fc", self.moves[:, point[hit]], moved[hit, :, point[hit]]))
        return np.concatenate(bad), np.concatenate(blame)
