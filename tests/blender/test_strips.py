"""A strip's offset, trim and place, at any frame rate, checked against Blender's own mix of the scene."""

from __future__ import annotations

import math
import warnings
import wave
from pathlib import Path

import bpy
import numpy as np
import pytest
from conftest import add_strip, error_of, keyed, write_wav

from blender_addon import compat, curves, strips
from blender_addon.report import Problem

CLICKS = (0.9, 1.3, 1.75, 2.55)
"""Seconds of the clicks in the sound file."""

RATES = {"23.976": (24, 1.001), "24": (24, 1.0), "25": (25, 1.0), "30": (30, 1.0), "60": (60, 1.0)}


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    samples = np.zeros(16000 * 3)
    samples[np.round(np.array(CLICKS) * 16000).astype(int)] = 0.9
    return write_wav(tmp_path / "clicks.wav", samples)


def heard(scene: bpy.types.Scene, tmp_path: Path) -> np.ndarray:
    """Times (s, from frame 0) of the clicks in Blender's own mix."""
    scene.frame_start, scene.frame_end = 0, math.ceil(6 * strips.scene_fps(scene))
    path = str(tmp_path / "mix.wav")
    bpy.ops.sound.mixdown(filepath=path, container="WAV", codec="PCM", format="S16", mixrate=16000)
    with wave.open(path) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())[:, 0]
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 3000)
    return loud[np.diff(loud, prepend=-1000) > 100] / rate


def predicted(speech: strips.Speech) -> np.ndarray:
    """Times of the clicks by our reading of the strip."""
    inside = [c for c in CLICKS if speech.offset <= c < speech.offset + speech.duration]
    return np.array([speech.start_frame / speech.fps + c - speech.offset for c in inside])


def moved(strip):
    strip.frame_start = 31


def trimmed(strip):
    strip.frame_offset_start, strip.frame_offset_end = 28, 12


def subframe(strip):
    strip.frame_offset_start = 27.7


def extended(strip):
    strip.frame_offset_start = -6.5


def cut_hard(strip):
    strip.animation_offset_start = 20


def shifted(strip):
    strip.frame_offset_start = 20
    strip.sound_offset = 0.0321


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("change", [moved, trimmed, subframe, extended, cut_hard, shifted])
def test_the_stretch_is_what_blender_plays(scene, clicks, tmp_path, rate, change):
    scene.render.fps, scene.render.fps_base = RATES[rate]
    strip = add_strip(scene, clicks, frame=12)
    change(strip)
    speech = strips.speech_of_strip(strip, scene, tmp_path)
    assert speech.fps == pytest.approx(float(rate), rel=1e-4)
    assert speech.frames == compat.right_handle(strip) - speech.start_frame
    truth = heard(scene, tmp_path)
    assert len(truth) >= 2
    # Blender's mixer places a strip to its own sample; 1 ms is a thirtieth of a frame.
    np.testing.assert_allclose(predicted(speech), truth, atol=1e-3)


def test_a_meta_strip_hides_what_is_outside_it(scene, clicks, tmp_path):
    strip = add_strip(scene, clicks, frame=10)
    editor = scene.sequence_editor
    meta = compat.top_strips(editor).new_meta("Meta", 3, 10)
    strip.move_to_meta(meta)
    meta.frame_final_end = 75
    inner = next(s for s in compat.all_strips(scene) if s.type == "SOUND")
    whole = strips.speech_of_strip(inner, scene, tmp_path)
    meta.frame_offset_start = 25
    part = strips.speech_of_strip(inner, scene, tmp_path)
    assert part.start_frame == compat.left_handle(meta)
    assert (part.start_frame, part.frames) == (35, 40)
    assert part.offset == pytest.approx(whole.offset + (part.start_frame - whole.start_frame) / 25)
    np.testing.assert_allclose(predicted(part), heard(scene, tmp_path), atol=1e-3)
    inner.frame_start = 300
    assert "trimmed away" in error_of(lambda: strips.speech_of_strip(inner, scene, tmp_path))


def test_a_packed_sound_is_written_out(scene, clicks, tmp_path):
    strip = add_strip(scene, clicks)
    strip.sound.pack()
    clicks.unlink()
    folder = tmp_path / "job"
    folder.mkdir()
    path = Path(strips.speech_of_strip(strip, scene, folder).path)
    assert path.parent == folder
    with wave.open(str(path)) as file:
        assert file.getnframes() == 48000


def test_a_muted_strip_is_used_with_a_warning(scene, clicks, tmp_path):
    strip = add_strip(scene, clicks)
    strip.mute = True
    assert "muted" in strips.speech_of_strip(strip, scene, tmp_path).warnings[0]


def test_a_strip_at_another_speed_tells_how_long_its_file_takes(scene, clicks, tmp_path):
    """The module cannot add retiming keys (Blender crashes), so a strip with the same attributes stands in for one."""

    class Retimed:
        name, mute, type = "fast", False, "SOUND"
        frame_final_start, frame_final_end, frame_duration = 5, 25, 40
        frame_offset_start, animation_offset_start, sound_offset = 10.0, 0, 0.0
        retiming_keys: tuple = (0, 40)
        sound = add_strip(scene, clicks).sound

        def parent_meta(self):
            return None

    speech = strips.speech_of_strip(Retimed(), scene, tmp_path)
    assert speech.content_seconds == pytest.approx(40 / 25)
    Retimed.retiming_keys = (0, 20, 40)
    with pytest.raises(Problem, match=r"'fast' changes along the way \(3 retiming keys\)"):
        strips.speech_of_strip(Retimed(), scene, tmp_path)


def test_a_strip_at_half_speed_is_read_as_blender_plays_it(scene, clicks, tmp_path):
    strip = add_strip(scene, clicks, frame=10)
    if not hasattr(strip, "left_handle"):
        pytest.skip("adding retiming keys crashes the bpy modules before 5.2")
    strip.pitch_correction = False  # it smears the clicks
    for frame in (10, 85):
        strip.retiming_keys.add(timeline_frame=frame)
    strip.retiming_keys[1].timeline_frame = 160
    speech = strips.speech_of_strip(strip, scene, tmp_path)
    speed = 3.0 / speech.content_seconds
    assert speed == pytest.approx(0.5)
    truth = heard(scene, tmp_path)
    assert len(truth) >= 3
    mine = speech.start_frame / speech.fps + np.array(CLICKS) / speed - speech.offset
    np.testing.assert_allclose(mine[: len(truth)], truth, atol=2e-3)


@pytest.mark.parametrize("rate", RATES)
def test_frame_i_of_the_motion_is_on_frame_start_plus_i(scene, ball, hum, fake_engine, requests_seen, rate):
    scene.render.fps, scene.render.fps_base = RATES[rate]
    fake_engine()
    scene.lsf.key_style = curves.EVERY_FRAME
    strip = add_strip(scene, hum, frame=7)
    strip.frame_offset_start = 3
    bpy.ops.lsf.animate()
    frames = keyed(ball)["jawOpen"][:, 0]
    count = compat.right_handle(strip) - 10
    np.testing.assert_array_equal(frames, np.arange(10, 10 + count))
    [asked] = requests_seen("animate")
    fps = float(scene.render.fps / scene.render.fps_base)
    assert (asked["frames"], asked["fps"]) == (count, fps)
    assert asked["offset"] == pytest.approx(3 / fps)
    assert asked["duration"] == pytest.approx(count / fps)


def test_the_frame_range_may_cut_the_strip(scene, ball, hum, fake_engine, requests_seen):
    fake_engine()
    strip = add_strip(scene, hum, frame=7)
    scene.frame_start, scene.frame_end, scene.lsf.frame_range_only = 21, 30, True
    bpy.ops.lsf.animate()
    [asked] = requests_seen("animate")
    assert (asked["frames"], asked["offset"]) == (10, pytest.approx(14 / 25))
    assert keyed(ball)["jawOpen"][[0, -1], 0].tolist() == [21, 30]
    strip.frame_start = 100
    assert "from frame 100 to 149, outside the scene's frame range (21 to 30)" in error_of(bpy.ops.lsf.animate)


def test_a_sound_file_may_begin_between_two_frames(scene, ball, hum, fake_engine, requests_seen):
    fake_engine()
    scene.lsf.audio_path, scene.lsf.start_frame = str(hum), 33.25
    bpy.ops.lsf.animate()
    assert keyed(ball)["jawOpen"][0, 0] == 33
    [asked] = requests_seen("animate")
    assert asked["offset"] == pytest.approx(-0.25 / 25)


def test_a_sound_file_without_a_strip_starts_where_it_is_told(scene, ball, hum, fake_engine, requests_seen):
    fake_engine()
    scene.lsf.audio_path, scene.lsf.start_frame = str(hum), 33
    bpy.ops.lsf.animate()
    assert keyed(ball)["jawOpen"][0, 0] == 33
    [asked] = requests_seen("animate")
    assert (asked["audio"], asked["duration"], asked["frames"]) == (str(hum), None, 50)


def test_a_strip_of_another_scene_is_found_where_the_sequencer_shows_it(scene, ball, hum, fake_engine):
    if not hasattr(bpy.context.workspace, "sequencer_scene"):
        pytest.skip("Before Blender 5.0 the sequencer shows the scene itself")
    fake_engine()
    other = bpy.data.scenes.new("Edit")
    other.render.fps = 25
    strip = compat.top_strips(other.sequence_editor_create()).new_sound("far", str(hum), 1, 4)
    bpy.context.workspace.sequencer_scene = other
    scene.lsf.strip_name = strip.name
    bpy.ops.lsf.animate()
    assert keyed(ball)["jawOpen"][0, 0] == 4
    other.render.fps = 30
    assert "same frame rate" in error_of(bpy.ops.lsf.animate)


def test_a_sound_file_may_be_told_relative_to_the_blend_file(scene, ball, hum):
    bpy.ops.wm.save_as_mainfile(filepath=str(hum.with_name("scene.blend")))
    scene = bpy.context.scene
    with warnings.catch_warnings(record=True) as said:  # Blender does not take a warning that is an error
        warnings.simplefilter("always")
        scene.lsf.audio_path = f"//{hum.name}"
    assert not [str(warning.message) for warning in said]
    assert strips.refusal(bpy.context, scene) is None
    assert strips.speech_of(bpy.context, scene, hum.parent).path == str(hum)
