"""Takes: an Action of our own per run, with the weights as keys, written in bulk and never over an artist's Action.

The Action that was active before keeps a fake user, so that it survives saving, and stays in the Action list. A take
bears everything that is known of it as custom properties, so that it goes wherever the Action goes: saved, appended,
duplicated. What can be done with takes is in takes.py, changing their edits in edits.py.
"""

from __future__ import annotations

import contextlib
import json
import uuid
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from . import bones, compat, curves, parts, pieces
from .carrier import carry
from .mesh_io import curve_path

TAKE_TAG = "lsf_take"
"""Custom property of our Actions: JSON with the settings that made the take."""

RAW_TAG = "lsf_raw"
"""Custom property of our Actions: bytes of the take before edits (lsf_core.rawtake.RawTake)."""

WRITTEN_TAG = "lsf_written"
"""Custom property of our Actions: bytes of the keys as they were written (curves.pack), by data path."""

DRAFT_TAG = "lsf_draft"
"""Custom property of an Action that is to become a take."""

ID_TAG = "lsf_id"
"""Custom property of the Key data-block: what tells whose a take is, for objects are renamed."""


@dataclass(frozen=True)
class Take:
    """What was written."""

    action: bpy.types.Action
    first_frame: int
    last_frame: int
    keys: int
    set_aside: tuple[str, ...]
    """Names of the artist's Actions that were active before."""


def write_take(
    target: bpy.types.Object, name: str, names: list[str], weights: np.ndarray, start_frame: int,
    settings: dict[str, Any], mask: np.ndarray | None = None, raw: bytes = b"",
) -> Take:
    """Write a new take and make it the active one, of the parts too. Where that fails, everything is as it was.

    weights: (F, len(names)) in [0, 1]; frame i goes to scene frame start_frame + i. names: shape keys of the mesh.
    settings: stored with the take as JSON, so that it can be told apart and made again. mask: (F, len(names)) bool,
    where sparse keys are; None: a key on every frame. raw: bytes of the RawTake, which later edits start from.
    """
    motion = keyed_motion(names, weights, start_frame, mask, raw)
    with all_or_nothing([target]):
        return put_on(target, pieces.whole(draft(name, motion)), motion, settings)


@dataclass(frozen=True, eq=False)
class KeyedMotion:
    """The keys of a take, chosen and packed, so that nothing is left to do but to hand them to Blender."""

    curves: dict[str, curves.Keys]
    """By data path."""
    packed: bytes
    """The same, to be remembered."""
    style: str
    start_frame: int
    frames: int
    raw: bytes


def keyed_motion(names: list[str], weights: np.ndarray, start_frame: int, mask: np.ndarray | None,
                 raw: bytes) -> KeyedMotion:
    """Choose and pack the keys of a take, see `write_take`. Touches nothing of Blender."""
    chosen = {curve_path(shape): curves.chosen(weights[:, i], None if mask is None else mask[:, i], start_frame)
              for i, shape in enumerate(names)}
    style = curves.EVERY_FRAME if mask is None else curves.SPARSE
    return KeyedMotion(chosen, curves.pack(chosen), style, start_frame, len(weights), raw)


def draft(name: str, motion: KeyedMotion) -> pieces.Pieces[bpy.types.Action]:
    """The Action of a take, which nothing uses yet and which is not in the list of takes. Dropped in the middle, or
    where it fails, it is gone again."""
    action = bpy.data.actions.new(name)
    try:
        action[DRAFT_TAG] = True
        for path, each in motion.curves.items():
            curves.write(compat.draft_curves(action, "KEY", "Key").new(path), each, motion.style)
            yield None
        _put_bytes(action, WRITTEN_TAG, motion.packed)
        if motion.raw:
            _put_bytes(action, RAW_TAG, motion.raw)
    except BaseException:
        drop(action)
        raise
    return action


def drop(action: bpy.types.Action) -> None:
    """Remove a draft, if it is still there: not after an undo, or in another file."""
    with contextlib.suppress(ReferenceError):
        bpy.data.actions.remove(action)


def drop_left() -> None:
    """Remove the drafts in a state that an undo step caught in the middle of a job; used ones are the artist's."""
    for action in [action for action in bpy.data.actions if DRAFT_TAG in action and not action.users]:
        bpy.data.actions.remove(action)


def put_on(target: bpy.types.Object, action: bpy.types.Action, motion: KeyedMotion, settings: dict[str, Any]) -> Take:
    """Make a take of its draft, and the active one of the mesh and its parts."""
    key, first_frame, last_frame = target.data.shape_keys, motion.start_frame, motion.start_frame + motion.frames - 1
    owner = key.get(ID_TAG) or uuid.uuid4().hex
    put_settings(action, {**settings, "target_id": owner, "first_frame": first_frame, "frames": motion.frames,
                          "style": motion.style})
    action.pop(DRAFT_TAG, None)
    action.use_fake_user = True  # a take that is not active now must survive saving
    if compat.has_slots() and len(action.slots):
        action.slots[0].name_display = key.name
    set_aside = parts.assign(target, action, TAKE_TAG)
    for thing in parts.keyed(target):
        carry(thing, (first_frame, last_frame), is_take(_active_action(thing)))
    key[ID_TAG] = owner
    return Take(action, first_frame, last_frame, sum(len(keys) for keys in motion.curves.values()), tuple(set_aside))


@contextlib.contextmanager
def all_or_nothing(targets: Collection[bpy.types.Object]) -> Iterator[None]:
    """What fails inside leaves no Action behind, and the targets and their parts with the Actions, and slots, that they
    had before."""
    there = set(bpy.data.actions)
    before = [(data, compat.assigned(data)) for target in targets for thing in parts.together(target)
              for data in (thing, thing.data.shape_keys) if data is not None]
    try:
        yield
    except Exception:
        for data, assigned in before:
            # Blender may refuse that for the reason it refused the take: it is the first error that is to be told.
            with contextlib.suppress(Exception):
                compat.restore(data, assigned)
        for action in set(bpy.data.actions) - there:
            bpy.data.actions.remove(action)
        for target in targets:
            with contextlib.suppress(Exception):
                bones.play(target, active_take(target), takes_of(target))
        raise


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


def put_settings(action: bpy.types.Action, settings: dict[str, Any]) -> None:
    """Store the settings with a take."""
    action[TAKE_TAG] = json.dumps(settings)


def put_written(action: bpy.types.Action, written: Mapping[str, curves.Keys]) -> None:
    """Store the keys of a take as they were written, by data path."""
    _put_bytes(action, WRITTEN_TAG, curves.pack(written))


def written_keys(action: bpy.types.Action) -> dict[str, curves.Keys]:
    """The keys of a take as they were written, by data path; empty if that is not known (a take of version 0.1)."""
    try:
        return curves.unpack(bytes(action[WRITTEN_TAG]))
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile):
        return {}


def _put_bytes(action: bpy.types.Action, tag: str, data: bytes) -> None:
    """Store bytes as a custom property. Blender cuts bytes that replace others at their first zero (4.2 to 5.2)."""
    action.pop(tag, None)
    action[tag] = data


def active_take(target: bpy.types.Object | None) -> bpy.types.Action | None:
    """The take that animates the object's shape keys now, or None."""
    keys = target.data.shape_keys if target is not None and target.type == "MESH" else None
    action = _active_action(keys) if keys else None
    return action if is_take(action) else None


def _active_action(datablock: Any) -> bpy.types.Action | None:
    return datablock.animation_data.action if datablock.animation_data else None
