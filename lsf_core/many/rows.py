"""A line of the table of results: the settings of a take and what became of it; and what holds for all lines."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..edits import DEFAULT, NONE, EditSettings
from ..errors import LSFError
from .table import is_parquet, need_pyarrow, read_table, write_table

RESULTS = ("results.csv", "results.parquet")


@dataclass(slots=True)
class Row:
    """One line, all of it text.

    line: its number in the manifest; audio, mesh, emotion_from: paths as they are told to the user, relative to the
    manifest or not; output: relative to the folder of takes, with its suffix; model: name and contents of the
    checkpoint; edits: see `edits_text`; inputs: the `file_state` of audio, mesh and emotion_from when the take was
    made; status: waiting, stale, done or failed; seconds: what its making took, its share of those made with it.
    """

    line: str = ""
    audio: str = ""
    output: str = ""
    mesh: str = ""
    character: str = ""
    language: str = ""
    fps: str = ""
    seed: str = ""
    temperature: str = ""
    emotion_strength: str = ""
    emotion_from: str = ""
    emotion_mix: str = ""
    edits: str = ""
    model: str = ""
    inputs: str = ""
    status: str = "waiting"
    frames: str = ""
    seconds: str = ""
    message: str = ""

    @property
    def is_due(self) -> bool:
        """Still to be made. `stale`: there is a take, but of other settings, and it must never pass for this one."""
        return self.status in ("waiting", "stale")

    def fail(self, message: str) -> None:
        self.status, self.message = "failed", " ".join(message.split())

    def same_settings(self, other: Row) -> bool:
        """True if both would give the same motion as long as the files that they name are the same."""
        keys = ("audio", "mesh", "fps", "seed", "temperature", "emotion_strength", "emotion_from", "emotion_mix",
                "edits", "model")
        return all(getattr(self, key) == getattr(other, key) for key in keys)

    def to_json(self) -> str:
        return json.dumps({field.name: value for field in fields(self) if (value := getattr(self, field.name))})

    @staticmethod
    def from_json(text: str) -> Row:
        return Row(**json.loads(text))


COLUMNS: dict[str, type] = {field.name: str for field in fields(Row)} | {
    "line": int, "fps": float, "seed": int, "temperature": float, "emotion_strength": float, "frames": int,
    "seconds": float,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What holds for all lines; see `Animator.animate`. fps, seed, emotion_from and emotion_mix (as `parse_mix` reads
    it) serve lines that have none of their own, as do the emotion's strength in `edits` and the format."""

    fps: float = 30.0
    seed: int = 0
    model: str | None = None
    device: str = "auto"
    temperature: float = 0.0
    edits: EditSettings = DEFAULT
    emotion_from: str = ""
    emotion_mix: str = ""
    overwrite: bool = False
    format: str = "npz"
    characters: str | None = None
    results: str | None = None
    """csv or parquet; None for what the manifest is."""


@dataclass(frozen=True)
class Job:
    """What a process that makes takes has to know, wherever it runs. bases: what the paths of lines may be relative to;
    out: the folder of takes; all absolute."""

    bases: tuple[Path, ...]
    out: Path
    settings: Settings


def edits_text(edits: EditSettings) -> str:
    """How the table tells the edits: yes (the usual ones), no, or what of them is not as usual. Emotion apart."""
    edits = replace(edits, emotion=DEFAULT.emotion)
    if edits in (DEFAULT, NONE):
        return "yes" if edits == DEFAULT else "no"
    usual = DEFAULT.to_dict()
    return json.dumps({name: value for name, value in edits.to_dict().items() if value != usual[name]})


def bases_of(table: Path) -> tuple[Path, ...]:
    """What the paths in a table may be relative to: the table, or else the current folder."""
    return table.absolute().parent, Path.cwd()


def find(name: str, bases: tuple[Path, ...]) -> Path:
    """The file that a path in a table means: the first that there is, or else what it would be beside the table."""
    return next((path for base in bases if (path := base / name).exists()), bases[0] / name)


# ---------------------------------------------------------------- files that a take is made from


def digest(path: Path) -> str:
    """The contents of a file in 12 letters."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:12]


def file_state(path: Path) -> str:
    """Size, time and contents of a file, so that `is_unchanged` can tell later whether it is still the same; a dash
    where it cannot be read, which is told where it is used."""
    try:
        stat = path.stat()
        return f"{stat.st_size}-{stat.st_mtime_ns}-{digest(path)}"
    except OSError:
        return "-"


def is_unchanged(path: Path, state: str) -> bool:
    """Whether a file is what it was when `file_state` was taken; one that is not there any more counts as unchanged,
    as sounds may be archived after their takes were made. Its contents are read only where its time is another."""
    try:
        stat = path.stat()
        size, time, contents = state.split("-")
        if stat.st_size != int(size):
            return False
        return stat.st_mtime_ns == int(time) or digest(path) == contents
    except OSError:
        return True
    except ValueError:  # a table that somebody edited
        return False


def inputs_of(row: Row, bases: tuple[Path, ...]) -> list[Path]:
    """The files that a line's take is made from."""
    return [find(name, bases) for name in (row.audio, row.mesh, row.emotion_from) if name]


# ---------------------------------------------------------------- the table of results


def read_results(folder: Path) -> list[Row]:
    """The table of an earlier run, the newer one where there are both kinds; empty if there is none of ours."""
    found = [path for name in RESULTS if (path := folder / name).is_file()]
    if not found:
        return []
    newest = max(found, key=lambda path: path.stat().st_mtime_ns)
    if is_parquet(newest):
        need_pyarrow()
    try:
        lines = [line for _, line in read_table(newest).lines]
    except LSFError:
        return []
    return [Row(**{name: line.get(name) or "" for name in COLUMNS}) for line in lines]


def results_path(folder: Path, manifest: Path, settings: Settings) -> Path:
    parquet = is_parquet(manifest) if settings.results is None else settings.results == "parquet"
    return folder / RESULTS[parquet]


def write_results(path: Path, rows: list[Row]) -> None:
    """Write the table whole or not at all. Raises LSFError where it cannot be written."""
    names = tuple(COLUMNS)
    write_table(path, COLUMNS, ([getattr(row, name) for name in names] for row in rows))

