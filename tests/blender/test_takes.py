"""What a take writes, and what it leaves alone. The fake engine answers, so that each test is quick."""

from __future__ import annotations

import json
import time

import bpy
import numpy as np
import pytest
from conftest import add_strip, error_of, evaluated, keyed

from blender_addon import compat, curves, job, keys, mesh_io
from blender_addon.shared import edits


def actions() -> set[str]:
    return {action.name for action in bpy.data.actions}


def artists_action(target: bpy.types.Object, name: str = "Breathing") -> bpy.types.Action:
    """An Action of the artist's on a shape key of their own."""
    if target.data.shape_keys is None:
        target.shape_key_add(name="Basis")
        target.shape_key_add(name="Breath")
    key = target.data.shape_keys
    action = bpy.data.actions.new(name)
    compat.assign_action(key, action)
    compat.new_curve(action, key, 'key_blocks["Breath"].value').keyframe_points.insert(3, 0.5)
    return action


def curve_keys(action: bpy.types.Action) -> int:
    if not compat.has_slots():
        return sum(len(curve.keyframe_points) for curve in action.fcurves)
    return sum(len(c.keyframe_points) for layer in action.layers for strip in layer.strips
               for bag in strip.channelbags for c in bag.fcurves)


def test_keys_follow_the_motion_one_a_frame_and_flat_curves_have_two(ball_scene, ball, fake_engine):
    fake_engine()
    ball_scene.lsf.key_style = curves.EVERY_FRAME
    bpy.ops.lsf.animate()
    found = keyed(ball)
    assert {name: len(points) for name, points in found.items()} == {
        "jawOpen": 50, "mouthSmileLeft": 50, "browInnerUp": 2, "tongueOut": 2}
    np.testing.assert_allclose(found["jawOpen"][:, 1], np.linspace(0.1, 0.9, 50), atol=1e-6)
    np.testing.assert_allclose(found["mouthSmileLeft"][:, 1], 0.5 + 0.5 * np.sin(np.arange(50)), atol=1e-6)
    np.testing.assert_allclose(found["browInnerUp"], [[1, 0.25], [50, 0.25]])
    for curve in compat.curves_of(ball.data.shape_keys):
        assert {point.interpolation for point in curve.keyframe_points} == {"LINEAR"}
        assert all(point.handle_left.x <= point.co.x <= point.handle_right.x for point in curve.keyframe_points)


def test_the_evaluated_mesh_is_basis_plus_weighted_displacements(ball_scene, ball, fake_engine):
    fake_engine()
    before = evaluated(ball, 1)
    bpy.ops.lsf.animate()
    blocks = ball.data.shape_keys.key_blocks
    curve = {curve.data_path.split('"')[1]: curve for curve in compat.curves_of(ball.data.shape_keys)}
    for frame in (1, 20, 50):
        expected = before.copy()
        for name in curve:
            key = np.array([p.co[:] for p in compat.key_points(blocks[name])])
            expected += curve[name].evaluate(frame) * (key - before)
        np.testing.assert_allclose(evaluated(ball, frame), expected, atol=1e-5)
    assert np.abs(evaluated(ball, 50) - before).max() > 0.05


def test_each_run_is_a_new_take_and_the_old_ones_stay(ball_scene, ball, fake_engine):
    fake_engine()
    for _ in range(3):
        bpy.ops.lsf.animate()
    takes = keys.takes_of(ball)
    assert [take.name for take in takes] == [f"speech take {n}" for n in (1, 2, 3)]
    assert keys.active_take(ball) == takes[-1]
    assert all(take.use_fake_user for take in takes), "a take that is not active must survive saving"
    assert len({curve_keys(take) for take in takes}) == 1


def test_the_settings_are_kept_on_the_take(ball_scene, ball, fake_engine, requests_seen):
    fake_engine()
    settings = ball_scene.lsf
    settings.seed, settings.temperature, settings.emotion_strength, settings.edits = 7, 0.5, 1.5, False
    bpy.ops.lsf.animate()
    kept = keys.take_settings(keys.active_take(ball))
    wanted = {"seed": 7, "edits": edits.edit_settings(1.5, edits=False).to_dict()}
    assert wanted.items() <= kept.items()
    assert kept["performance"] == {"temperature": 0.5}
    assert (kept["first_frame"], kept["frames"], kept["target"], kept["speech"]) == (1, 50, "Ball", "speech")
    assert {**wanted, "temperature": 0.5}.items() <= requests_seen("animate")[0].items()


def test_an_artists_action_is_neither_changed_nor_lost(ball_scene, ball, fake_engine, tmp_path):
    fake_engine()
    action = artists_action(ball)
    bpy.ops.lsf.animate()
    assert action.name == "Breathing"
    assert curve_keys(action) == 1
    assert not keys.is_take(action)
    assert keys.active_take(ball) is not None
    assert "'Breathing' was active before" in ball_scene.lsf.warnings
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "saved.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "saved.blend"))
    assert {"Breathing", "speech take 1"} <= actions()
    assert curve_keys(bpy.data.actions["Breathing"]) == 1


def test_an_artists_animation_of_the_object_is_not_touched(ball_scene, ball, fake_engine):
    fake_engine()
    walk = bpy.data.actions.new("Walk")
    compat.assign_action(ball, walk)
    compat.new_curve(walk, ball, "location").keyframe_points.insert(1, 2.0)
    bpy.ops.lsf.animate()
    assert ball.animation_data.action == walk
    assert curve_keys(walk) == 1


def place_keys(target: bpy.types.Object) -> list[tuple[float, float]]:
    """The keys on the object's X location."""
    place = next(curve for curve in compat.curves_of(target) if curve.data_path == "location")
    return [point.co[:] for point in place.keyframe_points]


def test_keys_that_an_artist_puts_on_the_object_are_not_in_our_take_and_stay(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    carrier, take = ball.animation_data.action, keys.active_take(ball)
    assert carrier != take
    written = curve_keys(take)
    ball.location.x = 1
    ball.keyframe_insert("location", frame=5)
    assert curve_keys(take) == written, "the artist's keys would be lost with the take"
    bpy.ops.lsf.animate()
    assert ball.animation_data.action == carrier
    for old in keys.takes_of(ball):
        bpy.data.actions.remove(old)
    assert place_keys(ball) == [(5, 1)]


def test_the_carrier_spans_all_takes_and_is_made_once(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    keys.write_take(ball, "late", ["jawOpen"], np.zeros((10, 1)), 91, {})
    keys.write_take(ball, "early", ["jawOpen"], np.zeros((10, 1)), -20, {})
    assert tuple(ball.animation_data.action.frame_range) == (-20, 100)
    assert len(bpy.data.actions) == 4


@pytest.mark.skipif(not compat.has_slots(), reason="Actions have no slots in this Blender")
@pytest.mark.parametrize("used", [True, False])
def test_a_slot_that_an_older_version_lent_in_its_take_stays_if_the_artist_used_it(ball_scene, ball, fake_engine, used):
    fake_engine()
    bpy.ops.lsf.animate()
    take = keys.active_take(ball)
    compat.assign_action(ball, take)
    if used:
        ball.keyframe_insert("location", frame=5)
    bpy.ops.lsf.animate()
    assert (ball.animation_data.action == take) == used
    assert not used or place_keys(ball) == [(5, 0)]


def test_shape_keys_that_exist_are_driven_and_the_missing_ones_made(ball_scene, ball, fake_engine):
    fake_engine()
    ball.shape_key_add(name="Basis")
    own = ball.shape_key_add(name="jawOpen")
    own.points[3].co.x += 0.3
    other = ball.shape_key_add(name="Breath")
    other.value = 0.4
    ball.active_shape_key_index = 2
    before = [p.co[:] for p in own.points]
    bpy.ops.lsf.animate()
    blocks = ball.data.shape_keys.key_blocks
    assert [p.co[:] for p in blocks["jawOpen"].points] == before
    assert blocks["Breath"].value == pytest.approx(0.4)
    assert set(mesh_io.made_keys(ball)) == {"mouthSmileLeft", "browInnerUp", "tongueOut"}
    assert set(keyed(ball)) == {"jawOpen", "mouthSmileLeft", "browInnerUp", "tongueOut"}
    assert ball.active_shape_key.name == "Breath"


def test_a_mesh_with_all_keys_is_not_rigged_again(ball_scene, ball, fake_engine, requests_seen):
    from blender_addon.shared import arkit

    fake_engine()
    for name in ("Basis", *arkit.ARKIT_NAMES):
        ball.shape_key_add(name=name)
    bpy.ops.lsf.animate()
    assert requests_seen("rig") == []
    assert mesh_io.made_keys(ball) == []


def test_one_undo_takes_everything_back_and_one_redo_brings_it_again(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.lsf.animate("EXEC_DEFAULT", True)
    assert "speech take 1" in actions()
    bpy.ops.ed.undo()
    ball = bpy.data.objects["Ball"]
    assert ball.data.shape_keys is None
    assert not actions()
    assert bpy.context.scene.frame_end == 50
    bpy.ops.ed.redo()
    ball = bpy.data.objects["Ball"]
    assert keys.active_take(ball) is not None
    assert len(keyed(ball)) == 4


def test_the_frame_range_grows_when_wanted_and_never_shrinks(ball_scene, ball, hum, fake_engine):
    fake_engine()
    ball_scene.frame_end = 20
    ball_scene.lsf.extend_frame_range = False
    bpy.ops.lsf.animate()
    assert ball_scene.frame_end == 20
    ball_scene.lsf.extend_frame_range = True
    bpy.ops.lsf.animate()
    assert ball_scene.frame_end == 50
    ball_scene.frame_end = 500
    bpy.ops.lsf.animate()
    assert (ball_scene.frame_start, ball_scene.frame_end) == (1, 500)


def test_the_current_frame_stays(ball_scene, ball, fake_engine):
    fake_engine()
    ball_scene.frame_set(13, subframe=0.25)
    bpy.ops.lsf.animate()
    assert (ball_scene.frame_current, ball_scene.frame_subframe) == (13, 0.25)


def test_muted_and_driven_keys_are_warned_of(ball_scene, ball, fake_engine):
    fake_engine()
    ball.shape_key_add(name="Basis")
    for name in ("jawOpen", "mouthSmileLeft"):
        ball.shape_key_add(name=name).points[0].co.x += 1
    ball.data.shape_keys.key_blocks["jawOpen"].mute = True
    ball.data.shape_keys.key_blocks["mouthSmileLeft"].driver_add("value").driver.expression = "0"
    bpy.ops.lsf.animate()
    warnings = ball_scene.lsf.warnings.splitlines()
    assert any("Shape key jawOpen is muted" in w for w in warnings)
    assert any("Shape key mouthSmileLeft is driven" in w for w in warnings)
    assert "A warning of the rig." in warnings


def test_drivers_of_the_artists_go_on_driving(ball_scene, ball, fake_engine):
    fake_engine()
    for name in ("Basis", "jawOpen", "Fix"):
        ball.shape_key_add(name=name)
    driver = ball.data.shape_keys.key_blocks["Fix"].driver_add("value").driver
    driver.expression, variable = "jaw * 2", driver.variables.new()
    variable.name, variable.type = "jaw", "SINGLE_PROP"
    variable.targets[0].id_type, variable.targets[0].id = "KEY", ball.data.shape_keys
    variable.targets[0].data_path = 'key_blocks["jawOpen"].value'
    ball.driver_add("location", 0).driver.expression = "frame / 10"
    bpy.ops.lsf.animate()
    ball_scene.frame_set(25)
    bpy.context.view_layer.update()
    blocks = ball.data.shape_keys.key_blocks
    assert blocks["Fix"].value == pytest.approx(min(1.0, 2 * blocks["jawOpen"].value), abs=1e-4)
    assert ball.location.x == pytest.approx(2.5)
    assert "driven" not in ball_scene.lsf.warnings


def test_what_hides_a_take_in_the_nla_is_warned_of(ball_scene, ball, fake_engine):
    fake_engine()
    action = artists_action(ball)
    data = ball.data.shape_keys.animation_data
    track = data.nla_tracks.new()
    track.strips.new("Breathing", 1, action)
    track.is_solo = True
    data.action_influence = 0.5
    bpy.ops.lsf.animate()
    assert "influence on 'Ball' is 0.50" in ball_scene.lsf.warnings
    assert f"NLA track '{track.name}' of 'Ball' plays solo" in ball_scene.lsf.warnings


def test_a_face_that_stays_still_is_warned_of(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    assert "does not move" not in ball_scene.lsf.warnings
    for block in ball.data.shape_keys.key_blocks[1:]:
        block.mute = True
    bpy.ops.lsf.animate()
    assert "'Ball' does not move at frame" in ball_scene.lsf.warnings
    assert "muted" in ball_scene.lsf.warnings


def test_a_hidden_mesh_gets_its_take_and_no_false_alarm(ball_scene, ball, fake_engine):
    fake_engine()
    ball.hide_set(True)
    bpy.ops.lsf.animate()
    assert len(keyed(ball)) == 4
    assert "does not move" not in ball_scene.lsf.warnings


def test_a_mirrored_and_stretched_object_gets_displacements_in_its_own_space(ball_scene, ball, fake_engine):
    """The fake displaces in the space that it is shown, which for such an object is the world's."""
    fake_engine()
    ball.scale = (-2, 1, 0.5)
    bpy.context.view_layer.update()
    bpy.ops.lsf.animate()
    block = ball.data.shape_keys.key_blocks["jawOpen"]  # the fake moves it along x
    own = np.array([p.co[:] for p in block.points]) - np.array([v.co[:] for v in ball.data.vertices])
    shown = 0.1 * (1 + np.arange(len(own)) % 2)
    np.testing.assert_allclose(own, np.stack([shown / -2, 0 * shown, 0 * shown], axis=1), atol=1e-6)


BROKEN = {
    "nan weights": "not finite", "nan deltas": "not finite", "big weights": "outside 0 to 1",
    "short weights": "expected (50, 4)", "short deltas": "expected (4,", "pickle": "cannot be read",
    "outside": "plain file name", "user error": "The fake refuses this.", "bug": "The fake is broken.",
    "dies": "ended unexpectedly", "garbage": "not its protocol", "old": "speaks protocol 99",
}


@pytest.mark.parametrize("mode", BROKEN)
def test_nothing_is_written_unless_the_whole_result_is_right(ball_scene, ball, fake_engine, mode):
    fake_engine(mode)
    assert BROKEN[mode] in error_of(bpy.ops.lsf.animate)
    assert BROKEN[mode] in ball_scene.lsf.error
    assert ball.data.shape_keys is None
    assert ball.animation_data is None
    assert not actions()
    fake_engine()
    bpy.ops.lsf.animate()
    assert keys.active_take(ball) is not None
    assert ball_scene.lsf.error == ""


def test_a_failure_while_writing_takes_back_what_was_written(ball_scene, ball, fake_engine, monkeypatch):
    fake_engine()

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(curves, "write", fail)
    assert "no room" in error_of(bpy.ops.lsf.animate)
    assert ball.data.shape_keys is None
    assert not actions()


def tweak(target: bpy.types.Object) -> bpy.types.Action:
    """The artist's Action in an NLA strip of the shape keys, which is being tweaked."""
    action = artists_action(target)
    data = target.data.shape_keys.animation_data
    data.nla_tracks.new().strips.new("Breathing", 1, action).select = True
    data.action = None
    data.nla_tracks.active = data.nla_tracks[0]
    data.use_tweak_mode = True
    assert data.use_tweak_mode
    return action


def test_shape_keys_in_nla_tweak_mode_are_refused(ball_scene, ball, fake_engine):
    fake_engine()
    tweak(ball)
    assert "'Ball' is in NLA tweak mode" in error_of(bpy.ops.lsf.animate)
    assert actions() == {"Breathing"}
    ball.data.shape_keys.animation_data.use_tweak_mode = False
    bpy.ops.lsf.animate()
    assert keys.active_take(ball) is not None


def test_an_action_that_cannot_be_assigned_is_not_left_behind(scene, ball):
    tweak(ball)
    with pytest.raises(AttributeError, match="read-only"):
        keys.write_take(ball, "take", ["Breath"], np.zeros((2, 1)), 1, {})
    assert actions() == {"Breathing"}


def run_until(work: job.Job, text: str) -> None:
    for _ in range(500):
        assert not work.poll(), work.error
        if text in work.text:
            return
        time.sleep(0.01)
    raise AssertionError(f"never came to {text!r}")


@pytest.fixture
def started(ball_scene, fake_engine):
    """A job that waits in the middle."""
    fake_engine("slow")
    work = job.Job(bpy.context, "unused")
    run_until(work, "Half of rig")
    yield work
    work.abandon()


def test_cancel_leaves_the_scene_as_it_was(started, ball):
    folder = started._folder
    assert folder.exists()
    started.cancel()
    started.wait()
    assert (started.state, started.error) == ("CANCELLED", "Cancelled. Nothing was changed.")
    assert ball.data.shape_keys is None
    assert not actions()
    assert not folder.exists()


def test_a_second_job_is_refused_while_one_runs(started, ball_scene):
    job.current = started
    try:
        assert "Wait for it or cancel it" in error_of(bpy.ops.lsf.animate)
        bpy.ops.lsf.cancel()
        started.wait()
        assert started.state == "CANCELLED"
    finally:
        job.current = None


def test_a_mesh_edited_meanwhile_is_not_written_to(ball_scene, ball, fake_engine):
    fake_engine()
    work = job.Job(bpy.context, "unused")
    ball.data.vertices[0].co.x += 0.1
    work.wait()
    assert "was edited while the engine worked" in work.error
    assert ball.data.shape_keys is None


def test_a_mesh_deleted_meanwhile_is_told(ball_scene, ball, fake_engine):
    fake_engine()
    work = job.Job(bpy.context, "unused")
    bpy.data.objects.remove(ball)
    work.wait()
    assert "'Ball' was removed or renamed" in work.error


def test_an_undo_meanwhile_does_no_harm(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.ed.undo_push(message="one")
    ball.location.x = 3
    bpy.ops.ed.undo_push(message="two")
    work = job.Job(bpy.context, "unused")
    bpy.ops.ed.undo()
    work.wait()
    assert work.state == "DONE"
    assert keys.active_take(bpy.data.objects["Ball"]) is not None


def test_progress_rises_to_one(ball_scene, fake_engine):
    fake_engine("chatty")
    work = job.Job(bpy.context, "unused")
    seen = [work.fraction]
    while not work.poll():
        seen.append(work.fraction)
    assert seen == sorted(seen)
    assert work.fraction == 1.0
    assert len(set(seen)) > 10


def test_a_report_for_bugs_holds_versions_trace_and_log(ball_scene, fake_engine):
    fake_engine("bug")
    work = job.Job(bpy.context, "unused")
    work.wait()
    for wanted in ("The fake is broken.", "Traceback: here", bpy.app.version_string, "engine fake"):
        assert wanted in work.report


def test_a_take_with_spoilt_settings_is_no_crash(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    keys.active_take(ball)[keys.TAKE_TAG] = "not json"
    bpy.ops.lsf.animate()
    assert keys.is_take(keys.active_take(ball))
    assert json.loads(keys.active_take(ball)[keys.TAKE_TAG])["frames"] == 50


def test_shape_key_names_with_quotes_are_animated(ball_scene, ball, fake_engine):
    assert mesh_io.curve_path('a"b\\c') == 'key_blocks["a\\"b\\\\c"].value'


def test_two_strips_give_takes_of_their_own_names(ball_scene, ball, hum, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    add_strip(ball_scene, hum, frame=80, name="second")
    bpy.ops.lsf.animate()
    assert [take.name for take in keys.takes_of(ball)] == ["speech take 1", "second take 2"]


def test_a_renamed_head_keeps_its_takes_and_a_new_one_of_its_name_has_none(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    ball.name = "Hero"
    bpy.ops.lsf.animate()
    assert [take.name for take in keys.takes_of(ball)] == ["speech take 1", "speech take 2"]
    bpy.ops.mesh.primitive_uv_sphere_add(segments=12, ring_count=8)
    other = bpy.context.object
    other.name = "Ball"
    assert keys.takes_of(other) == []


def test_takes_without_the_id_of_any_shape_keys_go_by_the_name(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    take = keys.active_take(ball)
    ball.shape_key_clear()
    assert keys.takes_of(ball) == [take]
    bpy.ops.lsf.animate()
    old = keys.take_settings(take)
    del old["target_id"]
    take[keys.TAKE_TAG] = json.dumps(old)
    assert [each.name for each in keys.takes_of(ball)] == ["speech take 1", "speech take 2"]
