"""Coming and going: registered any number of times, in a restricted context, in both layouts, without a trace."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import bpy
import pytest
import tomllib
from conftest import ROOT

from blender_addon import shared

NAMES = ("animate", "cancel", "export_fbx", "stop_engine", "copy_report", "setup_engine", "unload_engine")


def test_ten_times_in_and_out(addon):
    handlers = {name: len(getattr(bpy.app.handlers, name)) for name in ("load_pre", "load_post", "undo_post")}
    for _ in range(10):
        addon.unregister()
        assert not hasattr(bpy.types.Scene, "lsf")
        assert not hasattr(bpy.types, "LSF_PT_view3d")
        addon.register()
        assert hasattr(bpy.types, "LSF_PT_view3d")
        assert all(hasattr(bpy.types, f"LSF_OT_{name}") for name in NAMES)
    assert handlers == {name: len(getattr(bpy.app.handlers, name)) for name in handlers}


def test_registration_touches_no_data(addon):
    """Blender registers extensions in a context without bpy.data."""
    name = "_bpy_restrict_state" if importlib.util.find_spec("_bpy_restrict_state") else "bpy_restrict_state"
    restricted = importlib.import_module(name).RestrictBlend
    addon.unregister()
    with restricted():
        addon.register()
        addon.unregister()
    addon.register()


def test_a_script_that_never_unregisters_ends(tmp_path):
    """The bpy module hangs at its end over classes that are left registered."""
    code = "import bpy, blender_addon; blender_addon.register(); bpy.context.scene.lsf.seed = 3"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_settings_survive_saving_and_messages_do_not(scene, ball, tmp_path):
    scene.lsf.seed, scene.lsf.strip_name, scene.lsf.error = 5, "speech", "old"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    settings = bpy.context.scene.lsf
    assert (settings.seed, settings.strip_name, settings.target.name) == (5, "speech", "Ball")
    assert settings.error == ""


def installed_layout(folder: Path) -> Path:
    """The add-on as its zip unpacks: under another name, with the core in `engine/`."""
    package = folder / "lsf_animation"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "blender_addon", package, ignore=skip)
    (package / "engine").mkdir()
    shutil.copytree(ROOT / "lsf_core", package / "engine" / "lsf_core", ignore=skip)
    return package


def test_both_layouts_are_found(tmp_path):
    assert shared.find_root() == ROOT
    package = installed_layout(tmp_path)
    assert shared.find_root(package) == package / "engine"
    shutil.rmtree(package / "engine")
    with pytest.raises(FileNotFoundError, match="Install the add-on again"):
        shared.find_root(package)


def test_the_installed_layout_starts_its_own_engine(tmp_path):
    """No checkout in sight: the engine is the one inside the add-on."""
    package = installed_layout(tmp_path)
    from blender_addon import engine

    code = (f"import sys, time; sys.path.insert(0, {str(tmp_path)!r})\n"
            "import bpy, lsf_animation; from lsf_animation import engine, shared\n"
            "lsf_animation.register()\n"
            f"e = engine.start({engine.find_python()!r})\n"
            "while not e.versions: assert e.alive, e.log(); e.poll(); time.sleep(.02)\n"
            "print('root', shared.ROOT)\n"
            "import os; print('command', e.command[-3:])")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"root {package / 'engine'}" in done.stdout
    assert f"command {(str(package / 'engine'), '--device', 'auto')}" in done.stdout


def test_the_manifest_says_what_blender_needs():
    import blender_addon

    manifest = tomllib.loads((ROOT / "blender_addon" / "blender_manifest.toml").read_text())
    assert manifest["blender_version_min"] == "4.2.0"
    assert manifest["type"] == "add-on"
    assert len(manifest["tagline"]) <= 64
    assert not manifest["tagline"].endswith(".")
    assert all(len(text) <= 64 for text in manifest["permissions"].values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert manifest["version"] == project["version"]
    assert blender_addon.__doc__


def test_blenders_own_validation_accepts_the_extension():
    tool = next(Path(bpy.utils.system_resource("SCRIPTS")).rglob("bl_pkg/cli/blender_ext.py"))
    command = [sys.executable, str(tool), "validate", str(ROOT / "blender_addon")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
