"""Training on a corpus of one clip: every line of it runs, windows stay whole, sound and face stay together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_data import DEMO, LAYERS, write_data, write_encoder

from lsf_core.animator import load_model
from lsf_core.arkit import INDEX
from lsf_core.audio import load_audio
from lsf_core.network.mouth import SHAPES, around, normed
from lsf_core.speech import SpeechConfig, SpeechEncoder
from lsf_core.training import cli
from lsf_core.training.augment import augment
from lsf_core.training.corpus import (
    EMOTIONS,
    is_held_out,
    make_takes,
    read_emodb,
    read_speech,
)
from lsf_core.training.heard import RIDGE, draw_to_sound, fit, heard
from lsf_core.training.losses import LossWeights, MotionLoss
from lsf_core.training.windows import Mixture, WindowSampler, speechless

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def takes(data):
    return list(make_takes([u for u in read_speech(data) + read_emodb(data) if not is_held_out(u)], 1, 0, 1))


def test_nobody_held_out_is_trained_on(data):
    kept = {u.speaker for u in read_speech(data) + read_emodb(data) if not is_held_out(u)}
    assert kept == {"ann", "emodb_03"}


def test_takes_hold_sound_and_face_of_one_length(takes):
    assert {t.corpus for t in takes} == {"speech", "emodb"}
    for take in takes:
        assert len(take.audio) == 320 * len(take.neutral) == 320 * len(take.emotional) == 320 * len(take.closure)
        assert len(take.neutral) >= 9 * 50 - 1
        assert take.emotion in EMOTIONS
        assert take.neutral[:, INDEX["jawOpen"]].max() > 0.1


def test_acted_boredom_counts_as_neutral(data):
    assert sorted(u.emotion for u in read_emodb(data) if u.speaker == "emodb_03") == ["angry", "neutral", "sad"]


def test_windows_never_cross_from_take_to_take(takes):
    sampler = WindowSampler(takes, CPU)
    batch = sampler.sample(64, 200, torch.Generator().manual_seed(0))
    whole = [t.neutral.astype(np.float32) for t in takes]
    for window in batch.neutral.numpy():
        assert any(np.array_equal(window, take[i:i + 200]) for take in whole for i in range(len(take) - 199))


def test_synthesised_speech_feels_through_an_acted_window_of_its_own_emotion(takes):
    parts = {name: WindowSampler([t for t in takes if t.corpus == name], CPU) for name in ("speech", "emodb")}
    batch = Mixture(parts, {"speech": 0.5, "emodb": 0.4}, 0.1, 0).batch(40, 100)
    for i, source in enumerate(batch.felt_in.tolist()):
        if i < 20:
            assert source == -1 or batch.emotion[source] == batch.emotion[i]
            assert source == -1 or 20 <= source < 36
        else:
            assert source == i


def test_augmentation_does_not_move_the_sound_in_time():
    speech = torch.from_numpy(load_audio(DEMO / "speech.ogg"))[None].repeat(8, 1)
    heard = augment(speech, torch.Generator().manual_seed(0))
    assert torch.isfinite(heard).all()
    assert heard.abs().max() <= 1
    assert not torch.allclose(heard[0], heard[1])

    def loudness(x):
        return x.square().unfold(-1, 320, 320).mean(-1).add(1e-8).log()

    for clip in heard:
        a, b = (loudness(x) - loudness(x).mean() for x in (speech[0], clip))
        lags = [(a[20:-20] * b[20 + k:len(b) - 20 + k]).sum() for k in range(-10, 11)]
        assert abs(int(np.argmax(lags)) - 10) <= 1


def test_speechless_windows_rest():
    batch = speechless(4, 100, torch.Generator().manual_seed(0))
    assert batch.audio.abs().max() > 1e-3
    assert batch.emotional.abs().max() == 0


def test_an_open_closure_costs():
    loss = MotionLoss(torch.zeros(52, 3, 3), LossWeights())
    target, batch = torch.zeros(1, 10, 52), speechless(1, 10, torch.Generator())
    batch.closure = torch.ones(1, 10)
    wide = target.clone()
    wide[..., INDEX["jawOpen"]] = 0.2
    shut = wide.clone()
    shut[..., INDEX["mouthClose"]] = 0.2
    assert loss(shut, target, batch)["closure"] == 0
    assert loss(wide, target, batch)["closure"] > 1
    batch.closure = 0 * batch.closure
    assert loss(wide, target, batch)["closure"] == 0


def test_a_shut_vowel_costs_and_what_a_take_does_not_know_is_free():
    loss = MotionLoss(torch.zeros(52, 3, 3), LossWeights())
    motion, target, batch = torch.zeros(1, 10, 52), torch.zeros(1, 10, 52), speechless(1, 10, torch.Generator())
    target[..., INDEX["jawOpen"]] = 0.2
    assert loss(motion, target, batch)["vowel"] == 0
    batch.vowel = torch.ones(1, 10)
    assert loss(motion, target, batch)["vowel"] > 1
    assert loss(target, target, batch)["vowel"] == 0
    batch.seen[:, INDEX["jawOpen"]] = False
    assert loss(motion, target, batch)["weight"] == 0


def test_a_checkpoint_is_trained_saved_tuned_and_animates(data, tmp_path):
    """Both stages on the command line, with a random little encoder; then tuned on; then it moves a face."""
    encoder = write_encoder(tmp_path / "encoder")
    common = ["--data", str(data), "--tiny", "--device", "cpu"]
    assert cli.main([*common, "--encoder", str(encoder), "--out", str(tmp_path / "a"), "--work",
                     str(tmp_path / "wa"), *LAYERS]) == 0
    logged = [json.loads(line) for line in (tmp_path / "wa" / "log.jsonl").read_text("utf-8").splitlines()]
    assert sum("latent" in row for row in logged) == 2, "stage 2 logs its losses every second step"
    first = tmp_path / "a" / "lsf-animation.safetensors"
    assert cli.main([*common, "--tune", str(first), "--out", str(tmp_path / "b"), "--work", str(tmp_path / "wb")]) == 0
    model = load_model(tmp_path / "b" / "lsf-animation.safetensors", "cpu")
    motion = model.animate(DEMO / "speech.ogg")
    assert motion.weights.shape == (230, 52)
    assert not torch.equal(model.network.head.weight, load_model(first, "cpu").network.head.weight)


def hearing() -> SpeechEncoder:
    """An encoder of random weights, whose features say what is said only as far as any random map of a sound does."""
    torch.manual_seed(0)
    sizes = {"model_type": "whisper", "d_model": 32, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
             "num_mel_bins": 80, "max_source_positions": 512}
    return SpeechEncoder(SpeechConfig(sizes, (1, 2), (1,)))


def test_a_linear_mouth_is_fitted_to_what_is_heard(takes):
    """The error is the least that a ridge regression has, told by its normal equations, and less than the spread."""
    speech = hearing()
    mouth = fit(takes, speech, CPU, 16)
    spread, error, slope = 0.0, 0.0, 0.0
    for take, features in zip(takes, heard(takes, speech, CPU), strict=True):
        assert len(features) == len(take.neutral)
        x = normed(features, 2)
        near = around(((x - x.mean(0)) @ mouth.basis)[None])[0].double()
        wanted = torch.from_numpy(take.neutral[:, SHAPES]).double()
        off = wanted - near @ mouth.weight.double()
        slope = slope + near.T @ off
        spread, error = spread + wanted.var(0).sum() * len(wanted), error + (off - off.mean(0)).square().sum()
    frames = sum(len(take.neutral) for take in takes)
    torch.testing.assert_close(slope, RIDGE * frames * mouth.weight.double(), rtol=1e-3, atol=1e-3)
    assert error < 0.9 * spread


def test_mouths_are_drawn_to_the_sound_only_where_they_are_free(takes):
    speech = hearing()
    mouth = fit(takes, speech, CPU, 16)
    drawn = [replace(t, neutral=t.neutral.copy(), emotional=t.emotional.copy()) for t in takes]
    draw_to_sound(drawn, mouth, speech, 0.7, CPU)
    for before, after in zip(takes, drawn, strict=True):
        held = before.free < 1e-3
        assert (before.closure[held] > 0.9).any(), "p, b and m are held"
        np.testing.assert_array_equal(after.neutral[held], before.neutral[held])
        rest = [i for i in range(52) if i not in SHAPES]
        np.testing.assert_array_equal(after.neutral[:, rest], before.neutral[:, rest])
        jaw, free = INDEX["jawOpen"], before.free > 0.99
        moved = after.neutral[free, jaw].astype(float) - before.neutral[free, jaw]
        assert np.abs(moved).max() > 0.02
        spread = after.neutral[free, jaw].astype(float).std() / before.neutral[free, jaw].astype(float).std()
        assert 0.6 < spread < 1.2, "the speaker's own size stays"
        unclipped = (after.emotional > 0.01) & (after.emotional < 0.99) & (after.neutral > 0.01)
        added = (after.emotional.astype(float) - after.neutral) - (before.emotional.astype(float) - before.neutral)
        assert np.abs(added[unclipped]).max() < 4e-3, "what the feeling adds stays"
