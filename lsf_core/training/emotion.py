"""Feelings: poses that last, rise, flare on accents and fade, laid over an articulation without spoiling it.

Each feeling is a pose of ARKit weights. Which muscles: the prototypes of FACS (Ekman and Friesen 1978; Ekman,
Friesen and Hager 2002, EMFACS). How much: measured weights per emotion (docs/synthesis.md); where a tracker does not
see a shape at all (noseSneer, cheekSquint, eyeWide) the pose is set by eye between the captures' mean and their 90th
percentile. While someone speaks the mouth belongs to speech: smiles and stretches give way to rounding, presses wait
for closures and pauses. Accents fall on stressed syllables and loud peaks, since faces beat time with the voice
(Ekman 1979 on brow batons; Cave et al. 1996 on eyebrows and pitch accents).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.errors import LSFError
from lsf_core.training.phones import Phone, features, halves

_RATE = 50.0


@dataclass(frozen=True)
class Feeling:
    """pose: weight of each shape (both sides of a paired one) at full strength; articulation: factor on mouth openings;
    onset, decay in s; accent: how far accents rise above the held level; hold: the level between accents."""

    name: str
    pose: dict[str, float]
    articulation: float = 1.0
    onset: float = 0.45
    decay: float = 0.9
    accent: float = 0.30
    hold: float = 0.80

    @property
    def neutral(self) -> bool:
        return not self.pose


FEELINGS: dict[str, Feeling] = {f.name: f for f in (
    Feeling("neutral", {}),
    Feeling("angry", {
        "browDown": 0.88, "eyeSquint": 0.46, "eyeWide": 0.12, "noseSneer": 0.42, "cheekSquint": 0.18,
        "mouthPress": 0.50, "mouthUpperUp": 0.10, "mouthLowerDown": 0.16, "mouthFrown": 0.14,
        "mouthShrugLower": 0.08, "mouthRollLower": 0.05, "jawForward": 0.10, "mouthStretch": 0.06,
    }, articulation=1.15, onset=0.30, accent=0.40),
    Feeling("happy", {
        "mouthSmile": 0.68, "cheekSquint": 0.62, "eyeSquint": 0.30, "browOuterUp": 0.20, "browInnerUp": 0.10,
        "mouthUpperUp": 0.20, "mouthDimple": 0.12, "mouthLowerDown": 0.06, "eyeBlink": 0.06,
    }, articulation=1.08, accent=0.30),
    Feeling("sad", {
        "browInnerUp": 0.80, "browDown": 0.12, "mouthFrown": 0.62, "eyeBlink": 0.20, "eyeSquint": 0.18,
        "eyeLookDown": 0.20, "mouthShrugLower": 0.18, "mouthRollLower": 0.10, "mouthStretch": 0.05, "cheekSquint": 0.08,
    }, articulation=0.82, onset=0.70, decay=1.4, accent=0.18, hold=0.88),
    Feeling("fear", {
        "browInnerUp": 0.88, "browOuterUp": 0.28, "browDown": 0.16, "eyeWide": 0.74, "mouthStretch": 0.52,
        "mouthFrown": 0.10, "mouthLowerDown": 0.12, "jawOpen": 0.03,
    }, articulation=0.98, onset=0.30, accent=0.28),
    Feeling("disgust", {
        "noseSneer": 0.66, "mouthUpperUp": 0.40, "browDown": 0.42, "eyeSquint": 0.36, "cheekSquint": 0.32,
        "mouthFrown": 0.18, "mouthLowerDown": 0.08, "mouthShrugLower": 0.12, "eyeBlink": 0.08,
    }, articulation=1.15, accent=0.35),
    Feeling("surprise", {
        "browInnerUp": 0.70, "browOuterUp": 0.86, "eyeWide": 0.74, "jawOpen": 0.09, "mouthFunnel": 0.06,
    }, articulation=1.10, onset=0.22, decay=0.7, accent=0.35, hold=0.74),
    Feeling("boredom", {
        "eyeBlink": 0.34, "browInnerUp": 0.06, "mouthFrown": 0.16, "eyeLookDown": 0.14, "mouthShrugLower": 0.08,
        "mouthPress": 0.06,
    }, articulation=0.78, onset=0.8, decay=1.2, accent=0.08, hold=0.95),
)}  # fmt: skip

_ALIASES = {
    "anger": "angry", "happiness": "happy", "joy": "happy", "sadness": "sad", "fearful": "fear", "anxiety": "fear",
    "anxious": "fear", "disgusted": "disgust", "surprised": "surprise", "bored": "boredom", "calm": "neutral",
}  # fmt: skip

_MOUTH = ("mouth", "jaw")
_KNEE = 0.7
_BEFORE, _AFTER = 0.35, 0.45


@dataclass(frozen=True)
class Moment:
    """What the face is doing, per frame (F,): speech, bool; level, accents, closure in [0,1]; rounding, a weight."""

    speech: np.ndarray
    level: np.ndarray
    accents: np.ndarray
    closure: np.ndarray
    rounding: np.ndarray


def feeling(name: str) -> Feeling:
    """The feeling of that name or alias. Raises LSFError for any other."""
    key = str(name).strip().lower()
    key = _ALIASES.get(key, key)
    if key not in FEELINGS:
        raise LSFError(f"Emotion {name!r} is unknown. Use one of: {', '.join(FEELINGS)}.")
    return FEELINGS[key]


def accents(phones: Sequence[Phone], level: np.ndarray, frames: int, seed: int) -> np.ndarray:
    """(F,) beats in [0,1]: rise in 0.12 s before the middle of an accented vowel, fall in 0.3 s.

    Accented: primary stress (or unknown stress) on a vowel that is louder than its surroundings; the louder, the
    stronger. Not every stressed syllable beats: only those that stick out over the last and next 0.4 s.
    """
    out = np.zeros(frames)
    vowels = [p for p in phones if features(halves(p.ipa)[0]).vowel and p.stress in (-1, 1)]
    if not vowels or not frames:
        return out
    middle = np.array([(p.start + p.end) / 2 for p in vowels])
    length = np.array([p.end - p.start for p in vowels])
    at = np.clip(np.rint(middle * _RATE).astype(int), 0, frames - 1)
    strength = level[at] * np.minimum(1.0, 0.5 + length / 0.16)
    near = np.abs(middle[:, None] - middle[None]) < 0.4
    rival = np.where(near & ~np.eye(len(vowels), dtype=bool), strength[None], 0.0).max(1)
    keep = strength > np.maximum(rival, 0.35)
    rng = np.random.default_rng(seed)
    size = np.clip(strength, 0, 1) * rng.uniform(0.55, 1.0, len(vowels))
    t = np.arange(frames) / _RATE - middle[keep][:, None]
    shape = np.where(t < 0, np.exp(-((t / 0.12) ** 2)), np.exp(-((t / 0.30) ** 2)))
    return (size[keep][:, None] * shape).max(0, initial=0.0)


def brow_beats(beats: np.ndarray, level: np.ndarray, speech: np.ndarray, seed: int) -> np.ndarray:
    """(F, 52) the brows of calm speech: raised on accents, drawn together a little in loud, emphatic passages.

    Sizes: public speakers' brows spread by 0.10 (browInnerUp) and 0.14 (browDown) over time (styletalk's tracks).
    """
    out = np.zeros((len(beats), len(ARKIT_NAMES)))
    inner, outer, down = np.random.default_rng(seed + 1).uniform([0.25, 0.10, 0.20], [0.50, 0.28, 0.60])
    out[:, INDEX["browInnerUp"]] = inner * beats
    effort = _slow(level, 1.2)
    mean = float(effort[speech].mean()) if speech.any() else 1.0
    stern = down * np.clip(2.5 * (effort / max(mean, 1e-3) - 1), 0, 1) * (1 - 0.7 * beats)
    for side in ("Left", "Right"):
        out[:, INDEX["browOuterUp" + side]] = outer * beats
        out[:, INDEX["browDown" + side]] = stern
        out[:, INDEX["eyeSquint" + side]] = 0.6 * stern
    return out


def envelope(felt: Feeling, now: Moment, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(state, beats), both (F,): the held level with onset, slow drift and decay, and the accents above it."""
    n = len(now.speech)
    t = np.arange(n) / _RATE
    rng = np.random.default_rng(seed + 2)
    if now.speech.any():
        where = np.flatnonzero(now.speech)
        first, last = where[0] / _RATE, where[-1] / _RATE
    else:
        first, last = 0.0, t[-1] if n else 0.0
    # the face feels before it speaks: a trace from the start, most of the pose as speech begins, a rest when it is over
    rise = _BEFORE + (1 - _BEFORE) / (1 + np.exp(-(t - first + 0.15) / (felt.onset / 4)))
    fall = np.where(t > last, _AFTER + (1 - _AFTER) * np.exp(-0.5 * (np.maximum(t - last, 0) / felt.decay) ** 2), 1.0)
    phase, speed = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.10, 0.30, 2)
    drift = 1 + 0.05 * np.sin(2 * np.pi * speed[0] * t + phase[0]) + 0.05 * np.sin(2 * np.pi * speed[1] * t + phase[1])
    effort = _slow(np.maximum(now.level, 0.0), 1.2)
    mean = float(effort[now.speech].mean()) if now.speech.any() else 1.0
    follow = np.clip(0.75 + 0.25 * effort / max(mean, 1e-3), 0.7, 1.2)
    return felt.hold * rise * fall * drift * follow, felt.accent * now.accents * rise


def _slow(track: np.ndarray, seconds: float) -> np.ndarray:
    half = max(1, round(seconds * _RATE / 2))
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.concatenate([np.full(half, track[0]), track, np.full(half, track[-1])])
    return np.convolve(padded, kernel / kernel.sum(), "valid")


def layer(felt: Feeling, now: Moment, intensity: float, expression: float, upper_face: float, seed: int) -> np.ndarray:
    """(F, 52) weights of the feeling alone. Above _KNEE a weight saturates towards 0.97 instead of clipping."""
    state, beats = envelope(felt, now, seed)
    out = np.zeros((len(state), len(ARKIT_NAMES)))
    for name, value in felt.pose.items():
        upper = not name.startswith(_MOUTH)
        person = upper_face if upper else expression
        # brows and lids carry the beats; cheeks and mouth follow at half
        curve = state + beats * (1.0 if upper else 0.5)
        x = value * intensity * person * curve
        x = np.where(x > _KNEE, _KNEE + (0.97 - _KNEE) * (1 - np.exp(-(x - _KNEE) / (0.97 - _KNEE))), x)
        for shape in (name, name + "Left", name + "Right"):
            if shape in INDEX:
                out[:, INDEX[shape]] = x
    return out


def blend(articulation: np.ndarray, feeling_layer: np.ndarray, now: Moment) -> np.ndarray:
    """(F, 52): the mouth keeps its articulation; corners give way to rounding, a press waits for closures and pauses.

    Paired corner shapes add to the articulation; where both ask for the same shape the larger keeps most of its room.
    """
    extra = feeling_layer.copy()
    round_lips = np.clip(1 - 1.7 * now.rounding, 0.15, 1.0)
    talking = _slow(now.speech.astype(float), 0.2)
    for side in ("Left", "Right"):
        for name in ("mouthSmile", "mouthStretch", "mouthDimple"):
            extra[:, INDEX[name + side]] *= round_lips
        extra[:, INDEX["mouthPress" + side]] *= np.maximum(1 - 0.85 * talking, 0.9 * now.closure)
        extra[:, INDEX["mouthUpperUp" + side]] *= 1 - 0.5 * now.rounding.clip(0, 1)
    extra[:, INDEX["jawOpen"]] *= 0.4 + 0.6 * talking
    extra[:, INDEX["mouthShrugLower"]] *= 1 - 0.6 * talking
    return articulation + extra * (1 - 0.5 * np.clip(articulation, 0, 1))
