"""Random training windows out of a corpus of takes that lies on the GPU as a whole (three hours are 0.7 GB)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..arkit import ARKIT_NAMES, EMOTIONS
from ..speech import SAMPLES_PER_FRAME
from .augment import augment, coloured_noise
from .corpus import NEUTRAL_SHARE, Take


@dataclass
class Batch:
    """Windows of one length: audio (B, T * 320), neutral and emotional motion (B, T, 52), phone masks closure and
    vowel (B, T), identity (B, 32), seen (B, 52) bool, the shapes that the motion knows, emotion (B,) as a place in
    EMOTIONS or -1, felt_in (B,): the window of this batch whose sound feels what this window's face plays, or -1 where
    there is none."""

    audio: Tensor
    neutral: Tensor
    emotional: Tensor
    closure: Tensor
    vowel: Tensor
    identity: Tensor
    seen: Tensor
    emotion: Tensor
    felt_in: Tensor


class WindowSampler:
    """All takes of one corpus, end to end on `device`; `sample` cuts windows that never cross from take to take."""

    def __init__(self, takes: list[Take], device: torch.device) -> None:
        self.device = device
        self.audio = torch.from_numpy(np.concatenate([t.audio for t in takes])).to(device)

        def frames(name: str) -> Tensor:
            return torch.from_numpy(np.concatenate([getattr(t, name) for t in takes])).to(device)

        self.neutral, self.emotional = frames("neutral"), frames("emotional")
        self.closure, self.vowel = frames("closure"), frames("vowel")
        self.length = torch.tensor([len(t.neutral) for t in takes], device=device)
        self.identity = torch.from_numpy(np.stack([t.identity for t in takes])).to(device)
        self.seen = torch.from_numpy(np.stack([t.seen for t in takes])).to(device)
        self.emotion = torch.tensor([EMOTIONS.index(t.emotion) for t in takes], device=device)
        # Neutral takes make up NEUTRAL_SHARE of what is drawn, the other emotions share the rest evenly.
        minutes = torch.zeros(len(EMOTIONS), device=device).index_add(0, self.emotion, self.length.float())
        share = torch.full_like(minutes, (1 - NEUTRAL_SHARE) / (len(EMOTIONS) - 1))
        share[EMOTIONS.index("neutral")] = NEUTRAL_SHARE
        self.weight = (share / minutes.clamp_min(1))[self.emotion]
        self.start = torch.cumsum(self.length, 0) - self.length

    def sample(self, count: int, frames: int, generator: torch.Generator) -> Batch:
        """`count` windows of `frames` frames; takes of one emotion are drawn in proportion to their length."""
        free = (self.length - frames).clamp_min(0) + 1
        # Inverse of the cumulative distribution, in double: a CUDA graph can capture it, unlike torch.multinomial.
        chance = (free * (self.length >= frames) * self.weight).double().cumsum(0)
        draw = torch.rand(count, device=self.device, generator=generator, dtype=torch.float64) * chance[-1]
        take = torch.searchsorted(chance, draw, right=True).clamp_max(len(chance) - 1)
        offset = (torch.rand(count, device=self.device, generator=generator) * free[take]).long()
        first = self.start[take] + offset
        at = first[:, None] + torch.arange(frames, device=self.device)
        samples = first[:, None] * SAMPLES_PER_FRAME + torch.arange(frames * SAMPLES_PER_FRAME, device=self.device)
        return Batch(self.audio[samples].float() / 32768, self.neutral[at].float(), self.emotional[at].float(),
                     self.closure[at].float(), self.vowel[at].float(), self.identity[take], self.seen[take],
                     self.emotion[take], torch.full_like(take, -1))


def speechless(count: int, frames: int, generator: torch.Generator) -> Batch:
    """Windows in which nobody speaks - hiss, hum, chords, clicks, breath-like puffs - and the face rests."""
    device, length = generator.device, frames * SAMPLES_PER_FRAME
    time = torch.arange(length, device=device) / 16000
    noise = coloured_noise(count, length, generator)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device, generator=generator)

    pitch = 55 * 2 ** (rand(count, 6, 1) * 5)
    chord = (torch.sin(2 * torch.pi * pitch * time) * rand(count, 6, 1)).mean(1)
    # Slow random loudness, so that a change of level alone is not taken for speech.
    knots = torch.nn.functional.interpolate(rand(count, 1, max(2, frames // 20)), length, mode="linear")[:, 0]
    mixture = noise * rand(count, 1) * 0.3 + chord * (rand(count, 1) < 0.4)
    audio = mixture * knots ** 3 * 10 ** (-rand(count, 1) * 2)
    rest = torch.zeros(count, frames, len(ARKIT_NAMES), device=device)
    none = torch.zeros(count, frames, device=device)
    identity = torch.randn(count, 32, device=device, generator=generator)
    nobody = torch.full((count,), -1, device=device)
    known = torch.ones(count, len(ARKIT_NAMES), device=device, dtype=torch.bool)
    return Batch(audio, rest, rest, none, none, identity, known, nobody, nobody)


class Mixture:
    """The stage-2 diet: speech, acted emotion and speechless sound in fixed shares, augmented.

    Acted and speechless windows are felt as they sound. A window of synthesised speech, the first of `shares`, feels
    through a random acted window of its own emotion in the same batch: words and feeling come from two recordings.
    """

    def __init__(self, samplers: dict[str, WindowSampler], shares: dict[str, float], silence_share: float,
                 seed: int) -> None:
        self.samplers, self.shares, self.silence_share = samplers, shares, silence_share
        self.device = next(iter(samplers.values())).device
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def batch(self, count: int, frames: int, audible: bool = True) -> Batch:
        """About `count` windows of `frames` frames; audible=False: not augmented, for where only faces count."""
        parts = [self.samplers[name].sample(max(1, round(count * share)), frames, self.generator)
                 for name, share in self.shares.items()]
        parts.append(speechless(max(1, round(count * self.silence_share)), frames, self.generator))
        joined = Batch(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Batch)))
        joined.felt_in = self.hear_emotions(joined.emotion, len(parts[0].audio), len(parts[-1].audio))
        if audible:
            joined.audio = augment(joined.audio, self.generator)
        return joined

    def unacted(self, count: int) -> int:
        """How many windows at the head of a batch of `count` are synthesised speech, which feels nothing."""
        first, *others = self.shares.values()
        return max(1, round(count * first / (first + sum(others) + self.silence_share)))

    def calm_in(self, windows: Batch) -> Tensor:
        """(B,): for each window a random acted or real one of this batch without a feeling; itself if there is none."""
        acted = torch.arange(len(windows.emotion), device=self.device) >= self.unacted(len(windows.emotion))
        calm = acted & (windows.emotion == EMOTIONS.index("neutral"))
        lots = torch.rand(len(calm), len(calm), device=self.device, generator=self.generator)
        found = torch.where(calm, lots, -1.0).argmax(1)
        return torch.where(calm.any(), found, torch.arange(len(calm), device=self.device))

    def hear_emotions(self, emotion: Tensor, speech: int, silent: int) -> Tensor:
        """`Batch.felt_in` for a batch that begins with `speech` and ends with `silent` windows; emotion (B,)."""
        count = len(emotion)
        felt_in = torch.arange(count, device=self.device)
        acted = slice(speech, count - silent)
        same = emotion[:speech, None] == emotion[None, acted]
        lots = torch.rand(same.shape, device=self.device, generator=self.generator)
        found = torch.where(same, lots, -1.0).argmax(1)
        felt_in[:speech] = torch.where(same.any(1), found + speech, -1)
        return felt_in
