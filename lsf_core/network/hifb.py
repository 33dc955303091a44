"""HIFB, the hierarchical interaction fusion block (LSF-Animation, section 3.3), in exact linear-cost form.

The paper lets learned fusion tokens attend to the "Cartesian product" of the motion and the emotion sequence: every
pair (m_i, e_j), concatenated, gives a key and a value. Those maps are linear, so for a query q

    key(i, j)   = Km m_i + Ke e_j      =>  q . key(i, j)  = a_i + b_j
    value(i, j) = Vm m_i + Ve e_j

and softmax over all pairs of a_i + b_j is the outer product softmax_i(a) softmax_j(b). Summing the values under it

    sum_ij p_i r_j (Vm m_i + Ve e_j)  =  sum_i p_i Vm m_i  +  sum_j r_j Ve e_j

which is one cross-attention to the motion plus one to the emotion: T_m + T_e keys in place of T_m * T_e, and the
same numbers. `pairwise_cross_attention` is the definition, kept as the reference that the tests compare with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import TransformerBlock, join_heads, split_heads


class PairCrossAttention(nn.Module):
    """Fusion tokens (B, K, C) attend to all pairs of motion (B, T, C) and emotion (B, S, C) at cost O(T + S)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.motion_kv = nn.Linear(width, 2 * width)
        self.emotion_kv = nn.Linear(width, 2 * width, bias=False)     # one bias per pair is enough
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, motion: Tensor, emotion: Tensor, mask: Tensor | None = None) -> Tensor:
        query = split_heads(self.query(tokens), self.heads)
        keep = None if mask is None else mask[:, None, None, :]
        total: Tensor | float = 0.0
        for sequence, projection in ((motion, self.motion_kv), (emotion, self.emotion_kv)):
            key, value = (split_heads(y, self.heads) for y in projection(sequence).chunk(2, -1))
            total = total + F.scaled_dot_product_attention(query, key, value, attn_mask=keep)
        assert isinstance(total, Tensor)
        return self.out(join_heads(total))


def pairwise_cross_attention(layer: PairCrossAttention, tokens: Tensor, motion: Tensor, emotion: Tensor,
                             mask: Tensor | None = None) -> Tensor:
    """The paper's definition with the explicit T x S pairs; memory O(T S). For tests and benchmarks."""
    query = split_heads(layer.query(tokens), layer.heads)
    pairs = layer.motion_kv(motion)[:, :, None] + layer.emotion_kv(emotion)[:, None, :]
    key, value = (split_heads(y, layer.heads) for y in pairs.flatten(1, 2).chunk(2, -1))
    score = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is not None:
        keep = (mask[:, :, None] & mask[:, None, :]).flatten(1)
        score = score.masked_fill(~keep[:, None, None], float("-inf"))
    return layer.out(join_heads(score.softmax(-1) @ value))


class HIFBLayer(nn.Module):
    """One layer: tokens join each stream through its own transformer block, then read both streams back.

    The streams' copies of the tokens are dropped after the blocks; the tokens themselves are updated by the pair
    cross-attention and carry what fused to the next layer.
    """

    def __init__(self, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.motion_block = TransformerBlock(width, heads, mlp, dropout)
        self.emotion_block = TransformerBlock(width, heads, mlp, dropout)
        self.token_norm = nn.LayerNorm(width)
        self.motion_norm = nn.LayerNorm(width)
        self.emotion_norm = nn.LayerNorm(width)
        self.fuse = PairCrossAttention(width, heads)

    def forward(self, tokens: Tensor, motion: Tensor, emotion: Tensor,
                mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        count = tokens.shape[1]
        joint = None if mask is None else F.pad(mask, (count, 0), value=True)
        motion = self.motion_block(torch.cat([tokens, motion], 1), joint)[:, count:]
        emotion = self.emotion_block(torch.cat([tokens, emotion], 1), joint)[:, count:]
        tokens = tokens + self.fuse(self.token_norm(tokens), self.motion_norm(motion), self.emotion_norm(emotion), mask)
        return tokens, motion, emotion

    def separate(self, motion: Tensor, emotion: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The blocks alone, without tokens: what is left of the layer in the ablation "concatenation"."""
        return self.motion_block(motion, mask), self.emotion_block(emotion, mask)
