"""Seconds and peak memory of what users wait for, as a markdown table. Run by hand, never in CI:

    python tests/bench/bench.py [--device cpu|cuda] [--threads 2] [--repeat 3] [--only NAME ...] [--long]

Every figure is taken in a process of its own, so that its peak of resident memory (getrusage) is its own too. Seconds
are the best of --repeat runs, memory the largest. The rows marked with a reference are there to judge the others by:
the same audio through a mouth that only follows the energy, and a bare Python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SPEECH, HEAD = ROOT / "assets" / "demo" / "speech.ogg", ROOT / "assets" / "demo" / "head.obj"
FPS = 30.0
sys.path.insert(0, str(ROOT))


@dataclass
class Figures:
    """What one measurement gives. seconds: of the part named in the row alone; peak_mb: of its whole process."""

    seconds: float
    peak_mb: float = 0.0
    gpu_mb: float = 0.0
    note: str = ""


@dataclass
class Stopwatch:
    """Adds up the time spent inside its `with` blocks."""

    seconds: float = 0.0
    note: str = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begun


# ---------------------------------------------------------------- what is measured


def speech(seconds: float) -> np.ndarray:
    """The demo speech, over and over with pauses of half a second, `seconds` long, 16 kHz."""
    from lsf_core.audio import SAMPLE_RATE, load_audio

    once = np.concatenate([load_audio(SPEECH), np.zeros(SAMPLE_RATE // 2, np.float32)])
    length = round(seconds * SAMPLE_RATE)
    return np.tile(once, -(-length // len(once)))[:length]


def bare_python(watch: Stopwatch, device: str) -> None:
    with watch.running():
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)


def energy_baseline(seconds: float) -> Callable[[Stopwatch, str], None]:
    def measure(watch: Stopwatch, device: str) -> None:
        from lsf_core.arkit import ARKIT_NAMES, INDEX
        from lsf_core.audio import loudness_db
        from lsf_core.motion import Motion

        audio = speech(seconds)
        with watch.running():
            level = np.clip((loudness_db(audio) + 45) / 35, 0, 1)
            weights = np.zeros((len(level), 52), np.float32)
            weights[:, INDEX["jawOpen"]] = 0.4 * level
            Motion(ARKIT_NAMES, weights, 50.0).resample(FPS)

    return measure


def read_sound(watch: Stopwatch, device: str) -> None:
    import soundfile as sf

    from lsf_core.audio import load_audio

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "five minutes.flac")
        with sf.SoundFile(path, "w", 48000, 2) as file:
            block = np.repeat(np.repeat(speech(10.0), 3)[:, None], 2, axis=1)
            for _ in range(30):
                file.write(block)
        with watch.running():
            audio = load_audio(path)
    watch.note = f"{len(audio) / 16000:.0f} s, flac 48 kHz stereo"


def import_torch(watch: Stopwatch, device: str) -> None:
    with watch.running():
        import lsf_core.animator  # noqa: F401
        from lsf_core.speech import import_encoder

        import_encoder("whisper")


def model_load(watch: Stopwatch, device: str) -> None:
    import lsf_core.animator

    with watch.running():
        lsf_core.animator.load_model(device=device)


def animate(seconds: float) -> Callable[[Stopwatch, str], None]:
    def measure(watch: Stopwatch, device: str) -> None:
        from lsf_core.animator import load_model

        audio, model = speech(seconds), load_model(device=device)
        model.animate(audio[:32000], 16000)  # the first run of all pays for lazy set-up, on a GPU above all
        with watch.running():
            motion = model.animate(audio, 16000, fps=FPS)
        watch.note = f"{len(motion)} frames, {seconds / watch.seconds:.0f} x real time"

    return measure


def edits_again(seconds: float) -> Callable[[Stopwatch, str], None]:
    def measure(watch: Stopwatch, device: str) -> None:
        from lsf_core.edits import EditSettings
        from lsf_core.rawtake import RawTake

        audio = speech(seconds)
        neutral, emotional = np.random.default_rng(0).random((2, round(50 * seconds), 52), np.float32)
        take = RawTake.of(neutral, emotional, audio)
        with watch.running():
            take.finish(EditSettings(smoothing=1.0), fps=FPS)

    return measure


def identity(watch: Stopwatch, device: str) -> None:
    from lsf_core.face import load_mesh, read_identity

    mesh = load_mesh(HEAD)
    with watch.running():
        read_identity(*mesh)
    watch.note = f"{len(mesh[0])} vertices"


def rig(subdivisions: int) -> Callable[[Stopwatch, str], None]:
    def measure(watch: Stopwatch, device: str) -> None:
        from lsf_core.face import load_mesh
        from lsf_core.face import rig as make_rig

        vertices, triangles = load_mesh(HEAD)
        for _ in range(subdivisions):
            vertices, triangles = subdivided(vertices, triangles)
        with watch.running():
            made = make_rig(vertices, triangles)
        watch.note = f"{len(vertices)} vertices, fit error {made.fit_error:.2f} mm"

    return measure


def subdivided(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each triangle in four by the middles of its edges: the same surface with four times the vertices."""
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    middle = inverse.reshape(-1, 3) + len(vertices)
    a, b, c = triangles.T
    ab, bc, ca = middle.T
    pieces = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    faces = np.concatenate([np.stack(piece, axis=1) for piece in pieces]).astype(np.int32)
    return np.concatenate([vertices, vertices[unique].mean(axis=1)]), faces


class Engine:
    """The worker process, asked as Blender asks it."""

    def __init__(self, device: str) -> None:
        command = [sys.executable, "-m", "lsf_core", "worker", "--device", device]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        self.last = 0

    def ask(self, method: str, **params: object) -> dict:
        from lsf_core.protocol import ERROR, PROGRESS, Request, decode_event, encode

        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.last += 1
        self.process.stdin.write(encode(Request(self.last, method, dict(params))))
        self.process.stdin.flush()
        while (event := decode_event(self.process.stdout.readline())).event == PROGRESS:
            pass
        if event.event == ERROR:
            raise RuntimeError(f"{method}: {event.message}\n{event.trace}")
        return event.data

    def close(self) -> None:
        self.ask("quit")
        self.process.wait(timeout=30)


def worker_start(watch: Stopwatch, device: str) -> None:
    with watch.running():
        engine = Engine(device)
        about = engine.ask("hello")
    engine.close()
    watch.note = f"torch {about['torch']}"


def worker_job(first: bool, seconds: float | None = None) -> Callable[[Stopwatch, str], None]:
    def measure(watch: Stopwatch, device: str) -> None:
        engine = Engine(device)
        engine.ask("hello")
        with tempfile.TemporaryDirectory() as folder:
            job = {
                "folder": folder, "audio": str(SPEECH), "offset": 0.0, "duration": seconds, "fps": FPS, "seed": 0,
                "temperature": 0.0, "emotion_strength": 1.0, "edits": True,
            }  # fmt: skip
            if not first:
                engine.ask("animate", **job)
            with watch.running():
                engine.ask("animate", **job)
        engine.close()
        state = "loaded on the way" if first else "in memory"
        watch.note = f"demo speech, {seconds or 7.7:g} s, network {state}"

    return measure


ROWS: dict[str, tuple[str, Callable[[Stopwatch, str], None]]] = {
    "python": ("bare Python and numpy (reference)", bare_python),
    "energy-10s": ("energy baseline, 10 s (reference)", energy_baseline(10.0)),
    "energy-5min": ("energy baseline, 5 min (reference)", energy_baseline(300.0)),
    "sound": ("reading a sound file of 5 min", read_sound),
    "imports": ("importing torch and transformers", import_torch),
    "load": ("loading the network", model_load),
    "animate-10s": ("animating 10 s", animate(10.0)),
    "animate-30s": ("animating 30 s", animate(30.0)),
    "animate-5min": ("animating 5 min", animate(300.0)),
    "edits-60": ("edits of 60 s again, without the network", edits_again(60.0)),
    "edits": ("edits of 5 min again, without the network", edits_again(300.0)),
    "identity": ("reading a face's identity", identity),
    "rig": ("rigging the demo head", rig(0)),
    "rig-large": ("rigging it subdivided", rig(1)),
    "worker": ("engine process: start to first answer", worker_start),
    "worker-first": ("engine process: first take", worker_job(first=True)),
    "worker-5s": ("engine process: first take of 5 s", worker_job(first=True, seconds=5.0)),
    "worker-next": ("engine process: next take", worker_job(first=False)),
}
LONG = {"animate-1h": ("animating 1 h", animate(3600.0))}


# ---------------------------------------------------------------- processes and the table


def measure_here(name: str, device: str) -> Figures:
    """Take one measurement in this process."""
    watch = Stopwatch()
    {**ROWS, **LONG}[name][1](watch, device)
    # The engine is a child: its memory counts, ours is next to nothing. Kilobytes on Linux, bytes on macOS.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit
    torch = sys.modules.get("torch")
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch is not None and torch.cuda.is_available() else 0.0
    return Figures(watch.seconds, peak, gpu, watch.note)


def measure_apart(name: str, options: argparse.Namespace) -> Figures | str:
    """Take one measurement in processes of its own, --repeat times; a text where it failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    command = [sys.executable, __file__, "--one", name, "--device", options.device]
    runs = []
    for _ in range(options.repeat):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no message"])[-1]
        runs.append(Figures(**json.loads(done.stdout.strip().splitlines()[-1])))
    best = min(runs, key=lambda figures: figures.seconds)
    best.peak_mb, best.gpu_mb = max(f.peak_mb for f in runs), max(f.gpu_mb for f in runs)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, mps")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *LONG], metavar="NAME", help=", ".join([*ROWS, *LONG]))
    parser.add_argument("--long", action="store_true", help="an hour of speech too")
    parser.add_argument("--one", choices=[*ROWS, *LONG], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(vars(measure_here(options.one, options.device))))
        return 0
    rows = {**ROWS, **LONG} if options.long or options.only else ROWS
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"device {options.device}, {options.threads} threads, best of {options.repeat}\n")
    print("| what | seconds | peak memory MB | GPU MB | |\n|---|---|---|---|---|", flush=True)
    failed = 0
    for name, (title, _) in rows.items():
        if options.only and name not in options.only:
            continue
        result = measure_apart(name, options)
        if isinstance(result, str):
            failed += 1
            print(f"| {title} | failed | | | {result} |", flush=True)
        else:
            gpu = f"{result.gpu_mb:.0f}" if result.gpu_mb else ""
            print(f"| {title} | {result.seconds:.2f} | {result.peak_mb:.0f} | {gpu} | {result.note} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
