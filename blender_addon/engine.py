"""The client of the engine process (lsf_core/worker.py): starts it, asks, listens, and ends it for certain.

Two threads only move lines from the pipes into queues; everything else, deadlines too, happens in `poll`, which Blender
calls from its main thread and which takes a bounded number of events, so that it never blocks the window.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .report import ENGINE, PREFERENCES, Cure, Problem, remember
from .shared import ROOT, protocol

BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lsf_core.worker import main; main()"
"""`-I` hides the current folder and PYTHONPATH from the engine's Python, so it is told where lsf_core is."""

CURES: dict[str, tuple[Cure, ...]] = {
    protocol.ENGINE: ENGINE,
    protocol.DEVICE: (PREFERENCES,),
}
"""The buttons for what an error event calls its cure."""

MADE, OLD, UNFINISHED = "engine", "engine.old", "engine.unfinished"
"""In the user folder: the set-up engine; the one before it and an empty file, both only until a set-up has ended."""


@dataclass(frozen=True)
class Limits:
    """Seconds the engine may take."""

    start: float = 180.0
    """To answer hello: importing PyTorch reads up to gigabytes of libraries, perhaps from a slow or network disk."""
    silence: float = 900.0
    """Between two events of a job."""
    cancel: float = 4.0
    """To stop by itself when asked to; then it is terminated."""
    terminate: float = 3.0
    """To end when terminated; then it is killed."""


def worker_command(python: str, root: Path = ROOT, device: str = "auto") -> list[str]:
    """How the engine is started: isolated from the user's and Blender's Python settings, UTF-8 whatever the locale.

    -B: it writes no bytecode. Where a disk is full, Python leaves halves of those files, and never starts again.
    """
    return [python, "-I", "-B", "-X", "utf8", "-c", BOOT, str(root), "--device", device]


def worker_environment() -> dict[str, str]:
    """Blender's environment without its PYTHON* variables, which would send the engine to Blender's own libraries."""
    return {key: value for key, value in os.environ.items() if not key.upper().startswith("PYTHON")}


def half_made(user_folder: Path) -> bool:
    """Whether the engine in the folder is not to be used: a set-up is under way there, or was cut off."""
    return (user_folder / OLD).exists() or (user_folder / UNFINISHED).exists()


def find_python(preference: str = "", user_folder: Path | None = None, root: Path = ROOT) -> str:
    """The Python that runs the engine: LSF_ENGINE_PYTHON, else the preference, else a set-up engine, else .venv.

    Where a set-up was cut off, the engine of before it, which still runs where it was put aside.

    Raises Problem if the one asked for does not exist, or none does.
    """
    for source, value in (("environment variable LSF_ENGINE_PYTHON", os.environ.get("LSF_ENGINE_PYTHON", "")),
                          ("add-on preference 'Engine Python'", preference)):
        if value:
            path = os.path.abspath(value)  # not resolved: a venv's python is a link that must be called by its own name
            if not os.path.isfile(path):
                raise Problem(f"The engine's Python does not exist: '{path}' (from the {source}). Correct it there.",
                              cures=[PREFERENCES])
            return path
    inside = Path("Scripts", "python.exe") if sys.platform == "win32" else Path("bin", "python")
    unfinished = user_folder is not None and half_made(user_folder)
    places = [user_folder / (OLD if unfinished else MADE) / inside] if user_folder else []
    places.append(root / ".venv" / inside)
    for place in places:
        if place.is_file():
            return str(place)
    looked = ", ".join(f"'{place}'" for place in places)
    why = "The last set-up was not finished" if unfinished else "No engine is set up"
    raise Problem(f"{why} (looked for {looked}). "
                  "Press 'Set Up Engine' in the add-on's preferences, or choose a Python with PyTorch there.",
                  cures=ENGINE)


class Engine:
    """One engine process. Not restartable: when it has ended, make another."""

    def __init__(self, command: Sequence[str], limits: Limits = Limits(),
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.command = tuple(command)
        self.versions: dict[str, Any] = {}
        """What it said of itself in answer to hello."""
        self.usage: dict[str, Any] = {}
        """What it used after its last request: `loaded`, `device`, `memory`, `gpu_memory` (see protocol)."""
        self._clock = clock
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._log: deque[str] = deque(maxlen=200)
        self._pending: dict[int, float] = {}  # request id -> when it is late
        self._cancelling: dict[int, float] = {}  # request id -> when patience ends
        self._next_id = 1
        self._kill_at: float | None = None
        self._verdict = ""  # why we ended it, where we did
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        try:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=worker_environment(), creationflags=flags,
            )
        except OSError as error:
            raise Problem(f"The engine cannot be started: {command[0]} ({error.strerror or error}). "
                          "Choose another Python in the add-on's preferences.", cures=ENGINE) from error
        assert self._process.stdout
        assert self._process.stderr
        threading.Thread(target=self._read_events, args=(self._process.stdout,), daemon=True).start()
        self._log_reader = threading.Thread(target=self._read_log, args=(self._process.stderr,), daemon=True)
        self._log_reader.start()
        self.hello = self._ask("hello", {}, limits.start)

    # -- threads: they touch nothing but the queue and the log ------------------------------------------------------
    def _read_events(self, stream: IO[bytes]) -> None:
        while line := stream.readline(protocol.MAX_LINE + 1):
            self._lines.put(line)
        self._lines.put(None)

    def _read_log(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._log.append(line.decode("utf-8", "replace").rstrip()[:500])

    # -- asking -----------------------------------------------------------------------------------------------------
    @property
    def alive(self) -> bool:
        return self._process.poll() is None and not self._verdict

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def state(self) -> str:
        """In one word for the panel: Stopped, Starting, Working or Idle."""
        if not self.alive:
            return "Stopped"
        if not self.versions:
            return "Starting"
        return "Working" if self._pending else "Idle"

    def log(self) -> str:
        """The last lines that the engine wrote to stderr."""
        return "\n".join(self._log)

    def ask(self, method: str, **params: Any) -> int:
        """Send a request; its events come out of `poll` under the id returned."""
        return self._ask(method, params, self.limits.silence)

    def _ask(self, method: str, params: dict[str, Any], patience: float) -> int:
        request = protocol.Request(self._next_id, method, params)
        self._next_id += 1
        self._pending[request.id] = self._clock() + patience
        self._write(request)
        return request.id

    def _write(self, request: protocol.Request) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError, ValueError):  # it has died: poll tells, by the end of its stdout
            self._process.stdin.write(protocol.encode(request))
            self._process.stdin.flush()

    def cancel(self, request_id: int) -> None:
        """Ask a request to stop. It ends with a `cancelled` error in any case: if need be the process is ended."""
        if request_id in self._pending and request_id not in self._cancelling:
            self._cancelling[request_id] = self._clock() + self.limits.cancel
            self._write(protocol.Request(0, "cancel", {"job": request_id}))

    # -- listening --------------------------------------------------------------------------------------------------
    def poll(self, at_most: int = 64) -> list[protocol.Event]:
        """What has come since the last call, `at_most` events. Enforces every deadline. Never blocks."""
        events: list[protocol.Event] = []
        self._enforce_deadlines()
        while len(events) < at_most:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                break
            if line is None:
                events += self._obituaries()
                break
            if self._verdict:
                continue  # condemned: nothing it still says counts, only that its stdout ends
            try:
                event = protocol.decode_event(line)
            except protocol.ProtocolError as error:
                self._end(f"The engine answered with something that is not its protocol ({error}). "
                          "Check the engine's Python in the add-on's preferences.", ENGINE)
                continue
            if event.id == self.hello and event.event == protocol.RESULT:
                self._greet(event.data)
            self.usage = event.data.get("usage", self.usage)
            remember(event.message, CURES.get(event.cure, ()))
            if self._take(event):
                events.append(event)
        return events

    def _take(self, event: protocol.Event) -> bool:
        """Keep the books; False for events of requests that nobody waits for."""
        if event.id not in self._pending:
            return False
        if event.event == protocol.PROGRESS:
            self._pending[event.id] = self._clock() + self.limits.silence
        else:
            del self._pending[event.id]
            self._cancelling.pop(event.id, None)
        return True

    def _greet(self, data: dict[str, Any]) -> None:
        self.versions = data
        if data.get("protocol") != protocol.PROTOCOL_VERSION:
            self._end(f"The engine speaks protocol {data.get('protocol')}, this add-on {protocol.PROTOCOL_VERSION}. "
                      "Install the add-on and its engine from the same release.", ENGINE)

    def _enforce_deadlines(self) -> None:
        now = self._clock()
        if self._kill_at is not None and now > self._kill_at:
            self._process.kill()
            self._kill_at = None
        if self._verdict:
            return
        if any(now > deadline for deadline in self._cancelling.values()):
            self._end("The engine did not stop when asked to and was ended.")
        elif now > self._pending.get(self.hello, now):
            self._end(f"The engine did not start within {self.limits.start:.0f} s and was ended. Try again; if it "
                      "stays, check the engine's Python in the add-on's preferences.", ENGINE)
        elif any(now > deadline for deadline in self._pending.values()):
            self._end(f"The engine gave no sign of life for {self.limits.silence:.0f} s and was ended. Try again, with "
                      "a shorter strip if it stays.")

    def _obituaries(self) -> list[protocol.Event]:
        """The process is gone: everything that still waits gets its error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._log_reader.join(0.5)  # its last words may come after the end of its stdout
        code = self._process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        last = next((line for line in reversed(self._log) if line.strip()), "")
        words = f" Its last words: {last}" if last and code != -9 else ""
        if not self._verdict and self.hello in self._pending:
            self._verdict = (f"The engine does not start in '{self.command[0]}' ({how}). Set it up, or choose another "
                             f"Python in the add-on's preferences.{words}")
            remember(self._verdict, ENGINE)
        message = self._verdict = self._verdict or (
            f"The engine ended unexpectedly ({how}). Nothing was changed; press Animate to try again.{words}")
        events = []
        for request_id in sorted(self._pending):
            kind = protocol.CANCELLED if request_id in self._cancelling else protocol.BUG
            text = "Cancelled. Nothing was changed." if kind == protocol.CANCELLED else message
            events.append(protocol.Event(request_id, protocol.ERROR, kind=kind, message=text))
        self._pending.clear()
        self._cancelling.clear()
        return events

    # -- ending -----------------------------------------------------------------------------------------------------
    def _end(self, verdict: str, cures: Sequence[Cure] = ()) -> None:
        self._verdict = verdict
        remember(verdict, cures)
        self._process.terminate()
        self._kill_at = self._clock() + self.limits.terminate

    def close(self) -> None:
        """End the process and wait for that: its stdin closes, then it is terminated, then killed. At most ~4 s."""
        self._verdict = self._verdict or "The engine was closed."
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin
            self._process.stdin.close()
        for patience, force in ((1.5, self._process.terminate), (1.5, self._process.kill), (1.0, None)):
            try:
                self._process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                if force:
                    force()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()


_engine: Engine | None = None
_started_with: tuple[str, str] | None = None
"""Python and device of the engine that `start` made; None for one that came from elsewhere."""


def running() -> Engine | None:
    """The engine, if it is alive."""
    return _engine if _engine is not None and _engine.alive else None


def start(python: str, device: str = "auto") -> Engine:
    """The running engine, or a new one if that was started with another Python or device. Raises Problem."""
    global _started_with
    there = running()
    if there is None or _started_with not in (None, (python, device)):
        there = use(Engine(worker_command(python, device=device)))
        _started_with = python, device
    return there


def use(engine: Engine) -> Engine:
    """Make `engine` the one that jobs talk to; the one before is closed."""
    global _engine, _started_with
    stop()
    _engine, _started_with = engine, None
    return engine


def describe() -> str:
    """The engine's state in one line for the panel: what it does, where, and the memory it holds."""
    if _engine is None or not _engine.alive:
        return "Stopped"
    usage = _engine.usage
    parts = [_engine.state]
    if usage:
        parts = [f"{_engine.state} on {usage['device']}", f"network {'' if usage['loaded'] else 'not '}loaded"]
        parts += [f"{usage[key] / 2**30:.1f} GB{kind}" for key, kind in (("memory", ""), ("gpu_memory", " on the GPU"))
                  if usage.get(key)]
    return ", ".join(parts)


def stop() -> None:
    """End the engine, if there is one; its memory, the GPU's too, is free after that."""
    global _engine
    if _engine is not None:
        _engine.close()
        _engine = None


def register() -> None:
    atexit.register(stop)


def unregister() -> None:
    atexit.unregister(stop)
    stop()
