"""Figures of a sound and a motion that are still coming in: what a whole clip is measured by, from its past alone.

A take is finished with figures of the whole clip: its noise floor, its usual lip gap, means and Gaussians that look as
far ahead as back. Live, nothing is known of what comes. docs/live.md lists each of them with what stands for it here.
All memory is bounded, and what comes out does not depend on how many frames come at a time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from .audio import FLOOR_DB, SILENCE_DB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

MEMORY = 500
"""Frames at 50 Hz, 10 s: how far back levels and usual openings are remembered."""


class RunningMean:
    """Exponential mean of numbers or rows over time. `frames` is its time constant: about as many count.

    The first frames are weighed evenly (the mean of all that came), so that it starts without a lag and without a
    leaning to zero.
    """

    def __init__(self, frames: float) -> None:
        self._keep = float(np.exp(-1.0 / frames))
        self._total: Floats | float = 0.0
        self._weight = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing was counted yet."""
        return self._weight == 0.0

    @property
    def value(self) -> Floats:
        """The mean now; zeros where nothing was counted yet."""
        return np.asarray(self._total / self._weight if self._weight else self._total)

    def follow(self, values: Floats, weights: Floats | None = None) -> Floats:
        """The mean after each of `values` (n,) or (n, C), float64 of the same shape. weights (n,): how much each of
        them counts, None for 1; what does not count leaves the mean as it is."""
        out = np.zeros(values.shape)
        for i, value in enumerate(values):
            share = 1.0 if weights is None else float(weights[i])
            if share > 0.0:
                keep = self._keep**share
                self._total = keep * self._total + (1.0 - keep) * value
                self._weight = keep * self._weight + (1.0 - keep)
            out[i] = self.value
        return out


def frame_levels(samples: Floats, samples_per_frame: int) -> Floats:
    """Loudness of frames (n,) in dB of full scale, as audio.loudness_db at 50 Hz. samples: those of n + 1 frames, the
    first of which lies before them."""
    power = np.square(samples.astype(np.float64)).reshape(-1, samples_per_frame).mean(axis=1)
    return 10.0 * np.log10(np.maximum((power[:-1] + power[1:]) / 2, 10.0 ** (FLOOR_DB / 10.0)))


class VoiceGate:
    """Where somebody speaks, by energy alone: audio.voice_activity from the past and some frames ahead.

    Noise floor and speech level are the 10th and 95th percentile of the loudness of the last 10 s. Before there is such
    a past, speech is taken to be at least at USUAL_SPEECH_DB, so that a room's noise is not taken for it, and the floor
    to lie at most at LOUDEST_FLOOR_DB, so that a clip which begins with a vowel is not taken for noise.
    Bursts under 60 ms are dropped; what was heard is held on for 0.2 s, which fills the gaps of stop consonants.
    """

    USUAL_SPEECH_DB, LOUDEST_FLOOR_DB = -35.0, -45.0
    FLOOR_FRAMES = 100
    SHORTEST, HELD = 3, 10

    def __init__(self, early: int) -> None:
        """early: frames that a stretch is begun before its first sound; so far ahead it has to have heard."""
        self.early = early
        self._levels: deque[float] = deque(maxlen=MEMORY)
        self._heard = 0
        self._loud = 0
        self._last_speech: deque[int] = deque(maxlen=MEMORY)  # frames at which a burst had lasted long enough

    def hear(self, levels: Floats) -> None:
        """Take the loudness (n,) of the next frames, dB of full scale."""
        for level in levels:
            self._levels.append(float(level))
            self._loud = self._loud + 1 if level > self._threshold() else 0
            if self._loud >= self.SHORTEST:
                self._last_speech.append(self._heard)
            self._heard += 1

    def voiced(self, first: int, last: int) -> NDArray[np.bool_]:
        """Whether somebody speaks at the frames `first` up to, without, `last`; last + early - 1 has been heard, or the
        sound has ended before."""
        frames = np.arange(first, last)
        sure = np.array(self._last_speech)
        begun = sure[None, :] - (self.SHORTEST - 1)
        return ((begun <= frames[:, None] + self.early) & (frames[:, None] <= sure[None, :] + self.HELD)).any(axis=1)

    def _threshold(self) -> float:
        noise, speech = np.percentile(self._levels, [10, 95])
        speech = max(speech, self.USUAL_SPEECH_DB)
        if len(self._levels) < self.FLOOR_FRAMES:
            noise = min(noise, self.LOUDEST_FLOOR_DB)
        return max(noise + 0.3 * (speech - noise), speech - 30.0, SILENCE_DB)


class UsualOpening:
    """The 95th percentile of the lip gap while somebody speaks, in mm, over the last 10 s of speech.

    Until a second of speech has come it leans to TYPICAL_MM, the median of it over clips of many voices.
    """

    TYPICAL_MM = 9.0
    TRUSTED = 50  # frames

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=MEMORY)

    def follow(self, gaps: Floats, spoken: NDArray[np.bool_]) -> Floats:
        """The usual opening (n,) after each of these frames: gaps (n,) mm, spoken (n,) bool."""
        out = np.empty(len(gaps))
        for i, gap in enumerate(gaps):
            if spoken[i]:
                self._gaps.append(max(float(gap), 0.0))
            out[i] = self.now
        return out

    @property
    def now(self) -> float:
        """The usual opening after the last frame, mm, at least 1."""
        if not self._gaps:
            return self.TYPICAL_MM
        share = min(len(self._gaps) / self.TRUSTED, 1.0)
        return max(share * float(np.percentile(self._gaps, 95)) + (1.0 - share) * self.TYPICAL_MM, 1.0)
