"""Head motion that follows prosody: a talking head that keeps still is a mask, and people hear less from it.

Head motion goes with the pitch and loudness of the voice, and talkers whose heads move are understood better (Munhall,
Jones, Callan, Kuratate and Vatikiotis-Bateson 2004, Psychological Science 15:133; Kuratate, Munhall, Rubin, Vatikiotis-
Bateson and Yehia 1999, Eurospeech, 1279). Nods mark accents, posture is shifted where phrases begin, motion ebbs in
pauses (Hadar, Steiner, Grant and Rose 1983, Language and Speech 26:117; Graf, Cosatto, Ström and Huang 2002, Automatic
Face and Gesture Recognition, 381), more of all in emotional speech than in neutral (Busso, Deng, Grimm, Neumann and
Narayanan 2007, IEEE TASLP 15:1075): livelier voices nod more here. Degrees are taste within
what these show: two or three about each axis.
"""

from __future__ import annotations

from bisect import bisect

import numpy as np

from ..cues import SoundCues
from ..filters import gaussian, smoothstep
from ..motion import Motion
from .chance import slow_noise, stream

DRIFT_DEGREES = (0.7, 1.3, 0.8)  # standard deviation of pitch, yaw, roll while somebody speaks
POSTURE_DEGREES = (0.7, 1.6, 1.1)  # of the shifts between phrases
REST = 0.35  # share of the drift that is left in pauses
NOD_DEGREES = 2.5  # of the chin, at an accent that stands out by 1
NODDED = 0.7  # share of the accents that the head marks
USUAL_SEMITONES = 2.5  # standard deviation of a voice's melody; livelier ones nod more
MELODY_DEGREES = 0.3  # of the chin, per semitone of the slow melody
FINAL_DEGREES = 0.9  # the chin sinks as a phrase ends
LIMIT_DEGREES = (7.0, 9.0, 6.0)  # approached, never passed
ACCENT_GAP = 0.45  # seconds between two nods at least
RAMP_SECONDS = 0.8  # from and to the straight head at both ends
_STREAM = 0x4E


def add_head(motion: Motion, cues: SoundCues, *, seed: int = 0, strength: float = 1.0) -> Motion:
    """The motion with head_rotation (axes as in Motion) that follows the voice; added to one that is there."""
    rotation = head_rotation(cues, motion.fps, len(motion), seed=seed, strength=strength)
    if motion.head_rotation is not None:
        rotation += motion.head_rotation
    return Motion(motion.names, motion.weights, motion.fps, rotation)


def head_rotation(cues: SoundCues, fps: float, count: int, *, seed: int = 0, strength: float = 1.0) -> np.ndarray:
    """(count, 3) float32 radians at `fps`, axes as in Motion: the voice alone decides.

    It is made at the rate of the cues with all its bends at least 0.1 s wide, so that no frame rate sees a jerk.
    """
    rng, rate, frames = stream(_STREAM, seed), cues.rate, len(cues)
    voiced = cues.voiced.astype(np.float64)
    lively = REST + (1 - REST) * gaussian(voiced, 0.3 * rate)
    degrees = slow_noise(rng, frames, 3, 0.8 * rate) * DRIFT_DEGREES * lively[:, None]
    degrees += gaussian(_postures(cues, rng), 0.25 * rate)
    degrees[:, 0] -= MELODY_DEGREES * gaussian(_melody(cues), 0.2 * rate)
    degrees += gaussian(_nods(cues, rng), 0.07 * rate)
    limit = np.array(LIMIT_DEGREES)
    degrees = limit * np.tanh(strength * degrees / limit)
    times = np.arange(count) / fps
    rotation = np.stack([cues.at(column, times) for column in degrees.T], axis=1)
    rotation *= _ends(times, count / fps)[:, None]
    return np.radians(rotation).astype(np.float32)


def _melody(cues: SoundCues) -> np.ndarray:
    """(F,) semitones above the speaker's median, at most 6 either way, joined through voiceless sounds, 0 in pauses."""
    there = np.flatnonzero(cues.pitch > 0)
    if not len(there):
        return np.zeros(len(cues))
    semitones = np.clip(12 * np.log2(cues.pitch[there] / np.median(cues.pitch[there])), -6, 6)
    return np.interp(np.arange(len(cues)), there, semitones) * cues.voiced


def accents(cues: SoundCues) -> tuple[np.ndarray, np.ndarray]:
    """Frames (A,) of the accents, in order, and how far each stands out (A,), about 0.5 to 2.

    An accent is a peak of the syllables' loudness, plus the melody's, over the speech around it (Terken 1991, JASA
    89:1768: prominence grows with both), at least ACCENT_GAP from a stronger one.
    """
    if not cues.voiced.any():
        return np.zeros(0, int), np.zeros(0)
    loud = np.maximum(cues.loudness, np.percentile(cues.loudness[cues.voiced], 10))
    syllables = gaussian(loud.astype(np.float64), 0.05 * cues.rate) - gaussian(loud.astype(np.float64), 0.6 * cues.rate)
    tune = gaussian(_melody(cues), 0.05 * cues.rate)
    standing = (syllables / 6.0 + tune / 4.0) * cues.voiced  # loudness and melody weigh alike: both vary about so much
    standing /= max(1.5 * float(standing[cues.voiced].std()), 1e-3)
    inside = standing[1:-1]
    peaks = np.flatnonzero((inside >= standing[:-2]) & (inside > standing[2:]) & (inside > 0.5)) + 1
    taken: list[int] = []
    gap = ACCENT_GAP * cues.rate
    for peak in peaks[np.argsort(-standing[peaks], kind="stable")].tolist():
        place = bisect(taken, peak)  # only the nearest on either side can be too near
        if all(abs(peak - other) >= gap for other in taken[max(0, place - 1):place + 1]):
            taken.insert(place, peak)
    chosen = np.array(taken, int)
    return chosen, np.minimum(standing[chosen], 2.0)


def _nods(cues: SoundCues, rng: np.random.Generator) -> np.ndarray:
    """(F, 3) degrees: down quickly to the accent, up more slowly; some go sideways; and the sinking at phrase ends."""
    times = np.arange(len(cues)) / cues.rate
    out = np.zeros((len(cues), 3))
    tune = _melody(cues)[cues.voiced]
    lively = float(np.clip(tune.std() / USUAL_SEMITONES, 0.8, 1.5)) if len(tune) else 1.0
    for frame, standing in zip(*accents(cues), strict=True):
        chance, aside, tilt, down, up = rng.random(), *rng.normal(0, 0.35, 2), *rng.uniform(0.8, 1.3, 2)
        if chance > NODDED:
            continue
        axis = (-0.6 if chance < 0.15 else 1.0, aside, tilt)  # a few are thrown up
        _bump(out, times, frame / cues.rate, 0.22 * down, 0.38 * up, lively * NOD_DEGREES * standing * np.array(axis))
    for end in cues.phrase_ends():
        _bump(out, times, end, 0.4, 0.6, np.array([FINAL_DEGREES * rng.uniform(0.4, 1.2), 0.0, 0.0]))
    return out


def _bump(out: np.ndarray, times: np.ndarray, when: float, rise: float, fall: float, size: np.ndarray) -> None:
    """Add a pulse that is 0, with its slope, `rise` seconds before `when` and `fall` seconds after."""
    first, last = np.searchsorted(times, (when - rise, when + fall))
    t = times[first:last] - when
    out[first:last] += (0.5 + 0.5 * np.cos(np.pi * np.where(t < 0, t / rise, t / fall)))[:, None] * size


def _postures(cues: SoundCues, rng: np.random.Generator) -> np.ndarray:
    """(F, 3) degrees: a posture for each phrase, taken in the pause before it."""
    phrases = cues.phrases()
    drawn = rng.standard_normal((len(phrases) + 1, 3)) * POSTURE_DEGREES
    times = np.arange(len(cues)) / cues.rate
    return drawn[np.searchsorted(phrases[:, 0] - 0.15, times, side="right")]


def _ends(times: np.ndarray, seconds: float) -> np.ndarray:
    """(F,) 0 at both ends of a take and 1 inside; eased twice, so that the head sets off without a jerk."""
    ramp = min(RAMP_SECONDS, seconds / 3)
    last = float(times[-1])
    away = np.minimum(times, last - times) / ramp
    return smoothstep(smoothstep(away))
