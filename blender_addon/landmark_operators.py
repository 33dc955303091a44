"""Buttons of the landmarks: show them (after a fit of the face, where there is none yet), hide them, remove them."""

from __future__ import annotations

from typing import Any

import bpy

from . import job, landmarks, mesh_io, parts, pieces
from .button import Button
from .operators import RunsTask, engine_refusal
from .preferences import engine_python
from .report import Problem
from .task import Task


class FaceFit(Task):
    """Finds the face in the chosen mesh and shows its landmarks."""

    def _prepare(self, context: bpy.types.Context) -> list[tuple[str, Any]]:
        target = context.scene.lsf.target
        self._target = target.name
        self._mesh = self._read_mesh(target, 0)
        return [("rig", self._mesh)]

    def _question(self, step: str, about: Any) -> dict[str, Any]:
        return {"folder": str(self._folder), **self._mesh.files}

    def _answered(self, step: str, about: Any, data: dict[str, Any]) -> pieces.Pieces[None]:
        self._mesh.fit = yield from pieces.aside(lambda: self._fit(self._mesh, data))

    def _write(self) -> pieces.Pieces[None]:
        yield None
        target = bpy.data.objects.get((self._target, None))
        if target is None or not self._mesh.data.unchanged(target):
            raise Problem(f"'{self._target}' was edited, removed or renamed while the engine worked. Nothing was "
                          "changed; press Show Landmarks again.")
        if self._mesh.fit is None:
            raise Problem("This engine tells no landmarks. Install the add-on and its engine from the same release.")
        landmarks.keep(target, self._mesh.fit)
        self.summary = f"{landmarks.show(target, self._mesh.fit)} landmarks of '{target.name}'"


def show_refusal(context: bpy.types.Context) -> str | None:
    """Why the landmarks cannot be shown, or None."""
    target = context.scene.lsf.target
    if job.busy():
        return job.BUSY
    reason = mesh_io.refusal(target, context.scene)
    return reason or parts.refusal(target, context.scene) or landmarks.refusal(target) or engine_refusal(context)


class LSF_OT_show_landmarks(RunsTask, bpy.types.Operator):
    bl_idname = "lsf.show_landmarks"
    bl_label = "Show Landmarks"
    bl_description = ("Show where the face was found, as empties on the neutral mesh. Move those that are wrong: the "
                      "next Animate takes them as true")

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return show_refusal(context)

    def task(self, context: bpy.types.Context) -> Task:
        reason = show_refusal(context)
        if reason:
            raise Problem(reason)
        return FaceFit(context, lambda: engine_python(context))

    def execute(self, context: bpy.types.Context) -> set[str]:
        return {"FINISHED"} if self._show_known(context) else super().execute(context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return {"FINISHED"} if self._show_known(context) else super().invoke(context, event)

    def _show_known(self, context: bpy.types.Context) -> bool:
        """Show the last fit, where it is of this mesh: nothing has to be asked of the engine."""
        target = context.scene.lsf.target
        if job.busy() or mesh_io.refusal(target, context.scene):
            return False
        try:
            found = landmarks.up_to_date(target)
        except Problem:  # told by the task
            return False
        if found is None:
            return False
        self.report({"INFO"}, f"{landmarks.show(target, found)} landmarks of '{target.name}'")
        return True


class _OnLandmarks(Button):
    """An operator on the landmarks of the chosen mesh."""

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        target = context.scene.lsf.target
        return job.BUSY if job.busy() else mesh_io.refusal(target, context.scene)

    def subject(self, context: bpy.types.Context) -> tuple[Any, ...]:
        return (context.scene.lsf.target,)


class LSF_OT_hide_landmarks(_OnLandmarks, bpy.types.Operator):
    bl_idname = "lsf.hide_landmarks"
    bl_label = "Hide Landmarks"
    bl_description = "Remove the empties. Those that you moved keep their places and go on to be used"

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        target = context.scene.lsf.target
        return super().refusal(context) or (
            None if landmarks.shown(target) else f"No landmarks of '{target.name}' are shown")

    def work(self, target: bpy.types.Object) -> None:
        landmarks.hide(target)


class LSF_OT_remove_landmarks(_OnLandmarks, bpy.types.Operator):
    bl_idname = "lsf.remove_landmarks"
    bl_label = "Remove Landmarks"
    bl_description = "Remove the empties and forget where you moved them: the face is found automatically again"

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        target = context.scene.lsf.target
        there = target is not None and (landmarks.shown(target) or landmarks.LANDMARKS_TAG in target)
        return super().refusal(context) or (None if there else f"'{target.name}' has no landmarks of yours")

    def work(self, target: bpy.types.Object) -> None:
        landmarks.forget(target)


CLASSES = (LSF_OT_show_landmarks, LSF_OT_hide_landmarks, LSF_OT_remove_landmarks)

register, unregister = bpy.utils.register_classes_factory(CLASSES)
