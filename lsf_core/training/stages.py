"""Stage 1 (motion prior) and stage 2 (speech, identity and emotion to the prior's latents)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..arkit import EMOTIONS
from ..network import LSFNetwork, MotionPrior
from ..speech import SpeechEncoder
from .loop import LoopConfig, run
from .losses import MotionLoss, target_of
from .windows import Batch, Mixture

Log = Callable[[str], None]


def train_prior(prior: MotionPrior, data: Mixture, loss: MotionLoss, config: LoopConfig, resume: Path,
                batch: int = 256, frames: int = 128, log: Log = print) -> None:
    """Stage 1: reconstruct motion through the codebooks. Two fifths of the windows are neutral deliveries."""

    def step(_: int) -> dict[str, Tensor]:
        windows = data.batch(batch, frames, audible=False)
        felt = torch.rand(len(windows.neutral), device=windows.neutral.device, generator=data.generator) < 0.6
        target = target_of(windows, felt)
        output = prior(target)
        return {**loss(output.motion, target, windows), "commitment": loss.loss.commitment * output.commitment}

    run(prior, step, config, resume, log)


def train_lsf(network: LSFNetwork, speech: SpeechEncoder, data: Mixture, loss: MotionLoss, config: LoopConfig,
              resume: Path, batch: int = 128, lengths: tuple[int, ...] = (100, 200, 300, 400), felt_share: float = 0.7,
              tune_decoder: bool = True, log: Log = print) -> None:
    """Stage 2: predict the prior's latents from sound; the codebooks stay frozen.

    tune_decoder: the paper freezes the decoder, too. But predicted codes flicker where true ones do not (pauses,
    sounds that could be two things), and a decoder that has only seen true codes plays the flicker; tuned along, it
    learns to smooth it.

    A share of the windows is asked for without emotion (`feel=False`) and must give the neutral delivery: that is how
    the network learns what the voice adds to the words, which `emotion_strength` later scales.
    """
    network.prior.requires_grad_(False)
    network.prior.decoder.requires_grad_(tune_decoder)
    total = batch * max(lengths)

    def step(number: int) -> dict[str, Tensor]:
        network.prior.eval()                                      # no codebook updates, no dropout in the decoder
        frames = lengths[number % len(lengths)]
        windows = data.batch(min(total // frames, 2 * batch), frames)
        features = speech(windows.audio)
        strength = intensities(windows, data)
        by_anchor = anchored(windows, data)
        strength = torch.where(by_anchor, strength.clamp_max(1), strength)
        features.emotion = (torch.lerp(features.emotion[data.calm_in(windows)], features.emotion[windows.felt_in],
                                       strength[:, None, None].to(features.emotion.dtype))
                            + other_voices(features.emotion, data))
        mix = anchor_mix(windows.emotion, strength) * by_anchor[:, None]
        felt = (draw(windows, data) < felt_share) & ((windows.felt_in >= 0) | by_anchor)
        with torch.autocast(windows.audio.device.type, torch.bfloat16, enabled=windows.audio.is_cuda,
                            cache_enabled=False):       # a CUDA graph cannot hold autocast's cache
            output = network(features, windows.identity, feel=felt, mix=mix)
            motion, latent = output.motion.float(), output.latent.float()
            # What a take does not know is whatever the network says: no loss on it, and a whole face for the prior.
            target = torch.where(windows.seen[:, None], target_of(windows, felt, strength), motion.detach())
            # A checkpoint that shipped and is tuned on has no encoder.
            goal = None if network.prior.encoder is None else network.prior.quantised_target(target)
        losses = loss(motion, target, windows)
        if goal is not None:
            losses["latent"] = loss.loss.latent * (latent - goal).abs().mean() * 10
        return losses

    run(network, step, config, resume, log, kinds=len(lengths), generator=data.generator)


@torch.no_grad()
def fit_basis(network: LSFNetwork, speech: SpeechEncoder, data: Mixture, batches: int = 6, count: int = 64,
              frames: int = 200) -> None:
    """Set the articulation stream's basis by `batches` of what it will hear."""
    heard = [speech(data.batch(count, frames).audio).articulation[:, ::4].flatten(0, 1) for _ in range(batches)]
    network.articulation.fit_basis(torch.cat(heard))


def draw(windows: Batch, data: Mixture) -> Tensor:
    """A number in [0, 1) for each window, (B,)."""
    return torch.rand(len(windows.emotion), device=windows.emotion.device, generator=data.generator)


def intensities(windows: Batch, data: Mixture, low: float = 0.3, high: float = 1.3) -> Tensor:
    """How strongly each window feels, (B,): as recorded (1) for half of them, else `low` to `high` times that.

    Actors of one intensity teach a switch, not a scale. So features on the way from a calm voice to the acted one, and
    a little beyond, go with a face on the same way (mixup of Zhang et al. 2018, within what a feeling adds).
    """
    drawn = low + (high - low) * draw(windows, data)
    return torch.where(draw(windows, data) < 0.5, drawn, 1.0)


def other_voices(emotion: Tensor, data: Mixture, strength: float = 1.5, share: float = 0.5) -> Tensor:
    """Shifts (B, 1, C) of the emotion features from one unacted voice to another, 0 to `strength` times.

    Features of a clip carry voice and microphone more than feeling. Differences between synthesised voices, none of
    which feels anything, are directions that must not matter: a linear probe from EMO-DB to RAVDESS gains .05.
    """
    voices = emotion[:data.unacted(len(emotion))].mean(1)
    pair = torch.randint(len(voices), (2, len(emotion)), device=emotion.device, generator=data.generator)
    size, lot = torch.rand(2, len(emotion), 1, device=emotion.device, generator=data.generator)
    size = strength * size * (lot < share)
    return (size.to(emotion.dtype) * (voices[pair[0]] - voices[pair[1]]))[:, None]


def anchored(windows: Batch, data: Mixture, share: float = 0.15) -> Tensor:
    """(B,) bool: windows that feel by their emotion's anchor, some and all that have no voice to hear it from."""
    return (windows.emotion >= 0) & ((draw(windows, data) < share) | (windows.felt_in < 0))


def anchor_mix(emotion: Tensor, strength: Tensor) -> Tensor:
    """Emotion mix (B, len(EMOTIONS)): `strength` (B,) of the emotion's anchor, the rest of the neutral one."""
    felt, calm = (F.one_hot(e, len(EMOTIONS)).float() for e in (emotion.clamp_min(0), torch.zeros_like(emotion)))
    return torch.lerp(calm, felt, strength[:, None])
