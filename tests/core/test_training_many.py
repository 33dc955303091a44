"""Training in two processes on the CPU, through the real launchers: what one process would do, and one end for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_data import LAYERS, write_data, write_encoder
from training_process import CUT_AT, LOG_EVERY, SAVE_EVERY, STEPS, fit

from lsf_core.checkpoint import load_checkpoint
from lsf_core.errors import LSFError, ModelError
from lsf_core.training import processes
from lsf_core.training.processes import ALONE, Processes

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("training_process.py")
TORCHRUN = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
LIMIT_S = 300       # of a run that hangs


def launch(launcher: list[str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `command` in two processes."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", *launcher, *map(str, command)], cwd=ROOT, env=variables, text=True,
                          capture_output=True, timeout=LIMIT_S, check=False)


@pytest.fixture(scope="module", params=[TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def found(request, tmp_path_factory) -> list[dict]:
    """What `training_process.several` found in both processes."""
    folder = tmp_path_factory.mktemp("several")
    done = launch(request.param, SCRIPT, folder, "several")
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"several-{rank}.json").read_text("utf-8")) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    return fit(ALONE, tmp_path_factory.mktemp("alone") / "resume.pt")


def test_two_processes_learn_what_one_learns_from_the_same_batch(found, alone):
    for one in found:
        assert one["whole"]["weights"] == pytest.approx(alone["weights"], rel=1e-4, abs=1e-5)
        assert len(one["whole"]["curve"]) == STEPS // LOG_EVERY
        for row, expected in zip(one["whole"]["curve"], alone["curve"], strict=True):
            assert row == pytest.approx(expected, rel=1e-3, abs=2e-4)
    assert alone["curve"][-1][0] < 0.5 * alone["curve"][0][0], "it learns"


def test_both_processes_end_with_the_same_weights_and_buffers(found):
    for run in ("whole", "resumed", "by the clock"):
        assert found[0][run]["weights"] == found[1][run]["weights"]
        assert found[0][run]["seen"] == found[1][run]["seen"]


def test_a_run_that_was_cut_goes_on_from_the_main_process_file(found):
    for rank, one in enumerate(found):
        assert one["resumed"]["lines"][0].endswith(f"at step {CUT_AT // SAVE_EVERY * SAVE_EVERY}")
        assert one["resumed"]["made"] == STEPS - SAVE_EVERY
        assert one["resumed"]["weights"] == one["whole"]["weights"]
        assert one["files"] == (["cut.pt", "whole.pt"] if rank == 0 else []), "the main process alone saves"


def test_the_main_clock_ends_the_run_for_all(found):
    """The second process's clock runs three times as fast; by its own it would have left the other waiting."""
    assert found[0]["by the clock"]["made"] == found[1]["by the clock"]["made"] > 5


def test_takes_made_in_shares_are_gathered_in_order(found):
    assert found[0]["gathered"] == found[1]["gathered"] == list(range(131))


def test_a_process_that_fails_ends_the_run_and_is_named(tmp_path):
    """Here the second one's weights change under its hands, which it notices itself."""
    done = launch(TORCHRUN, SCRIPT, tmp_path, "drift")
    assert done.returncode != 0
    assert "LSFError: Process 1 of 2 has drifted from the main one at step 6" in done.stderr
    assert not list(tmp_path.glob("*.json"))


def test_a_checkpoint_is_trained_by_two_processes(tmp_path):
    """Both stages on the real command line; given again, it goes on from the resume points."""
    data, encoder = write_data(tmp_path / "data"), write_encoder(tmp_path / "encoder")
    command = ["-m", "lsf_core", "train", "--tiny", "--device", "cpu", "--data", data, "--encoder", encoder, *LAYERS,
               "--out", tmp_path, "--work", tmp_path]
    done = launch(TORCHRUN, *command)
    assert done.returncode == 0, done.stderr
    header, *rows = map(json.loads, (tmp_path / "log.jsonl").read_text("utf-8").splitlines())
    assert header["processes"] == 2
    assert [row.get("step") for row in rows] == [2, 4, 2, 4, None], "the main process alone logs"
    checkpoint = load_checkpoint(tmp_path / "lsf-animation.safetensors", torch.device("cpu"))
    trained = torch.load(tmp_path / "lsf.pt", weights_only=True)
    assert trained["done"] == 4
    head = checkpoint.network.head.weight
    assert torch.allclose(head, trained["modules"]["head.weight"], atol=1e-3), "saved in half precision"

    again = launch(TORCHRUN, *command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("at step 4") == 2, "one line for each stage"


def test_a_batch_that_cannot_be_shared_is_refused():
    assert Processes(1, 4).batch(128) == 32
    with pytest.raises(LSFError, match=r"--batch 128 cannot be shared evenly by 3 processes. Give a multiple of 3"):
        Processes(1, 3).batch(128)


def test_each_process_of_a_host_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(processes, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Processes(3, 4, 1, 2).device("cuda") == torch.device("cuda:1")
    assert Processes().device("cuda:1") == torch.device("cuda:1")
    assert Processes(1, 2, 1, 2).device("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match=r"3 processes on a host with 2 GPU\(s\)"):
        Processes(0, 3, 0, 3).device("cuda")
    for shared in ("cuda:1", "mps"):
        with pytest.raises(ModelError, match=f"cannot share the device '{shared}'"):
            Processes(0, 2, 0, 2).device(shared)
