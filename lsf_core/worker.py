"""The engine process that Blender talks to: reads requests on stdin, answers on stdout (protocol.py).

    python -m lsf_core worker        (or python -m lsf_core.worker)

Responsibilities: keep the network and the rigs of recent meshes in memory between jobs; check what comes in; turn every
failure into an error event; stop a job that is cancelled; never outlive Blender.

A thread reads stdin, so that a cancel, or Blender's end, is seen while the network runs. Whatever libraries print goes
to stderr: stdout belongs to the protocol alone.
"""

from __future__ import annotations

import os
import platform
import queue
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from . import __version__, protocol
from .arrayfile import save_array
from .audio import SAMPLE_RATE, check_speech, load_audio
from .edits import EditSettings, edit_settings
from .errors import AudioError, Cancelled, LSFError, MeshError
from .failures import disk_failure, explain, out_of_gpu_memory
from .feeling import spoken_frames
from .motion import frame_count
from .protocol import Event, ProtocolError, Request

if TYPE_CHECKING:
    from .animator import Animator
    from .face import RigStore
    from .live import Frames, LiveSession
    from .rawtake import RawTake

MAX_SECONDS = 3600.0
"""Longest speech of one job. An hour of features is about 0.4 GB; more is a mistake rather than a take."""

CPU_INSTEAD = ("The graphics card has too little free memory, so the CPU made this take and makes the next ones. To "
               "use the card again, close what fills it and press 'Stop Engine'.")

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
        self._store: RigStore | None = None
        self._live: LiveSession | None = None
        self._stream_folder = ""  # it stays between the requests of a stream
        self._folders: set[str] = set()  # of the jobs that are under way

    # -- receiving ------------------------------------------------------------------------------------------------
    def receive(self, line: bytes) -> None:
        """Take one line from Blender (called on the reading thread)."""
        try:
            request = protocol.decode_request(line)
        except ProtocolError as error:
            self._send(Event(-1, protocol.ERROR, kind=protocol.BUG, message=str(error)))
            return
        self._folders.add(str(request.params.get("folder", "")))
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
        for folder in [*self._folders, self._stream_folder]:  # nobody is left to remove them
            if os.path.basename(folder).startswith(protocol.FOLDER_PREFIX):
                shutil.rmtree(folder, ignore_errors=True)
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
            if "torch" in sys.modules:
                data["usage"] = self._usage()
            self._send(Event(request.id, protocol.RESULT, data=data))
        except Cancelled as error:
            self._send(Event(request.id, protocol.ERROR, kind=protocol.CANCELLED, message=str(error)))
        except Exception as error:  # The process lives on, and the trace of a defect of ours reaches the report.
            failure = explain(error)
            trace = traceback.format_exc(limit=20)[-8000:] if failure.kind == protocol.BUG else ""
            self._send(Event(request.id, protocol.ERROR, kind=failure.kind, message=failure.message, trace=trace,
                             cure=failure.cure))
        finally:
            self._cancelled.discard(request.id)
            self._folders.discard(str(request.params.get("folder", "")))

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

        from .device import device_name

        return {
            "protocol": protocol.PROTOCOL_VERSION,
            "engine": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "device": device_name(self._device),
        }

    def _do_listen(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        audio, _ = _speech_of(params)
        return {"seconds": len(audio) / SAMPLE_RATE}

    def _do_rig(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        vertices, faces = _mesh(params)
        progress(0.0, "Reading the face")
        rig, cached = self._rigs.rig(vertices, faces, **_guide(params), progress=progress)
        if rig.deltas.shape != (len(rig.names), len(vertices), 3):
            raise AssertionError(f"deltas {rig.deltas.shape} for {len(rig.names)} names and {len(vertices)} vertices")
        _save(params, "deltas.npy", rig.deltas.astype(np.float32))
        return {
            "deltas": "deltas.npy",
            "names": [str(name) for name in rig.names],
            "landmarks": np.asarray(rig.landmarks, np.float64).tolist(),
            "landmark_names": [str(name) for name in rig.landmark_names],
            "landmark_confidence": rig.landmark_confidence.tolist(),
            "confidence": float(rig.confidence),
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
        reference = _reference_of(params.get("emotion_from"))
        identity = None
        if params.get("vertices"):
            progress(0.05, "Reading the face")
            identity = self._rigs.identity(*_mesh(params), **_guide(params), progress=_part(progress, 0.05, 0.2))

        def take(model: Animator) -> RawTake:
            progress(0.2, "Listening")
            return model.raw_take(
                audio,
                SAMPLE_RATE,
                identity=identity,
                seed=int(params["seed"]),
                temperature=float(params["temperature"]),
                progress=_part(progress, 0.2, 1.0),
                emotion_from=reference,
                emotion_mix=params.get("emotion_mix"),
            )

        raw, warnings = self._with_model(take, progress)
        raw = raw.retimed(speed)  # before the edits: blinks last as long on a strip that is played faster as anywhere
        motion = raw.finish(_settings(params), fps=fps, frames=frames, seed=int(params["seed"]))
        if motion.weights.shape != (frames, len(motion.names)):
            raise AssertionError(f"motion has weights {motion.weights.shape}, expected {(frames, len(motion.names))}")
        _save(params, "weights.npy", np.asarray(motion.weights, np.float32))
        with _writing(params, "raw.npz") as path:
            raw.save(path)
        rotation = motion.head_rotation
        if rotation is not None:
            _save(params, "head_rotation.npy", np.asarray(rotation, np.float32))
        return {
            "weights": "weights.npy",
            "names": list(motion.names),
            "fps": fps,
            "head_rotation": None if rotation is None else "head_rotation.npy",
            "raw": "raw.npz",
            "warnings": warnings,
            "checkpoint": _checkpoint_digest(),
        }

    def _do_retarget(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        from .face.keys.names import SHAPES, Matched
        from .face.keys.solve import retarget

        vertices, faces = _mesh(params)
        names, keys = [str(name) for name in params["names"]], _load(params, "keys")
        weights = _load(params, "weights")
        if keys.shape != (len(names), len(vertices), 3) or weights.ndim != 2:
            raise MeshError(f"{len(names)} shape keys came as {keys.shape} for {len(vertices)} vertices.")
        rig, _ = self._rigs.rig(vertices, faces, **_guide(params), progress=_part(progress, 0.0, 0.9))
        arkit, poses = dict(params["arkit"]), dict(params["poses"])
        unknown = {*arkit, *poses} - set(names)
        if unknown:
            raise MeshError(f"The mapping names the shape key {min(unknown)!r}, which the mesh has not. Map it anew.")
        missing = tuple(shape for shape in SHAPES if shape not in arkit.values())
        progress(0.9, "Fitting the shape keys")
        matched = Matched(arkit, poses, "", missing)
        _save(params, "key_weights.npy", retarget(matched, names, keys, rig.deltas, weights, float(params["fps"])))
        return {"weights": "key_weights.npy", "names": names, "warnings": [str(warning) for warning in rig.warnings]}

    def _do_stream_start(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        from .live import LiveSession
        from .microphone import Microphone
        from .streaming import Stream

        self._close_stream()
        fps, look_ahead, speed = float(params["fps"]), float(params["look_ahead"]), 1.0
        sound: Any = None
        if params.get("audio"):
            # Silence is no error here: the face rests, and the playhead may be in a pause.
            sound, speed = _stretch(params["audio"], float(params["offset"]), params.get("duration"),
                                    params.get("content_seconds"))
        elif params.get("microphone") is not None:
            sound = Microphone(str(params["microphone"]))
        try:
            reference, identity = _reference_of(params.get("emotion_from")), None
            if params.get("vertices"):
                progress(0.05, "Reading the face")
                identity = self._rigs.identity(*_mesh(params), **_guide(params), progress=_part(progress, 0.05, 0.6))
            model = self._load_model(progress)
            heard = None if reference is None else model.hear_emotion(reference, progress=progress)
            # A strip that is played faster has fewer frames of the timeline to a second of its sound.
            stream = Stream(model, fps=fps / speed, look_ahead=look_ahead, identity=identity, seed=int(params["seed"]),
                            edits=_settings(params), emotion_from=heard, emotion_mix=params.get("emotion_mix"))
        except BaseException:
            if isinstance(sound, Microphone):
                sound.close()
            raise
        self._live, self._stream_folder = LiveSession(stream, sound), str(params.get("folder", ""))
        return {
            "look_ahead": look_ahead,
            "step": stream.step,
            "seconds": len(sound) / SAMPLE_RATE / speed if isinstance(sound, np.ndarray) else None,
            "microphone": sound.name if isinstance(sound, Microphone) else None,
        }

    def _do_stream_chunk(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        live = self._open_stream()
        samples = np.asarray(_load(params, "samples")) if params.get("samples") else None
        try:
            return _told(params, live.chunk(samples, float(params.get("seconds", 0.0)), lambda: progress(0.0, "")))
        except BaseException:  # what was heard in part cannot be gone on with
            self._close_stream()
            raise

    def _do_stream_end(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        live = self._open_stream()
        self._live, self._stream_folder = None, ""
        return _told(params, live.end())

    def _open_stream(self) -> LiveSession:
        if self._live is None:
            raise LSFError("No live preview is open. Start it again.")
        return self._live

    def _close_stream(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live, self._stream_folder = None, ""

    def _usage(self) -> dict[str, Any]:
        from .device import device_name, memory_in_use

        return {"device": device_name(self._device), "loaded": self._model is not None, **memory_in_use()}

    def _do_unload(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        self._close_stream()
        self._model = None
        if self._store is not None:
            self._store.clear()
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

    def _with_model(self, work: Callable[[Animator], RawTake], progress: Progress) -> tuple[RawTake, list[str]]:
        """What `work` makes of the network, on the CPU where the graphics card's memory is too small, and a warning of
        that. The engine stays on the CPU then: other programs seldom give back what they hold."""
        try:
            return work(self._load_model(progress)), []
        except Exception as error:
            if self._device == "cpu" or not out_of_gpu_memory(error):
                raise
        self._do_unload({}, progress)  # outside of the handler: the exception holds the tensors that filled the memory
        self._device = "cpu"
        return work(self._load_model(progress)), [CPU_INSTEAD]

    @property
    def _rigs(self) -> RigStore:
        if self._store is None:
            from .face import RigStore

            self._store = RigStore()
        return self._store


def _device_name(torch: Any, device: str) -> str:
    from .device import pick_device

    picked = pick_device(device)
    return f"{picked} ({torch.cuda.get_device_name(picked)})" if picked.type == "cuda" else str(picked)


def _part(progress: Progress, start: float, end: float) -> Progress:
    """A callback whose 0..1 is a part of `progress`'s."""

    def inner(fraction: float, text: str = "") -> None:
        progress(start + (end - start) * fraction, text)

    return inner


def _settings(params: dict[str, Any]) -> EditSettings:
    """The job's edits: a table of them, or the usual ones on or off with the strength of the emotion."""
    if isinstance(params["edits"], dict):
        return EditSettings.from_dict(params["edits"])
    return edit_settings(float(params["emotion_strength"]), bool(params["edits"]))


def _checkpoint_digest() -> str:
    """The first 12 digits of the sha256 that the network's file was checked against."""
    from .animator import DEFAULT_CHECKPOINT

    return DEFAULT_CHECKPOINT.with_name(DEFAULT_CHECKPOINT.name + ".sha256").read_text(encoding="ascii")[:12]


def _told(params: dict[str, Any], made: Frames) -> dict[str, Any]:
    """The answer to a request of a stream; frames go into a file of their own number."""
    name = None
    if len(made.weights):
        name = f"frames{made.first}.npy"
        _save(params, name, made.weights)
    return {"weights": name, "first": made.first, "frames": len(made.weights), "heard": made.heard,
            "ended": made.ended, "level": made.level}


def _save(params: dict[str, Any], name: str, array: np.ndarray) -> None:
    with _writing(params, name) as path:
        save_array(path, array)


@contextmanager
def _writing(params: dict[str, Any], name: str) -> Iterator[str]:
    """The path of a result file. Raises LSFError if it cannot be written."""
    path = protocol.inside(params["folder"], name)
    try:
        yield path
    except OSError as error:
        raise disk_failure(path, error) from error


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


def _guide(params: dict[str, Any]) -> dict[str, Any]:
    """What the artist says about the face: `landmarks` and `area`, see face.rig."""
    return {"landmarks": params.get("landmarks"), "area": _load(params, "area") if params.get("area") else None}


def _speech_of(params: dict[str, Any]) -> tuple[np.ndarray, float]:
    """The job's stretch of sound, see `_stretch`, once it is sure that somebody may be heard in it."""
    audio, speed = _stretch(
        params["audio"], float(params["offset"]), params.get("duration"), params.get("content_seconds")
    )
    check_speech(audio, params.get("audio_name", "The sound"))
    return audio, speed


def _reference_of(sound: dict[str, Any] | None) -> tuple[np.ndarray, int] | None:
    """The samples and rate of a job's emotion reference, once it is sure that somebody speaks in it."""
    if sound is None:
        return None
    audio, _ = _stretch(
        sound["audio"], float(sound.get("offset", 0.0)), sound.get("duration"), sound.get("content_seconds")
    )
    spoken_frames(audio, sound.get("audio_name", sound["audio"]))
    return audio, SAMPLE_RATE


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


def warm_up() -> None:
    """Import what the first take needs while Blender still prepares its job: two thirds of the wait for it."""
    with suppress(Exception):  # the job that needs it will run into the same error, and tell it
        from . import animator  # noqa: F401
        from .speech import import_encoder

        import_encoder("whisper")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Be the engine on this process's stdin and stdout, and end it. `--device NAME`: where the network runs."""
    arguments = sys.argv[1:] if arguments is None else arguments
    device = arguments[arguments.index("--device") + 1] if "--device" in arguments[:-1] else "auto"
    worker = Worker(claim_stdout(), device)
    threading.Thread(target=worker.read_forever, args=(sys.stdin.buffer,), daemon=True).start()
    threading.Thread(target=warm_up, daemon=True).start()
    worker.run()
    sys.stderr.flush()
    os._exit(0)  # The reading thread holds stdin's lock, over which an ordinary end of the interpreter would abort.


if __name__ == "__main__":
    main()
