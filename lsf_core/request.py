"""What a request of Blender's holds, and what is answered: settings and sounds from its parameters, arrays from files.

`params` are those of `protocol.Request`; their files lie in the job's own folder, `params["folder"]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from . import protocol
from .arrayfile import save_array
from .audio import SAMPLE_RATE, check_speech, load_audio
from .edits import EditSettings, edit_settings
from .errors import AudioError, MeshError
from .failures import disk_failure
from .feeling import spoken_frames

if TYPE_CHECKING:
    from .live import Frames

MAX_SECONDS = 3600.0
"""Longest speech of one job. An hour of features is about 0.4 GB; more is a mistake rather than a take."""


def settings_of(params: dict[str, Any]) -> EditSettings:
    """The job's edits: a table of them, or the usual ones on or off with the strength of the emotion."""
    if isinstance(params["edits"], dict):
        return EditSettings.from_dict(params["edits"])
    return edit_settings(float(params["emotion_strength"]), bool(params["edits"]))


def mesh_of(params: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The job's mesh: vertices (V, 3) float64 and triangles (T, 3) int32, checked. Raises MeshError."""
    vertices = np.ascontiguousarray(read_array(params, "vertices"), np.float64)
    faces = np.ascontiguousarray(read_array(params, "faces"), np.int32)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise MeshError(f"The mesh came as vertices {vertices.shape} and faces {faces.shape}, not (V, 3) and (T, 3).")
    if not np.isfinite(vertices).all():
        raise MeshError("The mesh has vertices that are not numbers (NaN or infinite). Clean it up and try again.")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise MeshError("The mesh has faces that name vertices it does not have.")
    return vertices, faces


def guide_of(params: dict[str, Any]) -> dict[str, Any]:
    """What the artist says about the face: `landmarks` and `area`, see face.rig."""
    return {"landmarks": params.get("landmarks"), "area": read_array(params, "area") if params.get("area") else None}


def speech_of(params: dict[str, Any]) -> tuple[np.ndarray, float]:
    """The job's stretch of sound, see `stretch`, once it is sure that somebody may be heard in it."""
    audio, speed = stretch(params, float(params["offset"]))
    check_speech(audio, params.get("audio_name", "The sound"))
    return audio, speed


def reference_of(sound: dict[str, Any] | None) -> tuple[np.ndarray, int] | None:
    """The samples and rate of a job's emotion reference, once it is sure that somebody speaks in it."""
    if sound is None:
        return None
    audio, _ = stretch(sound, float(sound.get("offset", 0.0)))
    spoken_frames(audio, sound.get("audio_name", sound["audio"]))
    return audio, SAMPLE_RATE


def stretch(told: dict[str, Any], offset: float) -> tuple[np.ndarray, float]:
    """The stretch of sound that the strip plays: mono samples at 16 kHz, and the strip's speed.

    `offset` (may be negative: the strip is silent first) and what is told as `duration` (None: to the end of the file)
    are seconds of the timeline. A strip played at another speed gives `content_seconds`, the timeline seconds that the
    whole file takes; speed = file / content. Samples cover the whole duration: where the strip reaches beyond its
    sound, silence. Raises AudioError.
    """
    path, duration, content_seconds = told["audio"], told.get("duration"), told.get("content_seconds")
    speed = 1.0
    if content_seconds or duration is None:
        whole = load_audio(path)
        if content_seconds:
            speed = len(whole) / SAMPLE_RATE / content_seconds
        if duration is None:
            duration = len(whole) / SAMPLE_RATE / speed - offset
    if duration > MAX_SECONDS:
        raise AudioError(f"The sound is {duration:.0f} s long; at most {MAX_SECONDS:.0f} s go in one take. Split it.")
    start, length = offset * speed, duration * speed
    wanted = max(round(length * SAMPLE_RATE), 1)
    before = min(max(round(-start * SAMPLE_RATE), 0), wanted)
    audio = np.zeros(wanted, np.float32)
    if wanted > before:
        sound = load_audio(path, offset=max(start, 0.0), duration=(wanted - before) / SAMPLE_RATE)[: wanted - before]
        audio[before : before + len(sound)] = sound
    return audio, speed


def answer_of(params: dict[str, Any], made: Frames) -> dict[str, Any]:
    """The answer to a request of a stream; frames go into a file of their own number."""
    name = None
    if len(made.weights):
        name = f"frames{made.first}.npy"
        write_array(params, name, made.weights)
    return {"weights": name, "first": made.first, "frames": len(made.weights), "heard": made.heard,
            "ended": made.ended, "level": made.level}


def read_array(params: dict[str, Any], name: str) -> np.ndarray:
    """The array whose file the parameter `name` names."""
    return np.load(protocol.inside(params["folder"], params[name]), allow_pickle=False)


def write_array(params: dict[str, Any], name: str, array: np.ndarray) -> None:
    """Write a result file of that name. Raises LSFError if it cannot be written."""
    with result_file(params, name) as path:
        save_array(path, array)


@contextmanager
def result_file(params: dict[str, Any], name: str) -> Iterator[str]:
    """The path of a result file. Raises LSFError if it cannot be written."""
    path = protocol.inside(params["folder"], name)
    try:
        yield path
    except OSError as error:
        raise disk_failure(path, error) from error
