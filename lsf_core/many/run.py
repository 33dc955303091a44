"""animate-many as a whole: what is there already, what is due, who makes it, and the table of results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..errors import ModelError
from ..feeling import parse_mix
from ..versions import checkpoint_path
from .journal import forget, held, recover
from .manifest import read_manifest
from .plan import groups, lengths
from .rows import (
    Job,
    Row,
    Settings,
    bases_of,
    digest,
    inputs_of,
    is_unchanged,
    read_results,
    results_path,
    write_results,
)

_WRITE_EVERY = 2.0  # seconds between writes of the table of results while a run lasts,
_WRITE_SHARE = 0.02  # or as many as keep them to this share of the time: 100,000 lines take half a second each
_READERS = 16

Workers = Callable[[Job, list[list[Row]], list[float]], Iterator[Row]]
"""Makes groups of lines, whose seconds of sound are given too; yields each line once, `done` or `failed`."""


def animate_many(manifest: str | os.PathLike[str], folder: str | os.PathLike[str], settings: Settings,
                 workers: Workers | None = None) -> int:
    """Animate the lines of `manifest` (see `read_manifest`) into `folder`. workers: who makes them; None: this process.

    Returns 0 if all takes are there, 1 if any failed. Raises LSFError where the table, the folder or the checkpoint
    cannot be used at all.
    """
    from tqdm import tqdm

    table, out = Path(manifest).absolute(), Path(folder).absolute()
    parse_mix(settings.emotion_mix)
    rows = read_manifest(table, settings)
    results, model = results_path(out, table, settings), describe_model(settings.model)
    checkpoint = settings.model and str(Path(settings.model).absolute())
    job = Job(bases_of(table), out, replace(settings, model=checkpoint))
    for row in rows:
        row.model = model
    with held(out):
        there = mark_finished(rows, job, recover(out).done)
        write_results(results, rows)  # first the table, then the journals: what either says must not be lost
        forget(out)
        todo = [row for row in rows if row.is_due]
        by_line = {row.line: row for row in rows}
        written, pause = time.monotonic(), _WRITE_EVERY
        try:
            with tqdm(total=len(rows), initial=len(rows) - len(todo), unit="clip", file=sys.stderr) as bar:
                for row in rows:
                    if row.status == "failed":
                        tqdm.write(f"line {row.line}: error: {row.message}", file=sys.stderr)
                for done in make(todo, job, workers or here):
                    _take_over(by_line[done.line], done)
                    bar.update()
                    if done.status == "failed":
                        tqdm.write(f"line {done.line}: error: {done.message}", file=sys.stderr)
                    if time.monotonic() - written > pause:
                        begun = time.monotonic()
                        write_results(results, rows)
                        written = time.monotonic()
                        pause = max(_WRITE_EVERY, (written - begun) / _WRITE_SHARE)
        finally:
            write_results(results, rows)
        forget(out)
    failed = sum(row.status == "failed" for row in rows)
    print(f"{folder}: {len(rows) - failed - there} made, {there} were there, {failed} failed; see {results}")
    return 1 if failed else 0


def describe_model(path: str | None) -> str:
    """Name and contents of a checkpoint, by the name of its version or by path, None for the one that ships. Raises
    ModelError if there is none."""
    where = checkpoint_path(path)
    try:
        return f"{where.name} {digest(where)}"
    except OSError as error:
        raise ModelError(f"No checkpoint at {where} ({error.strerror}). Check the path.") from error


def make(rows: Sequence[Row], job: Job, workers: Workers) -> Iterator[Row]:
    """Have the rows made in groups of about one length."""
    if not rows:
        return
    seconds = lengths(rows, job.bases)
    by_line = {row.line: length for row, length in zip(rows, seconds, strict=True)}
    planned = groups(rows, seconds)
    yield from workers(job, planned, [sum(by_line[row.line] for row in group) for group in planned])


def here(job: Job, planned: list[list[Row]], seconds: list[float]) -> Iterator[Row]:
    """The workers of one machine: this process."""
    from .maker import Maker

    with Maker(job) as maker:
        yield from maker.make(planned, "here")


def mark_finished(rows: list[Row], job: Job, recovered: list[Row]) -> int:
    """Set the status of lines whose take is in the folder to `done` where it is still the right one, to `stale` where
    it is not; returns how many are done. recovered: takes that are not in the table of results yet."""
    earlier = {row.output: row for row in [*read_results(job.out), *recovered]}

    def judge(row: Row) -> bool:
        if row.status != "waiting" or not (job.out / row.output).is_file():
            return False
        before = earlier.get(row.output)
        if job.settings.overwrite or (before is not None and not _is_same(before, row, job.bases)):
            row.status = "stale"
            return False
        row.status = "done"
        if before is None:
            row.message = "It was there before, and no table tells what made it; --overwrite makes it anew."
        else:
            row.inputs, row.frames, row.seconds = before.inputs, before.frames, before.seconds
            row.message = before.message
        return True

    with ThreadPoolExecutor(_READERS) as pool:
        return sum(pool.map(judge, rows, chunksize=64))


def _is_same(before: Row, row: Row, bases: tuple[Path, ...]) -> bool:
    """Whether the take that `before` tells of is the one that `row` asks for."""
    if before.status != "done" or not before.same_settings(row):
        return False
    paths, states = inputs_of(row, bases), before.inputs.split()
    if not states:  # nothing is known of how it was made, see `mark_finished`
        return True
    return len(paths) == len(states) and all(map(is_unchanged, paths, states))


def _take_over(row: Row, done: Row) -> None:
    """What a worker says of a line, into the table; the worker may be another process with a row of its own."""
    row.status, row.message, row.inputs = done.status, done.message, done.inputs
    row.frames, row.seconds = done.frames, done.seconds
