"""Sub-panel *Edits*: strengths of the active take that need no network, presets, gain and offset of single shapes."""

from __future__ import annotations

from typing import Any

import bpy

from . import edits, keys, presets
from .panel import Section, draw_message, in_both_sidebars, wrap_width
from .shared import edits as core

GROUPS = {
    "Face": ("emotion", "jaw", "lips", "cheeks", "brows", "eyes"),
    "Mouth and Time": ("closure", "smoothing", "asymmetry", "breath", "settle"),
    "Eyes and Head": ("blink", "gaze", "head"),
}
"""Strengths under the headings of the panel."""

NO_HEAD = "This take turns no bone: choose an armature and a head bone under Parts and Bones, then 'Make Again'."
"""Why the strength of the head's motion changes nothing of a take."""


class LSF_MT_presets(bpy.types.Menu):
    bl_idname = "LSF_MT_presets"
    bl_label = "Presets"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        own = presets.own()
        for name in [name for name in core.PRESETS if name not in own]:
            layout.operator("lsf.apply_preset", text=name).name = name
        if own:
            layout.separator()
        for name in own:
            layout.operator("lsf.apply_preset", text=name, icon="USER").name = name
        layout.separator()
        layout.operator("lsf.save_preset", icon="ADD")
        if own:
            layout.menu("LSF_MT_remove_preset", icon="REMOVE")
        layout.operator("lsf.import_preset", icon="IMPORT")
        layout.operator("lsf.export_preset", icon="EXPORT")


class LSF_MT_remove_preset(bpy.types.Menu):
    bl_idname = "LSF_MT_remove_preset"
    bl_label = "Delete Preset"

    def draw(self, context: bpy.types.Context) -> None:
        for name in presets.own():
            self.layout.operator("lsf.remove_preset", text=name).name = name


class _Edits(Section):
    bl_label = "Edits"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        reason = edits.refusal(context)
        draw_message(layout, reason, "INFO", wrap_width(context))
        layout.menu("LSF_MT_presets", icon="PRESET")
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.enabled = reason is None
        sliders, take = context.window_manager.lsf_edits, keys.active_take(context.scene.lsf.target)
        for heading, names in GROUPS.items():
            group = column.column(align=True)
            group.label(text=heading)
            for name in names:
                row = group.row(align=True)
                row.enabled = shown = name != "head" or turns_head(take)
                row.prop(sliders, name, slider=True)
                if not shown:
                    draw_message(group, NO_HEAD, "INFO", wrap_width(context))
        if reason is None and take is not None:
            draw_shapes(column, context, take)
            draw_hand_keys(layout, context, take)


def turns_head(take: bpy.types.Action | None) -> bool:
    """Whether the take turns a bone or a parent object with the head."""
    turns = keys.take_settings(take).get("turns", []) if take is not None else []
    return any(turn.get("role") == "head" for turn in turns)


def draw_shapes(layout: Any, context: bpy.types.Context, take: bpy.types.Action) -> None:
    """Gain and offset of one shape, and the list of those that were changed."""
    sliders = context.window_manager.lsf_edits
    column = layout.column(align=True)
    column.label(text="Single Shapes")
    column.prop(sliders, "shape", icon="SHAPEKEY_DATA")
    if sliders.shape:
        column.prop(sliders, "gain", slider=True)
        column.prop(sliders, "offset", slider=True)
    settings = edits.current(take)
    for shape in dict.fromkeys((*settings.gain, *settings.offset)):
        row = column.row(align=True)
        row.label(text=f"{shape}: x {settings.gain.get(shape, 1.0):.2f} {settings.offset.get(shape, 0.0):+.2f}")
        row.operator("lsf.reset_shape", text="", icon="X").shape = shape


def draw_hand_keys(layout: Any, context: bpy.types.Context, take: bpy.types.Action) -> None:
    """What becomes of keys that the artist changed."""
    column = layout.column()
    column.label(text="Keys Changed by Hand")
    column.row().prop(context.scene.lsf, "hand_keys", expand=True)
    kept = keys.take_settings(take).get("hand_keys", 0)
    row = column.row(align=True)
    if edits.asking(take):
        draw_message(column, "Keys of this take were changed by hand. The edits wait for you:", "QUESTION",
                     wrap_width(context))
        row = column.row(align=True)
        row.operator("lsf.hand_keys", text="Keep Them").keep = True
    elif kept:
        row.label(text=f"{kept} kept", icon="INFO")
    if kept or edits.asking(take):
        row.operator("lsf.hand_keys", text="Write Over Them").keep = False


CLASSES = in_both_sidebars(_Edits, "edits")
MENUS = (LSF_MT_remove_preset, LSF_MT_presets)

register, unregister = bpy.utils.register_classes_factory((*MENUS, *CLASSES))
