"""A task of the engine's: what it is asked in steps, and what becomes of its answers. A job (job.py) is one.

A Task is driven by calling `poll` until it says True: by the modal operator's timer in a window, by a loop in scripts
and in background mode, where modal operators and timers never run. It holds names rather than Blender's objects,
because an undo while the engine works makes those invalid. Everything is checked before the first thing is written.

What the engine says is taken up in pieces (`pieces`), as much at each poll as fits into TICK, so that a window goes on.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bpy

from . import engine, landmarks, mapper, mesh_io, parts, pieces, preferences, writing
from .report import Problem, describe, print_report
from .shared import arkit, arrayfile, protocol

TICK = 0.001
"""Seconds of a poll in which pieces of work are begun. The longest of them take three to four times as long."""

STEPS = {"listen": "Reading the sound", "rig": "Reading the face", "animate": "Animating"}

SHARES = {"listen": 0.0, "rig": 1.0, "animate": 1.0}
"""Parts of the progress bar that the steps take."""


@dataclass
class Mesh:
    """A head with its parts: as read, as the engine is told of it, and what it makes of it."""

    data: parts.Joined
    files: dict[str, Any]
    """Params of the engine that say what the face is: the files in which it finds it, landmarks, area."""
    plan: mapper.Plan
    """What becomes of the head's shape keys."""
    missing: list[list[str]]
    """ARKit shapes that the engine has to say, for each object: to be made, the head's also to solve poses for."""
    shapes: writing.Shapes
    wishes: str
    """What the artist says of the face, see landmarks.wishes."""
    fit: landmarks.Fit | None = None
    """Where the engine found the face, if it was asked."""

    def drive(self, target: bpy.types.Object) -> mapper.Drive:
        """How a motion drives the shape keys, of the parts too."""
        others = [name for part in parts.together(target)[1:] for name in mesh_io.existing_keys(part)]
        others += [name for made in self.shapes.parts for name in made.names]
        return mapper.drive(target, self.plan, self.shapes.deltas, others)

    def to_make(self) -> writing.Shapes:
        """The shape keys to be made."""
        none = replace(self.shapes, names=[], deltas=self.shapes.deltas[:0], digests=())
        return none if self.plan.solved else self.shapes


class Task:
    """Something the engine is asked for in steps. States: RUNNING, then DONE, FAILED or CANCELLED. `fraction` and
    `text` tell the progress, `error` what failed."""

    def __init__(self, context: bpy.types.Context, python: str | Callable[[], str]) -> None:
        """Check everything and read the meshes. Raises Problem, and then leaves nothing behind."""
        self.state, self.fraction, self.text, self.error, self.report = "RUNNING", 0.0, "Starting the engine", "", ""
        self.warnings: list[str] = []
        self.summary = ""
        self._scene = context.scene.name
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=protocol.FOLDER_PREFIX))
        except OSError as error:
            raise _no_room(tempfile.gettempdir(), error) from error
        try:
            self._steps = self._prepare(context)
            self._engine = engine.start(python if isinstance(python, str) else python(), preferences.device(context))
        except OSError as error:
            self._remove_folder()
            raise _no_room(str(self._folder), error) from error
        except BaseException:
            self._remove_folder()
            raise
        self._share_done, self._share_all = 0.0, sum(SHARES[step] for step, _ in self._steps)
        self._request = 0
        self._work: pieces.Pieces[None] | None = None
        self._settled = False  # the takes are there: too late to take anything back
        self._cancelled = False
        self._ask()

    # -- what a kind of task says of itself ---------------------------------------------------------------------------
    def _prepare(self, context: bpy.types.Context) -> list[tuple[str, Any]]:
        """Read what is needed; the steps, each with what it is about. Raises Problem."""
        raise NotImplementedError

    def _question(self, step: str, about: Any) -> dict[str, Any]:
        """The params of a step's request."""
        raise NotImplementedError

    def _answered(self, step: str, about: Any, data: dict[str, Any]) -> pieces.Pieces[None]:
        """Take a step's result. Raises Problem."""
        raise NotImplementedError

    def _write(self) -> pieces.Pieces[None]:
        """All steps are done: write what came of them. Raises Problem."""
        raise NotImplementedError

    def _about(self, text: str) -> str:
        """The text of the progress, with what it is about where there are several."""
        return text

    @staticmethod
    def _fit(mesh: Mesh, data: dict[str, Any]) -> landmarks.Fit | None:
        """The landmarks in the engine's answer to `rig`. Raises Problem."""
        return landmarks.fit_of(data, mesh.data, landmarks.state(mesh.data, mesh.wishes))

    def _read_mesh(self, target: bpy.types.Object, number: int) -> Mesh:
        data = parts.read(target)
        files = {"vertices": f"vertices{number}.npy", "faces": f"faces{number}.npy"}
        arrayfile.save_array(self._folder / files["vertices"], data.vertices)
        arrayfile.save_array(self._folder / files["faces"], data.triangles)
        files.update(landmarks.guide(target, data, self._folder, number))
        plan = mapper.plan(target)
        missing = [list(plan.lacking if plan.solved else plan.make)]
        missing += [parts.missing_keys(part, arkit.ARKIT_NAMES) for part in parts.together(target)[1:]]
        if landmarks.outdated(target) and not plan.solved:
            for names, thing in zip(missing, parts.together(target), strict=True):
                names += [name for name in mesh_io.untouched(thing) if name not in names]
                sculpted = [name for name in mesh_io.made_keys(thing) if name not in names]
                if sculpted:
                    self.warnings.append(f"{len(sculpted)} shape keys of '{thing.name}' were changed since they were "
                                         f"made ({sculpted[0]}): landmarks do not change them. Delete those that shall "
                                         "be made anew.")
        return Mesh(data, files, plan, missing, writing.no_shapes(data), landmarks.wishes(target))

    # -- driving ----------------------------------------------------------------------------------------------------
    @property
    def at_work(self) -> bool:
        """Whether there is work to go on with, so that it pays to poll often."""
        return self._work is not None

    def poll(self, seconds: float = TICK) -> bool:
        """Go on with the job; True when it has ended. Takes little more than `seconds`: no piece of work is long."""
        if self.state != "RUNNING":
            return True
        try:
            if self._work is not None and pieces.some(self._work, seconds):
                self._work = None
            if self._work is None and self.state == "RUNNING":
                self._listen()
        except Problem as problem:
            self._fail(str(problem), problem.trace)
        except ReferenceError as error:  # removed, or replaced by an undo, between two pieces
            kept = ("What was written before is kept." if self._settled else
                    "Nothing of it was kept; press Animate again.")
            self._fail(f"The scene was changed while the take was written ({error}). {kept}")
        except Exception as error:  # a defect of ours must not leave a modal operator hanging: told, with its trace
            self._fail(f"The add-on failed ({type(error).__name__}: {error}). This is a defect; please report it.",
                       traceback.format_exc())
        return self.state != "RUNNING"

    def _listen(self) -> None:
        """Take what the engine has said."""
        for event in self._engine.poll():
            if event.event == protocol.ERROR and event.id in (self._request, self._engine.hello):
                cancelled = event.kind == protocol.CANCELLED or self._cancelled
                self._fail(event.message, event.trace, cancelled)
                return
            if event.id == self._request:
                self._handle(event)
            if self.state != "RUNNING":
                return

    def wait(self) -> None:
        """Poll until the job has ended."""
        try:
            while not self.poll(math.inf):
                time.sleep(0.02)
        except KeyboardInterrupt:
            self.cancel()
            while not self.poll():
                time.sleep(0.02)

    def finish_work(self) -> None:
        """Do at once what is left of the work under way: the file is being saved, and no half of a take shall be."""
        if self._work is not None:
            self.poll(math.inf)

    def write_anew(self) -> None:
        """Take back what is written so far, to begin again at the next poll: an undo, or another file, is about to
        replace what it is written to."""
        if self._settled:
            self.finish_work()
        elif self._work is not None and not self._steps:
            self._work.close()
            self._work = self._conclude()

    def cancel(self) -> None:
        """Stop. The job ends within seconds, as `poll` goes on, and has written nothing."""
        if self.state != "RUNNING" or self._settled:
            return
        self._cancelled = True
        self.text = "Cancelling"
        if self._work is not None:  # the engine has done its part
            self._fail("Cancelled. Nothing was changed.", cancelled=True)
        else:
            self._engine.cancel(self._request)

    def abandon(self) -> None:
        """Drop the job at once (another file is being opened): nothing will poll it any more."""
        if self.state == "RUNNING":
            self._fail("Cancelled. Nothing was changed.", cancelled=True)
            engine.stop()  # rather than leave it at work with nobody to enforce the cancel

    # -- steps ------------------------------------------------------------------------------------------------------
    def _ask(self) -> None:
        step, about = self._steps[0]
        if self._engine.versions and not self._cancelled:
            self.text = self._about(STEPS[step])
        self._request = self._engine.ask(step, **self._question(step, about))

    def _handle(self, event: protocol.Event) -> None:
        step, about = self._steps[0]
        if event.event == protocol.PROGRESS:
            done = self._share_done + SHARES[step] * event.fraction
            self.fraction = max(self.fraction, min(done / self._share_all, 1.0))
            self.text = "Cancelling" if self._cancelled else self._about(event.text) if event.text else self.text
            return
        if self._cancelled:  # it finished before the cancel reached it
            self._fail("Cancelled. Nothing was changed.", cancelled=True)
            return
        self._work = self._take_up(step, about, event.data)

    def _take_up(self, step: str, about: Any, data: dict[str, Any]) -> pieces.Pieces[None]:
        """Take a step's result, then begin the next one, or write what came of them all."""
        yield from self._answered(step, about, data)
        self.warnings = once([*self.warnings, *(str(warning) for warning in data.get("warnings", []))])
        self._share_done += SHARES[step]
        del self._steps[0]
        if self._steps:
            self._ask()
        else:
            yield from self._conclude()

    def _conclude(self) -> pieces.Pieces[None]:
        self.text = "Writing keys"
        yield from self._write()
        yield from pieces.aside(self._remove_folder)
        self.state, self.fraction, self.text = "DONE", 1.0, "Done"

    # -- ending -----------------------------------------------------------------------------------------------------
    def _fail(self, message: str, trace: str = "", cancelled: bool = False) -> None:
        work, self._work = self._work, None
        if work is not None:
            with contextlib.suppress(ReferenceError):
                work.close()  # takes back what it has written so far
        self.state = "CANCELLED" if cancelled else "FAILED"
        self.error = self.text = message
        if not cancelled:
            versions = ", ".join(f"{key} {value}" for key, value in self._engine.versions.items())
            self.report = describe(message, trace, self._engine.log(), versions)
            if trace:
                print_report(self.report)
        self._remove_folder()

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _no_room(folder: str, error: OSError) -> Problem:
    return Problem(f"The temporary folder '{folder}' cannot be written ({error.strerror or error}). Free some space on "
                   "that disk, or start Blender with the environment variable TMPDIR naming another folder.")


def once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
