"""RawTake: what the network made of one clip, kept so that every edit can be changed without running it again.

It holds the two deliveries (neutral, and as the voice feels) and the cues of the sound, at 50 Hz. `finish` makes the
take of it. Numpy alone: Blender's side loads it from the .blend and finishes it in its own Python.
"""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .arkit import ARKIT_NAMES
from .arrays import like
from .cues import TENTHS, SoundCues, listen
from .edits import DEFAULT, EditSettings, apply_edits
from .errors import LSFError
from .filters import gaussian
from .lips import contacts, felt_gap, keep_gap, press, seal_corners
from .motion import Motion, frame_count, save_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

FEELING_SMOOTHING = 10.0
"""Frames, sigma: 0.2 s. A feeling that comes and goes faster is doubt, not acting."""

SINK, BEAT = 20.0, 20.0
"""Frames, sigma: how slowly a feeling sinks in pauses (0.4 s), how quickly it follows the voice (0.4 s, a word)."""

RESTING, ACCENT, ACCENT_DB = 0.4, 0.1, 6.0
"""Share of a feeling that sinks in a long pause; how much an accent ACCENT_DB above the mean adds."""

FORMAT = 1
_STEPS = 1 << 14  # steps per unit of weight in a file: 16 bits reach from -2 to 2, an eighth of a visible difference


@dataclass(frozen=True, eq=False)
class RawTake:
    """One clip before edits. neutral, emotional: (F, 52) float32, as the network gives them, a hair outside [0, 1] too;
    cues: of the sound, F frames. Values are rounded to 1 / 16384, so that a take from a file finishes bit by bit like
    the one that was saved. Raises LSFError for shapes that do not fit, NaN or infinite values.
    """

    neutral: Floats
    emotional: Floats
    cues: SoundCues

    def __post_init__(self) -> None:
        for name in ("neutral", "emotional"):
            values = np.asarray(getattr(self, name), np.float32)
            if values.shape != (len(self.cues), len(ARKIT_NAMES)) or not len(values):
                raise LSFError(f"The raw take's {name} weights have the shape {values.shape}; "
                               f"{(max(1, len(self.cues)), len(ARKIT_NAMES))} is needed. Animate again.")
            if not np.isfinite(values.sum()):  # one of them would be enough, and a sum is quicker than a look at each
                raise LSFError(f"The raw take's {name} weights hold NaN or infinite values. Animate again.")
            object.__setattr__(self, name, to_steps(values))

    @staticmethod
    def of(neutral: Floats, emotional: Floats, samples: Floats) -> RawTake:
        """From the network's weights (F, 52) at 50 Hz and the sound they were made from, (N,) float at 16 kHz."""
        return RawTake(neutral, emotional, listen(samples, len(neutral)))

    @property
    def rate(self) -> float:
        """Frames per second on the timeline: 50, or more where the sound is played faster."""
        return self.cues.rate

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.cues.seconds

    def retimed(self, speed: float) -> RawTake:
        """The take of the same sound played `speed` times as fast."""
        return replace(self, cues=self.cues.retimed(speed))

    def mix(self, strength: float) -> Floats:
        """Weights (F, 52) in [0, 1] with the emotion at `strength`: 0 none, 1 as heard, 2 twice that; see `mixed`."""
        return mixed(self.neutral, self.emotional, self.cues, strength).astype(np.float32)

    def finish(self, settings: EditSettings = DEFAULT, *, fps: float, frames: int | None = None,
               seed: int = 0) -> Motion:
        """The take at `fps` with its edits; frame i lies at i / fps. The same seed gives the same take.

        frames: None for ceil(seconds * fps). Raises LSFError for a frame rate that is none.
        """
        if frames is None:
            frames = frame_count(self.seconds, fps)
        motion = Motion(ARKIT_NAMES, self.mix(settings.emotion), self.rate)
        return apply_edits(motion, self.cues, settings, fps=fps, frames=frames, seed=seed)

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz, whole or not at all. Raises LSFError where it cannot be written."""
        save_arrays(path, self._arrays())

    def to_bytes(self) -> bytes:
        """The same file, packed, to be kept elsewhere (a text or property of a .blend): about 0.3 MB a minute."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self._arrays())  # type: ignore[arg-type]
        return buffer.getvalue()

    @staticmethod
    def load(path: str | os.PathLike[str]) -> RawTake:
        """Read what `save` wrote. Raises LSFError if there is none, it is damaged, or of a later version."""
        name = os.fspath(path)
        try:
            with open(name, "rb") as file:
                return RawTake.from_bytes(file.read(), name)
        except OSError as error:
            raise LSFError(f"The raw take cannot be read: '{name}' ({error.strerror}). Check the path.") from error

    @staticmethod
    def from_bytes(data: bytes, name: str = "The raw take") -> RawTake:
        """Read what `to_bytes` or `save` wrote; `name` is what an error calls it. Raises LSFError."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                a = {key: file[key] for key in file.files}
            if int(a["format"]) > FORMAT:
                raise LSFError(f"{name} was made by a later version of LSF-Animation. Update the add-on.")
            if [str(n) for n in a["names"]] != list(ARKIT_NAMES):
                raise LSFError(f"{name} does not have the 52 ARKit shapes in their order. Animate again.")
            cues = SoundCues(a["voiced"].astype(bool), a["loudness"].astype(np.float32) / TENTHS,
                             a["pitch"].astype(np.float32) / TENTHS, float(a["seconds"]), float(a["rate"]))
            return RawTake(a["neutral"].astype(np.float32) / _STEPS, a["emotional"].astype(np.float32) / _STEPS, cues)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise LSFError(f"{name} cannot be read ({error}). It is damaged or no raw take. Animate again.") from error

    def _arrays(self) -> dict[str, NDArray]:
        return {
            "format": np.array(FORMAT), "names": np.array(ARKIT_NAMES), "rate": np.array(self.rate),
            "seconds": np.array(self.seconds),
            "neutral": _to_steps(self.neutral), "emotional": _to_steps(self.emotional),
            "voiced": self.cues.voiced.astype(np.uint8), "loudness": _to_tenths(self.cues.loudness),
            "pitch": _to_tenths(self.cues.pitch),
        }


def mixed(neutral: Any, emotional: Any, cues: SoundCues, strength: float) -> Any:
    """Weights (F, 52) in [0, 1] of two deliveries (F, 52) with the emotion at `strength`; arrays of numpy or torch.

    What the emotion adds is smoothed over FEELING_SMOOTHING, and whatever it does, the lips close as in the neutral
    delivery; they open as there too, or a little wider or less, as the feeling has it (lips.felt_gap).
    """
    added = gaussian(emotional - neutral, FEELING_SMOOTHING) * like(swell(cues), neutral)[:, None]
    felt = neutral + strength * added
    contact = contacts(neutral, cues.voiced)
    gap = felt_gap(felt, neutral) - press(felt, neutral, contact)
    return keep_gap(seal_corners(felt, neutral, contact), neutral, gap)


def to_steps(weights: Any) -> Any:
    """Weights rounded to what a RawTake holds; an array of numpy or torch."""
    return (weights * _STEPS).round().clip(-2 * _STEPS, 2 * _STEPS - 1) * (1 / _STEPS)


def swell(cues: SoundCues) -> Floats:
    """(F,) factor on what a feeling adds, about 1 while someone speaks: it rises with loud words, as faces beat
    time with the voice (Ekman 1979), and sinks in pauses. The smoothing above takes both out of the network's own."""
    spoken = gaussian(cues.voiced.astype(np.float64), SINK)
    if not cues.voiced.any():
        return np.ones(len(cues))
    loud = gaussian(cues.loudness.astype(np.float64), BEAT)
    accent = np.clip((loud - loud[cues.voiced].mean()) / ACCENT_DB, -1.0, 1.0) * cues.voiced
    return (1 - RESTING * (1 - spoken)) * (1 + ACCENT * gaussian(accent, BEAT))


def _to_steps(weights: Floats) -> NDArray[np.int16]:
    return np.round(to_steps(weights) * _STEPS).astype(np.int16)


def _to_tenths(values: Floats) -> NDArray[np.int16]:
    return np.round(values * TENTHS).astype(np.int16)
