"""The add-on's preferences: which Python runs the engine."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import StringProperty

from . import engine
from .report import Problem


class LSFPreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    engine_python: StringProperty(
        name="Engine Python", subtype="FILE_PATH",
        description="A Python 3.10+ with PyTorch and transformers, as in a virtual environment. Empty: found by itself",
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.prop(self, "engine_python")
        try:
            layout.label(text=f"The engine runs in {engine_python(context)}", icon="CHECKMARK")
        except Problem as problem:
            layout.label(text=str(problem), icon="ERROR")
        layout.operator("lsf.stop_engine")


def engine_python(context: bpy.types.Context) -> str:
    """The engine's Python by environment, preference, set-up engine or checkout. Raises Problem."""
    addon = context.preferences.addons.get(__package__)  # missing when registered by a script from a checkout
    chosen = addon.preferences.engine_python if addon and addon.preferences else ""
    return engine.find_python(bpy.path.abspath(chosen) if chosen else "", user_folder())


def user_folder() -> Path | None:
    """The folder that Blender gives an installed extension to write into, None in a checkout."""
    try:
        return Path(bpy.utils.extension_path_user(__package__))
    except (AttributeError, ValueError):
        return None


def register() -> None:
    bpy.utils.register_class(LSFPreferences)


def unregister() -> None:
    bpy.utils.unregister_class(LSFPreferences)
