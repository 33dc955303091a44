"""Many clips in one go: a table of sound files to a folder of takes, with one load of the network.

Resumable: a take that is there, made with the same settings, is not made again. Takes and the table of results are
each written whole or not at all, so a run may be stopped at any moment. One line's trouble does not stop the others.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .arkit import IDENTITY_DIM
from .audio import SAMPLE_RATE, check_speech, load_audio
from .edits import DEFAULT, NONE, EditSettings
from .errors import LSFError
from .feeling import AS_HEARD, Feeling, emotion_shares, mix_text, parse_mix
from .motion import MAX_FPS

if TYPE_CHECKING:
    from .animator import Animator

RESULTS = "results.csv"
REQUIRED, OPTIONAL = ("audio", "output"), ("mesh", "fps", "seed", "emotion_from", "emotion_mix")
_GROUP = 16  # lines animated together,
_GROUP_SAMPLES = 240 * SAMPLE_RATE  # or so much sound, whichever comes first: bounds the memory
_WRITE_EVERY = 2.0  # seconds between writes of the table: with 10,000 lines each write is a megabyte


@dataclass
class Row:
    """One line of the table of results: the settings of a take, and what became of it."""

    line: str = ""
    audio: str = ""
    output: str = ""
    mesh: str = ""
    fps: str = ""
    seed: str = ""
    temperature: str = ""
    emotion_strength: str = ""
    emotion_from: str = ""
    emotion_mix: str = ""
    edits: str = ""
    model: str = ""
    status: str = "waiting"
    frames: str = ""
    seconds: str = ""
    message: str = ""

    @property
    def is_due(self) -> bool:
        """Still to be made. `stale`: there is a take, but of other settings, and it must never pass for this one."""
        return self.status in ("waiting", "stale")

    def same_take(self, other: Row) -> bool:
        """True if both would give the same motion."""
        keys = ("audio", "mesh", "fps", "seed", "temperature", "emotion_strength", "emotion_from", "emotion_mix",
                "edits", "model")
        return all(getattr(self, key) == getattr(other, key) for key in keys)


@dataclass(frozen=True)
class Settings:
    """What holds for all lines; see `Animator.animate`. fps, seed, emotion_from and emotion_mix (as `parse_mix` reads
    it) serve lines that have none of their own."""

    fps: float = 30.0
    seed: int = 0
    model: str | None = None
    device: str = "auto"
    temperature: float = 0.0
    edits: EditSettings = DEFAULT
    emotion_from: str = ""
    emotion_mix: str = ""
    overwrite: bool = False


def animate_many(manifest: str | os.PathLike[str], folder: str | os.PathLike[str], settings: Settings) -> int:
    """Animate the lines of `manifest` (CSV, see `read_manifest`) into `folder`.

    Returns 0 if all takes are there, 1 if any failed. Raises LSFError where the table, the folder or the checkpoint
    cannot be used at all.
    """
    from tqdm import tqdm

    table, out = Path(manifest), Path(folder)
    parse_mix(settings.emotion_mix)
    rows = read_manifest(table, settings)
    for row in rows:
        row.temperature, row.emotion_strength = f"{settings.temperature:g}", f"{settings.edits.emotion:g}"
        row.edits, row.model = edits_text(settings.edits), settings.model or ""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LSFError(f"Cannot make the folder '{out}' ({error.strerror}). Choose another --out.") from error
    there = 0 if settings.overwrite else mark_finished(rows, out)
    todo = [row for row in rows if row.is_due]
    for row in todo:
        if (out / row.output).is_file():
            row.status = "stale"
    maker, written = _Maker(table.parent, out, settings), time.monotonic()
    try:
        with tqdm(total=len(rows), initial=len(rows) - len(todo), unit="clip", file=sys.stderr) as bar:
            for row in todo:
                maker.add(row)
                if maker.is_full or row is todo[-1]:
                    for done in maker.make():
                        bar.update()
                        if done.status == "failed":
                            tqdm.write(f"line {done.line}: error: {done.message}", file=sys.stderr)
                if time.monotonic() - written > _WRITE_EVERY:
                    write_results(out / RESULTS, rows)
                    written = time.monotonic()
    finally:
        write_results(out / RESULTS, rows)
    failed = [row for row in rows if row.status == "failed"]
    made = len(rows) - len(failed) - there
    print(f"{out}: {made} made, {there} were there, {len(failed)} failed; see {out / RESULTS}")
    return 1 if failed else 0


def mark_finished(rows: list[Row], out: Path) -> int:
    """Set the status of lines whose take is in `out`, made with the same settings, to `done`; returns how many."""
    earlier = {row.output: row for row in read_results(out / RESULTS)}
    count = 0
    for row in rows:
        before = earlier.get(row.output)
        # A take without an entry is whole all the same (it appears by renaming): the run ended before its table did.
        trusted = before is None or before.status == "waiting" or (before.status == "done" and before.same_take(row))
        if row.status == "waiting" and trusted and (out / row.output).is_file():
            row.status = "done"
            if before is not None:
                row.frames, row.seconds = before.frames, before.seconds
            count += 1
    return count


def edits_text(edits: EditSettings) -> str:
    """How the table tells the edits: yes (the usual ones), no, or what of them is not as usual. Emotion apart."""
    edits = replace(edits, emotion=DEFAULT.emotion)
    if edits in (DEFAULT, NONE):
        return "yes" if edits == DEFAULT else "no"
    usual = DEFAULT.to_dict()
    return json.dumps({name: value for name, value in edits.to_dict().items() if value != usual[name]})


@dataclass
class _Line:
    """A line that can be made: samples (N,) at 16 kHz, identity (32,)."""

    row: Row
    audio: np.ndarray
    identity: np.ndarray
    feeling: Feeling = AS_HEARD


class _Maker:
    """Collects lines and animates them together: the windows of several clips go through the network as one batch."""

    def __init__(self, base: Path, out: Path, settings: Settings) -> None:
        self.base, self.out, self.settings = base, out, settings
        self.engine: Animator | None = None
        self.faces: dict[Path, np.ndarray] = {}
        self.heard: dict[Path, np.ndarray] = {}  # the emotions of references
        self.ready: list[_Line] = []
        self.failed: list[Row] = []

    @property
    def is_full(self) -> bool:
        return len(self.ready) >= _GROUP or sum(len(line.audio) for line in self.ready) > _GROUP_SAMPLES

    def add(self, row: Row) -> None:
        """Read a line's sound and face, or note why they cannot be used."""
        try:
            audio = load_audio(_find(row.audio, self.base))
            check_speech(audio, f"The sound '{row.audio}'")
            identity = self._face(row.mesh) if row.mesh else np.zeros(IDENTITY_DIM, np.float32)
            self.ready.append(_Line(row, audio, identity))
        except Exception as error:  # whatever it is, the other lines go on
            self._fail(row, error)

    def make(self) -> list[Row]:
        """Animate and save what was added; returns the lines, each now `done` or `failed`."""
        ready, failed = self.ready, self.failed
        self.ready, self.failed = [], []
        if ready and self.engine is None:
            from .animator import load_model

            self.engine = load_model(self.settings.model, self.settings.device)
        for line in ready:
            try:
                line.feeling = self._feeling(line.row)
            except Exception as error:
                self._fail(line.row, error)
        try:
            self._animate([line for line in ready if line.row.is_due])
        except Exception:  # such as too little memory for all of them at once
            for single in [line for line in ready if line.row.is_due]:
                try:
                    self._animate([single])
                except Exception as error:
                    self._fail(single.row, error)
        failed += self.failed
        self.failed = []
        return [*(line.row for line in ready if line.row.status == "done"), *failed]

    def _animate(self, lines: list[_Line]) -> None:
        """What `Animator.animate` does for one clip, for several."""
        if not lines or self.engine is None:
            return
        begun, settings = time.perf_counter(), self.settings
        clips, seeds = [line.audio for line in lines], [int(line.row.seed) for line in lines]
        identities, feelings = np.stack([line.identity for line in lines]), [line.feeling for line in lines]
        raws = self.engine.raw_weights(clips, identities, seeds, settings.temperature, None, feelings)
        for row, raw in zip([line.row for line in lines], raws, strict=True):
            motion = raw.finish(settings.edits, fps=float(row.fps), seed=int(row.seed))
            motion.save(self.out / row.output)
            row.status, row.frames = "done", str(len(motion))
            row.seconds = f"{(time.perf_counter() - begun) / len(lines):.2f}"

    def _face(self, name: str) -> np.ndarray:
        """The identity of a mesh, read once for all lines that name it."""
        mesh = _find(name, self.base)
        if mesh not in self.faces:
            from .face import load_mesh, read_identity

            self.faces[mesh] = read_identity(*load_mesh(mesh))
        return self.faces[mesh]

    def _feeling(self, row: Row) -> Feeling:
        """Whose emotion a line shows; a reference is heard once for all lines that name it."""
        shares = emotion_shares(parse_mix(row.emotion_mix))
        if not row.emotion_from or self.engine is None:
            return Feeling(None, shares)
        path = _find(row.emotion_from, self.base)
        if path not in self.heard:
            self.heard[path] = self.engine.hear_emotion(path)
        return Feeling(self.heard[path], shares)

    def _fail(self, row: Row, error: Exception) -> None:
        text = str(error) if isinstance(error, LSFError) else f"{type(error).__name__}: {error}"
        row.status, row.message = "failed", " ".join(text.split())
        self.failed.append(row)


def read_manifest(path: Path, settings: Settings) -> list[Row]:
    """The lines of a CSV file (UTF-8) with the columns REQUIRED and, where wanted, OPTIONAL.

    A line that cannot be used comes back with the status `failed` and its message. Raises LSFError if the file cannot
    be read, lacks a column or has no lines.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [(name or "").strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            lines = [(reader.line_num, line) for line in reader if any(_cells(line))]
    except OSError as error:
        raise LSFError(f"The table cannot be read: '{path}' ({error.strerror}). Check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LSFError(f"The table is not a CSV file in UTF-8: '{path}' ({error}). Save it as such.") from error
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        there = ", ".join(columns) or "none"
        raise LSFError(f"The table '{path}' has no column {' and '.join(missing)}; it has: {there}. Add it.")
    if not lines:
        raise LSFError(f"The table '{path}' has no lines under its header. Add one line per clip.")
    odd = [name for name in columns if name and name not in REQUIRED + OPTIONAL]
    if odd:
        print(f"warning: columns of '{path}' that are not used: {', '.join(odd)}", file=sys.stderr)
    rows, taken = [], dict[str, str]()
    for number, line in lines:
        row = _row(number, line, settings)
        if row.status != "failed":
            key = os.path.normcase(row.output)
            if key in taken:
                row.status = "failed"
                row.message = f"The output '{row.output}' is that of line {taken[key]} too. Give each line its own."
            taken.setdefault(key, row.line)
        rows.append(row)
    return rows


def _cells(line: Mapping[str | None, object]) -> Iterable[str]:
    return [cell.strip() for key, cell in line.items() if key is not None and isinstance(cell, str)]


def _row(number: int, line: Mapping[str, str | None], settings: Settings) -> Row:
    cell = {name: (line.get(name) or "").strip() for name in REQUIRED + OPTIONAL}
    row = Row(str(number), cell["audio"], cell["output"], cell["mesh"])
    trouble = ""
    for name in REQUIRED:
        if not cell[name]:
            trouble = f"The column {name} is empty. Fill it or take the line out."
    try:
        rate = float(cell["fps"] or settings.fps)
        row.fps = f"{rate:.9g}"
        if not 0 < rate < MAX_FPS:
            raise ValueError
    except ValueError:
        trouble = f"The fps '{cell['fps']}' is not a number above 0."
    try:
        row.seed = str(int(cell["seed"] or settings.seed))
    except ValueError:
        trouble = f"The seed '{cell['seed']}' is not a whole number."
    row.emotion_from = cell["emotion_from"] or settings.emotion_from
    try:
        row.emotion_mix = mix_text(parse_mix(cell["emotion_mix"] or settings.emotion_mix))
    except LSFError as error:
        trouble = str(error)
    target = Path(cell["output"])
    if target.suffix.lower() != ".npz":
        target = target.with_name(target.name + ".npz") if cell["output"] else target
    if target.is_absolute() or ".." in target.parts:
        trouble = f"The output '{cell['output']}' leads out of the output folder. Give a path inside it."
    row.output = str(target) if cell["output"] else ""
    if trouble:
        row.status, row.message = "failed", trouble
    return row


def _find(name: str, base: Path) -> Path:
    """A path of the table: relative to the table, or else to the current folder."""
    beside = base / name
    return Path(name) if not beside.exists() and Path(name).exists() else beside


def read_results(path: Path) -> list[Row]:
    """The table of an earlier run; empty if there is none or it is not one of ours."""
    names = [field.name for field in fields(Row)]
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [Row(**{name: line.get(name) or "" for name in names}) for line in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def write_results(path: Path, rows: list[Row]) -> None:
    """Write the table whole or not at all. Raises LSFError where it cannot be written."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
        os.replace(part, path)
    except OSError as error:
        raise LSFError(f"Cannot write '{path}' ({error.strerror}). Choose a folder that can be written.") from error
    finally:
        part.unlink(missing_ok=True)
