"""Whose emotion a take shows: another strip's, named ones, one take of each; and what of it is kept with the take."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from conftest import SPEECH, add_strip, error_of, keyed

from blender_addon import keys, takes
from blender_addon.shared import arkit


@pytest.fixture
def other(ball_scene, hum, fake_engine):
    """A second strip to feel like, trimmed, outside of the frame range."""
    fake_engine()
    chosen = ball_scene.lsf.strip_name
    strip = add_strip(ball_scene, hum, frame=200, name="hers")
    strip.frame_offset_start = 10
    ball_scene.lsf.strip_name = chosen
    ball_scene.lsf.feeling.strip_name = "hers"
    return ball_scene


def test_the_engine_is_told_the_stretch_that_the_take_shall_feel_like(other, ball, hum, requests_seen):
    other.lsf.frame_range_only = True
    bpy.ops.lsf.animate()
    [asked] = requests_seen("animate")
    told = asked["emotion_from"]
    assert told["audio"] == str(hum)
    assert (told["offset"], told["duration"]) == (pytest.approx(10 / 25), pytest.approx(40 / 25))
    assert "emotion_mix" not in asked
    assert "Feels as 'hers'" in takes.notes(keys.active_take(ball))


def test_a_mix_is_told_without_what_is_at_0_and_kept_for_making_again(ball_scene, ball, fake_engine, requests_seen):
    fake_engine()
    feeling = ball_scene.lsf.feeling
    feeling.happy, feeling.fear = 0.5, 0.25
    bpy.ops.lsf.animate()
    feeling.happy = feeling.fear = 0.0
    bpy.ops.lsf.regenerate()
    first, again = requests_seen("animate")
    assert first["emotion_mix"] == {"happy": 0.5, "fear": 0.25}
    assert {**first, "folder": ""} == {**again, "folder": ""}
    assert "Feels happy 0.50, fear 0.25" in takes.notes(keys.active_take(ball))


def test_a_strip_to_feel_like_that_is_gone_is_told(other):
    other.lsf.feeling.strip_name = "nobody"
    assert "Emotion: There is no sound strip 'nobody'" in error_of(bpy.ops.lsf.animate)


def test_one_take_of_each_emotion_is_named_by_it(ball_scene, ball, fake_engine, requests_seen):
    fake_engine()
    bpy.ops.lsf.animate_emotions()
    assert [take.name for take in keys.takes_of(ball)] == [
        f"speech {name} {number}" for number, name in enumerate(arkit.EMOTIONS, 1)]
    assert [asked["emotion_mix"] for asked in requests_seen("animate")] == [{name: 1.0} for name in arkit.EMOTIONS]
    assert "Variation" not in ball_scene.lsf.warnings


def test_a_happy_take_of_angry_speech_smiles_and_does_not_frown(scene, head, real_engine):
    strip = add_strip(scene, SPEECH)
    strip.frame_offset_end = strip.frame_duration - 75
    found = []
    for share in (0.0, 1.0):
        scene.lsf.feeling.happy = share
        bpy.ops.lsf.animate()
        found.append({shape: float(np.mean(points[:, 1])) for shape, points in keyed(head).items()})
    heard, happy = found
    assert happy["browDownLeft"] < 0.5 * heard["browDownLeft"]
    assert happy["mouthSmileLeft"] > heard["mouthSmileLeft"] + 0.1
