"""SoundCues: what the edits need to know of the sound, so that they can run again where the sound is not at hand.

Blinks like the ends of phrases, the head nods on accents, people breathe in pauses. Some numbers a frame tell all that:
about 10 bytes where the sound itself has 640. Numpy alone, as it runs inside Blender too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .audio import SAMPLE_RATE, loudness_db, voice_activity
from .errors import LSFError
from .filters import smoothstep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

CUE_RATE = 50.0
"""Frames per second of the cues of a sound that is played as it was recorded."""

TENTHS = np.float32(10)
"""Steps per dB and per Hz in a file."""

LOWEST_HZ, HIGHEST_HZ = 65.0, 500.0
"""Voices that are looked for: a deep man's to a child's, raised."""

PITCH_WINDOW = 512  # samples at 8 kHz, 64 ms: four periods of the lowest voice
VOICED = 0.5  # correlation of the sound with itself a period later, from which on it is a voice
OCTAVE = 0.85  # a shorter period is taken where it correlates at least this share as well as the best one
_BLOCK = 1024  # frames at a time, so that memory stays small on an hour of sound


@dataclass(frozen=True, eq=False)
class SoundCues:
    """One sound; frame i lies at the time i / rate on the timeline.

    voiced: (F,) bool, somebody speaks (audio.voice_activity). loudness: (F,) float32, dB of full scale.
    pitch: (F,) float32 Hz, 0 where there is none. seconds: how long the sound lasts; its last frame may lie within it.
    Raises LSFError where the lengths differ.
    """

    voiced: NDArray[np.bool_]
    loudness: Floats
    pitch: Floats
    seconds: float
    rate: float = CUE_RATE

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("voiced", "loudness", "pitch")}
        if len(set(lengths.values())) != 1:
            raise LSFError(f"The cues of one sound have different lengths: {lengths}. Animate again.")

    def __len__(self) -> int:
        return len(self.voiced)

    def retimed(self, speed: float) -> SoundCues:
        """The cues of the same sound played `speed` times as fast. Raises LSFError for a speed that is none."""
        if not (np.isfinite(speed) and speed > 0):
            raise LSFError(f"The speed is {speed}; it must be more than 0.")
        return replace(self, seconds=self.seconds / speed, rate=self.rate * speed)

    def at(self, values: Floats, times: Floats) -> Floats:
        """Values (F,) of these frames, interpolated at `times` (G,) in seconds; the ends are held."""
        return np.interp(times * self.rate, np.arange(len(self)), values)

    def spoken(self, times: Floats) -> Floats:
        """How surely somebody speaks at `times` (G,): 1 in speech and up to 0.1 s from it, 0 farther off than 0.2 s.

        The closure of a p lies before the first sound of it, that of a last m after the last.
        """
        if not self.voiced.any():
            return np.zeros(len(times))
        ends = self.phrases()
        after = np.searchsorted(ends[:, 0], times, side="right")
        before = np.concatenate([[-np.inf], ends[:, 1]])[after]  # the end of the phrase that began last
        coming = np.concatenate([ends[:, 0], [np.inf]])[after]
        return 1.0 - smoothstep(np.minimum(np.maximum(times - before, 0.0), coming - times), 0.1, 0.2)

    def phrases(self) -> Floats:
        """(P, 2) seconds at which stretches of speech begin and end. Pauses under 0.2 s part no phrases."""
        padded = np.concatenate([[False], self.voiced, [False]]).astype(np.int8)
        edges = np.flatnonzero(np.diff(padded))
        return edges.reshape(-1, 2) / self.rate

    def phrase_ends(self) -> Floats:
        """(E,) seconds at which a phrase ends and a pause follows: the end of the sound is none."""
        ends = self.phrases()[:, 1]
        return ends[ends < len(self) / self.rate]


def listen(samples: Floats, frames: int) -> SoundCues:
    """The cues of a sound: samples (N,) float at 16 kHz, `frames` at CUE_RATE (a frame more or less than N is mended).

    Rounded to a tenth of a dB and of a Hz, as files hold them.
    """

    def fitted(values: NDArray) -> NDArray:
        values = values if values.dtype == bool else rounded(values)
        return np.pad(values[:frames], (0, max(0, frames - len(values))), mode="edge")

    voiced = fitted(voice_activity(samples, CUE_RATE))
    return SoundCues(voiced, fitted(loudness_db(samples, CUE_RATE)), fitted(pitch_hz(samples, voiced)),
                      len(samples) / SAMPLE_RATE)


def pitch_hz(samples: Floats, where: NDArray[np.bool_]) -> Floats:
    """Fundamental frequency (F,) in Hz at CUE_RATE, 0 where unvoiced or where the mask `where` (F,) is False.

    Autocorrelation of a Hann window divided by that of the window itself (Boersma 1993, "Accurate short-term analysis
    of the fundamental frequency", IFA Proceedings 17), on every second sample: voices are far below. No path is sought
    through the frames; a median over five of them takes single octave errors, which is all that head motion asks for.
    """
    even = len(samples) // 2 * 2
    halved = np.asarray(samples[:even], np.float32).reshape(-1, 2).mean(axis=1)
    step = SAMPLE_RATE // 2
    window, size = np.hanning(PITCH_WINDOW).astype(np.float32), 2 * PITCH_WINDOW
    own = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2)
    shortest, longest = int(step / HIGHEST_HZ), int(step / LOWEST_HZ)
    norm = (own / own[0])[: longest + 2].astype(np.float32)
    padded = np.pad(halved, (PITCH_WINDOW // 2, PITCH_WINDOW))
    frames = np.flatnonzero(where)
    pitch = np.zeros(len(where), np.float32)
    for block in np.split(frames, range(_BLOCK, len(frames), _BLOCK)):
        first = np.round(block * (step / CUE_RATE)).astype(np.int64)
        rows = padded[np.minimum(first, len(halved))[:, None] + np.arange(PITCH_WINDOW)] * window
        power = np.fft.irfft(np.abs(np.fft.rfft(rows, size)) ** 2)[:, : longest + 2]
        curve = power / np.maximum(power[:, :1], 1e-9) / norm
        inside = curve[:, shortest:-1]
        peaks = (inside >= curve[:, shortest - 1 : -2]) & (inside >= curve[:, shortest + 1 :])
        height = np.where(peaks, inside, 0.0)
        best = height.max(axis=1)
        lag = (height >= OCTAVE * best[:, None]).argmax(axis=1) + shortest
        pitch[block] = np.where(best > VOICED, step / lag, 0.0)
    return median_of_five(pitch)


def median_of_five(values: Floats) -> Floats:
    """The median of each value (F,) and its two neighbours on either side, the ends held.

    Of two pairs the lower low and the higher high cannot be it; it is the middle one of the other two and the fifth.
    """
    a, b, c, d, e = np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="edge"), 5).T
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return np.maximum(np.minimum(low, high), np.minimum(np.maximum(low, high), e)).astype(np.float32)


def rounded(values: Floats) -> Floats:
    """To a tenth of a dB or a Hz, as files hold them."""
    return (np.round(values * TENTHS) / TENTHS).astype(np.float32)
