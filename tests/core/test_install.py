"""install.py: one pin list, environments that mend themselves, clear errors, the extension zip."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import install  # noqa: E402
from tools import addon_zip, environment  # noqa: E402
from tools.environment import Environment, InstallError  # noqa: E402


# ---------------------------------------------------------------- pins
def test_every_pin_is_exact_and_named_once() -> None:
    pins = environment.read_pins()
    named = [re.split(r"==", pin)[0] for group in pins.values() for pin in group]
    twice = {name for name in named if named.count(name) > 1}
    assert twice == {"bpy", "numpy"}  # four Blenders under test; numpy by the Python's version
    for group in pins.values():
        for pin in group:
            assert re.fullmatch(r'[\w-]+==[\w.]+(; python_version (<|>=) "3\.\d+")?', pin), pin


def test_pins_stand_in_one_file_only() -> None:
    names = "|".join({pin.split("==")[0] for group in environment.read_pins().values() for pin in group})
    for path in [ROOT / "install.py", ROOT / "pyproject.toml", ROOT / ".ci" / "run", *(ROOT / "tools").glob("*.py"),
                 *(ROOT / "blender_addon").rglob("*.py"), *(ROOT / "lsf_core").rglob("*.py")]:  # fmt: skip
        found = re.findall(rf"\b(?:{names})\s*==\s*\d[\d.]*", path.read_text(encoding="utf-8"))
        assert not found, f"{path} pins {found}; requirements.txt is the place"


def test_environments_name_groups_that_exist_and_only_one_has_torch() -> None:
    pins = environment.read_pins()
    main = environment.pins_for(environment.MAIN, pins)
    assert main[0].startswith("torch==")  # first and alone, see requirements.txt
    blenders = [pin for pin in main if pin.startswith("bpy==")]
    for version, other in environment.OTHER_BLENDERS.items():
        found = environment.pins_for(other, pins)
        assert not any(pin.startswith("torch") for pin in found)
        blenders += [pin for pin in found if pin.startswith(f"bpy=={version}.")]
    assert len(set(blenders)) == 1 + len(environment.OTHER_BLENDERS)


def test_a_loose_pin_is_refused_by_line(tmp_path: Path) -> None:
    loose = tmp_path / "requirements.txt"
    loose.write_text("# group: engine\nscipy==1.0\nnumpy>=1\n")
    with pytest.raises(InstallError, match=r"line 3: 'numpy>=1'"):
        environment.read_pins(loose)


# ---------------------------------------------------------------- finding Python, making environments
def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_no_fitting_python_tells_what_was_seen_and_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = script(tmp_path / "python9", "echo 3 9")
    broken = script(tmp_path / "broken", "exit 1")
    candidates = [str(broken), str(other), str(tmp_path / "absent")]
    monkeypatch.setattr(environment, "python_candidates", lambda needed: candidates)
    with pytest.raises(InstallError) as caught:
        environment.find_python()
    assert f"{other} is 3.9" in str(caught.value)
    assert "apt-get install python3.11" in str(caught.value)


def test_a_blender_whose_python_is_not_there_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ensure", lambda which: which.python)
    monkeypatch.setattr(environment, "python_candidates", lambda needed: [])
    made, left_out = install.other_blenders()
    assert set(made) == {"4.2", "5.0"}
    assert len(left_out) == 1
    assert "Blender 5.2 is not tested here: No Python 3.13 found" in left_out[0]


def test_pip_is_tried_twice_and_then_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "RETRY_AFTER_S", 0.0)
    calls = tmp_path / "calls"
    once = script(tmp_path / "fails_once", f'echo x >> "{calls}"; [ "$(wc -l < "{calls}")" -ge 2 ]')
    environment.pip_install(once, ["some==1"])
    assert calls.read_text().count("x") == 2
    calls.unlink()
    always = script(tmp_path / "fails", f'echo x >> "{calls}"; exit 1')
    with pytest.raises(InstallError, match=r"could not install some==1"):
        environment.pip_install(always, ["some==1"])
    assert calls.read_text().count("x") == 2


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment of no packages in a folder of its own, so that making it is quick."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "read_pins", lambda: {"none": []})
    return Environment(".venv-tiny", ("none",))


def test_an_environment_is_made_once_and_a_half_made_one_again(
    tiny: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    python = environment.ensure(tiny)
    assert environment.version_of(str(python)) == environment.NEEDED
    witness = tiny.folder / "witness"
    witness.touch()
    capsys.readouterr()
    environment.ensure(tiny)
    assert witness.exists()  # untouched the second time
    assert capsys.readouterr().out == ""

    (tiny.folder / environment.STAMP_NAME).unlink()
    python.unlink()  # what an interrupted run leaves: a folder without a working Python
    environment.ensure(tiny)
    assert not witness.exists()
    assert "half-made" in capsys.readouterr().out


def test_changed_pins_are_installed_over_a_finished_environment(
    tiny: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.ensure(tiny)
    installed: list[list[str]] = []
    monkeypatch.setattr(environment, "read_pins", lambda: {"none": ["pip==0.0.1"]})
    monkeypatch.setattr(environment, "pip_install", lambda python, packages: installed.append(packages))
    environment.ensure(tiny)
    assert installed == [["pip==0.0.1"]]
    environment.ensure(tiny)
    assert len(installed) == 1


def test_a_failed_change_of_pins_leaves_no_stamp(tiny: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.ensure(tiny)
    monkeypatch.setattr(environment, "read_pins", lambda: {"none": ["pip==0.0.1"]})

    def fail(python: Path, packages: list[str]) -> None:
        raise InstallError("no network")

    monkeypatch.setattr(environment, "pip_install", fail)
    with pytest.raises(InstallError):
        environment.ensure(tiny)
    assert environment.read_stamp(tiny) is None


# ---------------------------------------------------------------- the test command
def test_all_stages_run_and_one_failure_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sample = tmp_path / "test_sample.py"
    sample.write_text("def test_a(): pass\ndef test_b(): assert False\n")

    def stages(main: Path, others: dict[str, Path], reports: Path) -> list[install.Stage]:
        report = reports / "sample.xml"
        pytest_command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", str(sample)]
        return [
            install.Stage("breaks", [sys.executable, "-c", "raise SystemExit(3)"]),
            install.Stage("sample", pytest_command, report=report),
        ]

    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "ensure", lambda which: Path(sys.executable))
    monkeypatch.setattr(install, "other_blenders", lambda: ({}, []))
    monkeypatch.setattr(install, "test_stages", stages)
    assert install.main(["test"]) == 1
    out = capfd.readouterr().out
    assert re.search(r"breaks .* exit 3\n", out)
    assert out.rstrip().endswith("1 passed, 1 failed, 0 skipped")


def test_a_run_that_dies_before_its_report_counts_as_failed(tmp_path: Path) -> None:
    stage = install.Stage("gone", ["true"], report=tmp_path / "never.xml")
    assert stage.counts()["failed"] == 1


# ---------------------------------------------------------------- the extension zip
@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return addon_zip.build(tmp_path_factory.mktemp("dist"))


def test_the_zip_holds_addon_engine_weights_and_pins(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        pins = archive.read("engine/requirements.txt").decode()
    assert {"blender_manifest.toml", "__init__.py", "LICENSE", "engine/lsf_core/worker.py"} <= names
    assert not any(name.startswith("engine/assets/demo/") for name in names), "the demo is no part of the add-on"
    for asset in (ROOT / "assets").glob("*"):
        assert asset.is_dir() or f"engine/assets/{asset.relative_to(ROOT / 'assets').as_posix()}" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or name.startswith("tests")]
    assert re.search(r"^torch==", pins, re.MULTILINE)
    assert "bpy" not in pins


def test_the_same_files_give_the_same_zip(built: Path, tmp_path: Path) -> None:
    assert addon_zip.build(tmp_path).read_bytes() == built.read_bytes()


def test_a_checkout_without_weights_is_refused(tmp_path: Path) -> None:
    for file in ("blender_addon/blender_manifest.toml", "blender_addon/__init__.py", "lsf_core/__init__.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(InstallError, match=r"no \.safetensors checkpoint"):
        addon_zip.build(tmp_path / "dist", root=tmp_path)


def test_blenders_own_tool_accepts_the_zip(built: Path) -> None:
    tool = addon_zip.validator(Path(sys.prefix))
    assert tool is not None, "these tests run in .venv, which has the bpy module"
    judged = subprocess.run([sys.executable, str(tool), "validate", str(built)], capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_blender_installs_the_zip_and_the_addon_finds_its_engine(built: Path, tmp_path: Path) -> None:
    # As a user's Blender does it, in a user folder of its own and far from this checkout.
    code = f"""
import atexit, sys
import bpy
bpy.ops.extensions.package_install_files(filepath={str(built)!r}, repo='user_default', enable_on_install=True)
import addon_utils
name = 'bl_ext.user_default.lsf_animation'
atexit.register(addon_utils.disable, name)  # Blender 4.5's module does not exit with classes registered
exec({install.point_to_engine(Path("/some where/python"))!r})
preferences = bpy.context.preferences.addons[name].preferences
shared = sys.modules[name + '.shared']
print('ENGINE', preferences.engine_python, shared.ROOT.name, (shared.ROOT / 'lsf_core/worker.py').is_file())
print('PANEL', bpy.context.scene.lsf.strip_name == '', hasattr(bpy.types, 'LSF_PT_view3d'))
"""
    variables = {**environment.clean_variables(), "BLENDER_USER_RESOURCES": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=120
    )
    assert "ENGINE /some where/python engine True" in done.stdout, done.stdout + done.stderr
    assert "PANEL True True" in done.stdout


def test_the_engine_in_the_zip_starts_alone(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "lsf_core", "--help"],
        capture_output=True, text=True, cwd=tmp_path / "engine", env=environment.clean_variables(), timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "animate" in done.stdout


def test_a_missing_blender_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(install, "build", lambda folder: ROOT / "README.md")
    monkeypatch.setattr(install, "validator", lambda folder: None)
    assert install.main(["addon", "--blender", "/no/such/blender"]) == 2
    assert "/no/such/blender: no such program" in capsys.readouterr().err
