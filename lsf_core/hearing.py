"""The cues of a sound where its samples already lie: cues.listen in torch, beside the network.

On a graphics card the kernels are only started: the card goes on with the network while the processor works on the few
numbers a frame that come back.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .audio import FLOOR_DB, SAMPLE_RATE, voiced_frames
from .cues import (
    CUE_RATE,
    HIGHEST_HZ,
    LOWEST_HZ,
    OCTAVE,
    PITCH_WINDOW,
    VOICED,
    SoundCues,
    median_of_five,
    rounded,
)

_HOP = int(SAMPLE_RATE / CUE_RATE)
_STEP = SAMPLE_RATE // 2       # the rate at which pitch is looked for
_BLOCK = 8192                  # frames at a time: 32 MB of spectra


class Hearing:
    """Listening to a sound (N,) float32 at 16 kHz, begun on its device at once; `cues` waits for the outcome.

    The same numbers as cues.listen's but for rounding: that one sums and transforms in double precision.
    """

    def __init__(self, sound: Tensor) -> None:
        self.seconds = len(sound) / SAMPLE_RATE
        both = torch.stack([loudness(sound), pitch(sound)])
        self._done: torch.cuda.Event | None = None
        if both.is_cuda:
            self._values = torch.empty(both.shape, pin_memory=True)
            self._values.copy_(both, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()
        else:
            self._values = both

    def cues(self) -> SoundCues:
        """What was heard, ceil(N / 320) frames."""
        if self._done is not None:
            self._done.synchronize()
        level, hertz = self._values.numpy()
        voiced = voiced_frames(level, CUE_RATE)
        return SoundCues(voiced, rounded(level), rounded(median_of_five(np.where(voiced, hertz, 0.0))), self.seconds)


def loudness(sound: Tensor) -> Tensor:
    """audio.loudness_db at CUE_RATE of samples (N,): (F,) dB. A frame's 40 ms are the blocks before and after it."""
    frames = -(-len(sound) // _HOP)
    blocks = F.pad(sound, (_HOP, frames * _HOP - len(sound))).view(-1, _HOP).square().sum(1)
    ends = (torch.arange(1, frames + 1, device=sound.device) * _HOP).clamp_max(len(sound))
    starts = (torch.arange(-1, frames - 1, device=sound.device) * _HOP).clamp_min(0)
    return 10.0 * ((blocks[:-1] + blocks[1:]) / (ends - starts)).clamp_min(10.0 ** (FLOOR_DB / 10.0)).log10()


def pitch(sound: Tensor) -> Tensor:
    """Fundamental frequency (F,) in Hz at CUE_RATE, 0 where unvoiced, as cues.pitch_hz before its median."""
    frames, hop = -(-len(sound) // _HOP), _HOP // 2
    halved = sound[: len(sound) // 2 * 2].view(-1, 2).mean(1)
    padded = F.pad(halved, (PITCH_WINDOW // 2, PITCH_WINDOW + hop))
    window = torch.hann_window(PITCH_WINDOW, periodic=False, device=sound.device)
    own = torch.fft.irfft(torch.fft.rfft(window, 2 * PITCH_WINDOW).abs().square())
    shortest, longest = int(_STEP / HIGHEST_HZ), int(_STEP / LOWEST_HZ)
    norm = (own / own[0])[: longest + 2]
    found = []
    for rows in padded.unfold(0, PITCH_WINDOW, hop)[:frames].split(_BLOCK):
        power = torch.fft.irfft(torch.fft.rfft(rows * window, 2 * PITCH_WINDOW).abs().square())[:, : longest + 2]
        curve = power / power[:, :1].clamp_min(1e-9) / norm
        inside = curve[:, shortest:-1]
        peaks = (inside >= curve[:, shortest - 1 : -2]) & (inside >= curve[:, shortest + 1 :])
        height = torch.where(peaks, inside, 0.0)
        best = height.amax(1)
        lag = (height >= OCTAVE * best[:, None]).to(torch.uint8).argmax(1) + shortest
        found.append(torch.where(best > VOICED, _STEP / lag, 0.0))
    return torch.cat(found)
