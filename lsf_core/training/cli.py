"""python -m lsf_core train: make a checkpoint from the licensed data, on one GPU in a quarter of an hour.

    python -m lsf_core train --data DATA --encoder WHISPER_BASE_ENCODER --out assets
    python -m lsf_core train ... --prior-seconds 150 --lsf-seconds 480        # bounded by the clock
    python -m lsf_core train ... --tiny                                       # a few steps on the CPU, to try it all
    torchrun --nproc-per-node 2 -m lsf_core train ...                         # two GPUs of one host

Stages leave their state in --work and go on from there when the command is given again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import record

from ..checkpoint import load_checkpoint, save_checkpoint
from ..network import LSFConfig, LSFNetwork, MotionPrior, PriorConfig
from ..network.mouth import LinearMouth
from ..speech import SpeechEncoder, load_pretrained
from .captured import read_facegood
from .corpus import Take, is_held_out, make_takes, read_emodb, read_speech, read_surprise
from .heard import COMPONENTS, draw_to_sound, fit
from .loop import LoopConfig
from .losses import LossWeights, MotionLoss, face_basis
from .processes import ALONE, Processes
from .stages import fit_basis, train_lsf, train_prior
from .windows import Mixture, WindowSampler

SHARES = {"speech": 0.53, "emodb": 0.26, "surprise": 0.05, "facegood": 0.08}    # absent sets leave theirs to the rest
CAPTURED_PASSES = 3     # times the others': five minutes of one voice are soon known by heart
SILENCE_SHARE = 0.08
HEARD_SHARE = 0.7       # of the synthesised faces' mouths that is what a linear map hears (heard.py)
BASIS = 128             # principal components of the features that the mouth hears
ENCODER_LAYERS = ((2, 4), (2, 3))       # articulation, emotion


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m lsf_core train", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True,
                   help="folder with speech/, emotional_speech/emodb/ and, where there, emotional_speech/surprise/ "
                        "and real/facegood/")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--encoder", type=Path, help="Whisper (or other) encoder in transformers' format, or a "
                                                     "checkpoint of ours to take it from")
    source.add_argument("--tune", type=Path, help="a checkpoint to train on: stage 2 alone, no latent loss")
    p.add_argument("--out", type=Path, required=True, help="folder for lsf-animation.safetensors")
    p.add_argument("--work", type=Path, default=Path("train-work"), help="resume points and logs")
    p.add_argument("--device", default="auto")
    p.add_argument("--passes", type=int, default=4, help="takes per utterance, each with its own face, style and rate")
    p.add_argument("--prior-steps", type=int, default=1000)
    p.add_argument("--lsf-steps", type=int, default=2500)
    p.add_argument("--prior-seconds", type=float, default=float("inf"))
    p.add_argument("--lsf-seconds", type=float, default=float("inf"))
    p.add_argument("--rate", type=float, default=5e-4, help="highest learning rate of stage 2")
    p.add_argument("--batch", type=int, default=128, help="windows of 8 s in a step, of all processes "
                                                               "together; shorter windows: more")
    p.add_argument("--articulation-layers", type=int, nargs="+", default=ENCODER_LAYERS[0])
    p.add_argument("--emotion-layers", type=int, nargs="+", default=ENCODER_LAYERS[1])
    p.add_argument("--articulation-basis", type=int, default=BASIS,
                   help="principal components of the features that the mouth hears; 0: all")
    p.add_argument("--linear-components", type=int, default=COMPONENTS, help="of the features that the second, linear "
                                                                             "opinion on the mouth hears; 0: none")
    p.add_argument("--heard-share", type=float, default=HEARD_SHARE,
                   help="how far synthesised mouths are drawn to what that linear map hears, 0 to 1")
    p.add_argument("--freeze-decoder", action="store_true", help="as in the paper")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--note", default="", help="kept in the checkpoint, for instance the commit")
    p.add_argument("--tiny", action="store_true", help="a few utterances and steps: tries every line, learns nothing")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    processes = Processes.launched()
    # Of several processes the launcher tells which one failed first, and of what.
    (record(train) if processes.count > 1 else train)(args, processes)
    processes.disconnect()
    return 0


def train(args: argparse.Namespace, processes: Processes) -> None:
    """Both stages, from the data to the checkpoint, in this process and the others."""
    for folder in (args.out, args.work):
        folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()

    def log(line: str) -> None:
        if processes.main:
            print(line, flush=True)
            with open(args.work / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(line + "\n")

    torch.manual_seed(args.seed + processes.rank)       # dropout; weights begin as the main process's
    torch.set_float32_matmul_precision("high")
    device = processes.device(args.device)
    if args.tiny:
        args.passes, args.prior_steps, args.lsf_steps, args.batch = 1, 4, 4, 4
    batch = processes.batch(args.batch)
    data, minutes, mouth = prepare(args.data, args.passes, args.seed, device, args.tiny, processes,
                                   lambda takes: _listen(args, takes, device), args.heard_share)
    log(json.dumps({"minutes": minutes, "s": time.monotonic() - begin, "processes": processes.count,
                    "args": vars(args)}, default=str))
    loss = MotionLoss(face_basis(), LossWeights()).to(device)
    steps: dict[str, Any] = {"log_every": max(1, args.lsf_steps // 50), "processes": processes}
    if args.tiny:
        steps.update(log_every=2, save_every=2)

    speech, network = _resume_or_start(args, device, data, mouth, loss, steps, batch, log)
    train_lsf(network, speech, data, loss, LoopConfig(args.lsf_steps, args.lsf_seconds, rate=args.rate, **steps),
              args.work / "lsf.pt", batch, (100, 200) if args.tiny else (100, 200, 300, 400),
              tune_decoder=not args.freeze_decoder, log=log)

    about = {"note": args.note, "data": minutes, "held_out": "see lsf_core/training/corpus.py", "seed": args.seed,
             "torch": torch.__version__,
             "device": str(device) if processes.count == 1 else f"{processes.count} x {device.type}",
             "passes": args.passes}
    if not processes.main:
        return
    digest = save_checkpoint(args.out / "lsf-animation.safetensors", speech, network, about)
    log(json.dumps({"saved": str(args.out / "lsf-animation.safetensors"), "sha256": digest,
                    "s": time.monotonic() - begin}))


def _resume_or_start(args: argparse.Namespace, device: torch.device, data: Mixture, mouth: LinearMouth | None,
                     loss: MotionLoss, steps: dict[str, Any], batch: int, log: Callable[[str], None]
                     ) -> tuple[SpeechEncoder, LSFNetwork]:
    """What stage 2 trains: a checkpoint's network with --tune, else a new one on a prior trained here (stage 1)."""
    if args.tune is not None:
        checkpoint = load_checkpoint(args.tune, device)
        return checkpoint.speech, checkpoint.network
    prior = MotionPrior(PriorConfig()).to(device)
    train_prior(prior, data, loss, LoopConfig(args.prior_steps, args.prior_seconds, rate=1e-3, **steps),
                args.work / "prior.pt", 2 * batch, log=log)

    speech = _encoder(args, device)
    config = LSFConfig(articulation_dim=speech.articulation_dim, emotion_dim=speech.emotion_dim,
                       articulation_basis=args.articulation_basis, linear_components=args.linear_components)
    network = LSFNetwork(config, prior, len(args.articulation_layers), len(args.emotion_layers)).to(device)
    if mouth is not None:
        network.mouth = mouth
    if args.articulation_basis:
        fit_basis(network, speech, data)
    return speech, network


def _encoder(args: argparse.Namespace, device: torch.device) -> SpeechEncoder:
    """The pretrained encoder that a new network will hear through."""
    return open_encoder(args.encoder, tuple(args.articulation_layers), tuple(args.emotion_layers), device)


def _listen(args: argparse.Namespace, takes: list[Take], device: torch.device
            ) -> tuple[SpeechEncoder, LinearMouth | None]:
    """What hears how the mouths of the takes move: fitted to them, or with --tune the checkpoint's own."""
    if args.tune is not None:
        checkpoint = load_checkpoint(args.tune, device)
        return checkpoint.speech, checkpoint.network.mouth
    speech = _encoder(args, device)
    return speech, fit(takes, speech, device, args.linear_components) if args.linear_components else None


def prepare(root: Path, passes: int, seed: int, device: torch.device, tiny: bool = False, processes: Processes = ALONE,
            listen: Callable[[list[Take]], tuple[SpeechEncoder, LinearMouth | None]] | None = None,
            heard_share: float = HEARD_SHARE) -> tuple[Mixture, dict[str, float], LinearMouth | None]:
    """The diet on `device`, its minutes by set, and the linear opinion on its mouths that `listen` comes to (heard.py);
    without one targets stay as they were synthesised. tiny: a few utterances of each set.

    Several processes make the takes of one in equal shares, and are connected here to exchange them: not before, since
    the workers that make takes are forks of this process, which must have no threads yet. Each draws other windows.
    """
    utterances = [u for u in read_speech(root) + read_emodb(root) + read_surprise(root) if not is_held_out(u)]
    if tiny:
        utterances = utterances[:12] + utterances[-12:]
    made = list(make_takes(utterances, passes, seed, 1 if tiny else processes.workers(), processes))
    processes.connect(device)
    takes = processes.gather(made)
    mouth = None
    if listen is not None:
        speech, mouth = listen(takes)
        if mouth is not None:
            draw_to_sound(takes, mouth, speech, heard_share, device)
    takes += read_facegood(root, CAPTURED_PASSES * passes, seed)
    found = {name: [t for t in takes if t.corpus == name] for name in SHARES}
    shares = {name: SHARES[name] for name in SHARES if found[name]}
    samplers = {name: WindowSampler(found[name], device) for name in shares}
    minutes = {name: sum(len(t.neutral) for t in found[name]) / 3000 for name in SHARES}
    return Mixture(samplers, shares, SILENCE_SHARE, seed + processes.rank), minutes, mouth


def open_encoder(path: Path, articulation_layers: tuple[int, ...], emotion_layers: tuple[int, ...],
                 device: torch.device) -> SpeechEncoder:
    """The frozen encoder of a folder in transformers' format, or of a checkpoint of ours; half precision on a GPU,
    what it hears is computed in float32 before it."""
    if path.is_file():
        speech = load_checkpoint(path).speech
        speech.config = replace(speech.config, articulation_layers=articulation_layers, emotion_layers=emotion_layers)
    else:
        speech = load_pretrained(path, articulation_layers, emotion_layers)
    speech = speech.to(device)
    if device.type == "cuda":
        speech.model.half()
    return speech
