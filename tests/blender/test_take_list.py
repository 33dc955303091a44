"""The take list: activate, duplicate, delete, again, NLA, comparison, and takes that follow their strip."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from conftest import add_strip, error_of, evaluated, keyed
from test_takes import artists_action

from blender_addon import compare, compat, keys, panel_takes, takes

needs_strips = pytest.mark.skipif(not bpy.app.build_options.audaspace, reason="this build has no sound strips")


@pytest.fixture
def three(ball_scene, ball, fake_engine):
    """A ball with three takes; the last one is active."""
    fake_engine()
    ball_scene.lsf.variations = 3
    bpy.ops.lsf.animate()
    return keys.takes_of(ball)


def test_variations_are_takes_with_seeds_of_their_own_made_in_one_press(ball_scene, three, requests_seen):
    assert [take.name for take in three] == ["speech take 1", "speech take 2", "speech take 3"]
    assert [keys.take_settings(take)["seed"] for take in three] == [0, 1, 2]
    assert len(requests_seen("rig")) == len(requests_seen("listen")) == 1
    assert "3 takes, speech take 1 to speech take 3" in ball_scene.lsf.summary
    assert "raise 'Variation'" in ball_scene.lsf.warnings


def test_a_click_in_the_list_makes_a_take_the_active_one(ball_scene, ball, three):
    settings = ball_scene.lsf
    assert bpy.data.actions[settings.take_index] == three[2]
    settings.take_index = bpy.data.actions.find("speech take 1")
    assert keys.active_take(ball) == three[0]
    assert len(keyed(ball)) == 4
    ball.data.shape_keys.animation_data.action = None
    assert settings.take_index == -1
    settings.take_index = bpy.data.actions.find(three[1].name)
    assert len(keyed(ball)) == 4, "in its old slot, not in a new and empty one"


def test_a_click_on_what_is_no_take_of_the_mesh_does_nothing(ball_scene, ball, three):
    artists = bpy.data.actions.new("Artist's")
    ball_scene.lsf.take_index = bpy.data.actions.find(artists.name)
    assert keys.active_take(ball) == three[2]


def test_an_artists_action_gives_way_to_a_take_and_is_kept(ball_scene, ball, three):
    action = artists_action_on(ball)
    ball_scene.lsf.take_index = bpy.data.actions.find(three[0].name)
    assert keys.active_take(ball) == three[0]
    assert action.use_fake_user


def artists_action_on(ball: bpy.types.Object) -> bpy.types.Action:
    ball.shape_key_add(name="Breath")
    action = artists_action(ball)
    assert ball.data.shape_keys.animation_data.action == action
    return action


class List:
    """Stands in for the UIList: only its filter is needed."""

    bitflag_filter_item = 1 << 30
    filter_name = ""
    filter_items = panel_takes.LSF_UL_takes.filter_items


def test_the_list_shows_the_takes_of_the_mesh_by_age(ball_scene, ball, three):
    bpy.data.actions.new("A walk")
    three[0].name = "zz best"
    flags, order = List().filter_items(bpy.context, bpy.data, "actions")
    listed = zip(order, flags, bpy.data.actions, strict=True)
    shown = sorted((place, action.name) for place, flag, action in listed if flag)
    assert [name for _, name in shown] == ["zz best", "speech take 2", "speech take 3"]
    assert sorted(order) == list(range(len(bpy.data.actions)))


def test_a_duplicate_is_a_take_of_its_own(ball_scene, ball, three):
    before = keyed(ball)
    bpy.ops.lsf.duplicate_take()
    copy = keys.active_take(ball)
    assert copy.name == "speech take 3 copy"
    curve = next(iter(compat.curves_of(ball.data.shape_keys)))
    curve.keyframe_points[0].co.y = 0.123
    takes.activate(ball, three[2])
    for name, points in keyed(ball).items():
        np.testing.assert_array_equal(points, before[name])
    assert keys.takes_of(ball)[-1] == copy


def test_deleting_goes_on_to_the_take_before(ball_scene, ball, three):
    bpy.ops.lsf.delete_take()
    assert keys.active_take(ball).name == "speech take 2"
    takes.activate(ball, three[0])
    bpy.ops.lsf.delete_take()
    assert [take.name for take in keys.takes_of(ball)] == ["speech take 2"]
    bpy.ops.lsf.delete_take()
    assert keys.takes_of(ball) == []
    assert "No take of 'Ball' is active" in error_of(bpy.ops.lsf.delete_take)


def test_made_again_a_take_has_the_same_keys_and_with_a_new_seed_another_seed(ball_scene, ball, three, requests_seen):
    takes.activate(ball, three[1])
    wanted = keyed(ball)
    ball_scene.lsf.seed, ball_scene.lsf.emotion_strength = 77, 0.3
    bpy.ops.lsf.regenerate()
    again = keys.active_take(ball)
    assert again.name == "speech take 4"
    for name, points in keyed(ball).items():
        np.testing.assert_array_equal(points, wanted[name])
    told = requests_seen("animate")
    assert {**told[1], "folder": ""} == {**told[3], "folder": ""}, "the engine is asked for just the same"
    bpy.ops.lsf.regenerate(new_seed=True)
    assert keys.take_settings(keys.active_take(ball))["seed"] == 3


@needs_strips
def test_a_take_whose_strip_is_gone_cannot_be_made_again_and_says_so(ball_scene, ball, three):
    strip = compat.all_strips(ball_scene)[0]
    compat.top_strips(ball_scene.sequence_editor).remove(strip)
    assert "There is no sound strip 'speech'" in error_of(bpy.ops.lsf.regenerate)


def test_pushed_down_a_take_plays_in_the_nla_only(ball_scene, ball, three):
    shown = evaluated(ball, 30)
    bpy.ops.lsf.push_take()
    assert keys.active_take(ball) is None
    [(track, strip)] = takes.nla_strips(ball)
    assert (track.name, strip.action, strip.frame_start) == ("speech take 3", three[2], 1)
    np.testing.assert_allclose(evaluated(ball, 30), shown, atol=1e-5)
    takes.activate(ball, three[2])
    assert "plays in the NLA track 'speech take 3'" in error_of(bpy.ops.lsf.delete_take)


def test_takes_side_by_side_play_each_its_own_and_go_again(ball_scene, ball, three):
    objects, meshes = len(bpy.data.objects), len(bpy.data.meshes)
    for curve in compat.curves_in(three[0], "KEY"):
        for point in curve.keyframe_points:
            point.co.y = 0.0
        curve.update()
    bpy.ops.lsf.compare_takes()
    copies = list(compare.shown(ball_scene).objects)
    assert [copy.name for copy in copies] == ["speech take 1", "speech take 2"]
    bpy.context.view_layer.update()
    places = [copy.matrix_world.translation.x for copy in copies]
    assert places == pytest.approx([2 * compare.GAP, 4 * compare.GAP], rel=0.05)
    still, moving = (evaluated(copy, 40) for copy in copies)
    np.testing.assert_allclose(moving, evaluated(ball, 40), atol=1e-5)
    assert np.abs(still - moving).max() > 0.05
    bpy.ops.lsf.compare_takes()
    assert compare.shown(ball_scene) is None
    assert (len(bpy.data.objects), len(bpy.data.meshes)) == (objects, meshes)
    assert three[0].users > 0


@needs_strips
def test_a_take_follows_the_strip_that_was_moved_but_not_one_that_was_trimmed(ball_scene, ball, three):
    strip = compat.all_strips(ball_scene)[0]
    assert "has not moved" in error_of(bpy.ops.lsf.follow_strip)
    strip.frame_offset_start = 5
    assert takes.moved_by(bpy.context, ball_scene, three[2]) == 0
    strip.frame_start += 24
    assert takes.moved_by(bpy.context, ball_scene, three[2]) == 24
    before = keyed(ball)
    shown = evaluated(ball, 20)
    bpy.ops.lsf.follow_strip()
    for name, points in keyed(ball).items():
        np.testing.assert_allclose(points, before[name] + (24, 0))
    np.testing.assert_allclose(evaluated(ball, 44), shown, atol=1e-5)
    assert keys.take_settings(three[2])["first_frame"] == 25
    assert takes.moved_by(bpy.context, ball_scene, three[2]) == 0


def test_the_notes_tell_what_made_the_take(ball_scene, three):
    text = " ".join(takes.notes(three[1]))
    assert "'speech', frames 1 to 50" in text
    assert "Seed 1, emotion 1.00, variation 0.00" in text
    three[1][keys.TAKE_TAG] = "spoilt"
    assert takes.notes(three[1]) == ["What made it is not known."]


@pytest.mark.skipif(not compat.has_slots(), reason="Actions have no slots in this Blender")
def test_a_take_that_fails_gives_the_artist_action_and_slot_back(ball_scene, ball, fake_engine, monkeypatch):
    from blender_addon import curves

    fake_engine()
    action = artists_action(ball)
    first = ball.data.shape_keys.animation_data.action_slot
    second = action.slots.new("KEY", "Other")
    ball.data.shape_keys.animation_data.action_slot = second
    assert first != second
    monkeypatch.setattr(curves, "write", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    assert "no room" in error_of(bpy.ops.lsf.animate)
    data = ball.data.shape_keys.animation_data
    assert (data.action, data.action_slot) == (action, second)
    assert ball.animation_data is None
    assert [block.name for block in ball.data.shape_keys.key_blocks] == ["Basis", "Breath"]


def test_a_take_of_another_frame_rate_says_so(ball_scene, three):
    assert takes.off_clock(ball_scene, three[0]) is None
    ball_scene.render.fps, ball_scene.render.fps_base = 30, 1.001
    assert "for 25 fps, the scene plays 29.97" in takes.off_clock(ball_scene, three[0])


# ---------------------------------------------------------------- several strips
@pytest.fixture
def duet(ball_scene, ball, hum, fake_engine):
    """Two strips and two meshes, in the list of lines."""
    fake_engine()
    bpy.ops.mesh.primitive_uv_sphere_add(segments=14, ring_count=9)
    bpy.context.object.name = "Second"
    add_strip(ball_scene, hum, frame=60, name="answer")
    for strip in compat.all_strips(ball_scene):
        strip.select = True
    bpy.ops.lsf.add_lines()
    ball_scene.lsf.lines[1].target = bpy.data.objects["Second"]
    return ball_scene


def test_selected_strips_become_lines_in_the_order_of_time(duet):
    listed = [(line.strip_name, line.target.name) for line in duet.lsf.lines]
    assert listed == [("speech", "Ball"), ("answer", "Second")]
    bpy.ops.lsf.add_lines()
    assert len(duet.lsf.lines) == 2, "none twice"
    bpy.ops.lsf.remove_line()
    assert [line.strip_name for line in duet.lsf.lines] == ["speech"]


def test_several_strips_each_on_its_own_mesh_in_one_job(duet, ball, requests_seen):
    bpy.ops.lsf.animate_lines()
    second = bpy.data.objects["Second"]
    assert [take.name for take in keys.takes_of(ball)] == ["speech take 1"]
    assert [take.name for take in keys.takes_of(second)] == ["answer take 1"]
    assert keyed(ball)["jawOpen"][0, 0] == 1
    assert keyed(second)["jawOpen"][0, 0] == 60
    assert [len(requests_seen(method)) for method in ("listen", "rig", "animate")] == [2, 2, 2]


def test_one_bad_line_stops_the_job_before_anything_is_written(duet, ball):
    duet.lsf.lines[1].target = None
    assert "No mesh is chosen" in error_of(bpy.ops.lsf.animate_lines)
    duet.lsf.lines.clear()
    assert "There are no lines" in error_of(bpy.ops.lsf.animate_lines)
    assert ball.data.shape_keys is None


def test_two_lines_of_one_mesh_are_two_takes(duet, ball):
    duet.lsf.lines[1].target = ball
    bpy.ops.lsf.animate_lines()
    assert [take.name for take in keys.takes_of(ball)] == ["speech take 1", "answer take 2"]
