"""Real motion as training takes: facegood (MIT licence), Mandarin read aloud with an animator's mouth curves.

The set knows 16 mouth shapes and none of the upper face; losses are taken on what it knows (`Take.seen`). The shapes
that would show a feeling are known, too: its speaker is calm, so they rest. Closures need no phones here, the curves
have them. One clip is kept for evaluation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr

from ..arkit import ARKIT_NAMES, IDENTITY_DIM, INDEX
from ..audio import SAMPLE_RATE, load_audio
from ..speech import FEATURE_RATE, SAMPLES_PER_FRAME
from .corpus import Take, as_int16

HELD_OUT_CLIPS = ("1114_2_04",)
RATE_RANGE = (0.88, 1.14)      # as in corpus.RATE_RANGE: faster is also higher, one more voice
CALM = ("browDown", "cheekSquint", "eyeSquint", "eyeWide", "mouthFrown", "noseSneer")
# Composite controls without an ARKit twin (data/real/facegood/README.md), and what they look like: shares by eye.
COMPOSITES = {"mouth_oh_c": {"mouthFunnel": 0.5, "mouthPucker": 0.3, "jawOpen": 0.12},
              "mouth_oo_c": {"mouthPucker": 0.8}}


def read_facegood(root: Path, passes: int, seed: int) -> list[Take]:
    """`passes` takes of every clip that is not held out, each at a rate and with an identity of its own; [] where the
    set is not there."""
    rng = np.random.default_rng([seed, 0xFA])
    clips = [p for p in sorted((root / "real" / "facegood").glob("*.npz")) if p.stem not in HELD_OUT_CLIPS]
    return [_take(clip, float(np.exp(rng.uniform(*np.log(RATE_RANGE)))), rng) for clip in clips for _ in range(passes)]


def _take(clip: Path, rate: float, rng: np.random.Generator) -> Take:
    audio = soxr.resample(load_audio(clip.with_suffix(".ogg")), SAMPLE_RATE * rate, SAMPLE_RATE).astype(np.float32)
    frames = len(audio) // SAMPLES_PER_FRAME
    with np.load(clip) as data:
        fps, weights = float(data["fps"]), np.zeros((len(data["weights"]), len(ARKIT_NAMES)))
        seen = np.zeros(len(ARKIT_NAMES), bool)
        for name, curve in zip(data["names"], data["weights"].T, strict=True):
            weights[:, INDEX[str(name)]] = curve
            seen[INDEX[str(name)]] = True
        raw = dict(zip(map(str, data["raw_names"]), data["raw_weights"].T, strict=True))
    for control, shares in COMPOSITES.items():
        for name, share in shares.items():
            weights[:, INDEX[name]] += share * raw[control]
    for i, name in enumerate(ARKIT_NAMES):
        seen[i] |= name.startswith(CALM)
    times = np.arange(frames) / FEATURE_RATE * rate
    track = np.stack([np.interp(times, np.arange(len(weights)) / fps, curve) for curve in weights.T], 1)
    motion = np.clip(track, 0, 1).astype(np.float16)
    none = np.zeros(frames, np.float16)
    return Take(as_int16(audio[:frames * SAMPLES_PER_FRAME]), motion, motion, none, none, none,
                rng.standard_normal(IDENTITY_DIM).astype(np.float32), "facegood", "neutral", seen)
