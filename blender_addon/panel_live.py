"""Sub-panel *Live Preview*: what it hears, the button, and what it does now."""

from __future__ import annotations

import bpy

from . import live
from .panel import Section, draw_message, in_both_sidebars, wrap_width


class _Live(Section):
    bl_label = "Live Preview"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        wanted, width, preview = context.window_manager.lsf_live, wrap_width(context), live.running()
        column = self.layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.enabled = preview is None
        column.prop(wanted, "source")
        if wanted.source == live.MICROPHONE:
            column.prop(wanted, "microphone")
            column.prop(wanted, "look_ahead")
        if preview is None:
            self.layout.operator("lsf.live_preview", icon="PLAY")
            draw_message(self.layout, live.refusal(context), "INFO", width)
            if live.current is not None:
                draw_message(self.layout, live.current.error, "ERROR", width)
            return
        self.layout.operator("lsf.live_preview", icon="SNAP_FACE", text="Stop Preview", depress=True)
        told = preview.text
        if preview.source == live.MICROPHONE and preview.level is not None:
            told = f"{told}, {preview.level:.0f} dB"
        draw_message(self.layout, told, "INFO", width)
        for warning in preview.warnings:
            draw_message(self.layout, warning, "ERROR", width)


CLASSES = in_both_sidebars(_Live, "live")

register, unregister = bpy.utils.register_classes_factory(CLASSES)
