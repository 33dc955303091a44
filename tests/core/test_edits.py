"""edits/: faces blink as people do, look alive, and nothing is drawn that the seed does not say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.audio import SAMPLE_RATE, load_audio
from lsf_core.cues import listen
from lsf_core.edits import NONE, EditSettings, add_blinks, add_gaze, apply_edits, settle_ends, smooth_motion
from lsf_core.edits.blink import MIN_GAP, plan_blinks
from lsf_core.errors import LSFError
from lsf_core.motion import Motion

DEMO = Path(__file__).parents[2] / "assets" / "demo" / "speech.ogg"
DEMO_CUES = listen(load_audio(DEMO), 383)
UPPER_FACE = ("eyeBlink", "eyeLook", "eyeWide")


def still(seconds: float = 60.0, fps: float = 30.0, **curves: float | np.ndarray) -> Motion:
    """A face at rest, except for the curves given."""
    weights = np.zeros((round(seconds * fps), 52), np.float32)
    for name, curve in curves.items():
        weights[:, INDEX[name]] = curve
    return Motion(ARKIT_NAMES, weights, fps)


def blinks_of(motion: Motion) -> np.ndarray:
    """Seconds at which the lids are fully closed, one per blink."""
    shut = motion["eyeBlinkLeft"] > 0.95
    return np.flatnonzero(shut & ~np.concatenate([[False], shut[:-1]])) / motion.fps


def phrases(count: int = 20) -> np.ndarray:
    """Tones of 2 s as 'phrases' with pauses of 1 s between: they end at 2, 5, 8 ... seconds."""
    times = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    phrase = np.concatenate([0.3 * np.sin(2 * np.pi * 200 * times), np.zeros(SAMPLE_RATE)])
    return np.tile(phrase, count).astype(np.float32)


# ---------------------------------------------------------------- what holds for all edits


def test_the_same_seed_gives_the_same_take_and_another_seed_another():
    first, again, other = (apply_edits(still(8.0), DEMO_CUES, seed=seed).weights for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_strength_zero_is_off():
    motion = still(8.0, jawOpen=0.3)
    out = apply_edits(motion, DEMO_CUES, NONE)
    assert np.array_equal(out.weights, motion.weights)


def test_switching_one_edit_off_leaves_the_others_as_they_were():
    both = apply_edits(still(), seed=5)
    blinks, gaze = (apply_edits(still(), None, EditSettings(**{edit: 0}), seed=5) for edit in ("gaze", "blink"))
    assert np.array_equal(both["eyeBlinkLeft"], blinks["eyeBlinkLeft"])
    assert np.array_equal(both["eyeLookUpLeft"], gaze["eyeLookUpLeft"])


def test_the_motion_given_is_not_changed():
    motion = still(eyeWideLeft=0.2)
    before = motion.weights.copy()
    apply_edits(motion, listen(phrases(), 3000), EditSettings(smoothing=1.0))
    assert np.array_equal(motion.weights, before)


def test_blinks_and_gaze_touch_nothing_but_the_eyes():
    rng = np.random.default_rng(0)
    motion = Motion(ARKIT_NAMES, rng.random((300, 52)), 30)
    out = apply_edits(motion, None, EditSettings(settle=0), seed=1)
    for name in ARKIT_NAMES:
        if not name.startswith(UPPER_FACE):
            assert np.array_equal(out[name], motion[name]), name


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan"), "much", None, True])
@pytest.mark.parametrize("edit", ["emotion", "smoothing", "blink", "gaze", "settle"])
def test_a_strength_that_makes_no_sense_is_refused_by_name(edit, strength):
    with pytest.raises(LSFError, match=f"'{edit}' has the strength"):
        EditSettings(**{edit: strength})


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0])
def test_short_clips_pass(seconds):
    assert len(apply_edits(still(seconds), seed=1)) == round(seconds * 30)


def test_head_rotation_is_carried_along():
    motion = Motion(ARKIT_NAMES, np.zeros((90, 52)), 30, np.ones((90, 3)))
    out = apply_edits(motion, None, EditSettings(smoothing=1.0, settle=0))
    assert out.head_rotation is not None
    assert out.head_rotation == pytest.approx(1.0)


def test_edits_need_nothing_but_numpy():
    """So that they can run again where there is neither torch nor a sound library."""
    code = (
        "import sys\n"
        "for name in ('torch', 'scipy', 'soundfile', 'soxr', 'av', 'librosa'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from lsf_core.edits import EditSettings\n"
        "from lsf_core.rawtake import RawTake\n"
        "rng = np.random.default_rng(0)\n"
        "take = RawTake.of(rng.random((500, 52)), rng.random((500, 52)), rng.random(160000, np.float32))\n"
        "RawTake.from_bytes(take.to_bytes()).finish(EditSettings(smoothing=1), fps=30)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=DEMO.parents[2])


# ---------------------------------------------------------------- blinks


def test_people_blink_about_twenty_times_a_minute_while_they_talk():
    rates = [len(plan_blinks(60.0, seed=seed)) for seed in range(100)]
    assert 17 < np.mean(rates) < 23
    assert np.std(rates) > 1  # and not like a clock
    assert np.percentile(rates, 2) >= 10.5  # the range of normal adults in conversation, Doughty 2001
    assert np.percentile(rates, 98) <= 32.5


def test_strength_is_how_often():
    rate = {s: np.mean([len(plan_blinks(60.0, seed=seed, strength=s)) for seed in range(40)]) for s in (0.5, 1.0, 2.0)}
    assert rate[0.5] == pytest.approx(rate[1.0] / 2, rel=0.25)
    assert rate[2.0] > 1.5 * rate[1.0]


def test_blinks_keep_apart_and_off_the_ends():
    for seed in range(50):
        plan = plan_blinks(30.0, seed=seed, strength=2.0)
        times = [blink.time for blink in plan]
        assert np.diff(times).min() >= MIN_GAP
        assert plan[0].time - plan[0].closing > 0
        assert plan[-1].time + plan[-1].closed + plan[-1].opening < 30.0


def test_a_blink_shuts_quickly_and_opens_slowly_within_a_quarter_of_a_second():
    """Seen from where the lids are a tenth closed, at 1 ms."""
    for blink in plan_blinks(120.0, seed=2):
        times = np.arange(blink.time - 0.3, blink.time + 0.4, 0.001)
        lid = blink.lid(times)
        assert lid.max() == pytest.approx(1.0, abs=0.01)
        visible = np.flatnonzero(lid > 0.1)
        duration = (visible[-1] - visible[0]) / 1000
        assert 0.1 <= duration <= 0.25
        shut = np.flatnonzero(lid > 0.99)
        assert 1.5 * (shut[0] - visible[0]) < visible[-1] - shut[-1]


@pytest.mark.parametrize("fps", [12, 24, 25, 30, 60])
def test_each_blink_has_a_frame_with_closed_lids_at_any_rate(fps):
    out = add_blinks(still(60.0, fps), seed=7)
    plan = plan_blinks(60.0, seed=7)
    assert len(plan) > 10
    assert blinks_of(out) == pytest.approx([blink.time for blink in plan], abs=0.5 / fps + 1e-6)


def test_both_lids_blink_together():
    out = add_blinks(still(), seed=1)
    assert np.array_equal(out["eyeBlinkLeft"], out["eyeBlinkRight"])


def test_blinks_gather_at_the_ends_of_phrases():
    cues = listen(phrases(), 3000)
    seconds = cues.seconds
    after = np.concatenate([(blinks_of(add_blinks(still(seconds), cues, seed=s)) - 2.0) % 3.0 for s in range(20)])
    without = np.concatenate([(blinks_of(add_blinks(still(seconds), None, seed=s)) - 2.0) % 3.0 for s in range(20)])
    # a blink within the 0.4 s after a phrase's end would have a chance of 0.4 / 3 by itself
    assert np.mean(without < 0.4) < 0.2
    assert np.mean(after < 0.4) > 2 * np.mean(without < 0.4)


def test_widened_eyes_are_not_closed_by_a_blink():
    wide = np.zeros(1800)
    wide[300:330] = wide[900:1200] = 0.8  # a second of surprise, and ten seconds of stare
    for seed in range(10):
        out = add_blinks(still(60.0, eyeWideLeft=wide, eyeWideRight=wide), seed=seed)
        peaks = np.round(blinks_of(out) * 30).astype(int)
        assert not (wide[peaks] > 0).any()


def test_lids_come_down_fully_though_the_eyes_are_a_little_wide():
    out = add_blinks(still(eyeWideLeft=0.3, eyeWideRight=0.3), seed=0)
    shut = out["eyeBlinkLeft"] > 0.99
    assert shut.any()
    assert not out["eyeWideLeft"][shut].any()
    assert out["eyeWideLeft"][out["eyeBlinkLeft"] == 0] == pytest.approx(0.3)


def test_the_networks_own_blinks_stay_and_are_not_doubled():
    own = np.zeros(1800, np.float32)
    own[np.arange(60, 1800, 90)] = 0.9  # one every 3 s
    out = add_blinks(still(60.0, eyeBlinkLeft=own, eyeBlinkRight=own), seed=0)
    assert (out["eyeBlinkLeft"] >= own).all()
    added = np.flatnonzero(out["eyeBlinkLeft"] > 0.95)
    for frame in added:
        assert np.abs(np.flatnonzero(own) - frame).min() >= 0.4 * 30 - 1


def test_half_closed_eyes_of_a_sad_face_stay_half_closed_between_blinks():
    out = add_blinks(still(eyeBlinkLeft=0.3, eyeBlinkRight=0.3), seed=0)
    assert out["eyeBlinkLeft"].min() == pytest.approx(0.3)
    assert len(blinks_of(out)) > 10


# ---------------------------------------------------------------- gaze


def test_eyes_turn_together_by_small_angles_and_rest_in_between():
    out = add_gaze(still(60.0, fps=60.0), seed=0)
    yaw = out["eyeLookOutLeft"] - out["eyeLookInLeft"]
    assert yaw == pytest.approx(out["eyeLookInRight"] - out["eyeLookOutRight"], abs=1e-6)
    assert 0.01 < np.abs(yaw).max() <= 0.1 + 1e-6  # 3 degrees of 30
    moving = np.abs(np.diff(yaw)) > 1e-6
    assert 0.01 < moving.mean() < 0.2
    assert np.array_equal(out["eyeLookUpLeft"], out["eyeLookUpRight"])


def test_gaze_is_added_to_the_look_that_is_there():
    motion = still(30.0, eyeLookDownLeft=0.4, eyeLookDownRight=0.4)
    out = add_gaze(motion, seed=0)
    assert abs(float(out["eyeLookDownLeft"].mean()) - 0.4) < 0.05
    assert not out["eyeLookUpLeft"].any()  # never up and down at once


def test_gaze_strength_scales_the_angle():
    one, two = add_gaze(still(), seed=0), add_gaze(still(), seed=0, strength=2.0)
    assert two["eyeLookOutLeft"] == pytest.approx(2 * one["eyeLookOutLeft"], abs=1e-6)


# ---------------------------------------------------------------- smoothing


def test_smoothing_takes_jitter_and_leaves_closures_and_blinks():
    rng = np.random.default_rng(0)
    jaw = 0.4 + 0.05 * rng.standard_normal(600)
    jaw[100::60] = 0.0
    jaw[101::60] = 0.0
    lid = np.zeros(600)
    lid[50::100] = 1.0
    brow = 0.5 + 0.1 * rng.standard_normal(600)
    motion = still(10.0, 60.0, jawOpen=jaw, eyeBlinkLeft=lid, eyeBlinkRight=lid, browInnerUp=brow)
    out = smooth_motion(motion, 0.05)
    assert np.abs(np.diff(out["browInnerUp"])).mean() < 0.3 * np.abs(np.diff(motion["browInnerUp"])).mean()
    assert not out["jawOpen"][100::60].any()
    assert np.array_equal(out["eyeBlinkLeft"], motion["eyeBlinkLeft"])
    calm = np.abs(np.arange(600)[:, None] - np.arange(100, 600, 60)).min(axis=1) > 15
    assert out["jawOpen"][calm].std() < 0.5 * motion["jawOpen"][calm].std()


def test_smoothing_keeps_a_constant_face_constant():
    out = smooth_motion(still(2.0, jawOpen=0.3, mouthSmileLeft=0.7), 0.1)
    assert out["mouthSmileLeft"] == pytest.approx(0.7)
    assert out["jawOpen"] == pytest.approx(0.3)


# ---------------------------------------------------------------- rest at the ends

@pytest.mark.parametrize("fps", [24.0, 30.0, 60.0])
def test_a_take_begins_and_ends_at_rest_and_is_itself_in_between(fps):
    motion = Motion(ARKIT_NAMES, np.full((int(4 * fps), 52), 0.4, np.float32), fps, np.ones((int(4 * fps), 3)))
    out = settle_ends(motion)
    assert out.weights[[0, -1]].max() == 0
    assert out.head_rotation is not None
    assert out.head_rotation[[0, -1]].max() == 0
    inside = slice(int(np.ceil(0.1 * fps)) + 1, -int(np.ceil(0.25 * fps)) - 1)
    assert np.array_equal(out.weights[inside], motion.weights[inside])
    assert (np.diff(out.weights[: len(out) // 2], axis=0) >= 0).all()


def test_closed_lips_stay_closed_on_the_way_to_rest():
    shut = np.zeros((60, 52), np.float32)
    shut[:, INDEX["jawOpen"]] = 0.3
    shut[:, INDEX["mouthClose"]] = 0.3
    assert settle_ends(Motion(ARKIT_NAMES, shut, 30)).lip_gap_mm().max() == 0
