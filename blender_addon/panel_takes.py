"""Sub-panel *Takes*: the active take and its export."""

from __future__ import annotations

import bpy

from . import fbx, keys
from .panel import Section, draw_message, in_both_sidebars, wrap_width


class _Takes(Section):
    bl_label = "Takes"

    def draw(self, context: bpy.types.Context) -> None:
        take = keys.active_take(context.scene.lsf.target)
        column = self.layout.column()
        if take is not None:
            column.label(text=f"Take: {take.name}", icon="ACTION")
        column.operator("lsf.export_fbx", icon="EXPORT")
        if take is None:
            draw_message(column, fbx.refusal(context), "INFO", wrap_width(context))


CLASSES = in_both_sidebars(_Takes, "takes")


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
