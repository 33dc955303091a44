"""Sub-panel *Emotion*: another recording to feel like, and named emotions mixed in; by default the speech's own."""

from __future__ import annotations

import bpy

from . import job
from .panel import Section, in_both_sidebars
from .shared import arkit


class _Emotion(Section):
    bl_label = "Emotion"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        feeling = context.scene.lsf.feeling
        column = self.layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.enabled = not job.busy()
        column.prop(feeling, "strip_name", icon="SEQUENCE")
        if not feeling.strip_name:
            column.prop(feeling, "audio_path")
        mix = column.column(align=True)
        mix.label(text="Mixed In")
        for name in arkit.EMOTIONS:
            mix.prop(feeling, name, slider=True)
        self.layout.operator("lsf.animate_emotions", icon="PLAY")


CLASSES = in_both_sidebars(_Emotion, "emotion")

register, unregister = bpy.utils.register_classes_factory(CLASSES)
