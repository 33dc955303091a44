"""Landmarks shown as empties, moved, used by the next fit, kept with the object; a doubtful fit; the face's area."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np
import pytest
from conftest import SPEECH, add_strip, error_of
from test_mapper import points
from test_panel import drawn

from blender_addon import fbx, landmarks, mesh_io


@pytest.fixture
def ready(scene, head, real_engine):
    """The demo head, turned and scaled, and 2 s of the demo speech."""
    head.scale, head.rotation_euler, head.location = (3, 3, 3), (0.2, 0.1, 1.0), (5, 6, 7)
    bpy.context.view_layer.update()
    strip = add_strip(scene, SPEECH, frame=-20)
    strip.frame_offset_start = 31
    strip.frame_offset_end = strip.frame_duration - 31 - 50
    return scene


def shapes(head: bpy.types.Object) -> dict[str, np.ndarray]:
    blocks = head.data.shape_keys.key_blocks
    return {block.name: points(block) for block in blocks[1:]}


def size(head: bpy.types.Object) -> float:
    return float(np.ptp([v.co[:] for v in head.data.vertices], axis=0).max())


def test_landmarks_appear_on_the_face_are_moved_and_change_the_shapes(ready, head):
    assert bpy.ops.lsf.show_landmarks() == {"FINISHED"}
    empties = landmarks.shown(head)
    assert len(empties) == len(landmarks.fit(head).points) == 38
    assert all(empty.parent == head and empty.hide_render for empty in empties.values())
    assert empties["nose_tip"].name == "Head nose_tip"
    surface = np.array([head.matrix_world @ v.co for v in head.data.vertices])
    bpy.context.view_layer.update()
    for empty in empties.values():
        assert np.linalg.norm(surface - np.array(empty.matrix_world.translation), axis=1).min() < 0.03 * 3 * size(head)
    assert landmarks.corrected(head) == {}
    bpy.ops.lsf.animate()
    before = shapes(head)
    sculpted = head.data.shape_keys.key_blocks["cheekPuff"]
    sculpted.data[0].co.x += 1.0
    mine = points(sculpted)
    for name in ("mouth_left", "mouth_right"):
        empties[name].location.z -= 0.02 * size(head)
        empties[name].location.y -= 0.02 * size(head)
    bpy.ops.lsf.animate()
    assert set(landmarks.corrected(head)) == {"mouth_left", "mouth_right"}
    after = shapes(head)
    assert np.abs(after["mouthSmileLeft"] - before["mouthSmileLeft"]).max() > 0.002 * size(head)
    np.testing.assert_array_equal(after["cheekPuff"], mine)
    assert "1 shape keys of 'Head' were changed since they were made (cheekPuff)" in ready.lsf.warnings
    bpy.ops.lsf.remove_landmarks()
    assert not landmarks.shown(head)
    bpy.ops.lsf.animate()
    np.testing.assert_allclose(shapes(head)["mouthSmileLeft"], before["mouthSmileLeft"], atol=1e-6)


def test_moved_landmarks_survive_hiding_saving_and_are_shown_again(ready, head, tmp_path):
    bpy.ops.lsf.show_landmarks()
    empty = landmarks.shown(head)["chin"]
    empty.location.x += 0.03 * size(head)
    place = list(empty.location)
    bpy.ops.lsf.hide_landmarks()
    assert not landmarks.shown(head)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    head = bpy.data.objects["Head"]
    np.testing.assert_allclose(landmarks.corrected(head)["chin"], place, atol=1e-6)
    bpy.ops.lsf.show_landmarks()
    np.testing.assert_allclose(landmarks.shown(head)["chin"].location, place, atol=1e-6)
    assert set(landmarks.corrected(head)) == {"chin"}


def test_showing_a_known_fit_asks_the_engine_for_nothing(ready, head, monkeypatch):
    bpy.ops.lsf.show_landmarks()
    bpy.ops.lsf.hide_landmarks()
    monkeypatch.setattr("blender_addon.landmark_operators.FaceFit", None)
    assert bpy.ops.lsf.show_landmarks() == {"FINISHED"}
    head.data.vertices[0].co.x += 0.01  # another mesh now
    assert landmarks.up_to_date(head) is None


def skin_of(head: bpy.types.Object) -> np.ndarray:
    """(V,) bool: the largest connected piece of the mesh, without teeth, tongue, eyes and lashes."""
    edges = np.array([edge.vertices[:] for edge in head.data.edges])
    labels = np.arange(len(head.data.vertices))
    while not np.array_equal(labels[edges[:, 0]], labels[edges[:, 1]]):
        least = labels[edges].min(axis=1)
        np.minimum.at(labels, edges.ravel(), np.repeat(least, 2))
    return labels == np.bincount(labels).argmax()


def test_skin_outside_the_area_stays_still(ready, head):
    bpy.ops.lsf.show_landmarks()
    places = np.array([v.co[:] for v in head.data.vertices])
    away = np.linalg.norm(places - np.array(landmarks.fit(head).points["nose_base"]), axis=1)
    inside = away < 0.33 * size(head)
    group = head.vertex_groups.new(name="face")
    group.add(np.flatnonzero(inside).tolist(), 1.0, "REPLACE")
    head.lsf_area = "face"
    bpy.ops.lsf.animate()
    basis = points(head.data.shape_keys.key_blocks["Basis"])
    moved = np.max([np.linalg.norm(shape - basis, axis=1) for shape in shapes(head).values()], axis=0)
    assert moved[inside].max() > 0.02 * size(head)
    assert moved[~inside & skin_of(head)].max() < 1e-6
    head.vertex_groups.remove(group)
    assert "no vertex group 'face' any more" in error_of(bpy.ops.lsf.animate)
    assert "no vertex group 'face' any more" in drawn().text


def kept_fit(sure: float, warnings: list[str]) -> Any:
    return landmarks.Fit({"chin": [0.0, 0.0, 0.0], "nose_tip": [0.0, 0.1, 0.0]}, {"chin": 0.2, "nose_tip": 0.9}, sure,
                         warnings, "")


def test_a_doubtful_fit_is_flagged_with_its_region(ball_scene, ball):
    assert "confidence" not in drawn().text
    landmarks.keep(ball, kept_fit(0.31, ["The face was found, but not surely: chin."]))
    text = drawn().text
    assert "0.31" in text
    assert "not surely: chin" in text
    landmarks.show(ball, landmarks.fit(ball))
    assert {name: empty.show_name for name, empty in landmarks.shown(ball).items()} == {"chin": True, "nose_tip": False}
    assert mesh_io.existing_keys(ball) == []
    assert fbx.belongings(ball, ball_scene) == [ball], "landmarks are not exported"


def test_an_undo_takes_them_away(ball_scene, ball):
    landmarks.keep(ball, kept_fit(0.9, []))
    bpy.ops.ed.undo_push(message="before")
    landmarks.show(ball, landmarks.fit(ball))
    bpy.ops.ed.undo_push(message="shown")
    assert len(landmarks.shown(ball)) == 2
    bpy.ops.ed.undo()
    assert landmarks.shown(bpy.data.objects["Ball"]) == {}


def test_a_write_that_fails_leaves_remade_shape_keys_as_they_were(ball):
    basis = np.array([v.co[:] for v in ball.data.vertices], np.float32)
    mesh_io.make_keys(ball, ["jawOpen"], np.full((1, *basis.shape), 0.1, np.float32), basis)

    def fail() -> None:
        with mesh_io.keys_restored({ball: ["jawOpen", "jawLeft"]}):
            mesh_io.make_keys(ball, ["jawOpen", "jawLeft"], np.full((2, *basis.shape), 0.3, np.float32), basis)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert mesh_io.untouched(ball) == mesh_io.existing_keys(ball) == ["jawOpen"]
    np.testing.assert_allclose(points(ball.data.shape_keys.key_blocks["jawOpen"]), basis + 0.1, atol=1e-6)


def test_why_landmarks_cannot_be_shown(scene, ball):
    assert "has no landmarks of yours" in error_of(bpy.ops.lsf.remove_landmarks)
    assert "No landmarks of 'Ball' are shown" in error_of(bpy.ops.lsf.hide_landmarks)
    scene.lsf.target = None
    assert "No mesh is chosen" in error_of(bpy.ops.lsf.show_landmarks)
