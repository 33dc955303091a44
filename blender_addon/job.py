"""One run of the main job: speech + mesh -> shape keys and a take.

A Job is driven by calling `poll` until it says True: by the modal operator's timer in a window, by a loop in scripts
and in background mode, where modal operators and timers never run. It holds names rather than Blender's objects,
because an undo while the engine works makes those invalid. Everything is checked before the first thing is written.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import engine, keys, mesh_io, strips
from .report import Problem, describe, print_report
from .shared import arkit, protocol

RIG_SHARE = 0.5
"""Part of the progress bar that belongs to making shape keys, where some have to be made."""

STEPS = {"listen": "Reading the sound", "rig": "Reading the face", "animate": "Animating"}


class Job:
    """States: RUNNING, then DONE, FAILED or CANCELLED. `fraction` and `text` tell the progress, `error` what failed."""

    def __init__(self, context: bpy.types.Context, python: str | Callable[[], str]) -> None:
        """Check everything and read the mesh. Raises Problem, and then leaves nothing behind."""
        scene = context.scene
        settings = scene.lsf
        reason = mesh_io.refusal(settings.target, scene) or strips.refusal(context, scene)
        if reason:
            raise Problem(reason)
        self.state, self.fraction, self.text, self.error, self.report = "RUNNING", 0.0, "Starting the engine", "", ""
        self.warnings: list[str] = []
        self.summary = ""
        self._scene, self._target = scene.name, settings.target.name
        self._settings = {
            "seed": settings.seed,
            "temperature": settings.temperature,
            "emotion_strength": settings.emotion_strength,
            "edits": settings.edits,
        }
        self._extend = settings.extend_frame_range
        self._folder = Path(tempfile.mkdtemp(prefix="lsf-"))
        try:
            self._speech = strips.speech_of(context, scene, self._folder)
            self._mesh = mesh_io.read(settings.target)
            present = set(mesh_io.existing_keys(settings.target))
            self._missing = [name for name in arkit.ARKIT_NAMES if name not in present]
            np.save(self._folder / "vertices.npy", self._mesh.vertices)
            np.save(self._folder / "faces.npy", self._mesh.triangles)
            self._engine = engine.start(python if isinstance(python, str) else python())
        except BaseException:
            self._remove_folder()
            raise
        self.warnings += self._speech.warnings
        self._rig: dict[str, Any] | None = None
        self._request = 0
        self._frames = self._speech.frames
        self._cancelled = False
        self._step = "listen"
        self._ask()

    # -- driving ----------------------------------------------------------------------------------------------------
    def poll(self) -> bool:
        """Go on with the job; True when it has ended. Never blocks but for writing the result."""
        if self.state != "RUNNING":
            return True
        try:
            for event in self._engine.poll():
                if event.event == protocol.ERROR and event.id in (self._request, self._engine.hello):
                    cancelled = event.kind == protocol.CANCELLED or self._cancelled
                    self._fail(event.message, event.trace, cancelled)
                    return True
                if event.id == self._request:
                    self._handle(event)
        except Problem as problem:
            self._fail(str(problem), problem.trace)
        except Exception as error:  # a defect of ours must not leave a modal operator hanging: told, with its trace
            self._fail(f"The add-on failed ({type(error).__name__}: {error}). This is a defect; please report it.",
                       traceback.format_exc())
        return self.state != "RUNNING"

    def wait(self) -> None:
        """Poll until the job has ended."""
        try:
            while not self.poll():
                time.sleep(0.02)
        except KeyboardInterrupt:
            self.cancel()
            while not self.poll():
                time.sleep(0.02)

    def cancel(self) -> None:
        """Stop. The job ends within seconds, as `poll` goes on, and has written nothing."""
        if self.state == "RUNNING":
            self._cancelled = True
            self.text = "Cancelling"
            self._engine.cancel(self._request)

    def abandon(self) -> None:
        """Drop the job at once (another file is being opened): nothing will poll it any more."""
        if self.state == "RUNNING":
            self._fail("Cancelled. Nothing was changed.", cancelled=True)
            engine.stop()  # rather than leave it at work with nobody to enforce the cancel

    # -- steps ------------------------------------------------------------------------------------------------------
    def _ask(self) -> None:
        mesh = {"folder": str(self._folder), "vertices": "vertices.npy", "faces": "faces.npy"}
        if self._engine.versions and not self._cancelled:
            self.text = STEPS[self._step]
        speech = self._speech
        sound = {"audio": speech.path, "audio_name": f"The sound '{speech.name}'", "offset": speech.offset,
                 "duration": speech.duration, "content_seconds": speech.content_seconds}
        if self._step == "listen":
            self._request = self._engine.ask("listen", **sound)
        elif self._step == "rig":
            self._request = self._engine.ask("rig", **mesh)
        else:
            motion = {"fps": speech.fps, "frames": self._frames, **self._settings}
            self._request = self._engine.ask("animate", **mesh, **sound, **motion)

    def _handle(self, event: protocol.Event) -> None:
        if event.event == protocol.PROGRESS:
            start = RIG_SHARE if self._missing and self._step == "animate" else 0.0
            share = RIG_SHARE if self._missing else 1.0
            self.fraction = max(self.fraction, min(start + share * event.fraction, 1.0))
            self.text = "Cancelling" if self._cancelled else event.text or self.text
        elif self._cancelled:  # it finished before the cancel reached it
            self._fail("Cancelled. Nothing was changed.", cancelled=True)
        elif self._step == "listen":
            if self._frames is None:  # a whole file: Blender learns only now how long it is
                self._frames = max(1, math.ceil(float(event.data["seconds"]) * self._speech.fps - 1e-6))
            self._step = "rig" if self._missing else "animate"
            self._ask()
        elif self._step == "rig":
            self._rig = event.data
            self.warnings += [str(warning) for warning in event.data.get("warnings", [])]
            self._step = "animate"
            self._ask()
        else:
            self._write(event.data)

    def _write(self, data: dict[str, Any]) -> None:
        """Check the whole result, then write it."""
        scene, target = self._live()
        names, deltas = self._new_shapes()
        weights = self._weights(data)
        columns = list(data["names"])
        number = 1 + max((keys.take_settings(take).get("number", 0) for take in keys.takes_of(target)), default=0)
        made_before = mesh_io.existing_keys(target)
        try:
            if names:
                mesh_io.make_keys(target, names, deltas, self._mesh.basis)
            present = set(mesh_io.existing_keys(target))
            shapes = [name for name in columns if name in present]
            shown = weights[:, [columns.index(name) for name in shapes]]
            take = keys.write_take(
                target, f"{self._speech.name} take {number}", shapes, shown, self._speech.start_frame,
                {**self._settings, "target": target.name, "speech": self._speech.name, "number": number,
                 "engine": self._engine.versions.get("engine", "")},
            )
        except Exception:
            mesh_io.remove_keys(target, [n for n in mesh_io.existing_keys(target) if n not in made_before])
            raise
        if self._extend:
            scene.frame_end = max(scene.frame_end, take.last_frame)
        self._look_at(scene, target, shapes, shown, take)
        self.summary = (f"{take.action.name}: frames {take.first_frame} to {take.last_frame}, {len(shapes)} shape keys "
                        f"({len(names)} made), {take.keys} keys")
        self.state, self.fraction, self.text = "DONE", 1.0, "Done"
        self._remove_folder()

    def _look_at(self, scene: bpy.types.Scene, target: bpy.types.Object, shapes: list[str], weights: np.ndarray,
                 take: keys.Take) -> None:
        """Warn about what the artist would otherwise find out by a face that stays still."""
        if take.set_aside:
            self.warnings.append(f"The Action '{take.set_aside}' was active before; it is kept, and no longer plays.")
        self.warnings += mesh_io.hindrances(target, shapes)
        loudest = take.first_frame + int(np.argmax(weights.sum(axis=1)))
        if not mesh_io.moves(target, shapes, scene, loudest):
            self.warnings.append(f"The keys were written, but '{target.name}' does not move at frame {loudest}. "
                                 "Look for muted shape keys, drivers, and modifiers that overwrite the shape.")

    # -- checking ---------------------------------------------------------------------------------------------------
    def _live(self) -> tuple[bpy.types.Scene, bpy.types.Object]:
        """Scene and mesh as they are now. Raises Problem if they changed while the engine worked."""
        # (name, None): the one of this file, not one of the same name in a linked library.
        scene = bpy.data.scenes.get((self._scene, None))
        target = bpy.data.objects.get((self._target, None))
        if scene is None or target is None:
            raise Problem(f"'{self._target if scene else self._scene}' was removed or renamed while the engine worked. "
                          "Nothing was changed; press Animate again.")
        reason = mesh_io.refusal(target, scene)
        if reason:
            raise Problem(f"{reason} Nothing was changed.")
        if not np.array_equal(mesh_io.read(target).basis, self._mesh.basis):
            raise Problem(f"'{target.name}' was edited while the engine worked. Nothing was changed; "
                          "press Animate again.")
        return scene, target

    def _new_shapes(self) -> tuple[list[str], np.ndarray]:
        """Names and displacements (K, V, 3) of the shape keys to make."""
        if self._rig is None:
            return [], np.zeros((0, *self._mesh.basis.shape), np.float32)
        names = [str(name) for name in self._rig["names"]]
        deltas = self._array(self._rig["deltas"], (len(names), *self._mesh.basis.shape))
        chosen = [name for name in self._missing if name in names]
        return chosen, self._mesh.from_engine(deltas[[names.index(name) for name in chosen]])

    def _weights(self, data: dict[str, Any]) -> np.ndarray:
        assert self._frames is not None
        weights = self._array(data["weights"], (self._frames, len(data["names"])))
        if weights.min() < -1e-4 or weights.max() > 1.0001:
            raise Problem(f"The engine gave weights from {weights.min():.3f} to {weights.max():.3f}, outside 0 to 1. "
                          "Nothing was changed.")
        return np.clip(weights, 0.0, 1.0)

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A result file, if it is what was asked for. Raises Problem."""
        try:
            array = np.load(protocol.inside(str(self._folder), name), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Problem(f"The engine's result '{name}' cannot be read ({error}). Nothing was changed.") from error
        if array.shape != shape or array.dtype.kind != "f":
            raise Problem(f"The engine's result '{name}' is {array.dtype} {array.shape}, expected {shape}. "
                          "Nothing was changed.")
        if not np.isfinite(array).all():
            raise Problem(f"The engine's result '{name}' holds numbers that are not finite. Nothing was changed.")
        return array

    # -- ending -----------------------------------------------------------------------------------------------------
    def _fail(self, message: str, trace: str = "", cancelled: bool = False) -> None:
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


current: Job | None = None
"""The job that runs in the window, or the last one that did; the panel shows it."""


def busy() -> bool:
    """Whether a job is under way."""
    return current is not None and current.state == "RUNNING"
