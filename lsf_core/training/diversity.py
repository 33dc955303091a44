"""python -m lsf_core.training.diversity: do sampled takes differ in performance, and not in articulation?

    python -m lsf_core.training.diversity DATA_DIR OUT.json [--checkpoint FILE] [--only TEXT] [--samples 10]
        [--temperature 1]

Animates every clip of the evaluation that has phones as often as asked, each time with another seed, without edits, and
compares the takes with each other and with the likeliest one. Prints the figures of FIGURES for each set of clips, and
writes them with those of each clip to OUT.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..animator import Animator, load_model
from ..arkit import IDENTITY_DIM, INDEX
from ..audio import load_audio
from ..edits import NONE
from ..face.template import load_template
from ..lips import CLOSED, GAP_ROW
from ..speech import FEATURE_RATE
from .evaluate import clips

FIGURES = {
    "upper_mm": "diversity: how far a vertex of the upper face strays over the takes (std), mean of all",
    "played_mm": "the same for the likeliest take over time: how far the upper face moves at all",
    "drift_mm": "distance of the mean take from the likeliest one, in the upper face",
    "lip_gap_mm": "std of the lip gap over the takes, mean of frames",
    "likeliest": "p b m whose lips close in the likeliest take",
    "recall": "p b m whose lips close in a sampled take, mean of takes",
    "worst": "the same in the worst take",
    "phones": "p b m there are",
}
"""What is measured. Millimetres on the template head. Lips close where the gap falls to lips.CLOSED of the take's 95th
percentile within the phone and PAD seconds around it."""

PAD = 0.033
UPPER = [name for name in INDEX if name.startswith(("brow", "eyeSquint", "eyeWide", "cheekSquint"))]
_VERTICES = 400


@dataclass(frozen=True)
class Figures:
    """Of one clip, or the mean of a set; see FIGURES."""

    upper_mm: float
    played_mm: float
    drift_mm: float
    lip_gap_mm: float
    likeliest: float
    recall: float
    worst: float
    phones: int


def upper_face() -> np.ndarray:
    """(52, V, 3) mm per unit of weight, of vertices spread over what brows, lids and cheeks move."""
    template = load_template()
    moved = np.linalg.norm(template.expressions[[INDEX[name] for name in UPPER]], axis=-1).max(0)
    chosen = np.flatnonzero((moved > 0.2 * moved.max()) & (template.fit_weight > 0))
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(_VERTICES, len(chosen))).astype(int)]
    return template.expressions[:, chosen].astype(np.float64) * 1000.0


def spread(positions: np.ndarray) -> float:
    """Standard deviation of positions (N, ..., V, 3) over the first axis, as a distance; mean of all the others."""
    return float(np.sqrt(positions.var(0).sum(-1)).mean())


def closed(weights: np.ndarray, bilabials: Sequence[tuple[float, float]]) -> np.ndarray:
    """(P,) bool: whether the lips of a take (F, 52) at 50 Hz close in each p b m, given as (start, end) in seconds."""
    gap = np.maximum(weights @ GAP_ROW, 0.0)
    threshold = CLOSED * np.percentile(gap, 95)
    spans = [(round((start - PAD) * FEATURE_RATE), round((end + PAD) * FEATURE_RATE) + 1) for start, end in bilabials]
    return np.array([gap[max(0, first):last].min() <= threshold for first, last in spans if first < len(gap)], bool)


def measure(takes: np.ndarray, likeliest: np.ndarray, bilabials: Sequence[tuple[float, float]],
            deltas: np.ndarray) -> Figures:
    """Figures of takes (N, F, 52) and the likeliest one (F, 52); deltas as `upper_face` gives them."""
    flat = deltas.reshape(len(deltas), -1)
    faces = (takes @ flat).reshape(*takes.shape[:2], -1, 3)
    calm = (likeliest @ flat).reshape(len(likeliest), -1, 3)
    recalls = [closed(take, bilabials).mean() if bilabials else np.nan for take in takes]
    return Figures(
        spread(faces), spread(calm), float(np.linalg.norm(faces.mean(0) - calm, axis=-1).mean()),
        float((takes @ GAP_ROW).std(0).mean()), float(closed(likeliest, bilabials).mean()) if bilabials else np.nan,
        float(np.mean(recalls)), float(np.min(recalls)), len(bilabials))


def bilabials_of(data: Path) -> dict[str, list[tuple[float, float]]]:
    """(start, end) in seconds of every p b m, by the clip's path in `data` without its suffix."""
    facts = {}
    for file in data.rglob("*.json"):
        if file.with_suffix(".ogg").is_file():
            facts[file.relative_to(data).with_suffix("").as_posix()] = json.loads(file.read_text("utf-8"))
    for file in data.rglob("manifest.jsonl"):
        for line in file.read_text("utf-8").splitlines():
            row = json.loads(line)
            facts[(file.parent / row["file"]).relative_to(data).with_suffix("").as_posix()] = row
    return {name: [(float(start), float(end)) for phone, start, end in row["phones"] if phone.lower() in "pbm"]
            for name, row in facts.items() if row.get("phones")}


def sampled(animator: Animator, samples: np.ndarray, count: int, temperature: float) -> Iterator[np.ndarray]:
    """`count` takes (F, 52) of a clip at 50 Hz, without edits; at temperature 0 the likeliest."""
    raws = animator.raw_weights([samples] * count, np.zeros((count, IDENTITY_DIM), np.float32), range(count),
                                temperature)
    return (raw.finish(NONE, fps=FEATURE_RATE, seed=seed).weights for seed, raw in enumerate(raws))


def mean_of(figures: Sequence[Figures]) -> Figures:
    """Mean of clips; closures are weighted by their phones, and the worst take is the mean of the clips' worst."""
    phones = np.array([f.phones for f in figures])
    values: dict[str, Any] = {"phones": int(phones.sum())}
    for name in FIGURES:
        if name == "phones":
            continue
        column = np.array([getattr(f, name) for f in figures], float)
        if name in ("likeliest", "recall", "worst"):
            known = phones > 0
            values[name] = float((column[known] * phones[known]).sum() / max(1, phones.sum()))
        else:
            values[name] = float(column.mean())
    return Figures(**values)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m lsf_core.training.diversity", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--checkpoint", type=Path)
    p.add_argument("--only", default="", help="clips whose path contains this")
    p.add_argument("--samples", type=int, default=10)
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--device", default="auto")
    args = p.parse_args(argv)
    bilabials = bilabials_of(args.data)
    todo = [c for c in clips(args.data) if args.only in c.as_posix() and c.with_suffix("").as_posix() in bilabials]
    animator, deltas = load_model(args.checkpoint, args.device), upper_face()
    found: dict[str, dict[str, Figures]] = {}
    for clip in tqdm(todo, unit="clip", file=sys.stderr):
        name, samples = clip.with_suffix("").as_posix(), load_audio(args.data / clip)
        likeliest = next(sampled(animator, samples, 1, 0.0))
        takes = np.stack(list(sampled(animator, samples, args.samples, args.temperature)))
        found.setdefault("/".join(clip.parts[:2]), {})[name] = measure(takes, likeliest, bilabials[name], deltas)
    means = {name: mean_of(list(of_set.values())) for name, of_set in found.items()}
    print("| set | clips | " + " | ".join(FIGURES) + " |\n" + "|---" * (len(FIGURES) + 2) + "|")
    for name, mean in means.items():
        cells = [name, str(len(found[name])), *(f"{value:.3g}" for value in asdict(mean).values())]
        print(f"| {' | '.join(cells)} |")
    report = {"samples": args.samples, "temperature": args.temperature, "figures": FIGURES,
              "sets": {name: asdict(mean) for name, mean in means.items()},
              "clips": {name: asdict(f) for of_set in found.values() for name, f in of_set.items()}}
    args.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
