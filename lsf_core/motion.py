"""Motion: the 52 ARKit weights of a take over time, resampled, mixed, saved and loaded."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .arkit import ARKIT_NAMES, INDEX
from .arrays import columns, is_torch, library, like, like_index, to_numpy
from .errors import LSFError
from .lips import lip_gap
from .wholefile import whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]  # any float on the way in, float32 in a Motion

MOUTH = tuple(i for name, i in INDEX.items() if name.startswith(("jaw", "mouth", "tongue")))
LIDS = tuple(i for name, i in INDEX.items() if name.startswith(("eyeBlink", "eyeSquint", "eyeWide", "eyeLookDown")))

GAP_PROMINENCE_MM = 1.5  # a dip of the lip gap by less than this is not a closure anybody would miss
LID_PROMINENCE = 0.3  # of a blink's travel


MAX_FPS = 1e6
"""Frame rates from here on are mistakes, and would ask for more memory than there is."""


def frame_count(seconds: float, fps: float) -> int:
    """ceil(seconds * fps), at least 1. A hair above a whole number (0.1 * 30 = 3.0000000000000004) is whole."""
    return max(1, math.ceil(seconds * fps - 1e-6))


@dataclass(eq=False)
class Motion:
    """Facial motion: frame i lies at the time i / fps.

    names: (52,) ARKit names in the order of `lsf_core.arkit.ARKIT_NAMES`.
    weights: (F, 52) float32, clipped to [0, 1] on construction (FBX, USD and glTF readers go wrong outside).
    fps: frames per second, any positive number.
    head_rotation: (F, 3) radians, or None where no head motion was made: pitch (chin down is positive), yaw (to the
    face's own left), roll (onto its own left shoulder). On a head that faces -Y with Z up, as in Blender, these are
    right-handed rotations about X, Z and Y.
    Inside the engine the weights may still be a tensor of torch, see arrays.py; what is handed out never is.
    Raises LSFError for other names, shapes that do not fit, NaN or infinite values, no frames.
    """

    names: tuple[str, ...]
    weights: Floats
    fps: float
    head_rotation: Floats | None = None

    def __post_init__(self) -> None:
        self.names = tuple(str(name) for name in self.names)
        if self.names != ARKIT_NAMES:
            odd = sorted(set(self.names) ^ set(ARKIT_NAMES))[:3]
            raise LSFError(f"A motion needs the 52 ARKit names in their order; differs at {odd or 'the order'}.")
        self.fps = float(self.fps)
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise LSFError(f"The frame rate is {self.fps}; it must be more than 0.")
        if is_torch(self.weights):
            self.weights = self.weights.clip(0.0, 1.0)
            return
        self.weights = np.clip(_checked("weights", self.weights, (None, len(ARKIT_NAMES))), 0.0, 1.0)
        if self.head_rotation is not None:
            self.head_rotation = _checked("head_rotation", self.head_rotation, (len(self.weights), 3))

    def __len__(self) -> int:
        return len(self.weights)

    def on_host(self) -> Motion:
        """This motion with its weights in numpy, checked; itself where they are already."""
        return replace(self, weights=to_numpy(self.weights)) if is_torch(self.weights) else self

    @property
    def seconds(self) -> float:
        """Length in seconds: each frame lasts 1 / fps."""
        return len(self.weights) / self.fps

    def __getitem__(self, name: str) -> Floats:
        """The curve (F,) of one shape."""
        return self.weights[:, INDEX[name]]

    def lip_gap_mm(self) -> Floats:
        """Lip gap beyond rest in mm, (F,), never below 0; see lips.GAP_ROW."""
        return np.maximum(to_numpy(lip_gap(self.weights)), 0.0).astype(np.float32)

    def resample(self, fps: float, frames: int | None = None) -> Motion:
        """This motion at another frame rate: frame i of the result lies at i / fps of the same clock.

        frames: None for ceil(seconds * fps); beyond the end the last pose is held.
        Values are interpolated linearly, but lip closures and blinks are kept. Between two frames of 24 fps lie 42 ms;
        a /p/ may be closed for one frame of 20 ms, and would come out as a half-open mouth. So each local minimum of
        the lip gap (of the lid opening) that falls between two new frames is found first, and the nearest new frame
        takes its mouth (lids) from that very moment, at most half a frame away. All shapes of the mouth move together,
        so that the pose is one that the face really had.
        """
        if not (math.isfinite(fps) and fps > 0):
            raise LSFError(f"The frame rate is {fps}; it must be more than 0.")
        count = frame_count(self.seconds, fps) if frames is None else int(frames)
        if count < 1:
            raise LSFError(f"A motion of {count} frames was asked for; at least 1 is needed.")
        where = np.arange(count) * (self.fps / fps)  # in frames of this motion
        weights = _interpolate(self.weights, where)
        lids = to_numpy(1.0 - library(self.weights).maximum(self["eyeBlinkLeft"], self["eyeBlinkRight"]))
        for shapes, opening, prominence in (
            (MOUTH, self.lip_gap_mm(), GAP_PROMINENCE_MM),
            (LIDS, lids, LID_PROMINENCE),
        ):
            snapped = _snap_to_minima(where, opening, prominence)
            moved = np.flatnonzero(snapped != where)
            chosen = columns(shapes, weights)
            weights[like_index(moved, weights)[:, None], chosen] = _interpolate(self.weights, snapped[moved])[:, chosen]
        head = None if self.head_rotation is None else _interpolate(self.head_rotation, where)
        return Motion(self.names, weights, fps, head)

    def with_weights(self, weights: Floats) -> Motion:
        """The same take with other weights (F, 52); values outside [0, 1] are clipped."""
        return replace(self, weights=weights)

    def blend(self, other: Motion, amount: float | Floats) -> Motion:
        """A mix: `amount` 0 is this motion, 1 the other; a number, (F, 1) per frame or (52,) per shape."""
        if len(other) != len(self) or other.fps != self.fps:
            raise LSFError(
                f"Motions of {len(self)} frames at {self.fps:g} fps and {len(other)} at {other.fps:g} cannot be mixed. "
                "Resample one of them first."
            )
        share = np.asarray(amount, np.float32)
        head = self.head_rotation
        if head is not None and other.head_rotation is not None and share.ndim != 1:
            head = head + share * (other.head_rotation - head)
        return replace(self, weights=self.weights + share * (other.weights - self.weights), head_rotation=head)

    def scaled(self, gains: dict[str, float]) -> Motion:
        """Each named shape times its gain; the result stays within [0, 1]."""
        row = np.ones(len(ARKIT_NAMES), np.float32)
        for name, gain in gains.items():
            if name not in INDEX:
                raise LSFError(f"'{name}' is not an ARKit shape name. Names are spelled as in lsf_core.arkit.")
            row[INDEX[name]] = gain
        return self.with_weights(self.weights * row)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz of `names` (52,) str, `weights` (F, 52) float32, `fps` and, where made, `head_rotation` (F, 3).

        The file appears whole or not at all (written beside, then renamed); missing folders are made.
        """
        arrays: dict[str, NDArray] = {
            "names": np.array(self.names),
            "weights": self.weights,
            "fps": np.array(self.fps),
        }
        if self.head_rotation is not None:
            arrays["head_rotation"] = self.head_rotation
        save_arrays(path, arrays)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Motion:
        """Read what `save` wrote; columns in another order are sorted. Raises LSFError for anything else."""
        name = os.fspath(path)
        try:
            with np.load(name, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except FileNotFoundError as error:
            raise LSFError(f"The take does not exist: '{name}'. Check the path.") from error
        except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise LSFError(f"The take cannot be read: '{name}' ({error}). It is damaged or not an .npz.") from error
        missing = [key for key in ("names", "weights", "fps") if key not in arrays]
        if missing:
            raise LSFError(f"'{name}' is not a take: it has no {', '.join(missing)}.")
        names, weights = [str(n) for n in arrays["names"]], arrays["weights"]
        if sorted(names) == sorted(ARKIT_NAMES) and weights.ndim == 2 and weights.shape[1] == len(names):
            weights = weights[:, [names.index(n) for n in ARKIT_NAMES]]
            names = list(ARKIT_NAMES)
        return Motion(tuple(names), weights, float(arrays["fps"]), arrays.get("head_rotation"))


def save_arrays(path: str | os.PathLike[str], arrays: dict[str, NDArray]) -> None:
    """Write an .npz under exactly this name, whole or not at all. Raises LSFError where it cannot be written."""
    with whole_file(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _checked(what: str, values: object, shape: tuple[int | None, int]) -> Floats:
    """A float32 copy of the expected shape, or LSFError."""
    array = np.array(values, np.float32)
    if array.ndim != 2 or array.shape[1] != shape[1] or (shape[0] is not None and len(array) != shape[0]):
        need = f"({'F' if shape[0] is None else shape[0]}, {shape[1]})"
        raise LSFError(f"{what} has the shape {array.shape}; {need} is needed.")
    if not len(array):
        raise LSFError(f"{what} has no frames; at least 1 is needed.")
    if not np.isfinite(array).all():
        frame = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise LSFError(f"{what} holds NaN or infinite values, first in frame {frame}. Animate again.")
    return array


def _interpolate(values: Floats, where: NDArray) -> Floats:
    """Rows of `values` (F, C) at fractional frames `where` (G,), linear, the ends held: (G, C)."""
    where = np.clip(where, 0, len(values) - 1)
    low = np.minimum(where.astype(np.int64), max(len(values) - 2, 0))
    share = like((where - low).astype(np.float32)[:, None], values)
    before, after = like_index(low, values), like_index(np.minimum(low + 1, len(values) - 1), values)
    return values[before] * (1 - share) + values[after] * share


def _snap_to_minima(where: NDArray, opening: Floats, prominence: float) -> NDArray:
    """Move sampling points (evenly spaced fractional frames) onto the minima of `opening` that lie between them.

    A minimum is a stretch of equal lowest values from which the curve rises by `prominence` on both sides before it
    falls lower again. One that already holds a point stays; else the point nearest to it moves to its nearest end.
    Where two want the same point, the lower one has it.
    """
    snapped = where.copy()
    if len(where) < 2:
        return snapped
    step = float(where[1] - where[0])
    claimed: dict[int, float] = {}
    for start, end in minima(opening, prominence):
        if math.ceil(start / step - 1e-9) * step <= end + 1e-9:
            continue
        nearest = min(max(round((start + end) / 2 / step), 0), len(where) - 1)
        place, lowest = float(where[nearest]), float(opening[start])
        target = min(max(place, start), end)
        if abs(target - place) > step / 2 + 1e-9 or claimed.get(nearest, math.inf) <= lowest:
            continue
        claimed[nearest] = lowest
        snapped[nearest] = target
    return snapped


def minima(curve: Floats, prominence: float) -> Sequence[tuple[int, int]]:
    """(first, last) frame of each stretch of lowest values that `prominence` is fallen to and climbed from.

    The end of the curve closes a stretch without a climb; its beginning opens none, as frame 0 is always sampled.
    """
    values = np.asarray(curve, np.float64)
    edges = np.flatnonzero(np.diff(values))
    firsts, lasts = np.append(0, edges + 1), np.append(edges, len(values) - 1)  # of each stretch of equal values
    levels = values[firsts]
    # Only where the curve turns can a minimum lie or a climb be highest: a tenth of the frames is looked at one by one.
    rises = np.diff(levels) > 0
    turns = np.unique(np.concatenate([[0], np.flatnonzero(rises[1:] != rises[:-1]) + 1, [len(levels) - 1]]))
    found = []
    falling_from = lowest = float(levels[0])  # the highest value since the last minimum, and the lowest since then
    at = 0
    searching = False  # True once the curve has fallen by `prominence` below `falling_from`
    for turn, value in zip(turns.tolist(), levels[turns].tolist(), strict=True):
        if not searching:
            falling_from = max(falling_from, value)
            if value <= falling_from - prominence:
                searching, lowest, at = True, value, turn
            continue
        if value < lowest - _SAME:
            lowest, at = value, turn
        if value >= lowest + prominence:
            found.append(_stretch(values, lowest, int(firsts[at]), int(lasts[at])))
            searching, falling_from = False, value
    if searching:
        found.append(_stretch(values, lowest, int(firsts[at]), int(lasts[at])))
    return found


_SAME = 1e-6  # values nearer than this are equal


def _stretch(values: Floats, lowest: float, first: int, last: int) -> tuple[int, int]:
    """A stretch of lowest values with those at both its ends that are the same but for rounding."""
    while first > 0 and values[first - 1] <= lowest + _SAME:
        first -= 1
    while last + 1 < len(values) and values[last + 1] <= lowest + _SAME:
        last += 1
    return first, last
