"""The animator with the checkpoint that ships: windows, batches, seeds, emotion, and what a checkpoint refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import lsf_core
from lsf_core.animator import DEFAULT_CHECKPOINT, OVERLAP, WINDOW, window_starts
from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.audio import load_audio
from lsf_core.checkpoint import load_checkpoint, save_checkpoint
from lsf_core.errors import AudioError, Cancelled, ModelError
from lsf_core.lips import GAP_ROW, LEAST_OPENING, WIDEST_OPENING

SPEECH = DEFAULT_CHECKPOINT.parent / "demo" / "speech.ogg"
NOBODY = np.zeros((1, 32), np.float32)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(2)
    return lsf_core.load_model(device="cpu")


@pytest.fixture(scope="module")
def speech():
    return load_audio(SPEECH)


def raw(model, clips):
    return model.raw_weights(clips, np.repeat(NOBODY, len(clips), 0), [0] * len(clips))


def test_frames_do_not_change_when_other_audio_is_appended(model, speech):
    """A frame only hears the windows it lies in: what is appended changes the last window and its cross-fade alone."""
    clip = np.tile(speech, 3)[: 20 * 16000]
    longer = np.concatenate([clip, speech[::-1]])
    short, long = raw(model, [clip])[0], raw(model, [longer])[0]
    last_window = len(short.emotional) - WINDOW
    assert last_window == 12 * 50
    np.testing.assert_allclose(long.emotional[:last_window], short.emotional[:last_window], atol=1e-4)
    np.testing.assert_allclose(long.neutral[:last_window], short.neutral[:last_window], atol=1e-4)


def test_a_clip_is_animated_alike_alone_and_in_any_batch(model, speech):
    clips = [speech[: 16000 * 3], speech[16000: 16000 * 4], np.tile(speech, 2)[: 16000 * 11], speech[: 16000 * 2 + 77]]
    together = raw(model, clips)
    for clip, of_batch in zip(clips, together, strict=True):
        alone = raw(model, [clip])[0]
        np.testing.assert_allclose(of_batch.emotional, alone.emotional, atol=1e-4)


def test_windows_cover_the_clip_and_overlap_enough():
    for frames in (1, 399, 400, 401, 700, 1234, 90_000):
        starts = window_starts(frames)
        assert starts[0] == 0
        assert starts[-1] + WINDOW >= frames
        assert all(b - a <= WINDOW - OVERLAP for a, b in itertools.pairwise(starts))
        assert frames <= WINDOW or starts[-1] + WINDOW == frames


@pytest.mark.parametrize("fps", [24.0, 30.0, 24000 / 1001, 60.0])
def test_frame_count_is_duration_times_fps_rounded_up(model, speech, fps):
    clip = speech[: int(16000 * 2.51)]
    motion = model.animate(clip, 16000, fps=fps)
    assert motion.weights.shape == (int(np.ceil(len(clip) / 16000 * fps - 1e-6)), 52)
    assert motion.names == ARKIT_NAMES
    assert motion.fps == fps
    assert motion.weights.min() >= 0
    assert motion.weights.max() <= 1


def test_the_mouth_follows_speech_and_rests_in_silence(model, speech):
    """2 s of near silence before the speech: lips move less than a fifth as much there."""
    hiss = (np.random.default_rng(0).standard_normal(32000) * 1e-4).astype(np.float32)
    weights = model.animate(np.concatenate([hiss, speech]), 16000, fps=50, edits=False, emotion_strength=0).weights
    mouth = [i for n, i in INDEX.items() if n.startswith(("jaw", "mouth"))]
    speed = np.abs(np.diff(weights[:, mouth], axis=0)).sum(1)
    assert weights[:, INDEX["jawOpen"]].max() > 0.1
    assert speed[10:85].mean() < 0.2 * speed[100:].mean()


def test_seeds_make_takes_and_a_seed_repeats_its_take(model, speech):
    clip = speech[: 16000 * 3]
    one, again, two = (model.animate(clip, 16000, seed=s, temperature=1.0, edits=False).weights for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 0.02
    still = [model.animate(clip, 16000, seed=s, edits=False).weights for s in (1, 2)]
    np.testing.assert_array_equal(*still)


def test_emotion_is_heard_and_its_strength_scales(model, speech):
    """The demo clip is acted in anger: its brows come down, more so when asked for more."""
    brow = [INDEX["browDownLeft"], INDEX["browDownRight"]]
    levels = [model.animate(speech, 16000, emotion_strength=x, edits=False).weights[:, brow].mean() for x in (0, 1, 2)]
    assert levels[0] < levels[1] < levels[2]
    assert levels[1] - levels[0] > 0.05


def test_another_face_moves_in_another_manner(model, speech):
    other = np.random.default_rng(0).standard_normal(32).astype(np.float32)
    clip = speech[: 16000 * 3]
    a, b = (model.animate(clip, 16000, identity=i, edits=False).weights for i in (np.zeros(32, np.float32), other))
    assert np.abs(a - b).max() > 0.01


def test_other_sample_rates_give_the_same_motion(model, speech):
    import soxr

    clip = speech[: 16000 * 3]
    a = model.animate(clip, 16000, edits=False).weights
    b = model.animate(soxr.resample(clip, 16000, 48000), 48000, edits=False).weights
    assert np.abs(a - b).mean() < 0.01


def test_silence_is_refused_with_a_cure(model):
    with pytest.raises(AudioError):
        model.animate(np.zeros(16000, np.float32), 16000)


def test_cancelling_stops_between_windows(model, speech):
    def stop(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        model.animate(np.tile(speech, 3), 16000, progress=stop)


def test_checkpoint_survives_saving(model, tmp_path):
    save_checkpoint(tmp_path / "copy.safetensors", model.speech, model.network, {"note": "copy"})
    copy = load_checkpoint(tmp_path / "copy.safetensors")
    for (name, a), (_, b) in zip(model.network.state_dict().items(), copy.network.state_dict().items(), strict=True):
        if a.is_floating_point() and "cluster_size" not in name and "embed_avg" not in name:
            torch.testing.assert_close(a.half().float(), b, msg=name)
    assert copy.about == {"note": "copy"}


def test_damaged_missing_and_unsigned_checkpoints_are_refused(tmp_path):
    with pytest.raises(ModelError, match="No checkpoint at"):
        load_checkpoint(tmp_path / "none.safetensors")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(DEFAULT_CHECKPOINT.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError, match="cannot be verified"):
        load_checkpoint(bad)
    bad.with_name("bad.safetensors.sha256").write_text(
        DEFAULT_CHECKPOINT.with_name(DEFAULT_CHECKPOINT.name + ".sha256").read_text())
    with pytest.raises(ModelError, match="damaged or was exchanged"):
        load_checkpoint(bad)
    bad.with_name("bad.safetensors.sha256").write_text("")
    with pytest.raises(ModelError, match="damaged or was exchanged"):
        load_checkpoint(bad)


def test_assets_fit_their_budget():
    folder = DEFAULT_CHECKPOINT.parent
    total = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert total <= 40 * 2**20, f"{total / 2**20:.1f} MiB"


def test_emotion_keeps_the_words_and_opens_them_within_a_band(model, speech):
    """At any strength closed lips are those of the neutral delivery, and vowels open little less or more than there."""
    raw_take = raw(model, [speech])[0]
    words = np.clip(raw_take.neutral, 0, 1) @ GAP_ROW
    shut = words <= 0.05 * np.percentile(words, 95)
    assert shut.sum() > 10
    np.testing.assert_allclose(raw_take.mix(0) @ GAP_ROW, words, atol=0.05)
    for strength in (0.5, 1.0, 2.0):
        gap = raw_take.mix(strength) @ GAP_ROW
        assert np.all(gap <= np.maximum(WIDEST_OPENING * words, words) + 0.05)
        assert np.all(gap >= np.minimum(LEAST_OPENING * words, words) - 0.05)
        assert gap[shut].max() <= 0.05 * np.percentile(gap, 95) * WIDEST_OPENING / LEAST_OPENING + 0.05
    assert gap[~shut].mean() > 1.1 * words[~shut].mean(), "the demo is acted in anger, which opens wider"


def test_arrays_count_their_frames_as_files_do(model, speech):
    """47,040 samples at 44.1 kHz last 32 frames of 30 fps exactly."""
    import soxr

    clip = soxr.resample(speech, 16000, 44100)[:47_040]
    assert len(model.animate(clip, 44100, fps=30.0)) == 32


def test_arrays_that_would_be_misread_are_refused(model, speech):
    with pytest.raises(ValueError, match="int16"):
        model.animate((speech * 32767).astype(np.int16), 16000)
    with pytest.raises(ValueError, match="identity has the shape"):
        model.animate(speech, 16000, identity=np.zeros(5, np.float32))
