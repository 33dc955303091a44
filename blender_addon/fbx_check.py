"""What is in an FBX file, read from the file itself: the proof that an export holds what it should.

Binary FBX is a tree of records: three sizes, a name, typed properties, children. Only what the check asks for is
decoded. Layout: "FBX binary file format specification", Blender Foundation, code.blender.org, 2013.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"Kaydara FBX Binary  \x00\x1a\x00"
TICKS = 46_186_158_000
"""Units of FBX time in a second."""

SCALARS = {"Y": "<h", "C": "<B", "I": "<i", "F": "<f", "D": "<d", "L": "<q"}
ARRAYS = {"f": "<f4", "d": "<f8", "l": "<i8", "i": "<i4", "b": "<i1", "c": "<u1"}
STILL = 1e-6


class FbxError(ValueError):
    """Not a binary FBX file, or a broken one."""


@dataclass(frozen=True)
class Contents:
    """What another program will find. Weights of 1 are full; seconds as the file has them."""

    shapes: tuple[str, ...]
    """Names of the blend shapes."""
    moving: tuple[str, ...]
    """Those of them whose weight changes."""
    keys: int
    """On all weights together."""
    first: float
    last: float
    """Seconds of the first and last key on a weight; 0 where there is none."""
    vertices: int
    stacks: int
    """Animations that a program shows for choice."""


@dataclass(frozen=True)
class _Record:
    name: str
    values: list[Any]
    children: list[_Record]

    def child(self, name: str) -> _Record:
        for record in self.children:
            if record.name == name:
                return record
        raise FbxError(f"The FBX file has no '{name}' in '{self.name}'.")


def contents(path: str | Path) -> Contents:
    """Read a binary FBX file. Raises FbxError, OSError."""
    data = memoryview(Path(path).read_bytes())
    if data[: len(MAGIC)] != MAGIC:
        raise FbxError(f"'{path}' is not a binary FBX file.")
    try:
        (version,) = struct.unpack_from("<I", data, len(MAGIC))
        tree = _Record("FBX", [], list(_records(data, len(MAGIC) + 4, len(data), wide=version >= 7500)))
    except (struct.error, KeyError, IndexError, zlib.error, UnicodeDecodeError) as error:
        raise FbxError(f"'{path}' is a broken FBX file ({error}).") from error
    return _summed_up(tree)


def _summed_up(tree: _Record) -> Contents:
    objects = tree.child("Objects").children
    channels = {record.values[0]: _plain(record.values[1]) for record in objects
                if record.name == "Deformer" and record.values[2] == "BlendShapeChannel"}
    curves = {record.values[0]: record for record in objects if record.name == "AnimationCurve"}
    parents: dict[int, list[int]] = {}
    for record in tree.child("Connections").children:
        parents.setdefault(record.values[1], []).append(record.values[2])
    moving, times, keys = set(), [0.0, 0.0], 0
    for number, curve in curves.items():
        on = [channels[end] for node in parents.get(number, []) for end in parents.get(node, []) if end in channels]
        if on:
            values = _array(curve.child("KeyValueFloat").values[0])
            seconds = _array(curve.child("KeyTime").values[0]) / TICKS
            times = [min(times[0], seconds[0]), max(times[1], seconds[-1])] if keys else [seconds[0], seconds[-1]]
            keys += len(values)
            moving |= set(on) if np.ptp(values) / 100 > STILL else set()
    meshes = [record for record in objects if record.name == "Geometry" and record.values[2] == "Mesh"]
    vertices = sum(len(_array(mesh.child("Vertices").values[0])) // 3 for mesh in meshes)
    return Contents(tuple(channels.values()), tuple(name for name in channels.values() if name in moving), keys,
                    float(times[0]), float(times[1]), vertices,
                    sum(record.name == "AnimationStack" for record in objects))


def _plain(name: str) -> str:
    """FBX writes an object's name, two bytes, and its class."""
    return name.split("\x00\x01")[0]


def _records(data: memoryview, start: int, end: int, wide: bool) -> Iterator[_Record]:
    head = "<QQQB" if wide else "<IIIB"
    while start < end:
        stop, count, _, length = struct.unpack_from(head, data, start)
        if stop == 0:  # the empty record that closes a list
            return
        at = start + struct.calcsize(head)
        name = bytes(data[at : at + length]).decode("ascii")
        at += length
        values = []
        for _ in range(count):
            value, at = _value(data, at)
            values.append(value)
        yield _Record(name, values, list(_records(data, at, stop, wide)) if at < stop else [])
        start = stop


def _value(data: memoryview, at: int) -> tuple[Any, int]:
    """One property and where the next begins. Arrays come undecoded, as (dtype, is compressed, bytes)."""
    kind = chr(data[at])
    at += 1
    if kind in SCALARS:
        return struct.unpack_from(SCALARS[kind], data, at)[0], at + struct.calcsize(SCALARS[kind])
    if kind in ARRAYS:
        count, compressed, size = struct.unpack_from("<III", data, at)
        size = size if compressed else count * np.dtype(ARRAYS[kind]).itemsize
        return (ARRAYS[kind], bool(compressed), data[at + 12 : at + 12 + size]), at + 12 + size
    (size,) = struct.unpack_from("<I", data, at)
    raw = bytes(data[at + 4 : at + 4 + size])
    if kind not in "SR":
        raise FbxError(f"The FBX file has a property of unknown type {kind!r}.")
    return raw.decode("utf-8", "replace") if kind == "S" else raw, at + 4 + size


def _array(value: tuple[str, bool, memoryview]) -> np.ndarray:
    dtype, compressed, raw = value
    return np.frombuffer(zlib.decompress(raw) if compressed else raw, dtype)
