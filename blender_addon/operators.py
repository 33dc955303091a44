"""Operators that make takes, cancel, stop the engine, copy the report. Export is in fbx.py, the list in takes.py."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import BoolProperty

from . import engine, job, keys, order
from .button import Refusing
from .order import Order, Pair
from .preferences import engine_python
from .report import Problem
from .task import Task

LISTENING, WORKING = 0.1, 0.01
"""Seconds between two ticks of the window's timer: while the engine works, and while its answer is taken up here."""


def disabled_reason(context: bpy.types.Context) -> str | None:
    """Why *Animate* cannot be pressed, in words for its tooltip and the panel; None if it can."""
    return job_refusal(context, order.panel_pairs(context.scene))


def lines_refusal(context: bpy.types.Context) -> str | None:
    """Why *Animate Lines* cannot be pressed, or None."""
    return job_refusal(context, order.line_pairs(context.scene))


def again_refusal(context: bpy.types.Context) -> str | None:
    """Why the active take cannot be made again, or None."""
    target = context.scene.lsf.target
    take = keys.active_take(target)
    if take is None:
        return "No take is active. Click one in the list."
    try:
        choice = order.again(take, target).choice
    except Problem as problem:
        return str(problem)
    return job_refusal(context, [(target, choice)])


def job_refusal(context: bpy.types.Context, pairs: list[Pair]) -> str | None:
    """Why no job can be started for these, or None."""
    if job.busy():
        return job.BUSY
    return order.refusal(context, pairs) or engine_refusal(context)


def engine_refusal(context: bpy.types.Context) -> str | None:
    """Why no engine can be started, or None. Cheap: it only looks whether the Python is there."""
    if engine.running():
        return None
    try:
        engine_python(context)
    except Problem as problem:
        return str(problem)
    return None


class RunsTask(Refusing):
    """An operator that has the engine do something: blocking in scripts, modal in a window. Says what in `task`, and
    those that make takes in `orders`."""

    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012 (Blender's way to say it)
    _timer: Any = None
    _interval = 0.0
    _told: Any = None

    def orders(self, context: bpy.types.Context) -> list[Order]:
        """What takes to make. Raises Problem."""
        raise NotImplementedError

    def task(self, context: bpy.types.Context) -> Task:
        """What to do, begun. Raises Problem."""
        return job.Job(context, lambda: engine_python(context), self.orders(context))

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Block until the keys are written: scripts, tests, background mode."""
        if not self._begin(context):
            return {"CANCELLED"}
        assert job.current
        job.current.wait()
        return self._finish(context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Return at once and work on a timer, so that the window stays alive."""
        if bpy.app.background:  # modal() never runs there
            return self.execute(context)
        if not self._begin(context):
            return {"CANCELLED"}
        self._set_timer(context, LISTENING)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type != "TIMER" or job.current is None:
            return {"PASS_THROUGH"}
        ended = job.current.poll()
        told = (job.current.text, job.current.fraction)
        if told != self._told:  # drawing costs more than the tick
            self._told = told
            redraw(context)
        if not ended:
            self._set_timer(context, WORKING if job.current.at_work else LISTENING)
            return {"PASS_THROUGH"}
        redraw(context)
        self._remove_timer(context)
        return self._finish(context)

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator: another file is opened, or Blender quits."""
        self._remove_timer(context)
        if job.current is not None:
            job.current.abandon()

    def _begin(self, context: bpy.types.Context) -> bool:
        settings = context.scene.lsf
        settings.error = settings.warnings = settings.summary = ""
        try:
            if job.busy():
                raise Problem(job.BUSY)
            job.current = self.task(context)
        except Problem as problem:
            settings.error = str(problem)
            self.report({"ERROR"}, str(problem))
            return False
        return True

    def _finish(self, context: bpy.types.Context) -> set[str]:
        ended = job.current
        assert ended
        settings = context.scene.lsf
        settings.warnings, settings.summary = "\n".join(ended.warnings), ended.summary
        if ended.state == "DONE":
            for warning in ended.warnings:
                self.report({"WARNING"}, warning)
            self.report({"INFO"}, ended.summary)
            return {"FINISHED"}
        settings.error = ended.error
        # In a script a cancelled job must not look like a finished one, so it is told as an error too.
        told = "INFO" if ended.state == "CANCELLED" and not bpy.app.background else "ERROR"
        self.report({told}, ended.error)
        return {"CANCELLED"}

    def _set_timer(self, context: bpy.types.Context, interval: float) -> None:
        if interval != self._interval:
            self._remove_timer(context)
            self._timer = context.window_manager.event_timer_add(interval, window=context.window)
            self._interval = interval

    def _remove_timer(self, context: bpy.types.Context) -> None:
        if self._timer is not None:
            context.window_manager.event_timer_remove(self._timer)
        self._timer, self._interval = None, 0.0


class LSF_OT_animate(RunsTask, bpy.types.Operator):
    bl_idname = "lsf.animate"
    bl_label = "Animate"
    bl_description = "Make a new take: hear the speech, read the face, and key its shape keys"

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return disabled_reason(context)

    def orders(self, context: bpy.types.Context) -> list[Order]:
        return order.checked(context, order.panel_pairs(context.scene))


class LSF_OT_animate_lines(RunsTask, bpy.types.Operator):
    bl_idname = "lsf.animate_lines"
    bl_label = "Animate Lines"
    bl_description = "Make a take of every line in the list, each strip on its own mesh, in one go"

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return lines_refusal(context)

    def orders(self, context: bpy.types.Context) -> list[Order]:
        return order.checked(context, order.line_pairs(context.scene))


class LSF_OT_animate_emotions(RunsTask, bpy.types.Operator):
    bl_idname = "lsf.animate_emotions"
    bl_label = "One Take of Each"
    bl_description = "Make seven takes of the same speech, each in one of the named emotions, to be compared"

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return disabled_reason(context)

    def orders(self, context: bpy.types.Context) -> list[Order]:
        return order.one_of_each(context)


class LSF_OT_regenerate(RunsTask, bpy.types.Operator):
    bl_idname = "lsf.regenerate"
    bl_label = "Make Again"
    bl_description = "Run the network again with what the active take was made of, into a new take"

    new_seed: BoolProperty(
        name="New Seed", default=False, options={"SKIP_SAVE"},
        description="With a seed that no take of this mesh has yet: a variation. Otherwise the same keys come again",
    )

    @classmethod
    def description(cls, context: bpy.types.Context, properties: Any) -> str:
        return (cls.bl_description + (", with a new seed: a variation" if properties.new_seed else
                                      " of the same seed: the same keys, unless strip or network changed since"))

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return again_refusal(context)

    def orders(self, context: bpy.types.Context) -> list[Order]:
        target = context.scene.lsf.target
        take = keys.active_take(target)
        if take is None:
            raise Problem("No take is active. Click one in the list.")
        seed = None
        if self.new_seed:
            seed = 1 + max(int(keys.take_settings(each).get("seed", 0)) for each in keys.takes_of(target))
        return [order.again(take, target, seed)]


class LSF_OT_cancel(bpy.types.Operator):
    bl_idname = "lsf.cancel"
    bl_label = "Cancel"
    bl_description = "Stop making the take; nothing is changed"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not job.busy():
            cls.poll_message_set("No take is being made")
        return job.busy()

    def execute(self, context: bpy.types.Context) -> set[str]:
        assert job.current
        job.current.cancel()
        redraw(context)
        return {"FINISHED"}


class LSF_OT_stop_engine(bpy.types.Operator):
    bl_idname = "lsf.stop_engine"
    bl_label = "Stop Engine"
    bl_description = "End the engine process, which frees its memory, the GPU's too. The next take starts it again"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        reason = "A take is being made" if job.busy() else "" if engine.running() else "The engine is not running"
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        engine.stop()
        return {"FINISHED"}


class LSF_OT_copy_report(bpy.types.Operator):
    bl_idname = "lsf.copy_report"
    bl_label = "Copy Report"
    bl_description = "Copy what is needed for a bug report: the message, versions, and the engine's log"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        there = job.current is not None and bool(job.current.report)
        if not there:
            cls.poll_message_set("The last take did not fail")
        return there

    def execute(self, context: bpy.types.Context) -> set[str]:
        assert job.current
        context.window_manager.clipboard = job.current.report
        self.report({"INFO"}, "Report copied")
        return {"FINISHED"}


def redraw(context: bpy.types.Context) -> None:
    """Show the progress: the panel's editors are drawn again."""
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in ("VIEW_3D", "SEQUENCE_EDITOR"):
                area.tag_redraw()


CLASSES = (LSF_OT_animate, LSF_OT_animate_lines, LSF_OT_animate_emotions, LSF_OT_regenerate, LSF_OT_cancel,
           LSF_OT_stop_engine, LSF_OT_copy_report)


def register() -> None:
    job.register()
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    if job.current is not None:
        job.current.abandon()
        job.current = None
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
    job.unregister()
