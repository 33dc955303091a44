"""EditSettings: one strength per edit, and how they are kept and shared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import LSFError

MAX_STRENGTH = 2.0


@dataclass(frozen=True)
class EditSettings:
    """What an artist adjusts without running the network again. Every strength goes from 0 (off) to 2.

    emotion: of what the voice's feeling adds, 1 as heard. smoothing: over time, 1 is a standard deviation of 40 ms.
    blink: how often, as a multiple of the usual rate. gaze: size of the eye movements.
    settle: length of the way from and to the neutral face at both ends.
    Raises LSFError for a strength out of range.
    """

    emotion: float = 1.0
    smoothing: float = 0.0
    blink: float = 1.0
    gaze: float = 1.0
    settle: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _strength(field.name, getattr(self, field.name)))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name; `from_dict` makes the same settings of it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> EditSettings:
        """Settings from names and numbers; what is missing has its default. Raises LSFError for unknown names."""
        known = [field.name for field in fields(EditSettings)]
        unknown = [str(name) for name in values if name not in known]
        if unknown:
            raise LSFError(f"There is no edit called '{unknown[0]}'; there are {', '.join(known)}.")
        return EditSettings(**values)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @staticmethod
    def from_json(text: str) -> EditSettings:
        """Raises LSFError if the text is no JSON object of edit settings."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise LSFError(f"The edit settings are not JSON ({error}). Save them again.") from error
        if not isinstance(values, dict):
            raise LSFError(f"The edit settings are a JSON {type(values).__name__}, not an object of names and numbers.")
        return EditSettings.from_dict(values)


def _strength(name: str, value: object) -> float:
    """The value as a float from 0 to MAX_STRENGTH, or LSFError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) \
            and 0 <= value <= MAX_STRENGTH:
        return float(value)
    raise LSFError(f"The edit '{name}' has the strength {value!r}; it must be from 0 (off) to {MAX_STRENGTH:g}.")


DEFAULT = EditSettings()
NONE = EditSettings(blink=0, gaze=0, settle=0)
"""The network's motion alone."""


def edit_settings(emotion: float = 1.0, edits: bool = True) -> EditSettings:
    """The usual settings, or none but the emotion's strength. Raises LSFError for a strength out of range."""
    return replace(DEFAULT if edits else NONE, emotion=emotion)
