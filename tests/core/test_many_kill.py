"""animate-many is killed (kill -9) again and again, at chosen and at random moments; nothing is lost or repeated."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from many_lines import files, manifest, results, sound, weights
from tiny_model import tiny_checkpoint

from lsf_core import cli
from lsf_core.many.journal import STATE

ROOT = Path(__file__).parents[2]
LINES = 40

# Small groups, so that there is much between the first and the last take; and what ends the process at its moment.
PROGRAM = """
import os, signal, sys
from lsf_core.cli import main
from lsf_core.many import finish, journal, maker, plan, rows, run

plan.GROUP_LINES = 4
calls = 0

def at_call(number, function):
    def counted(*arguments):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return counted

def half(raw, row, settings, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half a ta")
    os.kill(os.getpid(), signal.SIGKILL)

moment = sys.argv[1]
if moment == "at once":
    run.forget = at_call(1, run.forget)
if moment == "before the entry":
    journal.Journal.enter = at_call(2, journal.Journal.enter)
if moment == "entered, not in place":
    journal._settle = at_call(7, journal._settle)
if moment == "half a take":
    make = maker.write_take
    maker.write_take = lambda *arguments: (half if arguments[1].line == "20" else make)(*arguments)
if moment == "before the last table":
    run.forget = at_call(2, run.forget)
sys.exit(main(sys.argv[2:]))
"""


def start(moment: str, command: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, moment, *command], env=environment,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def entered(out: Path) -> set[int]:
    """The inodes of takes that lie aside and stand in a journal."""
    entries = [json.loads(line) for path in (out / STATE).glob("*.journal") for line in path.read_text().splitlines()]
    return {path.stat().st_ino for entry in entries if (path := out / STATE / entry["aside"]).exists()}


@pytest.fixture
def command(tmp_path) -> list[str]:
    lengths = [0.4 + 0.1 * (i % 5) for i in range(5)]
    names = [sound(tmp_path / f"{i}.wav", seconds) for i, seconds in enumerate(lengths)]
    lines = [f"{names[i % 5]},deep{i % 3}/take{i},{24 + i % 3}" for i in range(LINES)]
    table = manifest(tmp_path / "m.csv", *lines, header="audio,output,fps")
    return ["animate-many", table, "--out", str(tmp_path / "o"), "--model", tiny_checkpoint(tmp_path),
            "--temperature", "1"]


def test_killed_at_any_moment_it_loses_nothing_and_repeats_nothing(tmp_path, command):
    out = tmp_path / "o"
    seed = random.randrange(1000)
    print("seed", seed)  # pytest shows it where the test fails
    chance = random.Random(seed)
    moments = ["before the entry", "entered, not in place", "at once", "half a take", "random", "random"]
    before: dict[str, tuple[int, int]] = {}
    for moment in moments:
        process = start(moment, command)
        if moment == "random":
            wanted = len(before) + chance.randint(0, 6)
            while process.poll() is None and len(files(out)) < wanted:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.05)
            process.kill()
        assert process.wait(timeout=120) == -signal.SIGKILL
        after = files(out)
        assert before.items() <= after.items(), f"{moment}: a finished take was made again, or is gone"
        before = after
        if moment == "entered, not in place":
            kept = entered(out)
            assert kept
        if moment == "at once":  # by now the takes that lay aside were brought to their places
            assert kept <= {inode for inode, _ in after.values()}
    assert 0 < len(before) < LINES, "the moments lie between the first take and the last"
    assert start("before the last table", command).wait(timeout=120) == -signal.SIGKILL
    before = files(out)
    assert len(before) == LINES
    assert cli.main(command) == 0
    assert files(out) == before
    assert sorted(os.listdir(out)) == ["deep0", "deep1", "deep2", "results.csv"]
    rows = results(out)
    assert [int(row["line"]) for row in rows] == list(range(2, LINES + 2))
    assert {row["status"] for row in rows} == {"done"}
    assert [int(row["frames"]) for row in rows] == [len(weights(out / row["output"])) for row in rows]
    assert all(row["seconds"] and not row["message"] for row in rows)

    whole = [option if option != str(out) else str(tmp_path / "whole") for option in command]
    assert cli.main(whole) == 0
    for name in before:  # raw takes are rounded to 6e-5, and other batches may round otherwise
        assert weights(out / name) == pytest.approx(weights(tmp_path / "whole" / name), abs=2e-4)


def test_killed_while_it_makes_other_takes_it_does_not_pass_the_old_ones_off_as_new(tmp_path, command):
    out = tmp_path / "o"
    assert cli.main(command) == 0
    old = {name: weights(out / name) for name in files(out)}
    changed = [*command, "--seed", "5"]
    for moment in ("before the entry", "entered, not in place"):
        assert start(moment, changed).wait(timeout=120) == -signal.SIGKILL
    half = files(out)
    assert cli.main(changed) == 0
    again = [name for name, made in files(out).items() if made != half[name]]
    assert 0 < len(again) < LINES, "those that were made with the new seed before the end were not made again"
    assert all(weights(out / name).shape == old[name].shape for name in old)
    assert all((weights(out / name) != old[name]).any() for name in old)
