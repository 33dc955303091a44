"""One run of the main job: speech + meshes -> shape keys and takes. Which job runs, and what an undo does to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import bones, keys, landmarks, mapper, mesh_io, order, parts, pieces, strips, writing
from .order import Order
from .report import Problem
from .task import Mesh, Task, once

BUSY = "A take is being made. Wait for it or cancel it."
"""Why nothing else can be begun now, see `busy`."""


@dataclass
class _Speech:
    """A stretch of sound of the job; `frames` of a whole file are known once the engine has listened."""

    sound: strips.Speech
    frames: int | None


@dataclass
class _Part:
    """A take of the job."""

    order: Order
    mesh: Mesh
    speech: _Speech
    feeling: strips.Speech | None
    """The recording whose emotion it takes."""
    motion: writing.Motion | None = None


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
        self.warnings += once(warning for part in self._parts for warning in part.speech.sound.warnings)
        steps = [("listen", part) for part in _first_of_each(self._parts, "speech")]
        steps += [("rig", part) for part in _first_of_each(self._parts, "mesh") if any(part.mesh.missing)]
        return steps + [("animate", part) for part in self._parts]

    def _read(self, context: bpy.types.Context, orders: list[Order]) -> Iterator[_Part]:
        meshes: dict[str, Mesh] = {}
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
