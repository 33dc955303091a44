"""Tables as CSV (UTF-8) or Parquet. Cells are texts on our side; Parquet's numbers are turned into texts and back."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LSFError
from ..wholefile import whole_file

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Table:
    """columns: their names in order; lines: (number, cells by column), the number as an editor shows it: the line of a
    CSV file, where the header is 1, the row of a Parquet file, from 1."""

    columns: list[str]
    lines: list[tuple[int, dict[str, str]]]


def is_parquet(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() in PARQUET


def read_table(path: Path) -> Table:
    """Every line that has a cell which is not empty, stripped. Raises LSFError if the file cannot be read."""
    try:
        table = _read_parquet(path) if is_parquet(path) else _read_csv(path)
    except OSError as error:
        reason = error.strerror or error
        raise LSFError(f"The table cannot be read: '{path}' ({reason}). Check the path.") from error
    lines = [(number, {key: cell.strip() for key, cell in line.items()}) for number, line in table.lines]
    return Table(table.columns, [(number, line) for number, line in lines if any(line.values())])


def write_table(path: Path, columns: Mapping[str, type], rows: Iterable[Sequence[str]]) -> None:
    """Write rows of cells, whole or not at all. columns: the type that each has in Parquet: str, int or float.

    Raises LSFError where the file cannot be written.
    """
    with whole_file(path) as part:
        (_write_parquet if is_parquet(path) else _write_csv)(part, columns, rows)


def need_pyarrow() -> Any:
    """pyarrow with its parquet part. Raises LSFError with the cure where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise LSFError(f"Parquet tables need pyarrow, which '{sys.executable}' lacks ({error}). Install it there, "
                       "'python -m pip install pyarrow' (requirements.txt names the version that is tested), or use a "
                       "CSV file.") from error
    return pyarrow


def _read_csv(path: Path) -> Table:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [(name or "").strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            # A line with more cells than the header has a key None, one with fewer has cells None.
            return Table(columns, [(reader.line_num, {key: cell or "" for key, cell in line.items() if key is not None})
                                   for line in reader])
    except (UnicodeDecodeError, csv.Error) as error:
        raise LSFError(f"The table is not a CSV file in UTF-8: '{path}' ({error}). Save it as such.") from error


def _write_csv(path: Path, columns: Mapping[str, type], rows: Iterable[Sequence[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _read_parquet(path: Path) -> Table:
    pyarrow = need_pyarrow()
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise LSFError(f"The table is not a Parquet file: '{path}' ({error}). Save it as such.") from error
    columns = [name.strip() for name in table.column_names]
    lines, number = [], 0
    for batch in table.to_batches(max_chunksize=10_000):
        for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number += 1
            lines.append((number, {name: _text(cell) for name, cell in zip(columns, cells, strict=True)}))
    return Table(columns, lines)


def _write_parquet(path: Path, columns: Mapping[str, type], rows: Iterable[Sequence[str]]) -> None:
    pyarrow = need_pyarrow()
    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    lists = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrays = [pyarrow.array([_value(cell, kind) for cell in cells], field.type)
              for cells, kind, field in zip(lists, columns.values(), schema, strict=True)]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), path)


def _text(cell: object) -> str:
    """A cell of Parquet as CSV would have it; None and NaN, which is how pandas says nothing, are empty."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float):  # a column of whole numbers with gaps comes from pandas as floats: 3.0 is meant as 3
        return str(int(cell)) if cell.is_integer() and abs(cell) < 2**53 else f"{cell:.9g}"
    return str(cell)


def _value(cell: str, kind: type) -> object:
    """A cell for Parquet: text stays text, also where it is empty; a number that is none is left out."""
    try:
        return kind(cell)
    except ValueError:
        return None
