"""Every difference between Blender's versions, 4.2 to 5.x, each found by asking for the feature, not for the version.

Mind that an empty bpy collection is falsy: `a or b` on collections is always a mistake, hence the hasattr chains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy


def is_module() -> bool:
    """Whether this is the bpy module rather than Blender itself (which has a program of its own)."""
    return bool(getattr(bpy.app, "module", not bpy.app.binary_path))


def blend_relative() -> set[str]:
    """Options of a path property that may begin with "//": newer versions warn of that unless it is declared."""
    known = "is_path_supports_blend_relative" in bpy.types.Property.bl_rna.properties
    return {"PATH_SUPPORTS_BLEND_RELATIVE"} if known else set()


# ---------------------------------------------------------------- sequencer
def sequencer_scene(context: bpy.types.Context, scene: bpy.types.Scene) -> bpy.types.Scene:
    """The scene whose strips the artist sees: 5.0+ lets the sequencer show another scene than the window's."""
    return getattr(context, "sequencer_scene", None) or scene


def all_strips(scene: bpy.types.Scene) -> list[Any]:
    """Every strip of the scene, those inside meta strips too."""
    editor = scene.sequence_editor
    if editor is None:
        return []
    return list(editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all)


def top_strips(editor: Any) -> Any:
    """The editor's own collection, which makes strips (`new_sound`)."""
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def left_handle(strip: Any) -> int:
    """First frame on which the strip is heard."""
    return int(strip.left_handle if hasattr(strip, "left_handle") else strip.frame_final_start)


def right_handle(strip: Any) -> int:
    """Frame after the last one on which the strip is heard."""
    return int(strip.right_handle if hasattr(strip, "right_handle") else strip.frame_final_end)


def content_skipped(strip: Any) -> float:
    """Frames of the sound before the left handle, those cut off for good among them; negative: silence comes first."""
    if hasattr(strip, "left_handle_offset"):
        return strip.left_handle_offset + strip.content_trim_start
    return strip.frame_offset_start + strip.animation_offset_start


def content_frames(strip: Any) -> float:
    """Frames that the whole sound takes on the timeline, at the strip's speed."""
    return strip.content_duration if hasattr(strip, "content_duration") else strip.frame_duration


def parent_meta(strip: Any) -> Any | None:
    """The meta strip around a strip, or None."""
    return strip.parent_meta() if hasattr(strip, "parent_meta") else None


def is_retimed(strip: Any) -> bool:
    """True if the strip plays at another speed than its file's."""
    keys = getattr(strip, "retiming_keys", None)
    return keys is not None and len(keys) > 0


# ---------------------------------------------------------------- shape keys
def key_points(block: Any) -> Any:
    """A shape key's points, by the fast door where there is one (30 times faster)."""
    return block.points if hasattr(block, "points") else block.data


# ---------------------------------------------------------------- animation
def has_slots() -> bool:
    """4.4+: an Action has slots, one for each data-block it animates."""
    return "slots" in bpy.types.Action.bl_rna.properties


def assign_action(datablock: Any, action: bpy.types.Action | None) -> None:
    """Make `action` the one that animates `datablock`, in its slot for this kind of data-block or in a new one."""
    data = datablock.animation_data_create()
    data.action = action
    if action is None or not has_slots():
        return
    if data.action_slot is None or data.action_slot.target_id_type != datablock.id_type:
        data.action_slot = slot_for(action, datablock.id_type) or action.slots.new(datablock.id_type, datablock.name)


def slot_for(action: bpy.types.Action, id_type: str) -> Any | None:
    """The Action's first slot for data-blocks of this type ('KEY', 'OBJECT'), or None."""
    return next((slot for slot in action.slots if slot.target_id_type == id_type), None)


@dataclass(frozen=True)
class Assigned:
    """Which Action animated a data-block, in which slot; `animated` is False where it had no animation data at all."""

    animated: bool
    action: bpy.types.Action | None
    slot: Any | None


def assigned(datablock: Any) -> Assigned:
    """What `restore` needs to give the data-block back the Action that it has now."""
    data = datablock.animation_data
    return Assigned(data is not None, data and data.action, data and getattr(data, "action_slot", None))


def restore(datablock: Any, before: Assigned) -> None:
    """Undo `assign_action`: the same Action in the same slot, or none."""
    if not before.animated:
        datablock.animation_data_clear()
        return
    data = datablock.animation_data
    data.action = before.action
    if before.slot is not None and data.action_slot != before.slot:
        data.action_slot = before.slot


def new_curve(action: bpy.types.Action, datablock: Any, path: str) -> Any:
    """An empty F-curve on `path` of `datablock`, to which `action` is assigned already."""
    if hasattr(action, "fcurve_ensure_for_datablock"):
        return action.fcurve_ensure_for_datablock(datablock, path)
    if has_slots():  # 4.4: slots, but the shortcut is not there yet
        bag = channelbag(action, datablock.animation_data.action_slot, make=True)
        assert bag is not None
        return bag.fcurves.new(path)
    return action.fcurves.new(path)


def draft_curves(action: bpy.types.Action, id_type: str, name: str) -> Any:
    """The collection of an Action's F-curves for data-blocks of this type, before one is assigned to it; `name` is what
    its slot is called."""
    if not has_slots():
        return action.fcurves
    bag = channelbag(action, slot_for(action, id_type) or action.slots.new(id_type, name), make=True)
    assert bag is not None
    return bag.fcurves


def channelbag(action: bpy.types.Action, slot: Any, make: bool = False) -> Any | None:
    """The curves of one slot; with `make`, layer, strip and bag are made where they are missing."""
    if make and not len(action.layers):
        action.layers.new("Layer")
    for layer in action.layers:
        if make and not len(layer.strips):
            layer.strips.new(type="KEYFRAME")
        for strip in layer.strips:
            bag = strip.channelbag(slot, ensure=make)
            if bag is not None:
                return bag
    return None


def curves_of(datablock: Any) -> Iterator[Any]:
    """The F-curves of the Action that animates `datablock` now; none if there is no Action."""
    data = datablock.animation_data
    if data is None or data.action is None:
        return
    if not has_slots():
        yield from data.action.fcurves
    elif data.action_slot is not None:
        yield from _curves_in(data.action, data.action_slot)


def curves_in(action: bpy.types.Action, id_type: str) -> Iterator[Any]:
    """The F-curves that an Action has for data-blocks of this type, whether it animates one now or not."""
    if not has_slots():
        yield from action.fcurves
        return
    slot = slot_for(action, id_type)
    if slot is not None:
        yield from _curves_in(action, slot)


def _curves_in(action: bpy.types.Action, slot: Any) -> Iterator[Any]:
    bag = channelbag(action, slot)
    if bag is not None:
        yield from bag.fcurves
