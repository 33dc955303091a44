"""How long Blender's window waits: every tick of a job with the engine itself, and what keys cost; as markdown tables.
Run by hand, never in CI:

    python tests/bench/bench_blender.py [--engine PYTHON] [--long SECONDS]

in an environment with the bpy module. The window is stood in for by a loop that calls the operator as its timer would,
and measures each tick: the processor's time, as other work on the machine counts little in it, and the wall's clock,
with all waiting for Python's lock and for a processor. Each key figure stands beside `keyframe_insert` (Blender's way
to write one key) and beside a bare copy of the same numbers, in the same run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import bench_takes as takes_bench
from bench_takes import HEAD, ROOT, SPEECH, blender_addon, raw_minute, repeated, stage

from blender_addon import compat, curves, engine, job, keys, operators, pieces, writing

CURVES, FRAMES = 52, 18_000

REPEAT = """
import sys; sys.path.insert(0, sys.argv[1])
import wave, numpy as np
from lsf_core.audio import load_audio
clip, count = load_audio(sys.argv[2]), round(float(sys.argv[3]) * 16000)
with wave.open(sys.argv[4], "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    file.writeframes((np.tile(clip, -(-count // len(clip)))[:count] * 32767).astype("<i2").tobytes())
"""


class Tick(NamedTuple):
    """One call of the operator by the timer: what the job was about, milliseconds of the processor and of the wall."""

    about: str
    own: float
    wall: float


class Window:
    """A window's timer: calls the operator, and notes what each call took and what the job was about."""

    def __init__(self) -> None:
        self.interval = 0.0
        self.windows: list[Any] = []
        self.ticks: list[Tick] = []

    def event_timer_add(self, interval: float, window: Any) -> float:
        self.interval = interval
        return interval

    def event_timer_remove(self, timer: float) -> None:
        self.interval = 0.0

    def modal_handler_add(self, operator: Any) -> None:
        pass

    def run(self, operator: Any) -> None:
        """The job of the operator, to its end."""
        context = SimpleNamespace(scene=bpy.context.scene, window=None, window_manager=self,
                                  preferences=bpy.context.preferences)
        operators.bpy = SimpleNamespace(app=SimpleNamespace(background=False))  # type: ignore[attr-defined]
        try:
            answer = operator.invoke(context, None)
            while answer in ({"RUNNING_MODAL"}, {"PASS_THROUGH"}):
                assert job.current
                due = time.perf_counter() + self.interval
                while time.perf_counter() < due:  # short sleeps: the last one ends little after it is due
                    time.sleep(min(0.001, max(due - time.perf_counter(), 0.0)))
                about, working = job.current.text, job.current.at_work
                begun, own = time.perf_counter(), time.thread_time()
                answer = operator.modal(context, SimpleNamespace(type="TIMER"))
                self.ticks.append(Tick(f"{about}{', taking up' if working else ''}",
                                       1000 * (time.thread_time() - own), 1000 * (time.perf_counter() - begun)))
        finally:
            operators.bpy = bpy  # type: ignore[attr-defined]
        if job.current is None or job.current.state != "DONE":
            raise SystemExit(f"The job failed: {job.current and job.current.error}")


def operator() -> Any:
    """What stands in for the Animate button, which Blender lets no script call as a window does."""
    methods = {**vars(operators.RunsTask), **vars(operators.LSF_OT_animate)}
    kept = {name: value for name, value in methods.items() if not name.startswith(("__", "bl_"))}
    return type("Animate", (), {**kept, "report": lambda *_: None})()


def head() -> bpy.types.Object:
    """The demo head in an empty scene at 30 fps, without shape keys."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    lines = [line.split() for line in HEAD.read_text().splitlines()]
    mesh = bpy.data.meshes.new("Head")
    mesh.from_pydata([[float(x) for x in line[1:4]] for line in lines if line[:1] == ["v"]], [],
                     [[int(corner.split("/")[0]) - 1 for corner in line[1:]] for line in lines if line[:1] == ["f"]])
    made = bpy.data.objects.new("Head", mesh)
    bpy.context.scene.collection.objects.link(made)
    bpy.context.scene.render.fps = 30
    bpy.context.scene.lsf.target = made
    return made


def speech_of(seconds: float, folder: Path, python: str) -> Path:
    """The demo speech, repeated to this length, as a wav file."""
    path = folder / f"speech{seconds:.0f}.wav"
    subprocess.run([python, "-c", REPEAT, str(ROOT), str(SPEECH), str(seconds), str(path)], check=True)
    return path


def ticks(python: str, long: float) -> None:
    """Whole jobs with the engine: what the window waited for."""
    engine.use(engine.Engine(engine.worker_command(python)))
    print("| job | 52 shape keys, 8,970 vertices | ticks | median ms | 95 % | longest | in | longest by the wall |")
    print("|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        head()
        for seconds, first in ((7.7, "are made"), (7.7, "are there"), (60.0, "are there"), (long, "are there")):
            bpy.context.scene.lsf.audio_path = str(speech_of(seconds, Path(folder), python))
            window = Window()
            window.run(operator())
            own = np.array([tick.own for tick in window.ticks])
            print(f"| {seconds:g} s | {first} | {len(own)} | {np.median(own):.2f} | {np.percentile(own, 95):.2f} "
                  f"| {own.max():.1f} | {window.ticks[int(own.argmax())].about} "
                  f"| {max(tick.wall for tick in window.ticks):.1f} |", flush=True)
    engine.stop()


def written(mesh: bpy.types.Object) -> None:
    """Writing CURVES x FRAMES keys in bulk, one by one, and copying the numbers alone."""
    rng = np.random.default_rng(0)
    weights = rng.random((FRAMES, CURVES)).astype(np.float32)
    names = [block.name for block in mesh.data.shape_keys.key_blocks[1:]]
    chosen = [curves.chosen(weights[:, column], np.ones(FRAMES, bool), 1) for column in range(CURVES)]

    def bulk(style: str) -> bpy.types.Action:
        action = bpy.data.actions.new("bulk")
        made = compat.draft_curves(action, "KEY", "Key")
        for name, each in zip(names, chosen, strict=True):
            curves.write(made.new(f'key_blocks["{name}"].value'), each, style)
        return action

    def one_by_one(count: int) -> None:
        compat.assign_action(mesh.data.shape_keys, bpy.data.actions.new("one by one"))
        block = mesh.data.shape_keys.key_blocks[names[0]]
        for frame in range(count):
            block.value = float(weights[frame, 0])
            block.keyframe_insert("value", frame=frame + 1)

    copy = least(lambda: np.stack([weights, weights], axis=2).copy())
    rows = {"a bare copy of the numbers (floor)": (copy, CURVES * FRAMES),
            "every frame, straight lines": (least(lambda: bulk(curves.EVERY_FRAME)), CURVES * FRAMES),
            "every frame, Bezier": (least(lambda: bulk(curves.SPARSE)), CURVES * FRAMES),
            "`keyframe_insert` (reference), one curve": (least(lambda: one_by_one(FRAMES), 1), FRAMES)}
    print("\n| writing | keys | seconds | microseconds a key |\n|---|---|---|---|")
    for name, (seconds, count) in rows.items():
        print(f"| {name} | {count} | {seconds:.3f} | {1e6 * seconds / count:.3f} |")


def least(work: Callable[[], Any], runs: int = 5) -> float:
    """Seconds of the processor, the least of several runs: what else the machine does counts little."""
    times = []
    for _ in range(runs):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def ten_minutes(mesh: bpy.types.Object, raw: Any) -> None:
    """From the raw take to keys that are written, and an edit of a minute."""
    long, data = repeated(raw, 10), repeated(raw, 10).to_bytes()
    motion = long.finish(fps=30)
    names = list(motion.names)
    mask = writing.sparse_mask(names, motion.weights, 30)
    keyed = keys.keyed_motion(names, motion.weights, 1, mask, data)
    rows = {"finish from the raw motion": lambda: long.finish(fps=30),
            "choose sparse keys": lambda: writing.sparse_mask(names, motion.weights, 30),
            "pack them, to tell the artist's": lambda: keys.keyed_motion(names, motion.weights, 1, mask, data),
            "write them": lambda: keys.drop(pieces.whole(keys.draft("ten", keyed))),
            "a bare copy of the weights (floor)": lambda: motion.weights.copy()}
    spent = {name: least(work, 3) for name, work in rows.items()}
    spent["all of it"] = sum(list(spent.values())[:4])
    print(f"\n| ten minutes, {mask.sum()} of {mask.size} keys | seconds |\n|---|---|")
    for name, seconds in spent.items():
        print(f"| {name} | {seconds:.3f} |")


def opened(mesh: bpy.types.Object, raw: Any) -> None:
    """Opening a file with a hundred takes of a minute, beside one with none."""
    take = takes_bench.write(mesh, raw)
    with TemporaryDirectory() as folder:
        paths = {"a hundred takes": Path(folder) / "many.blend", "none (reference)": Path(folder) / "none.blend"}
        compat.assign_action(mesh.data.shape_keys, None)
        for action in [action for action in bpy.data.actions if action != take]:
            bpy.data.actions.remove(action)
        for _ in range(99):
            take.copy().use_fake_user = True
        bpy.ops.wm.save_as_mainfile(filepath=str(paths["a hundred takes"]), copy=True)
        for action in list(bpy.data.actions):
            bpy.data.actions.remove(action)
        bpy.ops.wm.save_as_mainfile(filepath=str(paths["none (reference)"]), copy=True)
        print("\n| opening a file with | MB | seconds |\n|---|---|---|")
        for name, path in paths.items():
            seconds = least(lambda path=path: bpy.ops.wm.open_mainfile(filepath=str(path)), 3)
            print(f"| {name} | {path.stat().st_size / 1e6:.1f} | {seconds:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default=os.environ.get("LSF_ENGINE_PYTHON") or str(ROOT / ".venv/bin/python"))
    parser.add_argument("--long", type=float, default=600.0, help="seconds of the longest job")
    options = parser.parse_args()
    blender_addon.register()
    raw = raw_minute(SPEECH, options.engine)
    print(f"Blender {bpy.app.version_string}\n")
    ticks(options.engine, options.long)
    mesh = stage()
    written(mesh)
    ten_minutes(mesh, raw)
    opened(stage(), raw)
    takes_bench.quickness(raw)


if __name__ == "__main__":
    main()
