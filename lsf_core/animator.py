"""Animator: speech + neutral face -> Motion. The one place where a clip is cut in windows and put together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .arkit import ARKIT_NAMES, EMOTIONS, IDENTITY_DIM
from .audio import SAMPLE_RATE, check_speech, load_audio
from .checkpoint import load_checkpoint
from .cues import SoundCues
from .device import pick_device
from .edits import EditSettings, apply_edits, edit_settings, head_rotation
from .errors import ModelError
from .feeling import AS_HEARD, Feeling, emotion_shares, spoken_frames
from .graphs import Graphs
from .hearing import Hearing
from .motion import Motion, frame_count
from .network import LSFNetwork
from .rawtake import RawTake, mixed, to_steps
from .sampling import gumbel_noise, mean_draw, varied
from .speech import SAMPLES_PER_FRAME, SpeechEncoder
from .versions import checkpoint_path
from .windows import WINDOW, OverlapAdd, batches, cut, cut_windows, feature_frames, window_starts

WINDOWS_PER_BATCH = 8        # bounds memory whatever the clip's length
GRAPH_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""Batches of full windows that are recorded as CUDA graphs; others are filled up to the next of them. The largest stays
under 1 GiB."""

SHORT_AGAIN = 8
"""Times that a length under a full window comes before it is recorded: with many short lines each has its own."""

HOST_FRAMES = 1500
"""Frames up to which numpy has edited a take before all the kernels for it are started on a graphics card."""

Progress = Callable[[float, str], None]
Sound = str | Path | tuple[np.ndarray, int]
"""A sound file, or float mono samples and their rate."""


def load_model(name: str | Path | None = None, device: str = "auto", half: bool | None = None) -> Animator:
    """The animator of a checkpoint, by the name of its version (versions.py) or by path; None is the one that ships.

    device: "auto" (CUDA, else Apple's MPS, else CPU), "cpu", "cuda", "cuda:1", "mps". half: the network in half
    precision; None: on CUDA, where that pays. Raises ModelError if the device asked for is not there, there is no
    version of that name, or the checkpoint is not readable.
    """
    where = pick_device(device)
    checkpoint = load_checkpoint(checkpoint_path(name), where)
    return Animator(checkpoint.speech, checkpoint.network, where, checkpoint.about, half)


class Animator:
    """A loaded network. Animating changes nothing in it: one animator serves any number of clips and faces.

    In half precision the weights of its products and convolutions are kept as float16 and run so; mel energies, norms
    and the choice of codes stay in single precision. docs/performance.md tells how far that moves the face.
    """

    def __init__(self, speech: SpeechEncoder, network: LSFNetwork, device: torch.device,
                 about: dict[str, Any] | None = None, half: bool | None = None) -> None:
        self.speech, self.network, self.device = speech.eval(), network.eval(), device
        self.about = about or {}
        self.half = device.type == "cuda" if half is None else half
        if self.half:
            for part in (*speech.modules(), *network.modules()):
                if isinstance(part, (nn.Linear, nn.Conv1d)):
                    part.half()
        self.graphs = Graphs(self._window) if device.type == "cuda" else None

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
        asked = self._asked(audio, sample_rate, mesh, identity, temperature, progress, emotion_from, emotion_mix)
        if self.device.type == "cuda" and temperature == 0:
            return self._animate_there(asked, settings, fps, frames, seed, progress)
        raw = self._raw_take(asked, seed, temperature, progress)
        return raw.finish(settings, fps=fps, frames=frames, seed=seed)

    def raw_take(self, audio: str | Path | np.ndarray, sample_rate: int | None = None, *,
                 mesh: str | Path | tuple[np.ndarray, Any] | None = None, identity: np.ndarray | None = None,
                 seed: int = 0, temperature: float = 0.0, progress: Progress | None = None,
                 emotion_from: Sound | None = None, emotion_mix: Mapping[str, float] | None = None) -> RawTake:
        """What the network makes of the clip, before edits and at 50 Hz; arguments and errors as in `animate`."""
        asked = self._asked(audio, sample_rate, mesh, identity, temperature, progress, emotion_from, emotion_mix)
        return self._raw_take(asked, seed, temperature, progress)

    def _raw_take(self, asked: tuple[np.ndarray, np.ndarray, Feeling], seed: int, temperature: float,
                  progress: Progress | None) -> RawTake:
        samples, identity, feeling = asked
        return self.raw_weights([samples], identity[None], [seed], temperature, progress, [feeling])[0]

    def _asked(self, audio: str | Path | np.ndarray, sample_rate: int | None,
               mesh: str | Path | tuple[np.ndarray, Any] | None, identity: np.ndarray | None, temperature: float,
               progress: Progress | None, emotion_from: Sound | None, emotion_mix: Mapping[str, float] | None,
               ) -> tuple[np.ndarray, np.ndarray, Feeling]:
        """Samples (N,), identity (32,) and feeling that the arguments of `animate` ask for, checked."""
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; it must not be negative")
        shares = emotion_shares(emotion_mix)
        samples = read_samples(audio, sample_rate)
        check_speech(samples)
        identity = identity_of(mesh) if identity is None else np.asarray(identity)
        if identity.shape != (IDENTITY_DIM,):
            raise ValueError(f"identity has the shape {identity.shape}, not ({IDENTITY_DIM},); "
                             "face.read_identity gives it")
        reference = None if emotion_from is None else self.hear_emotion(emotion_from, progress=progress)
        return samples, identity, Feeling(reference, shares)

    @torch.inference_mode()
    def _animate_there(self, asked: tuple[np.ndarray, np.ndarray, Feeling], settings: EditSettings, fps: float,
                       frames: int | None, seed: int, progress: Progress | None) -> Motion:
        """The likeliest take, mixed on the device where the network left it: a fast graphics card would wait for the
        processor else. As `RawTake.finish` but for rounding."""
        samples, identity, feeling = asked
        made, cues = self._made([samples], identity[None], [seed], 0.0, progress, [feeling])[0]
        frames = frame_count(cues.seconds, fps) if frames is None else frames
        head = None
        if settings.head:  # the voice alone decides: made while the network runs
            head = head_rotation(cues, fps, frames, seed=seed, strength=settings.head)
        neutral, felt = to_steps(made)
        weights = mixed(neutral, felt, cues, settings.emotion)
        motion = Motion(ARKIT_NAMES, weights, cues.rate)
        if len(motion) <= HOST_FRAMES:
            motion = motion.on_host()
        return apply_edits(motion, cues, settings, fps=fps, frames=frames, seed=seed, head=head)

    @torch.inference_mode()
    def hear_emotion(self, sound: Sound, name: str = "", progress: Progress | None = None) -> np.ndarray:
        """The emotion of a recording, (C,) float32 for `Feeling.reference`: its mean over all that is spoken.

        A feeling is slow, and a recording of another length says other syllables at other times: one vector is what
        both have in common. Accents come from the clip itself. name: what an error calls the recording, by default the
        file. Raises AudioError where nobody can be heard in it.
        """
        samples = read_samples(sound) if isinstance(sound, (str, Path)) else read_samples(*sound)
        spoken = spoken_frames(samples, name or (str(sound) if isinstance(sound, (str, Path)) else ""))
        audio = sound_tensor(samples, self.device)
        frames = len(spoken)
        total, count = torch.zeros((), device=self.device), 0.0
        starts = window_starts(frames)
        for done, start in enumerate(starts):
            if progress is not None:
                progress(0.0, f"Hearing the emotion reference, {done} of {len(starts)} windows")
            length = min(WINDOW, frames - start)
            said = torch.from_numpy(spoken[start:start + length]).to(total)
            with self._precision():
                heard = self.network.emotion(self.speech(cut(audio, start, length)[None]).emotion, None)[0]
            total = total + said @ heard.float()
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
        made = self._made(clips, identities, seeds, temperature, progress, feelings)
        return [raw_take_of(deliveries.cpu().numpy(), cues) for deliveries, cues in made]

    def _made(self, clips: Sequence[np.ndarray], identities: np.ndarray, seeds: Sequence[int], temperature: float,
              progress: Progress | None, feelings: Sequence[Feeling] | None) -> list[tuple[Tensor, SoundCues]]:
        """Deliveries, on the device, and cues of each clip; arguments as in `raw_weights`."""
        sounds = [sound_tensor(clip, self.device) for clip in clips]
        hearing = [Hearing(sound) for sound in sounds]
        made = self.deliveries(sounds, identities, seeds, temperature, progress, feelings)
        # On a graphics card all is only begun so far: the cues are made of what was heard while the network runs.
        return [(deliveries, heard.cues()) for deliveries, heard in zip(made, hearing, strict=True)]

    @torch.inference_mode()
    def deliveries(self, sounds: Sequence[Tensor], identities: np.ndarray, seeds: Sequence[int] = (),
                   temperature: float = 0.0, progress: Progress | None = None,
                   feelings: Sequence[Feeling] | None = None) -> list[Tensor]:
        """What the network makes of sounds (N,) float32 on its device: of each (D, F, 52) at 50 Hz, there too, see
        `raw_take_of`. Other arguments as in `raw_weights`; seeds are needed where temperature > 0."""
        feelings = feelings or [AS_HEARD] * len(sounds)
        frames = [feature_frames(sound) for sound in sounds]
        faces = torch.as_tensor(np.asarray(identities), dtype=torch.float32).to(self.device)
        pieces, sums = cut_windows(frames), OverlapAdd(frames, self.device)
        plain = temperature == 0 and all(feeling.is_as_heard for feeling in feelings)
        done = 0
        for batch in batches(pieces, GRAPH_BATCHES[-1] if plain and self.graphs else WINDOWS_PER_BATCH):
            audio = torch.stack([cut(sounds[p.clip], p.start, p.length) for p in batch])
            identity = faces[torch.tensor([p.clip for p in batch]).to(self.device, non_blocking=True)]
            if plain:
                made = self._plain_batch(audio, identity)
            else:
                gumbel = None
                if temperature > 0:
                    gumbel = torch.stack([gumbel_noise(seeds[p.clip], p.start, p.length, self.network) for p in batch])
                    gumbel = gumbel.to(self.device)
                made = self._window(audio, identity, [feelings[p.clip] for p in batch], temperature, gumbel)
            sums.add(batch, made)
            done += len(batch)
            if progress is not None:
                progress(done / len(pieces), f"Animating, {done} of {len(pieces)} windows")
        return [sums.clip(number) for number in range(len(sounds))]

    def _plain_batch(self, audio: Tensor, identity: Tensor) -> Tensor:
        """`_window` of windows that feel as they are heard and take the likeliest codes, on CUDA as a recorded graph
        where this shape was recorded or is worth it. (B, T, 2, 52), to be used before the next call."""
        if self.graphs is None:
            return self._window(audio, identity)
        count, full = len(audio), audio.shape[1] == WINDOW * SAMPLES_PER_FRAME
        if full:
            missing = next(size for size in GRAPH_BATCHES if size >= count) - count
            audio, identity = (nn.functional.pad(x, (0, 0, 0, missing)) for x in (audio, identity))
        return self.graphs(audio, identity, after=1 if full else SHORT_AGAIN)[:count]

    def _window(self, audio: Tensor, identity: Tensor, feelings: Sequence[Feeling] = (), temperature: float = 0.0,
                gumbel: Tensor | None = None) -> Tensor:
        """Deliveries (B, T, D, 52) float32 of windows of sound (B, N): neutral and as felt, see `raw_take_of`."""
        network, prior = self.network, self.network.prior
        asked: dict[str, Tensor] = {}
        with self._precision():
            features = self.speech(audio)
            if any(f.reference is not None for f in feelings):
                asked["emotion"] = network.heard(features)
                for row, feeling in enumerate(feelings):
                    if feeling.reference is not None:
                        asked["emotion"][row] = torch.as_tensor(feeling.reference, device=self.device)
            if any(f.shares is not None for f in feelings):
                if not network.anchors.any():
                    raise ModelError("This network knows no emotions by name. Load a newer one (versions.py), or let "
                                     "the take feel like another recording.")
                none = np.zeros(len(EMOTIONS), np.float32)
                shares = np.stack([none if f.shares is None else f.shares for f in feelings])
                asked["mix"] = torch.from_numpy(shares).to(self.device)
            latent = network.deliveries(features, identity, **asked).float()
            latents = [prior.quantise(latent)]
            if gumbel is not None:
                latents.append(prior.quantise(latent, temperature, gumbel.repeat(2, 1, 1, 1)))
                latents.append(mean_draw(prior, latent, temperature))
            parts = [part for made in latents for part in prior.decode(made).float().split(len(identity))]
            parts = network.clear(parts, features)
        return torch.stack(parts, 2)

    def _precision(self) -> AbstractContextManager[Any]:
        """What the network's parts run in. The weights are float16 already: there is nothing to cache."""
        if not self.half:
            return nullcontext()
        return torch.autocast(self.device.type, torch.float16, cache_enabled=False)


def raw_take_of(deliveries: np.ndarray, cues: SoundCues) -> RawTake:
    """The take of a clip's deliveries (D, F, 52): neutral and felt; where it is sampled, both as drawn and as their
    mean draw, too."""
    neutral, felt = deliveries[:2]
    if len(deliveries) > 2:
        neutral, felt = varied(*deliveries[::2]), varied(*deliveries[1::2])
    return RawTake(neutral, felt, cues)


def sound_tensor(samples: np.ndarray, device: torch.device) -> Tensor:
    """Samples (N,) as float32 on the device; on the CPU the array itself where it can be."""
    samples = np.require(samples, np.float32, ["C", "W"])
    return torch.from_numpy(samples).to(device)


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
