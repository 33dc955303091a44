"""Puppet: shape keys moved by their values alone, as an artist moves the sliders, and put back as they were.

No key is written and no Action touched: what is animated shows its animation again at the next frame. What the values
were before lies in a custom property of each Key data-block while they are moved. So a state that an undo brings back,
a file that crashed and was recovered, or one that was saved by an autosave can be mended too (`mend`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import bpy
import numpy as np

from . import parts

TAG = "lsf_live"
"""Custom property of a Key data-block: JSON of the values that its shape keys had before the preview."""


class Puppet:
    """The shape keys of a head and its parts. Held by names: an undo makes Blender's objects invalid."""

    def __init__(self, target: bpy.types.Object, names: list[str]) -> None:
        """names: shape keys that are moved, in the order of the values that `show` gets."""
        self._keys = [thing.data.shape_keys.name for thing in parts.keyed(target)]
        self._names = names

    def hold(self) -> None:
        """Note the values as they are; must come before the first `show`."""
        for key in self._live():
            if TAG not in key:
                key[TAG] = json.dumps({name: key.key_blocks[name].value for name in self._names
                                       if name in key.key_blocks})

    def show(self, values: np.ndarray) -> None:
        """Give the shape keys these values (len(names),)."""
        for key in self._live():
            blocks = key.key_blocks
            for name, value in zip(self._names, values.tolist(), strict=True):
                block = blocks.get(name)
                if block is not None and block.value != value:
                    block.value = value

    def release(self) -> None:
        """Put the values back."""
        for key in self._live():
            _put_back(key)

    def _live(self) -> Iterator[bpy.types.Key]:
        for name in self._keys:
            key = bpy.data.shape_keys.get((name, None))
            if key is not None:
                yield key


def mend() -> bool:
    """Put back the values of every Key data-block that was left as a preview had it. Whether there was one."""
    left = [key for key in bpy.data.shape_keys if TAG in key]
    for key in left:
        _put_back(key)
    return bool(left)


def _put_back(key: bpy.types.Key) -> None:
    try:
        before = json.loads(key.get(TAG, "{}"))
    except (TypeError, ValueError):
        before = {}
    for name, value in before.items() if isinstance(before, Mapping) else ():
        block = key.key_blocks.get(name)
        if block is not None:
            block.value = value
    key.pop(TAG, None)


def settle(scene: bpy.types.Scene) -> None:
    """Let what is animated have the values of its animation at the frame that is shown."""
    scene.frame_set(scene.frame_current, subframe=scene.frame_subframe)
