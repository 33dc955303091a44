"""The add-on's preferences: which Python runs the engine, on which device, and how it is set up."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty

from . import engine, engine_setup
from .report import Cure, Problem, cures_of, remember

DEVICES = (
    ("auto", "Automatic", "The graphics card where PyTorch can use it (CUDA, Apple), else the CPU"),
    ("cpu", "CPU", "The processor alone; for a graphics card that is full or fails"),
    ("cuda", "CUDA", "An NVIDIA graphics card, or an AMD one with PyTorch for ROCm"),
    ("mps", "Apple", "The graphics of an Apple processor"),
)

OFFLINE = "It downloads PyTorch: allow Online Access in Preferences > System, or name a folder of wheels"
remember(OFFLINE, [Cure("extensions.userpref_allow_online", text="Allow Online Access")])

WRAP = 70
"""Characters on a line of the preferences."""


class LSFPreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    engine_python: StringProperty(
        name="Engine Python", subtype="FILE_PATH",
        description="A Python 3.11+ with PyTorch and transformers, as in a virtual environment. Empty: found by itself",
    )
    device: EnumProperty(name="Device", items=DEVICES, description="Where the network runs")
    wheel_folder: StringProperty(
        name="Wheel Folder", subtype="DIR_PATH",
        description="Set the engine up from the wheel files in this folder, without any network. Empty: download",
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        column = layout.column()
        column.use_property_split = True
        column.prop(self, "engine_python")
        column.prop(self, "wheel_folder")
        column.prop(self, "device")
        try:
            layout.label(text=f"The engine runs in {engine_python(context)}", icon="CHECKMARK")
        except Problem as problem:
            draw_text(layout, str(problem), "ERROR")
        draw_setup(layout)
        draw_state(layout)


def draw_setup(layout: Any) -> None:
    """The set-up's buttons, or its progress and outcome."""
    work, folder = engine_setup.current, user_folder()
    if engine_setup.busy():
        assert work
        layout.progress(factor=work.fraction, text=work.text)
        layout.label(text=work.log[-1][:100] if work.log else "")
        layout.operator("lsf.cancel_setup", icon="CANCEL")
        return
    made = folder is not None and engine_setup.python_in(folder / engine.MADE).exists()
    if folder is not None and made and engine_setup.outdated(folder):
        draw_text(layout, "The engine was set up for another version of the add-on. Repair it.", "ERROR")
    row = layout.row()
    row.operator("lsf.setup_engine", icon="IMPORT", text="Repair Engine" if made else "Set Up Engine")
    row.operator("lsf.remove_engine", icon="TRASH")
    if work is not None:
        draw_text(layout, work.text, "CHECKMARK" if work.state == "DONE" else "ERROR")
    reason = setup_refusal()
    if reason and not made:
        draw_text(layout, reason, "INFO")
        for cure in cures_of(reason):
            cure.draw(layout)
    row = layout.row()
    row.operator("lsf.open_setup_log", icon="TEXT")
    row.operator("lsf.copy_setup_log", icon="COPYDOWN")


def draw_state(layout: Any) -> None:
    """What the engine does now and what it holds, and the ways to free that."""
    draw_text(layout, f"Engine: {engine.describe()}", "SYSTEM")
    row = layout.row()
    row.operator("lsf.unload_engine")
    row.operator("lsf.stop_engine")


def draw_text(layout: Any, text: str, icon: str) -> None:
    """A message on as many lines as it needs: labels do not wrap."""
    column = layout.column(align=True)
    for number, line in enumerate(textwrap.wrap(text, WRAP)):
        column.label(text=line, icon=icon if number == 0 else "BLANK1")


def setup_refusal() -> str | None:
    """Why the engine cannot be set up, in words for the tooltip; None if it can."""
    if engine_setup.busy():
        return "The engine is being set up"
    if user_folder() is None:
        return "Only the installed extension has a folder for its engine; in a checkout use 'python3 install.py'"
    if not bpy.app.online_access and not wheel_folder(bpy.context):
        return OFFLINE
    return None


def _own(context: bpy.types.Context) -> Any | None:
    """The add-on's preferences; None when it was registered by a script from a checkout."""
    addon = context.preferences.addons.get(__package__)
    return addon.preferences if addon else None


def wheel_folder(context: bpy.types.Context) -> str:
    """Absolute path of the folder of wheels to set the engine up from; empty: download them."""
    own = _own(context)
    return bpy.path.abspath(own.wheel_folder) if own and own.wheel_folder else ""


def device(context: bpy.types.Context) -> str:
    """The device that the network is to run on, as the engine's --device takes it."""
    own = _own(context)
    return own.device if own else "auto"


def engine_python(context: bpy.types.Context) -> str:
    """The engine's Python by environment, preference, set-up engine or checkout. Raises Problem."""
    own = _own(context)
    chosen = bpy.path.abspath(own.engine_python) if own and own.engine_python else ""
    if not engine_setup.busy():
        return engine.find_python(chosen, user_folder())
    try:
        return engine.find_python(chosen)  # not the one that is being replaced
    except Problem as problem:
        if chosen:
            raise
        raise Problem("The engine is being set up. Wait until that is done.") from problem


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
