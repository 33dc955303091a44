"""Edits of a take inside Blender, without an engine, from the raw motion that a take bears; the artist's keys stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import error_of, keyed

from blender_addon import compare, compat, curves, edits, keys, order, presets, takes, writing
from blender_addon.report import Problem
from blender_addon.shared import arkit, rawtake, sparse
from blender_addon.shared import edits as core

FRAMES, FPS, FIRST = 125, 25.0, 11


def babble(seconds: float = 5.0) -> rawtake.RawTake:
    """A raw take that moves like speech: syllables on the mouth, a feeling in the brows; the sound hums and pauses."""
    rng = np.random.default_rng(3)
    frames = round(seconds * 50)
    times = np.arange(frames) / 50
    neutral = np.zeros((frames, 52), np.float32)
    for name, size in (("jawOpen", 0.5), ("mouthFunnel", 0.3), ("mouthSmileLeft", 0.2), ("mouthSmileRight", 0.2)):
        beat = np.arange(0, seconds + 1, 0.12)
        height = size * rng.random(len(beat)) * (np.arange(len(beat)) % 2)
        neutral[:, arkit.INDEX[name]] = np.interp(times, beat, height)
    emotional = neutral.copy()
    emotional[:, arkit.INDEX["browDownLeft"]] += 0.4
    samples = 0.3 * np.sin(2 * np.pi * 160 * np.arange(round(seconds * 16000)) / 16000) * (np.sin(np.arange(
        round(seconds * 16000)) / 16000 * 3) > -0.6)
    return rawtake.RawTake.of(neutral, emotional, samples.astype(np.float32))


def write(target: bpy.types.Object, style: str = curves.SPARSE, settings: Any = core.DEFAULT) -> bpy.types.Action:
    raw = babble()
    motion = raw.finish(settings, fps=FPS, frames=FRAMES, seed=4)
    mask = writing.sparse_mask(list(motion.names), motion.weights, FPS) if style == curves.SPARSE else None
    made = {"seed": 4, "fps": FPS, "edits": settings.to_dict(), "number": 1}
    return keys.write_take(target, "take", list(arkit.ARKIT_NAMES), motion.weights, FIRST, made, mask,
                           raw.to_bytes()).action


@pytest.fixture
def face(ball: bpy.types.Object) -> bpy.types.Object:
    """The ball with the 52 shape keys, jawOpen moves it."""
    for name in ("Basis", *arkit.ARKIT_NAMES):
        ball.shape_key_add(name=name)
    compat.key_points(ball.data.shape_keys.key_blocks["jawOpen"])[3].co.z += 1
    return ball


@pytest.fixture
def take(face: bpy.types.Object) -> bpy.types.Action:
    return write(face)


def curve_of(target: bpy.types.Object, name: str) -> Any:
    return next(c for c in compat.curves_of(target.data.shape_keys) if f'"{name}"' in c.data_path)


def test_blender_draws_the_curves_that_the_keys_were_chosen_for(face, take):
    motion = babble().finish(core.DEFAULT, fps=FPS, frames=FRAMES, seed=4)
    mask = writing.sparse_mask(list(motion.names), motion.weights, FPS)
    wanted = sparse.between(motion.weights, mask)
    for column, name in enumerate(motion.names):
        curve = curve_of(face, name)
        assert len(curve.keyframe_points) == mask[:, column].sum()
        drawn = [curve.evaluate(FIRST + frame) for frame in range(FRAMES)]
        np.testing.assert_allclose(drawn, wanted[:, column], atol=2e-5, err_msg=name)
    points = curve_of(face, "jawOpen").keyframe_points
    assert {p.interpolation for p in points} == {"BEZIER"}
    assert {p.handle_left_type for p in points} == {p.handle_right_type for p in points} == {"AUTO_CLAMPED"}


@pytest.mark.parametrize("style", [curves.SPARSE, curves.EVERY_FRAME])
def test_edits_written_again_give_the_keys_of_a_take_made_with_them(face, style):
    changed = replace(core.DEFAULT, emotion=1.8, smoothing=0.7, blink=0.0, gain={"jawOpen": 1.5})
    write(face, style, changed)
    wanted = keyed(face)
    take = write(face, style)
    assert any(len(wanted[n]) != len(k) or not np.array_equal(wanted[n], k) for n, k in keyed(face).items())
    assert edits.apply(take, changed) == 0
    found = keyed(face)
    for name in arkit.ARKIT_NAMES:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert edits.current(take) == changed


def test_the_mesh_follows_an_edit_at_once(face, take):
    frame = FIRST + int(np.argmax(babble().finish(core.DEFAULT, fps=FPS, frames=FRAMES, seed=4)["jawOpen"]))
    bpy.context.scene.frame_set(frame)
    value = face.data.shape_keys.key_blocks["jawOpen"].value
    edits.apply(take, replace(core.DEFAULT, gain={"jawOpen": 0.0}))
    bpy.context.view_layer.update()
    assert value > 0.2
    assert face.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.vertices[3].co.z == \
        pytest.approx(face.data.vertices[3].co.z, abs=1e-4)


def test_keys_that_the_artist_moved_stay_and_the_rest_follows(face, take):
    curve = curve_of(face, "jawOpen")
    before = keyed(face)["jawOpen"]
    middle = len(before) // 2
    curve.keyframe_points[middle].co.y = 0.9
    curve.update()
    assert edits.hand_keys(take) == 1
    assert edits.apply(take, replace(core.DEFAULT, gain={"jawOpen": 0.5})) == 1
    now = keyed(face)["jawOpen"]
    assert [float(before[middle, 0]), pytest.approx(0.9)] in now.tolist()
    others = np.abs(now[:, 0] - before[middle, 0]) > before[middle + 1, 0] - before[middle - 1, 0]
    original = np.interp(now[others, 0], before[:, 0], before[:, 1])
    assert np.abs(now[others, 1] - original).max() > 0.1, "the others were halved"
    assert edits.apply(take, core.DEFAULT) == 1, "known for the artist's after a writing, too"
    assert [float(before[middle, 0]), pytest.approx(0.9)] in keyed(face)["jawOpen"].tolist()


def test_keys_removed_added_and_given_other_handles_are_the_artists_too(face, take):
    curve = curve_of(face, "jawOpen")
    points = curve.keyframe_points
    gone = points[4].co.x
    points[9].handle_left_type = points[9].handle_right_type = "VECTOR"
    changed = points[9].co.x
    points.remove(points[4])
    points.insert(70.5, 0.77)
    curve.update()
    for strength in (0.5, 1.3):
        assert edits.apply(take, replace(core.DEFAULT, jaw=strength)) == 3
    found = keyed(face)["jawOpen"]
    assert gone not in found[:, 0]
    assert 70.5 in found[:, 0]
    assert [p.handle_left_type for p in curve.keyframe_points if p.co.x == changed] == ["VECTOR"]


@pytest.mark.parametrize("fps", [12, 24, 30, 60])
def test_a_take_is_laid_anew_for_another_frame_rate(face, take, fps):
    scene = bpy.context.scene
    assert "is for the frame rate" in error_of(bpy.ops.lsf.refit_take)
    scene.render.fps = fps
    assert bpy.ops.lsf.refit_take() == {"FINISHED"}
    frames = round(FRAMES * fps / FPS)
    motion = babble().finish(core.DEFAULT, fps=fps, frames=frames, seed=4)
    mask = writing.sparse_mask(list(motion.names), motion.weights, fps)
    for column, name in enumerate(motion.names):
        wanted = curves.chosen(motion.weights[:, column], mask[:, column], FIRST)
        np.testing.assert_array_equal(keyed(face)[name], np.stack([wanted.frames, wanted.values], axis=1))
    made = keys.take_settings(take)
    assert (made["fps"], made["frames"], made["first_frame"]) == (fps, frames, FIRST)
    assert edits.hand_keys(take) == 0
    assert takes.off_clock(scene, take) is None
    assert "is for the frame rate" in error_of(bpy.ops.lsf.refit_take)
    assert edits.apply(take, replace(core.DEFAULT, gain={"jawOpen": 0.0})) == 0, "edits go on from there"
    assert keyed(face)["jawOpen"][:, 1].max() == 0


def test_keys_of_the_artist_go_along_to_another_frame_rate(face, take):
    curve = curve_of(face, "jawOpen")
    points = curve.keyframe_points
    points[6].co.y, points[14].handle_right_type = 0.9, "FREE"
    points[14].handle_right = (points[14].co.x + 2, 0.3)
    moved, bent = points[6].co.x, points[14].co.x
    points.remove(points[10])
    curve.update()
    bpy.context.scene.render.fps = 50
    bpy.ops.lsf.refit_take()
    assert edits.hand_keys(take) == 3
    now = {round(p.co.x): p for p in curve.keyframe_points}
    assert len(now) == len(curve.keyframe_points), "one key a frame"
    assert now[round(FIRST + 2 * (moved - FIRST))].co.y == pytest.approx(0.9)
    kept = now[round(FIRST + 2 * (bent - FIRST))]
    assert kept.handle_right_type == "FREE"
    assert tuple(kept.handle_right) == pytest.approx((kept.co.x + 4, 0.3))
    bpy.context.scene.render.fps = 25
    bpy.ops.lsf.refit_take()
    assert edits.hand_keys(take) == 3
    assert [moved, pytest.approx(0.9)] in keyed(face)["jawOpen"].tolist()


def test_a_take_that_begins_within_its_sound_is_laid_where_that_is_heard(face, take):
    """The sound's second 0 lies on frame 1 at any frame rate; the take begins 10 frames, 0.4 s, later."""
    keys.put_settings(take, {**keys.take_settings(take), "sound_frame": FIRST - 10.0})
    bpy.context.scene.render.fps = 50
    bpy.ops.lsf.refit_take()
    made = keys.take_settings(take)
    assert (made["first_frame"], made["sound_frame"]) == (FIRST + 10, FIRST - 10)
    assert keyed(face)["jawOpen"][0, 0] == FIRST + 10
    assert bpy.context.scene.frame_end >= FIRST + 10 + 2 * FRAMES - 1


def test_a_take_without_raw_motion_is_not_laid_anew(face, take):
    del take[keys.RAW_TAG]
    before = keyed(face)
    bpy.context.scene.render.fps = 30
    assert "keeps no raw motion" in error_of(bpy.ops.lsf.refit_take)
    np.testing.assert_array_equal(keyed(face)["jawOpen"], before["jawOpen"])
    assert keys.take_settings(take)["fps"] == FPS


def test_keys_of_the_artist_may_be_written_over(face, take):
    curve = curve_of(face, "jawOpen")
    untouched = keyed(face)
    curve.keyframe_points[5].co.y = 0.9
    curve.update()
    edits.apply(take, core.DEFAULT, keep=False)
    for name, points in keyed(face).items():
        np.testing.assert_array_equal(points, untouched[name])
    assert edits.hand_keys(take) == 0


def test_a_curve_that_is_not_ours_is_left_alone(face, take):
    face.shape_key_add(name="Breath")
    compat.new_curve(take, face.data.shape_keys, 'key_blocks["Breath"].value').keyframe_points.insert(5, 0.4)
    edits.apply(take, replace(core.DEFAULT, emotion=0.0))
    assert keyed(face)["Breath"].tolist() == [[5.0, pytest.approx(0.4)]]


def test_the_raw_motion_survives_saving_and_appending(face, take, tmp_path):
    path = str(tmp_path / "scene.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    changed = replace(core.DEFAULT, jaw=0.5)
    edits.apply(bpy.data.actions["take"], changed)
    wanted = keyed(bpy.data.objects["Ball"])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(path) as (there, here):
        here.objects = ["Ball"]
        assert "take" in there.actions
    ball = here.objects[0]
    bpy.context.scene.collection.objects.link(ball)
    [appended] = keys.takes_of(ball)
    assert edits.apply(appended, changed) == 0
    for name, points in keyed(ball).items():
        np.testing.assert_array_equal(points, wanted[name])


def test_the_sliders_show_and_change_the_active_take(scene, face, take):
    sliders = bpy.context.window_manager.lsf_edits
    other = write(face, settings=replace(core.DEFAULT, smoothing=0.4))
    assert sliders.smoothing == pytest.approx(0.4)
    takes.activate(face, take)
    assert sliders.smoothing == 0.0
    before = keyed(face)["jawOpen"]
    sliders.jaw = 0.5
    sliders.shape = "browDownLeft"
    sliders.gain = 0.0
    assert keyed(face)["jawOpen"][:, 1].max() < 0.75 * before[:, 1].max()
    assert keyed(face)["browDownLeft"][:, 1].max() == 0
    assert (edits.current(take).jaw, edits.current(other).jaw) == (0.5, 1.0)


def test_the_artist_may_be_asked_about_keys_changed_by_hand(scene, face, take):
    scene.lsf.hand_keys = "ASK"
    curve_of(face, "jawOpen").keyframe_points[5].co.y = 0.9
    curve_of(face, "jawOpen").update()
    before = keyed(face)["browDownLeft"]
    bpy.context.window_manager.lsf_edits.emotion = 0.0
    assert edits.asking(take)
    np.testing.assert_array_equal(keyed(face)["browDownLeft"], before)
    bpy.ops.lsf.hand_keys(keep=True)
    assert keyed(face)["browDownLeft"][:, 1].max() < 0.01
    assert keyed(face)["jawOpen"][:, 1].max() == pytest.approx(0.9)
    assert not edits.asking(take)


def test_a_take_without_raw_motion_says_how_to_get_one(scene, face, take):
    del take[keys.RAW_TAG]
    assert "'Make Again'" in edits.refusal(bpy.context)
    with pytest.raises(Problem, match="raw motion or settings are missing"):
        edits.apply(take, core.DEFAULT)
    take[keys.RAW_TAG] = b"spoilt"
    assert "raw motion" in error_of(lambda: bpy.ops.lsf.apply_preset(name="Calm"))


def test_one_undo_takes_a_preset_back(scene, face, take):
    bpy.ops.ed.undo_push(message="before")
    before = keyed(face)
    bpy.ops.lsf.apply_preset("EXEC_DEFAULT", True, name="Network only")
    assert edits.current(take) == core.NONE
    bpy.ops.ed.undo()
    face = bpy.data.objects["Ball"]
    assert edits.current(keys.active_take(face)) == core.DEFAULT
    for name, points in keyed(face).items():
        np.testing.assert_array_equal(points, before[name])


def test_a_row_of_previews_shows_the_take_with_other_strengths_of_emotion(scene, face, take):
    before, brow = keyed(face), "browDownLeft"
    bpy.ops.lsf.preview_emotions()
    row = list(compare.shown(scene).objects)
    assert [copy.name for copy in row] == ["emotion 0", "emotion 0.5", "emotion 1.5", "emotion 2"]
    heights = [keyed(copy)[brow][:, 1].max() for copy in row]
    assert heights == sorted(heights)
    assert heights[0] < 0.01 < 0.5 < heights[-1]
    assert keys.takes_of(face) == [take]
    np.testing.assert_array_equal(keyed(face)[brow], before[brow])
    bpy.ops.lsf.compare_takes()
    assert [action.name for action in bpy.data.actions if action.name.startswith("emotion")] == []


@pytest.fixture
def preset_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(presets, "folder", lambda make=False: tmp_path)
    return tmp_path


def test_presets_are_kept_passed_on_and_never_run(scene, face, take, preset_folder, tmp_path):
    edits.apply(take, replace(core.DEFAULT, emotion=1.7, gain={"jawOpen": 0.8}))
    bpy.ops.lsf.save_preset(name="Grumpy old man")
    assert presets.own() == ["Grumpy old man"]
    passed = tmp_path / "elsewhere" / "Grumpy.lsf.json"
    passed.parent.mkdir()
    bpy.ops.lsf.export_preset(filepath=str(passed))
    bpy.ops.lsf.apply_preset(name="Calm")
    assert edits.current(take) == core.PRESETS["Calm"]
    bpy.ops.lsf.import_preset(filepath=str(passed))
    assert edits.current(take).gain == {"jawOpen": 0.8}
    assert presets.own() == ["Grumpy", "Grumpy old man"]
    bpy.ops.lsf.remove_preset(name="Grumpy")
    assert presets.own() == ["Grumpy old man"]
    scene.lsf.preset, scene.lsf.emotion_strength = "Grumpy old man", 0.5
    assert order.edits_of_new_take(scene) == replace(core.DEFAULT, emotion=0.85, gain={"jawOpen": 0.8})
    scene.lsf.edits = False
    assert order.edits_of_new_take(scene) == replace(core.NONE, emotion=0.5)
    passed.write_text("import os")
    assert "is no preset of edits" in error_of(lambda: bpy.ops.lsf.import_preset(filepath=str(passed)))
    assert "cannot be the name" in error_of(lambda: bpy.ops.lsf.save_preset(name="../x"))
