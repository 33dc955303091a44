"""The linear map of network/mouth.py, fitted; and synthesised targets drawn towards what it hears in their sound.

Targets made of phones know what is said, not how: a swallowed vowel opens as far as a stressed one. A linear map from
the speech encoder's features to those same targets cannot tell single phones apart as sharply, but it follows the
sound, and on real speech it agrees better with the true lips than targets made of the true phones do
(docs/checkpoint.md). So targets are a mixture of both; where lips must touch and in pauses they stay as they are.

The map is a ridge regression (Hoerl and Kennard 1970) from the principal components of the features around a frame,
each take less its own mean: voice and microphone are constant over a take, words are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..network.mouth import LAGS, SHAPES, LinearMouth, around, normed
from ..speech import SAMPLES_PER_FRAME, SpeechEncoder
from .corpus import Take

COMPONENTS = 160
RIDGE = 0.2                     # against the components' mean variance of 1, per frame heard
WINDOW, WINDOWS = 400, 64       # frames the encoder hears at once, and how many such windows
LEAST_STD, MOST_GAIN = 1e-3, 2.0


def fit(takes: Sequence[Take], speech: SpeechEncoder, device: torch.device, components: int = COMPONENTS
        ) -> LinearMouth:
    """The linear map from what the encoder hears in the takes to their neutral mouths."""
    parts = len(speech.config.articulation_layers)

    def centred() -> Iterator[Tensor]:
        for features in heard(takes, speech, device):
            x = normed(features, parts)
            yield x - x.mean(0)

    sample = torch.cat([x[::8] for x in centred()]).double()
    variance, direction = torch.linalg.eigh(sample.T @ sample / len(sample))        # in rising order
    mouth = LinearMouth(sample.shape[1], components, parts).to(device)
    mouth.basis.copy_(direction[:, -components:] / variance[-components:].mean().clamp_min(1e-12).sqrt())
    size = components * len(LAGS)
    square = torch.eye(size, dtype=torch.double, device=device) * RIDGE * sum(len(t.neutral) for t in takes)
    across = torch.zeros(size, len(SHAPES), dtype=torch.double, device=device)
    for take, x in zip(takes, centred(), strict=True):
        near = around((x @ mouth.basis)[None])[0].double()
        square += near.T @ near
        across += near.T @ torch.from_numpy(take.neutral[:, SHAPES]).to(device).double()
    mouth.weight.copy_(torch.linalg.solve(square, across))
    return mouth


def draw_to_sound(takes: Sequence[Take], mouth: LinearMouth, speech: SpeechEncoder, share: float,
                  device: torch.device) -> None:
    """Change the mouths of `takes` in place: `share` of what the linear map says of their sounds, wherever a take's
    mouth is free (`Take.free`), the rest as they were. What their feelings add stays."""
    for take, features in zip(takes, heard(takes, speech, device), strict=True):
        words = take.neutral[:, SHAPES].astype(np.float32)
        said = mouth(features[None])[0].cpu().numpy()
        free = take.free.astype(np.float32)[:, None]
        change = share * free * (at_size_of(said, words, free) - words)
        for track in (take.neutral, take.emotional):
            track[:, SHAPES] = (track[:, SHAPES] + change).clip(0, 1)


def heard(takes: Sequence[Take], speech: SpeechEncoder, device: torch.device) -> Iterator[Tensor]:
    """Of each take the features of the articulation stream, (F, C)."""
    waiting: list[np.ndarray] = []
    lengths: list[int] = []

    def encoded() -> Iterator[Tensor]:
        audio = torch.from_numpy(np.concatenate(waiting)).to(device).float() / 32768
        features = speech(audio).articulation.float().flatten(0, 1)
        for piece, length in zip(features.split([-(-n // WINDOW) * WINDOW for n in lengths]), lengths, strict=True):
            yield piece[:length]

    for take in takes:
        length = len(take.neutral)
        windows = -(-length // WINDOW)
        waiting.append(np.resize(np.pad(take.audio, (0, windows * WINDOW * SAMPLES_PER_FRAME - len(take.audio))),
                                 (windows, WINDOW * SAMPLES_PER_FRAME)))
        lengths.append(length)
        if sum(len(w) for w in waiting) >= WINDOWS:
            yield from encoded()
            waiting, lengths = [], []
    if waiting:
        yield from encoded()


def at_size_of(said: np.ndarray, words: np.ndarray, free: np.ndarray) -> np.ndarray:
    """`said` (F, S) moved and scaled, shape by shape, to the mean and spread that `words` (F, S) have where the mouth
    is `free` (F, 1): a linear map is timid, and knows the average speaker instead of this one."""
    total = free.sum() + 1e-6
    mean, middle = (free * said).sum(0) / total, (free * words).sum(0) / total
    spread, wanted = (np.sqrt((free * (x - m) ** 2).sum(0) / total) for x, m in ((said, mean), (words, middle)))
    gain = np.where(spread > LEAST_STD, np.minimum(wanted / np.maximum(spread, LEAST_STD), MOST_GAIN), 0.0)
    return middle + gain * (said - mean)
