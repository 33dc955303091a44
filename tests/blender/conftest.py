"""Scenes, engines and sounds for the tests inside Blender (the bpy module).

The real engine is started once for the whole run and keeps its rigs; `fake_engine` gives one that answers at once or
misbehaves. The engine's Python: LSF_ENGINE_PYTHON, else the checkout's .venv.
"""

from __future__ import annotations

import os
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "assets"
SPEECH = ASSETS / "demo" / "speech.ogg"
sys.path.insert(0, str(ROOT))

import blender_addon  # noqa: E402
from blender_addon import compat, engine  # noqa: E402

FAKE_WORKER = Path(__file__).with_name("fake_worker.py")


@pytest.fixture(scope="session", autouse=True)
def addon() -> Iterator[Any]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    blender_addon.register()
    yield blender_addon
    blender_addon.unregister()


@pytest.fixture
def scene(addon: Any) -> bpy.types.Scene:
    """An empty scene at 25 fps, frames 1 to 50."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.edit.use_global_undo = True
    fresh = bpy.context.scene
    fresh.render.fps, fresh.render.fps_base = 25, 1.0
    fresh.frame_start, fresh.frame_end = 1, 50
    return fresh


_shared: list[engine.Engine] = []


@pytest.fixture
def real_engine(addon: Any) -> Iterator[engine.Engine]:
    """The engine itself, one process for all tests that ask for it."""
    if not (_shared and _shared[0].alive):
        _shared[:] = [engine.Engine(engine.worker_command(engine.find_python()))]
    engine._engine = _shared[0]
    yield _shared[0]
    engine._engine = None


@pytest.fixture(scope="session", autouse=True)
def _close_shared_engine() -> Iterator[None]:
    yield
    for process in _shared:
        process.close()


@pytest.fixture
def fake_engine(addon: Any, tmp_path: Path) -> Iterator[Callable[..., engine.Engine]]:
    """`fake_engine(mode, limits)`: makes a scripted engine (fake_worker.py) the one that jobs use."""

    def start(mode: str = "good", limits: engine.Limits | None = None) -> engine.Engine:
        log = tmp_path / "requests.jsonl"
        return engine.use(engine.Engine([sys.executable, str(FAKE_WORKER), mode, str(log)], limits or engine.Limits()))

    yield start
    engine.stop()


@pytest.fixture
def requests_seen(tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """The params of every request of a method that the fake engine got."""
    import json

    def read(method: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
        return [line.get("params", {}) for line in lines if line["method"] == method]

    return read


# ---------------------------------------------------------------- things in the scene
def make_object(name: str, vertices: Any, faces: Any) -> bpy.types.Object:
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(vertices, [], faces)
    made = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(made)
    return made


def read_obj(path: Path) -> tuple[list[list[float]], list[list[int]]]:
    vertices, faces = [], []
    for line in path.read_text().splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "f":
            faces.append([int(corner.split("/")[0]) - 1 for corner in rest])
    return vertices, faces


@pytest.fixture
def head(scene: bpy.types.Scene) -> bpy.types.Object:
    """The demo head: no shape keys, a topology of its own."""
    made = make_object("Head", *read_obj(ASSETS / "demo" / "head.obj"))
    scene.lsf.target = made
    return made


@pytest.fixture
def ball(scene: bpy.types.Scene) -> bpy.types.Object:
    """A small mesh for tests that use the fake engine, which takes anything for a face."""
    bpy.ops.mesh.primitive_uv_sphere_add(segments=12, ring_count=8)
    made = bpy.context.object
    made.name = "Ball"
    scene.lsf.target = made
    return made


def add_strip(scene: bpy.types.Scene, path: Path | str, frame: int = 1, name: str = "speech") -> Any:
    try:
        strip = compat.top_strips(scene.sequence_editor_create()).new_sound(name, str(path), 1, frame)
    except RuntimeError as error:
        if "without Audaspace" in str(error):
            pytest.skip("this build of the bpy module (4.2) has no sound strips")
        raise
    scene.lsf.strip_name = strip.name
    return strip


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """samples: (N,) or (N, channels), floats in [-1, 1]."""
    samples = np.atleast_2d(samples.T).T
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
def hum(tmp_path: Path) -> Path:
    """Two seconds of sound that is not silent."""
    time = np.arange(32000) / 16000
    return write_wav(tmp_path / "speech.wav", 0.3 * np.sin(2 * np.pi * 180 * time))


@pytest.fixture
def ball_scene(scene: bpy.types.Scene, ball: bpy.types.Object, hum: Path) -> bpy.types.Scene:
    """Ball and 50 frames of hum, ready to animate with the fake engine."""
    if bpy.app.build_options.audaspace:
        add_strip(scene, hum)
    else:
        scene.lsf.audio_path = str(hum)
    return scene


def error_of(call: Callable[[], Any]) -> str:
    """The message of the RuntimeError that `call` must raise."""
    with pytest.raises(RuntimeError) as caught:
        call()
    return str(caught.value)


def keyed(target: bpy.types.Object) -> dict[str, np.ndarray]:
    """The keys on the shape keys of an object now: name -> (N, 2) frames and values."""
    found = {}
    for curve in compat.curves_of(target.data.shape_keys):
        points = np.empty(2 * len(curve.keyframe_points), np.float32)
        curve.keyframe_points.foreach_get("co", points)
        found[curve.data_path.split('"')[1]] = points.reshape(-1, 2)
    return found


def evaluated(target: bpy.types.Object, frame: int) -> np.ndarray:
    """Vertices (V, 3) of the evaluated mesh at a frame."""
    bpy.context.scene.frame_set(frame)
    mesh = target.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", points)
    return points.reshape(-1, 3)
