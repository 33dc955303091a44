"""Edits: what is laid over the network's motion without running the network again.

Each edit is a function of its own file, takes a Motion and gives a new one, has one strength that is 0 for off, and
draws its chances from the seed: the same seed gives the same take, and switching one edit off leaves the others as
they were. Times are drawn in seconds, so a take has its blinks at the same moments at any frame rate.
"""

from __future__ import annotations

from ..cues import SoundCues
from ..motion import Motion
from .blink import add_blinks
from .gaze import add_gaze
from .settings import DEFAULT, NONE, EditSettings, edit_settings
from .settle import settle_ends
from .smooth import smooth_motion

__all__ = ["DEFAULT", "NONE", "EditSettings", "add_blinks", "add_gaze", "apply_edits", "edit_settings", "settle_ends",
           "smooth_motion"]


def apply_edits(
    motion: Motion, cues: SoundCues | None = None, settings: EditSettings = DEFAULT, *,
    fps: float | None = None, frames: int | None = None, seed: int = 0,
) -> Motion:
    """The motion at `fps` (None: its own) with its edits; the argument is not changed.

    cues: of the sound that the motion belongs to, on the same clock; None: no pauses are known.
    `settings.emotion` was applied where both deliveries were at hand, see RawTake.mix.
    """
    if settings.smoothing:
        motion = smooth_motion(motion, 0.04 * settings.smoothing)
    if fps is not None:
        motion = motion.resample(fps, frames)
    if settings.settle:
        motion = settle_ends(motion, settings.settle)
    if settings.gaze:
        motion = add_gaze(motion, seed=seed, strength=settings.gaze)
    if settings.blink:
        motion = add_blinks(motion, cues, seed=seed, strength=settings.blink)
    return motion
