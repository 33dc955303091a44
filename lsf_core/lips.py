"""How far each ARKit shape moves the lips apart: what tells a closed mouth from an open one in weights alone.

Measured on the neutral head of ICT-FaceKit (MIT licence; Li et al. 2020). Heads differ in scale; where in time the lips
are closest is the same on all of them.

Arrays are numpy's or torch's (arrays.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arkit import INDEX
from .arrays import columns, library, like, percentile
from .filters import gaussian, smoothstep

Array = Any  # numpy's or torch's

# Lip gap in mm per unit of weight, in ARKIT_NAMES order: y of the inner middle of the upper lip (vertex 5533) less
# that of the lower lip (5517) in each expression of ICT-FaceKit (MIT licence; Li et al. 2020), times 10 as that
# model counts in centimetres; left and right halves of browInnerUp and cheekPuff are added. Zero is the rest face,
# whose lips just touch.
GAP_ROW = np.array([
    -0.0005, -0.0005, 0.0030, 0.0000, 0.0000, -0.4402, 0.1851, 0.1851, -0.0002, -0.0002, 0.0000, 0.0000, 0.0000,
    0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 1.2913, -0.2285, 32.7539, -0.2285,
    -38.9441, -0.3573, -0.3577, -0.1242, -0.1242, 13.7256, -0.6593, 3.3812, 3.3812, -1.2689, -1.2689, -0.5167, -0.6593,
    -3.7475, 1.8196, -6.8762, 5.2560, 0.0354, 0.0354, -0.1549, -0.1549, 3.5464, 3.5464, 3.1085, 3.1085, 0.0000,
])  # fmt: skip

# Height of the inner middle of the lower lip (5517) in mm per unit of weight, from the same expressions.
LOWER_ROW = np.array([
    0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.6702, -0.1516, -0.1516, 0.0001, 0.0001, 0.0000, 0.0000, 0.0000,
    0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, -1.3831, 0.2580, -35.1953, 0.2580,
    38.1836, 0.3381, 0.3384, -0.2502, -0.2502, -8.2910, 0.9552, -3.3862, -3.3862, 0.9418, 0.9418, 0.1874, 0.9552,
    3.7476, -0.0630, 6.8848, 0.0126, 1.8665, 1.8665, 0.0424, 0.0424, 0.2695, 0.2695, 0.4218, 0.4218, 0.0000,
])  # fmt: skip


LEAST_OPENING, WIDEST_OPENING = 0.8, 1.4
"""How much less and more a feeling may open the mouth than the same words said neutrally. Held exactly, anger's raised
upper lip would shut the jaw: clenched teeth. Let go, an o would become an a."""

OPENING_SMOOTHING = 25.0  # frames, sigma: 0.5 s, longer than any syllable, so that no sound is scaled by itself
LEAST_GAP = 0.5  # mm: where nobody speaks, a ratio of openings means nothing


def felt_gap(felt: Array, words: Array) -> Array:
    """Lip gap (F,) in mm of `words` (F, 52) said with the feeling that `felt` (F, 52) shows: anger opens wider.

    The gap of the words times a factor from LEAST_OPENING to WIDEST_OPENING that is slower than syllables: how much
    wider `felt` is open around that moment. So closed lips stay closed, and each sound opens as far against the next
    one as in the words.
    """
    gap = lip_gap(words.clip(0.0, 1.0))
    calm, stirred = (gaussian(x.clip(0.0), OPENING_SMOOTHING) + LEAST_GAP for x in (gap, lip_gap(felt.clip(0.0, 1.0))))
    factor = (stirred / calm).clip(LEAST_OPENING, WIDEST_OPENING)
    return gap * library(gap).where(gap > 0.0, factor, 1.0)


def lip_gap(weights: Array) -> Array:
    """Lip gap (F,) in mm of weights (F, 52), see GAP_ROW."""
    return weights @ like(GAP_ROW, weights)


def keep_gap(weights: Array, words: Array, gap: Array | None = None) -> Array:
    """`weights` (F, 52) with the lip gap of `words` (F, 52): the same words, said with whatever else `weights` shows.

    gap: (F,) mm, another one to reach, such as `felt_gap`. A feeling laid over speech must not say other words: a sneer
    lifts the upper lip off a b, a smile spoils an o. What it adds to the lower lip goes first, then the jaw gives way,
    at last mouthClose. Returns new weights in [0, 1].
    """
    xp = library(weights)
    w, words = weights.clip(0.0, 1.0), words.clip(0.0, 1.0)
    gap = lip_gap(words) if gap is None else gap
    for names, gives_up_only in ((("mouthLowerDownLeft", "mouthLowerDownRight"), True), (("jawOpen",), False),
                                 (("mouthClose",), False)):
        shapes = columns([INDEX[name] for name in names], w)
        each = float(sum(GAP_ROW[INDEX[name]] for name in names))
        wanted = w[:, shapes] + ((gap - lip_gap(w)) / each)[:, None]
        if gives_up_only:
            wanted = xp.minimum(xp.maximum(wanted, words[:, shapes]), w[:, shapes])
        w[:, shapes] = wanted.clip(0.0, 1.0)
    return w


CLOSED, OPEN = 0.08, 0.2
"""Shares of the take's usual opening (95th percentile of the gap): lips nearer than the first count as closed, lips
wider than the second as open."""

SEALED = 0.85
"""Share of what a feeling adds to the lips' sides that goes in a closure."""

PRESS_MM = 0.6
"""How much nearer the lips come in a contact under a feeling: its shapes do not leave every head's lips where they
leave ICT's, and a slit of half a millimetre shows teeth."""

FULL_PULL = 0.4
"""Sum of what a feeling adds to the lips' sides from which on they are pressed by all of PRESS_MM."""

_CORNERS = [INDEX[name + side] for name in ("mouthUpperUp", "noseSneer") for side in ("Left", "Right")]
_LIFTS = [INDEX[name + side] for name in ("mouthLowerDown", "mouthUpperUp") for side in ("Left", "Right")]
_JAW, _CLOSE = INDEX["jawOpen"], INDEX["mouthClose"]


def closedness(gap: Array) -> Array:
    """(F,) from 1, lips closed, to 0, lips open, for a lip gap (F,) in mm. All 1 for a mouth that never opens."""
    usual = percentile(gap, 95)
    # By `where` and not by `if`: what a graphics card has still to compute is not waited for.
    return library(gap).where(usual > 0, 1.0 - smoothstep(gap / usual.clip(1e-9), CLOSED, OPEN), 1.0)


def contacts(words: Array, spoken: np.ndarray) -> Array:
    """(F,) from 0 to 1: how surely `words` (F, 52) close the lips to speak, and not in a pause; spoken (F,) bool."""
    speech = np.clip(2 * gaussian(spoken.astype(np.float64), 8.0), 0.0, 1.0)
    return closedness(lip_gap(words).clip(0.0)) * like(speech, words)


def seal_corners(felt: Array, words: Array, contact: Array) -> Array:
    """`felt` (F, 52) whose lips are let go by the feeling where `words` (F, 52) close them; contact (F,), `contacts`.

    A sneer lifts the upper lip beside its middle, where GAP_ROW does not see it, and bares teeth in a b. Between the
    words it stays. Returns new weights.
    """
    w, corners = 1.0 * felt, columns(_CORNERS, felt)
    w[:, corners] += SEALED * contact[:, None] * (words[:, corners] - felt[:, corners])
    return w


def press(felt: Array, words: Array, contact: Array) -> Array:
    """(F,) mm by which lips come nearer in a contact than the words have them, the more the feeling pulls at them."""
    corners = columns(_CORNERS, felt)
    pull = abs(felt[:, corners] - words[:, corners]).sum(1)
    return PRESS_MM * contact * (pull / FULL_PULL).clip(0.0, 1.0)


def keep_closures(weights: Array, before: Array, spoken: Array | None = None) -> Array:
    """`weights` (F, 52) with lips closed wherever they are closed in `before` (F, 52), however both differ elsewhere.

    spoken: (F,) 0 to 1, where closures matter (a mouth may hang open in a pause); None: everywhere. Closed lips stay as
    near as they were, or nearer in the same measure as the whole take opens less. Returns new weights in [0, 1].
    """
    was, now = lip_gap(before).clip(0.0), lip_gap(weights).clip(0.0)
    usual = percentile(was, 95)
    less = library(was).where(usual > 0, (percentile(now, 95) / usual.clip(1e-9)).clip(None, 1.0), 1.0)
    closed = closedness(was) if spoken is None else closedness(was) * spoken
    return close_by(weights, closed * (now - less * was).clip(0.0))


def close_by(weights: Array, gap: Array) -> Array:
    """`weights` (F, 52) with lips nearer by `gap` (F,) mm: lips that are drawn apart give way, then mouthClose brings
    them together as far as the jaw is open, then the jaw gives way, at last mouthClose alone. Returns new weights."""
    xp, w, lifts = library(weights), 1 * weights, columns(_LIFTS, weights)
    lifted = w[:, lifts] @ like(GAP_ROW[_LIFTS], w)
    share = (gap / lifted.clip(1e-9)).clip(0.0, 1.0)
    w[:, lifts] *= (1.0 - share)[:, None]
    left = gap - share * lifted
    for shape, limit in ((_CLOSE, xp.maximum(0.9 * w[:, _JAW], w[:, _CLOSE])), (_JAW, None), (_CLOSE, None)):
        row = float(GAP_ROW[shape])
        moved = (w[:, shape] - left / row).clip(0.0, 1.0)
        moved = moved if limit is None else xp.minimum(moved, limit)
        left = left + (moved - w[:, shape]) * row
        w[:, shape] = moved
    return w
