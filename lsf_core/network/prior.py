"""MotionPrior: stage 1, a VQ-VAE over facial motion at 50 Hz whose decoder writes every animation.

Each frame is `groups` codes of their own codebooks (product quantisation), so that a frame never shares a code with
its neighbours and the output does not depend on the clip's length. The quantiser is vector-quantize-pytorch's, with
exponential moving averages and dead-code replacement.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from .blocks import TemporalConv, TransformerBlock, sinusoids
from .config import PriorConfig


@dataclass
class PriorOutput:
    """What stage 1 trains on: motion (B, T, D), the code indices (B, T, groups), the commitment loss."""

    motion: Tensor
    indices: Tensor
    commitment: Tensor


class MotionPrior(nn.Module):
    """Motion (B, T, D) <-> discrete latents (B, T, groups * code_dim).

    Responsibilities: encode and quantise true motion (training), quantise or sample a predicted latent, decode.
    Only quantiser and decoder are needed to animate; checkpoints that ship leave the encoder out.
    """

    def __init__(self, config: PriorConfig, with_encoder: bool = True) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = MotionStack(c, c.motion_dim, c.latent_dim, c.encoder_blocks) if with_encoder else None
        # The library's own exchange between processes does not know several codebooks: training/loop.py copies them.
        self.quantiser = VectorQuantize(
            dim=c.latent_dim, heads=c.groups, codebook_dim=c.code_dim, codebook_size=c.codes,
            separate_codebook_per_head=True, kmeans_init=with_encoder, decay=0.95, threshold_ema_dead_code=2,
            commitment_weight=0.25, sync_codebook=False)
        # The latent already has groups * code_dim numbers: the library adds no projection of its own.
        assert isinstance(self.quantiser.project_in, nn.Identity)
        self.decoder = MotionStack(c, c.latent_dim, c.motion_dim, c.decoder_blocks)

    def forward(self, motion: Tensor) -> PriorOutput:
        """Reconstruct motion (B, T, D) through the codebooks; unpadded windows only."""
        assert self.encoder is not None, "this prior was loaded without its encoder"
        quantised, indices, commitment = self.quantiser(self.encoder(motion))
        return PriorOutput(self.decode(quantised), indices, commitment.sum())

    @torch.no_grad()
    def quantised_target(self, motion: Tensor) -> Tensor:
        """The latent (B, T, L) that stage 2 learns to predict for true motion (B, T, D)."""
        assert self.encoder is not None, "this prior was loaded without its encoder"
        return self.quantise(self.encoder(motion))

    def distances(self, latent: Tensor) -> Tensor:
        """Squared distances (B, T, groups, codes) from a latent to every code of its group, in single precision
        whatever the rest runs in: two codes are often about as near."""
        grouped = latent.unflatten(-1, (self.config.groups, -1)).float()
        book = self.quantiser.codebook.float()                                     # (groups, codes, code_dim)
        with torch.autocast(latent.device.type, enabled=False):
            across = torch.einsum("btgd,gcd->btgc", grouped, book)
        return grouped.square().sum(-1)[..., None] - 2 * across + book.square().sum(-1)

    def lookup(self, indices: Tensor) -> Tensor:
        """Code indices (B, T, groups) -> latent (B, T, L)."""
        return self.quantiser.get_output_from_indices(indices)

    def quantise(self, latent: Tensor, temperature: float = 0.0, gumbel: Tensor | None = None) -> Tensor:
        """Replace every group by a code: the nearest one, or at temperature > 0 one drawn from
        softmax(-distance^2 / temperature) (LSF-Animation, section 3.4).

        gumbel (B, T, groups, codes): standard Gumbel noise; adding it before the argmax draws exactly from that
        softmax (Maddison et al. 2014), and the caller decides over which frames one draw is held.
        Gradients pass straight through to `latent`.
        """
        if temperature > 0:
            if gumbel is None:
                raise ValueError("temperature > 0 needs gumbel noise")
            indices = (gumbel - self.distances(latent.detach()) / temperature).argmax(-1)
        else:
            indices = self.nearest(latent.detach())
        return latent + (self.lookup(indices) - latent).detach()

    def nearest(self, latent: Tensor) -> Tensor:
        """The nearest code (B, T, groups) of each group of a latent (B, T, L).

        |x - c|^2 = |x|^2 - 2 (x . c - |c|^2 / 2), and |x|^2 is the same for all codes: one product a group, with
        nothing of the size of all distances beside it.
        """
        book = self.quantiser.codebook.float()
        grouped = latent.float().flatten(0, 1).unflatten(-1, (self.config.groups, -1)).transpose(0, 1)
        with torch.autocast(latent.device.type, enabled=False):
            score = torch.baddbmm(-0.5 * book.square().sum(-1)[:, None], grouped, book.transpose(1, 2))
        return score.argmax(-1).T.unflatten(0, latent.shape[:2])

    def decode(self, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """Quantised latent (B, T, L) -> motion (B, T, D); not yet clipped to [0, 1]."""
        return self.decoder(latent, mask)


class MotionStack(nn.Module):
    """Linear, convolution, transformer blocks, linear: encoder and decoder of the prior have this one shape."""

    def __init__(self, config: PriorConfig, channels_in: int, channels_out: int, blocks: int) -> None:
        super().__init__()
        self.inlet = nn.Linear(channels_in, config.width)
        self.conv = TemporalConv(config.width, config.width, config.kernel)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, config.mlp) for _ in range(blocks))
        self.norm = nn.LayerNorm(config.width)
        self.outlet = nn.Linear(config.width, channels_out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.inlet(x)
        x = x + nn.functional.gelu(self.conv(x, mask))
        x = x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype)
        for block in self.blocks:
            x = block(x, mask)
        return self.outlet(self.norm(x))
