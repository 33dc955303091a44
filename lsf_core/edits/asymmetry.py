"""Asymmetry: no face moves both its sides alike, and one that does looks made.

Feelings are shown more strongly on the left side of most faces (Sackeim, Gur and Saucy 1978, Science 202:434; review:
Borod, Haywood and Koff 1997, Neuropsychology Review 7:41); for words most mouths open more on the right (Graves,
Goodglass and Landis 1982, Neuropsychologia 20:371). So each region has a leaning of its own, drawn once a take about
these means, and wanders slowly about it. How much is taste: 8 % to either side, as little as can be felt.
"""

from __future__ import annotations

import numpy as np

from ..arkit import INDEX
from ..arrays import columns, library, like
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
    own = _leanings(rng)
    wander = slow_noise(rng, len(motion), len(GROUPS), WANDER_SECONDS * motion.fps)
    return motion.with_weights(lean(motion.weights, strength * (own + 0.7 * wander)))


def leanings(seed: int) -> np.ndarray:
    """How far each of GROUPS leans in the mean of a take (3,), before its strength."""
    return _leanings(stream(_STREAM, seed))


def _leanings(rng: np.random.Generator) -> np.ndarray:
    return rng.normal([mean for mean, _ in GROUPS], 0.7)


def lean(weights: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Weights (F, 52) with the sides of each of GROUPS shifted by amounts (F, 3) or (3,), in units of AMOUNT."""
    shares = np.clip(AMOUNT * np.broadcast_to(amounts, (len(weights), len(GROUPS))), -0.5, 0.5).astype(np.float32)
    weights, xp = 1 * weights, library(weights)
    for (_, shapes), amount in zip(GROUPS, shares.T, strict=True):
        left, right = (columns([INDEX[name + side] for name in shapes], weights) for side in ("Left", "Right"))
        low = xp.minimum(weights[:, left], weights[:, right])
        high = xp.maximum(weights[:, left], weights[:, right])
        most = xp.minimum(low, 1 - high)
        shift = xp.minimum(xp.maximum(like(amount, weights)[:, None] * (low + high) / 2, -most), most)
        weights[:, left] += shift
        weights[:, right] -= shift
    return weights
