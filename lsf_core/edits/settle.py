"""Rest: at both ends of a take, and in the pauses of speech.

Blender, like every animation program, holds the first key before a take and the last one after it. A strip that begins
or ends in mid-speech would freeze the face there with its mouth half open. In a pause a mouth keeps still, but a
network that hears room noise goes on muttering.
"""

from __future__ import annotations

import numpy as np

from ..arrays import columns, like
from ..cues import SoundCues
from ..filters import gaussian, smoothstep
from ..lips import keep_closures
from ..motion import MOUTH, Motion

IN_SECONDS, OUT_SECONDS = 0.10, 0.25  # where no sound is known
IN_RANGE, OUT_RANGE = (0.06, 0.4), (0.2, 0.6)  # seconds: shortest where speech reaches to the end, longest in a pause
FACE_SECONDS = 0.3
CALM_SECONDS = 0.3  # standard deviation of the filter that stills a mouth in pauses
BEFORE_SPEECH = 0.05  # seconds of a pause that belong to a coming p; those of a last m are in voice_activity's hangover
FADE_SECONDS = 0.08


def settle_ends(motion: Motion, cues: SoundCues | None = None, strength: float = 1.0) -> Motion:
    """The motion risen from the neutral face and fallen back to it, over times that `strength` multiplies.

    A face comes to rest softly in the pause around its speech, and quickly where speech reaches to the end of the take,
    so as to swallow no word; brows and cheeks, which say none, take FACE_SECONDS at least, as a frown that is there at
    once pops. All weights of the mouth shrink together, so that lips that touch stay in touch (the lip gap is linear in
    the weights). A ramp takes at most a quarter of the take.
    """
    seconds = _ramps(motion, cues)
    words = _fade(motion, seconds, strength)
    face = _fade(motion, tuple(max(s, FACE_SECONDS) for s in seconds), strength)
    weights = motion.weights * like(face, motion.weights)[:, None]
    mouth = columns(MOUTH, weights)
    weights[:, mouth] = motion.weights[:, mouth] * like(words, motion.weights)[:, None]
    head = None if motion.head_rotation is None else motion.head_rotation * face[:, None]
    return Motion(motion.names, weights, motion.fps, head)


def _fade(motion: Motion, seconds: tuple[float, ...], strength: float) -> np.ndarray:
    """(F,) from 0 at both ends to 1; seconds: of the ramps at the beginning and at the end."""
    frames = len(motion)
    fade = np.ones(frames, np.float32)
    for length, ramp in zip(seconds, (fade, fade[::-1]), strict=True):
        count = min(round(length * strength * motion.fps), frames // 4)
        # half a cosine; its first value is 0, the frame after its last would be 1
        ramp[:count] *= (0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count, 1))).astype(np.float32)
    return fade


def _ramps(motion: Motion, cues: SoundCues | None) -> tuple[float, float]:
    """Seconds of the ramps at the beginning and at the end."""
    if cues is None or not cues.voiced.any():
        return IN_SECONDS, OUT_SECONDS
    phrases = cues.phrases()
    before, after = phrases[0, 0] - BEFORE_SPEECH, motion.seconds - phrases[-1, 1]
    return float(np.clip(before, *IN_RANGE)), float(np.clip(after, *OUT_RANGE))


def still_pauses(motion: Motion, cues: SoundCues, strength: float = 1.0) -> Motion:
    """The motion with its mouth under a slow filter in the pauses, CALM_SECONDS times `strength` wide.

    A pause ends BEFORE_SPEECH ahead of the phrase; both its ends are faded over FADE_SECONDS.
    """
    mouth = columns(MOUTH, motion.weights)
    times = np.arange(len(motion)) / motion.fps
    phrases = cues.phrases()
    before = np.concatenate([[-np.inf], phrases[:, 1]])
    after = np.concatenate([phrases[:, 0], [np.inf]])
    pause = np.searchsorted(phrases[:, 0], times, side="right")
    inside = np.minimum(times - before[pause], after[pause] - times - BEFORE_SPEECH)
    calm = smoothstep(inside, 0.0, FADE_SECONDS).astype(np.float32)[:, None]
    if not calm.any():
        return motion
    weights, calm = 1 * motion.weights, like(calm, motion.weights)
    # Only what lies in the pause is heard by the filter, or the speech before it would be drawn into it.
    share = gaussian(calm, CALM_SECONDS * strength * motion.fps)
    slow = gaussian(calm * weights[:, mouth], CALM_SECONDS * strength * motion.fps) / share.clip(1e-3)
    weights[:, mouth] += calm * (slow - weights[:, mouth])
    # A quiet word may have been taken for a pause: its p b m stay.
    return motion.with_weights(keep_closures(weights, motion.weights, calm[:, 0]))

