"""Many clips in one go: a table of sound files to a folder of takes, with one load of the network.

Resumable: a take that is there, made with the same settings, is not made again. Takes and the table of results are
each written whole or not at all, so a run may be stopped at any moment. One line's trouble does not stop the others.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LSFError

if TYPE_CHECKING:
    import numpy as np

    from .animator import Animator

RESULTS = "results.csv"
REQUIRED, OPTIONAL = ("audio", "output"), ("mesh", "fps", "seed")
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
    edits: str = ""
    model: str = ""
    status: str = "waiting"
    frames: str = ""
    seconds: str = ""
    message: str = ""

    def same_take(self, other: Row) -> bool:
        """True if both would give the same motion."""
        keys = ("audio", "mesh", "fps", "seed", "temperature", "emotion_strength", "edits", "model")
        return all(getattr(self, key) == getattr(other, key) for key in keys)


def animate_many(
    manifest: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    fps: float = 30.0,
    seed: int = 0,
    model: str | None = None,
    device: str = "auto",
    temperature: float = 0.0,
    emotion_strength: float = 1.0,
    edits: bool = True,
    overwrite: bool = False,
) -> int:
    """Animate the lines of `manifest` (CSV, see `read_manifest`) into `folder`.

    fps and seed serve lines that have none. Returns 0 if all takes are there, 1 if any failed. Raises LSFError where
    the table, the folder or the checkpoint cannot be used at all.
    """
    from tqdm import tqdm

    table, out = Path(manifest), Path(folder)
    rows = read_manifest(table, fps, seed)
    for row in rows:
        row.temperature, row.emotion_strength = f"{temperature:g}", f"{emotion_strength:g}"
        row.edits, row.model = ("yes" if edits else "no"), model or ""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LSFError(f"Cannot make the folder '{out}' ({error.strerror}). Choose another --out.") from error
    earlier = {row.output: row for row in read_results(out / RESULTS)}

    engine: Animator | None = None
    faces: dict[Path, np.ndarray] = {}
    skipped, written = 0, time.monotonic()
    try:
        bar = tqdm(rows, unit="clip", desc="Animating", file=sys.stderr)
        for row in bar:
            bar.set_postfix_str(row.output[-30:], refresh=False)
            if row.status == "failed":  # the line itself is wrong
                continue
            target, before = out / row.output, earlier.get(row.output)
            known = before is not None and before.status == "done"
            if target.is_file() and not overwrite and (before is None or (known and before.same_take(row))):
                if before is not None:
                    row.frames, row.seconds, row.message = before.frames, before.seconds, before.message
                row.status = "done"
                skipped += 1
                continue
            try:
                begun = time.perf_counter()
                audio, identity = _read_inputs(row, table.parent, faces)
                if engine is None:
                    from .animator import load_model

                    engine = _whole_run(load_model, model, device)
                motion = engine.animate(
                    audio,
                    16_000,
                    identity=identity,
                    fps=float(row.fps),
                    seed=int(row.seed),
                    temperature=temperature,
                    emotion_strength=emotion_strength,
                    edits=edits,
                )
                motion.save(target)
                row.status, row.frames = "done", str(len(motion))
                row.seconds = f"{time.perf_counter() - begun:.2f}"
            except _WholeRunFailed as failure:
                raise failure.error from None
            except Exception as error:  # whatever it is, the other lines go on
                plain = isinstance(error, LSFError)
                row.status = "failed"
                row.message = " ".join((str(error) if plain else f"{type(error).__name__}: {error}").split())
                tqdm.write(f"line {row.line}: error: {row.message}", file=sys.stderr)
            if time.monotonic() - written > _WRITE_EVERY:
                write_results(out / RESULTS, rows)
                written = time.monotonic()
    finally:
        write_results(out / RESULTS, rows)
    failed = sum(row.status == "failed" for row in rows)
    made = sum(row.status == "done" for row in rows) - skipped
    print(f"{out}: {made} made, {skipped} were there, {failed} failed; see {out / RESULTS}")
    return 1 if failed else 0


class _WholeRunFailed(Exception):
    """What stops every line, not only this one: no checkpoint, no such device."""

    def __init__(self, error: LSFError) -> None:
        super().__init__(str(error))
        self.error = error


def _whole_run(load, *arguments) -> Animator:
    try:
        return load(*arguments)
    except LSFError as error:
        raise _WholeRunFailed(error) from error


def read_manifest(path: Path, fps: float, seed: int) -> list[Row]:
    """The lines of a CSV file (UTF-8) with the columns audio and output, and, where wanted, mesh, fps, seed.

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
        row = _row(number, line, fps, seed)
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


def _row(number: int, line: Mapping[str, str | None], fps: float, seed: int) -> Row:
    cell = {name: (line.get(name) or "").strip() for name in REQUIRED + OPTIONAL}
    row = Row(str(number), cell["audio"], cell["output"], cell["mesh"])
    trouble = ""
    for name in REQUIRED:
        if not cell[name]:
            trouble = f"The column {name} is empty. Fill it or take the line out."
    try:
        rate = float(cell["fps"] or fps)
        row.fps = f"{rate:.9g}"
        if not 0 < rate < 1e6:
            raise ValueError
    except ValueError:
        trouble = f"The fps '{cell['fps']}' is not a number above 0."
    try:
        row.seed = str(int(cell["seed"] or seed))
    except ValueError:
        trouble = f"The seed '{cell['seed']}' is not a whole number."
    target = Path(cell["output"])
    if target.suffix.lower() != ".npz":
        target = target.with_name(target.name + ".npz") if cell["output"] else target
    if target.is_absolute() or ".." in target.parts:
        trouble = f"The output '{cell['output']}' leads out of the output folder. Give a path inside it."
    row.output = str(target) if cell["output"] else ""
    if trouble:
        row.status, row.message = "failed", trouble
    return row


def _read_inputs(row: Row, base: Path, faces: dict[Path, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """The line's samples at 16 kHz and its face's identity (None: average); a mesh is read once for all lines."""
    from .audio import check_speech, load_audio

    audio = load_audio(_find(row.audio, base))
    check_speech(audio, f"The sound '{row.audio}'")
    if not row.mesh:
        return audio, None
    mesh = _find(row.mesh, base)
    if mesh not in faces:
        from .face import load_mesh, read_identity

        faces[mesh] = read_identity(*load_mesh(mesh))
    return audio, faces[mesh]


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
