"""Takes that differ: noise for the motion prior's codes, and what of a sampled take is let through to the face.

A code stands for the whole face, so another code is another mouth, too. Takes should differ in performance, not in
articulation: the likeliest take says the words, the sampled one plays them.

Many codes lie about as near as the nearest one, and most of them stand for calmer faces: a sampled take loses a third
of its feeling. So what counts is how it differs from the mean of all that could have been drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .arkit import ARKIT_NAMES
from .filters import gaussian
from .lips import keep_gap
from .network import LSFNetwork, MotionPrior

HOLD = 20
"""Frames between independent draws: 0.4 s, about two syllables."""

_CORNERS = tuple(f"mouth{part}{side}" for part in ("Smile", "Frown", "Dimple", "Stretch") for side in ("Left", "Right"))
PLAYED = np.array([not name.startswith(("jaw", "mouth", "tongue", "cheekPuff")) or name in _CORNERS
                   for name in ARKIT_NAMES])
"""(52,) bool: shapes that play rather than speak. Brows, lids, cheeks, nose and the corners of the mouth."""

_SMOOTHING = 6.0  # frames, sigma: 0.12 s, slower than lips that speak and quicker than a feeling: an accent


def gumbel_noise(seed: int, start: int, length: int, network: LSFNetwork) -> Tensor:
    """Gumbel noise (length, groups, codes) for frames start .. start + length, drifting from draw to draw over HOLD.

    Every frame's noise is exactly Gumbel: it is that of normal numbers, of which two independent ones are mixed by the
    cosine and sine of an angle, which stay normal. The noise of a frame depends on the seed and the frame alone, so
    overlapping windows sample alike.
    """
    groups, codes = network.prior.config.groups, network.prior.config.codes
    first, last = start // HOLD, (start + length - 1) // HOLD + 1
    knots = torch.stack([torch.from_numpy(np.random.default_rng([seed & 0xFFFFFFFF, knot])
                                          .standard_normal((groups, codes), np.float32))
                         for knot in range(first, last + 1)])
    frame = torch.arange(start, start + length)
    angle = (frame % HOLD)[:, None, None] * (torch.pi / 2 / HOLD)
    before = frame // HOLD - first
    normal = angle.cos() * knots[before] + angle.sin() * knots[before + 1]
    return -(-torch.special.log_ndtr(normal)).clamp_min(1e-30).log()


def mean_draw(prior: MotionPrior, latent: Tensor, temperature: float) -> Tensor:
    """The mean (B, T, L) of all latents that `prior.quantise` may draw for `latent` (B, T, L) at this temperature."""
    share = (-prior.distances(latent) / temperature).softmax(-1)
    return torch.einsum("btgc,gcd->btgd", share, prior.quantiser.codebook.float()).flatten(2)


def varied(likeliest: np.ndarray, sampled: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The words of the likeliest take with the play of a sampled one; all (F, 52) weights at 50 Hz.

    mean: the take of `mean_draw`. The shapes of PLAYED move by what `sampled` has over it, as far as that lasts longer
    than a sound; the lips open and close as in `likeliest`.
    """
    take = likeliest.copy()
    take[:, PLAYED] += gaussian(sampled - mean, _SMOOTHING)[:, PLAYED]
    return keep_gap(take, likeliest).astype(np.float32)
