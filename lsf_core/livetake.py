"""LiveTake: deliveries of the network into weights while they come, as RawTake.finish does with a whole clip.

What is taken from the whole clip there comes from the past here (causal.py). Strength of the emotion and of regions,
closures, rest in silence and the leaning of both sides are edited here, at 50 Hz; gaze and blinks (edits/live_eyes.py),
gain and offset at the frame rate. Smoothing, breath and head motion look ahead by up to a second and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .arkit import ARKIT_NAMES, INDEX
from .causal import RunningMean, UsualOpening
from .edits import EditSettings
from .edits.asymmetry import lean, leanings
from .edits.closure import PRESS, REACH
from .edits.live_eyes import LiveEyes
from .edits.shapes import region_of
from .filters import smoothstep
from .lips import (
    CLOSED,
    GAP_ROW,
    LEAST_GAP,
    LEAST_OPENING,
    OPEN,
    OPENING_SMOOTHING,
    WIDEST_OPENING,
    close_by,
    keep_gap,
    press,
    seal_corners,
)
from .motion import MOUTH
from .rawtake import ACCENT, ACCENT_DB, BEAT, FEELING_SMOOTHING, RESTING, SINK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

LEVEL_FRAMES = 250.0
"""Time constant of the speaker's usual loudness: 5 s of speech."""

SPEECH_FRAMES = 4.0
"""Time constant with which closures begin and end to matter around speech."""

RISE, MOUTH_FALL, FACE_FALL = 3.0, 12.0, 75.0
"""Time constants in frames: a face rises from rest as somebody speaks; mouth and face go back to it in silence."""

STILL = 0.01
"""Share of its motion below which nobody sees a face move."""

_MOUTH = np.isin(np.arange(len(ARKIT_NAMES)), MOUTH)
_PRESS = [INDEX["mouthPressLeft"], INDEX["mouthPressRight"]]


@dataclass(frozen=True, eq=False)
class Heard:
    """What the sound was at some frames: voiced (n,) bool, loudness (n,) dB of full scale."""

    voiced: NDArray[np.bool_]
    loudness: Floats


class LiveTake:
    """The take of one sound as it comes; frames are given once and in order."""

    def __init__(self, settings: EditSettings, fps: float, seed: int) -> None:
        self._settings = settings
        self._row = np.array([getattr(settings, region_of(name)) for name in ARKIT_NAMES], np.float32)
        self._added, self._words, self._felt = (RunningMean(n) for n in (FEELING_SMOOTHING, OPENING_SMOOTHING,
                                                                         OPENING_SMOOTHING))
        self._spoken, self._speech = RunningMean(SINK), RunningMean(SPEECH_FRAMES)
        self._loud, self._accent, self._level = RunningMean(BEAT), RunningMean(BEAT), RunningMean(LEVEL_FRAMES)
        self._usual, self._usual_scaled, self._usual_mixed = UsualOpening(), UsualOpening(), UsualOpening()
        self._leanings = settings.asymmetry * leanings(seed)
        self._awake, self._mouth_awake = 0.0, 0.0
        self._eyes = LiveEyes(settings, fps, seed)

    @property
    def asleep(self) -> bool:
        """Whether the face has been silent for so long that it is at rest."""
        return max(self._awake, self._mouth_awake) < STILL

    # -- at 50 Hz -------------------------------------------------------------------------------------------------
    def mouth(self, neutral: Floats, felt: Floats, heard: Heard) -> Floats:
        """Weights (n, 52) float32 in [0, 1] of both deliveries (n, 52)."""
        speech = np.clip(2.0 * self._speech.follow(heard.voiced.astype(np.float64)), 0.0, 1.0)
        weights = self._mix(neutral, felt, heard, speech)
        if (self._row != 1).any():
            weights = self._kept_closed(weights, weights * self._row, speech, heard.voiced, self._usual_scaled)
        if self._settings.closure:
            weights = self._pressed(weights, speech)
        if self._settings.asymmetry:
            weights = lean(weights, self._leanings)
        if self._settings.settle:
            weights = self._rested(weights, heard.voiced)
        return np.clip(weights, 0.0, 1.0).astype(np.float32)

    def _mix(self, neutral: Floats, felt: Floats, heard: Heard, speech: Floats) -> Floats:
        """RawTake.mix, with running means for its Gaussians and the usual opening for its percentile."""
        added = self._added.follow(felt - neutral) * self._swell(heard)[:, None]
        felt = neutral + self._settings.emotion * added
        words = np.clip(neutral, 0.0, 1.0) @ GAP_ROW
        calm = self._words.follow(np.maximum(words, 0.0)) + LEAST_GAP
        stirred = self._felt.follow(np.maximum(np.clip(felt, 0.0, 1.0) @ GAP_ROW, 0.0)) + LEAST_GAP
        factor = np.where(words > 0.0, np.clip(stirred / calm, LEAST_OPENING, WIDEST_OPENING), 1.0)
        contact = speech * closedness_by(words, self._usual.follow(words, heard.voiced))
        gap = words * factor - press(felt, neutral, contact)
        return keep_gap(seal_corners(felt, neutral, contact), neutral, gap)

    def _swell(self, heard: Heard) -> Floats:
        """rawtake.swell: a feeling sinks in pauses and rises with words louder than those before."""
        spoken = heard.voiced.astype(np.float64)
        above = self._loud.follow(heard.loudness) - self._level.follow(heard.loudness, spoken)
        accent = self._accent.follow(np.clip(above / ACCENT_DB, -1.0, 1.0) * spoken)
        return (1 - RESTING * (1 - self._spoken.follow(spoken))) * (1 + ACCENT * accent)

    def _kept_closed(self, before: Floats, weights: Floats, speech: Floats, voiced: NDArray[np.bool_],
                     usual_after: UsualOpening) -> Floats:
        """lips.keep_closures: lips closed in `before` (n, 52) stay so in `weights` (n, 52)."""
        weights = np.clip(weights, 0.0, 1.0)
        was, now = before @ GAP_ROW, np.maximum(weights @ GAP_ROW, 0.0)
        usual = self._usual.now
        less = np.minimum(1.0, usual_after.follow(now, voiced) / usual)
        closed = speech * closedness_by(was, usual)
        return close_by(weights, closed * np.maximum(now - less * np.maximum(was, 0.0), 0.0))

    def _pressed(self, weights: Floats, speech: Floats) -> Floats:
        """edits.press_lips: lips that are closed, or nearly, are closed and pressed."""
        strength, limit = self._settings.closure, CLOSED + self._settings.closure * REACH
        gap = np.maximum(weights @ GAP_ROW, 0.0)
        pressed = speech * (1.0 - smoothstep(gap / self._usual.now, limit, limit + REACH))
        weights = close_by(weights, min(strength, 1.0) * pressed * gap)
        weights[:, _PRESS] += (strength * PRESS * pressed)[:, None]
        return weights

    def _rested(self, weights: Floats, voiced: NDArray[np.bool_]) -> Floats:
        """edits.settle_ends and still_pauses: at rest before the first word, and again where silence lasts.

        All of the mouth shrinks together, so that lips that touch stay in touch.
        """
        strength = self._settings.settle
        for i, speaking in enumerate(voiced):
            self._mouth_awake = _towards(self._mouth_awake, speaking, RISE, strength * MOUTH_FALL)
            self._awake = _towards(self._awake, speaking, 2 * RISE, strength * FACE_FALL)
            weights[i] *= np.where(_MOUTH, self._mouth_awake, self._awake)
        return weights

    # -- at the frame rate ----------------------------------------------------------------------------------------
    def eyes(self, weights: Floats, first: int, phrase_end: float | None) -> Floats:
        """Weights (n, 52) of the frames from `first` on with gaze, blinks, gain and offset; phrase_end: seconds, see
        LiveEyes.add."""
        weights = self._eyes.add(weights, first, phrase_end)
        settings = self._settings
        if settings.gain or settings.offset:
            before = weights
            weights = weights.copy()
            for name, gain in settings.gain.items():
                weights[:, INDEX[name]] *= gain
            for name, offset in settings.offset.items():
                weights[:, INDEX[name]] += offset
            awake, speaking = np.full(len(weights), self._mouth_awake), np.full(len(weights), self._mouth_awake > 0.5)
            weights = self._kept_closed(before, weights, awake, speaking, self._usual_mixed)
        return np.clip(weights, 0.0, 1.0).astype(np.float32)


def closedness_by(gap: Floats, usual: Floats | float) -> Floats:
    """lips.closedness (n,) of a lip gap (n,) in mm for a usual opening that is known."""
    return 1.0 - smoothstep(np.maximum(gap, 0.0) / usual, CLOSED, OPEN)


def _towards(value: float, speaking: bool, rise: float, fall: float) -> float:
    """A step of one frame of `value` to 1 where somebody speaks, else to 0, with these time constants in frames."""
    frames = rise if speaking else fall
    return value + (float(speaking) - value) * (1.0 - float(np.exp(-1.0 / frames)) if frames > 0 else 1.0)
