"""Takes that turn bones: the head as the voice has it, jaw and eyes by bones instead of shape keys."""

from __future__ import annotations

import math
from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from conftest import SPEECH, add_strip, error_of, keyed
from mathutils import Euler, Matrix, Vector
from test_panel import Notes

from blender_addon import bones, compat, curves, edits, keys, panel_edits, panel_targets, takes
from blender_addon.shared import edits as core
from blender_addon.shared import rawtake

if not compat.has_slots():
    pytest.skip("bones need Actions with slots (Blender 4.4)", allow_module_level=True)

UPRIGHT = Matrix.Translation((1, 2, 3)) @ Euler((math.pi / 2, 0, 0.4)).to_matrix().to_4x4()
"""The demo head is y up and looks to +z: this stands it up, looking 0.4 radians to the left of -Y."""

FACE = np.array(UPRIGHT.to_3x3()).T
"""The face's left, up and forward in the world, one a row."""


def armature(name: str = "Rig") -> bpy.types.Object:
    """Neck and head, jaw and eyes, whose bones lie and roll in ways of their own; the armature is turned as well."""
    data = bpy.data.armatures.new(name)
    made = bpy.data.objects.new(name, data)
    made.matrix_world = Matrix.Translation((0, 1, 0)) @ Euler((0.3, -0.2, 1.1)).to_matrix().to_4x4()
    bpy.context.scene.collection.objects.link(made)
    bpy.context.view_layer.objects.active = made
    bpy.ops.object.mode_set(mode="EDIT")
    parent = None
    for bone, tail, roll in (("Neck", (0, 0, 1), 0.0), ("Head", (0.2, 0.3, 2), 0.7), ("Jaw", (0, -1, 1), -0.4),
                             ("EyeL", (0.1, -1, 2), 0.2), ("EyeR", (-0.1, -1, 2), 1.2)):
        edit = data.edit_bones.new(bone)
        edit.head, edit.tail, edit.roll = (0, 0, 0.5), tail, roll
        edit.parent = parent if bone == "Head" else data.edit_bones.get("Head")
        parent = parent or edit
    bpy.ops.object.mode_set(mode="OBJECT")
    return made


@pytest.fixture
def ready(scene, head, real_engine):
    """Two seconds of the demo speech, a head that stands in the world, and an armature that is not chosen yet."""
    strip = add_strip(scene, SPEECH, frame=1)
    strip.frame_offset_end = strip.frame_duration - 50
    head.matrix_world = UPRIGHT
    bpy.context.view_layer.update()
    return scene


def rotation(take: bpy.types.Action) -> np.ndarray:
    """The head's pitch, yaw and roll (F, 3) that the take's raw motion finishes to."""
    return finished(take).head_rotation


def finished(take: bpy.types.Action):
    made = keys.take_settings(take)
    return rawtake.RawTake.from_bytes(bytes(take[keys.RAW_TAG])).finish(
        core.EditSettings.from_dict(made["edits"]), fps=made["fps"], frames=made["frames"], seed=made["seed"])


def turned(rig: bpy.types.Object, bone: str, frame: int) -> np.ndarray:
    """How far a bone is turned at a frame from its rest, in the world: (3, 3), without its parents' turns."""
    bpy.context.scene.frame_set(frame)
    pose = rig.evaluated_get(bpy.context.evaluated_depsgraph_get()).pose.bones[bone]
    rest = (rig.matrix_world @ pose.bone.matrix_local).to_3x3().normalized()
    return np.array(rest @ pose.matrix_basis.to_3x3() @ rest.inverted())


def about(axis: np.ndarray, angle: float) -> np.ndarray:
    return np.array(Matrix.Rotation(angle, 3, Vector(axis)))


def wanted_turn(angles: np.ndarray) -> np.ndarray:
    """What Motion says, in the world: pitch about the face's left, yaw about its up, roll about its back."""
    left, up, forward = FACE
    pitch, yaw, roll = angles
    return about(up, yaw) @ about(left, pitch) @ about(-forward, roll)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between two turns."""
    return math.degrees(Matrix((a @ b.T).tolist()).to_quaternion().angle)


@pytest.mark.parametrize("mode", ["QUATERNION", "XZY"])
def test_a_head_bone_turns_as_the_motion_says_whatever_its_axes(ready, head, mode):
    rig = armature()
    rig.pose.bones["Head"].rotation_mode = mode
    head.lsf_bones.owner, head.lsf_bones.head = rig, "Head"
    assert bpy.ops.lsf.animate() == {"FINISHED"}
    take = keys.active_take(head)
    angles = rotation(take)
    assert np.degrees(np.abs(angles).max()) > 1
    first = keys.take_settings(take)["first_frame"]
    off = [apart(turned(rig, "Head", first + i), wanted_turn(angles[i])) for i in range(len(angles))]
    assert max(off) < 0.15
    assert apart(turned(rig, "Neck", first + 20), np.eye(3)) < 1e-3
    found = list(bones.curves_in(take))
    assert len(found) == (4 if mode == "QUATERNION" else 3)
    assert len({len(curve.keyframe_points) for curve in found}) == 1
    assert 2 * len(found[0].keyframe_points) <= len(angles)


def test_jaw_and_eyes_turn_by_bones_and_the_jaws_shape_key_rests(ready, head):
    rig = armature()
    chosen = head.lsf_bones
    chosen.owner, chosen.jaw, chosen.eye_left, chosen.eye_right = rig, "Jaw", "EyeL", "EyeR"
    chosen.jaw_angle = math.radians(30)
    assert bpy.ops.lsf.animate() == {"FINISHED"}
    assert "jawOpen" not in keyed(head)
    assert "mouthClose" in keyed(head)
    motion = finished(keys.active_take(head))
    left, up, _ = FACE
    frame = int(np.argmax(motion["jawOpen"]))
    assert motion["jawOpen"][frame] > 0.1
    assert apart(turned(rig, "Jaw", 1 + frame), about(left, motion["jawOpen"][frame] * math.radians(30))) < 0.15
    assert head.data.shape_keys.key_blocks["jawOpen"].value == 0
    for side in ("Left", "Right"):
        out, into = motion[f"eyeLookOut{side}"], motion[f"eyeLookIn{side}"]
        frame = int(np.argmax(out + into))
        assert (out + into)[frame] > 0.01
        yaw = math.radians(32) * (out - into)[frame] * (1 if side == "Left" else -1)
        pitch = math.radians(28) * motion[f"eyeLookDown{side}"][frame]
        pitch -= math.radians(22) * motion[f"eyeLookUp{side}"][frame]
        assert apart(turned(rig, f"Eye{side[0]}", 1 + frame), about(up, yaw) @ about(left, pitch)) < 0.15


def test_a_parent_turns_the_head_and_keeps_its_own_rotation(ready, head):
    """Made twice, the second time where the parent is turned already."""
    parent = bpy.data.objects.new("Parent", None)
    bpy.context.scene.collection.objects.link(parent)
    parent.rotation_euler = (0.5, 0.6, 0.7)
    above = bpy.data.objects.new("Above", None)
    bpy.context.scene.collection.objects.link(above)
    above.rotation_euler = (-1, 0.2, 0.4)
    parent.parent = above
    bpy.context.view_layer.update()
    head.parent = parent
    head.matrix_world = UPRIGHT
    bpy.context.view_layer.update()
    head.lsf_bones.owner = parent
    for _ in range(2):
        assert bpy.ops.lsf.animate() == {"FINISHED"}
        angles = rotation(keys.active_take(head))
        frame = int(np.argmax(np.abs(angles).sum(axis=1)))
        ready.frame_set(1 + frame)
        now = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world.to_3x3()
        shown = np.array(now) @ np.array(UPRIGHT.to_3x3()).T
        assert math.degrees(np.abs(angles[frame]).max()) > 1
        assert apart(shown, wanted_turn(angles[frame])) < 0.15
    assert tuple(parent.rotation_euler) == pytest.approx((0.5, 0.6, 0.7))


# ---------------------------------------------------------------- one take, with all that it turns
@pytest.fixture
def rigged(ready, head):
    """A take of the head and a head bone, on an armature that the artist animates."""
    rig = armature()
    head.lsf_bones.owner, head.lsf_bones.head = rig, "Head"
    action = bpy.data.actions.new("Walk")
    compat.assign_action(rig, action)
    rig.pose.bones["Neck"].rotation_quaternion = (math.sqrt(0.5), 0, 0, math.sqrt(0.5))
    rig.pose.bones["Neck"].keyframe_insert("rotation_quaternion", frame=1)
    bpy.ops.lsf.animate()
    return rig


def live(rig: bpy.types.Object) -> list[bpy.types.Action]:
    return [strip.action for track in bones.tracks(rig) if track.name == bones.TRACK for strip in track.strips]


def test_the_artists_action_goes_on_and_takes_play_one_at_a_time(rigged, head):
    first = keys.active_take(head)
    assert rigged.animation_data.action.name == "Walk"
    assert apart(turned(rigged, "Neck", 20), np.eye(3)) == pytest.approx(90, abs=0.1)
    assert live(rigged) == [first]
    bpy.ops.lsf.animate()
    second = keys.active_take(head)
    assert live(rigged) == [second]
    copy = takes.duplicate(head, first)
    assert live(rigged) == [copy]
    takes.move(head, copy, 10)
    assert apart(turned(rigged, "Head", 31), wanted_turn(rotation(first)[20])) < 0.15
    takes.push_down(head, copy)
    takes.activate(head, second)
    assert live(rigged) == [second]
    with pytest.raises(RuntimeError, match="plays in the NLA track"):
        takes.delete(head, copy)
    takes.delete(head, second)
    assert live(rigged) == [first]
    other = armature("Other")
    head.lsf_bones.owner = other
    assert (live(rigged), live(other)) == ([], [first])
    takes.activate(head, None)
    assert live(other) == []
    assert "hides" not in bpy.context.scene.lsf.warnings


def test_edits_reach_the_bone_and_leave_the_artists_keys(rigged, head):
    take = keys.active_take(head)
    curve = next(iter(bones.curves_in(take)))
    point = curve.keyframe_points[len(curve.keyframe_points) // 2]
    point.co.y += 0.3
    place = tuple(point.co)
    assert edits.hand_keys(take) == 1
    bpy.context.window_manager.lsf_edits.head = 2.0
    assert keys.take_settings(take)["hand_keys"] == 1
    assert any(tuple(each.co) == pytest.approx(place) for each in curve.keyframe_points)
    edits.apply(take, edits.current(take), keep=False)
    angles = rotation(take)
    frame = int(np.argmax(np.abs(angles).sum(axis=1)))
    assert apart(turned(rigged, "Head", 1 + frame), wanted_turn(angles[frame])) < 0.15
    bpy.context.window_manager.lsf_edits.head = 0.0
    assert apart(turned(rigged, "Head", 1 + frame), np.eye(3)) < 0.15


def test_an_action_that_keys_the_same_bone_is_warned_of(rigged, head):
    rigged.pose.bones["Head"].keyframe_insert("rotation_quaternion", frame=1)
    bpy.ops.lsf.animate()
    assert "The Action 'Walk' of 'Rig' keys pose.bones[\"Head\"]" in bpy.context.scene.lsf.warnings
    rigged.animation_data.action_blend_type = "COMBINE"
    bpy.ops.lsf.animate()
    assert "Walk" not in bpy.context.scene.lsf.warnings


def test_a_failure_leaves_the_take_before_in_the_bones(rigged, head, monkeypatch):
    take = keys.active_take(head)
    whole = curves.write

    def fail(curve, *rest):
        if "rotation" in curve.data_path:
            raise MemoryError("no room")
        whole(curve, *rest)

    monkeypatch.setattr(curves, "write", fail)
    assert "no room" in error_of(bpy.ops.lsf.animate)
    assert keys.takes_of(head) == [take]
    assert keys.active_take(head) == take
    assert live(rigged) == [take]
    assert len(bones.tracks(rigged)) == 1


def test_bones_that_cannot_be_turned_are_refused_by_name(ready, head):
    rig = armature()
    chosen = head.lsf_bones
    chosen.owner, chosen.head = rig, "Skull"
    assert "'Rig' has no bone 'Skull'" in error_of(bpy.ops.lsf.animate)
    chosen.head = chosen.jaw = "Head"
    assert "is chosen for 'Head' and for 'Jaw'" in error_of(bpy.ops.lsf.animate)
    chosen.jaw = ""
    rig.pose.bones["Head"].rotation_mode = "AXIS_ANGLE"
    assert "'Head' turns by Axis Angle" in error_of(bpy.ops.lsf.animate)
    assert head.data.shape_keys is None


def test_the_turns_survive_saving(rigged, head, tmp_path):
    take, before = keys.active_take(head).name, turned(rigged, "Head", 20)
    path = str(tmp_path / "saved.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    rig = bpy.data.objects["Rig"]
    assert live(rig) == [bpy.data.actions[take]]
    assert apart(turned(rig, "Head", 20), before) < 1e-3


def test_the_panel_shows_bones_for_an_armature_and_frees_the_heads_slider(rigged, head):
    def drawn(section):
        notes = Notes()
        section.draw(SimpleNamespace(layout=notes), bpy.context)
        return notes.calls

    shown = [value for kind, value in drawn(panel_targets.PANELS[0]) if kind == "prop"]
    assert shown == ["owner", "head", "jaw", "eye_left", "eye_right"]
    rigged.pose.bones["Head"].name = "Skull"
    assert any("no bone 'Head'" in str(value) for _, value in drawn(panel_targets.PANELS[0]))
    assert not any("turns no bone" in str(value) for _, value in drawn(panel_edits.CLASSES[0]))
    head.lsf_bones.owner = None
    bpy.ops.lsf.animate()
    assert any("turns no bone" in str(value) for _, value in drawn(panel_edits.CLASSES[0]))


def test_fbx_turns_the_bone_as_far_as_the_scene_does(rigged, head, tmp_path):
    scene, path = bpy.context.scene, str(tmp_path / "head.fbx")

    def widest(rig):
        turns = []
        for frame in range(1, 51):
            scene.frame_set(frame)
            turns.append(rig.pose.bones["Head"].matrix_basis.to_quaternion())
        return max(math.degrees(turns[0].rotation_difference(turn).angle) for turn in turns)

    wanted = widest(rigged)
    assert bpy.ops.lsf.export_fbx(filepath=path) == {"FINISHED"}
    before = set(scene.objects)
    bpy.ops.import_scene.fbx(filepath=path)
    fresh = next(thing for thing in set(scene.objects) - before if thing.type == "ARMATURE")
    assert widest(fresh) == pytest.approx(wanted, abs=0.02)
    assert wanted > 1
