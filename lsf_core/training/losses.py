"""What training minimises, on the artist's face and not only in weight space.

Weights alone say little: 0.1 of jawOpen moves the chin 4 mm, 0.1 of cheekPuff nothing that one sees, and lips that
nearly touch do not touch. So motion is also compared as vertices of the template's face, and the lip gap of p b m
frames is a loss of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arkit import ARKIT_NAMES, INDEX
from ..lips import GAP_ROW
from .windows import Batch


@dataclass(frozen=True)
class LossWeights:
    """Weights are dimensionless (0..1), vertices and gaps in centimetres, so that all terms are of similar size."""

    weight: float = 1.0
    velocity: float = 4.0
    vertex: float = 1.0
    closure: float = 0.5
    vowel: float = 0.25
    latent: float = 0.5
    commitment: float = 1.0


class MotionLoss(nn.Module):
    """L1 on weights and their velocity, L2 distance of face vertices, lip gap in p b m and in open vowels.

    basis (52, P, 3): expression deltas in cm of P sampled face vertices, denser on lips and lids.
    """

    basis: Tensor
    gap_row: Tensor
    shape: Tensor

    def __init__(self, basis: Tensor, loss: LossWeights) -> None:
        super().__init__()
        self.loss = loss
        self.register_buffer("basis", basis.flatten(1))
        # Rounding moves few vertices and is read at once: an o with slack lips is an a.
        self.register_buffer("shape", torch.ones(len(ARKIT_NAMES)))
        self.shape[[INDEX[name] for name in ("mouthPucker", "mouthFunnel")]] = 2.0
        self.register_buffer("gap_row", torch.as_tensor(GAP_ROW, dtype=torch.float32) / 10)

    def forward(self, motion: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """motion, target (B, T, 52); of the batch the masks count. Each term as it enters the sum.

        An open vowel may be flatter than its target, but lips that are as good as shut in its middle say another word.
        """
        w = self.loss
        error = (motion - target) * batch.seen[:, None]
        vertices = (error @ self.basis).unflatten(-1, (-1, 3))
        gap, goal = motion @ self.gap_row, target @ self.gap_row
        shut, apart = F.relu(gap) * batch.closure, F.relu(0.7 * goal - gap) * batch.vowel
        return {
            "weight": w.weight * (error.abs() * self.shape).mean() * 10,
            "velocity": w.velocity * error.diff(dim=1).abs().mean() * 10,
            "vertex": w.vertex * (vertices.square().sum(-1) + 1e-6).sqrt().mean() * 10,
            "closure": w.closure * shut.sum() / batch.closure.sum().clamp_min(1) * 10,
            "vowel": w.vowel * apart.sum() / batch.vowel.sum().clamp_min(1) * 10,
        }


def target_of(batch: Batch, felt: Tensor, strength: Tensor | None = None) -> Tensor:
    """Emotional motion where felt (B,), neutral delivery elsewhere; what the feeling adds times strength (B,)."""
    added = batch.emotional - batch.neutral
    share = felt.float() if strength is None else felt * strength
    return (batch.neutral + share[:, None, None] * added).clamp(0, 1)


def face_basis(points: int = 600, seed: int = 0) -> Tensor:
    """(52, P, 3) cm: expressions of the template on vertices drawn in proportion to how much they move."""
    from ..face.template import load_template

    template = load_template()
    deltas = torch.tensor(template.expressions, dtype=torch.float32) * 100
    skin = torch.zeros(len(template.vertices))
    skin[torch.from_numpy(template.of_part("skin"))] = 1
    travel = deltas.norm(dim=-1)
    travel[INDEX["tongueOut"]] = 0
    # 1 cm counts as much as 5 cm, or the chin under jawOpen would take all the points.
    chance = travel.clamp_max(1.0).sum(0) * skin
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(chance, min(points, int((chance > 0).sum())), generator=generator)
    return deltas[:, chosen]
