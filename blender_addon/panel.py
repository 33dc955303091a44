"""The panel, in the sidebars of the 3D view and of the sequencer. It shows; `operators` says what can be pressed."""

from __future__ import annotations

import textwrap
from typing import Any

import bpy

from . import fbx, job, keys
from .operators import disabled_reason

WRAP = 34
"""Characters of a message on a line where the sidebar's width is not known."""


def wrap_width(context: bpy.types.Context) -> int:
    """Characters that fit on a line of this sidebar, beside an icon: about 6.5 pixels each at a UI scale of 1."""
    if context.region is None or context.region.width <= 1:
        return WRAP
    scale = context.preferences.system.ui_scale
    return max(20, int((context.region.width / scale - 60) / 6.5))


class _Panel:
    layout: Any  # set by Blender
    bl_label = "LSF-Animation"
    bl_region_type = "UI"
    bl_category = "LSF"

    def draw(self, context: bpy.types.Context) -> None:
        draw_settings(self.layout, context)
        draw_run(self.layout, context)
        draw_outcome(self.layout, context)
        draw_takes(self.layout, context)


class LSF_PT_view3d(_Panel, bpy.types.Panel):
    bl_idname = "LSF_PT_view3d"
    bl_space_type = "VIEW_3D"


class LSF_PT_sequencer(_Panel, bpy.types.Panel):
    bl_idname = "LSF_PT_sequencer"
    bl_space_type = "SEQUENCE_EDITOR"


def draw_settings(layout: Any, context: bpy.types.Context) -> None:
    """Mesh, speech, and how it is performed."""
    settings = context.scene.lsf
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    column.enabled = not job.busy()
    column.prop(settings, "target")
    column.prop(settings, "strip_name", icon="SEQUENCE")
    if not settings.strip_name:
        column.prop(settings, "audio_path")
        column.prop(settings, "start_frame")
    column.separator()
    column.prop(settings, "emotion_strength", slider=True)
    column.prop(settings, "temperature", slider=True)
    column.prop(settings, "seed")
    column.prop(settings, "edits")
    column.prop(settings, "extend_frame_range")


def draw_run(layout: Any, context: bpy.types.Context) -> None:
    """*Animate*, or the progress of the take that is being made."""
    if job.busy():
        assert job.current
        layout.progress(factor=job.current.fraction, text=f"{job.current.text} ({job.current.fraction:.0%})")
        layout.operator("lsf.cancel", icon="CANCEL")
        return
    row = layout.row()
    row.scale_y = 1.4
    row.operator("lsf.animate", icon="PLAY")
    draw_message(layout, disabled_reason(context), "INFO", wrap_width(context))


def draw_outcome(layout: Any, context: bpy.types.Context) -> None:
    """What the last job did, warned of, or failed with."""
    settings = context.scene.lsf
    if job.busy():
        return
    width = wrap_width(context)
    draw_message(layout, settings.error, "ERROR", width)
    if settings.error and job.current is not None and job.current.report:
        layout.operator("lsf.copy_report", icon="COPYDOWN")
    draw_message(layout, settings.summary, "CHECKMARK", width)
    for warning in settings.warnings.splitlines():
        draw_message(layout, warning, "ERROR", width)


def draw_takes(layout: Any, context: bpy.types.Context) -> None:
    """The active take and its export."""
    target = context.scene.lsf.target
    take = keys.active_take(target)
    box = layout.column()
    if take is not None:
        box.label(text=f"Take: {take.name}", icon="ACTION")
    box.operator("lsf.export_fbx", icon="EXPORT")
    if take is None:
        draw_message(box, fbx.refusal(context), "INFO", wrap_width(context))


def draw_message(layout: Any, text: str | None, icon: str, width: int = WRAP) -> None:
    """A message over as many lines as it needs: labels do not wrap."""
    if not text:
        return
    column = layout.column(align=True)
    for number, line in enumerate(textwrap.wrap(text, width)):
        column.label(text=line, icon=icon if number == 0 else "BLANK1")


CLASSES = (LSF_PT_view3d, LSF_PT_sequencer)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
