"""Export FBX with the settings that keep shape-key animation.

Blender's default FBX export bakes NLA strips and all Actions, which looks at objects only and drops what animates their
shape keys; and applying modifiers drops the shape keys themselves. The scene's own range is baked here, unsimplified.
"""

from __future__ import annotations

import os
from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty
from bpy_extras.io_utils import ExportHelper

from . import keys, mesh_io
from .report import Problem


def refusal(context: bpy.types.Context) -> str | None:
    """Why there is nothing to export, in words for the panel; None if there is."""
    scene = context.scene
    reason = mesh_io.refusal(scene.lsf.target, scene)
    if reason:
        return reason
    if keys.active_take(scene.lsf.target) is None:
        return f"'{scene.lsf.target.name}' has no take yet. Press Animate first."
    return None


class LSF_OT_export_fbx(bpy.types.Operator, ExportHelper):
    bl_idname = "lsf.export_fbx"
    bl_label = "Export FBX"
    bl_description = "Export the mesh with its shape keys and the active take, in a way that other programs read"

    filename_ext = ".fbx"
    filter_glob: StringProperty(default="*.fbx", options={"HIDDEN"})
    whole_scene: BoolProperty(
        name="Whole Scene", default=False,
        description="Export every object of the scene instead of the mesh, its parents, children and armature",
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if bpy.app.background:
            return True
        reason = refusal(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.lsf.error = ""
        try:
            path = export(context, self.filepath, self.whole_scene)
        except Problem as problem:
            context.scene.lsf.error = str(problem)
            self.report({"ERROR"}, str(problem))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Exported {path}")
        return {"FINISHED"}


def export(context: bpy.types.Context, filepath: str, whole_scene: bool = False) -> str:
    """Write the active take of `scene.lsf.target` as FBX. The scene is left as it was. Raises Problem.

    Returns the path that was written, with its extension.
    """
    reason = refusal(context)
    if reason:
        raise Problem(reason)
    path = bpy.path.ensure_ext(os.path.normpath(bpy.path.abspath(filepath)), ".fbx") if filepath else ""
    folder = os.path.dirname(path)
    if not path or not os.path.isdir(folder):
        raise Problem(f"There is no folder '{folder}' to write '{os.path.basename(path)}' into. Choose another place.")
    if not hasattr(bpy.types, "EXPORT_SCENE_OT_fbx"):
        raise Problem("Blender's FBX exporter is switched off. Enable 'FBX format' in Preferences > Add-ons.")
    scene, target = context.scene, context.scene.lsf.target
    objects = [o for o in scene.objects if o.visible_get()] if whole_scene else belongings(target, scene)
    before = (scene.frame_start, scene.frame_end, scene.frame_current, scene.frame_subframe)
    first, last = _range(target)
    try:
        scene.frame_start, scene.frame_end = min(before[0], first), max(before[1], last)  # never cut a take short
        with context.temp_override(selected_objects=objects, active_object=target, object=target):
            bpy.ops.export_scene.fbx(filepath=path, use_selection=True, **FBX_SETTINGS)
    except RuntimeError as error:
        raise Problem(f"Blender's FBX exporter failed for '{path}': {str(error).strip()}") from error
    finally:
        scene.frame_start, scene.frame_end = before[:2]
        scene.frame_set(before[2], subframe=before[3])
    return path


FBX_SETTINGS: dict[str, Any] = {
    "bake_anim": True,
    "bake_anim_use_nla_strips": False,
    "bake_anim_use_all_actions": False,
    "bake_anim_simplify_factor": 0.0,
    "bake_anim_step": 1.0,
    "use_mesh_modifiers": False,
    "add_leaf_bones": False,
}


def belongings(target: bpy.types.Object, scene: bpy.types.Scene) -> list[bpy.types.Object]:
    """The mesh, its parents, the children of them all, and the armatures that bend them: the character."""
    root = target
    while root.parent is not None:
        root = root.parent
    found = [root, *root.children_recursive]
    for thing in list(found):
        found += [m.object for m in thing.modifiers if m.type == "ARMATURE" and m.object]
    return [thing for thing in dict.fromkeys(found) if mesh_io.in_scene(thing, scene)]


def _range(target: bpy.types.Object) -> tuple[int, int]:
    settings = keys.take_settings(keys.active_take(target))
    first = int(settings.get("first_frame", 1))
    return first, first + max(int(settings.get("frames", 1)) - 1, 0)


def register() -> None:
    bpy.utils.register_class(LSF_OT_export_fbx)


def unregister() -> None:
    bpy.utils.unregister_class(LSF_OT_export_fbx)
