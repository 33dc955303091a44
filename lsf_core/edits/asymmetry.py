"""Asymmetry: no face moves both its sides alike, and one that does looks made.

Feelings are shown more strongly on the left side of most faces (Sackeim, Gur and Saucy 1978, Science 202:434; review:
Borod, Haywood and Koff 1997, Neuropsychology Review 7:41); for words most mouths open more on the right (Graves,
Goodglass and Landis 1982, Neuropsychologia 20:371). So each region has a leaning of its own, drawn once a take about
these means, and wanders slowly about it. How much is taste: 8 % to either side, as little as can be felt.
"""

from __future__ import annotations

import numpy as np

from ..arkit import INDEX
from ..motion import Motion
from .chance import slow_noise, stream

AMOUNT = 0.08
WANDER_SECONDS = 1.5
_STREAM = 0xA5

GROUPS = (
    (+0.5, ("browDown", "browOuterUp")),
    (+0.5, ("cheekSquint", "noseSneer", "mouthSmile", "mouthFrown", "mouthDimple")),
    (-0.5, ("mouthUpperUp", "mouthLowerDown", "mouthStretch")),
)
"""(mean leaning, +1 is the face's own left; shapes without their side). Lids and jaw are left alone."""


def add_asymmetry(motion: Motion, *, seed: int = 0, strength: float = 1.0) -> Motion:
    """The motion with one side given what is taken from the other, so that the lip gap stays as it is."""
    rng = stream(_STREAM, seed)
    leanings = rng.normal([mean for mean, _ in GROUPS], 0.7)
    wander = slow_noise(rng, len(motion), len(GROUPS), WANDER_SECONDS * motion.fps)
    lean = np.clip(strength * AMOUNT * (leanings + 0.7 * wander), -0.5, 0.5).astype(np.float32)
    weights = motion.weights.copy()
    for (_, shapes), amount in zip(GROUPS, lean.T, strict=True):
        left = [INDEX[name + "Left"] for name in shapes]
        right = [INDEX[name + "Right"] for name in shapes]
        low = np.minimum(weights[:, left], weights[:, right])
        high = np.maximum(weights[:, left], weights[:, right])
        shift = np.clip(amount[:, None] * (low + high) / 2, -np.minimum(low, 1 - high), np.minimum(low, 1 - high))
        weights[:, left] += shift
        weights[:, right] -= shift
    return motion.with_weights(weights)
