"""What Blender and the engine say to each other: one JSON object a line, in UTF-8; arrays travel in .npy files.

Blender's side loads this file by its path, so it imports nothing but the standard library and nothing of this package.

    request  Blender -> engine's stdin    {"id": 3, "method": "animate", "params": {...}}
    event    engine's stdout -> Blender   {"id": 3, "event": "progress", "fraction": 0.4, "text": "Listening"}
                                          {"id": 3, "event": "result", "data": {...}}
                                          {"id": 3, "event": "error", "kind": "user", "message": "...", "trace": ""}

Every request but `cancel` is answered by exactly one `result` or `error`; any number of `progress` events come before.
The engine works on one request at a time, in order; `cancel` overtakes them. It ends when its stdin closes.
A stream lies open between its requests, and others may come in between; where one of its own fails, it is ended.

Methods (params -> data)
    hello     -> protocol, engine, python, torch, device
    listen    audio, audio_name, offset, duration, content_seconds -> seconds   is there speech in it? Quick: asked
              first, so that a bad sound is told before the face is read
    rig       folder, vertices, faces, landmarks ({name: [x, y, z]}, optional), area (file (V,) of weights, optional)
              -> deltas (file), names, landmarks, landmark_names, landmark_confidence, confidence, fit_error, warnings,
              cached
    retarget  the same, and keys (file (K, V, 3): the mesh's own shape keys), names (K), arkit, poses ({key: meaning},
              face/keys/names.py), weights (file (F, 52)), fps -> weights (file (F, K)), names, warnings
    animate   folder, audio, audio_name, offset, duration (None: to the end), content_seconds, fps, frames (None: as
              many as the duration holds), vertices, faces, landmarks, area (as for rig), seed, temperature, edits (a
              table of EditSettings; or true or false, with emotion_strength); optional: emotion_from (a table of
              audio, audio_name, offset, duration, content_seconds: feel as that recording does), emotion_mix (weights 0
              to 1 by name of arkit.EMOTIONS; what they lack to 1 stays as heard)
              -> weights (file), names, fps, head_rotation (file or None), raw (file: the take before edits, a RawTake),
              checkpoint (first digits of its sha256), warnings
    stream_start   fps, look_ahead, seed, edits, emotion_strength, emotion_from, emotion_mix (as for animate); vertices,
              faces, landmarks, area with their folder (optional, as for rig); and the sound: audio, audio_name, offset,
              duration, content_seconds (a stretch of a file), or microphone (part of its name; "": the default), or
              neither: chunks are sent -> look_ahead, step (seconds), seconds (of the stretch, or None), microphone (its
              name, or None). There is one stream at a time: the one before it is dropped
    stream_chunk   folder; samples (file (N,) float32, 16 kHz) where chunks are sent, or seconds (of the file, to be
              heard on; as fast as it goes); of a microphone what it has recorded -> weights (file (F, 52), or None for
              no frame), first (number of the first frame, at fps from the beginning), frames (F), heard (seconds so
              far), ended (no frames will follow), level (dB of full scale, or None)
    stream_end     folder -> as stream_chunk: the frames that are left
    unload    -> {}   forgets the network and the rigs, so that their memory is free
    cancel    job (the id of the request to stop)
    quit      -> {}   and the process ends
Data may hold `usage` too: device, loaded (is the network in memory?), memory and gpu_memory (bytes; None: not known).
An error may name its `cure`, see below.

File names in params and data are plain names inside `folder`, which Blender makes and removes. Its name begins with
FOLDER_PREFIX: where Blender dies over a job, the engine removes that one folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

PROTOCOL_VERSION = 1
MAX_LINE = 1 << 20
"""Bytes in a line at most: nothing here is long, so a longer line means that something else is talking."""

METHODS = ("hello", "listen", "rig", "retarget", "animate", "stream_start", "stream_chunk", "stream_end", "unload",
           "cancel", "quit")

PROGRESS, RESULT, ERROR = "progress", "result", "error"
EVENTS = (PROGRESS, RESULT, ERROR)

USER, BUG, CANCELLED = "user", "bug", "cancelled"
"""Kinds of error: the user can mend it (message is shown as it is); a defect of ours (trace is kept); cancelled."""

ENGINE, DEVICE = "engine", "device"
"""Cures of an error, for which Blender has buttons: another engine; another device to run the network on."""

FOLDER_PREFIX = "lsf-"


class ProtocolError(ValueError):
    """A line that is not of this protocol."""


@dataclass(frozen=True)
class Request:
    """Blender asks."""

    id: int
    method: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """The engine answers request `id`."""

    id: int
    event: str
    fraction: float = 0.0
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    message: str = ""
    trace: str = ""
    cure: str = ""


def encode(message: Request | Event) -> bytes:
    """One message as a line. Non-ASCII text is escaped, so no locale can spoil it.

    Raises ProtocolError if the line would be too long, ValueError for NaN or infinite numbers.
    """
    fields = {k: v for k, v in asdict(message).items() if k in ("id", "method", "event") or v not in ("", {})}
    line = json.dumps(fields, allow_nan=False).encode("ascii") + b"\n"
    if len(line) > MAX_LINE:
        raise ProtocolError(f"A message of {len(line)} bytes is over the {MAX_LINE} that a line may have.")
    return line


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ProtocolError(f"Not JSON: {line[:120]!r}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), int):
        raise ProtocolError(f"Not a message of this protocol: {line[:120]!r}")
    return fields


def _of(fields: dict[str, Any], name: str, kinds: type | tuple[type, ...], default: Any) -> Any:
    value = fields.get(name, default)
    if not isinstance(value, kinds):
        raise ProtocolError(f"Field {name!r} has the wrong type: {value!r:.80}")
    return value


def decode_request(line: bytes) -> Request:
    """A line from Blender. Raises ProtocolError."""
    fields = _fields(line)
    method = fields.get("method")
    if method not in METHODS:
        raise ProtocolError(f"Unknown method {method!r}; known: {', '.join(METHODS)}.")
    return Request(fields["id"], method, _of(fields, "params", dict, {}))


def decode_event(line: bytes) -> Event:
    """A line from the engine. Raises ProtocolError. Unknown fields are left out: a newer engine may add some."""
    fields = _fields(line)
    event = fields.get("event")
    if event not in EVENTS:
        raise ProtocolError(f"Unknown event {event!r}; known: {', '.join(EVENTS)}.")
    return Event(
        id=fields["id"],
        event=event,
        fraction=float(_of(fields, "fraction", (int, float), 0.0)),
        text=_of(fields, "text", str, ""),
        data=_of(fields, "data", dict, {}),
        kind=_of(fields, "kind", str, ""),
        message=_of(fields, "message", str, ""),
        trace=_of(fields, "trace", str, ""),
        cure=_of(fields, "cure", str, ""),
    )


def inside(folder: str, name: str) -> str:
    """The path of a plain file name inside a job's folder.

    Raises ProtocolError for a name that would lead out of it: neither side trusts the other with the whole disk.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or os.path.basename(name) != name or "\\" in name:
        raise ProtocolError(f"{name!r} is not a plain file name.")
    return os.path.join(folder, name)
