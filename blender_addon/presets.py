"""Presets of edits: those that come with the add-on, and the artist's own as JSON files that can be passed on.

They are data, never scripts as Blender's own presets are: a preset from somebody else can do nothing but set numbers.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import bpy

from .report import Problem
from .shared import edits, errors

SUFFIX = ".lsf.json"


def folder(make: bool = False) -> Path:
    """Where the artist's presets lie, beside Blender's own."""
    return Path(bpy.utils.user_resource("SCRIPTS", path=os.path.join("presets", "lsf_animation"), create=make))


def own() -> list[str]:
    """Names of the artist's presets, sorted."""
    here = folder()
    return sorted(path.name.removesuffix(SUFFIX) for path in here.glob(f"*{SUFFIX}")) if here.is_dir() else []


def matching(typed: str) -> list[str]:
    """Names of all presets that hold what was typed, the add-on's first."""
    return [name for name in dict.fromkeys((*edits.PRESETS, *own())) if typed.lower() in name.lower()]


def load(name: str) -> Any:
    """The EditSettings of a preset by its name; the artist's come before ours. Raises Problem."""
    path = _path(name)
    if path.is_file():
        return read(path)
    if name in edits.PRESETS:
        return edits.PRESETS[name]
    raise Problem(f"There is no preset '{name}'. Choose another.")


def save(name: str, settings: Any) -> Path:
    """Keep EditSettings under a name; one of that name is replaced. Raises Problem."""
    path = _path(name)
    try:
        folder(make=True)
        write(path, settings)
    except OSError as error:
        raise Problem(f"The preset cannot be written: '{path}' ({error.strerror}).") from error
    return path


def remove(name: str) -> None:
    """Delete one of the artist's presets. Raises Problem for one that is not theirs."""
    try:
        _path(name).unlink()
    except FileNotFoundError:
        raise Problem(f"'{name}' is not a preset of yours; those that come with the add-on stay.") from None
    except OSError as error:
        raise Problem(f"The preset '{name}' cannot be deleted ({error.strerror}).") from error


def read(path: Path) -> Any:
    """The EditSettings in a file. Raises Problem."""
    try:
        return edits.EditSettings.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, TypeError, errors.LSFError) as error:
        raise Problem(f"'{path}' is no preset of edits: {error}") from error


def write(path: Path, settings: Any) -> None:
    """EditSettings as a file to pass on. Raises OSError."""
    path.write_text(settings.to_json() + "\n", encoding="utf-8")


def _path(name: str) -> Path:
    """The preset's file. Raises Problem for a name that no file can have."""
    if not name.strip() or re.search(r'[\\/:*?"<>|\x00-\x1f]', name) or name.startswith("."):
        raise Problem(f"'{name}' cannot be the name of a preset: it must be a file name without \\ / : * ? \" < > |.")
    return folder() / f"{name.strip()}{SUFFIX}"
