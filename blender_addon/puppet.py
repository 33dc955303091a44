"""Puppet: shape keys moved by their values alone, as an artist moves the sliders, and put back as they were.

No key is written and no Action touched: what is animated shows its animation again at the next frame. What the values
were before lies in a custom property of each Key data-block while they are moved. So a state that an undo brings back,
a file that crashed and was recovered, or one that was saved by an autosave can be mended too (`mend`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import bpy
import numpy as np

from . import parts

TAG = "lsf_live"
"""Custom property of a Key data-block: JSON list of its shape keys before the preview, each [name, value], the value
null where the preview leaves it alone."""


class Puppet:
    """The shape keys of a head and its parts. Held by names: an undo makes Blender's objects invalid."""

    def __init__(self, target: bpy.types.Object, names: list[str]) -> None:
        """names: shape keys that are moved, in the order of the values that `show` gets."""
        self._keys = [thing.data.shape_keys.name for thing in parts.keyed(target)]
        self._names = names

    def hold(self) -> None:
        """Note the values as they are; must come before the first `show`."""
        for name in self._keys:
            key = bpy.data.shape_keys.get((name, None))
            if key is not None:
                _put_back(key)  # what an appended autosave left in it
                key[TAG] = json.dumps([[block.name, block.value if block.name in self._names else None]
                                       for block in key.key_blocks])

    @property
    def held(self) -> bool:
        """Whether any of the Key data-blocks that were noted is still there."""
        return any(True for _ in self._held())

    def show(self, values: np.ndarray) -> None:
        """Give the shape keys these values (len(names),)."""
        for key in self._held():
            blocks = key.key_blocks
            for name, value in zip(self._names, values.tolist(), strict=True):
                block = blocks.get(name)
                if block is not None and block.value != value:
                    block.value = value

    def _held(self) -> Iterator[bpy.types.Key]:
        """Without the note a Key data-block is another one, which got the name after the first was removed."""
        for name in self._keys:
            key = bpy.data.shape_keys.get((name, None))
            if key is not None and TAG in key:
                yield key


def mend() -> bool:
    """Put back the values of every Key data-block that is as a preview had it: those that it moves, renamed ones and
    copies of them too, and those of a file that was left so. Whether there was one."""
    left = [key for key in bpy.data.shape_keys if TAG in key]
    for key in left:
        _put_back(key)
    return bool(left)


def _put_back(key: bpy.types.Key) -> None:
    """The values of the note, by name; by its place where a shape key was renamed since. A spoilt note is dropped."""
    try:
        before = [(str(name), None if value is None else float(value))
                  for name, value in json.loads(key.get(TAG, "[]"))]
    except (TypeError, ValueError):
        before = []
    blocks, noted = key.key_blocks, {name for name, _ in before}
    for place, (name, value) in enumerate(before):
        block = blocks.get(name)
        if block is None and place < len(blocks) and blocks[place].name not in noted:
            block = blocks[place]
        if block is not None and value is not None:
            block.value = value
    key.pop(TAG, None)


def settle(scene: bpy.types.Scene) -> None:
    """Let what is animated have the values of its animation at the frame that is shown."""
    scene.frame_set(scene.frame_current, subframe=scene.frame_subframe)
