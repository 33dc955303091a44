"""Animator: speech + neutral face -> Motion. The one place where a clip is cut in windows and put together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arkit import EMOTIONS, IDENTITY_DIM
from .audio import SAMPLE_RATE, check_speech, load_audio
from .checkpoint import load_checkpoint
from .device import pick_device
from .edits import EditSettings, edit_settings
from .feeling import AS_HEARD, Feeling, emotion_shares, spoken_frames
from .motion import Motion
from .network import LSFNetwork
from .rawtake import RawTake
from .sampling import gumbel_noise, mean_draw, varied
from .speech import SAMPLES_PER_FRAME, SpeechEncoder, SpeechFeatures

DEFAULT_CHECKPOINT = Path(__file__).resolve().parent.parent / "assets" / "lsf-animation.safetensors"

WINDOW = 400                 # frames: 8 s, longer than any window the network was trained on is of no use
OVERLAP = 100                # frames: 2 s, over which neighbouring windows are cross-faded
WINDOWS_PER_BATCH = 8        # bounds memory whatever the clip's length

Progress = Callable[[float, str], None]
Sound = str | Path | tuple[np.ndarray, int]
"""A sound file, or float mono samples and their rate."""


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
                edits: bool | EditSettings = True, progress: Progress | None = None, frames: int | None = None,
                emotion_from: Sound | None = None, emotion_mix: Mapping[str, float] | None = None) -> Motion:
        """Facial motion of 52 ARKit weights at `fps`, ceil(duration * fps) frames unless `frames` says otherwise.

        audio: a sound file, or float mono samples with their sample_rate.
        mesh: the neutral face, a file or (vertices, faces); identity: its coefficients (32,) where they are known
        already; neither: the average face. temperature 0 takes the likeliest codes, about 1 gives livelier takes that
        differ by seed in all but the words. emotion_from: another recording whose emotion the face shows instead of the
        clip's ("say this as she says that"). emotion_mix: weights 0 to 1 of arkit.EMOTIONS by name; what they lack to 1
        stays as heard, a sum over 1 is scaled down to it. emotion_strength 0..2 scales what the emotion adds to the
        neutral delivery. edits adds what speech does not say (blinks, gaze, rest at both ends): True as usual, False
        nothing, or EditSettings, whose own `emotion` counts. progress(fraction, text) may raise to stop.
        Raises AudioError, MeshError, ModelError, ValueError, or LSFError for a strength out of range or an emotion that
        there is not.
        """
        if not fps > 0:
            raise ValueError(f"fps must be positive, not {fps}")
        settings = edits if isinstance(edits, EditSettings) else edit_settings(emotion_strength, edits)
        raw = self.raw_take(audio, sample_rate, mesh=mesh, identity=identity, seed=seed, temperature=temperature,
                            progress=progress, emotion_from=emotion_from, emotion_mix=emotion_mix)
        return raw.finish(settings, fps=fps, frames=frames, seed=seed)

    def raw_take(self, audio: str | Path | np.ndarray, sample_rate: int | None = None, *,
                 mesh: str | Path | tuple[np.ndarray, Any] | None = None, identity: np.ndarray | None = None,
                 seed: int = 0, temperature: float = 0.0, progress: Progress | None = None,
                 emotion_from: Sound | None = None, emotion_mix: Mapping[str, float] | None = None) -> RawTake:
        """What the network makes of the clip, before edits and at 50 Hz; arguments and errors as in `animate`."""
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; it must not be negative")
        shares = emotion_shares(emotion_mix)
        samples = read_samples(audio, sample_rate)
        check_speech(samples)
        if identity is None:
            identity = identity_of(mesh)
        if np.shape(identity) != (IDENTITY_DIM,):
            raise ValueError(f"identity has the shape {np.shape(identity)}, not ({IDENTITY_DIM},); "
                             "face.read_identity gives it")
        feeling = Feeling(None if emotion_from is None else self.hear_emotion(emotion_from, progress=progress), shares)
        return self.raw_weights([samples], np.asarray(identity)[None], [seed], temperature, progress, [feeling])[0]

    @torch.inference_mode()
    def hear_emotion(self, sound: Sound, name: str = "", progress: Progress | None = None) -> np.ndarray:
        """The emotion of a recording, (C,) float32 for `Feeling.reference`: its mean over all that is spoken.

        A feeling is slow, and a recording of another length says other syllables at other times: one vector is what
        both have in common. Accents come from the clip itself. name: what an error calls the recording, by default the
        file. Raises AudioError where nobody can be heard in it.
        """
        samples = read_samples(sound) if isinstance(sound, (str, Path)) else read_samples(*sound)
        spoken = spoken_frames(samples, name or (str(sound) if isinstance(sound, (str, Path)) else ""))
        frames = len(spoken)
        total, count = torch.zeros(self.network.config.width, device=self.device), 0.0
        starts = window_starts(frames)
        for done, start in enumerate(starts):
            if progress is not None:
                progress(0.0, f"Hearing the emotion reference, {done} of {len(starts)} windows")
            length = min(WINDOW, frames - start)
            features = self.speech(cut(samples, start, length)[None].to(self.device))
            said = torch.from_numpy(spoken[start:start + length]).to(total)
            total += said @ self.network.emotion(features.emotion, None)[0]
            count += float(said.sum())
        return (total / count).cpu().numpy()

    @torch.inference_mode()
    def raw_weights(self, clips: Sequence[np.ndarray], identities: np.ndarray, seeds: Sequence[int],
                    temperature: float = 0.0, progress: Progress | None = None,
                    feelings: Sequence[Feeling] | None = None) -> list[RawTake]:
        """Run the network on several clips at once: clips of float samples at 16 kHz, identities (len(clips), 32),
        feelings (one a clip; None: each as it is heard).

        Every clip is cut into windows of 8 s; windows of one length share a batch, whichever clip they are from.
        """
        feelings = feelings or [AS_HEARD] * len(clips)
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
                gumbel = torch.stack([gumbel_noise(seeds[c], start, length, self.network)
                                      for c, start, _ in batch]).to(self.device)
            made = self._window(self.speech(audio), identity, [feelings[c] for c, *_ in batch], temperature, gumbel)
            for (c, start, _), deliveries in zip(batch, made, strict=True):
                sums[c].add(start, deliveries)
            done += len(batch)
            if progress is not None:
                progress(done / len(pieces), f"Animating, {done} of {len(pieces)} windows")
        return [raw_take_of(s.result(), clip) for s, clip in zip(sums, clips, strict=True)]

    def _window(self, features: SpeechFeatures, identity: Tensor, feelings: Sequence[Feeling], temperature: float,
                gumbel: Tensor | None) -> np.ndarray:
        """Deliveries of a batch of windows, (B, D, T, 52): neutral and as felt, see `raw_take_of`."""
        count, network, prior = len(identity), self.network, self.network.prior
        feel = torch.arange(2 * count, device=self.device) >= count
        asked: dict[str, Tensor] = {}
        if any(f.reference is not None for f in feelings):
            emotion = network.heard(features)
            for row, feeling in enumerate(feelings):
                if feeling.reference is not None:
                    emotion[row] = torch.as_tensor(feeling.reference, device=self.device)
            asked["emotion"] = emotion.repeat(2, 1, 1)
        if any(f.shares is not None for f in feelings):
            none = np.zeros(len(EMOTIONS), np.float32)
            shares = np.stack([none if f.shares is None else f.shares for f in feelings])
            asked["mix"] = torch.from_numpy(shares).to(self.device).repeat(2, 1)
        twice = SpeechFeatures(features.articulation.repeat(2, 1, 1), features.emotion.repeat(2, 1, 1))
        latent = network.latent(twice, identity.repeat(2, 1), feel=feel, **asked)
        latents = [prior.quantise(latent)]
        if gumbel is not None:
            latents.append(prior.quantise(latent, temperature, gumbel.repeat(2, 1, 1, 1)))
            latents.append(mean_draw(prior, latent, temperature))
        parts = [part for made in latents for part in prior.decode(made).float().split(count)]
        return torch.stack(parts, 1).cpu().numpy()


class Accumulator:
    """Overlap-add of windows. Each window fades in and out over OVERLAP frames; the sum of fades is divided out:

        window 0   ________________
                                   \\________
        window 1                   /        ________________
    """

    def __init__(self, frames: int) -> None:
        self.total: np.ndarray | None = None
        self.weight = np.zeros((frames, 1), np.float64)

    def add(self, start: int, deliveries: np.ndarray) -> None:
        """Lay a window's deliveries (D, T, 52) over frames `start` .. `start` + T."""
        count, length, shapes = deliveries.shape
        frames = len(self.weight)
        if self.total is None:
            self.total = np.zeros((count, frames, shapes), np.float64)
        fade = np.ones(length)
        ramp = (np.arange(OVERLAP) + 1) / (OVERLAP + 1)
        if start > 0:
            fade[:OVERLAP] = ramp
        if start + length < frames:
            fade[-OVERLAP:] = ramp[::-1]
        where = slice(start, start + length)
        self.total[:, where] += deliveries * fade[:, None]
        self.weight[where] += fade[:, None]

    def result(self) -> np.ndarray:
        """(D, frames, 52) float32: the deliveries of the whole clip."""
        assert self.total is not None, "every clip has a window"
        return (self.total / self.weight).astype(np.float32)


def raw_take_of(deliveries: np.ndarray, samples: np.ndarray) -> RawTake:
    """The take of a clip's deliveries (D, F, 52): neutral and felt; where it is sampled, both as drawn and as their
    mean draw, too."""
    neutral, felt = deliveries[:2]
    if len(deliveries) > 2:
        neutral, felt = varied(*deliveries[::2]), varied(*deliveries[1::2])
    return RawTake.of(neutral, felt, samples)


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


def read_samples(audio: str | Path | np.ndarray, sample_rate: int | None = None) -> np.ndarray:
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
