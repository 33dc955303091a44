"""A checkpoint of a small random network, as `train` would write it, for tests of all but what it learned."""

from __future__ import annotations

from pathlib import Path

import torch

from lsf_core.checkpoint import save_checkpoint
from lsf_core.network import LSFConfig, LSFNetwork, MotionPrior, PriorConfig
from lsf_core.speech import SpeechConfig, SpeechEncoder


def tiny_checkpoint(folder: Path) -> str:
    """Write it into `folder`; its path."""
    torch.manual_seed(0)
    encoder = {
        "model_type": "whisper", "d_model": 16, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
        "num_mel_bins": 80, "max_source_positions": 512,
    }  # fmt: skip
    speech = SpeechEncoder(SpeechConfig(encoder, (1,), (1,)))
    prior_sizes = PriorConfig(width=16, heads=2, mlp=32, encoder_blocks=1, decoder_blocks=1, groups=2, codes=16)
    prior = MotionPrior(prior_sizes, with_encoder=False)
    sizes = LSFConfig(articulation_dim=16, emotion_dim=16, width=16, heads=2, mlp=32, layers=1)
    path = folder / "tiny.safetensors"
    save_checkpoint(path, speech, LSFNetwork(sizes, prior, 1, 1), {"made for": "tests"})
    return str(path)
