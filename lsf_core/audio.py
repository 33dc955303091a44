"""Any sound file -> 16 kHz mono float32, its loudness, and where in it somebody speaks.

Decoding: soundfile (libsndfile: wav, flac, ogg/vorbis, opus, mp3, aiff ...) first, because it is quick and seeks by the
sample; PyAV (FFmpeg's libraries in the wheel, no program needed) for m4a, aac, the sound of a video, and whatever
libsndfile refuses. Resampling: soxr's HQ setting, which is also librosa's default. librosa itself is kept out of this
file: importing it costs seconds (numba), and the worker that Blender waits for would pay them at each start.

Decoders and the resampler are imported when a file is read: loudness and voice activity, which the edits need, run on
numpy alone. A file is read in blocks that are mixed down and resampled as they come, so an hour of 48 kHz stereo never
lies in memory as such. Errors are `AudioError`s that name the file, the value and the cure.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Blocks = Generator[tuple[Samples, int], None, None]

SAMPLE_RATE = 16_000
"""Samples per second of every array of sound in lsf_core; what the speech encoders were trained on."""

MIN_SECONDS = 0.2
"""Shorter sounds hold no syllable: nothing could be heard in them."""

SILENCE_DB = -60.0
"""A sound whose loudest 40 ms stay under this (dB of full scale, RMS) is silent: some 30 dB below quiet speech."""

FLOOR_DB = -100.0
"""Loudness of digital silence."""

_BLOCK_SECONDS = 20.0
_SEEK_MARGIN = 0.5  # seconds decoded and thrown away after a seek in AAC or MP3, whose frames lean on earlier ones
_WINDOW_SECONDS = 0.04


def load_audio(path: str | os.PathLike[str], offset: float = 0.0, duration: float | None = None) -> Samples:
    """Read a sound file, or a part of it, as 16 kHz mono.

    path: any file that libsndfile or FFmpeg can decode; of a video, its first audio stream.
    offset, duration: seconds, in the file's own time; None means to the end. A duration that runs over the end gives
    what is there. The part is sought, not decoded from the start.
    Returns (N,) float32, channels averaged, N = floor(seconds * 16000): rounded down, so that ceil(N / 16000 * fps)
    never counts a frame that the file does not have.
    Raises AudioError: missing, a folder, unreadable, empty or corrupt file, no audio stream, NaN or infinite samples,
    offset beyond the end. Silence is no error here, see `check_speech`.
    """
    name = os.fspath(path)
    _check_range(name, offset, duration)
    _check_file(name)
    reasons = []
    for decode in (_decode_soundfile, _decode_av):
        out = _Collector(name)
        try:
            with closing(decode(name, offset, duration)) as blocks:
                for block, rate in blocks:
                    out.push(block, rate)
        except _CannotDecode as error:
            reasons.append(str(error))
            continue
        audio = out.finish()
        if not len(audio):
            where = f" after {offset:.2f} s" if offset else ""
            raise AudioError(f"The sound file holds no samples{where}: '{name}'. Export it again or choose another.")
        return audio
    raise AudioError(
        f"The sound file cannot be decoded: '{name}' ({'; '.join(reasons)}). "
        "It is damaged or not a sound; convert it to WAV, FLAC, OGG, MP3 or M4A, or choose another file."
    )


def check_speech(audio: Samples, name: str = "The sound") -> None:
    """Refuse a sound that no speech can be heard in.

    audio: (N,) float at 16 kHz. name: what the message calls it, for instance the path in quotes.
    Raises AudioError: wrong shape, NaN or infinite samples, shorter than 0.2 s, or silent throughout.
    """
    audio = np.asarray(audio)
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise AudioError(
            f"{name} must be a mono float array of shape (N,), not {audio.dtype} of shape {audio.shape}. "
            "Average the channels and scale integers to -1..1 first."
        )
    level = loudness_db(audio)
    if not np.isfinite(level).all() and not np.isfinite(audio).all():
        raise AudioError(f"{name} holds NaN or infinite samples. Export the sound again, best as 16-bit WAV.")
    seconds = len(audio) / SAMPLE_RATE
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{name} is too short: {seconds:.2f} s, at least {MIN_SECONDS:g} s are needed. "
            "Use a longer strip or trim it less."
        )
    loudest = float(level.max())
    if loudest < SILENCE_DB:
        raise AudioError(
            f"{name} is silent: its loudest moment is at {loudest:.0f} dB, speech needs more than {SILENCE_DB:.0f} dB. "
            "Check the strip's offset and trim, or raise the recording's level."
        )


def loudness_db(audio: Samples, rate: float = 50.0) -> Samples:
    """Root-mean-square level over 40 ms around each frame, in dB of full scale (a full-scale sine gives -3 dB).

    audio: (N,) at 16 kHz. Returns (T,) float32, T = ceil(N / 16000 * rate), never below -100 dB. Frame i is centred on
    the time i / rate, as a Motion's frames are; at the ends the window keeps only the part inside the sound.
    """
    audio = np.asarray(audio)
    frames = math.ceil(len(audio) * rate / SAMPLE_RATE - 1e-6)
    half = round(_WINDOW_SECONDS / 2 * SAMPLE_RATE)
    centre = np.round(np.arange(frames) * (SAMPLE_RATE / rate)).astype(np.int64)
    first, last = np.clip(centre - half, 0, len(audio)), np.clip(centre + half, 0, len(audio))
    # Windows begin and end at multiples of `step`: an hour of sound is summed up in such blocks ten times as quickly.
    step = math.gcd(half, round(SAMPLE_RATE / rate)) if (SAMPLE_RATE / rate).is_integer() else 1
    whole = audio[: len(audio) // step * step].reshape(-1, step)
    blocks = np.square(audio, dtype=np.float64) if step == 1 else np.einsum("ij,ij->i", whole, whole)
    energy = np.zeros(len(blocks) + 2)
    np.cumsum(blocks, out=energy[1:-1], dtype=np.float64)
    rest = audio[len(blocks) * step :]
    energy[-1] = energy[-2] + np.square(rest, dtype=np.float64).sum()
    # The sum loses its last digits against a long loud past: differences may come out a hair below 0.
    mean = np.maximum(energy[-(-last // step)] - energy[first // step], 0.0) / np.maximum(last - first, 1)
    return (10.0 * np.log10(np.maximum(mean, 10.0 ** (FLOOR_DB / 10.0)))).astype(np.float32)


def voice_activity(audio: Samples, rate: float = 50.0) -> NDArray[np.bool_]:
    """Where somebody speaks, by energy alone: (T,) bool at `rate`, frames as in `loudness_db`.

    The threshold lies between the noise floor and the speech level (10th and 95th percentile of the loudness), 30 % of
    the way up but not more than 30 dB under the speech level. Gaps under 0.2 s (stop consonants, a breath between
    words) are filled, bursts under 0.06 s (clicks) dropped, and each stretch is held on for 0.1 s (hangover: final
    consonants are weak) and begun 0.04 s early. A steady noise counts as speech: there is nothing to tell them apart.
    """
    return voiced_frames(loudness_db(audio, rate), rate)


def voiced_frames(level: Samples, rate: float) -> NDArray[np.bool_]:
    """`voice_activity` of a sound with this loudness (T,) in dB at `rate`."""
    if not len(level):
        return np.zeros(0, bool)
    noise, speech = np.percentile(level, [10, 95])
    threshold = max(noise + 0.3 * (speech - noise), speech - 30.0, SILENCE_DB)
    active = level > threshold if speech - noise > 3.0 else level > SILENCE_DB
    active = _drop_short_runs(active, True, 0.06 * rate)
    active = _drop_short_runs(active, False, 0.2 * rate, inside=True)
    held = active.copy()
    for step in range(1, round(0.1 * rate) + 1):
        held[step:] |= active[:-step]
    for step in range(1, round(0.04 * rate) + 1):
        held[:-step] |= active[step:]
    return held


def _drop_short_runs(mask: NDArray[np.bool_], value: bool, limit: float, inside: bool = False) -> NDArray[np.bool_]:
    """Flip the runs of `value` shorter than `limit` frames; with `inside`, not those that touch an end."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8))) + 1
    out = mask.copy()
    for start, end in zip([0, *edges], [*edges, len(mask)], strict=True):
        touches_end = start == 0 or end == len(mask)
        if mask[start] == value and end - start < limit and not (inside and touches_end):
            out[start:end] = not value
    return out


# ---------------------------------------------------------------- decoding


class _CannotDecode(Exception):
    """This decoder does not understand the file; the next one may."""


class _Collector:
    """Mixes blocks down to mono and resamples them as a stream, so that memory holds only the 16 kHz result."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rate = 0
        self.samples_in = 0
        self.parts: list[Samples] = []
        self.stream: Any = None

    def push(self, block: Samples, rate: int) -> None:
        """block: (n, channels) float32 at `rate`."""
        if not self.rate:
            self.rate = rate
            if rate != SAMPLE_RATE:
                import soxr

                self.stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        mono = block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            bad = int(np.flatnonzero(~np.isfinite(mono))[0]) + self.samples_in
            raise AudioError(
                f"The sound file holds NaN or infinite samples: '{self.name}', first at {bad / rate:.3f} s of the part "
                "that was read. Export it again, best as 16-bit WAV."
            )
        self.samples_in += len(mono)
        self.parts.append(self.stream.resample_chunk(mono) if self.stream else mono)

    def finish(self) -> Samples:
        if self.stream:
            self.parts.append(self.stream.resample_chunk(np.zeros(0, np.float32), last=True))
        audio = np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)
        length = self.samples_in * SAMPLE_RATE // (self.rate or SAMPLE_RATE)
        if len(audio) < length:  # soxr may round the other way by a sample
            audio = np.pad(audio, (0, length - len(audio)))
        return np.ascontiguousarray(audio[:length], dtype=np.float32)


def _check_range(name: str, offset: float, duration: float | None) -> None:
    if not math.isfinite(offset) or offset < 0:
        raise AudioError(f"The offset into '{name}' is {offset!r} s; it must be 0 or more.")
    if duration is not None and (not math.isfinite(duration) or duration <= 0):
        raise AudioError(f"The duration to read of '{name}' is {duration!r} s; it must be more than 0.")


def _check_file(name: str) -> None:
    """The errors of the file system, told before a decoder turns them into 'format not recognised'."""
    if os.path.isdir(name):
        raise AudioError(f"This is a folder, not a sound file: '{name}'. Choose a file in it.")
    if not os.path.exists(name):
        raise AudioError(f"The sound file does not exist: '{name}'. Check the path, or relink the strip's sound.")
    try:
        with open(name, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise AudioError(
            f"The sound file cannot be opened: '{name}' ({error.strerror}). Check its permissions."
        ) from error
    if empty:
        raise AudioError(f"The sound file is empty (0 bytes): '{name}'. Export it again or choose another file.")


def _beyond_end(name: str, offset: float, seconds: float) -> AudioError:
    return AudioError(
        f"The offset {offset:.2f} s lies beyond the end of '{name}', which lasts {seconds:.2f} s. "
        "Check the strip's offset and trim."
    )


def _decode_soundfile(name: str, offset: float, duration: float | None) -> Blocks:
    """Yield ((n, channels) float32, rate) by libsndfile."""
    import soundfile as sf

    try:
        # TypeError: soundfile asks for a rate and channels where the file is called .raw
        file = sf.SoundFile(name)
    except (sf.LibsndfileError, TypeError, ValueError) as error:
        raise _CannotDecode(f"libsndfile: {_reason(error)}") from error
    with file:
        rate = file.samplerate
        start = round(offset * rate)
        if start and start >= file.frames:
            raise _beyond_end(name, offset, file.frames / rate)
        left = file.frames - start if duration is None else round(duration * rate)
        try:
            if start:
                file.seek(start)
            while left > 0:
                block = file.read(min(left, round(_BLOCK_SECONDS * rate)), dtype="float32", always_2d=True)
                if not len(block):
                    break
                left -= len(block)
                yield block, rate
        except sf.LibsndfileError as error:
            raise _CannotDecode(f"libsndfile: {_reason(error)}") from error


def _decode_av(name: str, offset: float, duration: float | None) -> Blocks:
    """Yield ((n, channels) float32, rate) by FFmpeg's libraries."""
    import av  # 0.1 s and 60 MB of libraries that most files do not need

    try:
        container = av.open(name, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise _CannotDecode(f"FFmpeg: {_reason(error)}") from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"There is no audio stream in '{name}'. Choose a file with sound.")
        stream = container.streams.audio[0]
        rate = stream.codec_context.sample_rate
        if not rate:
            raise _CannotDecode("FFmpeg: the audio stream has no sample rate")
        wanted = round(offset * rate)
        time_base = float(stream.time_base or 0.0)
        seconds = (stream.duration or 0) * time_base
        end = math.inf if duration is None else wanted + round(duration * rate)
        if "mp4" in container.format.name and seconds:
            # AAC comes in frames of 1024 samples; only the header knows how much of the last one is padding.
            end = min(end, round(seconds * rate))
        sought = offset > 2 * _SEEK_MARGIN and time_base > 0
        origin = 0
        try:
            if sought:
                # Time 0 is the first sample that decodes; the header's start time is wrong in some Matroska files.
                origin = next((frame.pts or 0 for frame in container.decode(stream)), 0)
                container.seek(origin + int((offset - _SEEK_MARGIN) / time_base), stream=stream)
            planar = av.AudioResampler(format="fltp")
            position = -1 if sought else 0
            got = False
            for frame in container.decode(stream):
                if position < 0:
                    # Only the first frame after a seek is placed by its time stamp: stamps in milliseconds would
                    # otherwise open and close gaps of a few samples.
                    position = 0 if frame.pts is None else max(0, round((frame.pts - origin) * time_base * rate))
                for plain in planar.resample(frame):
                    block = plain.to_ndarray().T
                    keep = block[max(0, wanted - position) : int(max(0, min(end - position, len(block))))]
                    position += len(block)
                    if len(keep):
                        got = True
                        yield np.asarray(keep, np.float32), rate
                if position >= end:
                    break
        except av.error.FFmpegError as error:
            raise _CannotDecode(f"FFmpeg: {_reason(error)}") from error
        if not got and offset:
            raise _beyond_end(name, offset, seconds or max(position, 0) / rate)


def _reason(error: Exception) -> str:
    """A decoder's message without the file's name, which ours already holds."""
    text = str(getattr(error, "error_string", None) or getattr(error, "strerror", None) or error)
    return text.strip().rstrip(".") or type(error).__name__
