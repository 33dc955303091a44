"""Sub-panel *Parts and Bones*: what moves with the head's own mesh: other objects, and bones of an armature."""

from __future__ import annotations

from typing import Any

import bpy

from . import bones, job, keys, mesh_io, parts
from .panel import Section, draw_message, in_both_sidebars, wrap_width
from .report import Problem


def _no_head(context: bpy.types.Context) -> str | None:
    """Why there is no head whose parts could be changed, or None."""
    if job.busy():
        return job.BUSY
    return mesh_io.refusal(context.scene.lsf.target, context.scene)


class LSF_OT_add_parts(bpy.types.Operator):
    bl_idname = "lsf.add_parts"
    bl_label = "Add Selected Objects"
    bl_description = "Add the selected meshes to the parts of the head: they get shape keys and move with the face"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        reason = _no_head(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        target = context.scene.lsf.target
        try:
            fresh = parts.chosen(target, context.selected_objects)
        except Problem as problem:
            self.report({"ERROR"}, str(problem))
            return {"CANCELLED"}
        for thing in fresh:
            target.lsf_parts.add().object = thing
        target.lsf_active_part = len(target.lsf_parts) - 1
        return {"FINISHED"}


class LSF_OT_remove_part(bpy.types.Operator):
    bl_idname = "lsf.remove_part"
    bl_label = "Remove Part"
    bl_description = "Take the object off the list. It keeps its shape keys, and takes no longer move it"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        reason = _no_head(context)
        if not reason and not context.scene.lsf.target.lsf_parts:
            reason = "There are no parts."
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        target = context.scene.lsf.target
        place = min(target.lsf_active_part, len(target.lsf_parts) - 1)
        part = target.lsf_parts[place].object
        target.lsf_parts.remove(place)
        target.lsf_active_part = max(0, place - 1)
        if part is not None and part not in parts.together(target):
            parts.release(part, keys.TAKE_TAG)
        return {"FINISHED"}


class LSF_UL_parts(bpy.types.UIList):
    bl_idname = "LSF_UL_parts"

    def draw_item(self, context: bpy.types.Context, layout: Any, data: Any, item: Any, icon: int,
                  active_data: Any, active_property: str, index: int = 0) -> None:
        layout.prop(item, "object", text="", icon="MESH_DATA")


class _Targets(Section):
    bl_label = "Parts and Bones"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012

    def draw(self, context: bpy.types.Context) -> None:
        layout, target, width = self.layout, context.scene.lsf.target, wrap_width(context)
        if target is None:
            draw_message(layout, mesh_io.refusal(target, context.scene), "INFO", width)
            return
        column = layout.column()
        column.enabled = not job.busy()
        column.label(text=f"Objects that move with '{target.name}'")
        row = column.row()
        row.template_list("LSF_UL_parts", "", target, "lsf_parts", target, "lsf_active_part", rows=3)
        side = row.column(align=True)
        side.operator("lsf.add_parts", text="", icon="ADD")
        side.operator("lsf.remove_part", text="", icon="REMOVE")
        if not target.lsf_parts:
            column.operator("lsf.add_parts", icon="ADD")
        if mesh_io.refusal(target, context.scene) is None:
            draw_message(column, parts.refusal(target, context.scene), "ERROR", width)
        draw_bones(column, context, target)


def draw_bones(layout: Any, context: bpy.types.Context, target: bpy.types.Object) -> None:
    """The armature or parent, and its bones."""
    chosen = target.lsf_bones
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    column.prop(chosen, "owner")
    if chosen.owner is not None and chosen.owner.type == "ARMATURE":
        for role in bones.ROLES:
            column.prop(chosen, role, icon="BONE_DATA")
        if chosen.jaw:
            column.prop(chosen, "jaw_angle")
    draw_message(column, bones.refusal(target, context.scene), "ERROR", wrap_width(context))


PANELS = in_both_sidebars(_Targets, "targets")
CLASSES: tuple[type, ...] = (LSF_OT_add_parts, LSF_OT_remove_part, LSF_UL_parts, *PANELS)

register, unregister = bpy.utils.register_classes_factory(CLASSES)
