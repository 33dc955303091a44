"""Lip closures: how firmly p b m are pressed.

Lips do not just meet in a bilabial stop: they are driven past contact and flatten against each other (Löfqvist and
Gracco 1997, "Lip and jaw kinematics in bilabial stop consonant production", JSLHR 40:877).
"""

from __future__ import annotations

import numpy as np

from ..arkit import INDEX
from ..cues import SoundCues
from ..lips import CLOSED, close_by
from ..motion import Motion, minima

LONGEST = 0.3  # seconds: lips that are closed for longer rest, they say nothing
REACH = 0.12  # share of the usual opening by which a dip may miss closure, at strength 1, to be taken for one
DEPTH = 0.3  # share of the usual opening that the gap falls and rises around a closure
FLAT = 0.08  # share of the usual opening by which the gap of one closure varies
RAMP_SECONDS = 0.06  # into the pressed lips and out of them
PRESS = 0.2  # weight of mouthPress that a closure gets at strength 1
_PRESS = [INDEX["mouthPressLeft"], INDEX["mouthPressRight"]]


def press_lips(motion: Motion, cues: SoundCues | None = None, strength: float = 1.0) -> Motion:
    """The motion with its lip closures, and dips that almost are closures, closed (wholly from strength 1 on) and
    pressed. Closed lips in a pause are left alone."""
    gap = motion.lip_gap_mm().astype(np.float64)
    usual = float(np.percentile(gap, 95))
    if usual <= 0:
        return motion
    spoken = np.ones(len(motion)) if cues is None else cues.spoken(np.arange(len(motion)) / motion.fps)
    ramp = max(1, round(RAMP_SECONDS * motion.fps))
    pressed, closing = np.zeros(len(motion)), np.zeros(len(motion))
    for start, end in minima(gap, DEPTH * usual):
        lowest = gap[start]
        while start > 0 and gap[start - 1] <= lowest + FLAT * usual:
            start -= 1
        while end + 1 < len(gap) and gap[end + 1] <= lowest + FLAT * usual:
            end += 1
        if lowest > (CLOSED + strength * REACH) * usual or end - start >= LONGEST * motion.fps:
            continue
        first, last = max(0, start - ramp), min(len(motion), end + ramp + 1)
        frames = np.arange(first, last)
        away = np.maximum(np.maximum(start - frames, frames - end), 0) / (ramp + 1)
        pulse = spoken[first:last] * (0.5 + 0.5 * np.cos(np.pi * away))
        pressed[first:last] = np.maximum(pressed[first:last], pulse)
        closing[first:last] = np.maximum(closing[first:last], pulse * gap[start : end + 1].max())
    weights = close_by(motion.weights, np.minimum(min(strength, 1.0) * closing, gap))
    weights[:, _PRESS] = np.minimum(weights[:, _PRESS] + (strength * PRESS * pressed)[:, None], 1.0)
    return motion.with_weights(weights)
