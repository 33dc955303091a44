"""Runs inside the window's Blender (--python remote.py -- FOLDER): does what the test asks, on Blender's main thread.

The test puts N.py into FOLDER; it is run here between two events of the window, and N.json tells what became of it:
{"value": ...} with what the code assigned to `value`, or {"error": "traceback"}.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

import bpy

FOLDER = Path(sys.argv[sys.argv.index("--") + 1])
number = 0


def window_parts() -> dict:
    """The window, its 3D view and that one's sidebar, as temp_override takes them."""
    window = bpy.context.window_manager.windows[0]
    area = next(a for a in window.screen.areas if a.type == "VIEW_3D")
    region = next(r for r in area.regions if r.type == "UI")
    return {"window": window, "screen": window.screen, "area": area, "region": region}


def addon(name: str) -> ModuleType:
    """A module of the installed add-on."""
    return sys.modules[f"bl_ext.user_default.lsf_animation.{name}"]


def serve() -> float:
    global number
    todo = FOLDER / f"{number}.py"
    if todo.exists():
        names = {"bpy": bpy, "addon": addon, "window_parts": window_parts, "value": None}
        try:
            exec(compile(todo.read_text(encoding="utf-8"), str(todo), "exec"), names)
            answer = {"value": names["value"]}
        except Exception:
            answer = {"error": traceback.format_exc()}
        half = FOLDER / f"{number}.part"
        half.write_text(json.dumps(answer), encoding="utf-8")
        os.replace(half, FOLDER / f"{number}.json")
        number += 1
    return 0.02


bpy.app.timers.register(serve, persistent=True)
