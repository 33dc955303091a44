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
from lsf_core.edits import (
    NONE,
    PRESETS,
    EditSettings,
    add_asymmetry,
    add_blinks,
    add_breath,
    add_gaze,
    add_head,
    apply_edits,
    press_lips,
    settle_ends,
    smooth_motion,
    still_pauses,
)
from lsf_core.edits.blink import MIN_GAP, plan_blinks
from lsf_core.edits.chance import slow_noise
from lsf_core.errors import LSFError
from lsf_core.lips import CLOSED
from lsf_core.motion import MOUTH, Motion

DEMO = Path(__file__).parents[2] / "assets" / "demo" / "speech.ogg"
DEMO_CUES = listen(load_audio(DEMO), 383)
TEMPLATE = np.load(DEMO.parents[1] / "template_head.npz")
SIDES = ("Left", "Right")
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


@pytest.mark.parametrize("off", ["blink", "gaze", "head", "asymmetry", "breath"])
def test_switching_one_edit_off_leaves_the_others_as_they_were(off):
    motion, cues = still(15.0, mouthSmileLeft=0.3, mouthSmileRight=0.3), listen(phrases(5), 750)
    all_on = apply_edits(motion, cues, seed=5)
    one_off = apply_edits(motion, cues, EditSettings(**{off: 0}), seed=5)
    for edit, shape in (("gaze", "eyeLookInLeft"), ("asymmetry", "mouthSmileLeft"), ("breath", "mouthLowerDownLeft")):
        assert np.array_equal(all_on[shape], one_off[shape]) == (off != edit), edit
    assert np.array_equal(blinks_of(all_on), blinks_of(one_off)) == (off != "blink")
    if off != "head":
        assert all_on.head_rotation is not None
        assert np.array_equal(all_on.head_rotation, one_off.head_rotation)


def test_the_motion_given_is_not_changed():
    motion = still(eyeWideLeft=0.2)
    before = motion.weights.copy()
    apply_edits(motion, listen(phrases(), 3000), EditSettings(smoothing=1.0))
    assert np.array_equal(motion.weights, before)


def test_blinks_and_gaze_touch_nothing_but_the_eyes():
    rng = np.random.default_rng(0)
    motion = Motion(ARKIT_NAMES, rng.random((300, 52)), 30)
    out = apply_edits(motion, None, EditSettings(settle=0, asymmetry=0), seed=1)
    for name in ARKIT_NAMES:
        if not name.startswith(UPPER_FACE):
            assert np.array_equal(out[name], motion[name]), name


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0])
def test_short_clips_pass(seconds):
    assert len(apply_edits(still(seconds), seed=1)) == round(seconds * 30)


def test_head_rotation_is_carried_along():
    motion = Motion(ARKIT_NAMES, np.zeros((90, 52)), 30, np.ones((90, 3)))
    out = apply_edits(motion, None, EditSettings(smoothing=1.0, settle=0), fps=60, seed=0)
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


# ---------------------------------------------------------------- settings


def test_settings_survive_json_and_a_preset_is_its_own():
    for name, preset in PRESETS.items():
        assert EditSettings.from_json(preset.to_json()) == preset, name
    own = EditSettings(jaw=1.3, gain={"mouthPucker": 1.5, "jawOpen": 1}, offset={"browInnerUp": -0.2})
    assert EditSettings.from_json(own.to_json()) == own
    assert own.gain == {"mouthPucker": 1.5}  # a gain of 1 is none
    assert EditSettings.from_dict({"blink": 0}) == EditSettings(blink=0)


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan"), "much", None, True])
@pytest.mark.parametrize("edit", ["emotion", "smoothing", "settle"])
def test_a_strength_that_makes_no_sense_is_refused_by_name(edit, strength):
    with pytest.raises(LSFError, match=f"'{edit}' is .* from 0 to 2"):
        EditSettings(**{edit: strength})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"blinks": 1}', "no edit called 'blinks'; there are emotion"),
        ('{"gain": {"jawopen": 1}}', "'jawopen', which is no ARKit shape"),
        ('{"gain": {"jawOpen": 3}}', "gain of 'jawOpen' is 3; it must be a number from 0 to 2"),
        ('{"offset": {"jawOpen": "a"}}', "offset of 'jawOpen' is 'a'.* from -1 to 1"),
        ('{"gain": [1]}', "must be a table"),
        ("[1]", "JSON list"),
        ("{", "not JSON"),
    ],
)
def test_settings_that_cannot_be_read_are_refused_in_words(text, words):
    with pytest.raises(LSFError, match=words):
        EditSettings.from_json(text)


# ---------------------------------------------------------------- regions, gain and offset, closures


def talking(seconds: float = 20.0) -> Motion:
    """A mouth at 50 fps that opens by jaw and lips and shuts 60 to 100 ms long, every half second or so."""
    rng = np.random.default_rng(0)
    frames, names = int(50 * seconds), ("jawOpen", "mouthFunnel", "mouthUpperUpLeft", "mouthUpperUpRight")
    weights = np.zeros((frames, 52))
    for name in names:
        weights[:, INDEX[name]] = 0.2 + 0.1 * np.sin(np.arange(frames) / rng.uniform(6, 12))
    frame = 12
    while frame < frames - 12:
        shut = slice(frame, frame + int(rng.integers(3, 6)))
        gap = Motion(ARKIT_NAMES, weights[shut], 50).lip_gap_mm()
        weights[shut, INDEX["mouthClose"]] = gap / 38.9441
        frame += int(rng.integers(12, 25))
    return Motion(ARKIT_NAMES, weights, 50)


def closed(motion: Motion) -> np.ndarray:
    gap = motion.lip_gap_mm()
    return gap <= CLOSED * np.percentile(gap, 95) + 1e-3


@pytest.mark.parametrize("seed", range(8))
def test_no_setting_opens_a_closed_p(seed):
    """Whatever regions, gains and offsets say, all strengths and shapes at random."""
    rng = np.random.default_rng(seed)
    chosen = {name: float(rng.uniform(0, 2)) for name in ("jaw", "lips", "cheeks", "brows", "eyes")}
    mouth = [name for name in ARKIT_NAMES if name.startswith(("jaw", "mouth"))]
    gain = {name: float(rng.uniform(0, 2)) for name in rng.choice(mouth, 6, replace=False)}
    offset = {name: float(rng.uniform(-0.3, 0.3)) for name in rng.choice(mouth, 4, replace=False)}
    motion = talking()
    out = apply_edits(motion, None, EditSettings(**chosen, gain=gain, offset=offset, settle=0))
    assert closed(motion).mean() > 0.1
    assert closed(out)[closed(motion)].all()


def test_plain_gains_would_have_opened_them():
    """The promise above is not empty."""
    motion = talking()
    assert not closed(motion.scaled({"mouthClose": 0.5}))[closed(motion)].any()


def test_a_region_scales_its_shapes_and_no_other():
    motion = talking()
    out = apply_edits(motion, None, EditSettings(lips=0.5, blink=0, gaze=0, asymmetry=0, settle=0))
    opened = ~closed(motion)
    assert out["mouthFunnel"] == pytest.approx(0.5 * motion["mouthFunnel"], abs=1e-6)
    assert out["jawOpen"][opened].mean() == pytest.approx(motion["jawOpen"][opened].mean(), rel=0.02)


def test_a_mouth_may_hang_open_in_a_pause_but_not_in_a_p():
    motion, offset = still(60.0), EditSettings(offset={"jawOpen": 0.1}, breath=0, settle=0)
    gap = apply_edits(motion, listen(phrases(), 3000), offset).lip_gap_mm()
    assert gap[round(2.5 * 30)] > 3  # in a pause
    assert gap[round(1.0 * 30)] < 0.1  # lips that stay closed in speech


def test_closure_strength_shuts_lips_that_nearly_meet_and_opens_no_mouth():
    motion = talking()
    ajar = motion.scaled({"mouthClose": 0.9})  # every p misses contact by a tenth
    gap, out = ajar.lip_gap_mm(), press_lips(ajar, None, 1.0)
    p = closed(motion)
    middle = p & np.roll(p, 1) & np.roll(p, -1)
    assert np.median(gap[middle]) > 0.3
    assert np.percentile(out.lip_gap_mm()[middle], 90) < 0.1
    assert (out.lip_gap_mm() <= gap + 1e-4).all()
    assert out["mouthPressLeft"][middle].mean() > 0.1
    assert out.lip_gap_mm()[~p].mean() > 0.7 * gap[~p].mean()


# ---------------------------------------------------------------- head


def test_the_head_moves_a_few_degrees_begins_and_ends_straight_and_never_jerks():
    for seed in range(5):
        out = add_head(still(7.6, fps=60), DEMO_CUES, seed=seed)
        assert out.head_rotation is not None
        angles = np.degrees(out.head_rotation)
        assert 0.4 < angles.std(axis=0).max() < 4
        assert np.abs(angles).max() < 9
        assert not angles[[0, -1]].any()
        speed = np.abs(np.diff(angles, axis=0)) * 60
        assert speed.max() < 60  # degrees a second; a shake of the head reaches 200
        assert speed[[0, 1, -2, -1]].max() < 0.5


def test_the_chin_goes_down_on_accents():
    """A hum with a louder, higher syllable once a second: the chin is lower there than half a second later."""
    times = np.arange(30 * SAMPLE_RATE) / SAMPLE_RATE
    accent = np.exp(-0.5 * (((times + 0.5) % 1.0 - 0.5) / 0.07) ** 2)
    sound = (0.05 + 0.4 * accent) * np.sin(2 * np.pi * np.cumsum(150 + 30 * accent) / SAMPLE_RATE)
    cues = listen(sound.astype(np.float32), 1500)
    chin = np.mean([add_head(still(30.0, 50), cues, seed=s).head_rotation[:, 0] for s in range(20)], axis=0)
    by_phase = np.degrees(chin[100:1400].reshape(-1, 50).mean(axis=0))
    assert by_phase[[0, 1, -1]].mean() > by_phase[20:30].mean() + 0.3


def test_the_head_is_the_same_at_any_frame_rate():
    slow, quick = (add_head(still(7.6, fps), DEMO_CUES, seed=1).head_rotation for fps in (30.0, 60.0))
    assert slow is not None
    assert quick is not None
    assert np.abs(slow[:-30] - quick[:-60:2]).max() < np.radians(0.1)  # the way to the end begins at the last frame


def test_without_a_sound_there_is_no_head_motion():
    assert apply_edits(still(4.0)).head_rotation is None


# ---------------------------------------------------------------- asymmetry, breath, pauses


def test_asymmetry_takes_from_one_side_what_it_gives_the_other():
    both_sides = {f"{name}{side}": x for name, x in (("mouthSmile", 0.5), ("mouthUpperUp", 0.2)) for side in SIDES}
    motion = still(20.0, jawOpen=0.2, **both_sides)
    out = add_asymmetry(motion, seed=0)
    assert out["mouthSmileLeft"] + out["mouthSmileRight"] == pytest.approx(1.0, abs=1e-5)
    assert out.lip_gap_mm() == pytest.approx(motion.lip_gap_mm(), abs=0.02)
    difference = np.abs(out["mouthSmileLeft"] - out["mouthSmileRight"])
    assert 0.01 < difference.mean() < 0.2
    assert np.abs(np.diff(out["mouthSmileLeft"])).max() < 0.01  # slow
    assert np.array_equal(out["eyeBlinkLeft"], out["eyeBlinkRight"])
    leanings = [add_asymmetry(motion, seed=s) for s in range(40)]
    assert np.mean([m["mouthSmileLeft"].mean() for m in leanings]) > 0.5  # feelings rather on the left
    assert np.mean([m["mouthUpperUpLeft"].mean() for m in leanings]) < 0.2  # words rather on the right


def test_breath_is_drawn_in_pauses_before_phrases_and_nowhere_else():
    cues = listen(phrases(), 3000)
    gap = add_breath(still(60.0), cues, seed=0).lip_gap_mm()
    drawn = gap > 0.1
    assert 0.3 < gap.max() < 1.5  # mm
    assert not cues.at(cues.voiced.astype(float), np.arange(1800) / 30)[drawn].any()
    assert np.count_nonzero(np.diff(drawn.astype(int)) == 1) == len(cues.phrases()) - 1
    quick = listen(np.tile(phrases(1)[: int(2.3 * SAMPLE_RATE)], 10), 1150)  # pauses of 0.3 s
    assert not add_breath(still(23.0), quick, seed=0).weights.any()


def test_a_mouth_that_mutters_in_pauses_is_stilled_and_speech_is_left_alone():
    cues = listen(phrases(), 3000)
    jaw = 0.1 + 0.05 * np.random.default_rng(0).standard_normal(3000)
    motion = still(60.0, 50.0, jawOpen=jaw)
    out = still_pauses(motion, cues)
    phase = (np.arange(3000) / 50) % 3.0
    pause, speech = (phase > 2.4) & (phase < 2.7), phase < 2.0
    speed = [np.abs(np.diff(m["jawOpen"]))[pause[1:]].mean() for m in (motion, out)]
    assert speed[1] < 0.2 * speed[0]
    assert np.array_equal(out.weights[speech], motion.weights[speech])


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


def test_lids_that_look_down_are_closed_by_less_and_still_meet():
    """On the template head: the upper lid's way in both shapes is the whole opening, less would show the eye."""
    upper, lower, shapes = (TEMPLATE[name] for name in ("lid_upper_left", "lid_lower_left", "expressions_mm"))

    def way(shape: str) -> float:
        delta = shapes[INDEX[shape]][:, 1].astype(float)
        return float(delta[lower][6:10].mean() - delta[upper][5:9].mean())

    out = add_blinks(still(eyeLookDownLeft=0.5, eyeLookDownRight=0.5), seed=0)
    travelled = out["eyeBlinkLeft"].max() * way("eyeBlinkLeft") + 0.5 * way("eyeLookDownLeft")
    assert travelled == pytest.approx(way("eyeBlinkLeft"), rel=0.05)


# ---------------------------------------------------------------- gaze


def degrees(motion: Motion) -> np.ndarray:
    """(F, 2) yaw to the face's own left and pitch upwards."""
    yaw = motion["eyeLookOutLeft"] - motion["eyeLookInLeft"]
    return 30 * np.stack([yaw, motion["eyeLookUpLeft"] - motion["eyeLookDownLeft"]], axis=1)


def test_eyes_turn_together_jump_quickly_and_rest_in_between():
    out = add_gaze(still(60.0, fps=60.0), seed=0)
    assert out["eyeLookOutLeft"] == pytest.approx(out["eyeLookInRight"], abs=1e-6)
    assert out["eyeLookInLeft"] == pytest.approx(out["eyeLookOutRight"], abs=1e-6)
    assert np.array_equal(out["eyeLookUpLeft"], out["eyeLookUpRight"])
    assert 4 < np.abs(degrees(out)).max() <= 13
    moving = np.abs(np.diff(degrees(out)[:, 0])) > 1e-4
    assert 0.02 < moving.mean() < 0.2


def test_eyes_hold_the_listener_for_about_three_quarters_of_the_time():
    shares = [(np.linalg.norm(degrees(add_gaze(still(60.0), seed=s)), axis=1) <= 3.01).mean() for s in range(30)]
    assert 0.65 < np.mean(shares) < 0.85
    assert min(shares) > 0.5


def test_eyes_look_away_where_speech_begins_or_ends_and_start_and_end_straight():
    cues, near, far = listen(phrases(), 3000), 0, 0
    for seed in range(20):
        look = np.linalg.norm(degrees(add_gaze(still(60.0), cues, seed=seed)), axis=1)
        assert look[0] == look[-1] == 0
        begins = np.flatnonzero((look[1:] > 3.5) & (look[:-1] <= 3.5)) / 30
        turn = np.abs(begins[:, None] - cues.phrases().ravel()).min(axis=1)
        near, far = near + int((turn < 0.25).sum()), far + int((turn >= 0.25).sum())
    assert near > far  # a third of the time lies so near a turn


def test_lids_follow_the_vertical_gaze():
    """Gaze moves no lid itself: in ARKit's shapes, and in ours, the lids go with the look."""
    lid, shapes = TEMPLATE["lid_upper_left"][5:9], TEMPLATE["expressions_mm"]
    down, up = (shapes[INDEX[name]][lid, 1].mean() for name in ("eyeLookDownLeft", "eyeLookUpLeft"))
    assert down < -3
    assert up > 1


def test_gaze_is_added_to_the_look_that_is_there():
    motion = still(30.0, eyeLookDownLeft=0.4, eyeLookDownRight=0.4)
    out = add_gaze(motion, seed=0)
    assert abs(float(out["eyeLookDownLeft"].mean()) - 0.4) < 0.05
    assert not np.minimum(out["eyeLookUpLeft"], out["eyeLookDownLeft"]).any()  # never up and down at once


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
    assert np.array_equal(out.weights[inside][:, MOUTH], motion.weights[inside][:, MOUTH])
    assert (np.diff(out.weights[: len(out) // 2], axis=0) >= 0).all()


def test_a_face_takes_its_time_in_a_pause_and_swallows_no_last_word():
    held = Motion(ARKIT_NAMES, np.full((300, 52), 0.4, np.float32), 50)
    tone = 0.3 * np.sin(np.arange(6 * SAMPLE_RATE) * 0.1)
    quiet_ends = listen(np.pad(tone[: 4 * SAMPLE_RATE], SAMPLE_RATE).astype(np.float32), 300)
    long, short = (settle_ends(held, cues)["jawOpen"] for cues in (quiet_ends, listen(tone.astype(np.float32), 300)))
    assert (long[:50] < 0.4).sum() > 2 * (short[:50] < 0.4).sum() > 0
    assert (long[-50:] < 0.4).sum() > 2 * (short[-50:] < 0.4).sum() > 0
    assert (long[50:250] == held["jawOpen"][50:250]).all()


def test_closed_lips_stay_closed_on_the_way_to_rest():
    shut = np.zeros((60, 52), np.float32)
    shut[:, INDEX["jawOpen"]] = 0.3
    shut[:, INDEX["mouthClose"]] = 0.3
    assert settle_ends(Motion(ARKIT_NAMES, shut, 30)).lip_gap_mm().max() == 0


def test_chance_is_as_large_at_the_ends_of_a_take_as_in_its_middle():
    """Held ends of the filter once made one draw count twelvefold there: every short smile was a smirk."""
    noise = np.stack([slow_noise(np.random.default_rng(seed), 100, 1, 45.0)[:, 0] for seed in range(400)])
    spread = noise.std(0)
    assert spread.min() > 0.85
    assert spread.max() < 1.15


def test_brows_rise_slower_than_the_mouth_at_the_start_of_a_take():
    held = Motion(ARKIT_NAMES, np.full((120, 52), 0.5, np.float32), 30)
    out = settle_ends(held, strength=1.0)
    assert out["jawOpen"][5] == 0.5
    assert out["browDownLeft"][3] < 0.35
