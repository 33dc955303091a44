"""Live preview: the face moves in the viewport while a strip plays, or as a microphone hears it; nothing is written.

The button, the window's timer that drives the preview (live_preview.py), and the handlers that end it, or have it put
everything back for a moment.
"""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.handlers import persistent
from bpy.props import EnumProperty, FloatProperty, PointerProperty, StringProperty

from . import preferences
from .button import Refusing
from .live_preview import MICROPHONE, STRIP, Preview, refusal
from .operators import redraw
from .puppet import mend, settle
from .report import Problem

current: Preview | None = None
"""The preview that runs, or the last one that did; the panel shows it."""


def running() -> Preview | None:
    """The preview, if it runs."""
    return current if current is not None and current.state == "RUNNING" else None


class LSF_OT_live_preview(Refusing, bpy.types.Operator):
    bl_idname = "lsf.live_preview"
    bl_label = "Live Preview"
    bl_description = ("Move the face in the viewport while the strip plays, or as the microphone hears it. Writes no "
                      "keys; press again to stop, and everything is as it was")
    bl_options = {"REGISTER"}  # noqa: RUF012

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return None if running() else refusal(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        global current
        there = running()
        if there is not None:
            there.stop()
            redraw(context)
            return {"FINISHED"}
        try:
            current = Preview(context, preferences.engine_python(context))
        except (Problem, OSError) as problem:
            self.report({"ERROR"}, str(problem))
            return {"CANCELLED"}
        for warning in current.warnings:
            self.report({"WARNING"}, warning)
        if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
            bpy.app.timers.register(_tick, persistent=True)  # another file: the engine has a last answer to give
        return {"FINISHED"}


def _tick() -> float | None:
    """The window's timer: until when it waits, or None at the end."""
    there = running()
    if there is None:
        return 0.1 if current is not None and current.drain() else None
    before = (there.text, there.level)
    ended = there.poll()
    if ended or (there.text, there.level) != before:
        redraw(bpy.context)
    return 0.1 if ended else there.interval


def playing() -> bool:
    """Whether the timeline plays in a window."""
    return any(window.screen.is_animation_playing for window in bpy.context.window_manager.windows)


@persistent
def _frame_changed(scene: bpy.types.Scene, *_: Any) -> None:
    """Over the animation before it is drawn, while it plays. Exporters change frames, too: they see the animation."""
    there = running()
    if there is not None and playing():
        there.show(scene)


def stop() -> None:
    """End the preview, if one runs: everything is as it was."""
    there = running()
    if there is not None:
        there.stop()


@persistent
def _stop(*_: Any) -> None:
    """Before an undo, a rendering, and before another file is opened."""
    stop()


@persistent
def _mend(*_: Any) -> None:
    """After an undo, and in a file that was opened: nothing may look as a preview left it."""
    if running() is None and mend():
        settle(bpy.context.scene)


@persistent
def _before_save(*_: Any) -> None:
    there = running()
    if there is not None:
        there.suspend()


@persistent
def _after_save(*_: Any) -> None:
    there = running()
    if there is not None:
        there.resume()


HANDLERS = (("frame_change_post", _frame_changed), ("undo_pre", _stop), ("redo_pre", _stop), ("load_pre", _stop),
            ("render_init", _stop),
            ("undo_post", _mend), ("redo_post", _mend), ("load_post", _mend), ("save_pre", _before_save),
            ("save_post", _after_save), ("save_post_fail", _after_save))


class LSFLive(bpy.types.PropertyGroup):
    """`window_manager.lsf_live`: what a preview hears. Not saved with the file: a microphone belongs to the desk."""

    source: EnumProperty(
        name="Hear", default=STRIP,
        items=[(STRIP, "Strip", "The strip or sound file that is chosen, as the timeline plays it"),
               (MICROPHONE, "Microphone", "What is said now into the engine's microphone")],
        description="Where the preview's sound comes from",
    )
    microphone: StringProperty(
        name="Device", description="Part of the name of an input device; empty: the system's default",
    )
    look_ahead: FloatProperty(
        name="Look-Ahead", default=0.16, min=0.08, max=0.64, step=8, precision=2, unit="NONE",
        description="Seconds that the face comes after the voice. Longer is more exact and costs less",
    )


def register() -> None:
    bpy.utils.register_class(LSFLive)
    bpy.utils.register_class(LSF_OT_live_preview)
    bpy.types.WindowManager.lsf_live = PointerProperty(type=LSFLive)
    for name, handler in HANDLERS:
        if hasattr(bpy.app.handlers, name):
            getattr(bpy.app.handlers, name).append(handler)


def unregister() -> None:
    global current
    stop()
    current = None
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    for name, handler in HANDLERS:
        if hasattr(bpy.app.handlers, name):
            getattr(bpy.app.handlers, name).remove(handler)
    del bpy.types.WindowManager.lsf_live
    bpy.utils.unregister_class(LSF_OT_live_preview)
    bpy.utils.unregister_class(LSFLive)
