"""The work on one line before and after the network. No torch: it may run in processes that only have numpy to load."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio import check_speech, load_audio
from ..livelink import save_csv
from .rows import Row, Settings, file_state, find, inputs_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..rawtake import RawTake


@dataclass(frozen=True, eq=False)
class Sound:
    """samples: (N,) float32 at 16 kHz; inputs: the states of the files that the line is made from, see `Row`."""

    samples: NDArray[Any]
    inputs: str


def read_sound(row: Row, bases: tuple[Path, ...]) -> Sound:
    """A line's sound. Raises AudioError where nobody can be heard in it."""
    path = find(row.audio, bases)
    samples = load_audio(path)
    check_speech(samples, f"The sound '{row.audio}'")
    return Sound(samples, " ".join(file_state(path) for path in inputs_of(row, bases)))


def read_face(mesh: Path) -> NDArray[Any]:
    """The identity (32,) of a mesh file. Raises MeshError."""
    from ..face import load_mesh, read_identity

    return read_identity(*load_mesh(mesh))


def write_take(raw: RawTake, row: Row, settings: Settings, path: Path) -> int:
    """Finish the line's take and write it to `path`, in the format of its suffix and safe from a loss of power; the
    number of its frames. Raises LSFError where it cannot be written."""
    edits = replace(settings.edits, emotion=float(row.emotion_strength))
    motion = raw.finish(edits, fps=float(row.fps), seed=int(row.seed))
    if path.suffix.lower() == ".csv":
        save_csv(motion, path)
    else:
        motion.save(path)
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
    return len(motion)
