"""Whatever dies, hangs, fills up or is torn away: the scene is as it was, and no process and no file is left.

Most of it with the fake engine, which can be made to fail at any stage; the rest with the real one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import bpy
import numpy as np
import pytest
from conftest import FAKE_WORKER, ROOT, SPEECH, error_of, keyed, write_wav
from fake_worker import GARBAGE
from test_engine import gone, last_event

from blender_addon import engine, job, keys
from blender_addon.report import cures_of
from blender_addon.shared import protocol

STAGES = ("hello", "listen", "rig", "animate")


@pytest.fixture
def temp(tmp_path, monkeypatch):
    """A temporary folder of the test's own, in which nothing of ours may lie at its end."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.glob(f"{protocol.FOLDER_PREFIX}*"))


@pytest.fixture
def untouched(ball_scene, ball):
    """A scene that has to be as it was at the test's end."""
    yield ball_scene
    assert ball.data.shape_keys is None
    assert ball.animation_data is None
    assert not len(bpy.data.actions)


def until(work: job.Job, condition, within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, work.text
        work.poll()
        time.sleep(0.01)


def job_at(stage: str, requests_seen, tmp_path: Path) -> job.Job:
    """A job that the engine works on at `stage`."""
    work = job.Job(bpy.context, "unused")
    log = tmp_path / "requests.jsonl"
    until(work, lambda: log.exists() and requests_seen(stage))
    return work


@pytest.mark.parametrize("stage", STAGES)
def test_an_engine_killed_at_any_stage(untouched, fake_engine, requests_seen, tmp_path, temp, stage):
    process = fake_engine(f"hangs at {stage}")
    work = job_at(stage, requests_seen, tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    until(work, lambda: work.state != "RUNNING")
    assert work.state == "FAILED"
    assert "signal 9" in work.error
    assert "press Animate to try again" in work.error or "Set it up" in work.error
    assert "signal 9" in work.report
    assert engine.running() is None


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancel_at_any_stage(untouched, fake_engine, requests_seen, tmp_path, temp, stage):
    process = fake_engine(f"hangs at {stage}", engine.Limits(cancel=0.5, terminate=0.5))
    work = job_at(stage, requests_seen, tmp_path)
    work.cancel()
    until(work, lambda: work.state != "RUNNING")
    assert (work.state, work.error) == ("CANCELLED", "Cancelled. Nothing was changed.")
    assert process.alive, "an engine that obeys is kept"


@pytest.mark.parametrize("stage", ["listen", "rig", "animate"])
@pytest.mark.parametrize("what", list(GARBAGE))
def test_garbage_at_any_stage(untouched, fake_engine, temp, what, stage):
    process = fake_engine(f"{what} at {stage}")
    work = job.Job(bpy.context, "unused")
    until(work, lambda: work.state != "RUNNING")
    assert work.state == "FAILED"
    assert "not its protocol" in work.error
    assert [cure.operator for cure in cures_of(work.error)] == ["lsf.setup_engine", "lsf.show_preferences"]
    engine.stop()
    assert gone(process.pid)


def test_the_add_on_switched_off_in_the_middle_of_a_job(untouched, addon, fake_engine, requests_seen, tmp_path, temp):
    process = fake_engine("hangs at rig")
    job.current = job_at("rig", requests_seen, tmp_path)
    addon.unregister()
    try:
        assert gone(process.pid)
        assert job.current is None
        assert not list(temp.glob("lsf-*"))
    finally:
        addon.register()


def test_another_file_opened_in_the_middle_of_a_job(ball_scene, fake_engine, requests_seen, tmp_path, temp):
    fake_engine("hangs at animate")
    work = job_at("animate", requests_seen, tmp_path)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    work._engine.cancel(work._request)
    until(work, lambda: work.state != "RUNNING")
    assert not len(bpy.data.actions)

    fake_engine()
    bpy.ops.mesh.primitive_uv_sphere_add()
    bpy.context.scene.lsf.target, bpy.context.scene.lsf.audio_path = bpy.context.object, str(SPEECH)
    work = job.Job(bpy.context, "unused")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    until(work, lambda: work.state != "RUNNING")
    assert work.state == "FAILED"
    assert "was removed or renamed while the engine worked" in work.error
    assert not len(bpy.data.actions)


def test_an_undo_in_the_middle_of_a_job(ball_scene, ball, fake_engine, requests_seen, tmp_path, temp):
    bpy.ops.ed.undo_push(message="before")
    ball_scene.lsf.seed = 7
    bpy.ops.ed.undo_push(message="seed")
    fake_engine()
    work = job.Job(bpy.context, "unused")
    bpy.ops.ed.undo()
    until(work, lambda: work.state != "RUNNING")
    assert work.state == "DONE", work.error
    target = bpy.data.objects["Ball"]
    assert keys.take_settings(keys.active_take(target))["seed"] == 7, "the take is the one that was asked for"


# ---------------------------------------------------------------- disks
class FilesAtMost:
    """No process `pid` may write more than `size` bytes into a file: what a full disk is to it (EFBIG for ENOSPC)."""

    def __init__(self, size: int, pid: int = 0) -> None:
        import resource

        self.limit, self.size, self.pid = resource.RLIMIT_FSIZE, size, pid
        self.set = resource.prlimit

    def __enter__(self) -> None:
        self.before = self.set(self.pid, self.limit)
        self.set(self.pid, self.limit, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        self.set(self.pid, self.limit, self.before)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files by prlimit, which is Linux's")
def test_a_disk_that_is_full_on_blenders_side(untouched, fake_engine, temp):
    fake_engine()
    with FilesAtMost(1000):
        message = error_of(bpy.ops.lsf.animate)
    assert f"The temporary folder '{temp}/lsf-" in message
    assert "Free some space" in message


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files by prlimit, which is Linux's")
def test_a_disk_that_is_full_on_the_engines_side(real_engine, tmp_path):
    hum = write_wav(tmp_path / "hum.wav", 0.3 * np.sin(np.arange(32000) * 0.07))

    def animate() -> protocol.Event:
        request = real_engine.ask("animate", folder=str(tmp_path), audio=str(hum), offset=0.0, duration=1.0, fps=25.0,
                                  frames=25, seed=0, temperature=0.0, emotion_strength=1.0, edits=True)
        return last_event(real_engine, request, within=60)

    with FilesAtMost(1000, real_engine.pid):
        error = animate()
    assert error.kind == protocol.USER
    assert f"The temporary file '{tmp_path / 'weights.npy'}' cannot be written" in error.message
    assert "Free some space" in error.message
    assert animate().event == protocol.RESULT, "with room again the same engine goes on"


def test_a_temporary_folder_that_is_not_there(untouched, fake_engine, monkeypatch):
    fake_engine()
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    message = error_of(bpy.ops.lsf.animate)
    assert "The temporary folder '/proc/nowhere' cannot be written" in message
    assert "TMPDIR" in message


# ---------------------------------------------------------------- engines
def test_a_python_without_the_packages_is_named_with_the_cure(untouched, tmp_path, temp):
    subprocess.run([engine.find_python(), "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    message = ""
    try:
        work = job.Job(bpy.context, python)
        until(work, lambda: work.state != "RUNNING", within=30)
        message = work.error
    finally:
        engine.stop()
    assert f"The engine does not start in '{python}'" in message
    assert "numpy" in message
    assert [cure.operator for cure in cures_of(message)] == ["lsf.setup_engine", "lsf.show_preferences"]


def test_another_python_or_device_takes_effect_with_the_next_take(monkeypatch):
    started: list[tuple[str, ...]] = []

    class Stand:
        alive = True

        def __init__(self, command: list[str]) -> None:
            started.append(tuple(command[-2:]))

        def close(self) -> None:
            self.alive = False

    monkeypatch.setattr(engine, "Engine", Stand)
    try:
        first = engine.start("python", "cpu")
        assert engine.start("python", "cpu") is first
        assert engine.start("python", "cuda") is not first
        assert not first.alive
        assert started == [("--device", "cpu"), ("--device", "cuda")]
    finally:
        engine.stop()


def test_the_state_is_told_and_memory_can_be_freed(addon, real_engine, tmp_path):
    hum = write_wav(tmp_path / "hum.wav", 0.3 * np.sin(np.arange(32000) * 0.07))
    request = real_engine.ask("animate", folder=str(tmp_path), audio=str(hum), offset=0.0, duration=1.0, fps=25.0,
                              frames=25, seed=0, temperature=0.0, emotion_strength=1.0, edits=True)
    assert real_engine.state in ("Starting", "Working")
    last_event(real_engine, request, within=60)
    assert real_engine.usage["loaded"]
    assert engine.describe().startswith(f"Idle on {real_engine.versions['device']}, network loaded, ")
    assert bpy.ops.lsf.unload_engine() == {"FINISHED"}
    assert "network not loaded" in engine.describe()
    assert engine.running() is real_engine


def test_two_blenders_at_once(tmp_path, temp):
    """Each with an engine and a folder of its own; nothing of the one is met by the other."""
    code = (f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n"
            "import bpy, blender_addon; from blender_addon import engine, keys; blender_addon.register()\n"
            "bpy.ops.mesh.primitive_uv_sphere_add(); s = bpy.context.scene; s.lsf.target = bpy.context.object\n"
            f"s.lsf.audio_path, s.lsf.seed = {str(SPEECH)!r}, int(sys.argv[1])\n"
            f"engine.use(engine.Engine([{sys.executable!r}, {str(FAKE_WORKER)!r}, 'chatty', sys.argv[2]]))\n"
            "for _ in range(5): bpy.ops.lsf.animate()\n"
            "takes = keys.takes_of(s.lsf.target); print('seeds', {keys.take_settings(t)['seed'] for t in takes})\n"
            "print('takes', len(takes)); blender_addon.unregister()")
    blenders = [subprocess.Popen([sys.executable, "-c", code, str(n), str(tmp_path / f"log{n}")], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for n in (1, 2)]
    for number, blender in enumerate(blenders, 1):
        said, _ = blender.communicate(timeout=120)
        assert f"seeds {{{number}}}" in said, said
        assert "takes 5" in said, said


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_blender_killed_in_the_middle_of_a_job_leaves_no_process_and_no_file(temp):
    code = (f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests/blender')!r}]\n"
            "import bpy, blender_addon; from blender_addon import job; blender_addon.register()\n"
            "bpy.ops.mesh.primitive_uv_sphere_add(segments=200, ring_count=100)\n"
            "s = bpy.context.scene; s.lsf.target = bpy.context.object\n"
            f"s.lsf.audio_path = {str(SPEECH)!r}\n"
            f"work = job.Job(bpy.context, {engine.find_python()!r})\n"
            "while work.fraction == 0 and not work.poll(): pass\n"
            "print('at work', work._engine.pid, flush=True); import time; time.sleep(60)")
    blender = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert blender.stdout
    watchdog = threading.Timer(90, blender.kill)
    watchdog.start()
    pid = int(next(line for line in blender.stdout if line.startswith("at work")).split()[-1])
    watchdog.cancel()
    assert len(list(temp.glob("lsf-*"))) == 1
    blender.kill()
    blender.wait()
    assert gone(pid)


# ---------------------------------------------------------------- what the engine touches
AUDIT = """
import sys
seen = open(sys.argv.pop(1), "a", buffering=1)
def hook(event, arguments):
    if event.split(".")[0] in ("socket", "subprocess", "pickle", "ctypes", "os") or event == "open":
        if event == "open":
            seen.write(f"{event}\\t{arguments[0]}\\t{arguments[1]}\\t{arguments[2]}\\n")
        elif event in ("socket.connect", "socket.bind", "subprocess.Popen", "pickle.find_class", "os.system",
                       "os.rename"):
            seen.write(f"{event}\\t{arguments[0]}\\t\\t0\\n")
sys.addaudithook(hook)
"""


def test_the_engine_opens_no_ports_loads_no_pickles_and_reads_only_what_it_is_told(head, tmp_path, temp):
    """Every file, socket, program and pickle of a whole job, as Python's audit events tell."""
    from blender_addon import mesh_io

    folder, log = tmp_path / "lsf-job", tmp_path / "audit"
    folder.mkdir()
    python = engine.find_python()
    command = engine.worker_command(python)
    code = command.index("-c") + 1
    command[code : code + 1] = [AUDIT + command[code], str(log)]
    mesh = mesh_io.read(head)
    np.save(folder / "v.npy", mesh.vertices)
    np.save(folder / "f.npy", mesh.triangles)
    process = engine.Engine(command)
    try:
        files = {"folder": str(folder), "vertices": "v.npy", "faces": "f.npy"}
        sound = {"audio": str(SPEECH), "offset": 0.0, "duration": 2.0}
        motion = {"fps": 25.0, "frames": 50, "seed": 0, "temperature": 0.0, "emotion_strength": 1.0, "edits": True}
        asked = [process.ask("listen", **sound), process.ask("rig", **files),
                 process.ask("animate", **files, **sound, **motion)]
        for request in asked:
            event = last_event(process, request, within=120)
            assert event.event == protocol.RESULT, event.message
        sockets = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
        assert not [link for link in sockets if link.startswith("socket:")]
    finally:
        process.close()
    prefixes = subprocess.run([python, "-c", "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"], text=True,
                              capture_output=True, check=True).stdout.split()
    allowed = tuple(map(str, [*prefixes, ROOT / "lsf_core", ROOT / "assets", folder, temp, SPEECH]))
    system = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/")
    for line in log.read_text().splitlines():
        event, what, mode, flags = line.split("\t")
        if (event, what) == ("subprocess.Popen", "lscpu"):
            continue  # joblib, which librosa brings into .venv for the tests; the engine's own pins are without it
        assert event == "open" or what.startswith(str(folder)), f"{event}: {what}"
        if event == "open" and not what.isdigit():
            if int(flags) & (os.O_WRONLY | os.O_RDWR) and what != os.devnull:
                assert what.startswith((str(folder), str(temp))), f"written: {what}"
            assert os.path.abspath(what).startswith(allowed + system), f"read: {what} ({mode})"
    assert not [path for path in temp.rglob("*") if path.is_file()]


def test_half_an_hour_of_speech(ball_scene, ball, fake_engine, temp, tmp_path):
    """54,000 frames at 30 fps: written in bulk, within bounds that no per-frame Python could keep."""
    fake_engine()
    ball_scene.render.fps = 30
    ball_scene.lsf.strip_name = ""
    ball_scene.lsf.audio_path = str(write_wav(tmp_path / "long.wav", np.zeros(100)))
    work = job.Job(bpy.context, "unused")
    work._parts[0].speech.frames = 30 * 60 * 30
    until(work, lambda: work.state != "RUNNING", within=60)
    assert work.state == "DONE", work.error
    take = keys.take_settings(keys.active_take(ball))
    assert take["frames"] == 54000
    assert keyed(ball)["jawOpen"][-1, 0] == 54000


def test_messages_bring_the_buttons_that_mend_them(scene, ball, monkeypatch, tmp_path):
    """As the panel draws them: the reason why Animate is grey, and below it what to press."""
    from test_panel import Notes

    from blender_addon import operators, panel

    scene.lsf.audio_path = str(SPEECH)
    monkeypatch.setenv("LSF_ENGINE_PYTHON", "/no/such/python")
    monkeypatch.setattr(engine, "_engine", None)
    reason = operators.disabled_reason(bpy.context)
    assert "'/no/such/python'" in reason
    notes = Notes()
    panel.draw_message(notes, reason, "INFO")
    assert notes.of("operator") == ["lsf.show_preferences"]
    monkeypatch.delenv("LSF_ENGINE_PYTHON")
    with pytest.raises(engine.Problem, match="No engine is set up") as caught:
        engine.find_python("", tmp_path, tmp_path)
    notes = Notes()
    panel.draw_message(notes, str(caught.value), "ERROR")
    assert notes.of("operator") == ["lsf.setup_engine", "lsf.show_preferences"]
    bpy.ops.object.mode_set(mode="EDIT")
    notes = Notes()
    panel.draw_message(notes, operators.disabled_reason(bpy.context), "INFO")
    assert notes.of("operator") == ["object.mode_set"]
    bpy.ops.object.mode_set(mode="OBJECT")
