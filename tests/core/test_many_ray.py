"""animate-many on a Ray cluster of two nodes on this machine, of which an actor is killed, and then a whole node."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from many_lines import files, manifest, sound, weights
from tiny_model import tiny_checkpoint

from lsf_core import cli
from lsf_core.errors import LSFError
from lsf_core.many import cluster, plan
from lsf_core.many.journal import STATE

LINES = 72
STORE = 80 * 2**20  # bytes; Ray's least is 75 MiB


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes, each with room for one network."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE,
                                                         "include_dashboard": False})
    try:
        made.add_node(num_cpus=1, object_store_memory=STORE)
        yield made
    finally:
        made.shutdown()


def actors(out: Path) -> set[int]:
    """The process numbers of actors that have a journal: NAME.HOST-PID-CHANCE.journal."""
    return {int(path.stem.split("-")[-2]) for path in (out / STATE).glob("*.journal")}


def once(there: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Do something in a thread as soon as something else is the case."""

    def wait() -> None:
        while not there():
            time.sleep(0.005)
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("machines", "device", "cores", "shared"), [
    ([(8, 0), (4, 0), (1, 0)], "auto", None, (6, 2, "cpu")),
    ([(1, 0), (1, 0)], "auto", None, (2, 1, "cpu")),
    ([(16, 0), (2, 0)], "cpu", 4, (4, 4, "cpu")),
    ([(64, 8), (16, 1), (128, 0)], "auto", None, (9, 8, "cuda")),
    ([(64, 8), (2, 1)], "cuda", 4, (8, 4, "cuda")),
    ([(64, 8)], "cpu", None, (32, 2, "cpu")),
    ([(2, 0), (2, 0)], "auto", 3, "3 cores"),
    ([(0, 2)], "auto", None, "1 cores"),
    ([(8, 0)], "cuda", None, "graphics card"),
])  # fmt: skip
def test_machines_are_shared_among_as_many_networks_as_have_room(machines, device, cores, shared):
    if isinstance(shared, str):
        with pytest.raises(LSFError, match=shared):
            cluster.share(machines, device, cores)
    else:
        assert cluster.share(machines, device, cores) == shared


def test_an_actor_and_a_node_die_and_nothing_is_lost_or_repeated(tmp_path, capsys, monkeypatch, two_nodes):
    import pyarrow.parquet as pq

    monkeypatch.setattr(plan, "GROUP_LINES", 2)
    monkeypatch.setattr(cluster, "_PARCEL_SECONDS", (0.0, 4.0))
    model, out = Path(tiny_checkpoint(tmp_path)).name, tmp_path / "o"
    for i in range(3):
        sound(tmp_path / f"{i}.wav", 1.0 + i)
    lines = [f"{i % 3}.wav,deep/take{i},{i}" for i in range(LINES - 2)]
    (tmp_path / "table").mkdir()
    lines += ["gone.wav,gone,0", "0.wav,odd,one"]
    table = manifest(tmp_path / "table" / "m.csv", *lines, header="audio,output,seed")
    command = ["animate-many", table, "--out", str(out), "--model", model, "--temperature", "1", "--ray",
               two_nodes.address, "--cores", "1", "--results", "parquet"]
    seen: list[dict[str, tuple[int, int]]] = []
    killed: list[int] = []

    def kill_an_actor() -> None:
        killed.append(max(actors(out)))
        os.kill(killed[0], signal.SIGKILL)
        seen.append(files(out))

    def remove_a_node() -> None:
        two_nodes.remove_node(next(iter(two_nodes.worker_nodes)), allow_graceful=False)
        seen.append(files(out))

    monkeypatch.chdir(tmp_path)  # which sounds and checkpoint are relative to; actors have another folder
    first = once(lambda: len(files(out)) >= 4, kill_an_actor)
    second = once(lambda: bool(seen) and len(files(out)) >= len(seen[0]) + 8, remove_a_node)
    assert cli.main(command) == 1
    first.join(1)
    second.join(1)
    assert killed
    assert [len(some) < LINES - 2 for some in seen] == [True, True], "both died before the end"
    after = files(out)
    assert len(after) == LINES - 2
    for before in seen:
        assert before.items() <= after.items(), "a finished take was made again, or is gone"
    assert sorted(os.listdir(out)) == ["deep", "results.parquet"]

    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert [row["line"] for row in rows] == list(range(2, LINES + 2))
    assert [row["status"] for row in rows] == ["done"] * (LINES - 2) + ["failed"] * 2
    assert "gone.wav" in rows[-2]["message"]
    assert "'one' is not a whole number" in rows[-1]["message"]
    assert [row["frames"] for row in rows[:3]] == [30, 60, 90]
    told = capsys.readouterr()
    assert f"{LINES - 2} made, 0 were there, 2 failed" in told.out
    assert f"{LINES}/{LINES}" in told.err, "a progress bar"

    monkeypatch.setattr(plan, "GROUP_LINES", LINES)
    here = [str(tmp_path / "here") if option == str(out) else option for option in command[:command.index("--ray")]]
    assert cli.main(here) == 1
    for name in after:  # raw takes are rounded to 6e-5, and other batches may round otherwise
        assert weights(out / name) == pytest.approx(weights(tmp_path / "here" / name), abs=2e-4)


def test_what_stops_an_actor_from_starting_is_told_in_one_line(tmp_path, capsys, two_nodes):
    sound(tmp_path / "a.wav", 0.5)
    table = manifest(tmp_path / "m.csv", "a.wav,a")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no network")
    command = ["animate-many", table, "--out", str(tmp_path / "o"), "--model", str(broken), "--cores", "1"]
    assert cli.main([*command, "--ray", two_nodes.address]) == 2
    text = capsys.readouterr().err.strip().splitlines()[-1]
    assert text.startswith("error: ")
    assert "broken.safetensors" in text


def test_no_cluster_is_told_at_once(tmp_path, capsys):
    sound(tmp_path / "a.wav", 0.5)
    table = manifest(tmp_path / "m.csv", "a.wav,a")
    command = ["animate-many", table, "--out", str(tmp_path / "o"), "--model", tiny_checkpoint(tmp_path)]
    assert cli.main([*command, "--ray", "127.0.0.1:1"]) == 2
    assert "No Ray cluster answers at '127.0.0.1:1'" in capsys.readouterr().err
