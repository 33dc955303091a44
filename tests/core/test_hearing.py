"""hearing.py and arrays.py: what torch makes of a sound and of weights is what numpy makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lsf_core.audio import SAMPLE_RATE, load_audio, loudness_db
from lsf_core.cues import CUE_RATE, listen, median_of_five
from lsf_core.edits import EditSettings, apply_edits
from lsf_core.filters import gaussian
from lsf_core.hearing import Hearing
from lsf_core.lips import close_by, keep_closures, keep_gap
from lsf_core.motion import Motion
from lsf_core.rawtake import RawTake, mixed

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "assets" / "demo" / "speech.ogg"


def sounds():
    speech = load_audio(DEMO)
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * 130 * k * times) / k for k in range(1, 12)).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    return {"speech": speech, "one sample more": speech[: 320 * 50 + 1], "odd": speech[20000:20000 + 320 * 40 - 77],
            "buzz, noise, silence": 0.1 * np.concatenate([buzz, noise, 0 * noise])}


@pytest.mark.parametrize("name", sounds())
def test_torch_hears_in_a_sound_what_numpy_hears(name):
    sound = sounds()[name]
    heard, wanted = Hearing(torch.from_numpy(sound)).cues(), listen(sound, -(-len(sound) // 320))
    assert (len(heard), heard.seconds) == (len(wanted), wanted.seconds)
    np.testing.assert_array_equal(heard.voiced, wanted.voiced)
    np.testing.assert_allclose(heard.loudness, wanted.loudness, atol=0.11)
    same = np.isclose(heard.pitch, wanted.pitch, atol=0.11)
    assert same.mean() > 0.98, "an octave may fall the other way where both are about as likely"


@pytest.mark.parametrize("rate", [50.0, 100.0, 25.0, 24.0])
@pytest.mark.parametrize("length", [0, 100, 319, 16000, 16077])
def test_loudness_in_blocks_is_that_of_the_samples(rate, length):
    sound = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    sound[length // 2:] *= 1e-3
    level = loudness_db(sound, rate)
    for i in range(0, len(level), 7):
        centre = round(i * SAMPLE_RATE / rate)
        part = sound[max(0, centre - 320):centre + 320].astype(np.float64)
        assert level[i] == pytest.approx(10 * np.log10(np.square(part).mean()), abs=2e-3)


def test_the_median_of_five_is_the_middle_one():
    values = np.random.default_rng(0).integers(0, 6, 500).astype(np.float32)
    padded = np.pad(values, 2, mode="edge")
    wanted = [sorted(padded[i:i + 5])[2] for i in range(len(values))]
    np.testing.assert_array_equal(median_of_five(values), wanted)


def test_filters_and_lips_take_either_kind_of_array():
    rng = np.random.default_rng(1)
    a, b = (gaussian(rng.uniform(-0.3, 0.9, (700, 52)), 3.0).astype(np.float32) for _ in range(2))
    gap, spoken = rng.uniform(0, 4, 700).astype(np.float32), rng.random(700).astype(np.float32)
    for made in (lambda x, y, *_: gaussian(x, 12.0), lambda x, y, *_: keep_gap(x, y),
                 lambda x, y, g, s: close_by(x, g), lambda x, y, g, s: keep_closures(x, y, s)):
        wanted = made(a, b, gap, spoken)
        found = made(*(torch.from_numpy(x) for x in (a, b, gap, spoken)))
        assert isinstance(wanted, np.ndarray)
        np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5)


def test_lips_that_are_near_enough_are_left_as_they_are():
    weights = np.random.default_rng(2).random((50, 52)).astype(np.float32)
    np.testing.assert_array_equal(close_by(weights, np.zeros(50)), weights)


@pytest.mark.parametrize("settings", [EditSettings(), EditSettings(smoothing=1.0, closure=0.5, jaw=1.4,
                                                                    offset={"jawOpen": 0.1})])
def test_a_motion_in_torch_is_edited_alike_and_comes_back_in_numpy(settings):
    speech = np.tile(load_audio(DEMO), 2)
    frames = -(-len(speech) // 320)
    rng = np.random.default_rng(3)
    neutral, felt = (gaussian(rng.uniform(-0.3, 0.8, (frames, 52)), 3.0).astype(np.float32) for _ in range(2))
    raw = RawTake.of(neutral, felt, speech)
    wanted = raw.finish(settings, fps=24, seed=1)
    weights = mixed(torch.from_numpy(raw.neutral), torch.from_numpy(raw.emotional), raw.cues, 1.0)
    found = apply_edits(Motion(wanted.names, weights, CUE_RATE), raw.cues, settings, fps=24, frames=len(wanted), seed=1)
    assert isinstance(found.weights, np.ndarray)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-4)


def test_numpy_alone_needs_no_torch():
    code = ("import sys, numpy as np; from lsf_core.audio import load_audio; from lsf_core.rawtake import RawTake;"
            "x = np.full((100, 52), 0.3); RawTake.of(x, x, np.ones(32000, np.float32)).finish(fps=24);"
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
