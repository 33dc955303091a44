"""Smoothing over time that leaves lip closures shut."""

from __future__ import annotations

import numpy as np

from ..filters import gaussian
from ..motion import LIDS, MOUTH, Motion

CLOSED_SHARE = 0.15  # lips count as closed below this share of the clip's 95th-percentile gap


def smooth_motion(motion: Motion, seconds: float) -> Motion:
    """The motion under a Gaussian of standard deviation `seconds`; the ends are held.

    A plain filter opens the lips of every /p b m/, the first thing that a viewer notices. So the mouth of frames with
    closed lids is kept as it was and fades into the filtered motion over the filter's own width. Lids are left alone:
    a smoothed blink is a half blink. Head rotation is filtered with the rest.
    """
    sigma = seconds * motion.fps
    if sigma <= 0:
        return motion
    weights = gaussian(motion.weights, sigma)
    gap = motion.lip_gap_mm()
    limit = CLOSED_SHARE * float(np.percentile(gap, 95))
    keep = np.clip(_spread(gap <= limit, sigma), 0.0, 1.0)[:, None] if limit > 0 else np.ones((len(motion), 1))
    mouth, lids = list(MOUTH), list(LIDS)
    weights[:, mouth] += keep.astype(np.float32) * (motion.weights[:, mouth] - weights[:, mouth])
    weights[:, lids] = motion.weights[:, lids]
    head = None if motion.head_rotation is None else gaussian(motion.head_rotation, sigma)
    return Motion(motion.names, weights, motion.fps, head)


def _spread(mask: np.ndarray, sigma: float) -> np.ndarray:
    """1 on the mask, falling to 0 along a Gaussian with the distance in frames from it."""
    if not mask.any():
        return np.zeros(len(mask))
    where = np.flatnonzero(mask)
    after = np.searchsorted(where, np.arange(len(mask)))
    left = np.abs(np.arange(len(mask)) - where[np.maximum(after - 1, 0)])
    right = np.abs(where[np.minimum(after, len(where) - 1)] - np.arange(len(mask)))
    return np.exp(-0.5 * (np.minimum(left, right) / sigma) ** 2)
