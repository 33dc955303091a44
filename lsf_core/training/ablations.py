"""What each piece of the paper is worth: the same training with one piece left out, or as the paper has it literally.

    python -m lsf_core.training.ablations --data DATA --encoder ENCODER --out DIR --steps 2500

Every variant trains on the same takes for the same steps; its motion for the evaluation clips goes to DIR/<variant>,
its errors on held-out synthesis targets, parameters and speed to DIR/ablations.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..animator import Animator
from ..arkit import EMOTIONS, INDEX
from ..device import pick_device
from ..edits import DEFAULT
from ..network import LSFConfig, LSFNetwork, LSFOutput, MotionPrior, PriorConfig
from ..network.mouth import LinearMouth
from ..network.prior import PriorOutput
from ..speech import SpeechEncoder, SpeechFeatures
from .cli import BASIS, ENCODER_LAYERS, open_encoder, prepare
from .corpus import Take, is_held_out, make_takes, read_speech
from .evaluate import clips, write_motion
from .heard import fit
from .loop import LoopConfig
from .losses import LossWeights, MotionLoss, face_basis, target_of
from .stages import fit_basis, train_lsf, train_prior
from .windows import Mixture, WindowSampler

UPPER = ("browInnerUp", "browDownLeft", "browDownRight", "eyeBlinkLeft", "eyeBlinkRight")


class Unquantised(MotionPrior):
    """No motion prior: the latent goes to the decoder as it is, and both are learned together (direct regression)."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__(config, with_encoder=False)

    def quantise(self, latent: Tensor, temperature: float = 0.0, gumbel: Tensor | None = None) -> Tensor:
        return latent


class PaperPrior(MotionPrior):
    """The prior of the paper's release at 25 fps: (B, C, T) is seen as rows of code_dim, so a code runs along time."""

    def forward(self, motion: Tensor) -> PriorOutput:
        assert self.encoder is not None
        latent = self.encoder(motion[:, ::2])
        codes, indices, commitment = self.quantiser(along_time(latent))
        return PriorOutput(doubled(self.decode(across_time(codes)), motion.shape[1]), indices, commitment.sum())

    def quantised_target(self, motion: Tensor) -> Tensor:
        return super().quantised_target(motion[:, ::2])

    def quantise(self, latent: Tensor, temperature: float = 0.0, gumbel: Tensor | None = None) -> Tensor:
        return across_time(super().quantise(along_time(latent), temperature, gumbel))


def along_time(latent: Tensor) -> Tensor:
    """(B, T, C) with the memory of (B, C, T)."""
    return latent.transpose(1, 2).reshape(latent.shape)


def across_time(rows: Tensor) -> Tensor:
    """The inverse of `along_time`."""
    batch, frames, channels = rows.shape
    return rows.reshape(batch, channels, frames).transpose(1, 2)


def doubled(motion: Tensor, frames: int) -> Tensor:
    """Motion (B, T, D) at 25 fps -> (B, frames, D) at 50, interpolated."""
    return F.interpolate(motion.transpose(1, 2), frames, mode="linear").transpose(1, 2)


class InstanceNormed(nn.Module):
    """A stream whose features are normalised over the clip, channel by channel, instead of over each frame."""

    def __init__(self, stream: nn.Module) -> None:
        super().__init__()
        self.stream = stream

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.stream(F.instance_norm(x.float().transpose(1, 2)).transpose(1, 2), mask)


class PaperNetwork(LSFNetwork):
    """25 fps, InstanceNorm, emotion through the clip-level tokens alone; on a `PaperPrior`."""

    def __init__(self, config: LSFConfig, prior: MotionPrior, articulation_parts: int = 2,
                 emotion_parts: int = 2) -> None:
        super().__init__(replace(config, emotion_to_decoder=False, emotion_smoothing=51, articulation_basis=0),
                         prior, articulation_parts, emotion_parts)
        self.articulation = InstanceNormed(self.articulation)  # type: ignore[assignment]
        self.emotion = InstanceNormed(self.emotion)  # type: ignore[assignment]

    def forward(self, features: SpeechFeatures, identity: Tensor, mask: Tensor | None = None,
                feel: bool | Tensor = True, mix: Tensor | None = None, temperature: float = 0.0,
                gumbel: Tensor | None = None) -> LSFOutput:
        slow = SpeechFeatures(*(F.avg_pool1d(x.float().transpose(1, 2), 2, ceil_mode=True).transpose(1, 2)
                                for x in (features.articulation, features.emotion)))
        latent = self.latent(slow, identity, None, feel, mix)
        motion = self.prior.decode(self.prior.quantise(latent))
        return LSFOutput(latent, doubled(motion, features.articulation.shape[1]))


@dataclass(frozen=True)
class Variant:
    """A network to train. changes: of LSFConfig; layers: of the encoder, (articulation, emotion)."""

    changes: tuple[tuple[str, bool | int], ...] = ()
    prior: type[MotionPrior] = MotionPrior
    network: type[LSFNetwork] = LSFNetwork
    layers: tuple[tuple[int, ...], tuple[int, ...]] = ENCODER_LAYERS
    tune_decoder: bool = True
    linear: bool = True         # the linear opinion on the mouth, where the encoder's layers are those it was fitted to


VARIANTS = {
    "full": Variant(),
    "no emotion stream": Variant((("use_emotion", False),)),
    "no identity": Variant((("use_identity", False),)),
    "concatenation for HIFB": Variant((("use_fusion", False),)),
    "emotion by tokens alone": Variant((("emotion_to_decoder", False),)),
    "no linear opinion": Variant(linear=False),
    "all features for the mouth": Variant((("articulation_basis", 0),)),
    "no motion prior": Variant(prior=Unquantised),
    "frozen decoder": Variant(tune_decoder=False),
    "paper's literal choices": Variant(prior=PaperPrior, network=PaperNetwork, tune_decoder=False),
    "layers 1 and 2": Variant(layers=((1, 2), (2,))),
    "layer 4 alone": Variant(layers=((4,), (4,))),
}


def train_variant(variant: Variant, prior: MotionPrior, speech: SpeechEncoder, data: Mixture, loss: MotionLoss,
                  steps: int, batch: int, lengths: tuple[int, ...], folder: Path) -> LSFNetwork:
    """Stage 2 of one variant on a trained prior, whose state is changed where the decoder is tuned."""
    device = loss.basis.device
    sizes: dict[str, Any] = {"articulation_basis": BASIS, **dict(variant.changes)}
    config = LSFConfig(articulation_dim=speech.articulation_dim, emotion_dim=speech.emotion_dim, **sizes)
    network = variant.network(config, prior, *map(len, variant.layers)).to(device)
    if config.articulation_basis and not isinstance(network, PaperNetwork):
        fit_basis(network, speech, data)
    train_lsf(network, speech, data, loss, LoopConfig(steps, log_every=max(1, steps // 5)), folder / "lsf.pt", batch,
              lengths, tune_decoder=variant.tune_decoder)
    return network


@torch.inference_mode()
def held_out_errors(network: LSFNetwork, speech: SpeechEncoder, sampler: WindowSampler,
                    loss: MotionLoss) -> dict[str, float]:
    """Errors in mm on the synthesis targets of voices nobody trained on, of neutral and felt deliveries alike.

    MVE: mean error of the face's vertices; LVE: the largest among the lip region's, mean over frames; FDD: mean over
    upper-face vertices of true less predicted standard deviation over time (as in score_motion.py).
    """
    generator = torch.Generator(loss.basis.device).manual_seed(0)
    sums = {"MVE": 0.0, "LVE": 0.0, "FDD": 0.0}
    rounds = 8
    for number in range(rounds):
        windows = sampler.sample(64, 200, generator)
        anchors = F.one_hot(windows.emotion, len(EMOTIONS)).float()
        felt = torch.full((len(windows.emotion),), number % 2 == 1, device=windows.emotion.device)
        motion = network(speech(windows.audio), windows.identity, feel=felt, mix=anchors).motion
        face = [(x @ loss.basis).unflatten(-1, (-1, 3)) * 10 for x in (motion, target_of(windows, felt))]
        distance = (face[0] - face[1]).norm(dim=-1)
        mouth = loss.basis[INDEX["jawOpen"]].unflatten(-1, (-1, 3)).norm(dim=-1) > 0.1
        brows = sum(loss.basis[INDEX[name]].unflatten(-1, (-1, 3)).norm(dim=-1) for name in UPPER) > 0.1
        spread = [x[:, :, brows].std(1).norm(dim=-1).mean() for x in face]
        for name, value in (("MVE", distance.mean()), ("LVE", distance[..., mouth].amax(-1).mean()),
                            ("FDD", spread[1] - spread[0])):
            sums[name] += float(value) / rounds
    return {name: round(value, 3) for name, value in sums.items()}


def seconds_per_clip(network: LSFNetwork, device: torch.device, frames: int = 500) -> float:
    """Time of the network alone (no encoder) for 10 s of speech, median of 9."""
    c = network.config
    features = SpeechFeatures(*(torch.randn(1, frames, d, device=device) for d in (c.articulation_dim, c.emotion_dim)))
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        network(features, torch.zeros(1, c.identity_dim, device=device)).motion.cpu()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m lsf_core.training.ablations", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--encoder", type=Path, required=True, help="as for `python -m lsf_core train`")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--evaluation", type=Path, help="data folder with the evaluation clips; default --data")
    p.add_argument("--steps", type=int, default=2500)
    p.add_argument("--passes", type=int, default=2)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lengths", type=int, nargs="+", default=[100, 200, 300, 400])
    p.add_argument("--only", choices=sorted(VARIANTS), action="append")
    p.add_argument("--device", default="auto")
    args = p.parse_args(argv)
    device = pick_device(args.device)
    torch.set_float32_matmul_precision("high")

    def listen(takes: list[Take]) -> tuple[SpeechEncoder, LinearMouth]:
        speech = open_encoder(args.encoder, *ENCODER_LAYERS, device)
        return speech, fit(takes, speech, device)

    data, _, mouth = prepare(args.data, args.passes, 0, device, listen=listen)
    unheard = [u for u in read_speech(args.data) if is_held_out(u)]
    held_out = WindowSampler(list(make_takes(unheard, 1, 1, 1)), device)
    loss = MotionLoss(face_basis(), LossWeights()).to(device)
    table, priors = {}, {}
    todo = list(clips(args.evaluation or args.data))
    for name in args.only or VARIANTS:
        variant, folder = VARIANTS[name], args.out / name.replace(" ", "-").replace("'", "")
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        data.generator.manual_seed(0)
        prior = variant.prior(PriorConfig()).to(device)
        if variant.prior is not Unquantised:
            if variant.prior not in priors:
                train_prior(prior, data, loss, LoopConfig(args.steps, rate=1e-3), folder / "prior.pt", 2 * args.batch)
                priors[variant.prior] = {k: v.clone() for k, v in prior.state_dict().items()}
            prior.load_state_dict(priors[variant.prior])
        speech = open_encoder(args.encoder, *variant.layers, device)
        begin = time.monotonic()
        network = train_variant(variant, prior, speech, data, loss, args.steps, args.batch, tuple(args.lengths),
                                folder)
        if variant.linear and variant.layers == ENCODER_LAYERS:
            network.mouth = mouth
        shipped = sum(p.numel() for n, p in network.named_parameters() if not n.startswith("prior.encoder"))
        table[name] = {"parameters": shipped, "trained_s": round(time.monotonic() - begin, 1),
                       **held_out_errors(network, speech, held_out, loss),
                       "ms_for_10_s": round(1000 * seconds_per_clip(network, device), 2)}
        print(name, json.dumps(table[name]), flush=True)
        write_motion(Animator(speech, network, device), args.evaluation or args.data, folder, todo, DEFAULT)
        (args.out / "ablations.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
