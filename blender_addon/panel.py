"""The panel's frame, in the sidebars of the 3D view and of the sequencer: mesh, speech, *Animate*, what came of it.

Every further section is a sub-panel of its own in a file `panel_*.py`, made by `in_both_sidebars`. Panels show; what
can be pressed is said by the operators' `refusal` functions, and nothing slow may happen here: Blender draws a panel at
every movement of the mouse.
"""

from __future__ import annotations

import textwrap
from typing import Any

import bpy

from . import job
from .operators import disabled_reason
from .report import cures_of

WRAP = 34
"""Characters of a message on a line where the sidebar's width is not known."""

SIDEBARS = {"VIEW_3D": "view3d", "SEQUENCE_EDITOR": "sequencer"}
"""Editors that show the panel, and what their panels' names end in."""


def wrap_width(context: bpy.types.Context) -> int:
    """Characters that fit on a line of this sidebar, beside an icon: about 6.5 pixels each at a UI scale of 1."""
    if context.region is None or context.region.width <= 1:
        return WRAP
    scale = context.preferences.system.ui_scale
    return max(20, int((context.region.width / scale - 60) / 6.5))


class Section:
    """What all our panels share. A sub-panel adds bl_label and draw, and goes through `in_both_sidebars`."""

    layout: Any  # set by Blender
    bl_label = "LSF-Animation"
    bl_region_type = "UI"
    bl_category = "LSF"

    def draw(self, context: bpy.types.Context) -> None:
        raise NotImplementedError


def in_both_sidebars(section: type[Section], name: str, parent: str = "LSF_PT") -> tuple[type, ...]:
    """The panel classes of a section: LSF_PT_<name>_view3d and LSF_PT_<name>_sequencer, inside those of `parent`."""
    return tuple(
        type(f"LSF_PT_{name}_{suffix}", (section, bpy.types.Panel), {
            "bl_idname": f"LSF_PT_{name}_{suffix}", "bl_space_type": space, "bl_parent_id": f"{parent}_{suffix}",
        }) for space, suffix in SIDEBARS.items()
    )


class _Main(Section):
    def draw(self, context: bpy.types.Context) -> None:
        draw_settings(self.layout, context)
        draw_run(self.layout, context)
        draw_outcome(self.layout, context)


class LSF_PT_view3d(_Main, bpy.types.Panel):
    bl_idname = "LSF_PT_view3d"
    bl_space_type = "VIEW_3D"


class LSF_PT_sequencer(_Main, bpy.types.Panel):
    bl_idname = "LSF_PT_sequencer"
    bl_space_type = "SEQUENCE_EDITOR"


class _Options(Section):
    bl_label = "Options"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        settings = context.scene.lsf
        column = self.layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.enabled = not job.busy()
        column.prop(settings, "key_style")
        column.prop(settings, "edits")
        column.prop(settings, "extend_frame_range")
        if settings.strip_name:
            column.prop(settings, "frame_range_only")


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
    column.prop(settings, "variations")
    if settings.edits:
        column.prop(settings, "preset", icon="PRESET")


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


def draw_message(layout: Any, text: str | None, icon: str, width: int = WRAP) -> None:
    """A message over as many lines as it needs: labels do not wrap. Below it the buttons that mend it."""
    if not text:
        return
    column = layout.column(align=True)
    for number, line in enumerate(textwrap.wrap(text, width)):
        column.label(text=line, icon=icon if number == 0 else "BLANK1")
    for cure in cures_of(text):
        cure.draw(column)


CLASSES: tuple[type, ...] = (LSF_PT_view3d, LSF_PT_sequencer, *in_both_sidebars(_Options, "options"))

register, unregister = bpy.utils.register_classes_factory(CLASSES)
