"""What makes a run survive being killed at any moment, on any machine, without losing or repeating a take.

Each take is 1. written to a file of its own aside, 2. entered in a journal, 3. renamed to its place. So a file in its
place always has its entry, and an entry whose file is still aside only needs the renaming: `recover` does that, and the
take is not made again. Killed before 2., the take is made again and nobody has seen the first one.

All of it lies in one folder, STATE, in the folder of takes, and is gone at the end of a run. Every process that makes
takes has a journal and a folder of files of its own, so none waits for another; a run that goes over several machines
needs no more than a file system that they share.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import LSFError
from .rows import Row

STATE = ".animate-many"
LOCK = "lock"


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The folder of takes `out`, for this run alone; it is made where it is missing.

    Raises LSFError if it cannot be made or another run is writing into it. The lock ends with the process, however that
    ends.
    """
    from filelock import FileLock, Timeout

    state = out / STATE
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = FileLock(state / LOCK)
        lock.acquire(timeout=0)
    except OSError as error:
        if isinstance(error, Timeout):
            raise LSFError(f"Another run is writing into '{out}'. Wait for its end, or choose another --out.") from None
        raise LSFError(f"Cannot make the folder '{out}' ({error.strerror}). Choose another --out.") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps an open file, and removes it when it is released
            (state / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # where journals are left it stays
            state.rmdir()


@dataclass(frozen=True)
class Earlier:
    """What the journals of earlier attempts at the same work tell.

    done: takes that are in their places; attempts: how many there were; begun: how often each line was begun, where
    that was noted.
    """

    done: list[Row]
    attempts: int
    begun: Counter[str]


def recover(out: Path, name: str = "*") -> Earlier:
    """Read the journals of the work called `name`, and bring takes that lie aside to their places.

    Raises LSFError where one cannot be brought there.
    """
    found = Earlier([], len(paths := sorted((out / STATE).glob(f"{name}.*.journal"))), Counter())
    for path in paths:
        # A line that the death of its writer cut off is no entry yet.
        for text in path.read_text(encoding="utf-8").split("\n")[:-1]:
            entry = json.loads(text)
            if "begun" in entry:
                found.begun[entry["begun"]] += 1
                continue
            row = Row.from_json(entry["row"])
            try:
                if _settle(out / STATE / entry["aside"], out / row.output):
                    found.done.append(row)
            except OSError as error:
                raise LSFError(f"Cannot write '{out / row.output}' ({error.strerror}). Choose a folder that can be "
                               "written.") from error
    return found


def forget(out: Path) -> None:
    """Remove the journals and what lies aside, once all of it stands in the table of results."""
    for path in (out / STATE).iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink()


class Journal:
    """The journal of one process. name: what the work is called, such as the part of the lines that it was given."""

    def __init__(self, out: Path, name: str) -> None:
        self.out = out
        # Two machines may have the same process numbers, and a restarted container has the same again.
        self.name = f"{name}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._journal = out / STATE / f"{self.name}.journal"
        self._append([])

    def aside(self, output: str) -> Path:
        """Where the take `output` is to be written first."""
        return self.out / STATE / self.name / output

    def enter(self, rows: Iterable[Row]) -> None:
        """Take down the rows, whose takes lie aside, and bring the takes to their places."""
        rows = list(rows)
        if not rows:
            return
        self._append([{"row": row.to_json(), "aside": str(Path(self.name) / row.output)} for row in rows])
        for row in rows:
            _settle(self.aside(row.output), self.out / row.output)

    def begin(self, line: str) -> None:
        """Note that a line is begun, so that its name is known if that is the end of this process."""
        self._append([{"begun": line}])

    def close(self) -> None:
        """Remove what lies aside; the entries stay."""
        shutil.rmtree(self.out / STATE / self.name, ignore_errors=True)

    def _append(self, entries: Sequence[Mapping[str, str]]) -> None:
        with open(self._journal, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())


def _settle(aside: Path, place: Path) -> bool:
    """Bring a take to its place if it lies aside; whether it is there then. Two processes may do this at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(aside, place)
    except FileNotFoundError:  # it was brought there before
        return place.is_file()
    return True
