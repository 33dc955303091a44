"""The engine's streams: of a file, of a microphone, of chunks that are sent; cancel, errors, one at a time."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
from tiny_model import tiny_checkpoint

from lsf_core import animator, protocol, worker
from lsf_core.audio import load_audio
from lsf_core.versions import SHIPPED

SPEECH = load_audio(SHIPPED.parent / "demo" / "speech.ogg")[:32_000]


class Engine:
    """A worker without a process. `ask` answers with the last event; `events` has all."""

    def __init__(self, folder) -> None:
        self.events: list[dict] = []
        self.folder, self.worker, self.number = folder, worker.Worker(self, "cpu"), 0

    def write(self, line: bytes) -> None:
        self.events.append(json.loads(line))

    def ask(self, method: str, **params) -> dict:
        self.number += 1
        self.worker.answer(protocol.Request(self.number, method, {"folder": str(self.folder), **params}))
        return self.events[-1]

    def start(self, **params) -> dict:
        return self.ask("stream_start", **{"fps": 25.0, "look_ahead": 0.16, "seed": 0, "edits": True,
                                           "emotion_strength": 1.0, **params})

    def done(self, method: str, **params) -> tuple[dict, np.ndarray]:
        """The data of an answer, and its frames."""
        event = self.ask(method, **params)
        assert event["event"] == protocol.RESULT, event
        data = event["data"]
        if data["weights"] is None:
            return data, np.zeros((0, 52))
        return data, np.load(self.folder / data["weights"])


@pytest.fixture
def engine(tmp_path, monkeypatch):
    load, checkpoint = animator.load_model, tiny_checkpoint(tmp_path)
    monkeypatch.setattr(animator, "load_model", lambda path=None, device="auto": load(checkpoint, "cpu"))
    return Engine(tmp_path)


@pytest.fixture
def line(tmp_path):
    sf.write(tmp_path / "line.wav", SPEECH, 16000)
    return {"audio": str(tmp_path / "line.wav"), "audio_name": "The line", "offset": 0.0, "duration": 2.0}


def test_a_file_is_heard_as_far_as_is_asked_for(engine, line):
    data = engine.start(**line)["data"]
    assert (data["seconds"], data["look_ahead"], data["microphone"]) == (2.0, 0.16, None)
    parts, ended = [], False
    while not ended:
        data, frames = engine.done("stream_chunk", seconds=0.3)
        assert data["first"] == sum(map(len, parts))
        assert len(frames) == data["frames"]
        assert len(frames) + data["first"] >= (data["heard"] - 0.16 - 0.02) * 25
        parts.append(frames)
        ended = data["ended"]
    whole = np.concatenate(parts)
    assert whole.shape == (50, 52)
    assert whole.dtype == np.float32
    assert engine.done("stream_chunk", seconds=0.3)[0]["frames"] == 0, "there is no more"
    assert engine.done("stream_end")[0]["frames"] == 0
    engine.start(**line)
    np.testing.assert_array_equal(engine.done("stream_chunk", seconds=2.0)[1], whole)


def test_a_strip_that_plays_faster_has_fewer_frames(engine, line):
    assert engine.start(**{**line, "duration": 1.0, "content_seconds": 1.0})["data"]["seconds"] == pytest.approx(1.0)
    assert engine.done("stream_chunk", seconds=2.0)[0]["frames"] == 25


def test_chunks_that_are_sent(engine, tmp_path, line):
    engine.start()
    parts = []
    for start in range(0, len(SPEECH), 4000):
        np.save(tmp_path / "samples.npy", SPEECH[start : start + 4000])
        data, frames = engine.done("stream_chunk", samples="samples.npy")
        assert data["level"] < 0
        parts.append(frames)
    last, frames = engine.done("stream_end")
    assert last["ended"]
    sent = np.concatenate([*parts, frames])
    engine.start(**line)
    # The file is 16-bit: the same sound but for a rounding.
    np.testing.assert_allclose(sent, engine.done("stream_chunk", seconds=2.0)[1], atol=0.02)


def test_what_comes_without_a_stream_or_of_the_wrong_kind_is_an_error(engine, tmp_path, line):
    for method in ("stream_chunk", "stream_end"):
        event = engine.ask(method)
        assert (event["kind"], "No live preview is open" in event["message"]) == (protocol.USER, True)
    engine.start(**line)
    np.save(tmp_path / "samples.npy", SPEECH[:100])
    assert "takes no samples" in engine.ask("stream_chunk", samples="samples.npy")["message"]
    assert "No live preview" in engine.ask("stream_chunk", seconds=0.1)["message"], "and the stream is over"
    engine.start(**line)
    assert "from 0 to 30 s" in engine.ask("stream_chunk", seconds=31.0)["message"]
    engine.start()
    assert "neither a file nor a microphone" in engine.ask("stream_chunk")["message"]
    engine.start()
    np.save(tmp_path / "samples.npy", np.array([np.nan], np.float32))
    assert "NaN" in engine.ask("stream_chunk", samples="samples.npy")["message"]
    assert "look-ahead is 9.0" in engine.start(look_ahead=9.0)["message"]
    assert "does not exist" in engine.start(audio="/nowhere.wav", offset=0.0, duration=1.0)["message"]


def test_other_jobs_may_come_between_and_unload_ends_it(engine, line):
    engine.start(**line)
    first, _ = engine.done("stream_chunk", seconds=1.0)
    job = engine.ask("animate", **line, fps=25.0, frames=50, seed=0, temperature=0.0, edits=True, emotion_strength=1.0)
    assert job["event"] == protocol.RESULT
    then, _ = engine.done("stream_chunk", seconds=1.0)
    assert then["first"] == first["frames"]
    engine.start(**line)
    engine.ask("unload")
    assert "No live preview" in engine.ask("stream_chunk", seconds=0.1)["message"]


def test_a_cancel_ends_a_long_chunk(engine, line):
    engine.start(**line)
    engine.number += 1
    job = engine.number
    sent = engine.write

    def cancel_midway(text: bytes) -> None:
        sent(text)
        engine.worker.receive(protocol.encode(protocol.Request(0, "cancel", {"job": job})))

    engine.worker._output = SimpleNamespace(write=cancel_midway)
    engine.worker.answer(protocol.Request(job, "stream_chunk", {"folder": str(engine.folder), "seconds": 2.0}))
    assert engine.events[-1]["kind"] == protocol.CANCELLED


# ---------------------------------------------------------------- microphone
class FakeDevices(ModuleType):
    """sounddevice with one microphone that says SPEECH, or with none."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *names: str, rates: tuple[float, ...] = (16000.0,)) -> None:
        super().__init__("sounddevice")
        self.names, self.rates, self.open = names, rates, []

    def query_devices(self, device, kind):
        found = [name for name in self.names if (device or "") in name]
        if not found:
            raise ValueError(f"No {kind} device matching {device!r}" if device else "Error querying device -1")
        return {"name": found[0], "default_samplerate": self.rates[0]}

    def check_input_settings(self, device, channels, dtype, samplerate):
        if samplerate not in self.rates:
            raise self.PortAudioError("Invalid sample rate [PaErrorCode -9997]")

    def InputStream(self, callback, samplerate, blocksize, **_):
        made = SimpleNamespace(active=False, rate=samplerate, close=lambda: setattr(made, "active", False),
                               say=lambda samples: callback(samples[:, None], len(samples), None, None))
        made.start = lambda: setattr(made, "active", True)
        self.open.append(made)
        return made


def test_a_microphone_is_heard_as_it_records(engine, monkeypatch):
    devices = FakeDevices("Studio Mic")
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    assert engine.start(microphone="")["data"]["microphone"] == "Studio Mic"
    assert engine.done("stream_chunk")[0]["frames"] == 0
    total = 0
    for start in range(0, 16_000, 320):
        devices.open[0].say(SPEECH[start : start + 320])
    data, frames = engine.done("stream_chunk")
    total += len(frames)
    assert data["heard"] == pytest.approx(1.0)
    assert data["level"] > -60
    assert total >= (1.0 - 0.16 - 0.02) * 25
    assert not data["ended"]
    engine.done("stream_end")
    assert not devices.open[0].active, "it is let go"


def test_a_microphone_of_another_rate_is_resampled(engine, monkeypatch):
    devices = FakeDevices("Mic", rates=(48000.0,))
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    engine.start(microphone="Mic")
    for _ in range(50):
        devices.open[0].say(np.repeat(SPEECH[:320], 3))
    assert engine.done("stream_chunk")[0]["heard"] == pytest.approx(1.0, abs=0.02)


def test_what_is_wrong_with_a_microphone_is_told_with_its_cure(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    event = engine.start(microphone="")
    assert (event["kind"], "pip install sounddevice" in event["message"]) == (protocol.USER, True)
    devices = FakeDevices()
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    assert "Connect a microphone" in engine.start(microphone="")["message"]
    assert "'Studio'" in engine.start(microphone="Studio")["message"]
    devices.names = ("Mic",)
    engine.start(microphone="")
    devices.open[0].active = False
    assert "'Mic' stopped" in engine.ask("stream_chunk")["message"]


def test_a_microphone_that_nobody_reads_forgets_the_oldest(engine, monkeypatch):
    from lsf_core.microphone import MAX_SECONDS

    devices = FakeDevices("Mic")
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    engine.start(microphone="")
    for _ in range(round(2 * MAX_SECONDS / 0.02)):
        devices.open[0].say(np.zeros(320, np.float32))
    assert engine.done("stream_chunk")[0]["heard"] == pytest.approx(MAX_SECONDS)


def test_a_stream_that_cannot_start_lets_go_of_the_microphone(engine, monkeypatch):
    devices = FakeDevices("Mic")
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    assert engine.start(microphone="", look_ahead=9.0)["event"] == protocol.ERROR
    assert not devices.open[0].active
