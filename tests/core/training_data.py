"""A data folder and an encoder that are just large enough to train on, for tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from lsf_core.training.corpus import HELD_OUT_ACTORS, HELD_OUT_VOICES
from lsf_core.versions import SHIPPED

DEMO = SHIPPED.parent / "demo"
LAYERS = ["--articulation-layers", "1", "3", "--emotion-layers", "2", "--articulation-basis", "24",
          "--linear-components", "20"]
"""Which of the small encoder's layers `train` is to use, and how many components of their 64 channels."""


def write_data(root: Path) -> Path:
    """A data folder in the layout that training reads, with the demo's clip as every voice and every actor."""
    phones = json.loads((DEMO / "speech.phones.json").read_text("utf-8"))["phones"]
    for folder, rows in (
        ("speech", [{"speaker": s, "language": "en-us", "stress": [0] * len(phones)}
                    for s in ("ann", HELD_OUT_VOICES[0])]),
        ("emotional_speech/emodb", [{"speaker": s, "emotion": e, "recognised_percent": 90.0}
                                    for s in ("emodb_03", HELD_OUT_ACTORS[0])
                                    for e in ("anger", "sadness", "boredom")]),
    ):
        (root / folder).mkdir(parents=True)
        shutil.copy(DEMO / "speech.ogg", root / folder / "clip.ogg")
        lines = [json.dumps({"file": "clip.ogg", "seconds": 7.65, "phones": phones, **row}) for row in rows]
        (root / folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def write_encoder(folder: Path) -> Path:
    """A little Whisper encoder of random weights, in transformers' format."""
    from transformers.models.whisper.modeling_whisper import WhisperConfig, WhisperEncoder

    torch.manual_seed(0)
    WhisperEncoder(WhisperConfig(d_model=32, encoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=64)
                   ).save_pretrained(folder)
    return folder
