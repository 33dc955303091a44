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
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from . import __version__, protocol
from .audio import SAMPLE_RATE
from .errors import Cancelled, LSFError, MeshError
from .failures import explain, out_of_gpu_memory
from .motion import frame_count
from .protocol import Event, ProtocolError, Request
from .request import (
    answer_of,
    guide_of,
    mesh_of,
    read_array,
    reference_of,
    result_file,
    settings_of,
    speech_of,
    stretch,
    write_array,
)

if TYPE_CHECKING:
    from .animator import Animator
    from .face import RigStore
    from .live import LiveSession
    from .rawtake import RawTake

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
        audio, _ = speech_of(params)
        return {"seconds": len(audio) / SAMPLE_RATE}

    def _do_rig(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        vertices, faces = mesh_of(params)
        progress(0.0, "Reading the face")
        rig, cached = self._rigs.rig(vertices, faces, **guide_of(params), progress=progress)
        if rig.deltas.shape != (len(rig.names), len(vertices), 3):
            raise AssertionError(f"deltas {rig.deltas.shape} for {len(rig.names)} names and {len(vertices)} vertices")
        write_array(params, "deltas.npy", rig.deltas.astype(np.float32))
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
        audio, speed = speech_of(params)
        fps, frames = float(params["fps"]), params.get("frames")
        if frames is None:
            frames = frame_count(len(audio) / SAMPLE_RATE / speed, fps)
        reference = reference_of(params.get("emotion_from"))
        identity = None
        if params.get("vertices"):
            progress(0.05, "Reading the face")
            identity = self._rigs.identity(*mesh_of(params), **guide_of(params), progress=_part(progress, 0.05, 0.2))

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
        motion = raw.finish(settings_of(params), fps=fps, frames=frames, seed=int(params["seed"]))
        if motion.weights.shape != (frames, len(motion.names)):
            raise AssertionError(f"motion has weights {motion.weights.shape}, expected {(frames, len(motion.names))}")
        write_array(params, "weights.npy", np.asarray(motion.weights, np.float32))
        with result_file(params, "raw.npz") as path:
            raw.save(path)
        rotation = motion.head_rotation
        if rotation is not None:
            write_array(params, "head_rotation.npy", np.asarray(rotation, np.float32))
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

        vertices, faces = mesh_of(params)
        names, keys = [str(name) for name in params["names"]], read_array(params, "keys")
        weights = read_array(params, "weights")
        if keys.shape != (len(names), len(vertices), 3) or weights.ndim != 2:
            raise MeshError(f"{len(names)} shape keys came as {keys.shape} for {len(vertices)} vertices.")
        rig, _ = self._rigs.rig(vertices, faces, **guide_of(params), progress=_part(progress, 0.0, 0.9))
        arkit, poses = dict(params["arkit"]), dict(params["poses"])
        unknown = {*arkit, *poses} - set(names)
        if unknown:
            raise MeshError(f"The mapping names the shape key {min(unknown)!r}, which the mesh has not. Map it anew.")
        missing = tuple(shape for shape in SHAPES if shape not in arkit.values())
        progress(0.9, "Fitting the shape keys")
        matched = Matched(arkit, poses, "", missing)
        made = retarget(matched, names, keys, rig.deltas, weights, float(params["fps"]))
        write_array(params, "key_weights.npy", made)
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
            sound, speed = stretch(params, float(params["offset"]))
        elif params.get("microphone") is not None:
            sound = Microphone(str(params["microphone"]))
        try:
            reference, identity = reference_of(params.get("emotion_from")), None
            if params.get("vertices"):
                progress(0.05, "Reading the face")
                identity = self._rigs.identity(*mesh_of(params), **guide_of(params),
                                               progress=_part(progress, 0.05, 0.6))
            model = self._load_model(progress)
            heard = None if reference is None else model.hear_emotion(reference, progress=progress)
            # A strip that is played faster has fewer frames of the timeline to a second of its sound.
            stream = Stream(model, fps=fps / speed, look_ahead=look_ahead, identity=identity, seed=int(params["seed"]),
                            edits=settings_of(params), emotion_from=heard, emotion_mix=params.get("emotion_mix"))
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
        samples = np.asarray(read_array(params, "samples")) if params.get("samples") else None
        try:
            made = live.chunk(samples, float(params.get("seconds", 0.0)), lambda: progress(0.0, ""))
            return answer_of(params, made)
        except BaseException:  # what was heard in part cannot be gone on with
            self._close_stream()
            raise

    def _do_stream_end(self, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
        live = self._open_stream()
        self._live, self._stream_folder = None, ""
        return answer_of(params, live.end())

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


def _checkpoint_digest() -> str:
    """The first 12 digits of the sha256 that the network's file was checked against."""
    from .versions import SHIPPED

    return SHIPPED.with_name(SHIPPED.name + ".sha256").read_text(encoding="ascii")[:12]


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
