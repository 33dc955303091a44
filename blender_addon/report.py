"""What goes wrong, told once and well: `Problem` is what the user can mend, `describe` makes a bug report."""

from __future__ import annotations

import platform
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import bpy

REMEMBERED = 64


@dataclass(frozen=True)
class Cure:
    """A button that mends what a message tells of: an operator, the properties it is called with, and its label."""

    operator: str
    properties: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def draw(self, layout: Any) -> None:
        """Put the button into a layout."""
        button = layout.operator(self.operator, text=self.text) if self.text else layout.operator(self.operator)
        for name, value in self.properties.items():
            setattr(button, name, value)


PREFERENCES = Cure("lsf.show_preferences")
ENGINE = (Cure("lsf.setup_engine"), PREFERENCES)
"""For an engine that is not there, or not the right one."""

_cures: OrderedDict[str, tuple[Cure, ...]] = OrderedDict()


class Problem(RuntimeError):
    """Stops a job. The message names the thing, the value and the cure; the panel shows it as it is.

    trace: where it came from, if it is a defect of ours rather than something in the scene.
    cures: the buttons that the panel shows below the message, see `cures_of`.
    """

    def __init__(self, message: str, trace: str = "", cures: Sequence[Cure] = ()) -> None:
        super().__init__(message)
        self.trace = trace
        remember(message, cures)


def remember(message: str, cures: Sequence[Cure]) -> None:
    """Note which buttons mend what `message` tells of."""
    if cures:
        _cures[message] = tuple(cures)
        _cures.move_to_end(message)
        while len(_cures) > REMEMBERED:
            _cures.popitem(last=False)


def told(message: str, *cures: Cure) -> str:
    """The message, after noting the buttons that mend it."""
    remember(message, cures)
    return message


def cures_of(message: str) -> tuple[Cure, ...]:
    """The buttons for a message, found by its text: that is all that Blender's properties and tooltips carry."""
    return _cures.get(message, ())


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
