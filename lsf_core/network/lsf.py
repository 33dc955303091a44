"""LSFNetwork: stage 2, speech features + identity -> latent motion -> the prior's decoder -> motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..arkit import EMOTIONS
from ..speech import SpeechFeatures
from .blocks import TemporalConv, moving_mean, sinusoids
from .config import LSFConfig
from .hifb import HIFBLayer
from .mouth import LinearMouth
from .prior import MotionPrior


@dataclass
class LSFOutput:
    """latent (B, T, L) as predicted, before quantisation; motion (B, T, D) as decoded."""

    latent: Tensor
    motion: Tensor


class Identity(nn.Module):
    """Whose face it is, from the neutral mesh alone: soft membership in learned pseudo-speakers (section 3.2).

    Identity coefficients (B, I) -> softmax over pseudo-speakers -> a factor (B, 1, C) that *multiplies* a stream.
    """

    def __init__(self, config: LSFConfig) -> None:
        super().__init__()
        self.assign = nn.Sequential(
            nn.Linear(config.identity_dim, 128), nn.GELU(), nn.Linear(128, 64), nn.GELU(),
            nn.Linear(64, config.pseudo_speakers))
        self.factor = nn.Linear(config.pseudo_speakers, config.width)
        nn.init.ones_(self.factor.bias)              # starts as "everybody moves alike"

    def forward(self, identity: Tensor) -> Tensor:
        return self.factor(self.assign(identity).softmax(-1))[:, None]


class Stream(nn.Module):
    """Features of the encoder -> one stream of the network: normalise, project, see 100 ms of neighbours.

    basis: how many principal components of the features are heard, not unit-variance ones; 0: the features themselves.
    Directions in which synthesised voices hardly differ carry words that a real voice says otherwise: what is learned
    from them does not hold there.
    """

    def __init__(self, channels: int, width: int, parts: int, dropout: float = 0.0, basis: int = 0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        # Each hidden state is normalised by itself: Whisper's layers differ in size by an order of magnitude.
        self.norms = nn.ModuleList(nn.LayerNorm(channels // parts, elementwise_affine=not basis) for _ in range(parts))
        self.basis = nn.Linear(channels, basis).requires_grad_(False) if basis else None
        self.project = nn.Linear(basis or channels, width)
        self.conv = TemporalConv(width, width, 5)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.normed(x)
        x = self.project(self.dropout(x if self.basis is None else self.basis(x)))
        return x + nn.functional.gelu(self.conv(x, mask))

    def normed(self, x: Tensor) -> Tensor:
        """Features (..., C), each hidden state normalised by itself."""
        pieces = x.float().chunk(len(self.norms), -1)
        return torch.cat([norm(p) for norm, p in zip(self.norms, pieces, strict=True)], -1)

    @torch.no_grad()
    def fit_basis(self, features: Tensor) -> None:
        """Set the basis to the first principal components of features (N, C), with a mean variance of 1."""
        assert self.basis is not None
        x = self.normed(features)
        mean = x.mean(0)
        variance, direction = torch.linalg.eigh(torch.cov(x.T))         # in rising order
        kept = slice(-self.basis.out_features, None)
        rows = direction[:, kept].T.flip(0) / variance[kept].mean().sqrt()
        self.basis.weight.copy_(rows)
        self.basis.bias.copy_(-rows @ mean)


class LSFNetwork(nn.Module):
    """Articulation and emotion streams, identity by multiplication, HIFB, head; the frozen prior decodes.

    `forward(..., feel=False)` replaces the emotion stream by a learned "no emotion" vector: the same words delivered
    neutrally. The difference between both is what `emotion_strength` scales.

    `anchors`: one learned vector per emotion of arkit.EMOTIONS in the space of the heard emotion. Nothing needs them,
    the voice alone decides; `mix` lets an artist ask for a feeling that the voice does not have.
    """

    def __init__(self, config: LSFConfig, prior: MotionPrior, articulation_parts: int = 2,
                 emotion_parts: int = 2) -> None:
        super().__init__()
        self.config = c = config
        self.prior = prior
        self.articulation = Stream(c.articulation_dim, c.width, articulation_parts, basis=c.articulation_basis)
        self.mouth = (LinearMouth(c.articulation_dim, c.linear_components, articulation_parts)
                      if c.linear_components else None)
        self.emotion = Stream(c.emotion_dim, c.width, emotion_parts, c.emotion_dropout)
        self.neutral = nn.Parameter(torch.zeros(c.width))
        self.anchors = nn.Parameter(torch.randn(len(EMOTIONS), c.width) * 0.02)
        self.identity = Identity(c)
        self.tokens = nn.Parameter(torch.randn(c.fusion_tokens, c.width) * 0.02)
        self.layers = nn.ModuleList(HIFBLayer(c.width, c.heads, c.mlp, c.dropout) for _ in range(c.layers))
        self.dropout = nn.Dropout(c.dropout)
        self.emotion_gate = nn.Linear(c.width, c.width)
        self.concatenate = None if c.use_fusion else nn.Linear(2 * c.width, c.width)
        self.head_norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, prior.config.latent_dim)

    def heard(self, features: SpeechFeatures, mask: Tensor | None = None) -> Tensor:
        """How the voice feels at each frame, (B, T, width): the space of the anchors."""
        return moving_mean(self.emotion(features.emotion, mask), self.config.emotion_smoothing, mask)

    def latent(self, features: SpeechFeatures, identity: Tensor, mask: Tensor | None = None,
               feel: bool | Tensor = True, mix: Tensor | None = None, emotion: Tensor | None = None) -> Tensor:
        """Predicted latent (B, T, L). identity (B, I); mask (B, T) bool; feel: bool, or (B,) bool per clip.

        mix (B, len(EMOTIONS)): shares, of a sum up to 1, that the anchors take of the emotion; the rest is as heard.
        emotion (B, T, width): in place of what is `heard` in the features.
        """
        motion = self.articulation(features.articulation, mask)
        emotion = self.heard(features, mask) if emotion is None else emotion
        return self._fused(motion, emotion, identity, mask, feel, mix)

    def deliveries(self, features: SpeechFeatures, identity: Tensor, mix: Tensor | None = None,
                   emotion: Tensor | None = None) -> Tensor:
        """Predicted latents (2 B, T, L) of both deliveries of each clip: B neutral ones, then B as they feel. As
        `latent` gives them, with what both have in common, the features' streams, made once."""
        motion = self.articulation(features.articulation, None)
        emotion = self.heard(features) if emotion is None else emotion
        feel = torch.arange(2 * len(motion), device=motion.device) >= len(motion)
        return self._fused(motion.repeat(2, 1, 1), emotion.repeat(2, 1, 1), identity.repeat(2, 1), None, feel,
                           None if mix is None else mix.repeat(2, 1))

    def clear(self, deliveries: Sequence[Tensor], features: SpeechFeatures) -> list[Tensor]:
        """Deliveries (B, T, D) as decoded, of which the first is the words said neutrally, with the mouths that the
        linear opinion makes of them (mouth.py). What a feeling adds to the words stays."""
        if self.mouth is None:
            return list(deliveries)
        change = self.mouth.change(deliveries[0], features.articulation)
        return [delivery + change for delivery in deliveries]

    def _fused(self, motion: Tensor, emotion: Tensor, identity: Tensor, mask: Tensor | None, feel: bool | Tensor,
               mix: Tensor | None) -> Tensor:
        """The latent of a motion stream and the emotion as it is heard, both (B, T, width)."""
        c = self.config
        if mix is not None:
            heard = 1 - mix.sum(-1, keepdim=True)
            emotion = heard[..., None] * emotion + (mix @ self.anchors)[:, None]
        felt = torch.as_tensor(feel, device=emotion.device).expand(emotion.shape[0])
        if not c.use_emotion:
            felt = torch.zeros_like(felt)
        emotion = torch.where(felt[:, None, None], emotion, self.neutral.to(emotion.dtype))
        if c.use_identity:
            factor = self.identity(identity)
            motion, emotion = motion * factor, emotion * factor
        positions = sinusoids(motion.shape[1], c.width, motion.device).to(motion.dtype)
        motion, emotion = self.dropout(motion + positions), self.dropout(emotion + positions)
        tokens = self.tokens.expand(motion.shape[0], -1, -1)
        if self.concatenate is not None:
            # Ablation "HIFB replaced by concatenation": same blocks, but the streams meet only here.
            for layer in self.layers:
                assert isinstance(layer, HIFBLayer)
                motion, emotion = layer.separate(motion, emotion, mask)
            motion = self.concatenate(torch.cat([motion, emotion], -1))
        else:
            for layer in self.layers:
                tokens, motion, emotion = layer(tokens, motion, emotion, mask)
            if c.emotion_to_decoder:
                motion = motion + self.emotion_gate(emotion)
        return self.head(self.head_norm(motion))

    def forward(self, features: SpeechFeatures, identity: Tensor, mask: Tensor | None = None,
                feel: bool | Tensor = True, mix: Tensor | None = None, temperature: float = 0.0,
                gumbel: Tensor | None = None) -> LSFOutput:
        """See `latent`; temperature and gumbel as in `MotionPrior.quantise`."""
        latent = self.latent(features, identity, mask, feel, mix)
        return LSFOutput(latent, self.prior.decode(self.prior.quantise(latent, temperature, gumbel), mask))
