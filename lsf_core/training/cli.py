"""python -m lsf_core train: make a checkpoint from the licensed data, on one GPU in a quarter of an hour.

    python -m lsf_core train --data DATA --encoder WHISPER_BASE_ENCODER --out assets
    python -m lsf_core train ... --prior-seconds 150 --lsf-seconds 480        # bounded by the clock
    python -m lsf_core train ... --tiny                                       # a few steps on the CPU, to try it all

Stages leave their state in --work and go on from there when the command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import load_checkpoint, save_checkpoint
from ..device import pick_device
from ..network import LSFConfig, LSFNetwork, MotionPrior, PriorConfig
from ..speech import SpeechEncoder, load_pretrained
from .corpus import is_held_out, make_takes, read_emodb, read_speech
from .loop import LoopConfig
from .losses import LossWeights, MotionLoss, face_basis
from .stages import train_lsf, train_prior
from .windows import Mixture, WindowSampler

SHARES = {"speech": 0.62, "emodb": 0.30}
SILENCE_SHARE = 0.08
ABLATIONS = {"emotion": "use_emotion", "identity": "use_identity", "fusion": "use_fusion",
             "decoder-emotion": "emotion_to_decoder"}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m lsf_core train", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with speech/ and emotional_speech/emodb/")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--encoder", type=Path, help="Whisper (or other) encoder in transformers' format")
    source.add_argument("--tune", type=Path, help="a checkpoint to train on: stage 2 alone, no latent loss")
    p.add_argument("--out", type=Path, required=True, help="folder for lsf-animation.safetensors")
    p.add_argument("--work", type=Path, default=Path("train-work"), help="resume points and logs")
    p.add_argument("--device", default="auto")
    p.add_argument("--passes", type=int, default=4, help="takes per utterance, each with its own face, style and rate")
    p.add_argument("--prior-steps", type=int, default=6000)
    p.add_argument("--lsf-steps", type=int, default=16000)
    p.add_argument("--prior-seconds", type=float, default=float("inf"))
    p.add_argument("--lsf-seconds", type=float, default=float("inf"))
    p.add_argument("--rate", type=float, default=5e-4, help="highest learning rate of stage 2")
    p.add_argument("--batch", type=int, default=128, help="windows of 8 s in a step; shorter windows: more")
    p.add_argument("--articulation-layers", type=int, nargs="+", default=[2, 4])
    p.add_argument("--emotion-layers", type=int, nargs="+", default=[2, 3])
    p.add_argument("--ablate", choices=sorted(ABLATIONS), action="append", default=[])
    p.add_argument("--freeze-decoder", action="store_true", help="as in the paper")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--note", default="", help="kept in the checkpoint, for instance the commit")
    p.add_argument("--tiny", action="store_true", help="a few utterances and steps: tries every line, learns nothing")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    for folder in (args.out, args.work):
        folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    log_file = open(args.work / "log.jsonl", "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - open for the run

    def log(line: str) -> None:
        print(line, flush=True)
        log_file.write(line + "\n")

    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = pick_device(args.device)
    utterances = [u for u in read_speech(args.data) + read_emodb(args.data) if not is_held_out(u)]
    if args.tiny:
        utterances = utterances[:12] + utterances[-12:]
        args.passes, args.prior_steps, args.lsf_steps, args.batch = 1, 4, 4, 4
    takes = list(make_takes(utterances, args.passes, args.seed, 1 if args.tiny else (os.cpu_count() or 1)))
    minutes = {name: sum(len(t.neutral) for t in takes if t.corpus == name) / 3000 for name in SHARES}
    log(json.dumps({"takes": len(takes), "minutes": minutes, "s": time.monotonic() - begin, "args": vars(args)},
                   default=str))
    data = Mixture({name: WindowSampler([t for t in takes if t.corpus == name], device) for name in SHARES},
                   SHARES, SILENCE_SHARE, args.seed)
    loss = MotionLoss(face_basis(), LossWeights()).to(device)
    steps = {"log_every": 2, "save_every": 2} if args.tiny else {"log_every": max(1, args.lsf_steps // 50)}

    speech, network = _resume_or_start(args, device, data, loss, steps, log)
    train_lsf(network, speech, data, loss, LoopConfig(args.lsf_steps, args.lsf_seconds, rate=args.rate, **steps),
              args.work / "lsf.pt", args.batch, (100, 200) if args.tiny else (100, 200, 300, 400),
              tune_decoder=not args.freeze_decoder, log=log)

    about = {"note": args.note, "data": minutes, "held_out": "see lsf_core/training/corpus.py", "seed": args.seed,
             "torch": torch.__version__, "device": str(device), "ablate": args.ablate, "passes": args.passes}
    digest = save_checkpoint(args.out / "lsf-animation.safetensors", speech, network, about)
    log(json.dumps({"saved": str(args.out / "lsf-animation.safetensors"), "sha256": digest,
                    "s": time.monotonic() - begin}))
    return 0


def _resume_or_start(args: argparse.Namespace, device: torch.device, data: Mixture, loss: MotionLoss,
                     steps: dict[str, Any], log: Callable[[str], None]) -> tuple[SpeechEncoder, LSFNetwork]:
    """What stage 2 trains: a checkpoint's network with --tune, else a new one on a prior trained here (stage 1)."""
    if args.tune is not None:
        checkpoint = load_checkpoint(args.tune, device)
        return checkpoint.speech, checkpoint.network
    prior = MotionPrior(PriorConfig()).to(device)
    train_prior(prior, data, loss, LoopConfig(args.prior_steps, args.prior_seconds, rate=1e-3, **steps),
                args.work / "prior.pt", 2 * args.batch, log=log)

    speech = load_pretrained(args.encoder, tuple(args.articulation_layers), tuple(args.emotion_layers)).to(device)
    if device.type == "cuda":
        speech.model.half()         # the encoder is frozen; what it hears is computed in float32 before it
    config = LSFConfig(articulation_dim=speech.articulation_dim, emotion_dim=speech.emotion_dim)
    for piece in args.ablate:
        config = replace(config, **{ABLATIONS[piece]: False})
    network = LSFNetwork(config, prior, len(args.articulation_layers), len(args.emotion_layers)).to(device)
    return speech, network
