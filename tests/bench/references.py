"""Networks to judge ours by, with random weights: what they cost, not what they say.

Each is re-stated in our own words from its paper's description, at its published sizes, in single precision, and given
every benefit of the doubt where the paper leaves a choice: attention is PyTorch's fused one, the encoder of a clip runs
once. `forward` maps samples (B, N) float32 at 16 kHz to 52 weights a frame (B, F, 52).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsf_core.network.blocks import TemporalConv, TransformerBlock, sinusoids
from lsf_core.network.hifb import PairCrossAttention, pairwise_cross_attention

SHAPES = 52
PAD = 400  # samples before and after a clip: an encoder's frame 50 times a second, the last one included


class Encoder(nn.Module):
    """HuBERT base (Hsu et al. 2021): 94 M parameters, 768 wide, 50 Hz."""

    width = 768

    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        from transformers import HubertConfig
        from transformers.models.hubert.modeling_hubert import HubertModel

        self.model = HubertModel(HubertConfig(num_hidden_layers=layers, apply_spec_augment=False))

    def forward(self, audio: Tensor, frames: int) -> Tensor:
        """(B, frames, 768), `frames` at 50 Hz."""
        return self.model(F.pad(audio, (PAD, PAD))).last_hidden_state[:, :frames]


class PublishedLSF(nn.Module):
    """LSF-Animation as published (Lu et al., SIGGRAPH Asia 2025, section 3): two encoders of 94 M parameters, 25 Hz,
    12 HIFB layers whose tokens attend to T x T explicit pairs, one codebook, 6 decoder blocks."""

    def __init__(self, layers: int = 12, encoder_layers: int = 12, width: int = 256) -> None:
        super().__init__()
        self.speech, self.feeling = Encoder(encoder_layers), Encoder(encoder_layers)
        self.motion_in, self.emotion_in = (nn.Linear(2 * Encoder.width, width) for _ in range(2))
        self.identity = nn.Sequential(nn.Linear(300, 256), nn.GELU(), nn.Linear(256, 128), nn.GELU(),
                                      nn.Linear(128, 32), nn.Softmax(-1), nn.Linear(32, width))
        self.tokens = nn.Parameter(torch.randn(4, width) * 0.02)
        self.motion_blocks, self.emotion_blocks, self.decoder = (
            nn.ModuleList(TransformerBlock(width, 8, 384) for _ in range(count)) for count in (layers, layers, 6))
        self.fuse = nn.ModuleList(PairCrossAttention(width, 8) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.to_code, self.from_code = nn.Linear(width, 128), nn.Linear(128, width)
        self.codebook = nn.Parameter(torch.randn(256, 128))
        self.conv = TemporalConv(width, width, 5)
        self.out = nn.Linear(width, SHAPES)

    def forward(self, audio: Tensor) -> Tensor:
        frames = audio.shape[1] // 640 * 2
        streams = []
        for encoder, project in ((self.speech, self.motion_in), (self.feeling, self.emotion_in)):
            streams.append(project(encoder(audio, frames).unflatten(1, (-1, 2)).flatten(2)))
        factor = self.identity(torch.zeros(len(audio), 300, device=audio.device))[:, None]
        motion, emotion = (x * factor + sinusoids(x.shape[1], x.shape[2], x.device) for x in streams)
        tokens = self.tokens.expand(len(audio), -1, -1)
        count = tokens.shape[1]
        for moving, feeling, fuse in zip(self.motion_blocks, self.emotion_blocks, self.fuse, strict=True):
            motion = moving(torch.cat([tokens, motion], 1))[:, count:]
            emotion = feeling(torch.cat([tokens, emotion], 1))[:, count:]
            tokens = tokens + pairwise_cross_attention(fuse, tokens, motion, emotion)
        latent = self.to_code(self.norm(motion))
        x = self.from_code(self.codebook[torch.cdist(latent, self.codebook[None]).argmin(-1)])
        x = x + F.gelu(self.conv(x))
        for block in self.decoder:
            x = block(x)
        return self.out(x)

    @staticmethod
    def memory(seconds: float, batch: int = 1) -> float:
        """Bytes that the pairs of one layer take: keys and values 256 wide, and once more the keys in another order."""
        return batch * (25 * seconds) ** 2 * 3 * 256 * 4.0


class Autoregressive(nn.Module):
    """FaceFormer's shape (Fan et al., CVPR 2022, as for VOCASET): an encoder of 94 M parameters, one decoder layer 64
    wide, 30 fps; each frame is predicted from all before it, which are run again each time."""

    def __init__(self, width: int = 64, fps: int = 30, encoder_layers: int = 12) -> None:
        super().__init__()
        self.fps = fps
        self.speech = Encoder(encoder_layers)
        self.project, self.embed = nn.Linear(Encoder.width, width), nn.Linear(SHAPES, width)
        self.layer = nn.TransformerDecoderLayer(width, 4, 2 * width, batch_first=True)
        self.out = nn.Linear(width, SHAPES)

    def forward(self, audio: Tensor) -> Tensor:
        count = audio.shape[1] * self.fps // 16000
        heard = self.speech(audio, audio.shape[1] // 320).transpose(1, 2)
        memory = self.project(F.interpolate(heard, size=count, mode="linear").transpose(1, 2))
        positions = sinusoids(count, memory.shape[2], audio.device)
        mask = nn.Transformer.generate_square_subsequent_mask(count, device=audio.device)
        aligned = ~torch.eye(count, dtype=torch.bool, device=audio.device)  # a frame hears its own moment alone
        embedded = torch.zeros(len(audio), 1, memory.shape[2], device=audio.device)
        frames = []
        for t in range(1, count + 1):
            x = self.layer(embedded + positions[:t], memory, tgt_mask=mask[:t, :t], memory_mask=aligned[:t])
            frames.append(self.out(x[:, -1:]))
            embedded = torch.cat([embedded, self.embed(frames[-1])], 1)
        return torch.cat(frames, 1)

    @staticmethod
    def memory(seconds: float, batch: int = 1) -> float:
        """Bytes of the two masks and the scores of the last step."""
        return (30 * seconds) ** 2 * (4.0 + 1.0 + 4 * 4.0 * batch)


class Diffusion(nn.Module):
    """FaceDiffuser's shape (Stan et al., MIG 2023): an encoder of 94 M parameters, two GRU layers 512 wide at 25 fps
    that take the noise off in `steps` steps (DDIM, Song et al. 2021)."""

    def __init__(self, width: int = 512, steps: int = 50, encoder_layers: int = 12) -> None:
        super().__init__()
        self.steps, self.width = steps, width
        self.speech = Encoder(encoder_layers)
        self.noisy, self.time = nn.Linear(SHAPES, width), nn.Sequential(nn.Linear(width, width), nn.Mish())
        self.gru = nn.GRU(2 * Encoder.width + 2 * width, width, 2, batch_first=True)
        self.out = nn.Linear(width, SHAPES)

    def forward(self, audio: Tensor) -> Tensor:
        frames = audio.shape[1] // 640 * 2
        heard = self.speech(audio, frames).unflatten(1, (-1, 2)).flatten(2)
        x = torch.randn(*heard.shape[:2], SHAPES, device=audio.device)
        times = self.time(sinusoids(self.steps, self.width, audio.device))
        kept = torch.linspace(0.01, 0.999, self.steps, device=audio.device)  # of the signal, after each step
        for step in range(self.steps):
            when = times[step].expand(*x.shape[:2], -1)
            clean = self.out(self.gru(torch.cat([heard, self.noisy(x), when], -1))[0])
            now, then = kept[step], kept[min(step + 1, self.steps - 1)]
            noise = (x - now.sqrt() * clean) / (1 - now).sqrt()
            x = then.sqrt() * clean + (1 - then).sqrt() * noise
        return x

    @staticmethod
    def memory(seconds: float, batch: int = 1) -> float:
        """Bytes of the encoder's widest activations, convolutions at 3.2 kHz 512 wide."""
        return batch * seconds * 3200 * 512 * 4 * 3.0


REFERENCES: dict[str, tuple[str, type[nn.Module]]] = {
    "published": ("published LSF, explicit pairs", PublishedLSF),
    "autoregressive": ("autoregressive (FaceFormer)", Autoregressive),
    "diffusion": ("diffusion, 50 steps (FaceDiffuser)", Diffusion),
}
