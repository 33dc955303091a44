"""The house's one wall: Blender's side knows no torch, the core knows no bpy. Read in every file, and tried."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from blender_addon import engine

ADDON = sorted((ROOT / "blender_addon").rglob("*.py"))
CORE = sorted((ROOT / "lsf_core").rglob("*.py"))
HEAVY = {"torch", "transformers", "librosa", "soundfile", "soxr", "scipy", "safetensors", "lsf_core", "numba", "av"}
BLENDER = {"bpy", "bmesh", "mathutils", "aud", "gpu", "bpy_extras", "blender_addon"}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports by absolute name, anywhere in it but under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = [branch for branch in ast.walk(tree) if isinstance(branch, ast.If)
               and ast.unparse(branch.test) == "TYPE_CHECKING"]
    hidden = {id(node) for branch in guarded for part in branch.body for node in ast.walk(part)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "import_module") and node.args:
            first = node.args[0]
            names |= {first.value.split(".")[0]} if isinstance(first, ast.Constant) else set()
    return names


def test_there_is_something_to_check():
    assert len(ADDON) > 10
    assert len(CORE) > 10
    assert "bpy" in imported(ROOT / "blender_addon" / "job.py")
    assert "torch" in imported(ROOT / "lsf_core" / "worker.py")


@pytest.mark.parametrize("path", ADDON, ids=lambda p: p.name)
def test_the_addon_imports_nothing_of_the_core_or_its_libraries(path):
    assert not imported(path) & HEAVY


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_imports_nothing_of_blender(path):
    assert not imported(path) & BLENDER


@pytest.mark.parametrize("path", ADDON, ids=lambda p: p.name)
def test_the_addon_finds_its_own_files_by_relative_import(path):
    """As an extension it is called bl_ext.something.lsf_animation, not blender_addon."""
    assert "blender_addon" not in imported(path)


@pytest.mark.parametrize("name", ["protocol", "arkit"])
def test_what_both_share_needs_the_standard_library_alone(name):
    assert imported(ROOT / "lsf_core" / f"{name}.py") <= set(sys.stdlib_module_names)


def run(python: str, code: str) -> None:
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_addon_registers_where_torch_cannot_be_imported():
    run(sys.executable, f"import sys\nfor n in {sorted(HEAVY)}: sys.modules[n] = None\n"
                        "import bpy, blender_addon; before = list(sys.path)\n"
                        "blender_addon.register(); assert bpy.context.scene.lsf is not None\n"
                        "assert sys.path == before; blender_addon.unregister()")


def test_the_edits_of_the_core_run_on_numpy_alone():
    """They are loaded into Blender's Python, under a name of the add-on's."""
    run(sys.executable, f"import sys\nfor n in {sorted(HEAVY)}: sys.modules[n] = None\n"
                        "import numpy as np; from blender_addon.shared import edits, rawtake, sparse\n"
                        "take = rawtake.RawTake.of(np.full((50, 52), .1), np.full((50, 52), .2), np.zeros(16000))\n"
                        "motion = take.finish(edits.EditSettings(emotion=1.5, smoothing=1), fps=30)\n"
                        "sparse.sparse_keys(motion.weights, sparse.exact_keys(motion), sparse.face_probes())")


def test_the_core_imports_where_blender_cannot_be_imported():
    """Every module of it but command-line entries, in the engine's Python."""
    run(engine.find_python(), f"import sys, pkgutil, importlib\nfor n in {sorted(BLENDER)}: sys.modules[n] = None\n"
        "import lsf_core\n"
        "for m in pkgutil.walk_packages(lsf_core.__path__, 'lsf_core.'):\n"
        "    if m.name.endswith('__main__'): continue\n"
        "    importlib.import_module(m.name)\n")


def test_the_worker_starts_without_torch():
    """Blender waits for the first answer: torch comes with it, but nothing heavy comes before, and no numba ever."""
    run(engine.find_python(), "import sys, lsf_core.worker\n"
                              "assert not {'torch', 'transformers', 'librosa', 'numba', 'scipy'} & set(sys.modules)")
