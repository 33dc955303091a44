"""The table of lines, checked: what cannot be used is told line by line before anything is made."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import LSFError
from ..feeling import mix_text, parse_mix
from ..motion import MAX_FPS
from .journal import STATE
from .rows import RESULTS, Row, Settings, bases_of, edits_text, find
from .table import read_table

REQUIRED = ("audio", "output")
OPTIONAL = ("mesh", "character", "language", "fps", "seed", "emotion_from", "emotion_mix", "emotion_strength")
FORMATS = ("npz", "csv")


def read_manifest(path: Path, settings: Settings) -> list[Row]:
    """The lines of a CSV or Parquet file with the columns REQUIRED and, where wanted, OPTIONAL.

    A line that cannot be used comes back with the status `failed` and its message. Raises LSFError if the file cannot
    be read, lacks a column or has no lines.
    """
    table = read_table(path)
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        there = ", ".join(table.columns) or "none"
        raise LSFError(f"The table '{path}' has no column {' and '.join(missing)}; it has: {there}. Add it.")
    if not table.lines:
        raise LSFError(f"The table '{path}' has no lines under its header. Add one line per clip.")
    odd = [name for name in table.columns if name and name not in REQUIRED + OPTIONAL]
    if odd:
        print(f"warning: columns of '{path}' that are not used: {', '.join(odd)}", file=sys.stderr)
    meshes = read_characters(Path(settings.characters)) if settings.characters else None
    edits = edits_text(settings.edits)
    rows, taken = [], dict[str, str]()
    for number, line in table.lines:
        row = _row(number, line, settings, meshes)
        row.temperature, row.edits = f"{settings.temperature:g}", edits
        if row.status != "failed":
            key = os.path.normcase(row.output)
            if key in taken:
                row.fail(f"The output '{row.output}' is that of line {taken[key]} too. Give each line its own.")
            taken.setdefault(key, row.line)
        rows.append(row)
    return rows


def read_characters(path: Path) -> dict[str, str]:
    """The meshes of a table with the columns `character` and `mesh`, by character; a mesh's path is relative to the
    table, or else to the current folder. Raises LSFError where the table cannot be used."""
    table = read_table(path)
    missing = [name for name in ("character", "mesh") if name not in table.columns]
    if missing:
        there = ", ".join(table.columns) or "none"
        raise LSFError(f"The table of characters '{path}' has no column {' and '.join(missing)}; it has: {there}.")
    meshes: dict[str, str] = {}
    for number, line in table.lines:
        name, mesh = line["character"], line["mesh"]
        if not name or not mesh:
            raise LSFError(f"Line {number} of the table of characters '{path}' lacks a name or a mesh. Fill it.")
        if name in meshes:
            raise LSFError(f"The table of characters '{path}' has '{name}' twice, in line {number} again. Keep one.")
        meshes[name] = str(find(mesh, bases_of(path)))
    return meshes


def _row(number: int, line: Mapping[str, str], settings: Settings, meshes: Mapping[str, str] | None) -> Row:
    """A line as it will stand in the results, `failed` with the last trouble that it has."""
    cell = {name: line.get(name, "") for name in REQUIRED + OPTIONAL}
    row = Row(str(number), cell["audio"], mesh=cell["mesh"], character=cell["character"], language=cell["language"])
    for name in REQUIRED:
        if not cell[name]:
            row.fail(f"The column {name} is empty. Fill it or take the line out.")
    if cell["character"] and not cell["mesh"]:
        if meshes is None:
            row.fail(f"Whose face '{cell['character']}' is, is not known. Name a table with the columns character and "
                     "mesh with --characters, or fill the column mesh.")
        elif cell["character"] not in meshes:
            row.fail(f"The table of characters has no '{cell['character']}'. Add it there, or correct the name.")
        else:
            row.mesh = meshes[cell["character"]]
    try:
        rate = float(cell["fps"] or settings.fps)
        row.fps = f"{rate:.9g}"
        if not 0 < rate < MAX_FPS:
            raise ValueError
    except ValueError:
        row.fail(f"The fps '{cell['fps']}' is not a number above 0.")
    try:
        row.seed = str(int(cell["seed"] or settings.seed))
    except ValueError:
        row.fail(f"The seed '{cell['seed']}' is not a whole number.")
    row.emotion_from = cell["emotion_from"] or settings.emotion_from
    try:
        row.emotion_mix = mix_text(parse_mix(cell["emotion_mix"] or settings.emotion_mix))
        strength = float(cell["emotion_strength"] or settings.edits.emotion)
        row.emotion_strength = f"{replace(settings.edits, emotion=strength).emotion:g}"
    except LSFError as error:
        row.fail(str(error))
    except ValueError:
        row.fail(f"The emotion_strength '{cell['emotion_strength']}' is not a number.")
    if cell["output"]:
        _set_output(row, cell["output"], settings.format)
    return row


def _set_output(row: Row, text: str, usual: str) -> None:
    """The output decides its format by its suffix; one without is of the usual format."""
    target = Path(text)
    if target.suffix.lower()[1:] not in FORMATS:
        target = target.with_name(f"{target.name}.{usual}")
    row.output = str(target)
    if target.is_absolute() or ".." in target.parts:
        row.fail(f"The output '{text}' leads out of the output folder. Give a path inside it.")
    elif row.output.lower() in RESULTS or target.parts[0] == STATE:
        row.fail(f"The output '{text}' is the name of a file that the run itself keeps. Give it another one.")
