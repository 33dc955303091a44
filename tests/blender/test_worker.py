"""The engine process itself, over its pipes: answers, refusals, cleanliness of stdout, its end."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SPEECH, write_wav
from test_engine import gone, last_event

from blender_addon import engine
from blender_addon.shared import protocol


@pytest.fixture
def ask(real_engine):
    """`ask(method, **params)`: the event that ends the request."""

    def answer(method: str, **params: Any) -> protocol.Event:
        return last_event(real_engine, real_engine.ask(method, **params), within=90)

    return answer


def test_hello_tells_versions_and_device(ask):
    data = ask("hello").data
    assert data["protocol"] == protocol.PROTOCOL_VERSION
    assert data["engine"] == "0.1.0"
    assert data["device"]
    assert data["torch"].split(".")[0].isdigit()


def listen(ask, path: Path, **more: Any) -> protocol.Event:
    return ask("listen", **{"audio": str(path), "offset": 0.0, "duration": None, **more})


def test_listen_measures_the_stretch(ask):
    assert listen(ask, SPEECH, offset=1.0, duration=2.5).data["seconds"] == pytest.approx(2.5)
    assert listen(ask, SPEECH, offset=-1.0, duration=3.0).data["seconds"] == pytest.approx(3.0)
    whole = listen(ask, SPEECH).data["seconds"]
    assert listen(ask, SPEECH, offset=1.0).data["seconds"] == pytest.approx(whole - 1, abs=1e-3)


def test_a_stretch_beyond_the_sound_is_told(ask):
    error = listen(ask, SPEECH, offset=1000.0, duration=1.0)
    assert error.kind == protocol.USER
    assert "beyond the end" in error.message


def test_hours_of_sound_are_refused_before_they_are_read(ask):
    error = listen(ask, SPEECH, duration=5000.0)
    assert error.kind == protocol.USER
    assert "5000 s long" in error.message


def mesh_files(folder: Path, vertices: Any, faces: Any) -> dict[str, str]:
    np.save(folder / "v.npy", vertices)
    np.save(folder / "f.npy", faces)
    return {"folder": str(folder), "vertices": "v.npy", "faces": "f.npy"}


TRIANGLE = [[0, 0, 0], [1, 0, 0], [0, 1, 0.0]]


@pytest.mark.parametrize(("vertices", "faces", "message"), [
    (TRIANGLE, [[0, 1, 7]], "name vertices it does not have"),
    (TRIANGLE, [[0, 1, -1]], "name vertices it does not have"),
    ([[0, 0, np.nan]] * 3, [[0, 1, 2]], "not numbers"),
    ([1.0, 2.0], [[0, 1, 2]], "not (V, 3) and (T, 3)"),
])
def test_meshes_are_checked_again_on_this_side(ask, tmp_path, vertices, faces, message):
    error = ask("rig", **mesh_files(tmp_path, vertices, faces))
    assert error.kind == protocol.USER
    assert message in error.message


def test_pickles_are_not_opened(ask, tmp_path):
    files = mesh_files(tmp_path, TRIANGLE, [[0, 1, 2]])
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], object), allow_pickle=True)
    error = ask("rig", **files)
    assert error.kind == protocol.BUG
    assert "pickle" in error.message


def test_files_outside_the_jobs_folder_are_not_opened(ask, tmp_path):
    files = mesh_files(tmp_path, TRIANGLE, [[0, 1, 2]])
    inner = tmp_path / "inner"
    inner.mkdir()
    assert "plain file name" in ask("rig", **{**files, "folder": str(inner), "vertices": "../v.npy"}).message


def test_a_defect_is_an_error_with_its_trace_and_the_engine_lives_on(ask):
    error = ask("rig", folder="/tmp")
    assert (error.event, error.kind) == (protocol.ERROR, protocol.BUG)
    assert "KeyError" in error.trace
    assert ask("hello").event == protocol.RESULT


def test_the_second_rig_of_a_mesh_comes_from_memory_until_unload(ask, head, tmp_path):
    from blender_addon import mesh_io

    mesh = mesh_io.read(head)
    files = mesh_files(tmp_path, mesh.vertices, mesh.triangles)
    made = ask("rig", **files)
    assert made.event == protocol.RESULT, made.message
    first = np.load(tmp_path / "deltas.npy")
    again = ask("rig", **files)
    assert again.data["cached"]
    np.testing.assert_array_equal(np.load(tmp_path / "deltas.npy"), first)
    ask("unload")
    assert not ask("rig", **files).data["cached"]


def raw_process(*lines: dict[str, Any]) -> subprocess.Popen:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(engine.worker_command(engine.find_python()), env=engine.worker_environment(), **pipes)
    assert process.stdin
    for line in lines:
        process.stdin.write(json.dumps(line).encode() + b"\n")
    process.stdin.flush()
    return process


def test_quit_ends_the_process_with_nothing_but_the_protocol_on_stdout(tmp_path):
    hum = write_wav(tmp_path / "hum.wav", 0.3 * np.sin(np.arange(32000) * 0.07))
    process = raw_process({"id": 1, "method": "hello"},
                          {"id": 2, "method": "animate", "params": {
                              "folder": str(tmp_path), "audio": str(hum), "offset": 0.0, "duration": 1.0, "fps": 25.0,
                              "frames": 25, "seed": 0, "temperature": 0.0, "emotion_strength": 1.0, "edits": True}},
                          {"id": 3, "method": "quit"})
    assert process.stdout
    events = [protocol.decode_event(line) for line in process.stdout]  # to its end: stdin stays open meanwhile
    process.communicate(timeout=10)
    ends = [(event.id, event.event) for event in events if event.event != protocol.PROGRESS]
    assert ends == [(1, protocol.RESULT), (2, protocol.RESULT), (3, protocol.RESULT)]
    assert process.returncode == 0
    assert np.load(tmp_path / "weights.npy").shape == (25, 52)


def test_lines_that_are_not_requests_are_answered_and_survived():
    process = raw_process({"nonsense": True}, {"id": 2, "method": "hello"})
    assert process.stdout
    assert protocol.decode_event(process.stdout.readline()).kind == protocol.BUG
    assert protocol.decode_event(process.stdout.readline()).id == 2
    process.kill()
    process.communicate()


def test_it_ends_at_once_when_its_stdin_closes():
    process = raw_process({"id": 1, "method": "hello"})
    assert process.stdout
    process.stdout.readline()
    start = time.monotonic()
    assert process.stdin
    process.stdin.close()
    assert gone(process.pid)
    process.wait(5)
    assert time.monotonic() - start < 3
    process.stdout.close()
    assert process.stderr
    process.stderr.close()


def test_a_strip_at_another_speed_is_heard_at_that_speed(ask, tmp_path):
    """A file of 2 s that takes 1 s on the timeline: half a second of the strip is a whole second of the file."""
    sound = np.zeros(32000)
    sound[16000:] = 0.3 * np.sin(np.arange(16000) * 0.07)  # silent, then not
    path = write_wav(tmp_path / "late.wav", sound)
    assert "silent" in listen(ask, path, duration=0.45, content_seconds=1.0).message
    assert listen(ask, path, offset=0.5, duration=0.5, content_seconds=1.0).data["seconds"] == pytest.approx(1.0)
    heard = ask("animate", folder=str(tmp_path), audio=str(path), offset=0.0, duration=1.0, content_seconds=1.0,
                fps=25.0, frames=None, seed=0, temperature=0.0, emotion_strength=1.0, edits=False)
    assert heard.data["fps"] == 25.0
    assert np.load(tmp_path / "weights.npy").shape[0] == 25
