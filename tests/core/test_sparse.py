"""Sparse keys: few of them, within the stated error, and exact where a viewer looks."""

from __future__ import annotations

import numpy as np
import pytest

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.filters import gaussian
from lsf_core.lips import GAP_ROW
from lsf_core.motion import Motion
from lsf_core.sparse import TOLERANCE, TOLERANCE_MM, between, exact_keys, face_probes, sparse_keys


def babble(seconds: float = 20.0, fps: float = 30.0, seed: int = 0) -> Motion:
    """Something like speech: syllables at 4 Hz on jaw and lips that close now and then, slow brows, blinks."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * fps)) / fps
    weights = np.zeros((len(times), 52), np.float32)
    beat = np.arange(0, seconds + 1, 0.125)

    def syllables(size: float) -> np.ndarray:
        targets = rng.uniform(0.2, 1, len(beat)) * (np.arange(len(beat)) % 2)
        return size * np.interp(times, beat, targets)

    weights[:, INDEX["jawOpen"]] = syllables(0.5)
    weights[:, INDEX["mouthFunnel"]] = syllables(0.4)
    weights[:, INDEX["mouthPucker"]] = syllables(0.6)
    weights[:, INDEX["browInnerUp"]] = 0.3 + 0.3 * np.sin(0.8 * times)
    for shape in ("mouthSmileLeft", "mouthSmileRight"):
        weights[:, INDEX[shape]] = np.interp(times, beat[::4], rng.uniform(0, 0.4, len(beat[::4])))
    for shape in ("eyeBlinkLeft", "eyeBlinkRight"):
        weights[:, INDEX[shape]] = np.clip(1.2 - 12 * np.abs((times % 3.1) - 1.5), 0, 1)
    return Motion(ARKIT_NAMES, weights, fps)


@pytest.mark.parametrize("fps", [23.976, 30, 60])
def test_the_curves_stay_within_the_stated_error_at_every_frame(fps):
    motion = babble(fps=fps)
    probes = face_probes()
    curves = between(motion.weights, sparse_keys(motion.weights, exact_keys(motion), probes))
    off = curves - motion.weights
    assert np.abs(off).max() <= TOLERANCE
    assert np.linalg.norm(np.tensordot(off, probes, axes=1), axis=2).max() <= TOLERANCE_MM
    assert curves.min() >= 0
    assert curves.max() <= 1


def test_a_fifth_of_the_frames_or_less_are_keys():
    motion = babble()
    keys = sparse_keys(motion.weights, exact_keys(motion), face_probes())
    assert keys.sum() * 5 < keys.size
    assert keys[[0, -1]].all()
    assert keys[:, INDEX["tongueOut"]].sum() == 2, "a curve that does not move has its ends only"


def test_lips_that_close_and_lids_that_shut_have_their_own_keys():
    motion = babble()
    keys = sparse_keys(motion.weights, exact_keys(motion), face_probes())
    closed = [i for i in range(60, 500) if motion["jawOpen"][i] == 0 and motion["jawOpen"][[i - 1, i + 1]].min() > 0.02]
    assert len(closed) > 20
    for shape in ("jawOpen", "mouthPucker", "mouthFunnel"):
        assert keys[closed, INDEX[shape]].all()
    curves = between(motion.weights, keys)
    np.testing.assert_allclose((curves @ GAP_ROW)[closed], (motion.weights @ GAP_ROW)[closed], atol=0.02)
    shut = [int(np.argmax(motion["eyeBlinkLeft"][i : i + 93])) + i for i in range(0, 500, 93)]
    assert keys[shut][:, [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]].all()


def test_the_millimetres_bind_where_the_weights_would_not():
    """A hundredth of jawOpen is 0.4 mm."""
    motion = babble()
    loose = sparse_keys(motion.weights)
    tight = sparse_keys(motion.weights, probes=face_probes())
    assert tight[:, INDEX["jawOpen"]].sum() > loose[:, INDEX["jawOpen"]].sum()
    off = between(motion.weights, loose) - motion.weights
    assert np.linalg.norm(np.tensordot(off, face_probes(), axes=1), axis=2).max() > TOLERANCE_MM


def test_hardly_a_key_is_left_that_the_others_can_do_without():
    weights = 0.5 + 0.2 * gaussian(np.random.default_rng(4).standard_normal((400, 6)), 6.0) * 4
    keys = sparse_keys(weights)
    needless = 0
    for inner, curve in np.argwhere(keys[1:-1]):
        fewer = keys[:, [curve]].copy()
        fewer[inner + 1] = False
        off = np.abs(between(weights[:, [curve]], fewer) - weights[:, [curve]]).max()
        needless += off <= TOLERANCE
    assert keys.sum() > 100
    assert needless * 25 <= keys.sum()


def test_keys_that_must_be_there_are_not_thinned_out():
    weights = np.linspace(0.2, 0.8, 200)[:, None] * np.ones((1, 3))
    keep = np.random.default_rng(0).random(weights.shape) < 0.2
    keys = sparse_keys(weights, keep)
    assert keys[keep].all()
    assert sparse_keys(weights).sum() < keep.sum() / 4


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_shortest_takes(frames):
    motion = Motion(ARKIT_NAMES, np.linspace(0, 1, frames)[:, None] * np.ones((1, 52)), 25)
    keys = sparse_keys(motion.weights, exact_keys(motion), face_probes())
    assert keys.shape == (frames, 52)
    np.testing.assert_allclose(between(motion.weights, keys), motion.weights, atol=TOLERANCE)


def test_any_curve_of_any_kind_ends_within_tolerance():
    """Noise, steps and spikes: nothing to be sparse about, but right."""
    rng = np.random.default_rng(1)
    weights = np.stack([rng.random(500), np.repeat(rng.random(50), 10), (rng.random(500) > 0.95).astype(float),
                        np.full(500, 0.3)], axis=1)
    keys = sparse_keys(weights, tolerance=0.001)
    assert np.abs(between(weights, keys) - weights).max() <= 0.001
    assert keys[:, 3].sum() == 2
