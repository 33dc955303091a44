"""A second, linear opinion on the mouth.

The network learned its mouths from synthesised voices, and what it knows too well of them does not hold for real ones.
A linear map of the same features cannot learn that much by heart: alone it closes no lips, but how far a mouth opens
in between it tells better (docs/checkpoint.md). Their errors differ, so the mean of both is nearer to the true mouth
than either (Hansen and Salamon 1990, Neural network ensembles).

Whoever is unsure *when* a sound begins answers with the mean over some frames, and mouths get soft. What that takes
from quick movements is given back in part by an unsharp mask over time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arkit import ARKIT_NAMES
from ..filters import smoothstep
from ..lips import GAP_ROW

SHAPES = [i for i, name in enumerate(ARKIT_NAMES) if name.startswith(("jaw", "mouth"))]
LAGS = (-10, -6, -3, -1, 0, 1, 3, 6, 10)    # frames around the one whose face is wanted: 0.2 s
SHARE = 0.4
GAIN = 1.5
"""A linear map is timid: on real voices it moves two thirds as far as on those it was fitted to."""
SHUT_MM, PARTED_MM = 0.7, 1.8
"""Lips nearer than the first stay as the network has them, those wider than the second are free, and stay as wide."""
BLUR_FRAMES, REACH = 2.5, 8
"""Sigma of a Gaussian over time, 0.05 s, and how many frames it counts on either side. The linear map answers each
frame anew, so its opinion is smoothed."""
CRISP = 0.25
"""How much of what the same Gaussian takes from the mouth is added to it."""


class LinearMouth(nn.Module):
    """Features of the articulation stream around a frame -> its mouth, by a ridge regression (training/heard.py).

    basis (C, K): principal components of the features; weight (K * len(LAGS), len(SHAPES)). Both in single precision.
    """

    basis: Tensor
    weight: Tensor
    shapes: Tensor
    gap_row: Tensor
    kernel: Tensor

    def __init__(self, channels: int, components: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.register_buffer("basis", torch.zeros(channels, components))
        self.register_buffer("weight", torch.zeros(components * len(LAGS), len(SHAPES)))
        kernel = torch.exp(-0.5 * (torch.arange(-REACH, REACH + 1) / BLUR_FRAMES) ** 2)
        # Constants, but on the network's device: a CUDA graph cannot fetch them.
        for name, value in (("shapes", torch.tensor(SHAPES)), ("gap_row", torch.from_numpy(GAP_ROW).float()),
                            ("kernel", kernel / kernel.sum())):
            self.register_buffer(name, value, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, T, C) -> weights (B, T, len(SHAPES)) up to a constant a clip: its voice and its microphone."""
        return around(normed(features, self.parts) @ self.basis) @ self.weight

    def change(self, words: Tensor, features: Tensor) -> Tensor:
        """What is to be added (B, T, 52) to words said neutrally, (B, T, 52), that were heard in features (B, T, C).
        Lips that close stay closed, parted ones parted, and a resting mouth rests."""
        with torch.autocast(words.device.type, enabled=False):
            words = words.float()
            gap = words @ self.gap_row
            free = smoothstep(gap, SHUT_MM, PARTED_MM)[..., None]
            mouth, said = words[..., self.shapes], self.blurred(self(features.float()))
            total = free.sum(1, keepdim=True) + 1e-6
            middle, heard = ((free * x).sum(1, keepdim=True) / total for x in (mouth, said))
            opinion = middle + GAIN * (said - heard)
            new = (mouth + SHARE * free * (opinion - mouth)).clamp_min(0)
            change = (new + CRISP * (new - self.blurred(new))).clamp_min(0) - mouth
            closer, room = -(change @ self.gap_row[self.shapes]), (gap - PARTED_MM).clamp_min(0)
            change = change * torch.where(closer > room, room / closer.clamp_min(1e-6), 1.0)[..., None]
            return torch.zeros_like(words).index_copy(-1, self.shapes, change)

    def blurred(self, x: Tensor) -> Tensor:
        """x (B, T, S) under a Gaussian of BLUR_FRAMES over time, the ends held."""
        rows = F.pad(x.transpose(1, 2).flatten(0, 1)[:, None], (REACH, REACH), mode="replicate")
        return F.conv1d(rows, self.kernel[None, None]).view(len(x), x.shape[2], -1).transpose(1, 2)


def normed(features: Tensor, parts: int) -> Tensor:
    """Features (..., C), each of the `parts` hidden states normalised by itself."""
    return torch.cat([F.layer_norm(x, x.shape[-1:]) for x in features.chunk(parts, -1)], -1)


def around(components: Tensor) -> Tensor:
    """Components (B, T, K) of each frame's neighbours at LAGS, the ends held: (B, T, K * len(LAGS))."""
    at = torch.arange(components.shape[1], device=components.device)
    return torch.cat([components[:, (at + lag).clamp(0, len(at) - 1)] for lag in LAGS], -1)

