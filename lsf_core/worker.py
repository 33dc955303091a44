"""The engine process that Blender talks to: reads requests on stdin, answers on stdout (protocol.py).

    python -m lsf_core worker        (or python -m lsf_core.worker)

Responsibilities: keep the network and the rigs of recent meshes in memory between jobs; check what comes in; turn every
failure into an error event; stop a job that is cancelled; never outlive Blender.

A thread reads stdin, so that a cancel, or Blender's end, is seen while the network runs. Whatever libraries print goes
to stderr: stdout belongs to the protocol alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import queue
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from . import __version__, protocol
from .audio import SAMPLE_RATE, check_speech, load_audio
from .edits import edit_settings
from .errors import AudioError, Cancelled, LSFError, MeshError
from .motion import frame_count
from .protocol import Event, ProtocolError, Request

if TYPE_CHECKING:
    from .animator import Animator
    from .face import Rig

CACHED_RIGS = 4
"""Rigs kept: 52 shapes x V vertices x 12 bytes each, that is 31 MB for 50,000 vertices."""

MAX_SECONDS = 3600.0
"""Longest speech of one job. An hour of features is about 0.4 GB; more is a mistake rather than a take."""

Progress = Callable[[float, str], None]


def claim_stdout() -> BinaryIO:
    """Keep the real stdout for the protocol, and send everything else that prints there, C libraries too, to stderr."""
    sys.stdout.flush()
    real = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return real


class Worker:
    """Answers requests one at a time. `receive` and `answer` are apart so that tests can drive it without a process."""

    def __init__(self, output: BinaryIO, device: str = "auto") -> None:
        self._output = output
        self._device = device
        self._send_lock = threading.Lock()
        self._requests: queue.Queue[Request | None] = queue.Queue()
        self._cancelled: set[int] = set()
        self._model: Animator | None = None
        self._rigs: OrderedDict[str, Rig] = OrderedDict()

    # -- receiving ------------------------------------------------------------------------------------------------
    def receive(self, line: bytes) -> None:
        """Take one line from Blender (called on the reading thread)."""
        try:
            request = protocol.decode_request(line)
        except ProtocolError as error:
            self._send(Event(-1, protocol.ERROR, kind=protocol.BUG, message=str(error)))
            return
        if request.method == "cancel":
            job = request.params.get("job")
            if isinstance(job, int):
                self._cancelled.add(job)
        else:
            self._requests.put(request)

    def read_forever(self, stream: BinaryIO) -> None:
        """Read lines until Blender's end of the pipe closes; then end the process, whatever it is doing."""
        while line := stream.readline(protocol.MAX_LINE + 1):
            self.receive(line)
        os._exit(0)  # The main thread may be deep in the network: nothing here needs a clean goodbye.

    def run(self) -> None:
        """Answer requests until `quit`."""
        while (request := self._requests.get()) is not None:
            self.answer(request)
            if request.method == "quit":
                return

    # -- answering ------------------------------------------------------------------------------------------------
    def answer(self, request: Request) -> None:
        """Do what is asked; every outcome is one result or one error event."""
        try:
            self._check(request.id)
            handler = getattr(self, f"_do_{request.method}")
            data = handler(request.params, self._progress_of(request.id))
            self._check(request.id)
            self._send(Event(request.id, protocol.RESULT, data=data))
        except Cancelled as error:
            self._send(Event(request.id, protocol.ERROR, kind=protocol.CANCELLED, message=str(error)))
        except LSFError as error:
            self._send(Event(request.id, protocol.ERROR, kind=protocol.USER, message=str(error)))
        except MemoryError:
            message = "The engine ran out of memory. Use a shorter strip or a lighter mesh, or close other programs."
            self._send(Event(request.id, protocol.ERROR, kind=protocol.USER, message=message))
        except Exception as error:  # A defect of ours: the process lives on, and the trace reaches the report.
            kind, message = _explain(error)
            trace = traceback.format_exc(limit=20)[-8000:]
            self._send(Event(request.id, protocol.ERROR, kind=kind, message=message, trace=trace))
        finally:
            self._cancelled.discard(request.id)

    def _send(self, event: Event) -> None:
        line = protocol.encode(event)
        try:
            with self._send_lock:
                self._output.write(line)
        except OSError:
            os._exit(0)  # Blender is gone.

    def _check(self, job: int) -> None:
        if job in self._cancelled:
            raise Cancelled()

    def _progress_of(self, job: int) -> Progress:
        def progress(fraction: float, text: str = "") -> None:
            self._check(job)
            fraction = min(max(float(fraction), 0.0), 1.0)
            self._send(Event(job, protocol.PROGRESS, fraction=fraction, text=str(text)[:200]))

        return progress

    # -- methods --------------------------------------------------------------------------------------------------
    def _do_hello(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        import torch

        return {
            "protocol": protocol.PROTOCOL_VERSION,
            "engine": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "device": _device_name(torch, self._device),
        }

    def _do_listen(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        audio, _ = _speech_of(params)
        return {"seconds": len(audio) / SAMPLE_RATE}

    def _do_rig(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        vertices, faces = _mesh(params)
        rig, cached = self._rig_of(vertices, faces, progress)
        if rig.deltas.shape != (len(rig.names), len(vertices), 3):
            raise AssertionError(f"deltas {rig.deltas.shape} for {len(rig.names)} names and {len(vertices)} vertices")
        _save(params, "deltas.npy", rig.deltas.astype(np.float32))
        return {
            "deltas": "deltas.npy",
            "names": [str(name) for name in rig.names],
            "landmarks": np.asarray(rig.landmarks, np.float64).tolist(),
            "landmark_names": [str(name) for name in rig.landmark_names],
            "fit_error": float(rig.fit_error),
            "warnings": [str(warning) for warning in rig.warnings],
            "cached": cached,
        }

    def _do_animate(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        progress(0.0, "Reading the sound")
        audio, speed = _speech_of(params)
        fps, frames = float(params["fps"]), params.get("frames")
        if frames is None:
            frames = frame_count(len(audio) / SAMPLE_RATE / speed, fps)
        model = self._load_model(progress)
        identity = None
        if params.get("vertices"):
            identity = self._identity_of(*_mesh(params), _part(progress, 0.05, 0.2))
        progress(0.2, "Listening")
        raw = model.raw_take(
            audio,
            SAMPLE_RATE,
            identity=identity,
            seed=int(params["seed"]),
            temperature=float(params["temperature"]),
            progress=_part(progress, 0.2, 1.0),
        )
        settings = edit_settings(float(params["emotion_strength"]), bool(params["edits"]))
        # Edits come after the speed: blinks last as long on a strip that is played faster as anywhere.
        motion = raw.retimed(speed).finish(settings, fps=fps, frames=frames, seed=int(params["seed"]))
        if motion.weights.shape != (frames, len(motion.names)):
            raise AssertionError(f"motion has weights {motion.weights.shape}, expected {(frames, len(motion.names))}")
        _save(params, "weights.npy", np.asarray(motion.weights, np.float32))
        rotation = motion.head_rotation
        if rotation is not None:
            _save(params, "head_rotation.npy", np.asarray(rotation, np.float32))
        return {
            "weights": "weights.npy",
            "names": list(motion.names),
            "fps": fps,
            "head_rotation": None if rotation is None else "head_rotation.npy",
        }

    def _do_unload(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        self._model = None
        self._rigs.clear()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
        return {}

    def _do_quit(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return {}

    # -- what is kept between jobs --------------------------------------------------------------------------------
    def _load_model(self, progress: Progress) -> Animator:
        if self._model is None:
            progress(0.02, "Loading the network")
            from .animator import load_model

            self._model = load_model(device=self._device)
        return self._model

    def _rig_of(self, vertices: np.ndarray, faces: np.ndarray, progress: Progress) -> tuple[Rig, bool]:
        key = _content_hash(vertices, faces)
        cached = self._rigs.get(key)
        if cached is not None:
            self._rigs.move_to_end(key)
            return cached, True
        progress(0.0, "Reading the face")
        from .face import rig

        made = rig(vertices, faces, progress=progress)
        self._rigs[key] = made
        while len(self._rigs) > CACHED_RIGS:
            self._rigs.popitem(last=False)
        return made, False

    def _identity_of(self, vertices: np.ndarray, faces: np.ndarray, progress: Progress) -> np.ndarray:
        key = _content_hash(vertices, faces)
        if key in self._rigs:
            return self._rigs[key].identity
        progress(0.0, "Reading the face")
        from .face import read_identity

        return read_identity(vertices, faces)


def _content_hash(vertices: np.ndarray, faces: np.ndarray) -> str:
    return hashlib.sha256(vertices.tobytes() + b"|" + faces.tobytes()).hexdigest()


def _explain(error: Exception) -> tuple[str, str]:
    """Kind and message of an exception that is not ours."""
    if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") and "memory" in str(error).lower():
        return protocol.USER, "The GPU has too little free memory. Close other programs or set the device to CPU."
    return protocol.BUG, f"The engine failed ({type(error).__name__}: {error}). This is a defect: please report it."


def _device_name(torch: Any, device: str) -> str:
    from .device import pick_device

    picked = pick_device(device)
    return f"{picked} ({torch.cuda.get_device_name(picked)})" if picked.type == "cuda" else str(picked)


def _part(progress: Progress, start: float, end: float) -> Progress:
    """A callback whose 0..1 is a part of `progress`'s."""

    def inner(fraction: float, text: str = "") -> None:
        progress(start + (end - start) * fraction, text)

    return inner


def _save(params: dict[str, Any], name: str, array: np.ndarray) -> None:
    np.save(protocol.inside(params["folder"], name), array, allow_pickle=False)


def _load(params: dict[str, Any], name: str) -> np.ndarray:
    return np.load(protocol.inside(params["folder"], params[name]), allow_pickle=False)


def _mesh(params: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The job's mesh: vertices (V, 3) float64 and triangles (T, 3) int32, checked. Raises MeshError."""
    vertices = np.ascontiguousarray(_load(params, "vertices"), np.float64)
    faces = np.ascontiguousarray(_load(params, "faces"), np.int32)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise MeshError(f"The mesh came as vertices {vertices.shape} and faces {faces.shape}, not (V, 3) and (T, 3).")
    if not np.isfinite(vertices).all():
        raise MeshError("The mesh has vertices that are not numbers (NaN or infinite). Clean it up and try again.")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise MeshError("The mesh has faces that name vertices it does not have.")
    return vertices, faces


def _speech_of(params: dict[str, Any]) -> tuple[np.ndarray, float]:
    """The job's stretch of sound, see `_stretch`, once it is sure that somebody may be heard in it."""
    audio, speed = _stretch(
        params["audio"], float(params["offset"]), params.get("duration"), params.get("content_seconds")
    )
    check_speech(audio, params.get("audio_name", "The sound"))
    return audio, speed


def _stretch(
    path: str, offset: float, duration: float | None, content_seconds: float | None
) -> tuple[np.ndarray, float]:
    """The stretch of sound that the strip plays: mono samples at 16 kHz, and the strip's speed.

    `offset` (may be negative: the strip is silent first) and `duration` (None: to the end of the file) are seconds of
    the timeline. A strip played at another speed gives `content_seconds`, the timeline seconds that the whole file
    takes; speed = file / content. Samples cover the whole duration: where the strip reaches beyond its sound, silence.
    Raises AudioError.
    """
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


def main(arguments: list[str] | None = None) -> NoReturn:
    """Be the engine on this process's stdin and stdout, and end it. `--device NAME`: where the network runs."""
    arguments = sys.argv[1:] if arguments is None else arguments
    device = arguments[arguments.index("--device") + 1] if "--device" in arguments[:-1] else "auto"
    worker = Worker(claim_stdout(), device)
    threading.Thread(target=worker.read_forever, args=(sys.stdin.buffer,), daemon=True).start()
    worker.run()
    sys.stderr.flush()
    os._exit(0)  # The reading thread holds stdin's lock, over which an ordinary end of the interpreter would abort.


if __name__ == "__main__":
    main()
