"""Stage 1 (motion prior) and stage 2 (speech, identity and emotion to the prior's latents)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..network import LSFNetwork, MotionPrior
from ..speech import SpeechEncoder
from .loop import LoopConfig, run
from .losses import MotionLoss, target_of
from .windows import Mixture

Log = Callable[[str], None]


def train_prior(prior: MotionPrior, data: Mixture, loss: MotionLoss, config: LoopConfig, resume: Path,
                batch: int = 256, frames: int = 128, log: Log = print) -> None:
    """Stage 1: reconstruct motion through the codebooks. Half of the windows are neutral deliveries."""

    def step(_: int) -> dict[str, Tensor]:
        windows = data.batch(batch, frames, audible=False)
        felt = torch.rand(len(windows.neutral), device=windows.neutral.device, generator=data.generator) < 0.6
        target = target_of(windows, felt)
        output = prior(target)
        return {**loss(output.motion, target, windows.closure), "commitment": loss.loss.commitment * output.commitment}

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
    device = next(network.parameters()).device
    total = batch * max(lengths)

    def step(number: int) -> dict[str, Tensor]:
        network.prior.eval()                                      # no codebook updates, no dropout in the decoder
        frames = lengths[number % len(lengths)]
        windows = data.batch(min(total // frames, 2 * batch), frames)
        features = speech(windows.audio)
        features.emotion = features.emotion[windows.felt_in]
        felt = torch.rand(len(windows.audio), device=device, generator=data.generator) < felt_share
        felt &= windows.felt_in >= 0
        target = target_of(windows, felt)
        output = network(features, windows.identity, feel=felt)
        losses = loss(output.motion, target, windows.closure)
        if network.prior.encoder is not None:       # absent in a checkpoint that shipped and is tuned on
            goal = network.prior.quantised_target(target)
            losses["latent"] = loss.loss.latent * (output.latent - goal).abs().mean() * 10
        return losses

    run(network, step, config, resume, log)
