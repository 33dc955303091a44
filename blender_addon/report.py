"""What goes wrong, told once and well: `Problem` is what the user can mend, `describe` makes a bug report."""

from __future__ import annotations

import platform
import sys

import bpy


class Problem(RuntimeError):
    """Stops a job. The message names the thing, the value and the cure; the panel shows it as it is.

    trace: where it came from, if it is a defect of ours rather than something in the scene.
    """

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


def describe(message: str, trace: str = "", engine_log: str = "", engine_versions: str = "") -> str:
    """The text that an artist pastes into a bug report: message, versions, trace, the end of the engine's log."""
    parts = [
        message,
        f"Blender {bpy.app.version_string}, Python {platform.python_version()}, {platform.platform()}",
        f"Engine: {engine_versions or 'not started'}",
    ]
    if trace:
        parts += ["", trace.rstrip()]
    if engine_log:
        parts += ["", "End of the engine's log:", engine_log.rstrip()]
    return "\n".join(parts) + "\n"


def print_report(text: str) -> None:
    """To the console, where a user who starts Blender from a terminal finds it."""
    print(text, file=sys.stderr, flush=True)
