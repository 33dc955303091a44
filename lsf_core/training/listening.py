"""Solving the ear (network/ear.py) on the training diet: class means, and what must not matter.

No descent: a linear discriminant has no step size and no stopping point to overfit with, and it is done in seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arkit import EMOTIONS
from ..network.ear import Ear
from ..speech import SAMPLES_PER_FRAME, SpeechEncoder
from .augment import augment
from .windows import Batch, Mixture

SHARPNESS = 16.0
"""How steeply shares follow the cosines. 8 shows actors that were held out half of what they play, 24 four fifths; the
steeper, the surer it is of voices unlike all it heard, too."""

CALM = 0.5
"""Added to neutral's logit: most speech is plain, and a feeling too little disturbs less than a false one."""

VOICES, RIDGE = 0.5, 1.0
"""What the scatter of unacted voices adds to that within feelings; what is added to all directions, in mean
variances."""

BELOW_LOUDEST = 35.0
"""dB: quieter frames of a clean recording are pauses."""

ENOUGH = 25
"""Frames of speech, 0.5 s, that a window must hold to be learned from."""


@torch.no_grad()
def solve_ear(ear: Ear, speech: SpeechEncoder, data: Mixture, batches: int = 48, count: int = 256,
              frames: int = 100) -> None:
    """Set the ear by `batches` of about `count` windows of `frames` frames, before the loop: that copies the main
    process's to all."""
    heard = [_listen(ear, speech, data, data.batch(count, frames, audible=False), plain=number % 4 == 0)
             for number in range(batches)]
    means, emotion, voice, some, said = (torch.cat(part) for part in zip(*heard, strict=True))
    solve_gate(ear, some, said)
    solve_feelings(ear, means[~voice], emotion[~voice], means[voice])


def spoken_frames(audio: Tensor) -> Tensor:
    """(B, T) bool: frames of clean windows (B, T * 320) that are not much quieter than the loudest."""
    level = audio.unflatten(1, (-1, SAMPLES_PER_FRAME)).square().mean(-1).add(1e-9).log10() * 10
    return level > (level.amax(1, keepdim=True) - BELOW_LOUDEST).clamp_min(-75)


def _listen(ear: Ear, speech: SpeechEncoder, data: Mixture, windows: Batch,
            plain: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of one batch: mean features (N, C) of windows with speech, their emotion (N,), which of them nobody acted (N,),
    single frames (M, C), and which of those are spoken (M,)."""
    said = spoken_frames(windows.audio) & (windows.emotion >= 0)[:, None]
    audio = windows.audio if plain else augment(windows.audio, data.generator)
    audio[-1] = 0                                   # the last window is speechless: let one be digital silence
    features = speech(audio).emotion.float()
    # Captured speech, which does not know the whole face, was not acted either.
    unacted = (torch.arange(len(said), device=said.device) < data.unacted(len(said))) | ~windows.seen.all(1)
    enough = said.sum(1) >= ENOUGH
    mean = (features * said[..., None]).sum(1) / said.sum(1, keepdim=True).clamp_min(1)
    some = slice(None, None, 10)
    return (ear.normed(mean)[enough], windows.emotion[enough], unacted[enough],
            ear.normed(features[:, some]).flatten(0, 1), said[:, some].flatten())


def solve_gate(ear: Ear, frames: Tensor, said: Tensor, steepness: float = 4.0) -> None:
    """Least squares on +-1 for normed frames (M, C), speech and pauses weighing alike."""
    share = said.double().mean().clamp(1e-3, 1 - 1e-3)
    weight = torch.where(said, 0.5 / share, 0.5 / (1 - share)) / len(said)
    x, goal = frames.double(), said.double() * 2 - 1
    centre = weight @ x
    scatter = (x - centre).T @ ((x - centre) * weight[:, None])
    line = torch.linalg.solve(_ridged(scatter, 0.01), (x - centre).T @ (weight * goal))
    ear.gate.copy_(steepness * line)
    ear.gate_bias.fill_(float(steepness * (weight @ goal - centre @ line)))


def solve_feelings(ear: Ear, means: Tensor, emotion: Tensor, voices: Tensor, sharpness: float = SHARPNESS,
                   calm: float = CALM) -> None:
    """Whitening and class directions by acted windows' normed means (N, C) with their emotions (N,), and those of
    unacted voices (V, C). An emotion without windows is never heard."""
    x = means.double()
    there = [e for e in range(len(EMOTIONS)) if bool((emotion == e).any())]
    centres = torch.stack([x[emotion == e].mean(0) for e in there])
    within = torch.stack([_scatter(x[emotion == e]) for e in there]).mean(0)
    nuisance = within + VOICES * _scatter(voices.double())
    ridge = RIDGE * within.trace() / len(within)
    root = torch.linalg.cholesky(nuisance + ridge.clamp_min(1e-6) * torch.eye(len(within), device=x.device))
    ear.whiten.copy_(torch.linalg.inv(root))
    ear.centre.copy_(centres.mean(0))
    unit = F.normalize((x - ear.centre) @ ear.whiten.double().T, dim=-1)
    ear.classes.zero_()
    ear.bias.fill_(-100.0)
    for e in there:
        ear.classes[e] = sharpness * F.normalize(unit[emotion == e].mean(0), dim=-1)
        ear.bias[e] = calm if EMOTIONS[e] == "neutral" else 0.0


def _scatter(x: Tensor) -> Tensor:
    """Covariance (C, C) of rows (N, C); zero for none."""
    x = x - x.mean(0) if len(x) else x
    return x.T @ x / max(1, len(x))


def _ridged(scatter: Tensor, share: float) -> Tensor:
    size = (share * scatter.trace() / len(scatter)).clamp_min(1e-6)
    return scatter + size * torch.eye(len(scatter), device=scatter.device)
