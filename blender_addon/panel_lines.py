"""The list of lines: several strips, each with the mesh that says it, animated in one job."""

from __future__ import annotations

from typing import Any

import bpy

from . import strips
from .operators import lines_refusal
from .panel import Section, draw_message, in_both_sidebars, wrap_width


def selected_strips(context: bpy.types.Context) -> list[Any]:
    """Selected sound strips in the order of time."""
    chosen = [strip for strip in strips.sound_strips(context, context.scene) if strip.select]
    return sorted(chosen, key=lambda strip: strips.sound_frame(strip))


class LSF_OT_add_lines(bpy.types.Operator):
    bl_idname = "lsf.add_lines"
    bl_label = "Add Selected Strips"
    bl_description = "Add a line for each sound strip that is selected in the sequencer and not in the list yet"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        there = bool(selected_strips(context))
        if not there:
            cls.poll_message_set("No sound strip is selected in the sequencer")
        return there

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.lsf
        listed = {line.strip_name for line in settings.lines}
        for strip in selected_strips(context):
            if strip.name not in listed:
                line = settings.lines.add()
                line.strip_name, line.target = strip.name, settings.target
        settings.active_line = len(settings.lines) - 1
        return {"FINISHED"}


class LSF_OT_remove_line(bpy.types.Operator):
    bl_idname = "lsf.remove_line"
    bl_label = "Remove Line"
    bl_description = "Take the line off the list. Strip, mesh and takes stay"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        there = bool(context.scene.lsf.lines)
        if not there:
            cls.poll_message_set("There are no lines")
        return there

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = context.scene.lsf
        settings.lines.remove(settings.active_line)
        settings.active_line = max(0, min(settings.active_line, len(settings.lines) - 1))
        return {"FINISHED"}


class LSF_UL_lines(bpy.types.UIList):
    bl_idname = "LSF_UL_lines"

    def draw_item(self, context: bpy.types.Context, layout: Any, data: Any, item: Any, icon: int,
                  active_data: Any, active_property: str, index: int = 0) -> None:
        row = layout.row(align=True)
        row.prop(item, "strip_name", text="", icon="SEQUENCE")
        row.prop(item, "target", text="")


class _Lines(Section):
    bl_label = "Several Strips"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        settings = context.scene.lsf
        row = self.layout.row()
        row.template_list("LSF_UL_lines", "", settings, "lines", settings, "active_line", rows=3)
        side = row.column(align=True)
        side.operator("lsf.add_lines", text="", icon="ADD")
        side.operator("lsf.remove_line", text="", icon="REMOVE")
        if not settings.lines:
            self.layout.operator("lsf.add_lines", icon="ADD")
        self.layout.operator("lsf.animate_lines", icon="PLAY")
        draw_message(self.layout, lines_refusal(context), "INFO", wrap_width(context))


PANELS = in_both_sidebars(_Lines, "lines")
CLASSES: tuple[type, ...] = (LSF_OT_add_lines, LSF_OT_remove_line, LSF_UL_lines, *PANELS)

register, unregister = bpy.utils.register_classes_factory(CLASSES)
