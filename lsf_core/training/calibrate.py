"""Calibration of the performance synthesis on clips that have phones and a measured face.

    python -m lsf_core.training.calibrate oracle DATA_DIR OUT_DIR [--only TEXT]
    python -m lsf_core.training.calibrate fit DATA_DIR [--only TEXT] [--steps N]
    python -m lsf_core.training.calibrate compare DATA_DIR [--only TEXT]

oracle writes what `perform` makes of each clip's own phones and sound, for score_motion.py; fit searches constants and
prints them with figures; compare prints means and spreads of shapes beside the measured ones.

DATA_DIR holds <clip>.ogg, <clip>.npz (names, weights, fps) and <clip>.json with "phones" (oracle: manifest.jsonl
too). `fit` works on the lip gap in mm (lips.GAP_ROW): for given widths and leads the gap is linear in the
targets of the phone classes, so these are solved by ridge regression towards the table in gestures.py inside a
Nelder-Mead search over the rest (variable projection, Golub and Pereyra 1973). Figures are cross-validated over
speakers: targets are solved without the speaker they are judged on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.errors import AudioError
from lsf_core.lips import GAP_ROW
from lsf_core.training.gestures import (
    CHANNEL,
    CLASSES,
    RATE,
    Dominance,
    GestureConstants,
    Score,
    articulate,
    build_score,
    pulls,
    smooth,
    stress_gain,
)
from lsf_core.training.performance import loudness, open_with, perform, speaking
from lsf_core.training.phones import canonical


@dataclass
class Measured:
    """A clip with phones and a face. weights: (F, 52) at 50 Hz, NaN where the tracker has no such shape."""

    key: str
    speaker: str
    audio: np.ndarray
    rows: list
    weights: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        return np.maximum(np.nan_to_num(self.weights) @ GAP_ROW, 0.0)


def told(data: Path, only: str = "") -> Iterator[tuple[str, Path, dict]]:
    """(key, sound file, facts) of all clips below `data` that have phones: <clip>.json beside the sound, or
    manifests."""
    for path in sorted(data.rglob("*.json")):
        sound = path.with_suffix(".ogg")
        if sound.is_file():
            facts = json.loads(path.read_text(encoding="utf-8"))
            key = path.relative_to(data).with_suffix("").as_posix()
            if only in key and facts.get("phones"):
                yield key, sound, facts
    for path in sorted(data.rglob("manifest.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            facts = json.loads(line)
            sound = path.parent / facts["file"]
            key = sound.relative_to(data).with_suffix("").as_posix()
            if only in key and facts.get("phones"):
                yield key, sound, facts


def read_sound(path: Path) -> np.ndarray:
    """(N,) float32 of a 16 kHz mono file; any other format is an error, as the data has no other."""
    import soundfile

    audio, rate = soundfile.read(path, dtype="float32")
    if rate != 16000 or audio.ndim != 1:
        raise AudioError(f"{path} has {rate} Hz and {audio.ndim} channels. Calibration data is 16 kHz mono.")
    return audio


def clips(data: Path, only: str = "") -> Iterator[Measured]:
    """All clips below `data` whose path contains `only` and that have phones and a measured face."""
    for key, sound, facts in told(data, only):
        track = sound.with_suffix(".npz")
        if not track.is_file():
            continue
        audio = read_sound(sound)
        with np.load(track, allow_pickle=False) as z:
            fps, names, values = float(z["fps"]), [str(n) for n in z["names"]], z["weights"]
        frames = int(np.ceil(len(audio) / 16000 * RATE - 1e-9))
        t, own = np.arange(frames) / RATE, np.arange(len(values)) / fps
        weights = np.full((frames, len(ARKIT_NAMES)), np.nan)
        for j, name in enumerate(names):
            if name in INDEX:
                weights[:, INDEX[name]] = np.interp(t, own, values[:, j])
        yield Measured(key, str(facts.get("speaker")), audio, facts["phones"], weights)


STRENGTH = {"normal": 0.75, "strong": 1.25}


def write_oracle(data: Path, out: Path, only: str, emotion: str | None = None) -> int:
    """Perform every clip from its own phones (and emotion, or the one given), as score_motion.py reads it; how many."""
    count = 0
    for key, sound, facts in told(data, only):
        made = perform(
            facts["phones"], facts.get("stress"), read_sound(sound),
            emotion=emotion or facts.get("emotion") or "neutral",
            intensity=STRENGTH.get(str(facts.get("intensity")), 1.0), seed=count, language=facts.get("language"),
        )  # fmt: skip
        path = out / (key + ".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, names=np.array(ARKIT_NAMES), weights=made.emotional, fps=np.float32(RATE))
        count += 1
    return count


# ---------------------------------------------------------------- fit

FIT = ("base", "stretch", "lead", "power", "vowel", "silence", "rest", "natural_hz")
LIMITS = {
    "base": (0.015, 0.15), "stretch": (0.0, 1.5), "lead": (-0.06, 0.15), "power": (1.0, 2.5), "vowel": (0.3, 4.0),
    "silence": (0.05, 4.0), "rest": (0.0, 0.5), "natural_hz": (3.0, 14.0),
}  # fmt: skip


@dataclass
class Problem:
    """What the search needs of a clip, made once."""

    clip: Measured
    score: Score
    level: np.ndarray
    speech: np.ndarray
    truth: np.ndarray


def prepare(measured: list[Measured], channel: str) -> list[Problem]:
    """channel: 'jaw' fits the lip gap in units of jawOpen; 'pucker' fits mouthPucker plus mouthFunnel."""
    out = []
    for clip in measured:
        rows = canonical(clip.rows)
        frames = len(clip.weights)
        if channel == "jaw":
            truth = clip.gap / GAP_ROW[INDEX["jawOpen"]]
        else:
            truth = np.nan_to_num(clip.weights[:, INDEX["mouthPucker"]] + clip.weights[:, INDEX["mouthFunnel"]])
        out.append(Problem(clip, build_score(rows), loudness(clip.audio, frames), speaking(rows, frames), truth))
    return out


def design(problem: Problem, shape: Dominance, constants: GestureConstants, opening: np.ndarray | float) -> np.ndarray:
    """(F, classes): the track that each class's target of 1 would make."""
    frames = len(problem.truth)
    score = problem.score
    index, weight = pulls(score, frames, shape)
    weight = weight * stress_gain(score, constants)[:, None]
    cell = index * len(CLASSES) + score.kind[:, None]
    table = np.bincount(cell.ravel(), weight.ravel(), frames * len(CLASSES)).reshape(frames, len(CLASSES))
    return smooth(table, shape.natural_hz) * np.reshape(opening, (-1, 1))


def solve(blocks: list[tuple[np.ndarray, np.ndarray]], prior: np.ndarray, ridge: float) -> np.ndarray:
    """Targets (classes,) in [0,1] that explain all blocks of (design, truth), drawn to the prior by `ridge`."""
    a = sum(x.T @ x for x, _ in blocks) + ridge * np.eye(len(prior))
    b = sum(x.T @ y for x, y in blocks) + ridge * prior
    return np.clip(np.linalg.solve(a, b), 0.0, 1.0)


def judge(
    problems: list[Problem], shape: Dominance, constants: GestureConstants, channel: str, ridge: float
) -> tuple[float, float, np.ndarray]:
    """(correlation within the fit, correlation on the speaker left out, targets of all)."""
    blocks = []
    for p in problems:
        opening = open_with(p.level, p.speech, constants.loudness) if channel == "jaw" else 1.0
        blocks.append((design(p, shape, constants, opening), p.truth))
    prior = np.array([constants.targets[c][CHANNEL[channel]] for c in CLASSES])
    scale = np.mean([y.std() for _, y in blocks])
    # one speaker's big mouth must not outvote the others
    level = [y * (scale / max(float(y.std()), 1e-3)) for _, y in blocks]
    scaled = [(x, y) for (x, _), y in zip(blocks, level, strict=True)]
    everyone = solve(scaled, prior, ridge)
    within, outside, seconds = [], [], []
    for i, p in enumerate(problems):
        others = [b for b, q in zip(scaled, problems, strict=True) if q.clip.speaker != p.clip.speaker]
        x, y = blocks[i]
        within.append(_r(x @ everyone, y))
        outside.append(_r(x @ solve(others, prior, ridge), y))
        seconds.append(len(y))
    return float(np.average(within, weights=seconds)), float(np.average(outside, weights=seconds)), everyone


def _r(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 and b.std() > 1e-9 else 0.0


def fit(
    measured: list[Measured], channel: str, constants: GestureConstants, ridge: float = 20.0, steps: int = 250
) -> dict:
    """Search one channel's dominance and the share of loudness; returns what was found with figures."""
    from scipy.optimize import minimize

    group = "jaw" if channel == "jaw" else "round"
    problems = prepare(measured, channel)
    start: Dominance = getattr(constants, group)
    low, high = np.array([LIMITS[k] for k in FIT]).T

    def unpack(x: np.ndarray) -> tuple[Dominance, GestureConstants]:
        value = low + (high - low) / (1 + np.exp(-x[: len(FIT)]))
        shape = Dominance(**{k: float(v) for k, v in zip(FIT, value, strict=True)})
        return shape, dataclasses.replace(constants, loudness=float(1 / (1 + np.exp(-x[-1]))))

    def logit(v: float) -> float:
        v = float(np.clip(v, 0.02, 0.98))
        return float(np.log(v / (1 - v)))

    first = np.array([
        *[logit((getattr(start, k) - a) / (b - a)) for k, a, b in zip(FIT, low, high, strict=True)],
        logit(constants.loudness),
    ])  # fmt: skip
    simplex = np.vstack([first, first + 0.7 * np.eye(len(first)) * np.where(first > 0, -1, 1)[:, None]])
    before = _table_r(problems, constants, channel)
    found = minimize(lambda x: -judge(problems, *unpack(x), channel, ridge)[1], first, method="Nelder-Mead",
                     options={"maxfev": steps, "xatol": 0.02, "fatol": 1e-5, "initial_simplex": simplex})  # fmt: skip
    shape, best = unpack(found.x)
    within, outside, targets = judge(problems, shape, best, channel, ridge)
    return {
        "channel": channel, "before": before, "within": within, "left_out": outside, "shape": shape,
        "loudness": best.loudness, "targets": {c: round(float(v), 3) for c, v in zip(CLASSES, targets, strict=True)},
        "spread": {p.clip.key: (float(p.truth.mean()), float(p.truth.std())) for p in problems},
    }  # fmt: skip


def _table_r(problems: list[Problem], constants: GestureConstants, channel: str) -> float:
    """Correlation of the table as it stands."""
    value, seconds = [], []
    for p in problems:
        track = articulate(p.score, len(p.truth), constants)
        made = track[:, CHANNEL[channel]]
        if channel == "jaw":
            made = made * open_with(p.level, p.speech, constants.loudness)
        value.append(_r(made, p.truth))
        seconds.append(len(p.truth))
    return float(np.average(value, weights=seconds))


# ---------------------------------------------------------------- compare

SHAPES = (
    "jawOpen", "mouthPucker", "mouthFunnel", "mouthClose", "mouthUpperUp", "mouthLowerDown", "mouthRollLower",
    "mouthRollUpper", "mouthPress", "mouthSmile", "mouthStretch", "mouthDimple", "mouthShrugLower", "browInnerUp",
    "browOuterUp",
)  # fmt: skip


def compare(measured: list[Measured]) -> str:
    """Means and spreads over all clips, ours beside the measured ones."""
    ours, theirs = [], []
    for clip in measured:
        ours.append(perform(clip.rows, None, clip.audio).neutral)
        theirs.append(clip.weights)
    lines = ["shape            ours mean   std  | measured mean   std (std within clips)"]
    for name in SHAPES:
        cols = [INDEX[n] for n in (name, name + "Left", name + "Right") if n in INDEX]
        a, b = [x[:, cols].mean(1) for x in ours], [np.nan_to_num(x[:, cols]).mean(1) for x in theirs]
        lines.append(f"{name:16s} {np.mean(np.concatenate(a)):9.3f} {np.mean([x.std() for x in a]):6.3f} | "
                     f"{np.mean(np.concatenate(b)):12.3f} {np.mean([x.std() for x in b]):6.3f}")  # fmt: skip
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lsf_core.training.calibrate", description=__doc__.split("\n")[0])
    parser.add_argument("job", choices=("oracle", "fit", "compare"))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="oracle: where the motion goes")
    parser.add_argument("--only", default="", help="only clips whose path contains this")
    parser.add_argument("--emotion", help="oracle: act with this feeling instead of the clip's own")
    parser.add_argument("--steps", type=int, default=250, help="fit: evaluations of the search")
    a = parser.parse_args(argv)
    if a.job == "oracle":
        if a.out is None:
            parser.error("oracle needs OUT_DIR")
        print(f"{write_oracle(a.data, a.out, a.only, a.emotion)} clips written to {a.out}")
        return 0
    measured = list(clips(a.data, a.only))
    if not measured:
        parser.error(f"no clips with phones and a measured face below {a.data}")
    if a.job == "compare":
        print(compare(measured))
        return 0
    for channel in ("jaw", "pucker"):
        for key, value in fit(measured, channel, GestureConstants(), steps=a.steps).items():
            print(f"{key}: {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
