"""Ear: which feelings a voice has, in shares that sum to 1. Solved from data (training/listening.py), not descended to.

A network that learns feelings from ten actors hears them in everybody, at full strength, and often the wrong one. Three
things that speaker recognition does for the same trouble, to voices instead of feelings, generalise better:

- directions in which unacted voices, microphones and the actors of one feeling differ are shrunk (within-class
  covariance normalisation, Hatch et al. 2006),
- vectors are brought to one length, so that a voice far from all that was heard is not taken for a strong feeling
  (Garcia-Romero and Espy-Wilson 2011),
- what is left is compared with each feeling by its cosine, and the softmax of it is what the face shows: a doubtful
  voice gives a faint face and not a wrong one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arkit import EMOTIONS

ENOUGH = 0.1
"""Share of a window that must be speech before a feeling is heard in it in full; in silence the face is calm."""


class Ear(nn.Module):
    """Emotion features -> `evidence` of each frame -> its mean over some time -> `shares` of arkit.EMOTIONS.

    `parts` hidden states lie side by side in the features; each is normalised by itself. An ear that was not solved yet
    hears all feelings alike.
    """

    gate: Tensor
    gate_bias: Tensor
    centre: Tensor
    whiten: Tensor
    classes: Tensor
    bias: Tensor
    calm: Tensor

    def __init__(self, channels: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.register_buffer("gate", torch.zeros(channels))
        self.register_buffer("gate_bias", torch.full((1,), 9.0))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("whiten", torch.eye(channels))
        self.register_buffer("classes", torch.zeros(len(EMOTIONS), channels))
        self.register_buffer("bias", torch.zeros(len(EMOTIONS)))
        self.register_buffer("calm", F.one_hot(torch.tensor(EMOTIONS.index("neutral")), len(EMOTIONS)).float(),
                             persistent=False)

    def evidence(self, features: Tensor) -> Tensor:
        """(..., channels + 1) of each frame, to be averaged over time: the features as far as somebody speaks in it,
        and how surely somebody does, in [0, 1]."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            spoken = torch.sigmoid(self.normed(features) @ self.gate + self.gate_bias)[..., None]
            return torch.cat([features * spoken, spoken], -1)

    def shares(self, evidence: Tensor) -> Tensor:
        """(..., len(EMOTIONS)) of mean evidence (..., channels + 1)."""
        with torch.autocast(evidence.device.type, enabled=False):
            spoken = evidence[..., -1:].float()
            mean = self.normed(evidence[..., :-1].float() / spoken.clamp_min(1e-6))
            direction = F.normalize((mean - self.centre) @ self.whiten.T, dim=-1)
            heard = (direction @ self.classes.T + self.bias).softmax(-1)
            return torch.lerp(self.calm, heard, (spoken / ENOUGH).clamp_max(1))

    def normed(self, features: Tensor) -> Tensor:
        """Each hidden state of (..., channels) with mean 0 and variance 1: encoders' layers differ in size."""
        pieces = features.float().unflatten(-1, (self.parts, -1))
        return F.layer_norm(pieces, pieces.shape[-1:]).flatten(-2)
