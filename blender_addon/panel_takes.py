"""Sub-panel *Takes*: the list, what made the active take, and its export."""

from __future__ import annotations

from typing import Any

import bpy

from . import compare, fbx, keys, takes
from .operators import again_refusal
from .panel import Section, draw_message, in_both_sidebars, wrap_width


class LSF_UL_takes(bpy.types.UIList):
    """The Actions of the file that are takes of the chosen mesh, oldest first."""

    bl_idname = "LSF_UL_takes"

    def draw_item(self, context: bpy.types.Context, layout: Any, data: Any, item: Any, icon: int,
                  active_data: Any, active_property: str, index: int = 0) -> None:
        row = layout.split(factor=0.72)
        row.prop(item, "name", text="", emboss=False, icon="ACTION")
        seed = row.row()
        seed.alignment, seed.active = "RIGHT", False
        seed.label(text=f"seed {keys.take_settings(item).get('seed', '?')}")

    def filter_items(self, context: bpy.types.Context, data: Any, name: str) -> tuple[list[int], list[int]]:
        """Flags of the Actions that are shown, and the place of each."""
        actions = getattr(data, name)
        target = context.scene.lsf.target
        mine = keys.takes_of(target) if target is not None else []
        places = {take: place for place, take in enumerate(mine)}
        behind = iter(range(len(mine), len(actions)))  # Blender wants a place for every item, each once
        order = [places[action] if action in places else next(behind) for action in actions]
        flags = [self.bitflag_filter_item if action in places and self.filter_name.lower() in action.name.lower() else 0
                 for action in actions]
        return flags, order


class LSF_MT_take(bpy.types.Menu):
    bl_idname = "LSF_MT_take"
    bl_label = "Take"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("lsf.regenerate", icon="FILE_REFRESH")
        layout.operator("lsf.regenerate", text="Make Again with New Seed", icon="ADD").new_seed = True
        layout.separator()
        layout.operator("lsf.push_take", icon="NLA_PUSHDOWN")
        layout.operator("lsf.follow_strip", icon="TRACKING_FORWARDS")


class _Takes(Section):
    bl_label = "Takes"

    def draw(self, context: bpy.types.Context) -> None:
        settings = context.scene.lsf
        take = keys.active_take(settings.target)
        row = self.layout.row()
        row.template_list("LSF_UL_takes", "", bpy.data, "actions", settings, "take_index", rows=4)
        side = row.column(align=True)
        side.operator("lsf.duplicate_take", text="", icon="DUPLICATE")
        side.operator("lsf.delete_take", text="", icon="REMOVE")
        side.separator()
        side.menu("LSF_MT_take", text="", icon="DOWNARROW_HLT")
        column = self.layout.column()
        if take is not None:
            draw_take(column, context, take)
        if compare.shown(context.scene) is not None:
            column.operator("lsf.compare_takes", icon="X", text="End Comparison")
        else:
            row = column.row(align=True)
            row.operator("lsf.compare_takes", icon="MOD_ARRAY", text="Compare")
            row.operator("lsf.preview_emotions")
        column.operator("lsf.export_fbx", icon="EXPORT")
        if take is None:
            draw_message(column, fbx.refusal(context), "INFO", wrap_width(context))


def draw_take(layout: Any, context: bpy.types.Context, take: bpy.types.Action) -> None:
    """What made the take, and the button that takes it along with its strip."""
    notes = layout.column(align=True)
    notes.enabled = False
    for line in takes.notes(take):
        notes.label(text=line)
    frames = takes.moved_by(context, context.scene, take)
    if frames:
        layout.operator("lsf.follow_strip", text=f"Move Take to Strip ({frames:+d} frames)", icon="TRACKING_FORWARDS")
    off_clock = takes.off_clock(context.scene, take)
    draw_message(layout, off_clock, "ERROR", wrap_width(context))
    if off_clock:
        layout.operator("lsf.refit_take", icon="TIME")
    row = layout.row(align=True)
    row.operator("lsf.regenerate", icon="FILE_REFRESH")
    row.operator("lsf.regenerate", text="New Seed", icon="ADD").new_seed = True
    draw_message(layout, again_refusal(context), "INFO", wrap_width(context))


CLASSES = in_both_sidebars(_Takes, "takes")
OTHERS = (LSF_UL_takes, LSF_MT_take)

register, unregister = bpy.utils.register_classes_factory((*OTHERS, *CLASSES))
