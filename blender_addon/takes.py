"""What can be done with takes: activate, duplicate, delete, push to the NLA, follow a strip that was moved.

The list in the panel shows `bpy.data.actions` itself, filtered: nothing is kept twice, so nothing can differ from what
is in the file, and renaming a take is renaming its Action.
"""

from __future__ import annotations

from typing import Any

import bpy

from . import bones, compat, curves, edits, keys, parts, strips
from .carrier import carry
from .report import Problem


# ---------------------------------------------------------------- the list
def get_index(settings: Any) -> int:
    """Place of the active take in bpy.data.actions, -1 without one: what the list shows as chosen."""
    take = keys.active_take(settings.target)
    return -1 if take is None else next(i for i, action in enumerate(bpy.data.actions) if action == take)


def set_index(settings: Any, index: int) -> None:
    """A click in the list: the take at this place of bpy.data.actions becomes the active one."""
    if 0 <= index < len(bpy.data.actions) and settings.target is not None and not tweaked(settings.target):
        take = bpy.data.actions[index]
        if take in keys.takes_of(settings.target) and settings.target.data.shape_keys.library is None:
            activate(settings.target, take)


def tweaked(target: bpy.types.Object) -> bool:
    """Whether the shape keys are in NLA tweak mode, where their Action cannot be changed."""
    owner = target.lsf_bones.owner
    animated = [thing.data.shape_keys.animation_data for thing in parts.keyed(target)]
    animated += [owner.animation_data] if owner is not None else []
    return any(data is not None and data.use_tweak_mode for data in animated)


def activate(target: bpy.types.Object, take: bpy.types.Action | None) -> None:
    """Make the take the one that animates the mesh and its parts, or none. Actions of the artist's stay in the file."""
    parts.assign(target, take, keys.TAKE_TAG)
    replay(target)


def replay(target: bpy.types.Object) -> None:
    """Let the active take turn the bones of the armature that is chosen now, and of no other."""
    bones.play(target, keys.active_take(target), keys.takes_of(target))


def refusal(context: bpy.types.Context) -> str | None:
    """Why nothing can be done with the active take, in words for the panel; None if something can. Cheap."""
    target = context.scene.lsf.target
    if target is None:
        return "No mesh is chosen. Choose the neutral head in 'Mesh'."
    if keys.active_take(target) is None:
        return f"No take of '{target.name}' is active. Click one in the list, or press Animate."
    if tweaked(target):
        return f"'{target.name}' is in NLA tweak mode: leave it (Tab in the NLA editor) and try again."
    return None


# ---------------------------------------------------------------- doing
def duplicate(target: bpy.types.Object, take: bpy.types.Action) -> bpy.types.Action:
    """A copy of the take, keys and edits and all, as a take of its own; it becomes the active one."""
    copy = take.copy()
    copy.name = f"{take.name} copy"
    copy.use_fake_user = True
    number = 1 + max(keys.take_settings(each).get("number", 0) for each in keys.takes_of(target))
    keys.put_settings(copy, {**keys.take_settings(take), "number": number})
    activate(target, copy)
    return copy


def delete(target: bpy.types.Object, take: bpy.types.Action) -> None:
    """Remove the take from the file; the one before it in the list, else the one after it, becomes active.

    Raises Problem for a take that an NLA strip plays.
    """
    tracks = [track.name for track, strip in nla_strips(target) if strip.action == take]
    if tracks:
        raise Problem(f"The take '{take.name}' plays in the NLA track '{tracks[0]}'. Delete its strip there first.")
    listed = keys.takes_of(target)
    place = listed.index(take)
    others = listed[:place][-1:] or listed[place + 1 :][:1]
    if keys.active_take(target) == take:
        activate(target, others[0] if others else None)
    bpy.data.actions.remove(take)


def nla_strips(target: bpy.types.Object) -> list[tuple[Any, Any]]:
    """(track, strip) of the NLA of the shape keys, the parts' too, and of the bones once they were pushed down."""
    owner = target.lsf_bones.owner
    animated = [thing.data.shape_keys.animation_data for thing in parts.keyed(target)]
    found = [track for data in animated if data is not None for track in data.nla_tracks]
    found += [track for track in (bones.tracks(owner) if owner else []) if not track.name.startswith(bones.TRACK)]
    return [(track, strip) for track in found for strip in track.strips]


def push_down(target: bpy.types.Object, take: bpy.types.Action) -> Any:
    """Put the take on an NLA track of its own and end its being active, as Blender's *Push Down*; that of each part
    too. Returns the head's strip.

    It plays within its frames only: what lies below shows before and after it.
    """
    strips_made = [_push_down(thing.data.shape_keys.animation_data, take) for thing in parts.keyed(target)
                   if compat.assigned(thing.data.shape_keys).action == take]
    bones.push_down(target, take)
    return strips_made[0]


def _push_down(data: Any, take: bpy.types.Action) -> Any:
    track = data.nla_tracks.new()
    track.name = take.name
    strip = track.strips.new(take.name, round(take.frame_range[0]), take)
    if getattr(strip, "action_slot", strip) is None:  # 5.0+ leaves it open
        strip.action_slot = compat.slot_for(take, "KEY")
    strip.extrapolation = "NOTHING"
    data.action = None
    return strip


# ---------------------------------------------------------------- following a strip
def moved_by(context: bpy.types.Context, scene: bpy.types.Scene, take: bpy.types.Action) -> int:
    """Frames by which the strip of a take has moved since the take was made; 0 where there is none. Cheap."""
    made = keys.take_settings(take)
    source = made.get("source")
    name = source.get("strip") if isinstance(source, dict) else None
    strip = strips.find(context, scene, name) if name else None
    if strip is None or "sound_frame" not in made:
        return 0
    return round(strips.sound_frame(strip) - made["sound_frame"])


def move(target: bpy.types.Object, take: bpy.types.Action, frames: int) -> None:
    """Move the whole take along the timeline, the artist's keys in it too."""
    for curve in (*compat.curves_in(take, "KEY"), *bones.curves_in(take)):
        curves.shift(curve, frames)
    made = keys.take_settings(take)
    first = int(made.get("first_frame", 1)) + frames
    keys.put_settings(take, {**made, "first_frame": first, "sound_frame": made.get("sound_frame", 0.0) + frames})
    written = keys.written_keys(take)
    if written:
        keys.put_written(take, {path: each.moved(frames) for path, each in written.items()})
    for thing in parts.keyed(target):
        carry(thing, (first, first + int(made.get("frames", 1)) - 1), keys.is_take(compat.assigned(thing).action))
    if keys.active_take(target) == take:
        replay(target)
    take.update_tag()


def refit(context: bpy.types.Context, target: bpy.types.Object, take: bpy.types.Action) -> None:
    """Lay the take anew for the frame rate that the scene has now, from its raw motion, where its sound lies now. The
    keys that the artist changed go along. Raises Problem."""
    scene, made = context.scene, keys.take_settings(take)
    if edits.unraw(take):
        raise Problem(str(edits.unraw(take)))
    fps, first = float(made["fps"]), int(made["first_frame"])
    now, sound = strips.scene_fps(scene), float(made.get("sound_frame", first))
    name = (made.get("source") or {}).get("strip")
    strip = strips.find(context, scene, name) if name else None
    skipped = (first - sound) / fps  # seconds of the sound before the take
    place = strips.sound_frame(strip) if strip is not None else sound
    start = round(place + skipped * now)
    frames = max(1, round(int(made["frames"]) * now / fps))
    edits.apply(take, edits.current(take), clock=edits.Clock(now, frames, start, start - skipped * now))
    for thing in parts.keyed(target):
        carry(thing, (start, start + frames - 1), keys.is_take(compat.assigned(thing).action))
    if keys.active_take(target) == take:
        replay(target)
    if scene.lsf.extend_frame_range:
        scene.frame_end = max(scene.frame_end, start + frames - 1)


def off_clock(scene: bpy.types.Scene, take: bpy.types.Action) -> str | None:
    """What is wrong with the take's speed, in words for the panel: the scene's frame rate was changed since."""
    made = keys.take_settings(take).get("fps")
    now = strips.scene_fps(scene)
    if made is None or abs(made - now) < 1e-3:
        return None
    return f"The take is for {made:g} fps, the scene plays {now:g}: it no longer fits the sound."


def notes(take: bpy.types.Action) -> list[str]:
    """What made the take, in short lines for the panel."""
    made = keys.take_settings(take)
    if not made:
        return ["What made it is not known."]
    first, frames = int(made.get("first_frame", 1)), int(made.get("frames", 0))
    edits, how = made.get("edits"), made.get("performance", {})
    emotion = edits.get("emotion", 1.0) if isinstance(edits, dict) else made.get("emotion_strength", 1.0)
    lines = [f"'{made.get('speech', '?')}', frames {first} to {first + frames - 1}",
             f"Seed {made.get('seed', '?')}, emotion {emotion:.2f}, variation {how.get('temperature', 0.0):.2f}"]
    felt = [f"{name} {share:.2f}" for name, share in how.get("emotion_mix", {}).items()]
    feeling = made.get("feeling")
    if feeling:
        felt.insert(0, f"as '{feeling.get('strip') or feeling.get('audio_path')}'")
    if felt:
        lines.append(f"Feels {', '.join(felt)}")
    if made.get("checkpoint"):
        lines.append(f"Network {made['checkpoint']}")
    if made.get("hand_keys"):
        lines.append(f"Keys changed by hand and kept: {made['hand_keys']}")
    return lines
