"""Windows put together again, and recorded graphs, tried on the processor with a recording that is none."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_model import tiny_checkpoint

import lsf_core
from lsf_core.animator import GRAPH_BATCHES, SHORT_AGAIN
from lsf_core.audio import load_audio
from lsf_core.graphs import Graphs, _Recording
from lsf_core.versions import SHIPPED
from lsf_core.windows import OVERLAP, WINDOW, OverlapAdd, batches, cut_windows, window_fades, window_starts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return lsf_core.load_model(tiny_checkpoint(tmp_path_factory.mktemp("model")), "cpu")


@pytest.fixture(scope="module")
def speech():
    return np.tile(load_audio(SHIPPED.parent / "demo" / "speech.ogg"), 5)


@pytest.fixture
def recorded(monkeypatch):
    """Shapes that were recorded, by a recording that runs the function anew at each replay."""
    shapes: list[tuple] = []

    def record(self, inputs):
        static = tuple(x.clone() for x in inputs)
        output = self._run(*static).clone()
        shapes.append(tuple(inputs[0].shape))
        return _Recording(SimpleNamespace(replay=lambda: output.copy_(self._run(*static))), static, output)

    monkeypatch.setattr(Graphs, "_record", record)
    return shapes


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("frames", [1, 54, 399, 400, 401, 455, 500, 700, 701, 1234, 5000])
def test_shares_of_a_frame_add_up_to_one_and_fade_in_and_out(frames):
    fades, starts = window_fades(frames), window_starts(frames)
    total = np.zeros(frames)
    for fade, start in zip(fades, starts, strict=True):
        total[start:start + len(fade)] += fade
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    for fade in fades[1:]:
        assert (np.diff(fade[:OVERLAP // 2]) > 0).all()


def test_a_clip_comes_back_whole_from_its_windows_in_any_batches():
    lengths = [1234, 87, 400, 950, 87]
    truth = [noise(frames, 2, 52) + i for i, frames in enumerate(lengths)]
    sums = OverlapAdd(lengths, CPU)
    for batch in batches(cut_windows(lengths), 3):
        assert len({p.length for p in batch}) == 1
        sums.add(batch, torch.stack([truth[p.clip][p.start:p.start + p.length] for p in batch]))
    for i, whole in enumerate(truth):
        np.testing.assert_allclose(sums.clip(i).transpose(0, 1), whole, atol=1e-5)


def test_windows_of_one_turn_never_overlap_so_that_sums_have_one_order():
    for frames in (455, 700, 801, 1234, 90_001):
        pieces = cut_windows([frames])
        for turn in (0, 1, 2):
            starts = sorted(p.start for p in pieces if p.turn == turn)
            assert all(b - a >= WINDOW for a, b in itertools.pairwise(starts))


def test_recorded_windows_give_the_same_take_and_are_filled_up_to_few_batch_sizes(model, speech, recorded, monkeypatch):
    clip = speech[: 16000 * 30]
    count = len(window_starts(30 * 50))
    assert count not in GRAPH_BATCHES
    plain = model.raw_take(clip, 16000)
    monkeypatch.setattr(model, "graphs", Graphs(model._window))
    for _ in range(3):
        taken = model.raw_take(clip, 16000)
        np.testing.assert_allclose(taken.neutral, plain.neutral, atol=1e-4)
        np.testing.assert_allclose(taken.emotional, plain.emotional, atol=1e-4)
    assert recorded == [(next(n for n in GRAPH_BATCHES if n >= count), WINDOW * 320)]


def test_a_short_length_is_recorded_only_when_it_comes_often(model, speech, recorded, monkeypatch):
    monkeypatch.setattr(model, "graphs", Graphs(model._window))
    takes = []
    for _ in range(SHORT_AGAIN):
        takes.append(model.raw_take(speech[: 16000 * 3], 16000).emotional)
    assert recorded == []
    takes += [model.raw_take(speech[: 16000 * 3], 16000).emotional for _ in range(2)]
    assert recorded == [(1, 150 * 320)]
    for again in takes[1:]:
        np.testing.assert_allclose(again, takes[0], atol=1e-4)


def test_recordings_are_as_many_as_allowed_and_the_oldest_goes(recorded):
    graphs = Graphs(lambda x: 2 * x, most=2)
    for length in (1, 1, 2, 2, 1, 3, 3, 1, 2, 1):
        assert graphs(torch.ones(length)).tolist() == [2.0] * length
    assert recorded == [(1,), (2,), (3,)], "one that went has to come twice again"
    graphs(torch.ones(2))
    assert recorded[3:] == [(2,)]


def test_where_nothing_can_be_recorded_all_runs_as_it_comes(monkeypatch, caplog):
    tries = []

    def refuse(self, inputs):
        tries.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Graphs, "_record", refuse)
    graphs = Graphs(lambda x: x + 1)
    assert [graphs(torch.zeros(1)).item() for _ in range(4)] == [1.0] * 4
    assert tries == [1]
    assert "slower" in caplog.text


def test_a_card_without_room_for_a_recording_is_told(monkeypatch):
    def full(self, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Graphs, "_record", full)
    with pytest.raises(torch.OutOfMemoryError):
        Graphs(lambda x: x)(torch.zeros(1), after=0)
