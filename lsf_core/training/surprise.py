"""python -m lsf_core.training.surprise DATA: surprised voices, which no actor of a free corpus plays.

A surprised voice is high, ranges widely and rises at the end (Banse and Scherer 1996, Journal of Personality and Social
Psychology 70:614; Scherer 2003, Speech Communication 40:227). So EMO-DB's happy recordings, whose voices are excited
already, are taken apart into pitch, spectral envelope and aperiodicity by WORLD (Morise et al. 2016) and put together
again with such a pitch. Writes DATA/emotional_speech/surprise/ in the layout of emodb/.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from ..audio import SAMPLE_RATE, load_audio

VARIANTS = 2
RANGE, HEIGHT, RISE = 1.5, 1.15, (0.2, 0.6)     # factor on log pitch, factor on pitch, octaves over the last part
RISE_FROM = 0.55                                # of the clip


def surprised(samples: np.ndarray, rng: np.random.Generator, variants: int = VARIANTS) -> list[np.ndarray]:
    """The same words of (N,) float samples at 16 kHz in surprised voices, (N,) float32 each."""
    import pyworld  # for this one step of making the training data; pip install pyworld

    x = samples.astype(np.float64)
    pitch, times = pyworld.harvest(x, SAMPLE_RATE, f0_floor=60.0, f0_ceil=700.0)
    envelope = pyworld.cheaptrick(x, pitch, times, SAMPLE_RATE)
    noise = pyworld.d4c(x, pitch, times, SAMPLE_RATE)
    voiced = pitch > 0
    mean = np.exp(np.log(pitch[voiced]).mean()) if voiced.any() else 1.0
    made = []
    for _ in range(variants):
        higher = HEIGHT * np.exp(rng.normal(0, 0.1))
        rise = rng.uniform(*RISE) * np.clip((times / times[-1] - RISE_FROM) / (1 - RISE_FROM), 0, 1)
        new = mean * higher * (np.where(voiced, pitch, mean) / mean) ** RANGE * 2**rise
        out = pyworld.synthesize(np.where(voiced, new, 0.0), envelope, noise, SAMPLE_RATE).astype(np.float32)
        made.append(np.pad(np.clip(out, -1, 1), (0, max(0, len(samples) - len(out))))[: len(samples)])
    return made


def _write(root: Path, row: dict[str, Any]) -> list[str]:
    """The surprised voices of one recording; their lines of the manifest."""
    rng = np.random.default_rng([*row["file"].encode()])
    lines = []
    for number, samples in enumerate(surprised(load_audio(root / "emodb" / row["file"]), rng)):
        file = f"audio/{Path(row['file']).stem}_{number}.ogg"
        soundfile.write(root / "surprise" / file, samples, SAMPLE_RATE)
        lines.append(json.dumps({**row, "file": file, "emotion": "surprise"}, ensure_ascii=False))
    return lines


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m lsf_core.training.surprise", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path)
    root = p.parse_args(argv).data / "emotional_speech"
    rows = [json.loads(line) for line in (root / "emodb" / "manifest.jsonl").read_text("utf-8").splitlines()]
    rows = [r for r in rows if r["emotion"] == "happiness" and r["phones"]]
    (root / "surprise" / "audio").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        made = list(tqdm(pool.map(partial(_write, root), rows), total=len(rows), file=sys.stderr))
    written = [line for lines in made for line in lines]
    (root / "surprise" / "manifest.jsonl").write_text("\n".join(written) + "\n", encoding="utf-8")
    print(f"{len(written)} recordings written to {root / 'surprise'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
