"""Keys and edits of takes inside Blender: how few, how exact, how quick; as markdown tables. Run by hand, never in CI:

    python tests/bench/bench_takes.py [--audio FILE] [--engine PYTHON]

in an environment with the bpy module. The engine's Python (LSF_ENGINE_PYTHON, else this one) makes the raw motion of
the audio, the demo speech unless told otherwise, repeated to a minute. Milliseconds are the processor's, the median of
seven runs: all of this is done by one thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SPEECH, HEAD = ROOT / "assets" / "demo" / "speech.ogg", ROOT / "assets" / "demo" / "head.obj"
sys.path.insert(0, str(ROOT))

import blender_addon  # noqa: E402
from blender_addon import compat, edits, keys, panel_takes, takes, writing  # noqa: E402
from blender_addon.shared import arkit, rawtake, sparse  # noqa: E402
from blender_addon.shared import edits as core  # noqa: E402

RAW = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np, lsf_core
from lsf_core.audio import load_audio
clip = load_audio(sys.argv[2])
minute = np.tile(clip, -(-60 * 16000 // len(clip)))[:60 * 16000]
lsf_core.load_model(device="cpu").raw_take(minute, 16000, mesh=sys.argv[3]).save(sys.argv[4])
"""


def milliseconds(work: Callable[[], Any], runs: int = 7) -> float:
    """Median of several runs, of the processor's time: what else the machine does counts little."""
    times = []
    for _ in range(runs):
        begun = time.process_time()
        work()
        times.append(1000 * (time.process_time() - begun))
    return float(np.median(times))


def raw_minute(audio: Path, engine: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.npz"
        subprocess.run([engine, "-c", RAW, str(ROOT), str(audio), str(HEAD), str(path)], check=True)
        return rawtake.RawTake.load(path)


def repeated(raw: Any, times: int) -> Any:
    cues = raw.cues
    longer = (np.tile(part, times) for part in (cues.voiced, cues.loudness, cues.pitch))
    return rawtake.RawTake(np.tile(raw.neutral, (times, 1)), np.tile(raw.emotional, (times, 1)),
                           type(cues)(*longer, cues.seconds * times, cues.rate))


def exactness(raw: Any) -> None:
    """Number of keys and what they cost in precision, at several frame rates."""
    with np.load(ROOT / "assets" / "template_head.npz", allow_pickle=False) as file:
        shapes = file["expressions_mm"].astype(np.float32).reshape(52, -1)
    print("| fps | frames x curves | keys | times fewer | largest error, weight | largest error, mm (template head) |")
    print("|---|---|---|---|---|---|")
    for fps in (24, 25, 30, 60):
        motion = raw.finish(fps=fps)
        mask = writing.sparse_mask(list(motion.names), motion.weights, fps)
        off = (sparse.between(motion.weights, mask) - motion.weights).astype(np.float32)
        apart = max(float(np.linalg.norm((part @ shapes).reshape(len(part), -1, 3), axis=2).max())
                    for part in np.array_split(off, len(off) // 100))
        print(f"| {fps} | {mask.size} | {mask.sum()} | {mask.size / mask.sum():.1f} | {np.abs(off).max():.4f} "
              f"| {apart:.3f} |")


def stage() -> bpy.types.Object:
    """A small mesh with the 52 shape keys."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_uv_sphere_add(segments=12, ring_count=8)
    mesh = bpy.context.object
    for name in ("Basis", *arkit.ARKIT_NAMES):
        mesh.shape_key_add(name=name)
    bpy.context.scene.lsf.target = mesh
    return mesh


def write(mesh: bpy.types.Object, raw: Any) -> bpy.types.Action:
    motion = raw.finish(fps=30)
    mask = writing.sparse_mask(list(motion.names), motion.weights, 30)
    made = {"seed": 0, "fps": 30.0, "edits": core.DEFAULT.to_dict(), "number": 1}
    return keys.write_take(mesh, "take", list(motion.names), motion.weights, 1, made, mask, raw.to_bytes()).action


class List:
    """The take list without a window."""

    bitflag_filter_item, filter_name, filter_items = 1, "", panel_takes.LSF_UL_takes.filter_items


def quickness(raw: Any) -> None:
    """Milliseconds of what an artist waits for, at 30 fps."""
    mesh, long = stage(), repeated(raw, 10)
    take = write(mesh, raw)
    others = (replace(core.DEFAULT, emotion=0.5 + 0.1 * step, smoothing=0.3) for step in range(10))
    rows = {"edit a take of 60 s, 52 curves: finish, choose keys, write":
            milliseconds(lambda: edits.apply(take, next(others))),
            "of it, finish from the raw motion": milliseconds(lambda: raw.finish(fps=30)),
            "ten minutes into a take: finish, choose, write, pack the raw motion too":
            milliseconds(lambda: write(mesh, long), 3)}
    for action in [a for a in bpy.data.actions if keys.is_take(a) and a != take]:
        bpy.data.actions.remove(action)
    takes.activate(mesh, take)
    for _ in range(99):
        take.copy().use_fake_user = True
    sliders = bpy.context.window_manager.lsf_edits
    rows["with 100 takes: filter and order the list, at each drawing"] = milliseconds(
        lambda: List().filter_items(bpy.context, bpy.data, "actions"))
    rows["all sliders of the edits, at each drawing"] = milliseconds(
        lambda: [getattr(sliders, name) for name in core.STRENGTHS])
    rows["with 100 takes: a click in the list"] = milliseconds(
        lambda: setattr(bpy.context.scene.lsf, "take_index", bpy.data.actions.find("take.050")))
    rows["with 100 takes of a minute: an undo step"] = milliseconds(lambda: bpy.ops.ed.undo_push(message="step"))
    print("\n| what | ms |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.1f} |")
    sizes = [len(take[tag]) / 1e6 for tag in (keys.RAW_TAG, keys.WRITTEN_TAG)]
    count = sum(len(curve.keyframe_points) for curve in compat.curves_in(take, "KEY"))
    print(f"\nA take of a minute: {count} keys, {sizes[0]:.2f} MB of raw motion, {sizes[1]:.2f} MB of keys as written.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, default=SPEECH)
    parser.add_argument("--engine", default=os.environ.get("LSF_ENGINE_PYTHON") or sys.executable)
    options = parser.parse_args()
    blender_addon.register()
    raw = raw_minute(options.audio, options.engine)
    print(f"Blender {bpy.app.version_string}, {options.audio.name} repeated to {raw.seconds:.0f} s\n")
    exactness(raw)
    quickness(raw)


if __name__ == "__main__":
    main()
