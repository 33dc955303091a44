"""Takes side by side: copies of the mesh object beside it, each playing another take, or one take in other feelings.

The copies have meshes of their own: shape keys, and with them the Action that animates them, belong to the mesh, so
objects that share one always wear the same face. They lie in a collection of their own and are not rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import bpy
from mathutils import Matrix, Vector

from . import compat, edits, keys, parts

COLLECTION_TAG = "lsf_compare"
"""Custom property of the collection that holds the copies."""

PREVIEW_TAG = "lsf_preview"
"""Custom property of Actions that live as long as the comparison only."""

STRENGTHS = (0.0, 0.5, 1.5, 2.0)
"""Strengths of the emotion in a row of previews, beside the take as it is."""

GAP = 1.15
"""Distance from copy to copy, in widths of the mesh."""


def shown(scene: bpy.types.Scene) -> bpy.types.Collection | None:
    """The collection with the copies, or None."""
    return next((each for each in scene.collection.children if COLLECTION_TAG in each), None)


def show(scene: bpy.types.Scene, target: bpy.types.Object, actions: Sequence[bpy.types.Action]) -> bpy.types.Collection:
    """Copies of the mesh and its parts in a row to its side, one for each Action, bearing its name."""
    place = bpy.data.collections.new(f"{target.name} compared")
    place[COLLECTION_TAG] = True
    scene.collection.children.link(place)
    step = _step(target)
    for number, action in enumerate(actions, 1):
        for thing in parts.together(target):
            copy = _copy(thing, place, Matrix.Translation(step * number) @ thing.matrix_world)
            copy.name = action.name if thing == target else f"{action.name} {thing.name}"
            copy.show_name = thing == target
            if copy.data.shape_keys is not None:
                compat.assign_action(copy.data.shape_keys, action)
    return place


def _copy(thing: bpy.types.Object, place: bpy.types.Collection, matrix: Matrix) -> bpy.types.Object:
    """A copy of the object, with a mesh of its own, in the collection at this place in the world."""
    copy = thing.copy()
    copy.data = thing.data.copy()
    copy.animation_data_clear()
    copy.hide_render = True
    # An armature would bend the copy by how far it stands from the bones.
    for modifier in [m for m in copy.modifiers if m.type == "ARMATURE"]:
        copy.modifiers.remove(modifier)
    place.objects.link(copy)
    copy.select_set(False)
    copy.matrix_world = matrix
    return copy


def show_emotions(scene: bpy.types.Scene, target: bpy.types.Object, take: bpy.types.Action) -> bpy.types.Collection:
    """The take with its emotion weaker and stronger, without the network. Raises Problem if it has no raw motion."""
    settings, previews = edits.current(take), []
    for strength in STRENGTHS:
        preview = take.copy()
        preview.name, preview.use_fake_user, preview[PREVIEW_TAG] = f"emotion {strength:g}", False, True
        previews.append(preview)
        try:
            edits.apply(preview, replace(settings, emotion=strength))
        except Exception:
            _forget_previews()
            raise
        del preview[keys.TAKE_TAG]  # it is no take of the artist's
    return show(scene, target, previews)


def clear(scene: bpy.types.Scene) -> None:
    """Remove the copies and their meshes. Takes and the mesh itself stay."""
    place = shown(scene)
    if place is None:
        return
    for copy in list(place.objects):
        mesh = copy.data
        bpy.data.objects.remove(copy)
        if mesh is not None and not mesh.users:
            bpy.data.meshes.remove(mesh)
    bpy.data.collections.remove(place)
    _forget_previews()


def _forget_previews() -> None:
    for action in [action for action in bpy.data.actions if PREVIEW_TAG in action]:
        bpy.data.actions.remove(action)


def _step(target: bpy.types.Object) -> Vector:
    """World vector from one copy to the next: along the world's X."""
    corners = [target.matrix_world @ Vector(corner) for corner in target.bound_box]
    width = max(corner.x for corner in corners) - min(corner.x for corner in corners)
    return Vector((GAP * max(width, 1e-6), 0.0, 0.0))
