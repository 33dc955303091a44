"""Sub-panels *Face*, where the face is on the mesh, and *Shape Keys*, which of the mesh's own keys a take drives."""

from __future__ import annotations

from typing import Any

import bpy

from . import job, landmarks, mapper, mesh_io
from .panel import Section, draw_message, in_both_sidebars, wrap_width
from .shared import arkit, key_names


class LSF_UL_mapping(bpy.types.UIList):
    """A row for each ARKit shape, then one for each viseme and pose, with the shape key that stands for it."""

    bl_idname = "LSF_UL_mapping"

    def draw_item(self, context: bpy.types.Context, layout: Any, data: Any, item: Any, icon: int,
                  active_data: Any, active_property: str, index: int = 0) -> None:
        row = layout.split(factor=0.5)
        row.label(text=item.name, icon="SHAPEKEY_DATA" if item.name in arkit.INDEX else "SPEAKER")
        row.prop(item, "key", text="")


class LSF_MT_mapping(bpy.types.Menu):
    bl_idname = "LSF_MT_mapping"
    bl_label = "Mapping"

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.operator("lsf.map_keys", text="As Recognised").preset = ""
        self.layout.separator()
        for name in key_names.CONVENTIONS:
            self.layout.operator("lsf.map_keys", text=name).preset = name
        self.layout.separator()
        self.layout.operator("lsf.unmap_keys", icon="X")


class _Face(Section):
    bl_label = "Face"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        layout, target, width = self.layout, context.scene.lsf.target, wrap_width(context)
        reason = mesh_io.refusal(target, context.scene)
        draw_message(layout, reason, "INFO", width)
        if reason:
            return
        column = layout.column()
        column.enabled = not job.busy()
        column.prop_search(target, "lsf_area", target, "vertex_groups")
        draw_message(column, landmarks.refusal(target), "ERROR", width)
        row = column.row(align=True)
        if landmarks.shown(target):
            row.operator("lsf.hide_landmarks", icon="HIDE_ON")
        else:
            row.operator("lsf.show_landmarks", icon="EMPTY_AXIS")
        row.operator("lsf.remove_landmarks", text="", icon="X")
        for doubt in landmarks.doubts(target):
            draw_message(column, doubt, "ERROR", width)


class _Keys(Section):
    bl_label = "Shape Keys"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        layout, target, width = self.layout, context.scene.lsf.target, wrap_width(context)
        reason = mesh_io.refusal(target, context.scene)
        draw_message(layout, reason or mapper.describe(target), "INFO", width)
        if reason:
            return
        column = layout.column()
        column.enabled = not job.busy()
        row = column.row(align=True)
        row.label(text="Missing Shapes")
        row.prop(target.lsf_keys, "missing", text="")
        if len(target.lsf_keys.rows):
            column.template_list("LSF_UL_mapping", "", target.lsf_keys, "rows", target.lsf_keys, "row", rows=8)
            column.menu("LSF_MT_mapping", text="Presets", icon="PRESET")
        else:
            column.operator("lsf.map_keys", icon="PRESET")
            draw_message(column, mapper.refusal(target, context.scene), "INFO", width)


CLASSES = (*in_both_sidebars(_Face, "face"), *in_both_sidebars(_Keys, "keys"))
OTHERS = (LSF_UL_mapping, LSF_MT_mapping)

register, unregister = bpy.utils.register_classes_factory((*OTHERS, *CLASSES))
