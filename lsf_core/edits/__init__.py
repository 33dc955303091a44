"""Edits: what is laid over the network's motion without running the network again. What each does, by which published
figures, and why it is so by default: docs/edits.md.

Each edit is a function of its own file, takes a Motion and gives a new one, has one strength that is 0 for off, and
draws its chances from the seed: the same seed gives the same take, and switching one edit off leaves the others as
they were. Times are drawn in seconds, so a take has its blinks at the same moments at any frame rate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..cues import SoundCues
from ..motion import Motion
from .asymmetry import add_asymmetry
from .blink import add_blinks
from .breath import add_breath
from .closure import press_lips
from .gaze import add_gaze
from .head import add_head, head_rotation
from .settings import DEFAULT, NONE, PRESETS, STRENGTHS, EditSettings, edit_settings
from .settle import settle_ends, still_pauses
from .shapes import mix_shapes, scale_regions
from .smooth import smooth_motion

__all__ = ["DEFAULT", "NONE", "PRESETS", "STRENGTHS", "EditSettings", "add_asymmetry", "add_blinks", "add_breath",
           "add_gaze", "add_head", "apply_edits", "edit_settings", "head_rotation", "mix_shapes", "press_lips",
           "scale_regions", "settle_ends", "smooth_motion", "still_pauses"]

SMOOTHING_SECONDS = 0.04


def apply_edits(
    motion: Motion, cues: SoundCues | None = None, settings: EditSettings = DEFAULT, *,
    fps: float | None = None, frames: int | None = None, seed: int = 0, head: np.ndarray | None = None,
) -> Motion:
    """The motion at `fps` (None: its own) with its edits; the argument is not changed.

    cues: of the sound that the motion belongs to, on the same clock. None: no sound is known; then nobody breathes or
    moves the head, and blinks and looks come at any time. `settings.emotion` was applied where both deliveries were at
    hand, see RawTake.mix. head: what `head_rotation` gives, where that was made already. What the mouth does is edited
    before the motion is resampled, which keeps its closures; lids, eyes and head come after, drawn for the very frames.
    A motion that lies in torch is edited there as far as the usual edits go; what is returned lies in numpy.
    """
    if not settings.is_usual:
        motion = motion.on_host()
    if settings.smoothing:
        motion = smooth_motion(motion, SMOOTHING_SECONDS * settings.smoothing)
    motion = scale_regions(motion, settings, cues)
    if settings.closure:
        motion = press_lips(motion, cues, settings.closure)
    if settings.asymmetry:
        motion = add_asymmetry(motion, seed=seed, strength=settings.asymmetry)
    if settings.settle and cues is not None:
        motion = still_pauses(motion, cues, settings.settle)
    if settings.breath and cues is not None:
        motion = add_breath(motion, cues, seed=seed, strength=settings.breath)
    if fps is not None:
        motion = motion.resample(fps, frames)
    if settings.settle:
        motion = settle_ends(motion, cues, settings.settle)
    if settings.gaze:
        motion = add_gaze(motion, cues, seed=seed, strength=settings.gaze)
    if settings.blink:
        motion = add_blinks(motion, cues, seed=seed, strength=settings.blink)
    motion = motion.on_host()
    if head is not None:
        motion = replace(motion, head_rotation=head)
    elif settings.head and cues is not None:
        motion = add_head(motion, cues, seed=seed, strength=settings.head)
    return mix_shapes(motion, settings, cues)
