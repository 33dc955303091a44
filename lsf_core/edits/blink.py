"""Blinks: a face that never blinks looks dead, and speech alone does not say when it blinks.

- Rate: 17 a minute at rest, 26 in conversation, log-normal (Bentivoglio et al. 1997, Movement Disorders 12:1028);
  conversation 10.5 to 32.5 in normal adults (Doughty 2001, Optometry and Vision Science 78:712). 20 is taken here, as
  three public speakers tracked by MediaPipe show (21 a minute); more looks nervous on a face that is watched closely.
- Shape in time: the lid falls about twice as fast as it rises, and animations with fully closing lids look more natural
  than half blinks (Trutoiu, Carter, Matthews and Hodgins 2011, ACM TAP 8(3):17). The tracked speakers' lids fall in 80
  to 90 ms. Ours are more than a tenth closed for 170 to 245 ms.
- Moment: at breakpoints of speech, the ends of phrases (Nakano and Kitazawa 2010, Experimental Brain Research 205:577).
  The tracked speakers show no such habit, so only half of the blinks that are near a phrase's end are drawn to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arkit import INDEX
from ..arrays import columns, library, like, to_numpy
from ..cues import SoundCues
from ..motion import Motion
from .chance import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE_PER_MINUTE = 20.0
MIN_GAP = 0.9  # seconds between two blinks: flutter reads as a nervous tic
PHRASE_REACH = 1.0  # seconds within which a blink moves to the end of a phrase
PHRASE_PULL = 0.5  # probability that it does
WIDE_LIMIT = 0.35  # eyeWide above this is a stare, fear or surprise: not broken by a blink
OWN_BLINK = 0.5  # eyeBlink of the motion itself above this counts as a blink already there
END_MARGIN = 0.15  # seconds kept free at both ends, so that no clip begins or ends with closed lids

LOOK_DOWN_LID = 0.37  # of the eye's opening that eyeLookDown at 1 has closed already (measured on the template head)

_INTERVAL_SPREAD = 0.5  # standard deviation of the log of the intervals
_STREAM = 0xB1

_BLINK = (INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"])
_LOOK_DOWN = (INDEX["eyeLookDownLeft"], INDEX["eyeLookDownRight"])
_WIDE = (INDEX["eyeWideLeft"], INDEX["eyeWideRight"])


@dataclass(frozen=True)
class Blink:
    """One blink. time: seconds, when the lids have just closed; the others are lengths in seconds."""

    time: float
    closing: float
    closed: float
    opening: float

    def lid(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the lids are closed at `times` (F,), 0 to 1: quick ease down, hold, slower ease up."""
        down = np.clip((times - (self.time - self.closing)) / self.closing, 0.0, 1.0)
        up = np.clip((times - (self.time + self.closed)) / self.opening, 0.0, 1.0)
        # The fall eases in and out; the rise sets off at speed and settles softly.
        return down * down * (3 - 2 * down) * (1 - up) ** 2 * (1 + up)


def plan_blinks(
    seconds: float, phrase_ends: NDArray[np.float64] | None = None, *, seed: int = 0, strength: float = 1.0
) -> list[Blink]:
    """When a face blinks in `seconds` of speech, in order of time.

    phrase_ends: (E,) seconds, None if nothing is known. strength: multiple of the usual rate (above 1 a little less
    than that, as two blinks keep MIN_GAP).
    """
    rng = stream(_STREAM, seed)
    mean = 60.0 / (RATE_PER_MINUTE * strength)
    blinks: list[Blink] = []
    # The mean of a log-normal is exp(mu + sigma^2 / 2). The first blink comes somewhere within an interval.
    clock = float(mean * rng.uniform(0.1, 1.0))
    while clock < seconds:
        time = clock
        pull, late, shape = rng.random(), rng.normal(0.08, 0.05), rng.random(3)
        if phrase_ends is not None and len(phrase_ends):
            end = float(phrase_ends[np.abs(phrase_ends - time).argmin()])
            if abs(end - time) < PHRASE_REACH and pull < PHRASE_PULL:
                time = end + late
        blink = Blink(time, 0.065 + 0.025 * shape[0], 0.010 + 0.015 * shape[1], 0.13 + 0.07 * shape[2])
        starts, ends = time - blink.closing, time + blink.closed + blink.opening
        free = not blinks or time - blinks[-1].time >= MIN_GAP
        if free and starts >= END_MARGIN and ends <= seconds - END_MARGIN:
            blinks.append(blink)
        interval = mean * rng.lognormal(-(_INTERVAL_SPREAD**2) / 2, _INTERVAL_SPREAD)
        clock += max(MIN_GAP, float(interval))
    return blinks


def add_blinks(motion: Motion, cues: SoundCues | None = None, *, seed: int = 0, strength: float = 1.0) -> Motion:
    """The motion with blinks, joined to its own eyeBlink by the maximum.

    A blink that falls on widened eyes waits until they narrow, at most 1.5 s, else it is left out; one within 0.4 s of
    a blink that the motion already has is left out too. Each is moved by less than half a frame, so that one frame
    holds the closed lids even at 24 fps. eyeWide gives way while the lids are down; lids that look down are closed by
    less, or they would cut into the eye.
    """
    ends = None if cues is None else cues.phrase_ends()
    times = np.arange(len(motion)) / motion.fps
    weights = motion.weights
    wide, own = to_numpy(stares(weights)), to_numpy(closes_by_itself(weights))
    lid = np.zeros(len(motion))
    last, reach = -MIN_GAP, math.ceil(0.5 * motion.fps)  # frames around a blink that it may concern
    for blink in plan_blinks(motion.seconds, ends, seed=seed, strength=strength):
        frame = _wait_for(~wide, round(blink.time * motion.fps), round(1.5 * motion.fps))
        if frame is None:
            continue
        time = frame / motion.fps
        around = slice(max(0, frame - reach), frame + reach + 1)
        near = own[around][np.abs(times[around] - time) < 0.4]
        too_late = time + blink.closed + blink.opening > motion.seconds
        if near.any() or too_late or time - last < MIN_GAP / 2:
            continue
        last = time
        moved = Blink(time, blink.closing, blink.closed, blink.opening)
        lid[around] = np.maximum(lid[around], moved.lid(times[around]))
    return motion.with_weights(close_lids(weights, lid))


def close_lids(weights: NDArray, lid: NDArray) -> NDArray:
    """Weights (F, 52) with the lids closed as far as `lid` (F,) says, 0 to 1, where they are not closed farther."""
    weights, lid32 = 1 * weights, like(lid.astype(np.float32)[:, None], weights)
    wide, blink, down = (columns(numbers, weights) for numbers in (_WIDE, _BLINK, _LOOK_DOWN))
    closed = lid32 * (1 - LOOK_DOWN_LID * weights[:, down])
    weights[:, wide] *= 1 - lid32
    weights[:, blink] = library(weights).maximum(weights[:, blink], closed)
    return weights


def stares(weights: NDArray) -> NDArray:
    """(F,) bool: eyes so wide that no blink breaks the stare."""
    return (weights[:, columns(_WIDE, weights)] > WIDE_LIMIT).any(1)


def closes_by_itself(weights: NDArray) -> NDArray:
    """(F,) bool: the motion's own lids are closed for a blink."""
    return (weights[:, columns(_BLINK, weights)] > OWN_BLINK).any(1)


def _wait_for(allowed: NDArray[np.bool_], frame: int, patience: int) -> int | None:
    """The first allowed frame from `frame` on, within `patience` frames."""
    hits = np.flatnonzero(allowed[frame : frame + patience + 1])
    return frame + int(hits[0]) if len(hits) else None
