"""F-curves in bulk: keys written by foreach_set, and keys that the artist changed since, which are left as they are.

What is written is remembered (`Keys`), so that a later writing can tell the add-on's keys from the artist's: a key at
another place or height than written, with other handles or interpolation, or one more, is the artist's; one that is
gone was removed by the artist. Between the untouched keys around such a change nothing of ours is written.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

SPARSE, EVERY_FRAME = "SPARSE", "EVERY_FRAME"
"""How keys are written: few, with Bezier curves between them, or one a frame, joined by straight lines."""

FLAT = 1e-5
"""A curve that moves less than this holds two keys only."""

_FIELDS = {
    "co": 2, "handle_left": 2, "handle_right": 2, "handle_left_type": 0, "handle_right_type": 0, "interpolation": 0,
    "easing": 0, "type": 0, "amplitude": 1, "back": 1, "period": 1,
}
"""What makes a key: numbers in each property, 0 for an enumeration."""

_HANDLES = ("handle_left_type", "handle_right_type")


@dataclass(frozen=True, eq=False)
class Keys:
    """Keys of one curve: frames (K,) float32, rising, and values (K,) float32."""

    frames: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def moved(self, frames: float) -> Keys:
        """The same keys, later."""
        return Keys((self.frames + frames).astype(np.float32), self.values)


def chosen(values: np.ndarray, mask: np.ndarray | None, first_frame: int) -> Keys:
    """The keys of a motion's curve `values` (F,), frame i at first_frame + i: where `mask` (F,) is, or all of them.

    A curve that is flat throughout gets its two ends.
    """
    if mask is None:
        mask = np.ones(len(values), bool)
        mask[1:-1] = np.ptp(values) > FLAT
    at = np.flatnonzero(mask)
    return Keys((at + first_frame).astype(np.float32), np.asarray(values, np.float32)[at])


def write(curve: Any, keys: Keys, style: str) -> None:
    """Replace all keys of a curve."""
    place = np.stack([keys.frames, keys.values], axis=1).astype(np.float32)
    _fill(curve, {"co": place, **{name: np.full(len(keys), value, np.int32) for name, value in _usual(style).items()}})


def rewrite(curve: Any, written: Keys, fresh: Keys, values: np.ndarray, first_frame: int,
            style: str) -> tuple[Keys, int]:
    """Write `fresh` keys over those `written` before, in the same style, but for what the artist changed since.

    values: (F,), the new motion at every frame from first_frame on, for the keys on either side of a change.
    Returns what is to be remembered as written now, and how many changes of the artist's were kept.
    """
    hand, gone = _changed(curve, written, style)
    kept = int(hand.sum() + gone.sum())
    if not kept:
        write(curve, fresh, style)
        return fresh, 0
    table = {name: _get(curve, name) for name in _FIELDS}
    frames = table["co"][:, 0]
    untouched = frames[~hand]
    where = np.concatenate([frames[hand], written.frames[gone]])
    closed = np.zeros(len(untouched) + 1, bool)  # stretches between untouched keys, before the first, after the last
    closed[np.searchsorted(untouched, where)] = True
    free = ~closed[np.searchsorted(untouched, fresh.frames)] | np.isin(fresh.frames, untouched)
    edges = untouched[closed[:-1] | closed[1:]]
    ours = np.unique(np.concatenate([fresh.frames[free], edges]))
    ours = ours[(ours >= first_frame) & (ours < first_frame + len(values))]
    mine = Keys(ours, np.asarray(values, np.float32)[(ours - first_frame).astype(int)])
    write(curve, mine, style)
    both = {name: np.concatenate([_get(curve, name), table[name][hand]]) for name in _FIELDS}
    order = np.argsort(both["co"][:, 0], kind="stable")
    _fill(curve, {name: column[order] for name, column in both.items()})
    # What the artist removed stays remembered, or the next writing would bring it back.
    frames = np.concatenate([mine.frames, written.frames[gone]])
    order = np.argsort(frames)
    return Keys(frames[order], np.concatenate([mine.values, written.values[gone]])[order]), kept


def changes(curve: Any, written: Keys, style: str) -> int:
    """How many keys of the curve the artist changed, added or removed since they were written."""
    hand, gone = _changed(curve, written, style)
    return int(hand.sum() + gone.sum())


def _changed(curve: Any, written: Keys, style: str) -> tuple[np.ndarray, np.ndarray]:
    """Which of the curve's keys are not as written, and which of those written are not there: (K,), (W,) bool."""
    place = _get(curve, "co")
    gone = ~np.isin(written.frames, place[:, 0])
    if not len(written):
        return np.ones(len(place), bool), gone
    at = np.minimum(np.searchsorted(written.frames, place[:, 0]), len(written) - 1)
    same = (written.frames[at] == place[:, 0]) & (written.values[at] == place[:, 1])
    usual = _usual(style)
    for name in ("interpolation", *(_HANDLES if style == SPARSE else ())):  # handles of straight lines say nothing
        same &= _get(curve, name) == usual[name]
    return ~same, gone


def retime(curve: Any, written: Keys, style: str, ratio: float, start: float, to: int) -> Keys:
    """Stretch a curve in time: what was at `start` is at `to`, everything after it `ratio` times as far away.

    All keys go to whole frames, the artist's with their handles; of ours that meet there one stays. What the artist
    changed is still told from `written` as it is returned.
    """
    def there(frames: np.ndarray) -> np.ndarray:
        return np.rint(to + (frames.astype(np.float64) - start) * ratio).astype(np.float32)

    hand, _ = _changed(curve, written, style)
    frames, first = np.unique(there(written.frames), return_index=True)
    fresh = Keys(frames, written.values[first])
    table = {name: _get(curve, name) for name in _FIELDS}
    stays = hand | np.isin(table["co"][:, 0], written.frames[first])
    table = {name: column[stays] for name, column in table.items()}
    old, new = table["co"][:, :1].copy(), there(table["co"][:, :1])
    for name in ("co", "handle_left", "handle_right"):
        table[name][:, :1] = new + (table[name][:, :1] - old) * ratio
    order = np.argsort(table["co"][:, 0], kind="stable")
    _fill(curve, {name: column[order] for name, column in table.items()})
    return fresh


def shift(curve: Any, frames: float) -> None:
    """Move all keys with their handles."""
    for name in ("co", "handle_left", "handle_right"):
        places = _get(curve, name)
        places[:, 0] += frames
        curve.keyframe_points.foreach_set(name, places.ravel())
    curve.update()


def pack(curves: Mapping[str, Keys]) -> bytes:
    """Keys of curves by name, to be kept in a .blend: about 1 MB for ten minutes of 52 curves."""
    buffer = io.BytesIO()
    all_keys = list(curves.values())
    np.savez_compressed(
        buffer, names=np.array(list(curves), np.str_), counts=np.array([len(keys) for keys in all_keys], np.int64),
        frames=np.concatenate([np.zeros(0, np.float32), *(keys.frames for keys in all_keys)]),
        values=np.concatenate([np.zeros(0, np.float32), *(keys.values for keys in all_keys)]),
    )
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, Keys]:
    """What `pack` packed. Raises ValueError, KeyError or OSError for anything else."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        names, counts, frames, values = (file[name] for name in ("names", "counts", "frames", "values"))
    ends = np.cumsum(counts)
    return {str(name): Keys(frames[end - count : end], values[end - count : end])
            for name, count, end in zip(names, counts, ends, strict=True)}


# ---------------------------------------------------------------- fields of keys
_enums: dict[tuple[str, str], int] = {}


def _usual(style: str) -> dict[str, int]:
    """The enumerations of keys as we write them, as the numbers that foreach_set takes."""
    if not _enums:
        properties = bpy.types.Keyframe.bl_rna.properties
        _enums.update({(name, item.identifier): item.value for name in ("interpolation", *_HANDLES)
                       for item in properties[name].enum_items})
    line = "BEZIER" if style == SPARSE else "LINEAR"
    return {"interpolation": _enums["interpolation", line], **{side: _enums[side, "AUTO_CLAMPED"] for side in _HANDLES}}


def _get(curve: Any, name: str) -> np.ndarray:
    """A field of all keys: (K, 2), (K,) float32, or (K,) int32 of an enumeration."""
    points, width = curve.keyframe_points, _FIELDS[name]
    values = np.empty(len(points) * max(width, 1), np.float32 if width else np.int32)
    points.foreach_get(name, values)
    return values.reshape(-1, 2) if width == 2 else values


def _fill(curve: Any, fields: dict[str, np.ndarray]) -> None:
    points = curve.keyframe_points
    points.clear()
    points.add(len(fields["co"]))
    for name, values in fields.items():
        points.foreach_set(name, values.ravel())
    curve.auto_smoothing = "NONE"  # what the sparse keys were chosen for, see lsf_core/sparse.py
    curve.update()
