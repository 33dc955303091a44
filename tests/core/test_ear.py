"""The ear: graded, sure of what it learned, calm in silence, and unmoved by what voices alone differ in."""

from __future__ import annotations

import pytest
import torch

from lsf_core.arkit import EMOTIONS
from lsf_core.network import LSFConfig, LSFNetwork, MotionPrior, PriorConfig
from lsf_core.network.ear import Ear
from lsf_core.speech import SpeechFeatures
from lsf_core.training.listening import solve_feelings, spoken_frames

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
