"""Animator: speech + neutral face -> Motion. The one place where a clip is cut in windows and put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arkit import ARKIT_NAMES, IDENTITY_DIM
from .audio import SAMPLE_RATE, check_speech, load_audio
from .checkpoint import load_checkpoint
from .device import pick_device
from .edits import EditSettings, edit_settings
from .motion import Motion
from .network import LSFNetwork
from .rawtake import RawTake
from .speech import SAMPLES_PER_FRAME, SpeechEncoder, SpeechFeatures

DEFAULT_CHECKPOINT = Path(__file__).resolve().parent.parent / "assets" / "lsf-animation.safetensors"

WINDOW = 400                 # frames: 8 s, longer than any window the network was trained on is of no use
OVERLAP = 100                # frames: 2 s, over which neighbouring windows are cross-faded
SAMPLE_HOLD = 20             # frames: one draw of the motion prior is held for 0.4 s, about two syllables
WINDOWS_PER_BATCH = 8        # bounds memory whatever the clip's length

Progress = Callable[[float, str], None]


def load_model(path: str | Path | None = None, device: str = "auto") -> Animator:
    """The animator of a checkpoint; None is the one that ships.

    device: "auto" (CUDA, else Apple's MPS, else CPU), "cpu", "cuda", "cuda:1", "mps". Raises ModelError if the device
    asked for is not there or the checkpoint is not readable.
    """
    where = pick_device(device)
    checkpoint = load_checkpoint(path or DEFAULT_CHECKPOINT, where)
    return Animator(checkpoint.speech, checkpoint.network, where, checkpoint.about)


class Animator:
    """A loaded network. Animating changes nothing in it: one animator serves any number of clips and faces."""

    def __init__(self, speech: SpeechEncoder, network: LSFNetwork, device: torch.device,
                 about: dict[str, Any] | None = None) -> None:
        self.speech, self.network, self.device = speech.eval(), network.eval(), device
        self.about = about or {}

    def animate(self, audio: str | Path | np.ndarray, sample_rate: int | None = None, *,
                mesh: str | Path | tuple[np.ndarray, Any] | None = None, identity: np.ndarray | None = None,
                fps: float = 30.0, seed: int = 0, temperature: float = 0.0, emotion_strength: float = 1.0,
                edits: bool | EditSettings = True, progress: Progress | None = None,
                frames: int | None = None) -> Motion:
        """Facial motion of 52 ARKit weights at `fps`, ceil(duration * fps) frames unless `frames` says otherwise.

        audio: a sound file, or float mono samples with their sample_rate.
        mesh: the neutral face, a file or (vertices, faces); identity: its coefficients (32,) where they are known
        already; neither: the average face. temperature 0 takes the likeliest codes, about 1 gives livelier takes that
        differ by seed. emotion_strength 0..2 scales what the voice's emotion adds to the neutral delivery. edits adds
        what speech does not say (blinks, gaze, rest at both ends): True as usual, False nothing, or EditSettings, whose
        own `emotion` counts. progress(fraction, text) may raise to stop.
        Raises AudioError, MeshError, ModelError, ValueError, or LSFError for a strength out of range.
        """
        if not fps > 0:
            raise ValueError(f"fps must be positive, not {fps}")
        settings = edits if isinstance(edits, EditSettings) else edit_settings(emotion_strength, edits)
        raw = self.raw_take(audio, sample_rate, mesh=mesh, identity=identity, seed=seed, temperature=temperature,
                            progress=progress)
        return raw.finish(settings, fps=fps, frames=frames, seed=seed)

    def raw_take(self, audio: str | Path | np.ndarray, sample_rate: int | None = None, *,
                 mesh: str | Path | tuple[np.ndarray, Any] | None = None, identity: np.ndarray | None = None,
                 seed: int = 0, temperature: float = 0.0, progress: Progress | None = None) -> RawTake:
        """What the network makes of the clip, before edits and at 50 Hz; arguments and errors as in `animate`."""
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; it must not be negative")
        samples = read_samples(audio, sample_rate)
        check_speech(samples)
        if identity is None:
            identity = identity_of(mesh)
        if np.shape(identity) != (IDENTITY_DIM,):
            raise ValueError(f"identity has the shape {np.shape(identity)}, not ({IDENTITY_DIM},); "
                             "face.read_identity gives it")
        return self.raw_weights([samples], np.asarray(identity)[None], [seed], temperature, progress)[0]

    @torch.inference_mode()
    def raw_weights(self, clips: Sequence[np.ndarray], identities: np.ndarray, seeds: Sequence[int],
                    temperature: float = 0.0, progress: Progress | None = None) -> list[RawTake]:
        """Run the network on several clips at once: clips of float samples at 16 kHz, identities (len(clips), 32).

        Every clip is cut into windows of 8 s; windows of one length share a batch, whichever clip they are from.
        """
        pieces = [(c, start, min(WINDOW, feature_frames(clip) - start))
                  for c, clip in enumerate(clips) for start in window_starts(feature_frames(clip))]
        pieces.sort(key=lambda piece: -piece[2])
        sums = [Accumulator(feature_frames(clip)) for clip in clips]
        done = 0
        while done < len(pieces):
            length = pieces[done][2]
            batch = [p for p in pieces[done:done + WINDOWS_PER_BATCH] if p[2] == length]
            audio = torch.stack([cut(clips[c], start, length) for c, start, _ in batch]).to(self.device)
            identity = torch.as_tensor(identities[[c for c, *_ in batch]], dtype=torch.float32, device=self.device)
            gumbel = None
            if temperature > 0:
                gumbel = torch.stack([held_gumbel(seeds[c], start, length, self.network)
                                      for c, start, _ in batch]).to(self.device)
            neutral, emotional = self._window(self.speech(audio), identity, temperature, gumbel)
            for (c, start, _), plain, felt in zip(batch, neutral, emotional, strict=True):
                sums[c].add(start, plain, felt)
            done += len(batch)
            if progress is not None:
                progress(done / len(pieces), f"Animating, {done} of {len(pieces)} windows")
        return [RawTake.of(*s.result(), clip) for s, clip in zip(sums, clips, strict=True)]

    def _window(self, features: SpeechFeatures, identity: Tensor, temperature: float,
                gumbel: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """Both deliveries of a batch of windows, neutral and as felt: (B, T, 52) each."""
        twice = SpeechFeatures(features.articulation.repeat(2, 1, 1), features.emotion.repeat(2, 1, 1))
        count = len(identity)
        feel = torch.arange(2 * count, device=self.device) >= count
        noise = None if gumbel is None else gumbel.repeat(2, 1, 1, 1)
        motion = self.network(twice, identity.repeat(2, 1), feel=feel, temperature=temperature, gumbel=noise).motion
        both = motion.float().cpu().numpy()
        return both[:count], both[count:]


class Accumulator:
    """Overlap-add of windows. Each window fades in and out over OVERLAP frames; the sum of fades is divided out:

        window 0   ________________
                                   \\________
        window 1                   /        ________________
    """

    def __init__(self, frames: int) -> None:
        self.total = np.zeros((2, frames, len(ARKIT_NAMES)), np.float64)
        self.weight = np.zeros((frames, 1), np.float64)

    def add(self, start: int, neutral: np.ndarray, emotional: np.ndarray) -> None:
        length, frames = len(neutral), len(self.weight)
        fade = np.ones(length)
        ramp = (np.arange(OVERLAP) + 1) / (OVERLAP + 1)
        if start > 0:
            fade[:OVERLAP] = ramp
        if start + length < frames:
            fade[-OVERLAP:] = ramp[::-1]
        where = slice(start, start + length)
        self.total[0, where] += neutral * fade[:, None]
        self.total[1, where] += emotional * fade[:, None]
        self.weight[where] += fade[:, None]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(frames, 52) float32 each: the neutral delivery, and the emotional one."""
        neutral, emotional = (self.total / self.weight).astype(np.float32)
        return neutral, emotional


def feature_frames(samples: np.ndarray) -> int:
    """Frames at 50 Hz that cover the samples."""
    return max(1, -(-len(samples) // SAMPLES_PER_FRAME))


def window_starts(frames: int) -> list[int]:
    """First frames of the windows. The last one ends with the clip, so that every window but that of a short clip is
    full and no window sees padding; it may overlap its neighbour by more than OVERLAP."""
    if frames <= WINDOW:
        return [0]
    starts = list(range(0, frames - WINDOW, WINDOW - OVERLAP))
    return [*starts, frames - WINDOW]


def cut(samples: np.ndarray, start: int, length: int) -> Tensor:
    """`length` frames of samples from frame `start`; the clip's last frame is filled up with zeros."""
    piece = samples[start * SAMPLES_PER_FRAME:(start + length) * SAMPLES_PER_FRAME]
    return torch.from_numpy(np.pad(piece, (0, length * SAMPLES_PER_FRAME - len(piece))).astype(np.float32))


def held_gumbel(seed: int, start: int, length: int, network: LSFNetwork) -> Tensor:
    """Gumbel noise (length, groups, codes) for frames start .. start + length, one draw per SAMPLE_HOLD frames.

    The draw of a frame depends on the seed and the frame alone, so overlapping windows sample alike.
    """
    groups, codes = network.prior.config.groups, network.prior.config.codes
    blocks = {}
    for block in range(start // SAMPLE_HOLD, (start + length - 1) // SAMPLE_HOLD + 1):
        uniform = np.random.default_rng([seed & 0xFFFFFFFF, block]).random((groups, codes))
        blocks[block] = torch.from_numpy(-np.log(-np.log(uniform + 1e-12) + 1e-12)).float()
    return torch.stack([blocks[frame // SAMPLE_HOLD] for frame in range(start, start + length)])


def read_samples(audio: str | Path | np.ndarray, sample_rate: int | None) -> np.ndarray:
    """Float32 mono at 16 kHz from a path or from samples with their rate."""
    if isinstance(audio, (str, Path)):
        return load_audio(audio)
    if not np.issubdtype(np.asarray(audio).dtype, np.floating):
        raise ValueError(f"audio is an array of {np.asarray(audio).dtype}; give floats in [-1, 1] (int16 / 32768)")
    samples = np.asarray(audio, np.float32)
    if samples.ndim != 1 or sample_rate is None:
        raise ValueError(f"audio as an array must be mono (N,) with sample_rate given; got shape {samples.shape}, "
                         f"sample_rate {sample_rate}")
    if sample_rate == SAMPLE_RATE:
        return samples
    import soxr

    # Rounded down as `load_audio` does, so that ceil(duration * fps) counts no frame that the sound does not have.
    whole = int(len(samples) * SAMPLE_RATE // sample_rate)
    return soxr.resample(samples, sample_rate, SAMPLE_RATE)[:whole].astype(np.float32)


def identity_of(mesh: str | Path | tuple[np.ndarray, Any] | None) -> np.ndarray:
    """Identity coefficients (32,) of a neutral mesh; zeros, the average face, for None."""
    if mesh is None:
        return np.zeros(IDENTITY_DIM, np.float32)
    from .face import load_mesh, read_identity

    vertices, faces = load_mesh(mesh) if isinstance(mesh, (str, Path)) else mesh
    return read_identity(vertices, faces)
