"""The network: HIFB's linear form is exact, padding and batches change nothing, identity and emotion matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsf_core.arkit import INDEX
from lsf_core.errors import ModelError
from lsf_core.network import LSFConfig, LSFNetwork, MotionPrior, PriorConfig
from lsf_core.network.hifb import PairCrossAttention, pairwise_cross_attention
from lsf_core.network.mouth import PARTED_MM, SHAPES, SHUT_MM, LinearMouth
from lsf_core.speech import FEATURE_RATE, SpeechConfig, SpeechEncoder, SpeechFeatures

TINY_WHISPER = {"model_type": "whisper", "d_model": 32, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
                "num_mel_bins": 80, "max_source_positions": 200, "activation_function": "gelu"}
CONV = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
TINY_WAVE = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, **CONV}


def small_network(seed: int = 0, **changes) -> LSFNetwork:
    torch.manual_seed(seed)
    prior = MotionPrior(PriorConfig(width=32, heads=2, mlp=48, groups=4, codes=16, code_dim=4))
    prior.quantiser.codebook = torch.randn(4, 16, 4)
    config = LSFConfig(articulation_dim=64, emotion_dim=64, width=32, heads=2, mlp=48, layers=2, **changes)
    return LSFNetwork(config, prior).eval()


def features(batch: int, frames: int, seed: int = 0) -> SpeechFeatures:
    generator = torch.Generator().manual_seed(seed)
    return SpeechFeatures(*(torch.randn(batch, frames, 64, generator=generator) for _ in range(2)))


@pytest.mark.parametrize("masked", [False, True])
def test_pair_attention_equals_its_definition_over_all_pairs(masked):
    torch.manual_seed(1)
    layer = PairCrossAttention(48, 4).double()
    tokens, motion, emotion = (torch.randn(3, n, 48, dtype=torch.float64) for n in (4, 17, 17))
    mask = torch.arange(17) < torch.tensor([17, 9, 1])[:, None] if masked else None
    linear = layer(tokens, motion, emotion, mask)
    pairs = pairwise_cross_attention(layer, tokens, motion, emotion, mask)
    torch.testing.assert_close(linear, pairs, rtol=1e-12, atol=1e-12)


def test_padded_batch_equals_single_clips():
    network = small_network()
    long, short = features(1, 60, 1), features(1, 35, 2)
    padded = SpeechFeatures(*(torch.cat([a, torch.nn.functional.pad(b, (0, 0, 0, 25), value=7.0)])
                              for a, b in ((long.articulation, short.articulation), (long.emotion, short.emotion))))
    mask = torch.arange(60) < torch.tensor([60, 35])[:, None]
    identity = torch.randn(2, 32)
    both = network(padded, identity, mask)
    alone = network(short, identity[1:])
    torch.testing.assert_close(both.latent[1, :35], alone.latent[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.motion[1, :35], alone.motion[0], rtol=1e-4, atol=1e-5)


def test_codes_of_a_frame_do_not_depend_on_the_clip_around_it():
    prior = small_network().prior
    latent = torch.randn(2, 50, 16)
    whole = prior.quantise(latent)
    assert torch.equal(prior.quantise(latent[1:, 20:30]), whole[1:, 20:30])


def test_quantising_takes_the_nearest_code_of_every_group():
    prior = small_network().prior
    latent = torch.randn(1, 9, 16)
    found = prior.quantise(latent).view(9, 4, 4)
    book = prior.quantiser.codebook
    for frame in range(9):
        for group in range(4):
            distance = (latent[0, frame].view(4, 4)[group] - book[group]).norm(dim=-1)
            torch.testing.assert_close(found[frame, group], book[group][distance.argmin()])


def test_sampling_follows_the_softmax_of_distances():
    """A share of drawn codes within 4 standard errors of softmax(-d^2 / T), for each of 16 codes."""
    prior = small_network().prior
    latent, temperature, count = torch.randn(1, 1, 16), 8.0, 20_000
    uniform = torch.rand(1, count, 4, 16, generator=torch.Generator().manual_seed(3))
    drawn = prior.quantise(latent.expand(1, count, 16), temperature, -(-uniform.log()).log())
    chance = (-prior.distances(latent) / temperature).softmax(-1)[0, 0, 0]
    share = (drawn.view(count, 4, 4)[:, None, 0] - prior.quantiser.codebook[0]).norm(dim=-1).lt(1e-5).float().mean(0)
    assert ((share - chance).abs() < 4 * (chance * (1 - chance) / count).sqrt() + 1e-4).all()


def test_identity_and_emotion_change_the_motion_and_can_be_switched_off():
    network, x = small_network(), features(1, 40)
    one, two = torch.zeros(1, 32), torch.randn(1, 32, generator=torch.Generator().manual_seed(5)) * 2
    assert (network.latent(x, one) - network.latent(x, two)).abs().max() > 1e-3
    other = SpeechFeatures(x.articulation, x.emotion + 1.0 * torch.randn_like(x.emotion))
    assert (network.latent(x, one) - network.latent(other, one)).abs().max() > 1e-3
    torch.testing.assert_close(network.latent(x, one, feel=False), network.latent(other, one, feel=False))
    plain = small_network(use_identity=False, use_emotion=False)
    torch.testing.assert_close(plain.latent(x, one), plain.latent(other, two))


@pytest.mark.parametrize(("kind", "settings"), [
    ("whisper", TINY_WHISPER), ("hubert", TINY_WAVE), ("wavlm", TINY_WAVE), ("wav2vec2", TINY_WAVE)])
def test_every_encoder_gives_50_frames_a_second(kind, settings):
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechConfig({**settings, "model_type": kind}, (1, 2), (1,)))
    audio = torch.randn(2, 16000 + 100) * 0.1
    out = encoder(audio)
    assert out.articulation.shape == (2, 51, 64)
    assert out.emotion.shape == (2, 51, 32)
    assert FEATURE_RATE == 50
    torch.testing.assert_close(encoder(audio[:1]).articulation, out.articulation[:1], rtol=1e-3, atol=1e-4)


def test_log_mel_is_whispers_own():
    """Against transformers' feature extractor on the same second; it pads to 30 s, which only lowers the floor."""
    from transformers import WhisperFeatureExtractor

    rng = np.random.default_rng(0)
    audio = (rng.standard_normal(16000) * 0.1).astype(np.float32)
    theirs = WhisperFeatureExtractor()(audio, sampling_rate=16000, return_tensors="pt").input_features[0, :, :98]
    ours = SpeechEncoder(SpeechConfig(TINY_WHISPER, (1,), (1,))).log_mel(torch.from_numpy(audio)[None])[0, :, :98]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3)


def test_mel_bank_is_librosas():
    """librosa is the reference that Whisper's own filter bank was saved from."""
    import librosa

    ours = SpeechEncoder(SpeechConfig(TINY_WHISPER, (1,), (1,))).mel_bank.T.numpy()
    np.testing.assert_allclose(ours, librosa.filters.mel(sr=16000, n_fft=400, n_mels=80), atol=1e-6)


def test_the_encoder_refuses_what_is_longer_than_its_positions():
    encoder = SpeechEncoder(SpeechConfig(TINY_WHISPER, (1,), (1,)))
    with pytest.raises(ValueError, match="cut the clip in windows"):
        encoder(torch.zeros(1, 16000 * 5))


def test_asking_for_a_missing_device_says_what_to_do():
    from lsf_core.device import pick_device

    with pytest.raises(ModelError, match="Use auto, cpu, cuda or mps"):
        pick_device("gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="Choose auto or cpu"):
            pick_device("cuda")


def test_a_basis_hears_the_directions_in_which_features_differ_most():
    stream = small_network(articulation_basis=8).articulation
    spread = torch.linspace(4, 0.1, 64)
    heard = torch.randn(4000, 64, generator=torch.Generator().manual_seed(3)) * spread
    stream.fit_basis(heard)
    components = stream.basis(stream.normed(heard))
    assert components.mean(0).abs().max() < 1e-4
    variance = torch.cov(components.T)
    assert torch.allclose(variance, torch.diag(variance.diagonal()), atol=1e-3), "components do not vary together"
    assert variance.diagonal().mean().item() == pytest.approx(1, abs=1e-3)
    assert (variance.diagonal().diff() < 1e-3).all(), "the first one varies most"
    unheard = torch.linalg.svd(stream.basis.weight)[2][8:]
    rest = torch.cov(unheard @ stream.normed(heard).T)
    assert rest.diagonal().max() * stream.basis.weight[0].square().sum() < variance[-1, -1] * 1.001
    assert not stream.basis.weight.requires_grad


def linear_mouth(frames: int = 120, channels: int = 12) -> tuple[LinearMouth, torch.Tensor, torch.Tensor]:
    """A linear mouth of random weights, words of an opening and closing jaw (1, T, 52), and features (1, T, C)."""
    generator = torch.Generator().manual_seed(5)
    mouth = LinearMouth(channels, 6, 2)
    for buffer in (mouth.basis, mouth.weight):
        buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.5)
    words = torch.zeros(1, frames, 52)
    words[..., INDEX["jawOpen"]] = (0.2 * torch.sin(torch.arange(frames) / 6)).clamp_min(0)
    return mouth, words, torch.randn(1, frames, channels, generator=generator)


def test_a_linear_opinion_moves_open_mouths_alone():
    mouth, words, features = linear_mouth()
    said = words + mouth.change(words, features)
    gap, now = (x[0] @ mouth.gap_row for x in (words, said))
    shut = gap < SHUT_MM
    assert shut.any()
    torch.testing.assert_close(now[shut], gap[shut], atol=0.2, rtol=0)  # mm: crispness touches the very edge
    rests = words[0].abs().amax(1) == 0
    assert rests.any()
    assert not said[0, rests].any()
    assert (said - words).abs().max() > 0.02
    assert (now[gap > PARTED_MM] > PARTED_MM - 1e-3).all(), "parted lips stay parted"
    assert said.min() >= 0
    rest = [i for i in range(52) if i not in SHAPES]
    assert not (said - words)[..., rest].any()


def test_a_linear_opinion_does_not_hear_voice_and_microphone():
    """What all frames of a clip have in common adds a constant to the opinion, which is taken out of it."""
    mouth, words, features = linear_mouth()
    mouth.basis.copy_(mouth.basis / mouth.basis.norm())
    plain = mouth.change(words, features)
    mouth.forward = lambda heard: LinearMouth.forward(mouth, heard) + 3.0  # type: ignore[method-assign]
    torch.testing.assert_close(mouth.change(words, features), plain, atol=1e-4, rtol=1e-4)


def test_deliveries_share_one_change_and_networks_without_an_opinion_make_none():
    plain, network = small_network(), small_network(linear_components=6)
    _, words, _ = linear_mouth()
    channels = network.config.articulation_dim
    features = SpeechFeatures(torch.randn(1, words.shape[1], channels), torch.randn(1, words.shape[1], channels))
    felt = words + 0.1
    assert all(a is b for a, b in zip(plain.clear([words, felt], features), (words, felt), strict=True))
    network.mouth.basis.normal_()
    network.mouth.weight.normal_(std=0.1)
    said, moved = network.clear([words, felt], features)
    assert (said - words).abs().max() > 0.01
    torch.testing.assert_close(moved - felt, said - words, atol=1e-5, rtol=0)
