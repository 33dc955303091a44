"""Strength by region of the face, and gain and offset of single shapes."""

from __future__ import annotations

import numpy as np

from ..arkit import ARKIT_NAMES, INDEX
from ..cues import SoundCues
from ..lips import keep_closures
from ..motion import Motion
from .settings import EditSettings

REGIONS = {
    "jaw": ("jaw", "mouthClose"),  # mouthClose answers jawOpen: the two go together
    "lips": ("mouth", "tongue"),
    "cheeks": ("cheek", "nose"),
    "brows": ("brow",),
    "eyes": ("eye",),
}
"""Region -> how the names of its shapes begin. The first that fits has the shape."""


def region_of(shape: str) -> str:
    """The region of an ARKit shape."""
    return next(name for name, starts in REGIONS.items() if shape.startswith(starts))


def scale_regions(motion: Motion, settings: EditSettings, cues: SoundCues | None = None) -> Motion:
    """The motion with each region at its strength; closed lips stay closed, see lips.keep_closures."""
    row = np.array([getattr(settings, region_of(name)) for name in ARKIT_NAMES], np.float32)
    if (row == 1).all():
        return motion
    return _closed(motion, motion.weights * row, cues)


def mix_shapes(motion: Motion, settings: EditSettings, cues: SoundCues | None = None) -> Motion:
    """The motion with the gain and offset of single shapes; closed lips stay closed."""
    if not settings.gain and not settings.offset:
        return motion
    weights = motion.weights.copy()
    for name, gain in settings.gain.items():
        weights[:, INDEX[name]] *= gain
    for name, offset in settings.offset.items():
        weights[:, INDEX[name]] += offset
    return _closed(motion, weights, cues)


def _closed(motion: Motion, weights: np.ndarray, cues: SoundCues | None) -> Motion:
    spoken = None if cues is None else cues.spoken(np.arange(len(motion)) / motion.fps)
    return motion.with_weights(keep_closures(np.clip(weights, 0, 1), motion.weights, spoken))
