"""The client keeps its promises whatever the engine does: it ends it, says why, and never blocks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import bpy
import pytest
from conftest import FAKE_WORKER, ROOT

from blender_addon import engine
from blender_addon.engine import Engine, Limits
from blender_addon.report import Problem
from blender_addon.shared import protocol

QUICK = Limits(start=0.5, silence=0.5, cancel=0.3, terminate=0.3)


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether a process has ended (a zombie that nobody waited for counts as ended)."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def last_event(process: Engine, request: int, within: float = 10.0) -> protocol.Event:
    """The result or error of a request."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        for event in process.poll():
            if event.id == request and event.event != protocol.PROGRESS:
                return event
        time.sleep(0.01)
    raise AssertionError("no answer")


def ask(process: Engine, tmp_path: Path) -> int:
    import numpy as np

    np.save(tmp_path / "vertices.npy", np.zeros((4, 3)))
    return process.ask("rig", folder=str(tmp_path), vertices="vertices.npy", faces="faces.npy")


def test_answers_come_and_the_process_ends(fake_engine, tmp_path):
    process = fake_engine()
    assert last_event(process, process.hello).data["engine"] == "fake"
    assert last_event(process, ask(process, tmp_path)).event == protocol.RESULT
    process.close()
    assert gone(process.pid)


def test_one_poll_takes_a_bounded_number_of_events(fake_engine, tmp_path):
    process = fake_engine("chatty")
    request = ask(process, tmp_path)
    end = time.monotonic() + 20
    while process._lines.qsize() < 100 and time.monotonic() < end:
        time.sleep(0.01)
    process.poll(at_most=10)  # the answer to hello among them
    assert len(process.poll(at_most=10)) == 10
    assert last_event(process, request).event == protocol.RESULT


def test_an_engine_that_dies_is_an_error_with_its_last_words(fake_engine, tmp_path):
    process = fake_engine("dies")
    error = last_event(process, ask(process, tmp_path))
    assert error.kind == protocol.BUG
    assert "exit code 3" in error.message
    assert "about to die" in error.message
    assert not process.alive


def test_an_engine_that_is_killed_is_an_error(fake_engine, tmp_path):
    process = fake_engine("slow")
    request = ask(process, tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert "signal 9" in last_event(process, request).message


def test_garbage_is_refused_and_the_process_ended(fake_engine, tmp_path):
    process = fake_engine("garbage")
    error = last_event(process, process.hello)
    assert "not its protocol" in error.message
    assert "Welcome to Python" in error.message
    assert gone(process.pid)


def test_another_protocol_version_is_refused(fake_engine, tmp_path):
    process = fake_engine("old")
    error = last_event(process, ask(process, tmp_path))
    assert "speaks protocol 99" in error.message


def test_an_engine_that_does_not_start_is_ended(fake_engine):
    process = fake_engine("mute", QUICK)
    assert "did not start within" in last_event(process, process.hello).message
    assert gone(process.pid)


def test_an_engine_that_falls_silent_is_ended(fake_engine, tmp_path):
    process = fake_engine("slow", Limits(start=10, silence=0.5))
    assert "no sign of life" in last_event(process, ask(process, tmp_path)).message
    assert gone(process.pid)


def test_cancel_is_answered(fake_engine, tmp_path):
    process = fake_engine("slow")
    request = ask(process, tmp_path)
    time.sleep(0.3)
    process.cancel(request)
    assert last_event(process, request).kind == protocol.CANCELLED
    assert process.alive, "an engine that obeys is kept"


def test_cancel_ends_an_engine_that_ignores_it_and_terminate_too(fake_engine, tmp_path):
    process = fake_engine("stubborn", Limits(start=10, cancel=0.3, terminate=0.3))
    request = ask(process, tmp_path)
    time.sleep(0.3)
    process.cancel(request)
    assert last_event(process, request).kind == protocol.CANCELLED
    assert gone(process.pid)


def test_close_ends_a_stubborn_engine(fake_engine, tmp_path):
    process = fake_engine("stubborn")
    ask(process, tmp_path)
    time.sleep(0.3)
    process.close()
    assert gone(process.pid)


def test_no_python_settings_reach_the_engine(fake_engine, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    process = fake_engine()
    last_event(process, process.hello)
    seen = json.loads((tmp_path / "requests.jsonl").read_text().splitlines()[0])["environment"]
    assert not [name for name in seen if name.startswith("PYTHON")]
    assert "-I" in engine.worker_command("python")


def test_a_python_that_does_not_exist_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LSF_ENGINE_PYTHON", "/no/such/python")
    with pytest.raises(Problem, match=r"'/no/such/python'.*LSF_ENGINE_PYTHON"):
        engine.find_python()
    monkeypatch.delenv("LSF_ENGINE_PYTHON")
    with pytest.raises(Problem, match=r"'/no/pref'.*preference"):
        engine.find_python("/no/pref")
    with pytest.raises(Problem, match="No engine is set up"):
        engine.find_python("", None, tmp_path)
    (tmp_path / "engine" / "bin").mkdir(parents=True)
    (tmp_path / "engine" / "bin" / "python").touch()
    assert engine.find_python("", tmp_path, tmp_path) == str(tmp_path / "engine" / "bin" / "python")


def test_a_program_that_is_not_python_is_an_error(tmp_path):
    script = tmp_path / "python"
    script.write_text("no program")
    with pytest.raises(Problem, match="cannot be started"):
        Engine([str(script)])


@pytest.mark.parametrize("real", [False, True], ids=["fake", "real"])
def test_the_engine_does_not_outlive_a_killed_blender(tmp_path, real):
    """Kill the process that plays Blender with no chance to clean up: the engine sees its stdin close."""
    python = engine.find_python() if real else sys.executable
    command = engine.worker_command(python) if real else [python, str(FAKE_WORKER), "good", str(tmp_path / "log")]
    code = ("import sys, time; sys.path.insert(0, sys.argv[1]); from blender_addon.engine import Engine\n"
            "e = Engine(sys.argv[2:])\n"
            "while not e.versions: e.poll(); time.sleep(.02)\n"
            "print(e.pid, flush=True); time.sleep(60)")
    parent = subprocess.Popen([sys.executable, "-c", code, str(ROOT), *command], stdout=subprocess.PIPE)
    assert parent.stdout
    lines = iter(parent.stdout.readline, b"")  # Blender 5.2 prints a line of its own at import
    pid = int(next(line for line in lines if line.strip().isdigit()))
    assert not gone(pid, within=0.2)
    parent.kill()
    parent.wait()
    assert gone(pid)


def test_unregister_ends_the_engine(fake_engine, addon):
    process = fake_engine()
    addon.unregister()
    try:
        assert gone(process.pid)
        assert engine.running() is None
    finally:
        addon.register()
    assert hasattr(bpy.types.Scene, "lsf")
