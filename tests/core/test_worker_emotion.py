"""The engine's animate command: the emotion of another stretch of sound, and named ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile as sf
from tiny_model import tiny_checkpoint

from lsf_core import animator, protocol, worker
from lsf_core.audio import load_audio
from lsf_core.rawtake import RawTake
from lsf_core.versions import SHIPPED


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """animate(**fields) -> the last event; the network is a tiny one."""
    load, checkpoint = animator.load_model, tiny_checkpoint(tmp_path)
    monkeypatch.setattr(animator, "load_model", lambda path=None, device="auto": load(checkpoint, "cpu"))
    speech = load_audio(SHIPPED.parent / "demo" / "speech.ogg")
    sf.write(tmp_path / "line.wav", speech[:24000], 16000)
    # What the strip plays of the other file begins after 1 s of silence.
    sf.write(tmp_path / "other.wav", np.concatenate([np.zeros(16000), speech[24000:56000]]), 16000)
    events: list[dict] = []

    class Output:
        def write(self, line: bytes) -> None:
            events.append(json.loads(line))

    made = worker.Worker(Output(), "cpu")

    def animate(**fields) -> dict:
        made.answer(protocol.Request(1, "animate", {
            "folder": str(tmp_path), "audio": str(tmp_path / "line.wav"), "offset": 0.0, "duration": 1.5, "fps": 30.0,
            "frames": 45, "seed": 0, "temperature": 0.0, "edits": True, "emotion_strength": 1.0, **fields}))
        return events[-1]

    return animate


def felt(event: dict, folder) -> np.ndarray:
    assert event["event"] == protocol.RESULT, event
    return RawTake.load(folder / "raw.npz").emotional


def test_a_job_may_feel_as_another_strip_does_or_as_it_is_told(engine, tmp_path):
    other = {"audio": str(tmp_path / "other.wav"), "audio_name": "She", "offset": 1.0, "duration": 2.0}
    plain = felt(engine(), tmp_path)
    assert np.array_equal(felt(engine(emotion_from=None, emotion_mix=None), tmp_path), plain)
    reference = felt(engine(emotion_from=other), tmp_path)
    named = felt(engine(emotion_mix={"sad": 1.0}), tmp_path)
    assert np.abs(reference - plain).max() > 1e-3
    assert np.abs(named - plain).max() > 1e-3
    both = felt(engine(emotion_from=other, emotion_mix={"sad": 0.5}), tmp_path)
    assert min(np.abs(both - x).max() for x in (reference, named)) > 1e-3


def test_a_silent_part_of_the_other_strip_and_an_unknown_emotion_are_the_users_to_mend(engine, tmp_path):
    quiet = engine(emotion_from={"audio": str(tmp_path / "other.wav"), "audio_name": "She", "duration": 0.9})
    assert (quiet["kind"], "emotion reference 'She' is silent" in quiet["message"]) == (protocol.USER, True)
    unknown = engine(emotion_mix={"joy": 1.0})
    assert (unknown["kind"], "'joy'" in unknown["message"]) == (protocol.USER, True)
