"""LiveSession: a Stream and where its sound comes from, as the worker keeps it between two requests.

The sound is a stretch of a file, heard as far as is asked for; a microphone, heard as far as it has recorded; or what
the asker sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .audio import SAMPLE_RATE, loudness_db
from .errors import LSFError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .microphone import Microphone
    from .streaming import Stream

    Floats = NDArray[Any]

MAX_CHUNK_SECONDS = 30.0
"""Longest chunk of one request: more is no live sound, and nothing could be cancelled in between."""

PIECE_SECONDS = 0.16
"""A chunk is heard in pieces of this, so that a cancel is seen."""


@dataclass(frozen=True, eq=False)
class Frames:
    """What came of a request: weights (F, 52) of the frames from `first` on; `heard`: seconds of sound so far; `ended`:
    whether these are the last frames; `level`: dB of full scale of what was heard now, None for no sound."""

    weights: Floats
    first: int
    heard: float
    ended: bool
    level: float | None


class LiveSession:
    """One live preview. sound: (N,) float32 at 16 kHz, a microphone, or None for chunks that are sent."""

    def __init__(self, stream: Stream, sound: Floats | Microphone | None) -> None:
        self.stream = stream
        self._file = sound if isinstance(sound, np.ndarray) else None
        self._microphone: Microphone | None = None if isinstance(sound, np.ndarray) else sound
        self._position = 0

    def chunk(self, samples: Floats | None, seconds: float, check: Callable[[], None]) -> Frames:
        """Hear on: the samples that were sent, the next `seconds` of the file, or what the microphone has.

        check: raises to stop. Raises AudioError, and LSFError for a chunk that is too long or of the wrong kind.
        """
        if samples is not None and (self._file is not None or self._microphone is not None):
            raise LSFError("This preview hears a file or a microphone: it takes no samples.")
        if self._file is not None:
            count = self._checked(round(seconds * SAMPLE_RATE))
            samples = self._file[self._position : self._position + count]
            self._position += len(samples)
        elif self._microphone is not None:
            samples = self._microphone.read()
        elif samples is None:
            raise LSFError("This preview hears neither a file nor a microphone: send it samples.")
        self._checked(len(samples))
        first, made = self.stream.frames, []
        piece = round(PIECE_SECONDS * SAMPLE_RATE)
        for start in range(0, len(samples), piece):
            check()
            made.append(self.stream.feed(samples[start : start + piece]))
        ended = self._file is not None and self._position >= len(self._file)
        if ended and not self.stream.finished:
            made.append(self.stream.finish())
        return self._frames(made, first, ended, samples)

    def end(self) -> Frames:
        """The frames that are left; the microphone is closed."""
        self.close()
        first = self.stream.frames
        made = [] if self.stream.finished else [self.stream.finish()]
        return self._frames(made, first, True, np.zeros(0, np.float32))

    def close(self) -> None:
        """Let go of the microphone."""
        if self._microphone is not None:
            self._microphone.close()
            self._microphone = None

    def _frames(self, made: list[Floats], first: int, ended: bool, samples: Floats) -> Frames:
        level = float(loudness_db(samples).max()) if len(samples) else None
        weights = np.concatenate(made) if made else np.zeros((0, 52), np.float32)
        return Frames(weights, first, self.stream.seconds, ended, level)

    @staticmethod
    def _checked(count: int) -> int:
        if count < 0 or count > MAX_CHUNK_SECONDS * SAMPLE_RATE:
            raise LSFError(f"A chunk of {count / SAMPLE_RATE:.2f} s was sent or asked for; it must be from 0 to "
                           f"{MAX_CHUNK_SECONDS:.0f} s.")
        return count
