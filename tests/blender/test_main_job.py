"""The main job with the real engine: the demo head, which has no shape keys, and the demo speech."""

from __future__ import annotations

import time

import bpy
import numpy as np
import pytest
from conftest import SPEECH, add_strip, error_of, evaluated, keyed

from blender_addon import compat, job, keys, mesh_io
from blender_addon.shared import arkit, edits, rawtake, sparse


@pytest.fixture
def ready(scene, head, real_engine):
    """The demo head and the first 2 s of the demo speech, trimmed out of its middle."""
    strip = add_strip(scene, SPEECH, frame=-20)
    strip.frame_offset_start = 31
    strip.frame_offset_end = strip.frame_duration - 31 - 50
    return scene


def test_speech_and_a_bare_head_become_an_animated_face(ready, head):
    basis = evaluated(head, 1)
    assert bpy.ops.lsf.animate() == {"FINISHED"}
    blocks = head.data.shape_keys.key_blocks
    assert list(arkit.ARKIT_NAMES) == [block.name for block in blocks[1:]]
    found = keyed(head)
    assert set(found) == set(arkit.ARKIT_NAMES)
    jaw = found["jawOpen"]
    assert (jaw[0, 0], jaw[-1, 0]) == (11, 60)
    weights = np.concatenate([points[:, 1] for points in found.values()])
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert np.ptp(jaw[:, 1]) > 0.1, "a jaw that does not move says nothing"
    height = np.ptp(basis[:, 2] if np.ptp(basis[:, 2]) > np.ptp(basis[:, 1]) else basis[:, 1])
    widest = int(jaw[np.argmax(jaw[:, 1]), 0])
    opened = np.abs(evaluated(head, widest) - basis).max()
    assert 0.002 * height < opened < 0.3 * height
    assert ready.frame_end == 60
    assert ready.lsf.error == ""
    assert "does not move" not in ready.lsf.warnings
    assert len(mesh_io.made_keys(head)) == 52


def test_sparse_keys_stay_within_a_hundredth_and_a_fifth_of_a_millimetre_on_the_mesh(ready, head):
    compat.all_strips(ready)[0].frame_offset_end = 0  # to the end of the speech: curves have two ends however short
    bpy.ops.lsf.animate()
    take = keys.active_take(head)
    made = keys.take_settings(take)
    wanted = rawtake.RawTake.from_bytes(bytes(take[keys.RAW_TAG])).finish(
        edits.EditSettings.from_dict(made["edits"]), fps=made["fps"], frames=made["frames"], seed=made["seed"])
    curves = {curve.data_path: curve for curve in compat.curves_of(head.data.shape_keys)}
    shown = np.array([[curves[mesh_io.curve_path(name)].evaluate(frame) for name in wanted.names]
                      for frame in range(11, 11 + made["frames"])])
    assert np.abs(shown - wanted.weights).max() <= sparse.TOLERANCE + 1e-5
    blocks = head.data.shape_keys.key_blocks
    places = {name: np.array([p.co[:] for p in compat.key_points(blocks[name])]) for name in ("Basis", *wanted.names)}
    moved = np.stack([places[name] - places["Basis"] for name in wanted.names])
    off = np.linalg.norm(np.tensordot(shown - wanted.weights, moved, axes=1), axis=2).max() * 1000  # metres
    assert 0 < off <= sparse.TOLERANCE_MM
    keyed_frames = sum(len(points) for points in keyed(head).values())
    assert 5 * keyed_frames <= shown.size


def test_the_same_seed_gives_the_same_take_and_emotion_strength_another(ready, head):
    ready.lsf.emotion_strength = 0.0
    bpy.ops.lsf.animate()
    first = keyed(head)
    bpy.ops.lsf.animate()
    again = keyed(head)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    ready.lsf.emotion_strength = 2.0
    bpy.ops.lsf.animate()
    changed = keyed(head)
    assert any(len(changed[n]) != len(first[n]) or np.abs(changed[n] - first[n]).max() > 0.02 for n in first)
    assert len(keys.takes_of(head)) == 3


def test_the_take_is_the_motion_of_the_strips_stretch_of_sound(ready, head, real_engine, tmp_path):
    """The engine asked directly, with the sound cut by hand, gives what the operator keyed."""
    import wave

    from test_engine import last_event

    ready.lsf.key_style = "EVERY_FRAME"
    bpy.ops.lsf.animate()
    operator = keyed(head)
    soundfile = pytest.importorskip("soundfile")
    samples, rate = soundfile.read(SPEECH, dtype="float32", always_2d=True)
    cut = samples[round(31 / 25 * rate) : round(81 / 25 * rate)].mean(axis=1)
    with wave.open(str(tmp_path / "cut.wav"), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((cut * 32767).astype("<i2").tobytes())
    mesh = mesh_io.read(head)
    np.save(tmp_path / "v.npy", mesh.vertices)
    np.save(tmp_path / "f.npy", mesh.triangles)
    request = real_engine.ask("animate", folder=str(tmp_path), vertices="v.npy", faces="f.npy", offset=0.0, seed=0,
                              audio=str(tmp_path / "cut.wav"), duration=None, frames=None, fps=25.0, temperature=0.0,
                              emotion_strength=1.0, edits=True)
    result = last_event(real_engine, request, within=60)
    assert result.event == "result", result.message
    weights = np.load(tmp_path / "weights.npy")
    assert len(weights) == 50
    for column, name in enumerate(result.data["names"]):
        by_operator = np.interp(np.arange(11, 61), operator[name][:, 0], operator[name][:, 1])
        np.testing.assert_allclose(by_operator, weights[:, column], atol=0.03)


def test_head_of_another_scale_rotation_and_place_gets_the_same_face(ready, head):
    """The object's transform is not the mesh's: keys and take are the same."""
    bpy.ops.lsf.animate()
    straight = keyed(head)["jawOpen"]
    shape = np.array([p.co[:] for p in compat.key_points(head.data.shape_keys.key_blocks["jawOpen"])])
    twin = bpy.data.objects.new("Twin", head.data.copy())
    twin.shape_key_clear()
    bpy.context.scene.collection.objects.link(twin)
    twin.scale, twin.rotation_euler, twin.location = (4, 4, 4), (0.3, 0.2, 1.0), (5, 6, 7)
    bpy.context.view_layer.update()
    ready.lsf.target = twin
    bpy.ops.lsf.animate()
    np.testing.assert_allclose(keyed(twin)["jawOpen"], straight, atol=1e-5)
    turned = np.array([p.co[:] for p in compat.key_points(twin.data.shape_keys.key_blocks["jawOpen"])])
    np.testing.assert_allclose(turned, shape, atol=1e-5)


def test_silence_around_speech_is_no_error_and_the_take_covers_the_strip(scene, head, real_engine):
    """A strip pulled out beyond both ends of its sound: silence there, as Blender plays it."""
    strip = add_strip(scene, SPEECH, frame=30)
    strip.frame_offset_start = -10
    strip.frame_offset_end = strip.frame_duration - 40
    bpy.ops.lsf.animate()
    frames = keyed(head)["jawOpen"][:, 0]
    assert (frames[0], frames[-1]) == (20, 69)


def test_cancel_in_the_middle_stops_within_seconds(scene, head, real_engine):
    add_strip(scene, SPEECH)
    work = job.Job(bpy.context, "unused")
    while not work.poll() and work.fraction == 0:
        time.sleep(0.02)
    assert work.state == "RUNNING"
    start = time.monotonic()
    work.cancel()
    work.wait()
    assert work.state == "CANCELLED"
    assert time.monotonic() - start < 10
    assert head.data.shape_keys is None


def test_a_worker_killed_in_the_middle_is_told_and_the_next_run_works(ready, head, real_engine):
    import os
    import signal

    work = job.Job(bpy.context, "unused")
    while not work.poll() and work.fraction == 0:
        time.sleep(0.02)
    os.kill(real_engine.pid, signal.SIGKILL)
    work.wait()
    assert work.state == "FAILED"
    assert "ended unexpectedly (signal 9)" in work.error
    assert "press Animate to try again" in work.error
    assert head.data.shape_keys is None


@pytest.mark.parametrize("cuts", [0, 12], ids=["plain", "subdivided"])
def test_a_cube_is_refused_as_a_face(ready, real_engine, cuts):
    bpy.ops.mesh.primitive_cube_add()
    cube = ready.lsf.target = bpy.context.object
    if cuts:
        bpy.ops.object.mode_set(mode="EDIT")
        bpy.ops.mesh.subdivide(number_cuts=cuts)
        bpy.ops.object.mode_set(mode="OBJECT")
    message = error_of(bpy.ops.lsf.animate)
    assert ("No face was found" if cuts else "Choose a head mesh") in message
    assert "defect" not in message, "a refusal, not a crash"
    assert cube.data.shape_keys is None


def test_cancel_while_shape_keys_are_made_keeps_the_engine(ready, head, real_engine):
    points = np.array([v.co[:] for v in head.data.vertices], np.float32) * 1.07  # not the mesh that it rigged before
    head.data.vertices.foreach_set("co", points.ravel())
    work = job.Job(bpy.context, "unused")
    while not work.poll() and work.fraction < 0.05:
        time.sleep(0.02)
    assert work.state == "RUNNING"
    work.cancel()
    work.wait()
    assert work.state == "CANCELLED"
    assert real_engine.alive
    assert head.data.shape_keys is None
