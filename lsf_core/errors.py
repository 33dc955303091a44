"""Errors that reach the user. Each names the thing, the value and the cure; Blender's panel shows it as it is."""


class LSFError(RuntimeError):
    """Something the user can mend. Subclasses say which part of the input it concerns."""


class AudioError(LSFError):
    """The sound cannot be used: missing, unreadable, silent or too short."""


class MeshError(LSFError):
    """The mesh cannot be used: no face found, NaN vertices, too few vertices."""


class ModelError(LSFError):
    """The checkpoint or the device cannot be used."""


class Cancelled(LSFError):
    """The user cancelled the job; nothing was written."""

    def __init__(self) -> None:
        super().__init__("Cancelled. Nothing was changed.")
