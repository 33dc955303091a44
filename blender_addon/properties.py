"""What the artist sets: on the scene, `scene.lsf`, and on the head, `Object.lsf_bones`."""

from __future__ import annotations

import math
from typing import Any

import bpy
from bpy.app.handlers import persistent
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from . import compat, curves, presets, strips, takes


def _is_mesh(_self: Any, candidate: bpy.types.Object) -> bool:
    return candidate.type == "MESH"


def _strip_names(self: Any, context: bpy.types.Context, typed: str) -> list[str]:
    return [strip.name for strip in strips.sound_strips(context, self.id_data) if typed.lower() in strip.name.lower()]


_messages: dict[tuple[str, str], str] = {}
"""(scene, message) -> text. Kept here because a scene's properties are saved with the file; messages must not be."""


def _message(name: str, description: str) -> Any:
    def get(self: Any) -> str:
        return _messages.get((self.id_data.name, name), "")

    def put(self: Any, text: str) -> None:
        _messages[self.id_data.name, name] = text

    return StringProperty(name=name, description=description, options={"HIDDEN"}, get=get, set=put)


class LSFLine(bpy.types.PropertyGroup):
    """One strip and the mesh that says it."""

    strip_name: StringProperty(name="Strip", search=_strip_names, description="A sound strip of the sequencer")
    target: PointerProperty(
        name="Mesh", type=bpy.types.Object, poll=_is_mesh, description="The neutral head that says this strip",
    )


def _mix(name: str) -> Any:
    return FloatProperty(name=name.capitalize(), default=0.0, min=0.0, max=1.0,
                         description="Share of this emotion. What all shares lack to 1 is felt as it is heard")


class LSFFeeling(bpy.types.PropertyGroup):
    """Whose emotion the takes show, and named emotions mixed in; one property for each of lsf_core.arkit.EMOTIONS."""

    strip_name: StringProperty(
        name="From Strip", search=_strip_names,
        description="Feel as the voice in this strip does: say this as she says that. Empty: as the speech itself",
    )
    audio_path: StringProperty(
        name="From File", subtype="FILE_PATH", options={"ANIMATABLE", *compat.blend_relative()},
        description="Feel as the voice in this recording does, where no strip is chosen",
    )
    neutral: _mix("neutral")
    angry: _mix("angry")
    happy: _mix("happy")
    sad: _mix("sad")
    fear: _mix("fear")
    disgust: _mix("disgust")
    surprise: _mix("surprise")


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
        name="Sound File", subtype="FILE_PATH", options={"ANIMATABLE", *compat.blend_relative()},
        description="A sound file, used where no strip is chosen",
    )
    start_frame: FloatProperty(
        name="Start Frame", default=1.0, precision=2, step=100,
        description="Scene frame at which the sound file begins, between two frames too (a strip brings its own place)",
    )
    frame_range_only: BoolProperty(
        name="Frame Range Only", default=False,
        description="Animate only the part of a strip that lies within the scene's frame range",
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
    feeling: PointerProperty(type=LSFFeeling)
    edits: BoolProperty(
        name="Blinks and Rest", default=True,
        description="Add what speech does not tell: blinks, small eye movements, and rest before and after the strip",
    )
    preset: StringProperty(
        name="Edits", default="Natural", search=lambda self, context, typed: presets.matching(typed),
        description="Preset of edits that new takes start with; each take's own can be changed under Edits",
    )
    variations: IntProperty(
        name="Takes", default=1, min=1, max=20,
        description="How many takes one press makes, each with the next seed",
    )
    key_style: EnumProperty(
        name="Keys", default=curves.SPARSE,
        items=[
            (curves.SPARSE, "Sparse", "Few keys with Bezier curves between them, within 0.01 of every weight and 0.2 "
                                      "mm of the face; closed lips and blinks exact"),
            (curves.EVERY_FRAME, "Every Frame", "One key on every frame, exact"),
        ],
        description="How many keys are written",
    )
    take_index: IntProperty(name="Active Take", get=takes.get_index, set=takes.set_index, options={"HIDDEN"})
    hand_keys: EnumProperty(
        name="Keys Changed by Hand", default="KEEP",
        items=[("KEEP", "Keep", "They stay as they are; the edits change what is around them"),
               ("ASK", "Ask", "Nothing is written until you say what becomes of them")],
        description="What edits of a take do with keys that you moved, added or deleted",
    )
    lines: CollectionProperty(type=LSFLine, name="Lines", description="Strips to animate in one go, each its own mesh")
    active_line: IntProperty(name="Active Line", options={"HIDDEN"})
    extend_frame_range: BoolProperty(
        name="Extend Frame Range", default=True,
        description="Move the scene's end frame back where the take is longer. It is never made shorter",
    )
    error: _message("Error", "What stopped the last job")
    warnings: _message("Warnings", "What the last job warned of, one a line")
    summary: _message("Summary", "What the last job wrote")


def _is_owner(self: Any, candidate: bpy.types.Object) -> bool:
    return candidate.type in ("ARMATURE", "EMPTY") or self.id_data.parent == candidate


def _owner_chosen(self: Any, _context: bpy.types.Context) -> None:
    if self.id_data.type == "MESH" and not takes.tweaked(self.id_data):
        takes.replay(self.id_data)


def _bone(name: str, description: str) -> Any:
    def found(self: Any, context: bpy.types.Context, typed: str) -> list[str]:
        bones = self.owner.data.bones if self.owner is not None and self.owner.type == "ARMATURE" else []
        return [bone.name for bone in bones if typed.lower() in bone.name.lower()]

    return StringProperty(name=name, description=description, search=found, override={"LIBRARY_OVERRIDABLE"})


class LSFBones(bpy.types.PropertyGroup):
    """What a take turns besides shape keys, on the head's object; one property for each of bones.ROLES."""

    owner: PointerProperty(
        name="Armature", type=bpy.types.Object, poll=_is_owner, update=_owner_chosen, override={"LIBRARY_OVERRIDABLE"},
        description="The armature whose bones takes turn, or an empty or parent object that turns the whole head",
    )
    head: _bone("Head", "The bone that nods and turns with the speech")
    jaw: _bone("Jaw", "The bone that opens the mouth. The shape key jawOpen then stays at rest")
    eye_left: _bone("Left Eye", "The bone of the character's own left eye, turned where it looks")
    eye_right: _bone("Right Eye", "The bone of the character's own right eye, turned where it looks")
    jaw_angle: FloatProperty(
        name="Jaw Angle", subtype="ANGLE", default=math.radians(22), min=0.0, max=math.radians(60),
        description="How far the jaw bone turns where the mouth is open widest", override={"LIBRARY_OVERRIDABLE"},
    )


@persistent
def _forget(*_: Any) -> None:
    """After an undo, or in another file, what the last job said is no longer true."""
    _messages.clear()


HANDLERS = (bpy.app.handlers.load_post, bpy.app.handlers.undo_post)


def register() -> None:
    for handlers in HANDLERS:
        handlers.append(_forget)
    bpy.utils.register_class(LSFLine)
    bpy.utils.register_class(LSFFeeling)
    bpy.utils.register_class(LSFSettings)
    bpy.utils.register_class(LSFBones)
    bpy.types.Scene.lsf = PointerProperty(type=LSFSettings)
    bpy.types.Object.lsf_bones = PointerProperty(type=LSFBones, override={"LIBRARY_OVERRIDABLE"})


def unregister() -> None:
    for handlers in HANDLERS:
        handlers.remove(_forget)
    _messages.clear()
    del bpy.types.Scene.lsf
    del bpy.types.Object.lsf_bones
    bpy.utils.unregister_class(LSFBones)
    bpy.utils.unregister_class(LSFSettings)
    bpy.utils.unregister_class(LSFFeeling)
    bpy.utils.unregister_class(LSFLine)
