"""Takes: an Action of our own per run, with the weights as keys, written in bulk and never over an artist's Action.

The Action that was active before keeps a fake user, so that it survives saving, and stays in the Action list. The
object gets a carrier, a still Action of its own that spans its takes: Blender's default FBX export looks for shape-key
animation only on objects that have an Action. An object that has an Action already needs none, and a carrier in which
the artist keys the object is theirs: only our own curve in it is ever changed.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from . import compat
from .mesh_io import curve_path

TAKE_TAG = "lsf_take"
"""Custom property of our Actions: JSON with the settings that made the take."""

ID_TAG = "lsf_id"
"""Custom property of the Key data-block: what tells whose a take is, for objects are renamed."""

CARRIER_TAG = "lsf_fbx_range"
"""Custom property of our carrier Actions: name of the object's custom property that the carrier keys."""

FLAT = 1e-5
"""A curve that moves less than this holds two keys only."""


@dataclass(frozen=True)
class Take:
    """What was written."""

    action: bpy.types.Action
    first_frame: int
    last_frame: int
    keys: int
    set_aside: str
    """Name of the artist's Action that was active before, or ''."""


def write_take(
    target: bpy.types.Object, name: str, names: list[str], weights: np.ndarray, start_frame: int,
    settings: dict[str, Any],
) -> Take:
    """Write a new take and make it the active one.

    weights: (F, len(names)) in [0, 1]; frame i goes to scene frame start_frame + i. names: shape keys of the mesh.
    settings: stored with the take as JSON, so that it can be told apart and made again.
    """
    key = target.data.shape_keys
    before = _active_action(key)
    owner = key.get(ID_TAG) or uuid.uuid4().hex
    action = bpy.data.actions.new(name)
    action[TAKE_TAG] = json.dumps({**settings, "target_id": owner, "first_frame": start_frame, "frames": len(weights)})
    action.use_fake_user = True  # a take that is not active now must survive saving
    try:
        compat.assign_action(key, action)
        count = 0
        for column, shape in enumerate(names):
            curve = compat.new_curve(action, key, curve_path(shape))
            count += fill_curve(curve, weights[:, column], start_frame)
        _carry_to_object(target, (start_frame, start_frame + len(weights) - 1))
    except Exception:
        # Blender may refuse that for the reason it refused the take: it is the first error that is to be told.
        with contextlib.suppress(Exception):
            compat.assign_action(key, before)
        bpy.data.actions.remove(action)
        raise
    key[ID_TAG] = owner
    set_aside = ""
    if before is not None and not is_take(before):
        before.use_fake_user = True
        set_aside = before.name
    return Take(action, start_frame, start_frame + len(weights) - 1, count, set_aside)


def fill_curve(curve: Any, values: np.ndarray, start_frame: int) -> int:
    """Key `values` (F,) one a frame, linear; a curve that is flat throughout gets its two ends. Number of keys made."""
    frames = np.arange(len(values), dtype=np.float32) + start_frame
    if np.ptp(values) <= FLAT:
        ends = [0, -1] if len(values) > 1 else [0]
        frames, values = frames[ends], np.full(len(ends), values[0])
    points = curve.keyframe_points
    points.add(len(frames))
    points.foreach_set("co", np.stack([frames, values], axis=1).astype(np.float32).ravel())
    points.foreach_set("interpolation", np.full(len(frames), _interpolation("LINEAR"), np.int32))
    curve.update()
    return len(frames)


def _interpolation(name: str) -> int:
    return bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items[name].value


def is_take(action: bpy.types.Action | None) -> bool:
    """Whether the Action is one of ours."""
    return action is not None and TAKE_TAG in action


def takes_of(target: bpy.types.Object) -> list[bpy.types.Action]:
    """The takes made for this object, oldest first.

    Those that bear no id of shape keys in the file (they were removed, or the take is an old one) go by its name.
    """
    own = target.data.shape_keys.get(ID_TAG) if target.data.shape_keys else None
    borne = {key[ID_TAG] for key in bpy.data.shape_keys if ID_TAG in key}

    def is_own(settings: dict[str, Any]) -> bool:
        owner = settings.get("target_id")
        return bool(owner == own) if owner in borne else settings.get("target") == target.name

    found = [action for action in bpy.data.actions if is_take(action) and is_own(take_settings(action))]
    return sorted(found, key=lambda action: take_settings(action).get("number", 0))


def take_settings(action: bpy.types.Action) -> dict[str, Any]:
    """The settings stored with a take; empty if they were spoilt."""
    try:
        settings = json.loads(action[TAKE_TAG])
    except (KeyError, TypeError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def active_take(target: bpy.types.Object | None) -> bpy.types.Action | None:
    """The take that animates the object's shape keys now, or None."""
    keys = target.data.shape_keys if target is not None and target.type == "MESH" else None
    action = _active_action(keys) if keys else None
    return action if is_take(action) else None


def _active_action(datablock: Any) -> bpy.types.Action | None:
    return datablock.animation_data.action if datablock.animation_data else None


def _carry_to_object(target: bpy.types.Object, frames: tuple[int, int]) -> None:
    """Give the object a carrier that spans the take, unless it has animation: an Action of the artist's, NLA tracks.

    A carrier of its own rather than a slot in the take: what the artist keys on the object goes into its active Action,
    and would be lost with the take.
    """
    data = target.animation_data
    if data is not None and (len(data.nla_tracks) or data.use_tweak_mode):
        return
    action = _active_action(target)
    if is_take(action):  # from a version that lent the object a slot in the take: it stays if the artist used it
        if any(True for _ in compat.curves_of(target)):
            return
        action = None
    elif action is not None and CARRIER_TAG not in action:
        return
    if action is None:
        action = bpy.data.actions.new(f"{target.name} FBX range")
        # The exporter plays every Action whose paths exist on an object: a name of its own keeps it off other heads.
        action[CARRIER_TAG] = f"{CARRIER_TAG}_{uuid.uuid4().hex[:8]}"
    compat.assign_action(target, action)
    _span(target, str(action[CARRIER_TAG]), frames)


def _span(target: bpy.types.Object, name: str, frames: tuple[int, int]) -> None:
    """Two still keys on the custom property `name`, from the first take to the last. Other curves are left alone."""
    target[name] = 0.0
    path = f'["{name}"]'
    curve = next((curve for curve in compat.curves_of(target) if curve.data_path == path), None)
    if curve is None:
        curve = compat.new_curve(target.animation_data.action, target, path)
    points = curve.keyframe_points
    ends = [point.co.x for point in points]
    points.clear()
    points.add(2)
    points.foreach_set("co", [min([frames[0], *ends]), 0.0, max([frames[1], *ends]), 0.0])
    curve.update()
