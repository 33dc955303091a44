"""The simplest thing that could work: the jaw follows the loudness. A floor for every table of figures.

    python -m lsf_core.training.baseline DATA_DIR OUT_DIR [--only TEXT]

writes OUT_DIR/<clip>.npz (names, weights, fps) for every sound file below DATA_DIR, as score_motion.py reads it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.training.gestures import RATE
from lsf_core.training.performance import SAMPLE_RATE, blur, loudness

WIDEST = 0.30  # jawOpen at the level of the clip's loud passages: the 95th percentile of ordinary public speech
WINDOW_S = 0.12  # the loudness is smoothed over this window, about the length of a vowel


def energy_motion(audio16k: np.ndarray) -> np.ndarray:
    """(F, 52) float32 weights at 50 Hz from (N,) mono samples at 16 kHz: jawOpen in proportion to loudness."""
    frames = int(np.ceil(len(audio16k) / SAMPLE_RATE * RATE - 1e-9))
    weights = np.zeros((frames, len(ARKIT_NAMES)), np.float32)
    if frames:
        weights[:, INDEX["jawOpen"]] = WIDEST * blur(loudness(audio16k, frames), WINDOW_S)
    return weights


def main(argv: list[str] | None = None) -> int:
    import soundfile

    parser = argparse.ArgumentParser(prog="python -m lsf_core.training.baseline", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="only clips whose path contains this")
    a = parser.parse_args(argv)
    count = 0
    for path in sorted(p for p in a.data.rglob("*") if p.suffix in (".ogg", ".wav", ".flac")):
        key = path.relative_to(a.data).with_suffix("")
        if a.only not in key.as_posix():
            continue
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if rate != SAMPLE_RATE:
            parser.error(f"{path} has {rate} Hz; the baseline reads 16 kHz only")
        target = a.out / key.with_suffix(".npz")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            target, names=np.array(ARKIT_NAMES), weights=energy_motion(audio.mean(1)), fps=np.float32(RATE)
        )
        count += 1
    print(f"{count} clips written to {a.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
