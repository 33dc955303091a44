"""Lines per second of animate-many, as a markdown table. Run by hand, never in CI:

    python tests/bench/bench_many.py [--lines 200] [--device cpu|cuda] [--repeat 3] [--ray auto|local|HOST:PORT]

The lines are pieces of the demo speech as long as a game's are (gamma distributed, 4 s on average, 0.5 to 20 s), each a
file of its own. The reference does the same work one line at a time in one process, with one load of the network, as a
loop in a script would. Seconds are of whole commands, start and load included; the runs take turns, best of --repeat.
CPU seconds are those of the command's processes together, which a busy machine changes least.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

ROOT = Path(__file__).resolve().parents[2]
SPEECH = ROOT / "assets" / "demo" / "speech.ogg"
sys.path.insert(0, str(ROOT))

ONE_BY_ONE = """
import csv, sys
from pathlib import Path
import lsf_core
manifest, out, device = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
model = lsf_core.load_model(device=device)
with open(manifest, newline="") as file:
    for line in csv.DictReader(file):
        model.animate(manifest.parent / line["audio"]).save(out / f"{line['output']}.npz")
"""


@dataclass
class Row:
    name: str
    command: list[str]
    seconds: float = np.inf
    cpu_seconds: float = np.inf
    peak_mb: float = 0.0


def write_lines(folder: Path, count: int) -> float:
    """Sounds and a manifest; seconds of speech in all."""
    from lsf_core.audio import SAMPLE_RATE, load_audio

    random, speech = np.random.default_rng(0), load_audio(SPEECH)
    lengths = np.clip(random.gamma(2.0, 2.0, count), 0.5, 20.0)
    lines = ["audio,output"]
    for i, seconds in enumerate(lengths):
        first = random.integers(0, len(speech))
        samples = np.take(speech, range(first, first + round(seconds * SAMPLE_RATE)), mode="wrap")
        sf.write(folder / f"{i}.wav", np.repeat(samples, 3), 3 * SAMPLE_RATE)  # 48 kHz, as studios deliver
        lines.append(f"{i}.wav,take{i}")
    (folder / "lines.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return float(lengths.sum())


def measure(row: Row) -> None:
    """Run the command once and keep the better figures."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    process = subprocess.Popen(row.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        sys.exit(f"{row.name} failed:\n{said[-2000:]}")
    row.seconds = min(row.seconds, seconds)
    row.cpu_seconds = min(row.cpu_seconds, usage.ru_utime + usage.ru_stime)
    row.peak_mb = max(row.peak_mb, usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ray", metavar="ADDRESS", help="one more row: the same on this cluster")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speech = write_lines(folder, options.lines)
        table = str(folder / "lines.csv")
        many = [sys.executable, "-m", "lsf_core", "animate-many", table, "--device", options.device, "--out"]
        rows = [
            Row("one line at a time (reference)",
                [sys.executable, "-c", ONE_BY_ONE, table, str(folder / "one"), options.device]),
            Row("animate-many", [*many, str(folder / "many"), "--overwrite"]),
            Row("animate-many, Live Link Face CSV", [*many, str(folder / "csv"), "--overwrite", "--format", "csv"]),
            Row("animate-many again, nothing left to do", [*many, str(folder / "many")]),
        ]
        if options.ray:
            rows.append(Row("animate-many on Ray",
                            [*many, str(folder / "ray"), "--overwrite", "--ray", options.ray]))
        for _ in range(options.repeat):
            for row in rows:
                measure(row)
    print(f"{options.lines} lines, {speech:.0f} s of speech, {options.device}, {os.cpu_count()} cores, "
          f"{platform.system()}, Python {platform.python_version()}\n")
    print("| what | seconds | lines per second | x real time | x reference | CPU seconds | peak memory MB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.seconds:.2f} | {options.lines / row.seconds:.1f} | {speech / row.seconds:.0f} "
              f"| {rows[0].seconds / row.seconds:.2f} | {row.cpu_seconds:.1f} | {row.peak_mb:.0f} |")


if __name__ == "__main__":
    main()
