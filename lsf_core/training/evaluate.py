"""python -m lsf_core.training.evaluate: write motion for every evaluation clip, to be scored (docs/checkpoint.md).

    python -m lsf_core.training.evaluate DATA_DIR MOTION_DIR [--checkpoint FILE] [--only TEXT] [--baseline]

MOTION_DIR mirrors DATA_DIR. Default: the real clips, RAVDESS's development actors and EMO-DB's held-out speakers.
--baseline writes the plain-energy motion of `baseline.py` instead of the network's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..animator import Animator, load_model
from ..arkit import ARKIT_NAMES, IDENTITY_DIM
from ..audio import load_audio
from ..edits import EditSettings, edit_settings
from ..motion import Motion
from ..speech import FEATURE_RATE
from .baseline import energy_motion
from .corpus import HELD_OUT_ACTORS, HELD_OUT_VOICES

CLIPS_PER_BATCH = 16


def clips(data: Path) -> Iterator[Path]:
    """Audio files of the evaluation, relative to `data`."""
    yield from sorted(p.relative_to(data) for p in (data / "real").rglob("*.ogg"))
    for name, keep in (("emotional_speech/emodb", HELD_OUT_ACTORS), ("emotional_speech/ravdess_dev", None),
                       ("speech", HELD_OUT_VOICES)):
        manifest = data / name / "manifest.jsonl"
        if not manifest.is_file():
            continue
        for line in manifest.read_text("utf-8").splitlines():
            row = json.loads(line)
            if keep is None or row["speaker"] in keep:
                yield Path(name) / row["file"]


def write_motion(animator: Animator | None, data: Path, out: Path, todo: Sequence[Path], settings: EditSettings,
                 fps: float = 30.0, seed: int = 0, temperature: float = 0.0) -> None:
    """Motion of the average face for the clips `todo` of `data`, under `out`; without an animator the baseline's."""
    for first in tqdm(range(0, len(todo), CLIPS_PER_BATCH), unit="batch", file=sys.stderr):
        batch = todo[first:first + CLIPS_PER_BATCH]
        samples = [load_audio(data / clip) for clip in batch]
        if animator is None:
            motions = [Motion(ARKIT_NAMES, energy_motion(x), FEATURE_RATE).resample(fps) for x in samples]
        else:
            identity = np.zeros((len(batch), IDENTITY_DIM), np.float32)
            raw = animator.raw_weights(samples, identity, [seed] * len(batch), temperature)
            motions = [take.finish(settings, fps=fps, seed=seed) for take in raw]
        for clip, motion in zip(batch, motions, strict=True):
            path = out / clip.with_suffix(".npz")
            path.parent.mkdir(parents=True, exist_ok=True)
            motion.save(path)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m lsf_core.training.evaluate", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--checkpoint", type=Path)
    p.add_argument("--only", default="")
    p.add_argument("--baseline", action="store_true")
    p.add_argument("--fps", type=float, default=30.0, help="as `lsf_core animate` writes by default")
    p.add_argument("--no-edits", action="store_true")
    p.add_argument("--emotion-strength", type=float, default=1.0)
    p.add_argument("--temperature", type=float, default=0.0)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="auto")
    args = p.parse_args(argv)
    todo = [c for c in clips(args.data) if args.only in c.as_posix()]
    animator = None if args.baseline else load_model(args.checkpoint, args.device)
    settings = edit_settings(args.emotion_strength, not args.no_edits)
    write_motion(animator, args.data, args.out, todo, settings, args.fps, args.seed, args.temperature)
    print(f"{len(todo)} clips written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
