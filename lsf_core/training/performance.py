"""Performance synthesis: speech with known phones -> ARKit weights, for speech whose face nobody filmed.

`perform` plays a gestural score (gestures.py) in a style, opens the mouth with the loudness, closes it exactly where
the lips must touch, and lays a feeling over it (emotion.py). The result is the training target of the animator.
Sources, calibration and limits: docs/synthesis.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from lsf_core.arkit import ARKIT_NAMES, IDENTITY_DIM, INDEX
from lsf_core.errors import LSFError
from lsf_core.lips import GAP_ROW, LOWER_ROW
from lsf_core.training import emotion as feelings
from lsf_core.training.gestures import (
    CHANNEL,
    RATE,
    GestureConstants,
    articulate,
    build_score,
    plateaus,
)
from lsf_core.training.phones import canonical, features, halves

SAMPLE_RATE = 16000
_OPEN_HEIGHT = 0.5  # of vowels that part the lips: schwa and whatever is more open


@dataclass(frozen=True)
class Style:
    """How a person speaks: factors on the average articulation. A positive `asymmetry` moves the left side more."""

    jaw: float = 1.0
    lips: float = 1.0
    rounding: float = 1.0
    spread: float = 1.0
    clarity: float = 1.0  # hyper- (above 1) or hypo-articulation: lips and rounding together (Lindblom 1990)
    upper_face: float = 1.0
    expression: float = 1.0
    asymmetry: float = 0.0

    @classmethod
    def from_identity(cls, identity: np.ndarray) -> Style:
        """Style of a face. identity: (32,) whitened. A fixed smooth function: a network can learn it from the mesh.

        A random two-layer map with a fixed seed: nobody knows how bones decide manner, but one face must always speak
        alike and similar faces alike. Gains lie in 0.75..1.3, asymmetry in -0.15..0.15. Raises LSFError on another
        shape.
        """
        x = np.asarray(identity, np.float64).reshape(-1)
        if x.shape != (IDENTITY_DIM,):
            raise LSFError(f"An identity has {IDENTITY_DIM} numbers, this one has {x.size}. Use face.read_identity.")
        rng = np.random.default_rng(20_25)
        names = [f.name for f in fields(cls)]
        inner, outer = rng.standard_normal((IDENTITY_DIM, 64)), rng.standard_normal((64, len(names)))
        hidden = np.tanh(x @ inner / np.sqrt(IDENTITY_DIM))
        value = np.tanh(1.4 * hidden @ outer / 8.0)
        gains = np.where(value > 0, 1 + 0.30 * value, 1 + 0.25 * value)
        settings = {name: float(g) for name, g in zip(names, gains, strict=True)}
        settings["asymmetry"] = float(0.15 * value[names.index("asymmetry")])
        return cls(**settings)


@dataclass(frozen=True)
class LipConstants:
    """How lips touch, and what else moves with the articulation (weights; mm for the gaps)."""

    press_mm: float = 0.35  # lips at p b m are pushed this far beyond touching
    press: float = 0.16  # mouthPress in a closure
    roll: float = 0.06  # both lips roll in a little in a closure
    opener_left: float = 0.25  # share of funnel, upperUp, lowerDown that survives in a closure
    tuck_mm: float = 0.4  # height of the lower lip on the upper teeth, from its height at rest
    tuck_roll: float = 0.34
    tuck_upper: float = 0.15
    tuck_jaw: float = 0.55  # share of the jaw opening that is left in f v: the mandible carries the lip to the teeth
    close_jaw: float = 0.75  # the same in p b m
    dimple: float = 0.25  # dimple per unit of stretch
    shrug_pucker: float = 0.06  # chin lifts a little in pucker
    rest_press: float = 0.02


@dataclass(frozen=True)
class Performance:
    """Tracks at 50 Hz, frame i at i / 50 s. Weights (F, 52) float32 in [0,1] in the order of ARKIT_NAMES.

    neutral: the articulation with small prosodic brow accents; emotional: the same with the feeling. closure, tuck:
    (F,) float32 in [0,1], 1 where p b m (f v) are in contact. vowel: (F,) float32, 1 in the middle of open
    vowels. speech: (F,) bool, a phone is sounding.
    """

    neutral: np.ndarray
    emotional: np.ndarray
    closure: np.ndarray
    tuck: np.ndarray
    vowel: np.ndarray
    speech: np.ndarray
    rate: float = RATE
    names: tuple[str, ...] = ARKIT_NAMES


def loudness(audio: np.ndarray, frames: int) -> np.ndarray:
    """(F,) loudness in [0,1]: 0 at 35 dB below the clip's loud passages or less, 1 at their level. 40 ms windows."""
    x = np.asarray(audio, np.float64).reshape(-1)
    total = np.concatenate([[0.0], np.cumsum(x * x)])
    at = np.arange(frames) * (SAMPLE_RATE / RATE)
    a = np.clip((at - 320).astype(np.intp), 0, len(x))
    b = np.clip((at + 320).astype(np.intp), 0, len(x))
    level = 10 * np.log10((total[b] - total[a]) / np.maximum(b - a, 1) + 1e-9)
    if not frames:
        return level
    top = np.percentile(level, 95)
    if top < -70:
        return np.zeros(frames)
    return np.clip((level - top + 35) / 35, 0.0, 1.0)


def blur(track: np.ndarray, seconds: float) -> np.ndarray:
    """Hann-weighted moving mean over `seconds`, edges held."""
    half = max(1, round(seconds * RATE / 2))
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.concatenate([np.full(half, track[0]), track, np.full(half, track[-1])])
    return np.convolve(padded, kernel / kernel.sum(), "valid")


_OPENERS = (
    "mouthFunnel", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthShrugUpper", "mouthUpperUpLeft",
    "mouthUpperUpRight",
)  # fmt: skip


def seal(
    weights: np.ndarray,
    closure: np.ndarray,
    tuck: np.ndarray,
    lips: LipConstants,
    gap_row: np.ndarray = GAP_ROW,
    lower_row: np.ndarray = LOWER_ROW,
) -> np.ndarray:
    """Make lips touch: (F, 52) weights with openers damped and mouthClose solved so that the contact is exact.

    Where closure is 1 the gap `weights @ gap_row` becomes -press_mm or less; where tuck is 1 the lower lip's height
    `weights @ lower_row` becomes tuck_mm; between, both are blended. Rows: mm per unit of weight. A smile lifts the
    lower lip past the teeth: then it rolls in less and the jaw opens a little. Weights are clipped to [0,1] first,
    as a face would.
    """
    w = np.array(weights, np.float64)
    if not len(w):
        return w
    contact = np.maximum(closure, 0.7 * tuck)
    for name in _OPENERS:
        w[:, INDEX[name]] *= 1 - (1 - lips.opener_left) * contact
    jaw, roll, close = INDEX["jawOpen"], INDEX["mouthRollLower"], INDEX["mouthClose"]
    # the jaw is heavy: it helps the lips, but slower than they move
    w[:, jaw] *= (1 - (1 - lips.close_jaw) * blur(closure, 0.12)) * (1 - (1 - lips.tuck_jaw) * blur(tuck, 0.12))
    alone = tuck * (1 - closure)
    for side in ("Left", "Right"):
        w[:, INDEX["mouthPress" + side]] += lips.press * closure
        w[:, INDEX["mouthUpperUp" + side]] += lips.tuck_upper * alone
    w[:, roll] += lips.roll * closure + lips.tuck_roll * alone
    w[:, INDEX["mouthRollUpper"]] += lips.roll * closure
    np.clip(w, 0.0, 1.0, out=w)

    rise = alone * (lips.tuck_mm - w @ lower_row)  # mm the lower lip has to go up
    w[:, close] += np.maximum(rise, 0.0) / lower_row[close]
    sink = np.maximum(-rise, 0.0)
    unroll = np.minimum(sink / lower_row[roll], 0.7 * lips.tuck_roll * alone)
    w[:, roll] -= unroll
    w[:, jaw] += (sink - unroll * lower_row[roll]) / -lower_row[jaw]
    np.clip(w, 0.0, 1.0, out=w)

    gap = w @ gap_row
    goal = gap + closure * np.minimum(0.0, -lips.press_mm - gap)
    w[:, close] = np.clip(w[:, close] + (goal - gap) / gap_row[close], 0.0, 1.0)
    return w


def perform(
    phones: Sequence[Sequence],
    stress: Sequence[int] | None,
    audio16k: np.ndarray,
    *,
    emotion: str = "neutral",
    intensity: float = 1.0,
    style: Style | None = None,
    seed: int = 0,
    constants: GestureConstants | None = None,
    lips: LipConstants | None = None,
    gap_row: np.ndarray = GAP_ROW,
    language: str | None = None,
) -> Performance:
    """Act a clip. phones: (label, start_s, end_s) in any notation of phones.py; stress: one mark per phone or None;
    audio16k: (N,) float mono. emotion: a name or alias of emotion.py; intensity 0..2. seed: the free part of the
    acting. language: as in phones.canonical.

    Returns F = ceil(N / 16000 * 50) frames. Raises LSFError on unknown phones or emotions and on empty audio.
    """
    audio = np.asarray(audio16k, np.float32).reshape(-1)
    if not len(audio) or not np.isfinite(audio).all():
        raise LSFError(
            f"The clip's sound has {len(audio)} samples or is not finite. Give mono float samples at 16 kHz."
        )
    style, constants, lips = style or Style(), constants or GestureConstants(), lips or LipConstants()
    feeling = feelings.feeling(emotion)
    frames = int(np.ceil(len(audio) / SAMPLE_RATE * RATE - 1e-9))
    rows = canonical(phones, stress, language)
    score = build_score(rows)
    level = loudness(audio, frames)
    speech = speaking(rows, frames)

    tracks = articulate(score, frames, constants)
    opening = constants.opening * open_with(level, speech, constants.loudness)
    closure = plateaus(score.contacts, frames, constants.closure_ramp, constants.closure_share, constants.closure_least)
    tuck = plateaus(score.tucks, frames, constants.tuck_ramp, constants.tuck_share, 0.5 * constants.closure_least)

    accents = feelings.accents(rows, level, frames, seed)
    base = to_weights(tracks, opening, style, lips, 1.0)
    beats = feelings.brow_beats(accents, level, speech, seed) * style.upper_face
    plain = seal(sided(base + beats, style.asymmetry), closure, tuck, lips, gap_row)
    if feeling.neutral or intensity <= 0:
        felt = plain
    else:
        gain = 1 + (feeling.articulation - 1) * min(intensity, 1.5)
        acted = to_weights(tracks, opening, style, lips, gain)
        state = feelings.Moment(
            speech, level, accents, closure, tracks[:, CHANNEL["pucker"]] + tracks[:, CHANNEL["funnel"]]
        )
        layer = feelings.layer(feeling, state, intensity, style.expression, style.upper_face, seed)
        felt = seal(sided(feelings.blend(acted, layer, state), style.asymmetry), closure, tuck, lips, gap_row)
    return Performance(
        plain.astype(np.float32), felt.astype(np.float32), closure.astype(np.float32), tuck.astype(np.float32),
        open_vowels(rows, frames), speech
    )  # fmt: skip


def open_vowels(rows: Sequence, frames: int) -> np.ndarray:
    """(F,) float32: 1 on the frame at the middle of each vowel that is open or half open: there the lips are apart."""
    out = np.zeros(frames, np.float32)
    heard = [(p, features(halves(p.ipa)[0])) for p in rows]
    middles = [(p.start + p.end) / 2 for p, f in heard if f.vowel and f.height <= _OPEN_HEIGHT]
    at = np.rint(np.array(middles) * RATE).astype(int)
    out[at[at < frames]] = 1.0
    return out


def speaking(rows: Sequence, frames: int) -> np.ndarray:
    """(F,) bool: inside a phone that is not a pause."""
    t = np.arange(frames) / RATE
    out = np.zeros(frames, bool)
    sounding = [(p.start, p.end) for p in rows if p.ipa != "sil"]
    if sounding:
        start, end = np.array(sounding).T
        i = np.searchsorted(start, t, side="right") - 1
        out = (i >= 0) & (t < end[np.maximum(i, 0)])
    return out


def open_with(level: np.ndarray, speech: np.ndarray, share: float) -> np.ndarray:
    """(F,) factor on jaw and lip opening, 1 on average over speech: louder is wider (Schulman 1989)."""
    soft = blur(level, 0.16)
    mean = float(soft[speech].mean()) if speech.any() else 0.0
    if mean < 1e-3:
        return np.ones(len(level))
    return np.clip(1 - share + share * soft / mean, 0.0, 1.6)


def to_weights(tracks: np.ndarray, opening: np.ndarray, style: Style, lips: LipConstants, gain: float) -> np.ndarray:
    """(F, 52) weights of the articulation alone. gain: an emotion's factor on all openings."""
    w = np.zeros((len(tracks), len(ARKIT_NAMES)))
    jaw = tracks[:, CHANNEL["jaw"]] * opening * style.jaw * gain
    lip = opening * style.lips * style.clarity * gain
    pucker = tracks[:, CHANNEL["pucker"]] * style.rounding * style.clarity
    stretch, smile = tracks[:, CHANNEL["stretch"]] * style.spread, tracks[:, CHANNEL["smile"]] * style.spread
    w[:, INDEX["jawOpen"]] = jaw
    w[:, INDEX["mouthPucker"]] = pucker
    w[:, INDEX["mouthFunnel"]] = tracks[:, CHANNEL["funnel"]] * style.rounding * style.clarity
    w[:, INDEX["tongueOut"]] = tracks[:, CHANNEL["tongue"]]
    w[:, INDEX["mouthShrugLower"]] = lips.shrug_pucker * pucker
    for side in ("Left", "Right"):
        w[:, INDEX["mouthLowerDown" + side]] = tracks[:, CHANNEL["lower"]] * lip
        w[:, INDEX["mouthUpperUp" + side]] = tracks[:, CHANNEL["upper"]] * lip
        w[:, INDEX["mouthStretch" + side]] = stretch
        w[:, INDEX["mouthSmile" + side]] = smile
        w[:, INDEX["mouthDimple" + side]] = lips.dimple * stretch
        w[:, INDEX["mouthPress" + side]] = lips.rest_press
    return w


_SIDED = (
    "mouthSmile", "mouthUpperUp", "mouthLowerDown", "mouthStretch", "mouthDimple", "browDown", "browOuterUp",
    "eyeSquint",
)  # fmt: skip


def sided(weights: np.ndarray, asymmetry: float) -> np.ndarray:
    """Move one side more and the other less by the same share, so that a symmetric face keeps its lip gap."""
    out = np.clip(weights, 0.0, 1.0)
    if asymmetry:
        for name in _SIDED:
            left, right = INDEX[name + "Left"], INDEX[name + "Right"]
            room = np.minimum(np.minimum(1 - out[:, left], 1 - out[:, right]), np.minimum(out[:, left], out[:, right]))
            shift = np.clip(asymmetry * (out[:, left] + out[:, right]) / 2, -room, room)
            out[:, left] += shift
            out[:, right] -= shift
    return out
