"""The carrier: a still Action on the object that spans its takes.

Blender's default FBX export looks for shape-key animation only on objects that have an Action. An object that has one
already needs none, and a carrier in which the artist keys the object is theirs: only our own curve in it is changed.
"""

from __future__ import annotations

import uuid

import bpy

from . import compat

CARRIER_TAG = "lsf_fbx_range"
"""Custom property of our carrier Actions: name of the object's custom property that the carrier keys."""


def carry(target: bpy.types.Object, frames: tuple[int, int], is_take: bool) -> None:
    """Give the object a carrier that spans the take, unless it has animation: an Action of the artist's, NLA tracks.

    is_take: the object's Action is one of our takes, from a version that lent the object a slot in it.
    A carrier of its own rather than a slot in the take: what the artist keys on the object goes into its active Action,
    and would be lost with the take.
    """
    data = target.animation_data
    if data is not None and (len(data.nla_tracks) or data.use_tweak_mode):
        return
    action = data.action if data is not None else None
    if is_take:
        if any(True for _ in compat.curves_of(target)):  # the artist used the slot: it stays
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
