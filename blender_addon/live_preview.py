"""One live preview: what it asks of the engine, and which frame of the answer the face shows.

The engine makes the frames (lsf_core/streaming.py). A strip's sound is known ahead, so its frames are made before the
playhead gets there, and shown by the frame that the timeline is on; a microphone's are shown as they come. Shape keys
get values only (puppet.py): stop, undo, save and the next file find everything as it was.

A Preview is driven by `poll`: by a timer in a window (live.py), by a loop in tests.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import traceback
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import engine, job, keys, landmarks, mapper, mesh_io, order, parts, preferences, strips
from .operators import engine_refusal
from .puppet import Puppet, mend, settle
from .report import Problem
from .shared import arkit, arrayfile, protocol

STRIP, MICROPHONE = "STRIP", "MICROPHONE"

STRIP_LOOK_AHEAD = 0.64
"""Seconds. A strip can be heard ahead, so its preview is as good as a stream gets."""

LEAD_SECONDS, AHEAD_SECONDS, CHUNK_SECONDS = 1.5, 3.0, 0.64
"""Of a strip: heard before the playhead, so that voice and feeling are known there; kept ready after it; asked for at
a time."""

BACKLOG = 3
"""Frames of a microphone that may wait to be shown: more would be shown too late."""


class Preview:
    """One live preview. States: RUNNING, then STOPPED or FAILED. `text` tells what it does, `error` what failed."""

    def __init__(self, context: bpy.types.Context, python: str) -> None:
        """Check everything, and ask the engine to begin. Raises Problem, and then leaves nothing behind."""
        reason = refusal(context)
        if reason:
            raise Problem(reason)
        scene, wanted = context.scene, context.window_manager.lsf_live
        self.state, self.text, self.error, self.level = "RUNNING", "Starting the engine", "", None
        self.source = wanted.source
        self._scene, self._fps = scene.name, strips.scene_fps(scene)
        self._drive = drive_of(scene.lsf.target)
        self._jobs = job.current
        self._request: int | None = None
        self._farewell: int | None = None
        self._method = ""
        self._folder = Path(tempfile.mkdtemp(prefix=protocol.FOLDER_PREFIX))
        try:
            self._params = self._settings(context, wanted)
            self._speech = None
            if self.source == STRIP:
                self._speech = strips.speech_of(context, scene, self._folder, whole=True)
            self._made: dict[int, np.ndarray] = {}
            """Values of the frames of a strip, by their number in it."""
            self._begin, self._next, self._ended = 0, 0, False
            self._waiting: deque[np.ndarray] = deque()
            names, (self._rest,) = self._driven(np.zeros((1, len(arkit.ARKIT_NAMES)), np.float32))
            self.warnings = mesh_io.hindrances(scene.lsf.target, [name for name in names
                                               if name in mesh_io.existing_keys(scene.lsf.target)])
            self._engine = engine.start(python, preferences.device(context))
        except BaseException:
            self._remove_folder()
            raise
        self._puppet = Puppet(scene.lsf.target, names)
        self._puppet.hold()
        if self._speech is not None and self._speech.frames is None:
            self._ask("listen", self._speech.told)  # a whole file: nobody knows yet how long it is
        else:
            self._start(self._place(scene))

    def _settings(self, context: bpy.types.Context, wanted: Any) -> dict[str, Any]:
        """What the engine is told besides the sound: the face, and how it is performed."""
        scene, target = context.scene, context.scene.lsf.target
        face = parts.read(target)
        files = {"vertices": "vertices.npy", "faces": "faces.npy"}
        arrayfile.save_array(self._folder / files["vertices"], face.vertices)
        arrayfile.save_array(self._folder / files["faces"], face.triangles)
        params: dict[str, Any] = {
            "folder": str(self._folder), **files, **landmarks.guide(target, face, self._folder, 0), "fps": self._fps,
            "look_ahead": STRIP_LOOK_AHEAD if self.source == STRIP else wanted.look_ahead, "seed": scene.lsf.seed,
            "edits": order.edits_of_new_take(scene).to_dict(),
        }
        if order.mix_of(scene):
            params["emotion_mix"] = order.mix_of(scene)
        feeling = order.feeling_of(scene)
        if feeling is not None:
            params["emotion_from"] = strips.speech_of(context, scene, self._folder, feeling, whole=True).told
        if self.source == MICROPHONE:
            params["microphone"] = wanted.microphone
        return params

    def _driven(self, weights: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Names of the shape keys that are moved, and their values (F, K) for weights (F, 52)."""
        driven = self._drive.apply(arkit.ARKIT_NAMES, weights, self._fps)
        return driven.names, driven.weights

    # -- asking -----------------------------------------------------------------------------------------------------
    def _start(self, place: int) -> None:
        """Begin to hear: a strip a little before the frame of it that is shown."""
        params = dict(self._params)
        if self._speech is not None:
            speech = self._speech
            assert speech.frames is not None
            place = max(0, min(place, speech.frames - 1))
            self._begin = self._next = max(0, place - round(LEAD_SECONDS * self._fps))
            skipped = self._begin / self._fps
            left = speech.frames / self._fps - skipped
            params.update(replace(speech, offset=speech.offset + skipped, duration=left).told)
        self._ended = False
        self._ask("stream_start", params)

    def _ask(self, method: str, params: dict[str, Any]) -> None:
        self._method = method
        self._request = self._engine.ask(method, **params)

    def _go_on(self, scene: bpy.types.Scene) -> None:
        """Ask for what is needed next, if nothing is being asked."""
        if self._request is not None:
            return
        chunk = {"folder": str(self._folder), "seconds": CHUNK_SECONDS}
        if self._speech is None:
            self._ask("stream_chunk", chunk)
            return
        place, ahead = self._place(scene), round(AHEAD_SECONDS * self._fps)
        if self._within(place) and place not in self._made and not self._begin <= place <= self._next + ahead:
            self._start(place)  # the playhead was moved
        elif not self._ended and self._next <= place + ahead:
            self._ask("stream_chunk", chunk)

    def _place(self, scene: bpy.types.Scene) -> int:
        """The frame of the strip that the timeline is on."""
        return 0 if self._speech is None else scene.frame_current - self._speech.start_frame

    def _within(self, place: int) -> bool:
        frames = 0 if self._speech is None else self._speech.frames
        return frames is not None and 0 <= place < frames

    @property
    def interval(self) -> float:
        """Seconds between two polls in a window."""
        return min(1.0 / self._fps, 0.04)

    # -- driving ----------------------------------------------------------------------------------------------------
    def poll(self) -> bool:
        """Take what the engine made, ask for more, show it; True when the preview has ended. Never blocks."""
        if self.state != "RUNNING":
            return True
        scene = bpy.data.scenes.get((self._scene, None))
        try:
            if scene is None:
                raise Problem(f"The scene '{self._scene}' was removed or renamed. Start the preview again.")
            if job.current is not self._jobs:
                raise Problem("The preview ended as a take was made. Start it again.")
            if strips.scene_fps(scene) != self._fps:
                raise Problem("The scene's frame rate was changed. Start the preview again.")
            if not self._puppet.held:
                raise Problem("The shape keys of the preview were removed or renamed. Start the preview again.")
            for event in self._engine.poll():
                self._handle(event, scene)
            if self.state == "RUNNING":
                if self._request is None and not self._engine.alive:  # nobody is told of an end between two requests
                    raise Problem("The engine was stopped. Start the preview again.")
                self._go_on(scene)
                self.show(scene)
        except Problem as problem:
            self._fail(str(problem))
        except Exception as error:  # a defect of ours must not leave the face as it is now
            traceback.print_exc()
            self._fail(f"The add-on failed ({type(error).__name__}: {error}). This is a defect; please report it.")
        return self.state != "RUNNING"

    def _handle(self, event: protocol.Event, scene: bpy.types.Scene) -> None:
        if event.event == protocol.ERROR and event.id in (self._request, self._engine.hello):
            self._fail(event.message)
        elif event.id == self._request and event.event == protocol.PROGRESS:
            self.text = event.text or self.text
        elif event.id == self._request:
            self._request = None
            self._answered(event.data, scene)

    def _answered(self, data: dict[str, Any], scene: bpy.types.Scene) -> None:
        if self._method == "listen":
            assert self._speech is not None
            frames = max(1, math.ceil(float(data["seconds"]) * self._fps - 1e-6))
            self._speech = replace(self._speech, frames=frames)
            self._start(self._place(scene))
            return
        if self._method == "stream_start":
            self.text = f"Hearing {data['microphone']}" if data.get("microphone") else "Ready: play the timeline"
            return
        self.level, self._ended = data.get("level"), bool(data["ended"])
        values = self._values(data)
        if self._speech is None:
            self._waiting.extend(values)
            return
        for number, row in enumerate(values, self._begin + int(data["first"])):
            self._made.setdefault(number, row)
        self._next = self._begin + int(data["first"]) + len(values)

    def _values(self, data: dict[str, Any]) -> np.ndarray:
        """Values (F, K) of the frames of an answer. Raises Problem."""
        if not data.get("weights"):
            return np.zeros((0, len(self._rest)), np.float32)
        path = Path(protocol.inside(str(self._folder), str(data["weights"])))
        try:
            weights = np.load(path, allow_pickle=False)
            path.unlink()
        except (OSError, ValueError) as error:
            raise Problem(f"The engine's frames cannot be read ({error}). Start the preview again.") from error
        if weights.ndim != 2 or weights.shape[1] != len(arkit.ARKIT_NAMES) or not np.isfinite(weights).all():
            raise Problem(f"The engine's frames are {weights.dtype} {weights.shape}, or not numbers. This is a defect; "
                          "please report it.")
        return self._driven(np.clip(weights, 0.0, 1.0))[1]

    def show(self, scene: bpy.types.Scene) -> None:
        """Move the face as it is now: where the timeline is in the strip, or as the microphone was heard."""
        if self.state != "RUNNING" or scene.name != self._scene:
            return
        if self._speech is None:
            if self._waiting:
                while len(self._waiting) > BACKLOG:
                    self._waiting.popleft()
                self._puppet.show(self._waiting.popleft())
            return
        place = self._place(scene)
        values = self._made.get(place) if self._within(place) else self._rest
        if values is not None:
            self._puppet.show(values)

    # -- ending -----------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """End it: everything is as it was."""
        if self.state == "RUNNING":
            self.state = "STOPPED"
            self._end()

    def _fail(self, message: str) -> None:
        self.state, self.error = "FAILED", message
        self._end()

    def _end(self) -> None:
        mend()
        scene = bpy.data.scenes.get((self._scene, None))
        if scene is not None:
            settle(scene)
        self._request = None
        if self._engine.alive:  # what it does now is short, and no reason to end it: it lets go of the microphone next
            self._farewell = self._engine.ask("stream_end", folder=str(self._folder))
        self._remove_folder()

    def drain(self) -> bool:
        """After the end: take the engine's last answers; True while they are to come. A job's polls take them, too."""
        if self._farewell is None or not self._engine.alive or job.busy():
            return False
        if any(event.id == self._farewell for event in self._engine.poll()):
            self._farewell = None
        return self._farewell is not None

    def suspend(self) -> None:
        """Put everything back for a moment: the file is being saved."""
        mend()

    def resume(self) -> None:
        self._puppet.hold()

    def _remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def drive_of(target: bpy.types.Object) -> mapper.Drive:
    """How a preview moves the keys that the mesh has: as its active take does, else by what their names mean."""
    take = keys.active_take(target)
    if take is not None:
        try:
            return mapper.drive_of(take)
        except (ValueError, KeyError, TypeError):
            pass  # spoilt: go by the names
    plan = replace(mapper.plan(target), make=(), solved=())
    others = [name for part in parts.together(target)[1:] for name in mesh_io.existing_keys(part)]
    return mapper.drive(target, plan, np.zeros((0, 0, 3)), others)


def refusal(context: bpy.types.Context) -> str | None:
    """Why no preview can be started, in words for the panel; None if one can. Cheap."""
    if job.busy():
        return job.BUSY
    scene, target = context.scene, context.scene.lsf.target
    reason = mesh_io.refusal(target, scene) or parts.refusal(target, scene)
    if reason:
        return reason
    there = {name for thing in parts.keyed(target) for name in mesh_io.existing_keys(thing)}
    if not there & set(mapper.plan(target).direct) and keys.active_take(target) is None:
        return (f"'{target.name}' has no shape keys that a preview could move. Press Animate once: it makes them, or "
                "solves for those that there are.")
    if context.window_manager.lsf_live.source == STRIP:
        reason = strips.refusal(context, scene)
    feeling = order.feeling_of(scene)
    return reason or (strips.refusal(context, scene, feeling) if feeling else None) or engine_refusal(context)
