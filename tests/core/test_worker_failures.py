"""What the engine makes of a graphics card that is full, and of other failures that are not the artist's."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lsf_core import animator, protocol, request, worker
from lsf_core.failures import explain, out_of_gpu_memory

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3.81 GiB of which 0 is free."


class Output:
    def __init__(self) -> None:
        self.events: list[dict] = []

    def write(self, line: bytes) -> None:
        self.events.append(json.loads(line))


def animate(engine: worker.Worker, folder) -> None:
    sound = folder / "sound.npy"
    engine.answer(protocol.Request(1, "animate", {
        "folder": str(folder), "audio": str(sound), "offset": 0.0, "duration": 1.0, "fps": 25.0, "frames": 25,
        "seed": 0, "temperature": 0.0, "emotion_strength": 1.0, "edits": True}))


@pytest.fixture
def full_card(monkeypatch):
    """A machine whose graphics card has no memory left, or (`cpu` set) a processor without it either."""
    loaded: list[str] = []
    state = SimpleNamespace(loaded=loaded, cpu_too=False)
    real = animator.load_model

    def load(path=None, device="auto"):
        loaded.append(device)
        if device == "cpu" and not state.cpu_too:
            return real(device="cpu")

        def raw_take(*_, **__):
            raise torch.OutOfMemoryError(FULL)

        return SimpleNamespace(raw_take=raw_take)

    monkeypatch.setattr(animator, "load_model", load)
    hum = 0.3 * np.sin(np.arange(16000) * 0.07).astype(np.float32)
    monkeypatch.setattr(request, "load_audio", lambda *_, **__: hum)
    return state


def test_a_full_card_hands_over_to_the_cpu_and_says_so(full_card, tmp_path):
    output = Output()
    engine = worker.Worker(output)
    animate(engine, tmp_path)
    assert output.events[-1]["event"] == "result", output.events[-1]
    data = output.events[-1]["data"]
    assert data["warnings"] == [worker.CPU_INSTEAD]
    assert (data["usage"]["device"], data["usage"]["loaded"]) == ("cpu", True)
    assert np.load(tmp_path / "weights.npy").shape == (25, 52)
    animate(engine, tmp_path)
    assert output.events[-1]["data"]["warnings"] == [], "said once"
    assert full_card.loaded == ["auto", "cpu"], "and the card is not filled again"


def test_where_the_cpu_fails_too_the_cure_is_told(full_card, tmp_path):
    full_card.cpu_too = True
    output = Output()
    animate(worker.Worker(output), tmp_path)
    error = output.events[-1]
    assert (error["kind"], error["cure"]) == (protocol.USER, protocol.DEVICE)
    assert "too little free memory" in error["message"]


@pytest.mark.parametrize(("error", "kind", "cure", "words"), [
    (torch.OutOfMemoryError(FULL), protocol.USER, protocol.DEVICE, "set the engine's device to CPU"),
    (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), protocol.USER, protocol.DEVICE, "graphics card"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), protocol.USER, "", "shorter strip"),
    (MemoryError(), protocol.USER, "", "shorter strip"),
    (ModuleNotFoundError("No module named 'torch'"), protocol.USER, protocol.ENGINE, "No module named 'torch'"),
    (ZeroDivisionError("division by zero"), protocol.BUG, "", "please report it"),
])
def test_each_failure_is_told_with_its_cure(error, kind, cure, words):
    failure = explain(error)
    assert (failure.kind, failure.cure) == (kind, cure)
    assert words in failure.message


def test_other_errors_are_not_taken_for_a_full_card():
    assert not out_of_gpu_memory(RuntimeError("shape mismatch"))
    assert not out_of_gpu_memory(ValueError("out of memory"))
