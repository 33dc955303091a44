"""What live preview costs in quality and time, by look-ahead, as a markdown table. Run by hand, never in CI:

    python tests/bench/bench_stream.py DATA [--clips N] [--threads 2] [--out DIR] [--score SCORE.py]

DATA has `real/styletalk` and `speech` (held-out voices are taken, N clips of them). Every clip is animated offline and
streamed at each look-ahead, all in one process and in turns, so that the ratios stand whatever else the machine does;
times are the processor's, on one thread or several. --out keeps the takes, laid out as score_motion.py (--score) wants
them, whose figures of p b m are then added to the table.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lsf_core.animator import Animator, load_model  # noqa: E402
from lsf_core.arkit import ARKIT_NAMES  # noqa: E402
from lsf_core.audio import SAMPLE_RATE, load_audio  # noqa: E402
from lsf_core.motion import Motion  # noqa: E402
from lsf_core.streaming import Stream  # noqa: E402
from lsf_core.training.corpus import HELD_OUT_VOICES  # noqa: E402

LOOK_AHEADS = (0.08, 0.16, 0.32, 0.64)
FPS, CHUNK = 50.0, 0.04
SCORES = {"close_recall": "p b m closed", "close_false": "open vowels closed"}
SETS = ("real/styletalk", "speech")


@dataclass
class Row:
    """Figures of one look-ahead over all clips; None: offline."""

    look_ahead: float | None
    busy: float = 0.0
    sound: float = 0.0
    chunks: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    jaw: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "offline" if self.look_ahead is None else f"{1000 * self.look_ahead:.0f} ms"


def clips_of(data: Path, count: int) -> list[Path]:
    """The clips of styletalk, and `count` of the voices that training never heard, relative to `data`."""
    real = sorted(path.relative_to(data) for path in (data / "real" / "styletalk").glob("*.ogg"))
    lines = (json.loads(line) for line in (data / "speech" / "manifest.jsonl").read_text("utf-8").splitlines())
    held = [Path("speech") / line["file"] for line in lines if set(line["speaker"].split("+")) & set(HELD_OUT_VOICES)]
    return real + held[:: max(1, len(held) // max(count, 1))][:count]


def streamed(model: Animator, audio: np.ndarray, row: Row) -> Motion:
    """The clip as a stream, in chunks as they would come in."""
    assert row.look_ahead is not None
    begun = time.process_time()
    stream = Stream(model, fps=FPS, look_ahead=row.look_ahead)
    parts, size = [], round(CHUNK * SAMPLE_RATE)
    for start in range(0, len(audio), size):
        at = time.perf_counter()
        parts.append(stream.feed(audio[start : start + size]))
        if len(parts[-1]):
            row.chunks.append(time.perf_counter() - at)
    parts.append(stream.finish())
    row.busy += time.process_time() - begun
    return Motion(ARKIT_NAMES, np.concatenate(parts), FPS)


def compare(row: Row, made: Motion, offline: Motion) -> None:
    """Note how near a take is to the offline one."""
    upper = [i for i, name in enumerate(made.names) if name.startswith(("brow", "cheek", "nose", "mouthSmile"))]
    row.gap.append(correlation(made.lip_gap_mm(), offline.lip_gap_mm()))
    row.jaw.append(correlation(made["jawOpen"], offline["jawOpen"]))
    row.upper.append(correlation(made.weights[:, upper].ravel(), offline.weights[:, upper].ravel()))
    row.apart.append(float(np.abs(made.lip_gap_mm() - offline.lip_gap_mm()).mean()))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def with_facts(data: Path, clips: list[Path], folder: Path) -> None:
    """Copy the clips with what is known of them, so that score_motion.py reads no others."""
    lines = (json.loads(line) for line in (data / "speech" / "manifest.jsonl").read_text("utf-8").splitlines())
    phones = {Path("speech") / line["file"]: line["phones"] for line in lines}
    for clip in clips:
        (folder / clip).parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".ogg", ".npz", ".json"):
            if (data / clip).with_suffix(suffix).is_file():
                shutil.copy((data / clip).with_suffix(suffix), (folder / clip).with_suffix(suffix))
        if clip in phones:
            (folder / clip).with_suffix(".json").write_text(json.dumps({"phones": phones[clip]}), encoding="utf-8")


def score(script: Path, face: Path, data: Path, takes: Path) -> dict[str, dict[str, float]]:
    """score_motion.py's figures of the takes, by set."""
    found = takes / "scores.json"
    subprocess.run([sys.executable, str(script), str(data), str(takes), "--face", str(face), "--json", str(found)],
                   stdout=subprocess.DEVNULL, check=True)
    return {name: values["pred"] for name, values in json.loads(found.read_text("utf-8"))["sets"].items()}


def measure(model: Animator, data: Path, clips: list[Path], out: Path) -> list[Row]:
    """All rows, offline first."""
    rows = [Row(None), *(Row(seconds) for seconds in LOOK_AHEADS)]
    for number, clip in enumerate(clips):
        audio = load_audio(data / clip)
        offline = None
        for row in rows:
            begun = time.process_time()
            if row.look_ahead is None:
                made = offline = model.animate(audio, SAMPLE_RATE, fps=FPS)
                row.busy += time.process_time() - begun
            else:
                made = streamed(model, audio, row)
            assert offline is not None
            compare(row, made, offline)
            row.sound += len(audio) / SAMPLE_RATE
            made.save(out / row.name.replace(" ", "") / clip.with_suffix(".npz"))
        print(f"{number + 1} of {len(clips)}: {clip}", file=sys.stderr, flush=True)
    return rows


def print_table(rows: list[Row], sets: list[str]) -> None:
    columns = ["look-ahead", "lip gap r", "jaw r", "upper face r", "lip gap apart, mm", "processor s per s of sound",
               "x offline", "a window, median ms", "latest frame, ms after its sound"]
    columns += [f"{title}, {name}" for name in sets for title in SCORES.values()]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cost = row.busy / row.sound
        late = window = "–"
        if row.look_ahead is not None:
            median = 1000 * float(np.median(row.chunks))
            window, late = f"{median:.0f}", f"{1000 * (row.look_ahead + CHUNK) + median:.0f}"
        figures = [f"{np.mean(values):.3f}" for values in (row.gap, row.jaw, row.upper)]
        figures += [f"{np.mean(row.apart):.2f}", f"{cost:.2f}", f"{cost / (rows[0].busy / rows[0].sound):.1f}"]
        figures += [window, late, *(f"{row.scores.get(f'{name} {key}', float('nan')):.3f}" for name in sets
                                    for key in SCORES)]
        print(f"| {row.name} | " + " | ".join(figures) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=8, help="of held-out voices (default 8)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder that keeps the takes")
    parser.add_argument("--score", type=Path, help="score_motion.py")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    model = load_model(device="cpu")
    clips = clips_of(options.data, options.clips)
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        rows = measure(model, options.data, clips, out)
        sets = list(SETS) if options.score else []
        if options.score:
            known = Path(folder) / "known"
            with_facts(options.data, clips, known)
            for row in rows:
                face = options.data / "faces" / "ict_facekit.npz"
                found = score(options.score, face, known, out / row.name.replace(" ", ""))
                row.scores = {f"{name} {key}": float(found[name][key]) for name in sets for key in SCORES}
        print_table(rows, sets)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{len(clips)} clips, {rows[0].sound:.0f} s of sound, chunks of {1000 * CHUNK:.0f} ms, {options.threads} "
          f"threads, torch {torch.__version__}, {platform.system()}, peak memory {peak:.0f} MB.")


if __name__ == "__main__":
    main()
