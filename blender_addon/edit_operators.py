"""The sliders of the edits, and the buttons beside them: presets, keys changed by hand, single shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, PointerProperty, StringProperty
from bpy_extras.io_utils import ExportHelper, ImportHelper

from . import edits, keys, presets
from .button import Button
from .report import Problem
from .shared import arkit
from .shared import edits as core


def _shapes(_self: Any, _context: bpy.types.Context, typed: str) -> list[str]:
    return [name for name in arkit.ARKIT_NAMES if typed.lower() in name.lower()]


class LSFEdits(bpy.types.PropertyGroup):
    """The active take's edits as sliders: `window_manager.lsf_edits`. They hold nothing themselves, see edits.py."""

    emotion: edits.strength("emotion")
    jaw: edits.strength("jaw")
    lips: edits.strength("lips")
    cheeks: edits.strength("cheeks")
    brows: edits.strength("brows")
    eyes: edits.strength("eyes")
    smoothing: edits.strength("smoothing")
    closure: edits.strength("closure")
    blink: edits.strength("blink")
    gaze: edits.strength("gaze")
    head: edits.strength("head")
    asymmetry: edits.strength("asymmetry")
    breath: edits.strength("breath")
    settle: edits.strength("settle")
    shape: StringProperty(name="Shape", search=_shapes, description="The shape key that gain and offset are of")
    gain: edits.of_shape("gain", 1.0, 0.0, core.settings.MAX_STRENGTH, "The shape's weight is multiplied by this")
    offset: edits.of_shape("offset", 0.0, -1.0, 1.0, "This is added to the shape's weight")


class _OnEdits(Button):
    """An operator on the active take's edits: `work` does it."""

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return edits.refusal(context)

    def subject(self, context: bpy.types.Context) -> tuple[Any, ...]:
        return context, keys.active_take(context.scene.lsf.target)


class LSF_OT_apply_preset(_OnEdits, bpy.types.Operator):
    bl_idname = "lsf.apply_preset"
    bl_label = "Apply Preset"
    bl_description = "Give the active take the edits of this preset"

    name: StringProperty(name="Preset", default="Natural")

    def work(self, context: bpy.types.Context, take: bpy.types.Action) -> None:
        edits.apply(take, presets.load(self.name))


class LSF_OT_import_preset(_OnEdits, bpy.types.Operator, ImportHelper):
    bl_idname = "lsf.import_preset"
    bl_label = "Load Preset from File"
    bl_description = "Read a preset that somebody passed on, keep it, and give its edits to the active take"

    filename_ext = presets.SUFFIX
    filter_glob: StringProperty(default="*.json", options={"HIDDEN"})

    def work(self, context: bpy.types.Context, take: bpy.types.Action) -> None:
        path = Path(bpy.path.abspath(self.filepath))
        settings = presets.read(path)
        presets.save(path.name.removesuffix(".json").removesuffix(".lsf"), settings)
        edits.apply(take, settings)


class LSF_OT_export_preset(_OnEdits, bpy.types.Operator, ExportHelper):
    bl_idname = "lsf.export_preset"
    bl_label = "Save Preset to File"
    bl_description = "Write the active take's edits to a file that can be passed on"
    bl_options = {"REGISTER"}  # noqa: RUF012

    filename_ext = presets.SUFFIX
    filter_glob: StringProperty(default="*.json", options={"HIDDEN"})

    def work(self, context: bpy.types.Context, take: bpy.types.Action) -> None:
        path = Path(bpy.path.abspath(self.filepath))
        try:
            presets.write(path, edits.current(take))
        except OSError as error:
            raise Problem(f"The preset cannot be written: '{path}' ({error.strerror}). Choose another folder."
                          ) from error


class LSF_OT_save_preset(_OnEdits, bpy.types.Operator):
    bl_idname = "lsf.save_preset"
    bl_label = "Save as Preset"
    bl_description = "Keep the active take's edits under a name, for takes of other meshes and files too"
    bl_options = {"REGISTER"}  # noqa: RUF012

    name: StringProperty(name="Name", default="My Edits")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def work(self, context: bpy.types.Context, take: bpy.types.Action) -> None:
        presets.save(self.name, edits.current(take))


class LSF_OT_remove_preset(bpy.types.Operator):
    bl_idname = "lsf.remove_preset"
    bl_label = "Delete Preset"
    bl_description = "Delete this preset of yours. Takes that have its edits keep them"

    name: StringProperty(name="Name")

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            presets.remove(self.name)
        except Problem as problem:
            self.report({"ERROR"}, str(problem))
            return {"CANCELLED"}
        return {"FINISHED"}


class LSF_OT_hand_keys(_OnEdits, bpy.types.Operator):
    bl_idname = "lsf.hand_keys"
    bl_label = "Write Edits"
    bl_description = "Write the take's edits"

    keep: BoolProperty(name="Keep", default=True, description="Keep the keys that were changed by hand")

    @classmethod
    def description(cls, context: bpy.types.Context, properties: Any) -> str:
        return ("Write the edits around the keys that were changed by hand" if properties.keep else
                "Write the edits over the keys that were changed by hand: those changes are lost")

    def work(self, context: bpy.types.Context, take: bpy.types.Action) -> None:
        edits.answer(take, self.keep)


class LSF_OT_reset_shape(_OnEdits, bpy.types.Operator):
    bl_idname = "lsf.reset_shape"
    bl_label = "Reset Shape"
    bl_description = "Give this shape its usual gain and offset again"

    shape: StringProperty(name="Shape")

    def work(self, context: bpy.types.Context, take: bpy.types.Action) -> None:
        settings = edits.current(take).to_dict()
        for table in ("gain", "offset"):
            settings[table].pop(self.shape, None)
        edits.apply(take, core.EditSettings.from_dict(settings))


CLASSES = (LSFEdits, LSF_OT_apply_preset, LSF_OT_import_preset, LSF_OT_export_preset, LSF_OT_save_preset,
           LSF_OT_remove_preset, LSF_OT_hand_keys, LSF_OT_reset_shape)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.WindowManager.lsf_edits = PointerProperty(type=LSFEdits)


def unregister() -> None:
    del bpy.types.WindowManager.lsf_edits
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
