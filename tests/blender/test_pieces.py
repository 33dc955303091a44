"""A take is written in pieces between which the window goes on: whatever the artist does then, it is all or nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import keyed

from blender_addon import job, keys, mesh_io, pieces
from blender_addon.report import Problem


# ---------------------------------------------------------------- pieces themselves
def three(log: list[str]) -> pieces.Pieces[str]:
    try:
        for number in range(3):
            log.append(str(number))
            yield None
        return "done"
    finally:
        log.append("end")


def test_as_many_pieces_are_taken_as_fit_into_the_time():
    log: list[str] = []
    work = three(log)
    assert not pieces.some(work, 0.0)
    assert log == ["0"]
    assert pieces.some(work, 60.0)
    assert log == ["0", "1", "2", "end"]
    assert pieces.whole(three([])) == "done"


def test_work_aside_is_waited_for_without_holding_anybody_up():
    go = threading.Event()

    def work() -> int:
        go.wait(10)
        return threading.get_ident()

    begun = pieces.aside(work)
    start = time.monotonic()
    assert not pieces.some(begun, 60.0), "what is waited for ends the tick, however much time it has"
    assert time.monotonic() - start < 5
    go.set()
    assert pieces.whole(begun) != threading.get_ident()


def test_what_work_aside_raises_is_raised_here():
    def work() -> None:
        raise Problem("Not so.")

    with pytest.raises(Problem, match="Not so"):
        pieces.whole(pieces.aside(work))


# ---------------------------------------------------------------- a job
@pytest.fixture
def writing_job(ball_scene, ball, fake_engine):
    """A job whose engine has said all, and which has written the first keys of four curves."""
    fake_engine()
    work = job.current = job.Job(bpy.context, "unused")
    end = time.monotonic() + 20
    while not drafts():
        assert time.monotonic() < end, work.text
        assert work.state == "RUNNING", work.error
        work.poll(0.0)
        time.sleep(0.001)
    yield work
    work.abandon()
    job.current = None


def drafts() -> list[Any]:
    return [action for action in bpy.data.actions if not action.users]


def finished(work: job.Job) -> None:
    end = time.monotonic() + 20
    while not work.poll(0.0):
        assert time.monotonic() < end, work.text
        time.sleep(0.001)


def nothing_written(ball: bpy.types.Object) -> bool:
    return ball.data.shape_keys is None and not len(bpy.data.actions) and ball.animation_data is None


def test_the_artist_sees_nothing_of_a_take_before_it_is_whole(writing_job, ball):
    seen = 0
    while not keys.takes_of(ball):
        assert ball.data.shape_keys is None
        assert ball.animation_data is None
        seen += 1
        assert not writing_job.poll(0.0)
        time.sleep(0.001)
    assert seen >= 4, "one piece for each curve"
    assert len(mesh_io.made_keys(ball)) == 4
    finished(writing_job)
    assert writing_job.state == "DONE", writing_job.error
    assert keys.active_take(ball) == keys.takes_of(ball)[0]
    assert not drafts()
    assert [scene.name for scene in bpy.data.scenes] == [bpy.context.scene.name]


def test_a_cancel_between_two_pieces_leaves_nothing(writing_job, ball):
    writing_job.cancel()
    assert writing_job.state == "CANCELLED"
    assert nothing_written(ball)
    assert not writing_job._folder.exists()


def test_a_take_that_is_there_is_not_cancelled_any_more(writing_job, ball):
    while not keys.takes_of(ball):
        assert not writing_job.poll(0.0)
    writing_job.cancel()
    finished(writing_job)
    assert writing_job.state == "DONE", writing_job.error
    assert "frames 1 to 50" in writing_job.summary


def test_an_undo_between_two_pieces_takes_them_back_and_the_take_is_written_to_what_is_there_then(
        ball_scene, ball, fake_engine):
    bpy.ops.ed.undo_push(message="before")
    ball_scene.lsf.seed = 7
    bpy.ops.ed.undo_push(message="seed")
    fake_engine()
    work = job.current = job.Job(bpy.context, "unused")
    try:
        end = time.monotonic() + 20
        while not drafts():
            assert time.monotonic() < end, work.text
            work.poll(0.0)
        bpy.ops.ed.undo()
        assert not drafts()
        finished(work)
    finally:
        job.current = None
    assert work.state == "DONE", work.error
    target = bpy.data.objects["Ball"]
    assert keys.takes_of(target) == [keys.active_take(target)]
    assert len(keyed(target)) == 4
    assert not drafts()


def test_a_save_between_two_pieces_waits_for_the_whole_take(writing_job, ball, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "saved.blend"), copy=True)
    assert writing_job.state == "DONE", writing_job.error
    with bpy.data.libraries.load(str(tmp_path / "saved.blend")) as (inside, _):
        assert keys.active_take(ball).name in inside.actions


def test_another_file_between_two_pieces(writing_job):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    finished(writing_job)
    assert writing_job.state == "FAILED"
    assert "removed or renamed" in writing_job.error
    assert not len(bpy.data.actions)


@pytest.mark.parametrize("what", ["sculpted", "removed", "in edit mode"])
def test_a_mesh_that_is_changed_between_two_pieces_is_left_alone(writing_job, ball, what):
    if what == "sculpted":
        ball.data.vertices[0].co.x += 1
    elif what == "removed":
        bpy.data.objects.remove(ball)
    else:
        bpy.context.view_layer.objects.active = ball
        bpy.ops.object.mode_set(mode="EDIT")
    finished(writing_job)
    assert writing_job.state == "FAILED"
    assert "press Animate" in writing_job.error or "Leave it for Object Mode" in writing_job.error
    assert "defect" not in writing_job.error
    assert not len(bpy.data.actions)
    if what != "removed":
        assert nothing_written(ball)


def test_an_undo_to_a_step_in_the_middle_brings_back_no_draft_and_no_scene_of_ours(writing_job, ball):
    scenes = list(bpy.data.scenes.keys())
    bpy.ops.ed.undo_push(message="while keys are written")
    while len(bpy.data.scenes) == 1:
        assert not writing_job.poll(0.0)
        time.sleep(0.001)
    bpy.ops.ed.undo_push(message="while it is looked at")
    finished(writing_job)
    assert writing_job.state == "DONE", writing_job.error
    bpy.data.objects["Ball"].location.x = 3
    bpy.ops.ed.undo_push(message="after")
    bpy.ops.ed.undo()
    assert list(bpy.data.scenes.keys()) == scenes
    assert len(keys.takes_of(bpy.data.objects["Ball"])) == 1
    bpy.ops.ed.undo()
    assert list(bpy.data.scenes.keys()) == scenes
    assert not drafts()


def test_a_draft_that_the_artist_took_is_not_removed_with_the_others():
    for name in ("used", "left"):
        bpy.data.actions.new(name)[keys.DRAFT_TAG] = True
    bpy.data.actions["used"].use_fake_user = True
    keys.drop_left()
    assert bpy.data.actions.keys() == ["used"]


def test_a_mesh_that_is_removed_after_its_take_was_written_is_told_as_that(writing_job, ball):
    while not keys.takes_of(ball):
        assert not writing_job.poll(0.0)
    name = keys.active_take(ball).name
    bpy.data.objects.remove(ball)
    finished(writing_job)
    assert writing_job.state == "FAILED"
    assert "Nothing of it was kept" not in writing_job.error
    assert "defect" not in writing_job.error
    assert name in bpy.data.actions


def test_what_the_artist_makes_between_two_pieces_survives_a_cancel(writing_job):
    mine = bpy.data.actions.new("Mine")
    writing_job.cancel()
    assert list(bpy.data.actions) == [mine]


def test_the_look_at_the_result_leaves_the_scene_at_its_frame(ball_scene, ball, fake_engine):
    fake_engine()
    ball_scene.frame_set(7)
    frames = []

    def note(scene: Any, *_: Any) -> None:
        frames.append((scene.name, scene.frame_current))

    bpy.app.handlers.frame_change_post.append(note)
    try:
        assert bpy.ops.lsf.animate() == {"FINISHED"}
    finally:
        bpy.app.handlers.frame_change_post.remove(note)
    assert ball_scene.name not in [name for name, _ in frames]
    assert ball_scene.frame_current == 7
    assert "does not move" not in ball_scene.lsf.warnings
    assert np.ptp(keyed(ball)["jawOpen"][:, 1]) > 0.5
