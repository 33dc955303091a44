"""The mesh as another program wants it: shape keys under other names, or without those that a take leaves still.

Made on a copy of the mesh that the object wears while the file is written; the artist's own is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy
import numpy as np

from . import compat
from .shared import arkit

STILL = 1e-4
"""A weight that changes less is not seen on any face."""


def arkit_name(name: str) -> str:
    """As it is: jawOpen, eyeBlinkLeft."""
    return name


def pascal_name(name: str) -> str:
    """Unreal's Live Link: JawOpen, EyeBlinkLeft."""
    return name[0].upper() + name[1:] if name in arkit.INDEX else name


def short_name(name: str) -> str:
    """Unity's ARKit samples: jawOpen, eyeBlink_L."""
    for side in ("Left", "Right"):
        if name in arkit.INDEX and name.endswith(side) and name.removesuffix(side) + "Right" in arkit.INDEX:
            return f"{name.removesuffix(side)}_{side[0]}"
    return name


NAMES = {"ARKIT": arkit_name, "PASCAL": pascal_name, "SHORT": short_name}


def moving(target: bpy.types.Object) -> set[str]:
    """Names of the shape keys that the mesh's active Action moves."""
    found = set()
    for curve in compat.curves_of(target.data.shape_keys):
        points = np.empty(2 * len(curve.keyframe_points), np.float32)
        curve.keyframe_points.foreach_get("co", points)
        if len(points) and np.ptp(points[1::2]) > STILL and curve.data_path.startswith('key_blocks["'):
            found.add(curve.data_path.split('"')[1])
    return found


@contextmanager
def dressed(target: bpy.types.Object, naming: str, only_moving: bool) -> Iterator[None]:
    """While it lasts, the object's shape keys have the names of NAMES[naming], and with `only_moving` those are gone
    that rest at zero all the time. Afterwards everything is as it was."""
    if naming == "ARKIT" and not only_moving:
        yield
        return
    mesh, chosen = target.data, target.active_shape_key_index
    name, copy = mesh.name, mesh.copy()
    action = None
    try:
        mesh.name, copy.name = f"{name}.set aside", name
        target.data = copy
        keys = copy.shape_keys
        if keys.animation_data is not None and keys.animation_data.action is not None:
            # An Action of its own: renamed shape keys take the paths of its curves along.
            action = keys.animation_data.action.copy()
            compat.assign_action(keys, action)
        wanted = moving(target) | _driven(keys)
        for block in list(keys.key_blocks)[1:]:
            if only_moving and block.name not in wanted and abs(block.value) < STILL:
                target.shape_key_remove(block)
            else:
                block.name = NAMES[naming](block.name)
        yield
    finally:
        target.data = mesh
        bpy.data.meshes.remove(copy)
        if action is not None:
            bpy.data.actions.remove(action)
        mesh.name = name
        target.active_shape_key_index = chosen


def _driven(keys: bpy.types.Key) -> set[str]:
    drivers = keys.animation_data.drivers if keys.animation_data is not None else []
    return {driver.data_path.split('"')[1] for driver in drivers if driver.data_path.startswith('key_blocks["')}
