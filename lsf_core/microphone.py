"""Microphone: what the engine's machine records, for live preview. Blender's own Python has no audio input.

`sounddevice` (PortAudio) is optional: the engine works without it, and says how to get it when it is asked to listen.
"""

from __future__ import annotations

import queue
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from .audio import SAMPLE_RATE
from .errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_SECONDS = 0.02
MAX_SECONDS = 10.0
"""Of sound that waits to be read: who does not fetch it for so long has gone away, and the oldest is dropped."""


class Microphone:
    """An open input device: `read` gives what was recorded since the last call, 16 kHz mono.

    Raises AudioError on construction: no sounddevice, no PortAudio, no such device, or it cannot be opened.
    """

    def __init__(self, device: str = "") -> None:
        """device: part of an input device's name; empty: the system's default."""
        sounddevice = _sounddevice()
        self._blocks: queue.Queue[NDArray[np.float32]] = queue.Queue(round(MAX_SECONDS / BLOCK_SECONDS))
        self._resampler: Any = None
        try:
            info = sounddevice.query_devices(device or None, "input")
            self.name = str(info["name"])
            self._stream = self._opened(sounddevice, device or None, float(info["default_samplerate"]))
        except (sounddevice.PortAudioError, ValueError) as error:
            wanted = f"the input device '{device}'" if device else "an input device"
            raise AudioError(f"The engine cannot record from {wanted} ({error}). Connect a microphone and allow its "
                             "use in the system's privacy settings, or choose another one.") from error

    def _opened(self, sounddevice: Any, device: str | None, own_rate: float) -> Any:
        """A running stream at 16 kHz, or at the device's own rate where it does not know that one."""
        rate = float(SAMPLE_RATE)
        try:
            sounddevice.check_input_settings(device, channels=1, dtype="float32", samplerate=rate)
        except (sounddevice.PortAudioError, ValueError):
            import soxr

            rate = own_rate
            self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="MQ")
        stream = sounddevice.InputStream(samplerate=rate, blocksize=round(BLOCK_SECONDS * rate), device=device,
                                         channels=1, dtype="float32", callback=self._take)
        stream.start()
        return stream

    def _take(self, block: NDArray[np.float32], _frames: int, _time: Any, _status: Any) -> None:
        """Called on PortAudio's thread."""
        while True:
            try:
                self._blocks.put_nowait(block[:, 0].copy())
                return
            except queue.Full:
                self._blocks.get_nowait()

    def read(self) -> NDArray[np.float32]:
        """(N,) float32, perhaps none. Never waits. Raises AudioError where the device has gone."""
        if not self._stream.active:
            raise AudioError(f"The input device '{self.name}' stopped. Connect it again and start the preview anew.")
        blocks = [np.zeros(0, np.float32)]
        while True:
            try:
                blocks.append(self._blocks.get_nowait())
            except queue.Empty:
                break
        samples = np.concatenate(blocks)
        return self._resampler.resample_chunk(samples) if self._resampler is not None and len(samples) else samples

    def close(self) -> None:
        self._stream.close()


def _sounddevice() -> Any:
    """The library. Raises AudioError with the cure where it, or PortAudio, is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise AudioError("The engine needs the library 'sounddevice' to hear a microphone. Install it into the "
                         f"engine's Python: '{sys.executable}' -m pip install sounddevice") from error
    except OSError as error:  # the library is there, PortAudio is not: Linux
        raise AudioError(f"The engine cannot hear a microphone: PortAudio is missing ({error}). Install it, on Debian "
                         "and Ubuntu by: sudo apt install libportaudio2") from error
    return sounddevice
