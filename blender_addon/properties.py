"""What the artist sets, on the scene: `scene.lsf`."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import BoolProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from . import strips


def _is_mesh(_self: Any, candidate: bpy.types.Object) -> bool:
    return candidate.type == "MESH"


def _strip_names(self: Any, context: bpy.types.Context, typed: str) -> list[str]:
    return [strip.name for strip in strips.sound_strips(context, self.id_data) if typed.lower() in strip.name.lower()]


class LSFSettings(bpy.types.PropertyGroup):
    target: PointerProperty(
        name="Mesh", type=bpy.types.Object, poll=_is_mesh,
        description="The neutral head to animate. It needs no shape keys; ARKit keys it has are used",
    )
    strip_name: StringProperty(
        name="Strip", search=_strip_names,
        description="The sound strip of the sequencer that holds the speech; its offset and trim count",
    )
    audio_path: StringProperty(
        name="Sound File", subtype="FILE_PATH",
        description="A sound file, used where no strip is chosen",
    )
    start_frame: IntProperty(
        name="Start Frame", default=1,
        description="Scene frame at which the sound file begins (a strip brings its own place)",
    )
    seed: IntProperty(
        name="Seed", default=0, min=0, max=2**31 - 1,
        description="Another number gives other blinks and, with variation, another performance",
    )
    temperature: FloatProperty(
        name="Variation", default=0.0, min=0.0, max=2.0,
        description="0: the likeliest performance. Higher: performances that differ from seed to seed",
    )
    emotion_strength: FloatProperty(
        name="Emotion", default=1.0, min=0.0, max=2.0,
        description="How much of the emotion in the voice shows on the face. 0: neutral delivery",
    )
    edits: BoolProperty(
        name="Blinks", default=True,
        description="Add what speech does not tell, such as blinks",
    )
    extend_frame_range: BoolProperty(
        name="Extend Frame Range", default=True,
        description="Move the scene's end frame back where the take is longer. It is never made shorter",
    )
    error: StringProperty(name="Error", options={"SKIP_SAVE", "HIDDEN"}, description="What stopped the last job")
    warnings: StringProperty(name="Warnings", options={"SKIP_SAVE", "HIDDEN"}, description="One a line")
    summary: StringProperty(name="Summary", options={"SKIP_SAVE", "HIDDEN"}, description="What the last job wrote")


def register() -> None:
    bpy.utils.register_class(LSFSettings)
    bpy.types.Scene.lsf = PointerProperty(type=LSFSettings)


def unregister() -> None:
    del bpy.types.Scene.lsf
    bpy.utils.unregister_class(LSFSettings)
