"""The animator with the checkpoint that ships: windows, batches, seeds, emotion, and what a checkpoint refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tiny_model import tiny_checkpoint

import lsf_core
from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.audio import load_audio
from lsf_core.checkpoint import load_checkpoint, save_checkpoint
from lsf_core.edits import edit_settings
from lsf_core.errors import AudioError, Cancelled, LSFError, ModelError
from lsf_core.feeling import AS_HEARD, Feeling, emotion_shares
from lsf_core.lips import GAP_ROW, LEAST_OPENING, PRESS_MM, WIDEST_OPENING
from lsf_core.sampling import gumbel_noise
from lsf_core.versions import SHIPPED
from lsf_core.windows import OVERLAP, WINDOW, window_starts

SPEECH = SHIPPED.parent / "demo" / "speech.ogg"
NOBODY = np.zeros((1, 32), np.float32)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(2)
    return lsf_core.load_model(device="cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return lsf_core.load_model(tiny_checkpoint(tmp_path_factory.mktemp("model")), "cpu")


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


def test_half_precision_moves_the_face_by_what_cannot_be_seen(model, speech):
    """All but a frame in a hundred, where two codes are about as near and the other one is taken."""
    clip = speech[: 16000 * 4]
    half = lsf_core.load_model(device="cpu", half=True)
    assert half.network.head.weight.dtype == torch.float16
    apart = np.stack([raw(half, [clip])[0].neutral - raw(model, [clip])[0].neutral,
                      raw(half, [clip])[0].emotional - raw(model, [clip])[0].emotional])
    apart = np.abs(apart)
    assert apart.mean() < 5e-4
    assert np.quantile(apart, 0.999) < 0.005
    assert (apart.max(-1) < 0.005).mean() > 0.95


@pytest.mark.parametrize("seconds", [4, 33])
def test_a_take_made_on_the_device_is_the_one_that_numpy_finishes(model, speech, seconds):
    """The way that graphics cards go, tried on the processor: mixed and, where long, edited in torch."""
    clip = np.tile(speech, 5)[: 16000 * seconds]
    settings = edit_settings(1.3, True)
    wanted = model.animate(clip, 16000, fps=24, seed=3, edits=settings)
    asked = model._asked(clip, 16000, None, None, 0.0, None, None, None)
    found = model._animate_there(asked, settings, 24.0, None, 3, None)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-4)
    np.testing.assert_array_equal(found.head_rotation, wanted.head_rotation)


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


def test_sampled_takes_play_the_same_words_in_their_own_way(model, speech):
    """Brows and cheeks differ from seed to seed, around the likeliest take; lips and jaw say the same."""
    clip = speech[: 16000 * 3]
    likeliest = model.raw_take(clip, 16000).mix(1.0)
    takes = np.stack([model.raw_take(clip, 16000, seed=s, temperature=1.0).mix(1.0) for s in range(3)])
    upper = [i for n, i in INDEX.items() if n.startswith(("brow", "cheekSquint", "noseSneer"))]
    assert takes[..., upper].std(0).mean() > 0.01
    assert np.abs(takes[..., upper].mean((0, 1)) - likeliest[:, upper].mean(0)).max() < 0.15, "the feeling is kept"
    np.testing.assert_allclose(takes @ GAP_ROW, np.tile(likeliest @ GAP_ROW, (3, 1)), atol=0.3)
    spoken = [INDEX[n] for n in ("mouthPucker", "mouthFunnel", "mouthRollLower", "tongueOut")]
    np.testing.assert_allclose(takes[..., spoken], np.tile(likeliest[:, spoken], (3, 1, 1)), atol=0.02)


def test_noise_of_takes_is_gumbels_drifts_and_is_alike_in_overlapping_windows(model):
    noise = gumbel_noise(7, 0, 400, model.network)
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.std()) == pytest.approx(np.pi / np.sqrt(6), abs=0.01)
    assert float(noise[3::20].std()) == pytest.approx(np.pi / np.sqrt(6), abs=0.03), "between the knots, too"
    assert torch.equal(gumbel_noise(7, 300, 100, model.network), noise[300:])
    near, far = ((noise[step:] - noise[:-step]).abs().mean() for step in (1, 60))
    assert near < 0.15 * far


def test_emotion_is_heard_and_its_strength_scales(model, speech):
    """The demo clip is acted in anger: its brows come down, more so when asked for more."""
    brow = [INDEX["browDownLeft"], INDEX["browDownRight"]]
    levels = [model.animate(speech, 16000, emotion_strength=x, edits=False).weights[:, brow].mean() for x in (0, 1, 2)]
    assert levels[0] < levels[1] < levels[2]
    assert levels[1] - levels[0] > 0.05


def test_a_recording_as_its_own_reference_and_calm_by_name(model, speech):
    upper = [i for n, i in INDEX.items() if n.startswith(("brow", "noseSneer", "cheekSquint", "eyeSquint"))]

    def felt(**how):
        take = model.raw_take(speech, 16000, **how)
        return (take.emotional - take.neutral)[:, upper].mean(0)

    heard, calm = felt(), felt(emotion_mix={"neutral": 1})
    assert np.abs(heard).max() > 0.2, "the demo is acted in anger"
    np.testing.assert_allclose(felt(emotion_from=SPEECH), heard, atol=0.25 * np.abs(heard).max())
    assert np.abs(calm).mean() < 0.3 * np.abs(heard).mean()


def test_a_reference_gives_its_feeling_at_any_length_and_changes_no_words(tiny, speech):
    """12 s of sound in two windows, of which the reference is neither."""
    clip = np.tile(speech, 3)[: 12 * 16000]
    plain = tiny.raw_take(clip, 16000)
    voices = [speech[:40000], speech[20000:32000] * np.linspace(0, 1, 12000, dtype=np.float32)]
    felt = [tiny.raw_take(clip, 16000, emotion_from=(voice, 16000)) for voice in voices]
    for take in felt:
        np.testing.assert_array_equal(take.neutral, plain.neutral)
        assert np.abs(take.emotional - plain.emotional).max() > 1e-3
    assert np.abs(felt[0].emotional - felt[1].emotional).max() > 1e-3
    pause = np.zeros(32000, np.float32)
    long = np.concatenate([pause, *[np.concatenate([speech, pause])] * 4])
    once, often = tiny.hear_emotion((speech, 16000)), tiny.hear_emotion((long, 16000))
    assert np.abs(once - often).max() < 0.3 * np.abs(once).max(), "pauses and length are no feeling"


def test_named_emotions_take_their_share_of_what_is_heard(tiny, speech):
    def felt(mix, voice=None):
        reference = None if voice is None else (voice, 16000)
        return tiny.raw_take(speech, 16000, emotion_mix=mix, emotion_from=reference).emotional

    other = speech[16000:48000]
    np.testing.assert_array_equal(felt({}), felt(None))
    np.testing.assert_allclose(felt({"happy": 1, "fear": 1}), felt({"happy": 0.5, "fear": 0.5}, other), atol=1e-4)
    assert np.abs(felt({"happy": 0.5}) - felt({"happy": 0.5}, other)).max() > 1e-3, "half stays as heard"
    assert np.abs(felt({"happy": 1}) - felt({"sad": 1})).max() > 1e-3


def test_feelings_of_a_batch_do_not_mix(tiny, speech):
    clips = [np.tile(speech, 2)[: 16000 * 11], speech, speech, speech[:32000]]
    feelings = [Feeling(tiny.hear_emotion((speech[:20000], 16000))), Feeling(None, emotion_shares({"sad": 0.7})),
                AS_HEARD, Feeling(tiny.hear_emotion((speech[30000:], 16000)), emotion_shares({"angry": 0.5}))]
    faces = np.zeros((4, 32), np.float32)
    together = tiny.raw_weights(clips, faces, range(4), 1.0, None, feelings)
    for i, take in enumerate(together):
        alone = tiny.raw_weights([clips[i]], faces[:1], [i], 1.0, None, [feelings[i]])[0]
        np.testing.assert_allclose(take.emotional, alone.emotional, atol=2e-4)


def test_references_and_mixes_that_cannot_be_are_refused_by_name(tiny, speech, tmp_path):
    import soundfile as sf

    click = np.zeros(16000, np.float32)
    click[8000:8200] = 0.5
    for name, sound, words in (("silence.wav", np.zeros(16000), "is silent"), ("click.wav", click, "s of speech")):
        sf.write(tmp_path / name, sound, 16000)
        with pytest.raises(AudioError, match=f"{name}.*{words}"):
            tiny.animate(speech, 16000, emotion_from=tmp_path / name)
    for mix, words in (({"joy": 1}, "no emotion called 'joy'"), ({"sad": -0.1}, "'sad' is -0.1"),
                       ({"sad": float("nan")}, "nan"), ({"sad": True}, "True"), ("sad", "table of names")):
        with pytest.raises(LSFError, match=words):
            tiny.animate(speech, 16000, emotion_mix=mix)


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
    bad.write_bytes(SHIPPED.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError, match="cannot be verified"):
        load_checkpoint(bad)
    bad.with_name("bad.safetensors.sha256").write_text(
        SHIPPED.with_name(SHIPPED.name + ".sha256").read_text())
    with pytest.raises(ModelError, match="damaged or was exchanged"):
        load_checkpoint(bad)
    bad.with_name("bad.safetensors.sha256").write_text("")
    with pytest.raises(ModelError, match="damaged or was exchanged"):
        load_checkpoint(bad)


def test_assets_fit_their_budget():
    folder = SHIPPED.parent
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
        assert np.all(gap >= np.minimum(LEAST_OPENING * words, words) - PRESS_MM - 0.05)
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
