"""What Blender's side uses of lsf_core: protocol, shape names, edits, keys that exist; all need numpy alone.

The package is loaded by path under a private name of this add-on: sys.path and the name `lsf_core` stay untouched. In a
checkout it lies beside this folder; in the installed extension it lies in `engine/` inside it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsf_core import arkit, arrayfile, edits, errors, motion, protocol, rawtake, sparse
    from lsf_core.face.keys import names as key_names
    from lsf_core.face.keys import solve as key_solve

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


def _load_core() -> ModuleType:
    """lsf_core as `<this package>._core`; its modules are imported below that name, and only those asked for."""
    name, folder = f"{__package__}._core", ROOT / "lsf_core"
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py",
                                                  submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None:
        raise ImportError(f"'{folder}' cannot be loaded.")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return package


def _without_init(name: str, folder: Path) -> None:
    """Make the package known by its place alone: what its __init__ imports (scipy) Blender's Python has not."""
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


ROOT = find_root()
if not TYPE_CHECKING:
    _core = _load_core()
    arkit, arrayfile, edits, errors, motion, protocol, rawtake, sparse = (
        importlib.import_module(f"{_core.__name__}.{name}")
        for name in ("arkit", "arrayfile", "edits", "errors", "motion", "protocol", "rawtake", "sparse"))
    _without_init(f"{_core.__name__}.face", ROOT / "lsf_core" / "face")
    key_names, key_solve = (importlib.import_module(f"{_core.__name__}.face.keys.{name}")
                            for name in ("names", "solve"))

__all__ = ["ROOT", "arkit", "arrayfile", "edits", "errors", "find_root", "key_names", "key_solve", "motion", "protocol",
           "rawtake", "sparse"]
