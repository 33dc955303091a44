"""Modifiers on the stack: the engine sees the mesh beneath them, and what it makes shows through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import error_of, evaluated, keyed

from blender_addon import compat, mesh_io


def subdivision(ball: bpy.types.Object) -> None:
    ball.modifiers.new("Smooth", "SUBSURF").levels = 2


def bend(ball: bpy.types.Object) -> None:
    modifier = ball.modifiers.new("Bend", "SIMPLE_DEFORM")
    modifier.deform_method, modifier.angle = "BEND", 0.8


def armature(ball: bpy.types.Object) -> None:
    """A bone that turns all of it by half a turn while it speaks."""
    owner = bpy.data.objects.new("Rig", bpy.data.armatures.new("Rig"))
    bpy.context.scene.collection.objects.link(owner)
    bpy.context.view_layer.objects.active = owner
    bpy.ops.object.mode_set(mode="EDIT")
    bone = owner.data.edit_bones.new("Neck")
    bone.tail = (0, 0, 1)
    bpy.ops.object.mode_set(mode="OBJECT")
    ball.vertex_groups.new(name="Neck").add(range(len(ball.data.vertices)), 1.0, "REPLACE")
    ball.modifiers.new("Rig", "ARMATURE").object = owner
    pose = owner.pose.bones["Neck"]
    pose.rotation_mode = "XYZ"
    for frame, angle in ((1, 0.0), (50, 3.0)):
        pose.rotation_euler = (angle, 0.3, 0.0)
        pose.keyframe_insert("rotation_euler", frame=frame)
    bpy.context.view_layer.objects.active = ball


def everything(ball: bpy.types.Object) -> None:
    for each in (armature, subdivision, bend):
        each(ball)


def posed_by_hand(ball: bpy.types.Object, frame: int) -> np.ndarray:
    """The same object with a mesh that has no shape keys but lies where the take's weights put it, evaluated."""
    bpy.context.scene.frame_set(frame)
    blocks = ball.data.shape_keys.key_blocks
    places = {block.name: points(block) for block in blocks}
    curves = {curve.data_path.split('"')[1]: curve for curve in compat.curves_of(ball.data.shape_keys)}
    basis = places["Basis"]
    where = basis + sum(curve.evaluate(frame) * (places[name] - basis) for name, curve in curves.items())
    twin = ball.copy()
    twin.data = ball.data.copy()
    twin.animation_data_clear()
    twin.shape_key_clear()
    bpy.context.scene.collection.objects.link(twin)
    twin.data.vertices.foreach_set("co", where.astype(np.float32).ravel())
    twin.data.update()
    return evaluated(twin, frame)


def points(block: Any) -> np.ndarray:
    found = np.empty(3 * len(block.data), np.float32)
    compat.key_points(block).foreach_get("co", found)
    return found.reshape(-1, 3).astype(np.float64)


@pytest.mark.parametrize("add", [subdivision, bend, armature, everything])
def test_what_the_take_does_shows_through_modifiers(ball_scene, ball, fake_engine, add: Callable[[Any], None]):
    bare = mesh_io.read(ball).vertices
    add(ball)
    np.testing.assert_array_equal(mesh_io.read(ball).vertices, bare, err_msg="the engine sees the mesh beneath")
    fake_engine()
    assert bpy.ops.lsf.animate() == {"FINISHED"}
    assert "does not move" not in ball_scene.lsf.warnings
    keys = ball.data.shape_keys.key_blocks
    assert len(keys["jawOpen"].data) == len(bare), "as many points as the mesh has, however many are shown"
    assert np.ptp(keyed(ball)["jawOpen"][:, 1]) > 0.5
    for frame in (2, 30, 50):
        np.testing.assert_allclose(evaluated(ball, frame), posed_by_hand(ball, frame), atol=2e-5)


def test_half_a_face_and_a_mirror_are_refused_with_the_cure(ball_scene, ball, fake_engine):
    fake_engine()
    mirror = ball.modifiers.new("Other Half", "MIRROR")
    assert "has the modifier 'Other Half', which mirrors it" in error_of(bpy.ops.lsf.animate)
    assert ball.data.shape_keys is None
    mirror.show_viewport = False
    assert bpy.ops.lsf.animate() == {"FINISHED"}


def test_a_mirror_over_shape_keys_that_are_there_is_warned_of(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    assert "mirrors" not in ball_scene.lsf.warnings
    ball.modifiers.new("Other Half", "MIRROR")
    assert bpy.ops.lsf.animate() == {"FINISHED"}
    assert "'Other Half' mirrors 'Ball'" in ball_scene.lsf.warnings
