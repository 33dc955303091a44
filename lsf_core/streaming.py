"""Stream: sound in while it is spoken, facial motion out a bounded time later. The offline take stays the better one.

    stream = Stream(load_model(), fps=30, look_ahead=0.16)
    for samples in microphone:                     # any lengths; 16 kHz mono
        show(stream.feed(samples))                 # (n, 52) weights of the next n frames, n may be 0
    show(stream.finish())

The network hears windows of a fixed length that move on in steps, so that cost and memory of a second of sound are the
same after an hour. Windows lie on a grid of their own, whatever the chunks: the frames depend on the sound alone.

    heard     ------------------------------------------------|
    window                 [ past                      |look-|ahead]
    emitted   ------------------------------------------|
                                                    step of one window

No frame hears anything beyond `look_ahead` after itself, and every frame is out once so much has come in; frames at a
step's beginning have all of it ahead of them, those at its end a step less. docs/live.md has what that costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .arkit import ARKIT_NAMES, IDENTITY_DIM
from .audio import SAMPLE_RATE
from .causal import RunningMean, VoiceGate, frame_levels
from .edits import EditSettings, edit_settings
from .errors import AudioError, LSFError
from .feeling import emotion_shares
from .lips import GAP_ROW
from .livetake import Heard, LiveTake
from .motion import GAP_PROMINENCE_MM, MOUTH, frame_count
from .speech import FEATURE_RATE, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .animator import Animator

    Floats = NDArray[Any]

PAST_SECONDS = 1.26
"""What a window hears before the frames that it gives. Half a second more or less changes little, see docs/live.md."""

LEAST_LOOK_AHEAD, MOST_LOOK_AHEAD = 0.04, 2.0
SHORTEST_STEP, LONGEST_STEP = 0.08, 0.16

EMOTION_FRAMES = 100.0
"""Time constant of the feeling that is heard: 2 s of speech. Offline it is a mean over seconds around each frame."""

JOIN_FRAMES = 2.0
"""Time constant of the cross-fade from one window's motion to the next one's. Shorter leaves jumps, longer delays
closures (docs/live.md)."""

END_SECONDS = 0.25
"""A finished stream goes to rest in so long, or in its look-ahead if that is shorter."""

_NOTHING = np.zeros((0, len(ARKIT_NAMES)), np.float32)


class Stream:
    """The motion of one sound that comes in chunks.

    Responsibilities: cut windows, join what the network makes of them, follow voice and feeling, resample to `fps`.
    `frames`: how many are out. `seconds`: of sound that came in. `finished`: it has ended. The animator stays as it is.
    """

    def __init__(
        self, model: Animator, *, fps: float = FEATURE_RATE, look_ahead: float = 0.16, step: float | None = None,
        past: float = PAST_SECONDS, identity: Floats | None = None, seed: int = 0, emotion_strength: float = 1.0,
        edits: bool | EditSettings = True, emotion_from: Floats | None = None,
        emotion_mix: Mapping[str, float] | None = None,
    ) -> None:
        """look_ahead, step, past: seconds, in frames of 20 ms. A shorter step costs more and gives frames more future;
        None: half the look-ahead, from 0.08 to 0.16. emotion_from: what Animator.hear_emotion gives; None: as is heard.
        identity, seed, emotion_strength, edits, emotion_mix as for Animator.animate.
        Raises LSFError for what is out of range.
        """
        if not 1.0 <= fps <= 1000.0:
            raise LSFError(f"The frame rate is {fps}; it must be from 1 to 1000.")
        if not LEAST_LOOK_AHEAD <= look_ahead <= MOST_LOOK_AHEAD:
            raise LSFError(f"The look-ahead is {look_ahead} s; it must be from {LEAST_LOOK_AHEAD} to "
                           f"{MOST_LOOK_AHEAD} s.")
        # A frame between two frames of 50 Hz waits for the later one.
        between = 0 if (FEATURE_RATE / fps).is_integer() else 1
        self._ahead = int(look_ahead * FEATURE_RATE + 1e-6) - between
        if step is None:
            step = min(max(look_ahead / 2, SHORTEST_STEP), LONGEST_STEP)
        self._step = min(int(step * FEATURE_RATE + 1e-6), self._ahead)
        if self._step < 1:
            raise LSFError(f"The step is {step} s; it must be at least {1 / FEATURE_RATE} s.")
        self._length = self._ahead + max(int(past * FEATURE_RATE + 1e-6), self._step)
        identity = np.zeros(IDENTITY_DIM, np.float32) if identity is None else np.asarray(identity, np.float32)
        if identity.shape != (IDENTITY_DIM,):
            raise LSFError(f"identity has the shape {identity.shape}, not ({IDENTITY_DIM},); face.read_identity "
                           "gives it.")
        self._model, self.fps, self.look_ahead = model, float(fps), look_ahead
        self._identity = torch.from_numpy(identity)[None].to(model.device)
        self._reference, self._shares = emotion_from, emotion_shares(emotion_mix)
        settings = edits if isinstance(edits, EditSettings) else edit_settings(emotion_strength, edits)
        self._settle = settings.settle > 0
        self._take = LiveTake(settings, self.fps, seed)
        self._gate = VoiceGate(min(2, self._ahead - self._step))
        self._levels = np.zeros(0)
        self._feeling = RunningMean(EMOTION_FRAMES)
        self._resampler = _Resampler(self.fps)
        self._audio = np.zeros((self._length + 1) * SAMPLES_PER_FRAME, np.float32)
        self._new = np.zeros(self._step * SAMPLES_PER_FRAME, np.float32)
        self._filled, self._samples = 0, 0
        self._heard, self._emitted = 0, 0  # frames of 50 Hz
        self._last: Floats | None = None  # both deliveries of the last frame emitted, (2, 52)
        self._speaking, self.finished = False, False

    @property
    def step(self) -> float:
        """Seconds between two windows."""
        return self._step / FEATURE_RATE

    @property
    def frames(self) -> int:
        """Frames at `fps` that are out."""
        return self._resampler.given

    @property
    def seconds(self) -> float:
        """Of sound that came in."""
        return self._samples / SAMPLE_RATE

    def feed(self, samples: Floats) -> Floats:
        """Hear the next samples (n,), float mono at 16 kHz; weights (F, 52) float32 of the frames that they complete.

        Raises AudioError for what is no such sound, LSFError after `finish`. Then nothing was heard.
        """
        samples = np.asarray(samples)
        if self.finished:
            raise LSFError("This stream is finished. Begin another one.")
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise AudioError(f"A chunk must be mono floats of shape (N,), not {samples.dtype} of shape {samples.shape}."
                             " Average the channels and scale integers to -1..1 first.")
        if not np.isfinite(samples).all():
            raise AudioError(f"The sound holds NaN or infinite samples, after {self.seconds:.2f} s. Check its source.")
        self._samples += len(samples)
        out = [_NOTHING]
        while len(samples):
            piece = samples[: len(self._new) - self._filled]
            self._new[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            samples = samples[len(piece) :]
            if self._filled == len(self._new):
                self._filled = 0
                out.append(self._advance(self._step, self._heard + self._step - (self._ahead - self._step)))
        return np.concatenate(out)

    def finish(self) -> Floats:
        """The sound has ended: the frames (F, 52) that are left, so that all are ceil(seconds * fps)."""
        if self.finished:
            raise LSFError("This stream is finished. Begin another one.")
        self.finished = True
        if not self._samples:
            return _NOTHING
        count = -(-self._filled // SAMPLES_PER_FRAME)
        self._new[self._filled :] = 0.0
        return self._advance(count, self._heard + count)

    def _advance(self, count: int, until: int) -> Floats:
        """Hear `count` more frames of `_new`, and give what lies before frame `until`."""
        fresh = count * SAMPLES_PER_FRAME
        self._audio = np.concatenate([self._audio[fresh:], self._new[:fresh]])
        self._heard += count
        if count:
            levels = frame_levels(self._audio[-fresh - SAMPLES_PER_FRAME :], SAMPLES_PER_FRAME)
            self._gate.hear(levels)
            self._levels = np.concatenate([self._levels, levels])
        ready = until - self._emitted
        if ready > 0:
            heard = Heard(self._gate.voiced(self._emitted, until), self._levels[:ready])
            self._levels = self._levels[ready:]
            raw = self._take.mouth(*self._deliveries(ready, heard), heard)
            phrase_end = self._phrase_end(heard)
            self._emitted = until
        else:
            raw, phrase_end = _NOTHING, None
        if self.finished and self._settle:
            raw = raw * _to_rest(len(raw), self._ahead)[:, None]
        first = self.frames
        total = frame_count(self.seconds, self.fps) if self.finished else None
        return self._take.eyes(self._resampler.push(raw, total), first, phrase_end)

    @torch.inference_mode()
    def _deliveries(self, ready: int, heard: Heard) -> tuple[Floats, Floats]:
        """Neutral and felt weights (ready, 52) of the frames from `_emitted` on, joined to those before them."""
        if self._settle and self._take.asleep and not heard.voiced.any() and not self._speech_ahead():
            made = np.zeros((2, self._length, len(ARKIT_NAMES)))  # the face rests: a silent room costs nothing
        else:
            made = self._window(ready, heard)
        place = self._length - (self._heard - self._emitted)
        part = made[:, place : place + ready].astype(np.float64)
        if self._last is not None:
            apart = self._last - made[:, place - 1]
            part = part + apart[:, None] * np.exp(-(np.arange(ready) + 1) / JOIN_FRAMES)[:, None]
        self._last = part[:, -1]
        return part[0], part[1]

    def _window(self, ready: int, heard: Heard) -> Floats:
        """What the network makes of the newest window, neutral and as felt, (2, T, 52); the feeling that it hears in
        the next `ready` frames is remembered."""
        network, device = self._model.network, self._model.device
        audio = torch.from_numpy(self._audio[SAMPLES_PER_FRAME:])[None].to(device)
        asked: dict[str, Tensor] = {}
        with self._model._precision():
            features = self._model.speech(audio)
            emotion = self._reference
            if emotion is None:
                first = self._length - (self._heard - self._emitted)
                now = network.emotion(features.emotion, None)[0, first : first + ready]
                self._feeling.follow(now.float().cpu().numpy(), heard.voiced.astype(np.float64))
                if not self._feeling.empty:
                    emotion = self._feeling.value
            if emotion is not None:
                asked["emotion"] = torch.as_tensor(emotion, dtype=torch.float32).to(device).expand(1, self._length, -1)
            if self._shares is not None:
                asked["mix"] = torch.from_numpy(self._shares)[None].to(device)
            latent = network.deliveries(features, self._identity, **asked).float()
            made = network.prior.decode(network.prior.quantise(latent)).float()
            return torch.cat(network.clear(made.split(1), features)).cpu().numpy()

    def _speech_ahead(self) -> bool:
        """Whether somebody begins to speak within the look-ahead."""
        return bool(self._gate.voiced(self._emitted, self._heard).any())

    def _phrase_end(self, heard: Heard) -> float | None:
        """Seconds at which a phrase ended among these frames; None if none did."""
        before = np.concatenate([[self._speaking], heard.voiced[:-1]])
        ends = np.flatnonzero(before & ~heard.voiced)
        self._speaking = bool(heard.voiced[-1])
        return (self._emitted + int(ends[-1])) / FEATURE_RATE if len(ends) else None


class _Resampler:
    """Frames of 50 Hz that come in order, at another rate: Motion.resample without its future.

    Linear, but the mouth of a frame is taken from the closest lips within half a frame of it, where that is a closure:
    see Motion.resample.
    """

    def __init__(self, fps: float) -> None:
        self.given = 0
        self._ratio = FEATURE_RATE / fps
        self._keep = math.ceil(self._ratio) + 2
        self._recent = _NOTHING
        self._first = 0  # index of the first of `_recent`

    def push(self, raw: Floats, total: int | None = None) -> Floats:
        """Take the next frames (n, 52); (m, 52) that they make. total: the sound has ended, so many frames are all."""
        self._recent = np.concatenate([self._recent, raw])
        last = self._first + len(self._recent) - 1
        out = []
        while last >= 0 and (self.given < total if total is not None else self._ratio * self.given <= last + 1e-9):
            out.append(self._at(min(self._ratio * self.given, last)))
            self.given += 1
        surplus = max(0, min(len(self._recent) - 1, int(self._ratio * self.given) - self._keep - self._first))
        self._recent, self._first = self._recent[surplus:], self._first + surplus
        return np.stack(out) if out else _NOTHING

    def _at(self, where: float) -> Floats:
        low, high = math.floor(where + 1e-9), math.ceil(where - 1e-9)
        share = np.float32(where - low if high > low else 0.0)
        frame = (1 - share) * self._recent[low - self._first] + share * self._recent[high - self._first]
        half = self._ratio / 2
        near = range(max(math.floor(where - half) + 1, self._first), high + 1)
        if len(near) > 1:
            rows = self._recent[near.start - self._first : near.stop - self._first]
            gaps = rows @ GAP_ROW
            if gaps.min() < float(frame @ GAP_ROW) - GAP_PROMINENCE_MM:
                frame[list(MOUTH)] = rows[int(gaps.argmin()), list(MOUTH)]
        return frame


def _to_rest(count: int, within: int) -> Floats:
    """(count,) factors that fall from 1 to 0 over the last `within` frames, END_SECONDS at most."""
    length = min(count, within, round(END_SECONDS * FEATURE_RATE))
    fade = np.ones(count, np.float32)
    if length:
        fade[count - length :] = 0.5 + 0.5 * np.cos(np.pi * (np.arange(length) + 1) / length)
    return fade
