"""Maker: lines to takes. While the network works on one group, the next one's sounds are read and the last one's takes
are finished and written."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arkit import IDENTITY_DIM
from ..errors import LSFError
from ..feeling import Feeling, emotion_shares, parse_mix
from .finish import Sound, read_face, read_sound, write_take
from .helpers import Helpers, Task
from .journal import Journal, recover
from .rows import Job, Row, find

_MOST_PROCESSES = 32  # more serve one network no better
_CAREFUL_AFTER, _CAREFUL_TRIES = 2, 2  # deaths until lines are made one by one, and then until a line is left out


@dataclass
class _Line:
    """A line that the network can take: sound, identity (32,), feeling."""

    row: Row
    sound: Sound
    identity: np.ndarray
    feeling: Feeling


class Maker:
    """Makes the takes of any number of lines with one load of the network. A context manager.

    cores: how many it may use (None: all that the process has). processes: for the work before and after the
    network; None: one a core beside a graphics card, which could not be fed otherwise, and none (but threads) beside a
    network on the CPU, which has the cores itself. Raises ModelError if the checkpoint or the device cannot be used.
    """

    def __init__(self, job: Job, cores: int | None = None, processes: int | None = None) -> None:
        from ..animator import load_model

        self.job = job
        self.engine = load_model(job.settings.model, job.settings.device)
        cores = cores or available_cores()
        if processes is None:
            processes = 0 if self.engine.device.type == "cpu" else min(cores, _MOST_PROCESSES)
        self._helpers = Helpers(processes, threads=max(2, cores))
        self._faces: dict[Path, Task[np.ndarray]] = {}
        self._heard: dict[Path, np.ndarray] = {}  # the emotions of references

    def __enter__(self) -> Maker:
        return self

    def __exit__(self, *_: object) -> None:
        self._helpers.__exit__()

    def make(self, groups: Sequence[Sequence[Row]], name: str) -> Iterator[Row]:
        """Make the lines' takes, group by group; yields each line once, `done` or `failed`.

        name: what the work is called in its journals. Takes that an earlier attempt at it made are not made again. If
        the process died in several attempts, lines are made one by one, and those at which it dies then are left out.
        """
        earlier = recover(self.job.out, name)
        journal = Journal(self.job.out, name)
        done = {row.line: row for row in earlier.done}
        due = deque([row for row in group if row.line not in done] for group in groups)
        careful = earlier.attempts >= _CAREFUL_AFTER
        if careful:
            due = deque([row] for group in due for row in group)
        reading: deque[list[tuple[Row, Task[Sound]]]] = deque()
        writing: list[tuple[Row, Task[int]]] = []
        try:
            yield from done.values()
            while due or reading:
                if careful and earlier.begun[due[0][0].line] >= _CAREFUL_TRIES:
                    yield _left_out(due.popleft()[0])
                    continue
                while due and len(reading) < (1 if careful else 2):
                    reading.append([(row, self._read(row, journal if careful else None)) for row in due.popleft()])
                failed, lines = self._collect(reading.popleft())
                begun = time.perf_counter()
                unmade, started = self._animate(lines, journal)
                for line in lines:
                    line.row.seconds = f"{(time.perf_counter() - begun) / len(lines):.3f}"
                yield from failed + unmade
                yield from _written(writing, journal)
                writing = started
                if careful:
                    yield from _written(writing, journal)
                    writing = []
            yield from _written(writing, journal)
        finally:
            journal.close()

    def _read(self, row: Row, journal: Journal | None) -> Task[Sound]:
        """Begin to read a line's sound, and its face if no line before had it; note that in the journal, if any."""
        if journal:
            journal.begin(row.line)
        if row.mesh:
            mesh = find(row.mesh, self.job.bases)
            if mesh not in self._faces:
                self._faces[mesh] = self._helpers.start(read_face, mesh)
        return self._helpers.start(read_sound, row, self.job.bases)

    def _collect(self, reading: Sequence[tuple[Row, Task[Sound]]]) -> tuple[list[Row], list[_Line]]:
        """Lines that have failed, and those that are ready for the network."""
        failed, lines = [], []
        for row, sound in reading:
            try:
                identity = np.zeros(IDENTITY_DIM, np.float32)
                if row.mesh:
                    identity = self._faces[find(row.mesh, self.job.bases)].result()
                lines.append(_Line(row, sound.result(), identity, self._feeling(row)))
                row.inputs = lines[-1].sound.inputs
            except Exception as error:  # whatever it is, the other lines go on
                failed.append(_failed(row, error))
        return failed, lines

    def _feeling(self, row: Row) -> Feeling:
        """Whose emotion a line shows; a reference is heard once for all lines that name it."""
        shares = emotion_shares(parse_mix(row.emotion_mix))
        if not row.emotion_from:
            return Feeling(None, shares)
        path = find(row.emotion_from, self.job.bases)
        if path not in self._heard:
            self._heard[path] = self.engine.hear_emotion(path)
        return Feeling(self._heard[path], shares)

    def _animate(self, lines: Sequence[_Line], journal: Journal) -> tuple[list[Row], list[tuple[Row, Task[int]]]]:
        """The network for all lines at once; returns those that failed, and the writing of the others' takes, begun."""
        if not lines:
            return [], []
        settings = self.job.settings
        try:
            raws = self.engine.raw_weights(
                [line.sound.samples for line in lines], np.stack([line.identity for line in lines]),
                [int(line.row.seed) for line in lines], settings.temperature, None, [line.feeling for line in lines],
            )  # fmt: skip
        except Exception as error:
            if len(lines) == 1:
                return [_failed(lines[0].row, error)], []
            # Such as too little memory for all of them, or one that the network cannot take: halves until it is alone.
            failed, started = [], []
            for half in (lines[:len(lines) // 2], lines[len(lines) // 2:]):
                some_failed, some_started = self._animate(half, journal)
                failed += some_failed
                started += some_started
            return failed, started
        return [], [(line.row, self._helpers.start(write_take, raw, line.row, settings, journal.aside(line.row.output)))
                    for line, raw in zip(lines, raws, strict=True)]


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _written(writing: Sequence[tuple[Row, Task[int]]], journal: Journal) -> list[Row]:
    """Wait for takes to be written and bring them to their places; the lines, each `done` or `failed`."""
    done, failed = [], []
    try:
        for row, frames in writing:
            try:
                row.frames = str(frames.result())
                done.append(row)
            except Exception as error:
                failed.append(_failed(row, error))
    finally:  # what was finished when the user stopped the run is kept
        for row in done:
            row.status = "done"
        journal.enter(done)
    return done + failed


def _failed(row: Row, error: Exception) -> Row:
    row.fail(str(error) if isinstance(error, LSFError) else f"{type(error).__name__}: {error}")
    return row


def _left_out(row: Row) -> Row:
    row.fail("The process that made it died each time: out of memory, or a damaged file. Look at its files, then run "
             "the same command again.")
    return row
