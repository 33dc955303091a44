"""Gestural score: phones in time -> smooth tracks of articulators at 50 Hz.

Each phone pulls every articulator towards a target, with a dominance that rises before the phone and falls after it; an
articulator follows the dominance-weighted mean of all pulls (Cohen and Massaro, Modeling coarticulation in synthetic
visual speech, 1993, equations 2-4). Vowels thus run on underneath the consonants (Öhman, Numerical model of
coarticulation, JASA 1967). The mean is then the goal of a critically damped second-order system, which limits the
speed of jaw and lips (Saltzman and Munhall, A dynamical approach to gestural patterning in speech production,
Ecological Psychology 1989); its impulse response is w^2 t exp(-w t), applied as a filter and moved back by its own
delay of 2/w, since gestures are planned.

Closures of p b m and tucks of f v are not averaged: a lip that touches touches. They are plateaus over the phone.
All tables hold ARKit weights. How they were found: calibrate.py and docs/synthesis.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lsf_core.training.phones import SILENCE, Phone, features, halves

RATE = 50.0

CHANNELS = ("jaw", "lower", "upper", "pucker", "funnel", "stretch", "smile", "tongue")
CHANNEL = {name: i for i, name in enumerate(CHANNELS)}
GROUPS = {
    "jaw": ("jaw",),
    "lips": ("lower", "upper"),
    "round": ("pucker", "funnel"),
    "spread": ("stretch", "smile"),
    "tongue": ("tongue",),
}

CLASSES = (
    "silence", "pause", "open", "open round", "low front", "low back", "mid", "mid rhotic", "mid front", "mid round",
    "near front", "near round", "close front", "close round", "front round", "bilabial", "labiodental", "dental",
    "sibilant", "hush", "alveolar", "lateral", "rhotic", "palatal", "velar", "glottal", "labiovelar",
)  # fmt: skip
CLASS = {name: i for i, name in enumerate(CLASSES)}

_VOWEL_CLASS = {
    "a": "open", "ɑ": "open", "ɐ": "open", "æ": "low front", "ɒ": "open round", "ɔ": "open round", "ʌ": "low back",
    "ə": "mid", "ɤ": "mid", "ɚ": "mid rhotic", "ɝ": "mid rhotic", "ɛ": "mid front", "e": "mid front",
    "o": "mid round", "ɵ": "mid round", "ɪ": "near front", "ɯ": "near front", "ʊ": "near round", "i": "close front",
    "u": "close round", "y": "front round", "ʏ": "front round", "ø": "front round", "œ": "front round",
}  # fmt: skip
_PLACE_CLASS = {
    "bilabial": "bilabial", "labiodental": "labiodental", "dental": "dental", "alveolar": "alveolar",
    "postalveolar": "hush", "palatal": "palatal", "velar": "velar", "uvular": "velar", "glottal": "glottal",
    "labiovelar": "labiovelar", "none": "silence",
}  # fmt: skip


def class_of(ipa: str) -> str:
    """The articulatory class of a simple phone: phones that no lip reader tells apart share their targets."""
    f = features(ipa)
    if f.vowel:
        return _VOWEL_CLASS[ipa]
    if f.place == "bilabial" and not f.bilabial:
        return "labiovelar"  # β ɸ: lips near each other, without touch
    if f.place == "alveolar" and f.manner in ("sibilant", "lateral", "rhotic"):
        return f.manner
    return _PLACE_CLASS[f.place]


@dataclass(frozen=True)
class Dominance:
    """Shape of a phone's pull on one group of articulators.

    width = base + stretch * half the phone's length (s); lead: how early the pull is centred (s); power: 1 a cusp
    (Cohen and Massaro's c), 2 a bell; vowel, silence, rest: strength of vowels, of pauses and of the rest position
    (which pulls always), relative to consonants; natural_hz: the second-order system's frequency.
    """

    base: float
    stretch: float
    lead: float
    power: float
    vowel: float
    silence: float
    rest: float
    natural_hz: float
    eager: float = 1.0  # strength and least half length (s) of the glide w, whose whole point is its rounding
    eager_half: float = 0.0


@dataclass(frozen=True)
class GestureConstants:
    """Every fitted number of the articulation (calibrate.py fits them; docs/synthesis.md says on what)."""

    jaw: Dominance = Dominance(0.038, 0.65, -0.005, 2.2, 0.45, 0.7, 0.07, 9.0)
    lips: Dominance = Dominance(0.038, 0.65, 0.000, 2.2, 0.50, 0.7, 0.07, 9.0)
    round: Dominance = Dominance(0.062, 0.32, 0.005, 1.9, 0.52, 3.0, 0.005, 9.0, eager=1.2, eager_half=0.04)
    spread: Dominance = Dominance(0.060, 0.70, 0.020, 2.0, 1.2, 2.0, 0.10, 6.0)
    tongue: Dominance = Dominance(0.030, 0.4, 0.000, 2.0, 1.0, 0.6, 0.02, 10.0)
    opening: float = 0.79  # jaw and lips of a calm speaker, as a factor on the tables
    loudness: float = 0.60  # share of jaw and lip opening that follows loudness
    primary_stress: float = 1.15  # opening of a vowel with primary, secondary, no stress (all 1 where unknown)
    secondary_stress: float = 1.05
    unstressed: float = 0.9
    round_gain: float = 1.9  # rounding comes in bursts: pucker = gain * track ** power
    round_power: float = 1.5
    closure_ramp: float = 0.065  # s, from open to closed lips
    closure_share: float = 0.38  # of the neighbour's length that a closure may take for its ramp
    closure_least: float = 0.060  # s, shortest contact
    tuck_ramp: float = 0.060
    tuck_share: float = 0.44
    targets: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict(TARGETS))


#               jaw   lower upper pucker funnel stretch smile tongue
TARGETS: dict[str, tuple[float, ...]] = {
    "silence": (0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00),
    "pause": (0.15, 0.03, 0.02, 0.04, 0.00, 0.00, 0.00, 0.00),
    "open": (0.39, 0.16, 0.10, 0.00, 0.00, 0.04, 0.02, 0.00),
    "open round": (0.18, 0.10, 0.06, 0.45, 0.16, 0.00, 0.00, 0.00),
    "low front": (0.38, 0.16, 0.12, 0.00, 0.00, 0.10, 0.10, 0.00),
    "low back": (0.18, 0.12, 0.08, 0.05, 0.00, 0.04, 0.02, 0.00),
    "mid": (0.19, 0.10, 0.06, 0.00, 0.00, 0.04, 0.02, 0.00),
    "mid rhotic": (0.09, 0.10, 0.05, 0.27, 0.07, 0.00, 0.00, 0.00),
    "mid front": (0.28, 0.14, 0.10, 0.00, 0.00, 0.13, 0.12, 0.00),
    "mid round": (0.12, 0.06, 0.03, 0.72, 0.13, 0.00, 0.00, 0.00),
    "near front": (0.18, 0.12, 0.08, 0.00, 0.00, 0.13, 0.13, 0.00),
    "near round": (0.06, 0.06, 0.03, 0.44, 0.10, 0.00, 0.00, 0.00),
    "close front": (0.15, 0.14, 0.10, 0.00, 0.00, 0.22, 0.24, 0.00),
    "close round": (0.07, 0.04, 0.02, 0.84, 0.12, 0.00, 0.00, 0.00),
    "front round": (0.12, 0.06, 0.03, 0.71, 0.13, 0.00, 0.00, 0.00),
    "bilabial": (0.04, 0.00, 0.00, 0.12, 0.00, 0.02, 0.02, 0.00),
    "labiodental": (0.04, 0.00, 0.06, 0.00, 0.00, 0.05, 0.03, 0.00),
    "dental": (0.08, 0.12, 0.06, 0.00, 0.00, 0.05, 0.03, 0.22),
    "sibilant": (0.09, 0.16, 0.10, 0.00, 0.00, 0.13, 0.11, 0.00),
    "hush": (0.08, 0.14, 0.10, 0.24, 0.18, 0.00, 0.00, 0.00),
    "alveolar": (0.13, 0.10, 0.06, 0.05, 0.00, 0.06, 0.03, 0.00),
    "lateral": (0.18, 0.10, 0.06, 0.06, 0.00, 0.05, 0.03, 0.00),
    "rhotic": (0.05, 0.08, 0.05, 0.40, 0.10, 0.00, 0.00, 0.00),
    "palatal": (0.14, 0.10, 0.06, 0.00, 0.00, 0.12, 0.12, 0.00),
    "velar": (0.18, 0.10, 0.06, 0.06, 0.00, 0.05, 0.03, 0.00),
    "glottal": (0.23, 0.10, 0.06, 0.02, 0.00, 0.05, 0.03, 0.00),
    "labiovelar": (0.03, 0.02, 0.01, 0.92, 0.12, 0.00, 0.00, 0.00),
}


_PAUSE = 0.25  # s; in shorter pauses between words the mouth does not come to rest
_PIECE = 0.1  # s; long pauses are cut into pieces of this length, so that a pull never has to reach far


@dataclass(frozen=True)
class Score:
    """Gestures of a clip: (P,) arrays. middle and half in seconds; kind is an index of CLASSES; stress -1, 0, 1, 2."""

    kind: np.ndarray
    middle: np.ndarray
    half: np.ndarray
    stress: np.ndarray
    vowel: np.ndarray
    contacts: np.ndarray  # (N, 4) of p b m: start, end, length of the phone before and after (s)
    tucks: np.ndarray  # the same of f v


def build_score(phones: Sequence[Phone]) -> Score:
    """Gestures in time order. A diphthong is two vowels, the first a little longer; a pause is a row of short ones."""
    kind: list[int] = []
    middle: list[float] = []
    half: list[float] = []
    stress: list[int] = []
    vowel: list[bool] = []
    contacts: list[tuple[float, float, float, float]] = []
    tucks: list[tuple[float, float, float, float]] = []

    def add(ipa: str, start: float, end: float, mark: int, name: str = "") -> None:
        kind.append(CLASS[name or class_of(ipa)])
        middle.append((start + end) / 2)
        half.append((end - start) / 2)
        stress.append(mark)
        vowel.append(features(ipa).vowel)

    for i, p in enumerate(phones):
        parts = halves(p.ipa)
        if len(parts) == 2:
            knee = p.start + 0.55 * (p.end - p.start)
            add(parts[0], p.start, knee, p.stress)
            add(parts[1], knee, p.end, p.stress)
        elif p.ipa == SILENCE:
            count = max(1, int((p.end - p.start) / _PIECE))
            edges = np.linspace(p.start, p.end, count + 1)
            inside = 0 < i < len(phones) - 1 and p.end - p.start < _PAUSE
            for a, b in pairwise(edges):
                add(SILENCE, float(a), float(b), 0, "pause" if inside else "silence")
        else:
            add(p.ipa, p.start, p.end, p.stress)
        f = features(parts[0])
        if f.bilabial or f.labiodental:
            before = _room(phones, i - 1, f.bilabial)
            after = _room(phones, i + 1, f.bilabial)
            (contacts if f.bilabial else tucks).append((p.start, p.end, before, after))
    touch, teeth = (np.array(spans, np.float64).reshape(-1, 4) for spans in (contacts, tucks))
    centre, reach = np.array(middle, np.float64), np.array(half, np.float64)
    marks, vowels = np.array(stress, np.intp), np.array(vowel, bool)
    return Score(np.array(kind, np.intp), centre, reach, marks, vowels, touch, teeth)


def _room(phones: Sequence[Phone], i: int, bilabial: bool) -> float:
    """Length of a neighbour that a closure may borrow from; between two closures the lips simply stay closed."""
    if not 0 <= i < len(phones) or phones[i].ipa == SILENCE:
        return 1.0
    if bilabial and features(halves(phones[i].ipa)[0]).bilabial:
        return 1.0
    return phones[i].end - phones[i].start


def pulls(score: Score, frames: int, shape: Dominance) -> tuple[np.ndarray, np.ndarray]:
    """Normalised dominance of each gesture over its neighbourhood: frame index and weight, both (P, K).

    The weights of all gestures on a frame and of the rest position add up to 1. Cells outside the clip have weight 0.
    """
    glide = score.kind == CLASS["labiovelar"]
    width = shape.base + shape.stretch * np.where(glide, np.maximum(score.half, shape.eager_half), score.half)
    strength = np.where(score.vowel, shape.vowel, 1.0)
    strength[glide] = shape.eager
    strength[score.kind <= CLASS["pause"]] = shape.silence
    reach = int(np.ceil(min(0.6, 2.6 * float(width.max(initial=0.05))) * RATE))
    centre = score.middle - shape.lead
    index = np.rint(centre * RATE).astype(np.intp)[:, None] + np.arange(-reach, reach + 1)
    away = np.abs(index / RATE - centre[:, None]) / width[:, None]
    weight = strength[:, None] * np.exp(-(away**shape.power))
    weight[(index < 0) | (index >= frames)] = 0.0
    index = np.clip(index, 0, max(0, frames - 1))
    total = np.bincount(index.ravel(), weight.ravel(), frames) + shape.rest
    return index, weight / total[index]


def smooth(track: np.ndarray, natural_hz: float) -> np.ndarray:
    """Critically damped second-order response (F,) or (F, C), without delay: a goal in, the articulator out."""
    omega = 2 * np.pi * natural_hz
    fine = 8  # the kernel is built on a finer grid: at 50 Hz its peak falls between frames
    t = (np.arange(int(fine * RATE * (10 / omega))) + 0.5) / (fine * RATE)
    response = omega**2 * t * np.exp(-omega * t)
    frame = np.rint((t - 2 / omega) * RATE).astype(int)
    first = frame.min()
    kernel = np.bincount(frame - first, response)
    kernel = kernel / kernel.sum()
    left, right = max(0, -first) + len(kernel), len(kernel)
    flat = track.reshape(len(track), -1)
    out = np.empty_like(flat)
    for c in range(flat.shape[1]):
        padded = np.concatenate([np.full(right, flat[0, c]), flat[:, c], np.full(left, flat[-1, c])])
        out[:, c] = np.convolve(padded, kernel)[right - first :][: len(flat)]
    return out.reshape(track.shape)


def stress_gain(score: Score, constants: GestureConstants) -> np.ndarray:
    """(P,) factor on the opening of each gesture."""
    gain = np.ones(len(score.kind))
    for mark, value in ((0, constants.unstressed), (1, constants.primary_stress), (2, constants.secondary_stress)):
        gain[score.vowel & (score.stress == mark)] = value
    return gain


def articulate(score: Score, frames: int, constants: GestureConstants) -> np.ndarray:
    """(F, len(CHANNELS)) smoothed tracks, before loudness and closures."""
    out = np.zeros((frames, len(CHANNELS)))
    if not len(score.kind) or not frames:
        return out
    table = np.array([constants.targets[name] for name in CLASSES])
    gain = stress_gain(score, constants)
    for name, channels in GROUPS.items():
        shape: Dominance = getattr(constants, name)
        index, weight = pulls(score, frames, shape)
        for channel in channels:
            c = CHANNEL[channel]
            target = table[score.kind, c] * (gain if name in ("jaw", "lips") else 1.0)
            track = np.bincount(index.ravel(), (weight * target[:, None]).ravel(), frames)
            out[:, c] = smooth(track, shape.natural_hz)
    pucker = CHANNEL["pucker"]
    out[:, pucker] = np.minimum(0.95, constants.round_gain * np.maximum(out[:, pucker], 0.0) ** constants.round_power)
    return out


def plateaus(spans: np.ndarray, frames: int, ramp: float, share: float, least: float) -> np.ndarray:
    """(F,) in [0,1]: exactly 1 during each span, cosine flanks outside of it.

    spans: (N, 4) start, end, room before, room after (s). A flank takes at most `share` of its room, so that a short
    open vowel next to the contact still opens. Spans shorter than `least` grow to it, within the same limit.
    """
    out = np.zeros(frames)
    if not len(spans):
        return out
    start, end, before, after = spans.T
    grow = np.maximum(0.0, least - (end - start)) / 2
    start, end = start - np.minimum(grow, 0.15 * before), end + np.minimum(grow, 0.15 * after)
    # whole frames inside of the span, so that the flanks start within the sound and take little of the neighbours
    start, end = np.ceil(start * RATE - 0.3) / RATE, np.floor(end * RATE + 0.3) / RATE
    rise, fall = np.minimum(ramp, share * before), np.minimum(ramp, share * after)
    reach = int(np.ceil(float((end - start).max() / 2 + ramp) * RATE)) + 1
    index = np.rint((start + end) / 2 * RATE).astype(np.intp)[:, None] + np.arange(-reach, reach + 1)
    t = index / RATE
    early, late = (
        (start[:, None] - t) / np.maximum(rise, 1e-3)[:, None],
        (t - end[:, None]) / np.maximum(fall, 1e-3)[:, None],
    )
    outside = np.clip(np.maximum(early, late), 0.0, 1.0)
    value = 0.5 + 0.5 * np.cos(np.pi * outside)
    keep = (index >= 0) & (index < frames)
    np.maximum.at(out, index[keep], value[keep])
    return out
