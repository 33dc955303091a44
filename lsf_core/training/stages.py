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
        features.emotion = features.emotion[windows.felt_in] + other_voices(features.emotion, data)
        mix = anchored(windows, data)
        felt = draw(windows, data) < felt_share
        felt &= (windows.felt_in >= 0) | (mix.sum(-1) > 0)
        output = network(features, windows.identity, feel=felt, mix=mix)
        # What a take does not know is whatever the network says: no loss on it, and a whole face for the prior.
        target = torch.where(windows.seen[:, None], target_of(windows, felt), output.motion.detach())
        losses = loss(output.motion, target, windows)
        if network.prior.encoder is not None:       # absent in a checkpoint that shipped and is tuned on
            goal = network.prior.quantised_target(target)
            losses["latent"] = loss.loss.latent * (output.latent - goal).abs().mean() * 10
        return losses

    run(network, step, config, resume, log, kinds=len(lengths), generator=data.generator)


def draw(windows: Batch, data: Mixture) -> Tensor:
    """A number in [0, 1) for each window, (B,)."""
    return torch.rand(len(windows.emotion), device=windows.emotion.device, generator=data.generator)


def other_voices(emotion: Tensor, data: Mixture, strength: float = 2.0) -> Tensor:
    """Shifts (B, 1, C) of the emotion features from one unacted voice to another, 0 to `strength` times.

    Features of a clip carry voice and microphone more than feeling. Differences between synthesised voices, none of
    which feels anything, are directions that must not matter: a linear probe from EMO-DB to RAVDESS gains .06.
    """
    voices = emotion[:data.unacted(len(emotion))].mean(1)
    pair = torch.randint(len(voices), (2, len(emotion)), device=emotion.device, generator=data.generator)
    size = strength * torch.rand(len(emotion), 1, device=emotion.device, generator=data.generator)
    return (size.to(emotion.dtype) * (voices[pair[0]] - voices[pair[1]]))[:, None]


def anchored(windows: Batch, data: Mixture, share: float = 0.15) -> Tensor:
    """Emotion mix (B, len(EMOTIONS)): the played emotion's anchor for some windows, and for all that have no voice to
    hear it from; else 0, which is the emotion as heard."""
    known = windows.emotion >= 0
    chosen = known & ((draw(windows, data) < share) | (windows.felt_in < 0))
    return F.one_hot(windows.emotion.clamp_min(0), len(EMOTIONS)) * chosen[:, None].float()
