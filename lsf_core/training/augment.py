"""What happens to a voice between the mouth and the network: rooms, microphones, noise, level, codecs.

All on the GPU, on a batch of windows (B, N) at 16 kHz; none of it moves the sound in time, so the face stays true.
Each function draws its own strength per clip and leaves about half of the clips as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..audio import SAMPLE_RATE


def augment(audio: Tensor, generator: torch.Generator) -> Tensor:
    """Every effect in the order in which it happens to a real recording. (B, N) -> (B, N)."""
    audio = room(audio, generator)
    audio = add_noise(audio, generator)
    audio = equalise(audio, generator)
    audio = band_limit(audio, generator)
    audio = clip_and_quantise(audio, generator)
    return level(audio, generator)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, device=generator.device, generator=generator)


def _some(count: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, 1, device=generator.device, generator=generator) < share


def room(audio: Tensor, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Convolve with a synthetic room: direct sound plus exponentially decaying noise (Polack's model), RT60 0.1-0.6 s,
    tail -8 to -25 dB under the direct sound. The direct sound stays at lag 0."""
    count, length = audio.shape
    taps = int(0.4 * SAMPLE_RATE)
    time = torch.arange(taps, device=audio.device) / SAMPLE_RATE
    rt60 = _uniform(count, 0.1, 0.6, generator)
    tail = torch.randn(count, taps, device=audio.device, generator=generator) * torch.exp(-6.9 * time / rt60)
    tail[:, : int(0.003 * SAMPLE_RATE)] = 0
    tail = tail / tail.square().sum(1, keepdim=True).sqrt() * 10 ** (_uniform(count, -25, -8, generator) / 20)
    size = 1 << (length + taps - 1).bit_length()
    wet = torch.fft.irfft(torch.fft.rfft(audio, size) * torch.fft.rfft(tail, size), size)[:, :length]
    return torch.where(_some(count, share, generator), audio + wet, audio)


def coloured_noise(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Noise (count, length) of unit rms with a spectral slope of 0 to -9 dB per octave: hiss, rain, traffic, hum."""
    device = generator.device
    spectrum = torch.fft.rfft(torch.randn(count, length, device=device, generator=generator))
    frequency = torch.linspace(0, 1, spectrum.shape[1], device=device).clamp_min(20 / 8000)
    noise = torch.fft.irfft(spectrum * frequency ** (-_uniform(count, 0.0, 1.5, generator)), length)
    return noise / noise.square().mean(1, keepdim=True).sqrt()


def add_noise(audio: Tensor, generator: torch.Generator, share: float = 0.6) -> Tensor:
    """Stationary coloured noise at 5 to 40 dB under the speech."""
    count, length = audio.shape
    rms = audio.square().mean(1, keepdim=True).sqrt()
    gain = rms * 10 ** (-_uniform(count, 5, 40, generator) / 20) * _some(count, share, generator)
    return audio + gain * coloured_noise(count, length, generator)


def band_limit(audio: Tensor, generator: torch.Generator, share: float = 0.4) -> Tensor:
    """Smooth band-pass with a tilt: telephones (300-3400 Hz), cheap microphones, dull rooms."""
    count, length = audio.shape
    frequency = torch.linspace(0, 8000, length // 2 + 1, device=audio.device)
    low, high = _uniform(count, 20, 300, generator), _uniform(count, 2800, 8000, generator)
    gain = torch.sigmoid((frequency - low) / (0.1 * low + 5)) * torch.sigmoid((high - frequency) / (0.05 * high))
    tilt = (frequency.clamp_min(50) / 1000) ** (_uniform(count, -6, 6, generator) / 6.02 / 2)
    heard = torch.fft.irfft(torch.fft.rfft(audio) * gain * tilt, length)
    return torch.where(_some(count, share, generator), heard, audio)


def equalise(audio: Tensor, generator: torch.Generator, share: float = 0.6, spread: float = 7.0) -> Tensor:
    """A random smooth frequency response: gains of `spread` dB deviation at 8 knots, even on the mel scale.

    A feeling is told from timbre, and so is a microphone. With it a linear probe from EMO-DB to RAVDESS gains .02-.03.
    """
    count, length = audio.shape
    mel = torch.log1p(torch.linspace(0, 8000, length // 2 + 1, device=audio.device) / 700)
    place = (mel / mel[-1] * 7).clamp_max(6.999)
    left = place.long()
    knots = spread * torch.randn(count, 8, device=audio.device, generator=generator)
    gain = torch.lerp(knots[:, left], knots[:, left + 1], (place - left).expand(count, -1))
    heard = torch.fft.irfft(torch.fft.rfft(audio) * 10 ** (gain / 20), length)
    return torch.where(_some(count, share, generator), heard, audio)


def clip_and_quantise(audio: Tensor, generator: torch.Generator, share: float = 0.2) -> Tensor:
    """Overdriven inputs (soft clipping) and 8-bit mu-law, as a telephone codec does."""
    peak = audio.abs().amax(1, keepdim=True).clamp_min(1e-5)
    x = torch.tanh(audio / peak * _uniform(len(audio), 0.5, 3, generator))
    compressed = torch.sign(x) * torch.log1p(255 * x.abs()) / math.log(256.0)
    steps = (compressed * 127).round() / 127
    decoded = torch.sign(steps) * (256 ** steps.abs() - 1) / 255 * peak
    return torch.where(_some(len(audio), share, generator), decoded, audio)


def level(audio: Tensor, generator: torch.Generator) -> Tensor:
    """Any recording level, -18 to +6 dB, never above full scale."""
    audio = audio * 10 ** (_uniform(len(audio), -18, 6, generator) / 20)
    return audio.clamp(-1, 1)
