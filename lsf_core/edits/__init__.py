"""Edits: what is laid over the network's motion without running the network again.

Each edit is a function of its own file, takes a Motion and gives a new one, has one strength that is 0 for off, and
draws its chances from the seed: the same seed gives the same take, and switching one edit off leaves the others as
they were. Times are drawn in seconds, so a take has its blinks at the same moments at any frame rate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import LSFError
from ..motion import Motion
from .blink import add_blinks
from .gaze import add_gaze
from .settle import settle_ends
from .smooth import smooth_motion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["add_blinks", "add_gaze", "apply_edits", "settle_ends", "smooth_motion"]


def apply_edits(
    motion: Motion,
    audio16k: NDArray[np.float32] | None = None,
    *,
    seed: int = 0,
    blink: float = 1.0,
    gaze: float = 1.0,
    smooth: float = 0.0,
    settle: float = 1.0,
) -> Motion:
    """The motion with smoothing, rest at the ends, gaze and blinks, in that order; the argument is not changed.

    audio16k: (N,) float32, the sound that the motion belongs to (blinks like pauses); None: no pauses are known.
    blink: how often, as a multiple of the usual rate. gaze: size of the small eye movements, 1 is usual.
    smooth: standard deviation in frames of 1/50 s (20 ms) of a filter over time.
    settle: length of the way from and to the neutral face at the ends, 1 is 0.10 s and 0.25 s.
    Raises LSFError for a strength that is negative or not a number.
    """
    for name, strength in (("blink", blink), ("gaze", gaze), ("smooth", smooth), ("settle", settle)):
        if not (math.isfinite(strength) and strength >= 0):
            raise LSFError(f"The edit '{name}' has the strength {strength}; it must be 0 (off) or more.")
    if smooth:
        motion = smooth_motion(motion, 0.02 * smooth)
    if settle:
        motion = settle_ends(motion, settle)
    if gaze:
        motion = add_gaze(motion, seed=seed, strength=gaze)
    if blink:
        motion = add_blinks(motion, audio16k, seed=seed, strength=blink)
    return motion
