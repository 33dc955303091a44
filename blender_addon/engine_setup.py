"""*Set up engine*: makes the engine's own Python environment, apart from Blender's, in the extension's user folder.

Steps: a virtual environment by Blender's Python, PyTorch for this machine, the other pins, and a first start of the
engine as the proof. The old environment steps aside meanwhile and comes back if the set-up fails or is cancelled.
Polled like a job; a thread only moves output into a queue. What the commands say lies in `engine-setup.log`, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import engine
from .report import PREFERENCES, Problem
from .shared import ROOT, protocol

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_INDEX = "https://download.pytorch.org/whl/cu130"

LOG, TRASH, STAMP = "engine-setup.log", "engine.trash", "lsf-pins.json"
"""In the user folder: the log and what is being deleted; in the engine: the pins that it was made from."""

FREE_GB = {"card": 10, "no card": 3}
"""Disk space that a set-up takes while it runs, with CUDA's libraries and without."""

NO_NETWORK = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError",
              "SSLError", "Network is unreachable", "Temporary failure in name resolution")
"""What pip says where it reaches nothing."""


@dataclass(frozen=True)
class Step:
    """One command of the set-up. `share` is its part of the progress bar; `stdin` is given to it."""

    text: str
    command: tuple[str, ...]
    share: float
    stdin: bytes = b""


def requirements(root: Path = ROOT) -> dict[str, list[str]]:
    """The pins by group, from the file that ships with the engine ("# group: NAME" opens a group). Raises Problem."""
    path = root / "requirements.txt"
    groups: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Problem(f"The list of packages is missing: '{path}'. Install the add-on again.") from error
    for line in map(str.strip, lines):
        if line.startswith("# group:"):
            current = groups.setdefault(line.removeprefix("# group:").strip(), [])
        elif line and not line.startswith("#"):
            current.append(line)
    missing = {"torch", "arrays", "engine"} - set(groups)
    if missing:
        raise Problem(f"'{path}' lacks the groups {sorted(missing)}. Install the add-on again.")
    return groups


def torch_index(system: str, has_nvidia: bool, environment: dict[str, str]) -> list[str]:
    """pip options that bring the PyTorch that fits the machine.

    PyPI's own build is the right one on macOS, on Linux with an NVIDIA card (CUDA) and on Windows without. Elsewhere
    PyTorch's own index is offered as well: pip takes its 2.x.y+cpu before a plain 2.x.y (PEP 440), and still has the
    usual index, or the mirror in pip's configuration, if that one cannot be reached. An index set in the environment
    is left to decide.
    """
    if any(name in environment for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")):
        return []
    if system == "Linux" and not has_nvidia:
        return ["--extra-index-url", CPU_INDEX]
    if system == "Windows" and has_nvidia:
        return ["--extra-index-url", CUDA_INDEX]
    return []


def has_nvidia_card() -> bool:
    """Whether NVIDIA's driver is installed here."""
    return shutil.which("nvidia-smi") is not None


def plan(folder: Path, root: Path = ROOT, base_python: str = sys.executable, wheels: str = "") -> list[Step]:
    """The steps that make an engine in `folder`; with `wheels`, a folder of wheel files, without any network.

    Raises Problem.
    """
    pins = requirements(root)
    python = str(python_in(folder))
    pip = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    index = torch_index(platform.system(), has_nvidia_card(), dict(os.environ))
    more: list[str] = []
    if wheels:
        if not os.path.isdir(wheels):
            raise Problem(f"The folder of wheels is not there: '{wheels}'. Correct it in the add-on's preferences, or "
                          "empty that field to download.", cures=[PREFERENCES])
        index = more = ["--no-index", "--find-links", wheels]
    hello = protocol.encode(protocol.Request(1, "hello")) + protocol.encode(protocol.Request(2, "quit"))
    return [
        Step("Making the environment", (base_python, "-I", "-m", "venv", str(folder)), 0.05),
        Step("Installing PyTorch", (*pip, *index, *pins["torch"]), 0.6),
        Step("Installing the other packages", (*pip, *more, *pins["arrays"], *pins["engine"]), 0.3),
        Step("Starting the engine", tuple(engine.worker_command(python, root)), 0.05, hello),
    ]


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def outdated(user_folder: Path) -> bool:
    """Whether the set-up engine was made for another version of the add-on, with other packages."""
    made = user_folder / engine.MADE
    if not python_in(made).exists():
        return False
    try:
        return json.loads((made / STAMP).read_text(encoding="utf-8")) != requirements()
    except (OSError, ValueError):
        return True


def remove(user_folder: Path) -> int:
    """Delete the set-up engine and all that set-ups left; bytes that were freed. Raises Problem."""
    freed = 0
    for name in (engine.UNFINISHED, LOG, TRASH, engine.OLD, engine.MADE):
        path = user_folder / name
        try:
            if path.is_dir():
                inside = (Path(folder, file) for folder, _, files in os.walk(path) for file in files)
                freed += sum(file.lstat().st_size for file in inside)
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise Problem(f"The engine cannot be removed: '{error.filename or path}' ({error.strerror}). Close other "
                          "Blenders and try again.") from error
    return freed


class Setup:
    """States: RUNNING, then DONE, FAILED or CANCELLED."""

    def __init__(self, user_folder: Path, plan_steps: Callable[[Path], Sequence[Step]] = plan) -> None:
        """Start. Raises Problem if the folder cannot be written or is in use, or the list of packages is missing."""
        self.state, self.error, self.text, self.fraction = "RUNNING", "", "", 0.0
        self.log: deque[str] = deque(maxlen=2000)
        self._target = user_folder / engine.MADE
        self._old = user_folder / engine.OLD
        self._mark = user_folder / engine.UNFINISHED
        self._trash = user_folder / TRASH
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._kill_at: float | None = None
        self._cancelled = False
        try:
            user_folder.mkdir(parents=True, exist_ok=True)
            _check_space(user_folder)
            half_made = engine.half_made(user_folder)
            self._lock = _locked(self._mark)
        except OSError as error:
            raise _unwritable(self._mark, error) from error
        try:
            self._log_file = open(user_folder / LOG, "w", encoding="utf-8")  # noqa: SIM115 - closed by _end
            if self._trash.exists():
                shutil.rmtree(self._trash)
            if half_made:  # the last set-up was cut off: what was put aside is the good one
                if self._target.exists():
                    shutil.rmtree(self._target)
            elif self._target.exists():
                # A virtual environment cannot be moved into place afterwards: its scripts hold its path. So the old one
                # steps aside, and steps back if this fails.
                self._target.rename(self._old)
        except OSError as error:
            if not half_made:
                self._unmark()
            raise _unwritable(self._target, error) from error
        try:
            self._steps = list(plan_steps(self._target))
        except Problem:
            self._step_back()
            raise
        self._done_share = 0.0
        self._begin()

    def poll(self) -> bool:
        """Go on; True when it has ended. Never blocks."""
        if self.state != "RUNNING":
            return True
        self._take_lines()
        if self._kill_at is not None and time.monotonic() > self._kill_at and self._process:
            self._process.kill()
        if self._process is None or self._process.poll() is None:
            return False
        self._reader.join(2.0)
        self._take_lines()
        step, code = self._steps[0], self._process.returncode
        if self._cancelled:
            self._end("CANCELLED", "Cancelled. The engine is as it was.")
        elif code != 0 or (step.stdin and not self._said_hello()):
            self._end("FAILED", f"{step.text} failed (exit code {code}): {self._reason()}")
        else:
            self._done_share += step.share
            self.fraction = self._done_share
            self._steps.pop(0)
            if self._steps:
                self._begin()
            else:
                self._accept()
        return self.state != "RUNNING"

    def wait(self) -> None:
        """Poll until it has ended."""
        while not self.poll():
            time.sleep(0.05)

    def cancel(self) -> None:
        """Stop; it ends within seconds as `poll` goes on."""
        if self.state == "RUNNING" and not self._cancelled:
            self._cancelled = True
            self.text = "Cancelling"
            self._kill_at = time.monotonic() + 3.0
            if self._process:
                self._process.terminate()

    def _begin(self) -> None:
        step = self._steps[0]
        self.text = step.text
        self._note("$ " + " ".join(step.command))
        try:
            self._process = subprocess.Popen(
                step.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=engine.worker_environment(), creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._end("FAILED", f"{step.text} failed: {step.command[0]} ({error.strerror}).")
            return
        self._reader = threading.Thread(target=self._read, args=(self._process, step.stdin), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes], stdin: bytes) -> None:
        """On the thread: nothing here but the pipe and the queue."""
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(OSError):
            process.stdin.write(stdin)
            process.stdin.flush()
            if not stdin:
                process.stdin.close()  # the engine ends when its stdin closes, so it keeps its own until it quits
        for line in process.stdout:
            self._lines.put(line.decode("utf-8", "replace").rstrip())

    def _take_lines(self) -> None:
        with contextlib.suppress(queue.Empty):
            for _ in range(200):
                self._note(self._lines.get_nowait())

    def _note(self, line: str) -> None:
        self.log.append(line)
        with contextlib.suppress(OSError, ValueError):  # a full disk is told by the command itself
            self._log_file.write(line + "\n")
            self._log_file.flush()

    def _reason(self) -> str:
        """Why the last command failed, with the cure where it can be told from what it said."""
        said = "\n".join(self.log)
        if "No space left on device" in said:
            return "the disk is full. Free some space, then try again."
        if any(word in said for word in NO_NETWORK):
            return ("the network cannot be reached. Check the connection (a proxy? set HTTPS_PROXY), or name a folder "
                    "of wheels in the add-on's preferences, then try again.")
        last = next((line for line in reversed(self.log) if line.strip()), "no message")
        return f"{last} See the log, then try again."

    def _said_hello(self) -> bool:
        for line in self.log:
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if isinstance(answer, dict) and answer.get("event") == protocol.RESULT and "data" in answer:
                    return answer["data"].get("protocol") == protocol.PROTOCOL_VERSION
        return False

    def _end(self, state: str, error: str) -> None:
        self.state, self.error = state, error
        self.text = "The engine is set up" if state == "DONE" else error
        if self._process:
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if stream:
                        stream.close()
        if state != "DONE":
            self._step_back()
        self._log_file.close()

    def _accept(self) -> None:
        """The new engine is good from the moment that neither mark nor old one is left; deleting may be cut off."""
        try:
            (self._target / STAMP).write_text(json.dumps(requirements()), encoding="utf-8")
            self._unmark()
            if self._old.exists():
                self._old.rename(self._trash)
        except OSError as error:
            self._end("FAILED", f"The old engine cannot be removed: '{self._old}' ({error.strerror}). Close what uses "
                                "it, then try again.")
            return
        shutil.rmtree(self._trash, ignore_errors=True)
        self._end("DONE", "")

    def _unmark(self) -> None:
        self._lock.close()  # first: Windows deletes no open file
        self._mark.unlink(missing_ok=True)

    def _step_back(self) -> None:
        shutil.rmtree(self._target, ignore_errors=True)
        if self._target.exists():
            self._lock.close()
            return  # a program holds a file of it open: with the mark it is not used, and the next set-up deletes it
        with contextlib.suppress(OSError):  # then the old one is used where it is
            self._unmark()
            if self._old.exists():
                self._old.rename(self._target)


def _locked(mark: Path) -> IO[str]:
    """The mark, open and locked until it is closed or this Blender dies. Raises Problem if another one holds it."""
    file = open(mark, "a")  # noqa: SIM115 - the caller keeps it
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise Problem("Another Blender is setting the engine up. Wait until it is done, or cancel it there.") from error
    return file


def _unwritable(path: Path, error: OSError) -> Problem:
    return Problem(f"The engine's folder cannot be written: '{error.filename or path}' ({error.strerror}). "
                   "Close other Blenders, and check the rights of that folder.")


def _check_space(folder: Path) -> None:
    needed = FREE_GB["card" if has_nvidia_card() else "no card"]
    free = shutil.disk_usage(folder).free / 2**30
    if free < needed:
        raise Problem(f"The disk has {free:.1f} GB free, the engine takes {needed} GB while it is set up: '{folder}'. "
                      "Free some space, then try again.")


current: Setup | None = None


def busy() -> bool:
    """Whether a set-up is under way."""
    return current is not None and current.state == "RUNNING"
