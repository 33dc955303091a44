"""EditSettings: one strength per edit, and how they are kept and shared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..arkit import INDEX
from ..errors import LSFError

MAX_STRENGTH = 2.0

REGION_STRENGTHS = ("jaw", "lips", "cheeks", "brows", "eyes")

STRENGTHS = {
    "emotion": "What the voice's feeling adds to the neutral delivery: 0 none, 1 as heard",
    "jaw": "How far the jaw opens; p, b and m stay closed",
    "lips": "How much the lips shape the sounds; p, b and m stay closed",
    "cheeks": "Cheeks and nose",
    "brows": "Brows",
    "eyes": "Lids of the performance: squint, wide, half closed; blinks and gaze have strengths of their own",
    "smoothing": "Calm over time, 0 off; closed lips and blinks are kept",
    "closure": "How firmly p, b and m are pressed, 0 as the network has it",
    "blink": "How often the eyes blink",
    "gaze": "How far the eyes wander, 0 not at all",
    "head": "Head motion with the melody of the voice",
    "asymmetry": "How much the two sides of the face differ",
    "breath": "Breaths taken before phrases",
    "settle": "How softly the face comes to rest in pauses and at both ends",
}
"""Every strength, 0 (off) to MAX_STRENGTH, in the order of a panel, with a line for its tooltip."""


def _shapes() -> Any:
    return field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class EditSettings:
    """What an artist adjusts without running the network again: the STRENGTHS, and gain and offset of single shapes.

    gain: shape name -> factor from 0 to 2; offset: shape name -> addition from -1 to 1; both come last, after blinks
    and gaze. Raises LSFError for a value out of range or a shape that there is not.
    """

    emotion: float = 1.0
    jaw: float = 1.0
    lips: float = 1.0
    cheeks: float = 1.0
    brows: float = 1.0
    eyes: float = 1.0
    smoothing: float = 0.0
    closure: float = 0.0
    blink: float = 1.0
    gaze: float = 1.0
    head: float = 1.0
    asymmetry: float = 1.0
    breath: float = 1.0
    settle: float = 1.0
    gain: Mapping[str, float] = _shapes()
    offset: Mapping[str, float] = _shapes()

    def __post_init__(self) -> None:
        for name in STRENGTHS:
            object.__setattr__(self, name, _number(f"The edit '{name}' is", getattr(self, name), 0, MAX_STRENGTH))
        for name, low, high, idle in (("gain", 0, MAX_STRENGTH, 1.0), ("offset", -1, 1, 0.0)):
            object.__setattr__(self, name, _by_shape(name, getattr(self, name), low, high, idle))

    @property
    def is_usual(self) -> bool:
        """Whether only what is on by default is asked for: no smoothing or pressed lips, no strength by region."""
        return not (self.smoothing or self.closure) and all(getattr(self, r) == 1 for r in REGION_STRENGTHS)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name, and gain and offset as plain dicts; `from_dict` makes the same settings of it."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "gain": dict(self.gain), "offset": dict(self.offset)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> EditSettings:
        """Settings from `to_dict`'s; what is missing has its default. Raises LSFError for names that there are not."""
        known = [f.name for f in fields(EditSettings)]
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


def _number(what: str, value: object, low: float, high: float) -> float:
    """The value as a float from low to high, or LSFError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:  # NaN is not
        return float(value)
    raise LSFError(f"{what} {value!r}; it must be a number from {low:g} to {high:g}.")


def _by_shape(what: str, values: object, low: float, high: float, idle: float) -> dict[str, float]:
    """Checked values of shapes in ARKit's order, without those that change nothing."""
    if not isinstance(values, Mapping):
        raise LSFError(f"The {what} of shapes is {values!r}; it must be a table of shape names and numbers.")
    unknown = [str(name) for name in values if name not in INDEX]
    if unknown:
        raise LSFError(f"The {what} names '{unknown[0]}', which is no ARKit shape. Names are spelled like 'jawOpen'.")
    checked = {name: _number(f"The {what} of '{name}' is", values[name], low, high) for name in INDEX if name in values}
    return {name: value for name, value in checked.items() if value != idle}


DEFAULT = EditSettings()

NONE = EditSettings(smoothing=0, closure=0, blink=0, gaze=0, head=0, asymmetry=0, breath=0, settle=0)
"""The network's motion alone."""

PRESETS = {
    "Natural": DEFAULT,
    "Calm": EditSettings(emotion=0.7, brows=0.8, smoothing=0.5, gaze=0.6, head=0.6, asymmetry=0.7),
    "Lively": EditSettings(emotion=1.4, cheeks=1.2, brows=1.3, gaze=1.2, head=1.5, asymmetry=1.4, breath=1.3),
    "News reader": EditSettings(emotion=0.5, closure=0.5, gaze=0.3, head=0.5, asymmetry=0.6, breath=0.6),
    "Mouth only": EditSettings(blink=0, gaze=0, head=0, brows=0, eyes=0),
    "Network only": NONE,
}
"""Ready-made settings by name. 'Mouth only' leaves eyes, brows and head to the artist."""


def edit_settings(emotion: float = 1.0, edits: bool = True) -> EditSettings:
    """The usual settings, or none but the emotion's strength. Raises LSFError for a strength out of range."""
    return replace(DEFAULT if edits else NONE, emotion=emotion)
