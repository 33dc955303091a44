"""The two files that Blender and the engine share, loaded by path: sys.path and the name `lsf_core` stay untouched.

In a checkout lsf_core lies beside this folder; in the installed extension it lies in `engine/` inside it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsf_core import arkit, protocol

HERE = Path(__file__).resolve().parent


def find_root(here: Path = HERE) -> Path:
    """The folder that holds `lsf_core` and `assets`.

    Raises FileNotFoundError if neither layout is there: the extension was unpacked in part.
    """
    for root in (here / "engine", here.parent):
        if (root / "lsf_core" / "protocol.py").is_file():
            return root
    raise FileNotFoundError(f"lsf_core is neither in '{here / 'engine'}' nor in '{here.parent}'. "
                            "Install the add-on again.")


def _load(name: str) -> ModuleType:
    path = ROOT / "lsf_core" / f"{name}.py"
    full_name = f"{__package__}._shared_{name}"
    spec = importlib.util.spec_from_file_location(full_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"'{path}' cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module  # dataclasses look their own module up here
    spec.loader.exec_module(module)
    return module


ROOT = find_root()
if not TYPE_CHECKING:
    protocol = _load("protocol")
    arkit = _load("arkit")

__all__ = ["ROOT", "arkit", "find_root", "protocol"]
