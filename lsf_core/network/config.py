"""The sizes of the network. A checkpoint carries them, so that the file alone rebuilds the network."""

from __future__ import annotations

from dataclasses import dataclass

from ..arkit import ARKIT_NAMES, IDENTITY_DIM


@dataclass(frozen=True)
class PriorConfig:
    """Stage 1, the VQ-VAE motion prior (van den Oord et al. 2017; LSF-Animation section 3.1)."""

    motion_dim: int = len(ARKIT_NAMES)     # 53 in the FLAME motion space: 50 expression + 3 jaw
    width: int = 192
    heads: int = 4
    mlp: int = 384
    encoder_blocks: int = 3
    decoder_blocks: int = 2
    kernel: int = 5                        # of the convolutions at the prior's ends: 100 ms of context
    groups: int = 8                        # codebook groups per frame; each frame is `groups` codes
    codes: int = 256
    code_dim: int = 16

    @property
    def latent_dim(self) -> int:
        return self.groups * self.code_dim


@dataclass(frozen=True)
class LSFConfig:
    """Stage 2, the SIE encoder (speech, identity, emotion) with HIFB; section 3.2.

    The last four switches are for ablations.
    """

    articulation_dim: int = 1024
    emotion_dim: int = 1024
    identity_dim: int = IDENTITY_DIM
    pseudo_speakers: int = 32
    width: int = 192
    heads: int = 4
    mlp: int = 384
    layers: int = 3
    fusion_tokens: int = 4
    dropout: float = 0.1
    articulation_basis: int = 0            # principal components of the features that the mouth hears; 0: all
    linear_components: int = 0             # of the features that a second, linear opinion on the mouth hears; 0: none
    emotion_dropout: float = 0.3           # of the emotion features: few actors, easily learned by heart
    emotion_smoothing: int = 101           # frames, odd: 2 s; feelings are slow, and one syllable alone misleads
    use_emotion: bool = True
    use_identity: bool = True
    use_fusion: bool = True
    emotion_to_decoder: bool = True
