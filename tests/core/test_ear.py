"""The ear: graded, sure of what it learned, calm in silence, and unmoved by what voices alone differ in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from training_data import DEMO, LAYERS, write_data, write_encoder

from lsf_core.animator import load_model
from lsf_core.arkit import EMOTIONS, INDEX
from lsf_core.network import LSFConfig, LSFNetwork, MotionPrior, PriorConfig
from lsf_core.network.ear import Ear
from lsf_core.speech import SpeechFeatures, load_pretrained
from lsf_core.training import cli
from lsf_core.training.corpus import is_held_out, make_takes, read_emodb, read_speech
from lsf_core.training.listening import solve_ear, solve_feelings, solve_gate, spoken_frames
from lsf_core.training.stages import UNSPOKEN, blended
from lsf_core.training.windows import Mixture, WindowSampler, speechless

CHANNELS = 32
HEARD = ("neutral", "angry", "sad")


def voices(count: int, seed: int) -> torch.Tensor:
    """Normed means (count, CHANNELS) of voices that feel nothing and differ in the first two channels, widely."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.randn(count, CHANNELS, generator=generator)
    x[:, :2] += 3 * torch.randn(count, 2, generator=generator)
    return x


def acted(emotion: str, count: int, seed: int) -> torch.Tensor:
    x = voices(count, seed)
    x[:, 4 + HEARD.index(emotion)] += 2
    return x


@pytest.fixture(scope="module")
def ear() -> Ear:
    ear = Ear(CHANNELS, 1)
    means = torch.cat([acted(e, 60, i) for i, e in enumerate(HEARD)])
    solve_feelings(ear, ear.normed(means), torch.tensor([EMOTIONS.index(e) for e in HEARD for _ in range(60)]),
                   ear.normed(voices(80, 9)))
    return ear


def shares(ear: Ear, mean: torch.Tensor, spoken: float = 1.0) -> torch.Tensor:
    return ear.shares(torch.cat([mean * spoken, torch.full_like(mean[:, :1], spoken)], 1))


@pytest.mark.parametrize("emotion", HEARD)
def test_an_ear_hears_what_it_learned_in_voices_it_did_not(ear, emotion):
    heard = shares(ear, acted(emotion, 50, 77))
    assert torch.allclose(heard.sum(1), torch.ones(50))
    assert (heard.argmax(1) == EMOTIONS.index(emotion)).float().mean() > 0.9
    assert heard[:, EMOTIONS.index("fear")].max() < 1e-6, "a feeling without a recording is never heard"


def test_half_a_feeling_is_heard_by_half(ear):
    calm, angry = acted("neutral", 50, 5), acted("angry", 50, 5)
    strength = [float(shares(ear, torch.lerp(calm, angry, s))[:, EMOTIONS.index("angry")].mean())
                for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert strength == sorted(strength)
    assert strength[0] < 0.2 < strength[2] < 0.7 < strength[4]


def test_a_voice_far_from_all_is_no_surer(ear):
    loud = acted("angry", 50, 6)
    loud[:, 10:14] += 6
    assert shares(ear, loud).amax(1).mean() < shares(ear, acted("angry", 50, 6)).amax(1).mean()


def test_silence_is_calm_and_pauses_do_not_count(ear):
    assert torch.equal(shares(ear, torch.randn(3, CHANNELS), 0.0), ear.calm.expand(3, -1))
    said, pause = acted("sad", 20, 3), torch.randn(20, CHANNELS)
    evidence = torch.cat([said, torch.ones(20, 1)], 1) + torch.cat([0 * pause, torch.zeros(20, 1)], 1)
    assert torch.allclose(ear.shares(evidence / 2), ear.shares(evidence), atol=1e-5)


def test_spoken_frames_are_those_near_the_loudest():
    audio = torch.zeros(1, 3200)
    audio[:, 640:1280] = 0.1 * torch.randn(1, 640, generator=torch.Generator().manual_seed(0))
    audio[:, 1280:1600] = 1e-4
    assert spoken_frames(audio)[0].tolist() == [False, False, True, True] + [False] * 6


def test_a_network_with_an_ear_feels_shares_of_its_anchors():
    torch.manual_seed(0)
    sizes = PriorConfig(width=16, heads=2, mlp=32, encoder_blocks=1, decoder_blocks=1, groups=2, codes=16)
    network = LSFNetwork(LSFConfig(articulation_dim=8, emotion_dim=CHANNELS, width=16, heads=2, mlp=32, layers=1,
                                   ear=True), MotionPrior(sizes), 1, 1).eval()
    assert network.ear is not None
    solve_feelings(network.ear, torch.cat([acted(e, 60, i) for i, e in enumerate(HEARD)]),
                   torch.tensor([EMOTIONS.index(e) for e in HEARD for _ in range(60)]), voices(80, 9))
    features = SpeechFeatures(torch.randn(1, 250, 8), acted("angry", 1, 8)[:, None].expand(1, 250, -1))
    heard = network.heard(features)[0]
    share = torch.linalg.lstsq(network.anchors.detach().T, heard.detach().T).solution.T
    assert torch.allclose(share.sum(1), torch.ones(250), atol=1e-3)
    assert (share.argmax(1) == EMOTIONS.index("angry")).all()
    whole = network.evidence(features.emotion).mean(1)
    assert torch.allclose(network.felt(whole), heard[:1], atol=1e-4), "a reference's mean is heard alike"


def test_feelings_are_blended_as_their_anchors_are():
    windows = speechless(6, 40, torch.Generator().manual_seed(0))
    windows.emotion = torch.tensor([2, 2, 2, 4, 4, -1])
    windows.emotional = windows.neutral.clone()
    windows.emotional[:3, :, INDEX["mouthSmileLeft"]], windows.emotional[:3, :, INDEX["jawOpen"]] = 0.6, 0.2
    windows.emotional[3:5, :, INDEX["eyeWideLeft"]] = 0.8
    lots = SimpleNamespace(generator=torch.Generator().manual_seed(1))
    seen = []
    for _ in range(20):
        mix, added = blended(windows, torch.ones(6), lots, UNSPOKEN)
        assert torch.allclose(mix.sum(1), torch.ones(6))
        assert torch.allclose(added[..., INDEX["mouthSmileLeft"]], 0.6 * mix[:, 2, None].expand(-1, 40), atol=1e-6)
        assert torch.allclose(added[..., INDEX["eyeWideLeft"]], 0.8 * mix[:, 4, None].expand(-1, 40), atol=1e-6)
        assert added[3:, :, INDEX["jawOpen"]].max() == 0, "another voice's jaw says another word"
        assert mix[5, 0] == 1
        assert added[5].abs().max() == 0
        seen.append(mix)
    both = torch.stack(seen)[:, :3]
    assert ((both[..., 2] > 0.2) & (both[..., 4] > 0.2)).any()


def test_an_ear_is_solved_on_the_training_diet(tmp_path):
    root = write_data(tmp_path)
    takes = list(make_takes([u for u in read_speech(root) + read_emodb(root) if not is_held_out(u)], 1, 0, 1))
    parts = {name: WindowSampler([t for t in takes if t.corpus == name], torch.device("cpu"))
             for name in ("speech", "emodb")}
    speech = load_pretrained(write_encoder(tmp_path / "encoder"), (1,), (2, 3))
    ear = Ear(speech.emotion_dim, 2)
    solve_ear(ear, speech, Mixture(parts, {"speech": 0.5, "emodb": 0.4}, 0.1, 0), batches=8, count=20)
    assert all(torch.isfinite(buffer).all() for buffer in ear.buffers())
    assert ear.bias[EMOTIONS.index("angry")] == 0 > ear.bias[EMOTIONS.index("happy")]


def test_pauses_are_told_from_speech():
    generator = torch.Generator().manual_seed(0)
    said = torch.rand(600, generator=generator) < 0.8
    frames = torch.randn(600, CHANNELS, generator=generator)
    frames[said, 5] += 5
    ear = Ear(CHANNELS, 1)
    solve_gate(ear, ear.normed(frames), said)
    spoken = ear.evidence(frames)[:, -1]
    assert spoken[said].mean() > 0.85
    assert spoken[~said].mean() < 0.15


def test_a_checkpoint_with_an_ear_is_trained_and_animates(tmp_path):
    encoder = write_encoder(tmp_path / "encoder")
    assert cli.main(["--data", str(write_data(tmp_path / "data")), "--tiny", "--ear", "--device", "cpu", "--encoder",
                     str(encoder), "--out", str(tmp_path / "a"), "--work", str(tmp_path / "w"), *LAYERS]) == 0
    model = load_model(tmp_path / "a" / "lsf-animation.safetensors", "cpu")
    assert model.network.ear is not None
    assert model.network.ear.bias[EMOTIONS.index("happy")] < -90
    assert model.animate(DEMO / "speech.ogg").weights.shape == (230, 52)
    assert model.hear_emotion(DEMO / "speech.ogg").shape == (model.network.config.width,)
