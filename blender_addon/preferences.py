"""The add-on's preferences: which Python runs the engine, and *Set up engine*."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bpy.props import StringProperty

from . import engine, engine_setup
from .report import Problem


class LSFPreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    engine_python: StringProperty(
        name="Engine Python", subtype="FILE_PATH",
        description="A Python 3.11+ with PyTorch and transformers, as in a virtual environment. Empty: found by itself",
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.prop(self, "engine_python")
        try:
            layout.label(text=f"The engine runs in {engine_python(context)}", icon="CHECKMARK")
        except Problem as problem:
            layout.label(text=str(problem), icon="ERROR")
        draw_setup(layout)
        layout.operator("lsf.stop_engine")


def draw_setup(layout: Any) -> None:
    """The set-up's button, or its progress and outcome."""
    work = engine_setup.current
    if engine_setup.busy():
        assert work
        layout.progress(factor=work.fraction, text=work.text)
        layout.label(text=work.log[-1][:100] if work.log else "")
        layout.operator("lsf.cancel_setup", icon="CANCEL")
        return
    layout.operator("lsf.setup_engine", icon="IMPORT")
    if work is not None:
        layout.label(text=work.text, icon="CHECKMARK" if work.state == "DONE" else "ERROR")
        layout.operator("lsf.copy_setup_log", icon="COPYDOWN")


def setup_refusal() -> str | None:
    """Why the engine cannot be set up, in words for the tooltip; None if it can."""
    if engine_setup.busy():
        return "The engine is being set up"
    if user_folder() is None:
        return "Only the installed extension has a folder for its engine; in a checkout use 'python3 install.py'"
    if not bpy.app.online_access:
        return "It downloads PyTorch. Allow Online Access in Preferences > System, or choose an existing Python above"
    return None


class LSF_OT_setup_engine(bpy.types.Operator):
    bl_idname = "lsf.setup_engine"
    bl_label = "Set Up Engine"
    bl_description = "Download PyTorch and the other packages into a Python environment of the add-on's own"

    _timer: Any = None

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        reason = setup_refusal()
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        if not self._begin():
            return {"CANCELLED"}
        assert engine_setup.current
        engine_setup.current.wait()
        return self._finish()

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if bpy.app.background:
            return self.execute(context)
        if not self._begin():
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
                if area.type == "PREFERENCES":
                    area.tag_redraw()
        if not ended:
            return {"PASS_THROUGH"}
        context.window_manager.event_timer_remove(self._timer)
        return self._finish()

    def cancel(self, context: bpy.types.Context) -> None:
        stop_setup()

    def _begin(self) -> bool:
        folder = user_folder()
        assert folder
        engine.stop()  # it may be the one that is made anew
        try:
            engine_setup.current = engine_setup.Setup(folder)
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


class LSF_OT_copy_setup_log(bpy.types.Operator):
    bl_idname = "lsf.copy_setup_log"
    bl_label = "Copy Log"
    bl_description = "Copy what the set-up's commands said"

    def execute(self, context: bpy.types.Context) -> set[str]:
        if engine_setup.current:
            context.window_manager.clipboard = "\n".join(engine_setup.current.log)
        return {"FINISHED"}


def engine_python(context: bpy.types.Context) -> str:
    """The engine's Python by environment, preference, set-up engine or checkout. Raises Problem."""
    addon = context.preferences.addons.get(__package__)  # missing when registered by a script from a checkout
    chosen = addon.preferences.engine_python if addon and addon.preferences else ""
    chosen = bpy.path.abspath(chosen) if chosen else ""
    if not engine_setup.busy():
        return engine.find_python(chosen, user_folder())
    try:
        return engine.find_python(chosen)  # not the one that is being replaced
    except Problem as problem:
        if chosen:
            raise
        raise Problem("The engine is being set up. Wait until that is done.") from problem


def user_folder() -> Path | None:
    """The folder that Blender gives an installed extension to write into, None in a checkout."""
    try:
        return Path(bpy.utils.extension_path_user(__package__))
    except (AttributeError, ValueError):
        return None


def stop_setup() -> None:
    """End a set-up that is under way, waiting for that (at most about 3 s)."""
    if engine_setup.current is not None and engine_setup.busy():
        engine_setup.current.cancel()
        engine_setup.current.wait()


CLASSES = (LSFPreferences, LSF_OT_setup_engine, LSF_OT_cancel_setup, LSF_OT_copy_setup_log)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    stop_setup()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
