"""The buttons of the preferences: set the engine up, cancel, remove it, see its log, free its memory."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import bpy

from . import engine, engine_setup, job
from .preferences import setup_refusal, user_folder, wheel_folder
from .report import Problem

UNLOAD_WITHIN_S = 2.0


class LSF_OT_setup_engine(bpy.types.Operator):
    bl_idname = "lsf.setup_engine"
    bl_label = "Set Up Engine"
    bl_description = ("Make the engine's own Python environment with PyTorch and the other packages, anew where there "
                      "is one. An engine that works stays until the new one does")

    _timer: Any = None

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        reason = setup_refusal()
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        if not self._begin(context):
            return {"CANCELLED"}
        assert engine_setup.current
        engine_setup.current.wait()
        return self._finish()

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if bpy.app.background:
            return self.execute(context)
        if not self._begin(context):
            return {"CANCELLED"}
        self._timer = context.window_manager.event_timer_add(0.25, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type != "TIMER" or engine_setup.current is None:
            return {"PASS_THROUGH"}
        ended = engine_setup.current.poll()
        for window in context.window_manager.windows:
            for area in window.screen.areas:
                if area.type in ("PREFERENCES", "VIEW_3D"):
                    area.tag_redraw()
        if not ended:
            return {"PASS_THROUGH"}
        context.window_manager.event_timer_remove(self._timer)
        return self._finish()

    def cancel(self, context: bpy.types.Context) -> None:
        stop_setup()

    def _begin(self, context: bpy.types.Context) -> bool:
        folder = user_folder()
        assert folder
        try:
            if job.busy():
                raise Problem("A take is being made. Wait for it or cancel it, then set the engine up.")
            engine.stop()  # it may be the one that is made anew
            steps = functools.partial(engine_setup.plan, wheels=wheel_folder(context))
            engine_setup.current = engine_setup.Setup(folder, steps)
        except Problem as problem:
            self.report({"ERROR"}, str(problem))
            return False
        return True

    def _finish(self) -> set[str]:
        work = engine_setup.current
        assert work
        if work.state == "DONE":
            self.report({"INFO"}, work.text)
            return {"FINISHED"}
        self.report({"ERROR"}, work.error)
        return {"CANCELLED"}


class LSF_OT_cancel_setup(bpy.types.Operator):
    bl_idname = "lsf.cancel_setup"
    bl_label = "Cancel"
    bl_description = "Stop setting up; an engine that was there before comes back"

    def execute(self, context: bpy.types.Context) -> set[str]:
        if engine_setup.current:
            engine_setup.current.cancel()
        return {"FINISHED"}


class LSF_OT_remove_engine(bpy.types.Operator):
    bl_idname = "lsf.remove_engine"
    bl_label = "Remove Engine"
    bl_description = "Delete the environment that Set Up Engine made, which frees 1 to 8 GB of disk"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        folder = user_folder()
        there = folder is not None and any((folder / name).exists() for name in (engine.MADE, engine.OLD))
        reason = ("The engine is being set up" if engine_setup.busy() else "A take is being made" if job.busy()
                  else "" if there else "There is no engine that Set Up Engine made")
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: bpy.types.Context) -> set[str]:
        folder = user_folder()
        assert folder
        engine.stop()
        try:
            freed = engine_setup.remove(folder)
        except Problem as problem:
            self.report({"ERROR"}, str(problem))
            return {"CANCELLED"}
        engine_setup.current = None
        self.report({"INFO"}, f"The engine is removed: {freed / 2**30:.1f} GB are free again")
        return {"FINISHED"}


def log_file() -> Path | None:
    """The log of the last set-up, if there is one."""
    folder = user_folder()
    return folder / engine_setup.LOG if folder and (folder / engine_setup.LOG).is_file() else None


class _LogOperator(bpy.types.Operator):
    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if log_file() is None:
            cls.poll_message_set("The engine was not set up here yet")
        return log_file() is not None


class LSF_OT_open_setup_log(_LogOperator):
    bl_idname = "lsf.open_setup_log"
    bl_label = "Open Log"
    bl_description = "Open what the last set-up's commands said, in the system's text editor"

    def execute(self, context: bpy.types.Context) -> set[str]:
        bpy.ops.wm.path_open(filepath=str(log_file()))
        return {"FINISHED"}


class LSF_OT_copy_setup_log(_LogOperator):
    bl_idname = "lsf.copy_setup_log"
    bl_label = "Copy Log"
    bl_description = "Copy what the last set-up's commands said"

    def execute(self, context: bpy.types.Context) -> set[str]:
        path = log_file()
        assert path
        context.window_manager.clipboard = path.read_text(encoding="utf-8", errors="replace")
        return {"FINISHED"}


class LSF_OT_show_preferences(bpy.types.Operator):
    bl_idname = "lsf.show_preferences"
    bl_label = "Open Preferences"
    bl_description = "Show this add-on in Blender's preferences, where its engine is set up"

    def execute(self, context: bpy.types.Context) -> set[str]:
        if __package__ in context.preferences.addons:
            bpy.ops.preferences.addon_show(module=__package__)
        else:  # registered by a script: it is not in the list
            bpy.ops.screen.userpref_show()
        return {"FINISHED"}


class LSF_OT_unload_engine(bpy.types.Operator):
    bl_idname = "lsf.unload_engine"
    bl_label = "Free Memory"
    bl_description = "Let the engine forget the network and the faces it has read. The next take loads them again"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        there = engine.running()
        reason = ("A take is being made" if job.busy() else "The engine is not running" if there is None
                  else "" if there.state == "Idle" else "The engine is starting")
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        there = engine.running()
        assert there
        request = there.ask("unload")
        until = time.monotonic() + UNLOAD_WITHIN_S
        while time.monotonic() < until:
            if any(event.id == request for event in there.poll()):
                return {"FINISHED"}
            time.sleep(0.01)
        engine.stop()  # it has hung itself up: then its whole memory is free
        return {"FINISHED"}


def stop_setup() -> None:
    """End a set-up that is under way, waiting for that (at most about 3 s)."""
    if engine_setup.current is not None and engine_setup.busy():
        engine_setup.current.cancel()
        engine_setup.current.wait()


CLASSES = (LSF_OT_setup_engine, LSF_OT_cancel_setup, LSF_OT_remove_engine, LSF_OT_open_setup_log,
           LSF_OT_copy_setup_log, LSF_OT_show_preferences, LSF_OT_unload_engine)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    stop_setup()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
