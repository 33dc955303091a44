"""Rest at both ends of a take.

Blender, like every animation program, holds the first key before a take and the last one after it. A strip that begins
or ends in mid-speech would freeze the face there with its mouth half open.
"""

from __future__ import annotations

import numpy as np

from ..motion import Motion

IN_SECONDS = 0.10
OUT_SECONDS = 0.25


def settle_ends(motion: Motion, strength: float = 1.0) -> Motion:
    """The motion risen from the neutral face and fallen back to it, in IN_SECONDS and OUT_SECONDS times `strength`.

    All weights shrink together, so that lips that touch stay in touch (the lip gap is linear in the weights). A ramp
    takes at most a quarter of the take.
    """
    frames = len(motion)
    fade = np.ones(frames, np.float32)
    for seconds, ramp in ((IN_SECONDS, fade), (OUT_SECONDS, fade[::-1])):
        count = min(round(seconds * strength * motion.fps), frames // 4)
        # half a cosine; its first value is 0, the frame after its last would be 1
        ramp[:count] *= (0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count, 1))).astype(np.float32)
    head = None if motion.head_rotation is None else motion.head_rotation * fade[:, None]
    return Motion(motion.names, motion.weights * fade[:, None], motion.fps, head)
