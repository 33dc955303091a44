"""Transformer parts of the motion prior and the LSF network. Sequences are (B, T, C); masks (B, T), True = real."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal positions (length, width) of Vaswani et al. 2017."""
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angle = torch.arange(length, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


class SelfAttention(nn.Module):
    """Multi-head self-attention, scaled by head_dim ** -0.5."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, -1))
        keep = None if mask is None else mask[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep, dropout_p=self.dropout if self.training else 0.0)
        return self.out(join_heads(y))


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)) with GELU."""

    def __init__(self, width: int, heads: int, mlp: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Linear(mlp, width), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


class TemporalConv(nn.Module):
    """Conv1d over time on (B, T, C). Padding frames are zeroed first, so that they read like the clip's end."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            x = x * mask[..., None]
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


def moving_mean(x: Tensor, frames: int, mask: Tensor | None = None) -> Tensor:
    """Mean of x (B, T, C) over `frames` (odd) frames around each one, of those that exist and are not padding.

    By differences of a running sum, in single precision: its cost does not grow with `frames`.
    """
    length, half = x.shape[1], frames // 2
    at = torch.arange(length, device=x.device)
    first, end = (at - half).clamp_min(0), (at + half + 1).clamp_max(length)

    def around(values: Tensor) -> Tensor:
        running = F.pad(values.float().cumsum(1), (0, 0, 1, 0))
        return running.index_select(1, end) - running.index_select(1, first)

    if mask is None:
        return (around(x) / (end - first)[:, None]).to(x.dtype)
    real = mask[..., None].float()
    return (around(x * real) / around(real).clamp_min(1e-6)).to(x.dtype)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, C) -> (B, heads, T, C / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, T, D) -> (B, T, heads * D)."""
    return x.transpose(1, 2).flatten(-2)
