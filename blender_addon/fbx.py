"""Export FBX with the settings that keep shape-key animation.

Blender's default FBX export bakes NLA strips and all Actions, which looks at objects only and drops what animates their
shape keys; and applying modifiers drops the shape keys themselves. The scene's own range is baked here, unsimplified.
The file is read again afterwards: what is told of an export is what lies in it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, StringProperty
from bpy_extras.io_utils import ExportHelper

from . import fbx_check, fbx_shapes, keys, landmarks, live, mesh_io, parts, strips
from .report import Cure, Problem

FBX_SETTINGS: dict[str, Any] = {
    "bake_anim": True,
    "bake_anim_use_nla_strips": False,
    "bake_anim_use_all_actions": False,
    "bake_anim_simplify_factor": 0.0,
    "use_mesh_modifiers": False,
    "add_leaf_bones": False,
}

PROGRAMS: dict[str, dict[str, Any]] = {
    "ANY": {},
    "UNITY": {"apply_scale_options": "FBX_SCALE_ALL"},  # else the imported object has a scale of 100
    "UNREAL": {"mesh_smooth_type": "FACE"},  # else Unreal complains of missing smoothing groups
}


@dataclass(frozen=True)
class Options:
    """How a take is exported.

    program: a key of PROGRAMS. names: a key of fbx_shapes.NAMES. only_moving: leave out shape keys that rest all the
    time. frame_rate: keys per second, 0 for the scene's. whole_scene: every visible object, not the character alone.
    """

    program: str = "ANY"
    names: str = "ARKIT"
    only_moving: bool = False
    frame_rate: float = 0.0
    whole_scene: bool = False


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
    program: EnumProperty(
        name="For", items=(("ANY", "Any Program", "Blender's usual units and axes"),
                           ("UNITY", "Unity", "Units applied, so that the object has a scale of 1"),
                           ("UNREAL", "Unreal Engine", "With smoothing groups, which it asks for")),
        description="The program that the file is for",
    )
    names: EnumProperty(
        name="Names", items=(("ARKIT", "ARKit: eyeBlinkLeft", "As Apple spells them"),
                             ("PASCAL", "Live Link: EyeBlinkLeft", "As Unreal's Live Link spells them"),
                             ("SHORT", "Short: eyeBlink_L", "As Unity's ARKit samples spell them")),
        description="What the shape keys are called in the file",
    )
    only_moving: BoolProperty(
        name="Only Moving Shapes", default=False,
        description="Leave out the shape keys that the take does not move: a smaller file",
    )
    frame_rate: FloatProperty(
        name="Keys per Second", default=0.0, min=0.0, max=240.0,
        description="0: one key on each frame of the scene. Else as many, whatever the scene's frame rate",
    )
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
            options = Options(self.program, self.names, self.only_moving, self.frame_rate, self.whole_scene)
            path = export(context, self.filepath, options)
            told = described(fbx_check.contents(path), context.scene)
        except Problem as problem:
            context.scene.lsf.error = str(problem)
            self.report({"ERROR"}, str(problem))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Exported {path}")
        self.report({"INFO"}, f"The file holds {told}")
        return {"FINISHED"}


def export(context: bpy.types.Context, filepath: str, options: Options = Options()) -> str:
    """Write the active take of `scene.lsf.target` as FBX. The scene is left as it was. Raises Problem, also where the
    file turns out not to hold the take.

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
        raise Problem("Blender's FBX exporter is switched off. Enable 'FBX format' in Preferences > Add-ons.",
                      cures=[Cure("preferences.addon_enable", {"module": "io_scene_fbx"}, "Enable FBX Format")])
    live.stop()  # the file is to hold the values that are set or animated
    scene, target = context.scene, context.scene.lsf.target
    objects = [o for o in scene.objects if o.visible_get()] if options.whole_scene else belongings(target, scene)
    step = strips.scene_fps(scene) / options.frame_rate if options.frame_rate else 1.0
    before = (scene.frame_start, scene.frame_end, scene.frame_current, scene.frame_subframe)
    first, last = _range(target)
    try:
        # Never cut a take short; steps that do not meet the last frame go on to the next.
        scene.frame_start, scene.frame_end = min(before[0], first), max(before[1], last) + (step != 1.0)
        selection = context.temp_override(selected_objects=objects, active_object=target, object=target)
        with ExitStack() as stack:
            for thing in parts.keyed(target):
                stack.enter_context(fbx_shapes.dressed(thing, options.names, options.only_moving))
            stack.enter_context(selection)
            bpy.ops.export_scene.fbx(filepath=path, use_selection=True, bake_anim_step=step, **FBX_SETTINGS,
                                     **PROGRAMS[options.program])
    except RuntimeError as error:
        raise Problem(f"Blender's FBX exporter failed for '{path}': {str(error).strip()}") from error
    finally:
        scene.frame_start, scene.frame_end = before[:2]
        scene.frame_set(before[2], subframe=before[3])
    _check(path, target, options)
    return path


def _check(path: str, target: bpy.types.Object, options: Options) -> None:
    """Raise Problem unless the file holds the shape keys, and moves those that the take moves."""
    rename = fbx_shapes.NAMES[options.names]
    moving = {rename(name) for name in fbx_shapes.moving(target)}
    present = {rename(block.name) for block in target.data.shape_keys.key_blocks[1:]}
    try:
        found = fbx_check.contents(path)
    except (fbx_check.FbxError, OSError) as error:
        raise Problem(f"Blender's FBX exporter wrote a file that cannot be read: {error}") from error
    coarse = 0 < options.frame_rate < strips.scene_fps(bpy.context.scene)  # a blink may lie between two keys
    still = [] if coarse else sorted(moving - set(found.moving))
    missing = [] if options.only_moving else sorted(present - set(found.shapes))
    if missing or still:
        what = f"lacks the shape keys {missing[:3]}" if missing else f"does not move {still[:3]}"
        raise Problem(f"The exported file '{path}' {what}. Look for muted shape keys, NLA tracks and drivers on "
                      f"'{target.name}', then export again.")


def described(found: fbx_check.Contents, scene: bpy.types.Scene) -> str:
    """What is in a file, in words for the artist."""
    fps = strips.scene_fps(scene)
    return (f"{found.vertices} vertices, {len(found.shapes)} shape keys, {len(found.moving)} of them moving, "
            f"{found.keys} keys from {found.first:.2f} s to {found.last:.2f} s "
            f"(frames {found.first * fps:.0f} to {found.last * fps:.0f})")


def belongings(target: bpy.types.Object, scene: bpy.types.Scene) -> list[bpy.types.Object]:
    """The mesh, its parts, its parents, the children of them all, and the armatures that bend them: the character.
    Shown landmarks are no part of it."""
    root = target
    while root.parent is not None:
        root = root.parent
    found = [root, *root.children_recursive, *parts.together(target)]
    if target.lsf_bones.owner is not None:
        found.append(target.lsf_bones.owner)
    for thing in list(found):
        found += [m.object for m in thing.modifiers if m.type == "ARMATURE" and m.object]
    return [thing for thing in dict.fromkeys(found)
            if mesh_io.in_scene(thing, scene) and landmarks.NAME_TAG not in thing]


def _range(target: bpy.types.Object) -> tuple[int, int]:
    settings = keys.take_settings(keys.active_take(target))
    first = int(settings.get("first_frame", 1))
    return first, first + max(int(settings.get("frames", 1)) - 1, 0)


def register() -> None:
    bpy.utils.register_class(LSF_OT_export_fbx)


def unregister() -> None:
    bpy.utils.unregister_class(LSF_OT_export_fbx)
