"""Sub-panel *Engine*: what the engine process does, where and with how much memory, and how to free that."""

from __future__ import annotations

import bpy

from . import engine
from .panel import Section, in_both_sidebars


class _Engine(Section):
    bl_label = "Engine"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012 (Blender's way to say it)

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column(align=True)
        for line in engine.describe().split(", "):
            column.label(text=line)
        row = self.layout.row(align=True)
        row.operator("lsf.unload_engine")
        row.operator("lsf.stop_engine")
        self.layout.operator("lsf.show_preferences", icon="PREFERENCES")


CLASSES: tuple[type, ...] = in_both_sidebars(_Engine, "engine")

register, unregister = bpy.utils.register_classes_factory(CLASSES)
