"""SpeechEncoder: 16 kHz audio -> what is said (articulation features) and how it is felt (emotion features), 50 Hz.

One pretrained encoder of `transformers` serves both streams: late layers for articulation, middle layers for emotion.
The default is Whisper (MIT); HuBERT, WavLM and wav2vec2 are a configuration away (Lu et al. 2025 use HuBERT).

Frame t of the features lies at t / 50 s for every encoder: Whisper's frames do by construction, the others' after
their input is padded by half a receptive field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .audio import SAMPLE_RATE
from .errors import ModelError

FEATURE_RATE = 50.0
SAMPLES_PER_FRAME = int(SAMPLE_RATE / FEATURE_RATE)

N_FFT = 400                     # Whisper's analysis window, 25 ms
HOP_LENGTH = 160                # 10 ms; the encoder's stride of 2 makes 50 Hz of it
MAX_POSITIONS = 512             # rows of Whisper's position table that a checkpoint keeps: 10 s, the windows have 8 s
HALF_FIELD = 200                # wav2vec2-style frame k sees samples 320 k .. 320 k + 400: its centre is 200 late


@dataclass(frozen=True)
class SpeechConfig:
    """Which encoder, and which of its hidden states feed the two streams.

    `encoder` is the `transformers` configuration as a dictionary (with its `model_type`). Hidden state 0 is the input
    of the first layer, state n the output of layer n; layers above the highest state used are never built.
    """

    encoder: dict[str, Any] = field(default_factory=dict)
    articulation_layers: tuple[int, ...] = (2, 4)
    emotion_layers: tuple[int, ...] = (2, 3)

    @property
    def kind(self) -> str:
        return str(self.encoder["model_type"])

    @property
    def width(self) -> int:
        return int(self.encoder.get("d_model") or self.encoder["hidden_size"])

    @property
    def depth(self) -> int:
        return max(*self.articulation_layers, *self.emotion_layers)


@dataclass
class SpeechFeatures:
    """articulation (B, T, Da) and emotion (B, T, De) at 50 Hz."""

    articulation: Tensor
    emotion: Tensor


class SpeechEncoder(nn.Module):
    """A frozen pretrained speech encoder, cut after the last layer that is used.

    Responsibilities: the front end (log-mel or raw waveform), running without 30 s padding, picking hidden states,
    putting every encoder's frames on the same 50 Hz grid.
    """

    mel_bank: Tensor
    window: Tensor

    def __init__(self, config: SpeechConfig, model: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.model = model if model is not None else build_encoder(config)
        self.eval().requires_grad_(False)
        if config.kind == "whisper":
            from transformers.audio_utils import mel_filter_bank

            bank = mel_filter_bank(N_FFT // 2 + 1, int(config.encoder["num_mel_bins"]), 0.0, 8000.0, SAMPLE_RATE,
                                   norm="slaney", mel_scale="slaney")
            self.register_buffer("mel_bank", torch.from_numpy(bank).float(), persistent=False)
            self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    @property
    def articulation_dim(self) -> int:
        return self.config.width * len(self.config.articulation_layers)

    @property
    def emotion_dim(self) -> int:
        return self.config.width * len(self.config.emotion_layers)

    def train(self, mode: bool = True) -> SpeechEncoder:
        """Stays in evaluation mode: the encoder is frozen, dropout would only blur it."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> SpeechFeatures:
        """audio (B, N) float at 16 kHz -> features of T = ceil(N / 320) frames.

        All clips of a batch have the same length: none of these encoders can mask padding without changing what it
        hears, so `Animator` batches windows of one length.
        """
        frames = -(-audio.shape[1] // SAMPLES_PER_FRAME)
        audio = F.pad(audio, (0, frames * SAMPLES_PER_FRAME - audio.shape[1]))
        states = self._whisper_states(audio) if self.config.kind == "whisper" else self._wave_states(audio, frames)
        return SpeechFeatures(torch.cat([states[i] for i in self.config.articulation_layers], -1),
                              torch.cat([states[i] for i in self.config.emotion_layers], -1))

    def log_mel(self, audio: Tensor) -> Tensor:
        """Whisper's input (B, 80, 2 T): log10 mel energies, floored 8 below the maximum (Radford et al. 2022). In
        single precision whatever the rest runs in: energies of quiet and loud sounds are ten powers of ten apart."""
        with torch.autocast(audio.device.type, enabled=False):
            spectrum = torch.stft(audio.float(), N_FFT, HOP_LENGTH, window=self.window, center=True,
                                  return_complex=True)
            mel = self.mel_bank.T @ spectrum[..., :-1].abs().square()
        log = mel.clamp_min(1e-10).log10()
        log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0

    def _whisper_states(self, audio: Tensor) -> list[Tensor]:
        """`WhisperEncoder.forward` insists on 30 s of input; its own parts run on any length."""
        model: Any = self.model
        dtype = model.conv1.weight.dtype
        x = F.gelu(model.conv1(self.log_mel(audio).to(dtype)))
        x = F.gelu(model.conv2(x)).transpose(1, 2)
        if x.shape[1] > len(model.embed_positions.weight):
            raise ValueError(f"a window of {x.shape[1] / FEATURE_RATE:.1f} s is longer than the encoder's "
                             f"{len(model.embed_positions.weight) / FEATURE_RATE:.1f} s: cut the clip in windows")
        x = x + model.embed_positions.weight[: x.shape[1]]
        states = [x]
        for layer in model.layers:
            x = layer(x, None)
            x = x[0] if isinstance(x, tuple) else x
            states.append(x)
        return states

    def _wave_states(self, audio: Tensor, frames: int) -> list[Tensor]:
        model: Any = self.model
        audio = (audio - audio.mean(1, keepdim=True)) / (audio.std(1, keepdim=True) + 1e-5)
        hidden = model(F.pad(audio, (HALF_FIELD, HALF_FIELD)), output_hidden_states=True).hidden_states
        return [h[:, :frames] for h in hidden]


def build_encoder(config: SpeechConfig) -> nn.Module:
    """An encoder with random weights, of only the layers that are used; a checkpoint fills it."""
    settings = dict(config.encoder)
    kind = settings.pop("model_type")
    library = import_encoder(kind)
    if kind == "whisper":
        return library.WhisperEncoder(library.WhisperConfig(**{**settings, "encoder_layers": config.depth}))
    settings["num_hidden_layers"] = config.depth
    return library.AutoModel.from_config(library.AutoConfig.for_model(kind, **settings))


def import_encoder(kind: str) -> Any:
    """The module of transformers that has encoders of this kind. For Whisper that is its own: the one for all kinds
    imports a good deal more."""
    if kind == "whisper":
        from transformers.models.whisper import modeling_whisper

        return modeling_whisper
    import transformers

    return transformers


def load_pretrained(folder: str | Path, articulation_layers: tuple[int, ...],
                    emotion_layers: tuple[int, ...]) -> SpeechEncoder:
    """A SpeechEncoder from a folder in transformers' format (config.json, model.safetensors).

    Raises ModelError where the folder is not one.
    """
    from transformers import AutoConfig, AutoModel

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ModelError(f"No speech encoder at {folder}: config.json is missing. "
                         "Give a folder that transformers' save_pretrained wrote.")
    auto = AutoConfig.from_pretrained(folder)
    if auto.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        model: Any = WhisperEncoder.from_pretrained(folder, dtype=torch.float32)
        layers = model.layers
        model.embed_positions = nn.Embedding.from_pretrained(model.embed_positions.weight[:MAX_POSITIONS].clone())
        auto.max_source_positions = MAX_POSITIONS
        wanted = ("d_model", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins", "max_source_positions",
                  "activation_function")
        settings = {"model_type": "whisper", **{k: getattr(auto, k) for k in wanted}}
    else:
        model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        layers = model.encoder.layers
        settings = auto.to_diff_dict()
    config = SpeechConfig(settings, articulation_layers, emotion_layers)
    del layers[config.depth:]
    return SpeechEncoder(config, model)
