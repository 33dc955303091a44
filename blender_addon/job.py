"""One run of the main job: speech + meshes -> shape keys and takes.

A Job is driven by calling `poll` until it says True: by the modal operator's timer in a window, by a loop in scripts
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import bones, engine, keys, landmarks, mapper, mesh_io, order, parts, pieces, preferences, strips, writing
from .order import Order
from .report import Problem, describe, print_report
from .shared import arkit, arrayfile, protocol

BUSY = "A take is being made. Wait for it or cancel it."
"""Why nothing else can be begun now, see `busy`."""

TICK = 0.001
"""Seconds of a poll in which pieces of work are begun. The longest of them take three to four times as long."""

STEPS = {"listen": "Reading the sound", "rig": "Reading the face", "animate": "Animating"}

SHARES = {"listen": 0.0, "rig": 1.0, "animate": 1.0}
"""Parts of the progress bar that the steps take."""


@dataclass
class _Mesh:
    """A head of the job with its parts: as read, as the engine is told of it, and what it makes of it."""

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


@dataclass
class _Speech:
    """A stretch of sound of the job; `frames` of a whole file are known once the engine has listened."""

    sound: strips.Speech
    frames: int | None


@dataclass
class _Part:
    """A take of the job."""

    order: Order
    mesh: _Mesh
    speech: _Speech
    feeling: strips.Speech | None
    """The recording whose emotion it takes."""
    motion: writing.Motion | None = None


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
    def _fit(mesh: _Mesh, data: dict[str, Any]) -> landmarks.Fit | None:
        """The landmarks in the engine's answer to `rig`. Raises Problem."""
        return landmarks.fit_of(data, mesh.data, landmarks.state(mesh.data, mesh.wishes))

    def _read_mesh(self, target: bpy.types.Object, number: int) -> _Mesh:
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
        return _Mesh(data, files, plan, missing, writing.no_shapes(data), landmarks.wishes(target))

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
        self.warnings = _once([*self.warnings, *(str(warning) for warning in data.get("warnings", []))])
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


class Job(Task):
    """Takes of orders."""

    def __init__(self, context: bpy.types.Context, python: str | Callable[[], str],
                 orders: list[Order] | None = None) -> None:
        """orders None: what the panel says. Raises Problem, and then leaves nothing behind."""
        self._orders = order.checked(context, order.panel_pairs(context.scene)) if orders is None else orders
        super().__init__(context, python)

    def _prepare(self, context: bpy.types.Context) -> list[tuple[str, Any]]:
        """The engine is asked in order: each sound heard and each face read once, bad sounds told first."""
        self._parts = list(self._read(context, self._orders))
        self.warnings += _once(warning for part in self._parts for warning in part.speech.sound.warnings)
        steps = [("listen", part) for part in _first_of_each(self._parts, "speech")]
        steps += [("rig", part) for part in _first_of_each(self._parts, "mesh") if any(part.mesh.missing)]
        return steps + [("animate", part) for part in self._parts]

    def _read(self, context: bpy.types.Context, orders: list[Order]) -> Iterator[_Part]:
        meshes: dict[str, _Mesh] = {}
        speeches: dict[strips.Choice, _Speech] = {}
        feelings: dict[strips.Choice | None, strips.Speech | None] = {None: None}
        for one in orders:
            if one.choice not in speeches:
                folder = self._folder / f"sound{len(speeches)}"
                folder.mkdir()
                sound = strips.speech_of(context, context.scene, folder, one.choice)
                speeches[one.choice] = _Speech(sound, sound.frames)
            if one.feeling not in feelings:
                folder = self._folder / f"feeling{len(feelings)}"
                folder.mkdir()
                feelings[one.feeling] = strips.speech_of(context, context.scene, folder, one.feeling, whole=True)
            if one.target not in meshes:
                meshes[one.target] = self._read_mesh(_object(one.target, context.scene), len(meshes))
            yield _Part(one, meshes[one.target], speeches[one.choice], feelings[one.feeling])

    def _question(self, step: str, part: _Part) -> dict[str, Any]:
        sound, speech = part.speech.sound, part.speech.sound.told
        mesh = {"folder": str(self._folder), **part.mesh.files}
        if step == "listen":
            return speech
        if step == "rig":
            return mesh
        motion = {"fps": sound.fps, "frames": part.speech.frames, "seed": part.order.seed,
                  "edits": part.order.edits, **part.order.performance}
        if part.feeling is not None:
            motion["emotion_from"] = part.feeling.told
        return {**mesh, **speech, **motion}

    def _answered(self, step: str, part: _Part, data: dict[str, Any]) -> pieces.Pieces[None]:
        mesh, folder = part.mesh, self._folder
        if step == "listen" and part.speech.frames is None:  # a whole file: only now it is known how long it is
            part.speech.frames = max(1, math.ceil(float(data["seconds"]) * part.speech.sound.fps - 1e-6))
        elif step == "rig":
            mesh.shapes = yield from pieces.aside(lambda: writing.read_shapes(folder, data, mesh.data, mesh.missing))
            mesh.fit = yield from pieces.aside(lambda: self._fit(mesh, data))
        elif step == "animate":
            frames = part.speech.frames
            assert frames is not None
            part.motion = yield from pieces.aside(lambda: writing.read_motion(folder, data, frames))

    def _about(self, text: str) -> str:
        """The text, with the number of the take where there are several."""
        step, part = self._steps[0]
        if len(self._parts) == 1 or step != "animate":
            return text
        return f"Take {self._parts.index(part) + 1} of {len(self._parts)}: {text}"

    # -- writing ----------------------------------------------------------------------------------------------------
    def _write(self) -> pieces.Pieces[None]:
        """Check every result, then write them all."""
        scene = bpy.data.scenes.get((self._scene, None))
        if scene is None:
            raise Problem(_gone(self._scene))
        meshes = _first_of_each(self._parts, "mesh")
        targets = {part.order.target: self._live(part, scene) for part in meshes}
        drives = {part.order.target: part.mesh.drive(targets[part.order.target]) for part in meshes}
        results = [self._result(part, targets[part.order.target], drives[part.order.target]) for part in self._parts]

        def check() -> None:  # while the keys were chosen and written, the artist may have gone on
            if any(self._live(part, scene) != targets[part.order.target] for part in meshes):
                raise Problem(_gone(meshes[0].order.target))
            self._settled = True

        outcome = yield from writing.write(scene, results, check)
        for part in meshes:
            landmarks.keep(targets[part.order.target], part.mesh.fit)
            if any(part.mesh.missing):
                landmarks.made_with(targets[part.order.target], part.mesh.wishes)
        self.warnings += outcome.warnings
        self.summary = outcome.summary

    def _live(self, part: _Part, scene: bpy.types.Scene) -> bpy.types.Object:
        """The mesh as it is now. Raises Problem if it changed while the engine worked."""
        target = bpy.data.objects.get((part.order.target, None))
        if target is None:
            raise Problem(_gone(part.order.target))
        reason = mesh_io.refusal(target, scene) or parts.refusal(target, scene) or bones.refusal(target, scene)
        if reason:
            raise Problem(f"{reason} Nothing was changed.")
        if not part.mesh.data.unchanged(target):
            raise Problem(f"'{target.name}' was edited while the engine worked. Nothing was changed; "
                          "press Animate again.")
        if mapper.plan(target) != part.mesh.plan:
            raise Problem(f"The shape keys of '{target.name}' or their mapping changed while the engine worked. "
                          "Nothing was changed; press Animate again.")
        return target

    def _result(self, part: _Part, target: bpy.types.Object, drive: mapper.Drive) -> writing.Result:
        assert part.motion is not None
        settings = {**order.settings_of(part.order, part.speech.sound),
                    "engine": self._engine.versions.get("engine", ""), "checkpoint": part.motion.checkpoint}
        return writing.Result(target, part.mesh.to_make(), part.motion, drive, part.speech.sound, settings)


def _object(name: str, scene: bpy.types.Scene) -> bpy.types.Object:
    """The mesh object of this file, not one of the same name in a linked library. Raises Problem."""
    target = bpy.data.objects.get((name, None))
    reason = mesh_io.refusal(target, scene)
    if reason:
        raise Problem(reason)
    return target


def _first_of_each(parts: list[_Part], what: str) -> list[_Part]:
    """The first part of each mesh or speech."""
    return list({id(getattr(part, what)): part for part in reversed(parts)}.values())[::-1]


def _no_room(folder: str, error: OSError) -> Problem:
    return Problem(f"The temporary folder '{folder}' cannot be written ({error.strerror or error}). Free some space on "
                   "that disk, or start Blender with the environment variable TMPDIR naming another folder.")


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _gone(name: str) -> str:
    return f"'{name}' was removed or renamed while the engine worked. Nothing was changed; press Animate again."


current: Task | None = None
"""The job that runs in the window, or the last one that did; the panel shows it."""


def busy() -> bool:
    """Whether a job is under way."""
    return current is not None and current.state == "RUNNING"


@persistent
def _before_undo(*_: Any) -> None:
    if current is not None:
        current.write_anew()


@persistent
def _mend(*_: Any) -> None:
    """After an undo, and in a file that was opened: nothing that is there for a moment only may come back."""
    keys.drop_left()
    mesh_io.remove_looks()


@persistent
def _before_save(*_: Any) -> None:
    if current is not None:
        current.finish_work()


HANDLERS = ((bpy.app.handlers.undo_pre, _before_undo), (bpy.app.handlers.redo_pre, _before_undo),
            (bpy.app.handlers.load_pre, _before_undo), (bpy.app.handlers.undo_post, _mend),
            (bpy.app.handlers.redo_post, _mend), (bpy.app.handlers.load_post, _mend),
            (bpy.app.handlers.save_pre, _before_save))


def register() -> None:
    for handlers, handler in HANDLERS:
        handlers.append(handler)


def unregister() -> None:
    for handlers, handler in HANDLERS:
        handlers.remove(handler)
