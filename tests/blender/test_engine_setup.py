"""*Set up engine*, offline: the packages are empty wheels made here, the engine that is started is the fake one."""

from __future__ import annotations

import json
import sys
import sysconfig
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest
from conftest import FAKE_WORKER, ROOT, error_of

from blender_addon import engine_setup, preferences
from blender_addon.engine import find_python
from blender_addon.engine_setup import CPU_INDEX, CUDA_INDEX, Setup, Step
from blender_addon.report import Problem
from blender_addon.shared import protocol

PINS = "# group: torch\ntorchlike==1.0\n\n# group: arrays\narrayslike==2.0\n# group: engine\n"


def wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A root with a list of two packages, which pip finds in a folder."""
    root = tmp_path / "root"
    (root / "wheels").mkdir(parents=True)
    (root / "requirements.txt").write_text(PINS)
    wheel(root / "wheels", "torchlike", "1.0")
    wheel(root / "wheels", "arrayslike", "2.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(root / "wheels"))
    return root


def planner(root: Path, last: tuple[str, ...] | None = None, real_venv: bool = False):
    """The real plan; but the environment borrows this one's pip, which saves 3 s, unless `real_venv`; and the engine's
    first start is played by the fake worker unless `last` is given."""

    def steps(folder: Path) -> list[Step]:
        planned = engine_setup.plan(folder, root)
        if not real_venv:
            make = (sys.executable, "-c", BORROW_PIP, str(folder), sysconfig.get_path("purelib"))
            planned[0] = Step(planned[0].text, make, planned[0].share)
        fake = last or (str(engine_setup.python_in(folder)), "-c", SAY_HELLO)
        return [*planned[:-1], Step("Starting the engine", fake, 0.05, planned[-1].stdin)]

    return steps


BORROW_PIP = ("import sys, venv; from pathlib import Path; venv.create(sys.argv[1], symlinks=True)\n"
              "[site] = Path(sys.argv[1]).rglob('site-packages'); (site / 'pip.pth').write_text(sys.argv[2])")


SAY_HELLO = ("import sys, json; json.loads(sys.stdin.readline()); import torchlike, arrayslike\n"
             f"print(json.dumps(dict(id=1, event='result', data=dict(protocol={protocol.PROTOCOL_VERSION}))))")


def test_an_environment_is_made_and_proven(offline, tmp_path):
    work = Setup(tmp_path / "user", planner(offline, real_venv=True))
    seen = [work.fraction]
    while not work.poll():
        seen.append(work.fraction)
        time.sleep(0.02)
    assert work.state == "DONE", "\n".join(work.log)
    assert seen == sorted(seen)
    assert work.fraction == pytest.approx(1.0)
    assert engine_setup.python_in(tmp_path / "user" / "engine").is_file()
    assert not engine_setup.outdated(tmp_path / "user")
    assert "Successfully installed torchlike-1.0" in (tmp_path / "user" / engine_setup.LOG).read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LSF_ENGINE_PYTHON", raising=False)
        assert find_python("", tmp_path / "user", tmp_path) == str(engine_setup.python_in(tmp_path / "user" / "engine"))


@pytest.mark.parametrize("way", ["fails", "cancelled", "no hello"])
def test_the_old_engine_comes_back_if_it_does_not_succeed(offline, tmp_path, way):
    old = tmp_path / "user" / "engine" / "old"
    old.parent.mkdir(parents=True)
    old.touch()
    last = (sys.executable, "-c", "print('not the engine')") if way == "no hello" else None
    if way == "fails":
        (offline / "wheels" / "arrayslike-2.0-py3-none-any.whl").unlink()
    work = Setup(tmp_path / "user", planner(offline, last))
    if way == "cancelled":
        work.cancel()
    work.wait()
    assert work.state == ("CANCELLED" if way == "cancelled" else "FAILED")
    if way == "fails":
        assert "Installing the other packages failed (exit code 1)" in work.error
        assert "arrayslike" in "\n".join(work.log)
    if way == "no hello":
        assert "Starting the engine failed (exit code 0): not the engine" in work.error
    assert old.exists()
    assert not (tmp_path / "user" / "engine.old").exists()


def test_a_set_up_can_be_tried_again(offline, tmp_path):
    missing = offline / "wheels" / "torchlike-1.0-py3-none-any.whl"
    content = missing.read_bytes()
    missing.unlink()
    first = Setup(tmp_path / "user", planner(offline))
    first.wait()
    assert "Installing PyTorch failed" in first.error
    missing.write_bytes(content)
    second = Setup(tmp_path / "user", planner(offline))
    second.wait()
    assert second.state == "DONE", second.error


def test_a_folder_of_wheels_needs_no_network(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    steps = engine_setup.plan(tmp_path / "user" / "engine", offline, wheels=str(offline / "wheels"))
    work = Setup(tmp_path / "user", lambda folder: [planner(offline)(folder)[0], *steps[1:-1]])
    work.wait()
    assert work.state == "DONE", work.error
    with pytest.raises(Problem, match="folder of wheels is not there: '/no/wheels'"):
        engine_setup.plan(tmp_path / "engine", offline, wheels="/no/wheels")


def test_without_a_network_the_cure_is_told(offline, tmp_path, monkeypatch):
    for name, value in (("PIP_INDEX_URL", "http://127.0.0.1:9/simple"), ("PIP_RETRIES", "1"), ("PIP_FIND_LINKS", "")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    work = Setup(tmp_path / "user", planner(offline))
    work.wait()
    assert "the network cannot be reached. Check the connection" in work.error
    assert "wheels" in work.error
    assert not engine_setup.python_in(tmp_path / "user" / "engine").exists()


def test_a_full_disk_is_told_before_anything_is_done_and_where_it_happens(offline, tmp_path, monkeypatch):
    full = (sys.executable, "-c", "raise SystemExit('OSError: [Errno 28] No space left on device: x')")
    work = Setup(tmp_path / "user", lambda folder: [Step("Installing PyTorch", full, 1.0)])
    work.wait()
    assert "the disk is full" in work.error
    monkeypatch.setattr(engine_setup.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**30))
    with pytest.raises(Problem, match=r"has 1\.0 GB free, the engine takes (3|10) GB"):
        Setup(tmp_path / "user", planner(offline))
    assert not (tmp_path / "user" / "engine").exists()


def test_a_folder_that_cannot_be_written_is_named(offline, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/lsf")):
        with pytest.raises(Problem, match=f"folder cannot be written: '{folder}'"):
            Setup(folder, planner(offline))


def test_two_blenders_do_not_set_up_one_engine_at_once(offline, tmp_path):
    user = tmp_path / "user"
    (place_python(user / "engine").parent / "good").touch()
    first = Setup(user, planner(offline))
    with pytest.raises(Problem, match="Another Blender is setting the engine up"):
        Setup(user, planner(offline))
    first.cancel()
    first.wait()
    assert (user / "engine" / "bin" / "good").exists()
    second = Setup(user, planner(offline))
    second.wait()
    assert second.state == "DONE", second.error


def test_removing_the_engine_leaves_nothing(offline, tmp_path):
    user = tmp_path / "user"
    place_python(user / "engine").write_bytes(b"x" * 1000)
    (user / engine_setup.LOG).touch()
    assert engine_setup.outdated(user), "made by a version that noted no pins"
    assert engine_setup.remove(user) >= 1000
    assert not list(user.iterdir())
    assert engine_setup.remove(user) == 0


def place_python(folder: Path) -> Path:
    python = engine_setup.python_in(folder)
    python.parent.mkdir(parents=True)
    python.touch()
    return python


@pytest.mark.parametrize("way", ["fails", "succeeds"])
def test_after_a_set_up_that_was_cut_off_the_old_engine_is_the_good_one(offline, tmp_path, monkeypatch, way):
    monkeypatch.delenv("LSF_ENGINE_PYTHON", raising=False)
    user = tmp_path / "user"
    good = place_python(user / "engine.old")
    (good.parent / "good").touch()
    half = place_python(user / "engine")
    assert find_python("", user, tmp_path) == str(good)
    if way == "fails":
        (offline / "wheels" / "torchlike-1.0-py3-none-any.whl").unlink()
    work = Setup(user, planner(offline))
    assert (good.parent / "good").exists()
    assert find_python("", user, tmp_path) == str(good), "never the one that is being made"
    work.wait()
    assert work.state == ("FAILED" if way == "fails" else "DONE"), work.error
    assert find_python("", user, tmp_path) == str(half)
    assert (half.parent / "good").exists() == (way == "fails")
    assert {path.name for path in user.iterdir()} == {"engine", engine_setup.LOG}


def test_a_first_set_up_that_was_cut_off_is_not_used(offline, tmp_path, monkeypatch):
    monkeypatch.delenv("LSF_ENGINE_PYTHON", raising=False)
    user = tmp_path / "user"
    first = Setup(user, planner(offline))
    while not engine_setup.python_in(user / "engine").is_file():
        time.sleep(0.01)
    first._process.kill()
    first._process.wait()
    first._lock.close()  # Blender is gone: nobody polls any more, and the system has opened its locks
    with pytest.raises(Problem, match="The last set-up was not finished"):
        find_python("", user, tmp_path)
    second = Setup(user, planner(offline))
    second.wait()
    assert second.state == "DONE", second.error
    assert find_python("", user, tmp_path) == str(engine_setup.python_in(user / "engine"))


def test_while_one_is_set_up_no_engine_of_the_folder_is_started(offline, tmp_path, monkeypatch, addon):
    monkeypatch.delenv("LSF_ENGINE_PYTHON", raising=False)
    monkeypatch.setattr(preferences, "user_folder", lambda: tmp_path / "user")
    monkeypatch.setattr(preferences.engine.find_python, "__defaults__", ("", None, tmp_path))
    python = place_python(tmp_path / "user" / "engine")
    assert preferences.engine_python(bpy.context) == str(python)
    work = Setup(tmp_path / "user", planner(offline))
    monkeypatch.setattr(engine_setup, "current", work)
    with pytest.raises(Problem, match="is being set up"):
        preferences.engine_python(bpy.context)
    work.cancel()
    work.wait()
    assert preferences.engine_python(bpy.context) == str(python)


@pytest.mark.parametrize(("system", "nvidia", "environment", "options"), [
    ("Linux", False, {}, ["--extra-index-url", CPU_INDEX]),
    ("Linux", True, {}, []),
    ("Darwin", False, {}, []),
    ("Windows", False, {}, []),
    ("Windows", True, {}, ["--extra-index-url", CUDA_INDEX]),
    ("Linux", False, {"PIP_INDEX_URL": "https://mirror"}, []),
])
def test_the_torch_of_the_machine(system, nvidia, environment, options):
    assert engine_setup.torch_index(system, nvidia, environment) == options


def test_the_lists_that_ship_are_understood(tmp_path):
    pins = engine_setup.requirements(ROOT)
    assert pins["torch"][0].startswith("torch==")
    assert any(pin.startswith("transformers==") for pin in pins["engine"])
    assert not any(pin.startswith("bpy") for group in ("torch", "arrays", "engine") for pin in pins[group])
    with pytest.raises(Problem, match="list of packages is missing"):
        engine_setup.requirements(tmp_path)
    (tmp_path / "requirements.txt").write_text("# group: torch\ntorch==1\n")
    with pytest.raises(Problem, match=r"lacks the groups \['arrays', 'engine'\]"):
        engine_setup.requirements(tmp_path)


def test_the_last_step_starts_the_engine_isolated(tmp_path):
    steps = engine_setup.plan(tmp_path / "engine", ROOT)
    assert steps[-1].command[0] == str(engine_setup.python_in(tmp_path / "engine"))
    assert "-I" in steps[-1].command
    assert [json.loads(line)["method"] for line in steps[-1].stdin.splitlines()] == ["hello", "quit"]
    assert sum(step.share for step in steps) == pytest.approx(1.0)


def test_the_real_engine_passes_the_proof(tmp_path, addon):
    """The last step alone, with the engine's Python of these tests."""
    from blender_addon import engine

    def steps(folder: Path) -> list[Step]:
        folder.mkdir()
        proof = engine_setup.plan(folder, ROOT)[-1]
        return [Step(proof.text, tuple(engine.worker_command(engine.find_python())), 1.0, proof.stdin)]

    work = Setup(tmp_path, steps)
    work.wait()
    assert work.state == "DONE", work.error
    assert FAKE_WORKER.exists()


def test_it_is_grey_with_a_reason_in_a_checkout_and_offline(addon, monkeypatch, tmp_path):
    assert "in a checkout use" in preferences.setup_refusal()
    assert "Only the installed extension" in error_of(bpy.ops.lsf.setup_engine)
    monkeypatch.setattr(preferences, "user_folder", lambda: tmp_path)
    monkeypatch.setattr(preferences.bpy, "app", type("App", (), {"online_access": False}))
    assert "allow Online Access" in preferences.setup_refusal()
    monkeypatch.setattr(preferences, "wheel_folder", lambda context: str(tmp_path))
    assert preferences.setup_refusal() is None, "a folder of wheels needs no network"
