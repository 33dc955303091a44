"""rawtake.py and cues.py: the network's motion kept, and finished anew with other edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsf_core.arkit import INDEX
from lsf_core.audio import SAMPLE_RATE, load_audio
from lsf_core.cues import listen
from lsf_core.edits import NONE, PRESETS, EditSettings
from lsf_core.errors import LSFError
from lsf_core.filters import gaussian
from lsf_core.rawtake import RawTake, swell

DEMO = Path(__file__).parents[2] / "assets" / "demo" / "speech.ogg"


@pytest.fixture(scope="module")
def take() -> RawTake:
    """The demo's sound with smooth weights a hair outside [0, 1], as a network gives them."""
    samples = load_audio(DEMO)
    frames = -(-len(samples) // 320)
    rng = np.random.default_rng(0)
    neutral, emotional = (gaussian(rng.uniform(-0.3, 0.8, (frames, 52)), 3.0) for _ in range(2))
    return RawTake.of(neutral, emotional, samples)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_saved_take_finishes_bit_by_bit_like_the_one_that_was_saved(take, tmp_path, preset):
    take.save(tmp_path / "raw.npz")
    wanted = take.finish(PRESETS[preset], fps=24, seed=3)
    for back in (RawTake.load(tmp_path / "raw.npz"), RawTake.from_bytes(take.to_bytes())):
        motion = back.finish(PRESETS[preset], fps=24, seed=3)
        assert np.array_equal(motion.weights, wanted.weights)
        assert (motion.head_rotation is None) == (wanted.head_rotation is None)
        if wanted.head_rotation is not None:
            assert np.array_equal(motion.head_rotation, wanted.head_rotation)


def test_rounding_to_what_a_file_holds_cannot_be_seen(take):
    rng = np.random.default_rng(1)
    weights = rng.uniform(0, 1, (len(take.cues), 52))
    assert np.abs(RawTake(weights, weights, take.cues).neutral - weights).max() < 1e-4


def test_emotion_goes_from_none_to_twice_what_was_heard_and_says_the_same_words(take):
    none, felt, twice = (take.finish(EditSettings.from_dict({**NONE.to_dict(), "emotion": x}), fps=50).weights
                         for x in (0, 1, 2))
    assert np.allclose(none, np.clip(take.neutral, 0, 1), atol=1e-3)
    assert np.abs(twice - none).mean() > 1.3 * np.abs(felt - none).mean() > 0.01


def test_a_strip_that_is_played_faster_is_shorter_and_blinks_as_long(take):
    calm = RawTake(0 * take.neutral, 0 * take.neutral, take.cues)
    quick, usual = (calm.retimed(speed).finish(fps=60) for speed in (2.0, 1.0))
    assert len(quick) == pytest.approx(len(usual) / 2, abs=1)
    assert quick.fps == 60

    def blink_frames(motion):
        edges = np.flatnonzero(np.diff(motion["eyeBlinkLeft"] > 0.5))
        return np.median(np.diff(edges)[::2])

    assert abs(blink_frames(quick) - blink_frames(usual)) <= 2
    with pytest.raises(LSFError, match="speed is 0"):
        take.retimed(0)


def test_what_is_no_raw_take_is_refused_in_words(take, tmp_path):
    with pytest.raises(LSFError, match=r"none\.npz"):
        RawTake.load(tmp_path / "none.npz")
    with pytest.raises(LSFError, match=r"cannot be read.*Animate again"):
        RawTake.from_bytes(b"no zip")
    with pytest.raises(LSFError, match="cannot be read"):
        RawTake.from_bytes(take.to_bytes()[:-5000])
    with pytest.raises(LSFError, match=r"\(3, 52\)"):
        RawTake(np.zeros((3, 52)), take.emotional, take.cues)
    with pytest.raises(LSFError, match="NaN"):
        RawTake(take.neutral * np.nan, take.emotional, take.cues)


@pytest.mark.parametrize("hz", [80, 120, 220, 400])
def test_pitch_is_that_of_the_voice_and_none_in_noise(hz):
    """A buzz with falling harmonics, then noise of the same level."""
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * hz * k * times) / k for k in range(1, 12))
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    cues = listen(np.concatenate([0.1 * buzz, 0.1 * noise]).astype(np.float32), 100)
    assert np.median(cues.pitch[5:45]) == pytest.approx(hz, rel=0.03)
    assert (cues.pitch[55:95] == 0).mean() > 0.9


def test_phrases_are_parted_by_pauses():
    tone = 0.3 * np.sin(np.arange(SAMPLE_RATE) * 0.1)
    cues = listen(np.concatenate([np.zeros(8000), tone, np.zeros(8000), tone]).astype(np.float32), 150)
    assert cues.phrases() == pytest.approx(np.array([[0.5, 1.5], [2.0, 3.0]]), abs=0.15)
    assert cues.phrase_ends() == pytest.approx([1.5], abs=0.15)
    assert cues.retimed(2).phrase_ends() == pytest.approx([0.75], abs=0.1)


def test_a_feeling_sinks_in_a_pause_and_follows_the_voice():
    speech = load_audio(DEMO)
    paused = np.concatenate([speech, np.zeros(3 * SAMPLE_RATE, np.float32), speech])
    cues = listen(paused, -(-len(paused) // 320))
    factor = swell(cues)
    middle = round((len(speech) / SAMPLE_RATE + 1.5) * 50)
    assert factor[middle] < 0.65
    assert 0.9 < factor[cues.voiced].mean() < 1.05
    assert np.corrcoef(factor[cues.voiced], gaussian(cues.loudness, 20.0)[cues.voiced])[0, 1] > 0.5


def test_a_sneer_lets_the_lips_close_on_a_b_and_stays_between_the_words():
    speech = load_audio(DEMO)
    frames = -(-len(speech) // 320)
    neutral = np.zeros((frames, 52), np.float32)
    neutral[:, INDEX["jawOpen"]] = 0.3
    neutral[100:104, INDEX["mouthClose"]] = 0.3
    sneering = neutral.copy()
    sneering[:, [INDEX["noseSneerLeft"], INDEX["noseSneerRight"]]] = 0.5
    made = RawTake.of(neutral, sneering, speech).mix(1.0)
    assert made[101, INDEX["noseSneerLeft"]] < 0.12
    assert made[120, INDEX["noseSneerLeft"]] > 0.35
