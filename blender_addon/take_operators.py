"""Buttons of the take list. Each works on the active take of the chosen mesh, and says why where it cannot."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import IntProperty

from . import compare, edits, keys, takes
from .button import Button
from .report import Problem


class _OnTake(Button):
    """An operator on the active take: `work` does it and tells what was done."""

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return takes.refusal(context)

    def subject(self, context: bpy.types.Context) -> tuple[Any, ...]:
        target = context.scene.lsf.target
        return context, target, keys.active_take(target)

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.lsf.error = ""
        return super().execute(context)

    def failed(self, context: bpy.types.Context, problem: Problem) -> None:
        context.scene.lsf.error = str(problem)
        super().failed(context, problem)


class LSF_OT_duplicate_take(_OnTake, bpy.types.Operator):
    bl_idname = "lsf.duplicate_take"
    bl_label = "Duplicate Take"
    bl_description = "Copy the active take with its keys and edits into a take of its own"

    def work(self, context: bpy.types.Context, target: bpy.types.Object, take: bpy.types.Action) -> str:
        return f"Made {takes.duplicate(target, take).name}"


class LSF_OT_delete_take(_OnTake, bpy.types.Operator):
    bl_idname = "lsf.delete_take"
    bl_label = "Delete Take"
    bl_description = "Delete the active take from the file. Shape keys and other takes stay"

    def work(self, context: bpy.types.Context, target: bpy.types.Object, take: bpy.types.Action) -> str:
        name = take.name
        takes.delete(target, take)
        return f"Deleted {name}"


class LSF_OT_push_take(_OnTake, bpy.types.Operator):
    bl_idname = "lsf.push_take"
    bl_label = "Push Down to NLA"
    bl_description = "Put the active take on an NLA track of its own, where takes can be placed one after the other"

    def work(self, context: bpy.types.Context, target: bpy.types.Object, take: bpy.types.Action) -> str:
        takes.push_down(target, take)
        return f"{take.name} plays in the NLA now"


class LSF_OT_follow_strip(_OnTake, bpy.types.Operator):
    bl_idname = "lsf.follow_strip"
    bl_label = "Move Take to Strip"
    bl_description = "The strip was moved since: move all keys of the active take by as many frames"

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        reason = takes.refusal(context)
        if reason is None and not takes.moved_by(context, context.scene, keys.active_take(context.scene.lsf.target)):
            reason = "The strip of the active take has not moved."
        return reason

    def work(self, context: bpy.types.Context, target: bpy.types.Object, take: bpy.types.Action) -> str:
        frames = takes.moved_by(context, context.scene, take)
        takes.move(target, take, frames)
        return f"Moved {take.name} by {frames:+d} frames"


class LSF_OT_refit_take(_OnTake, bpy.types.Operator):
    bl_idname = "lsf.refit_take"
    bl_label = "Fit to Frame Rate"
    bl_description = ("The scene's frame rate was changed since: lay the active take anew for it, without the network. "
                      "Keys that you changed go along")

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        take = keys.active_take(context.scene.lsf.target)
        reason = takes.refusal(context) or edits.refusal(context)
        if reason is None and takes.off_clock(context.scene, take) is None:
            reason = "The active take is for the frame rate that the scene has."
        return reason

    def work(self, context: bpy.types.Context, target: bpy.types.Object, take: bpy.types.Action) -> str:
        takes.refit(context, target, take)
        return f"{take.name} is for {keys.take_settings(take)['fps']:g} fps now"


class LSF_OT_compare_takes(_OnTake, bpy.types.Operator):
    bl_idname = "lsf.compare_takes"
    bl_label = "Compare Takes"
    bl_description = "Show the newest other takes on copies of the mesh beside it, in time; again: remove the copies"

    count: IntProperty(name="Takes", default=4, min=1, max=12, description="How many copies at most")

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        target = context.scene.lsf.target
        if compare.shown(context.scene):
            return None
        if target is not None and len(keys.takes_of(target)) == 1 and keys.active_take(target) is not None:
            return "There is one take only. Make another one to compare it with."
        return takes.refusal(context)

    def work(self, context: bpy.types.Context, target: bpy.types.Object, take: bpy.types.Action) -> str:
        if compare.shown(context.scene):
            compare.clear(context.scene)
            return "The copies are gone"
        others = [each for each in keys.takes_of(target) if each != take][-self.count :]
        compare.show(context.scene, target, others)
        return f"{take.name} beside {', '.join(each.name for each in others)}"


class LSF_OT_preview_emotions(_OnTake, bpy.types.Operator):
    bl_idname = "lsf.preview_emotions"
    bl_label = "Preview Emotion"
    bl_description = "Show the active take with no, half, one and a half and twice the emotion, on copies beside it"

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return takes.refusal(context) or edits.refusal(context)

    def work(self, context: bpy.types.Context, target: bpy.types.Object, take: bpy.types.Action) -> str:
        compare.clear(context.scene)
        compare.show_emotions(context.scene, target, take)
        return f"{take.name} in {len(compare.STRENGTHS)} strengths of its emotion"


CLASSES = (LSF_OT_duplicate_take, LSF_OT_delete_take, LSF_OT_push_take, LSF_OT_follow_strip, LSF_OT_refit_take,
           LSF_OT_compare_takes, LSF_OT_preview_emotions)

register, unregister = bpy.utils.register_classes_factory(CLASSES)
