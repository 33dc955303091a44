"""The add-on as a Blender extension: one zip with the engine's code and weights inside. Stdlib only.

Layout: the files of blender_addon/ at the root (blender_manifest.toml, __init__.py, ...), engine/lsf_core/,
engine/assets/, and engine/requirements.txt with the pins that the worker's own environment gets. The same inputs
give the same bytes.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .environment import ROOT, InstallError, read_pins

ENGINE_GROUPS = ("torch", "arrays", "engine")
SKIPPED_SUFFIXES = {".pyc", ".pyo", ".blend1", ".tmp", ".part"}
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # no build time in the bytes
STORED = {".safetensors", ".npz", ".ogg", ".png"}  # compressed already: deflating them again only costs time


def manifest_value(manifest: str, key: str) -> str:
    """A top-level string of blender_manifest.toml (Python 3.10 has no TOML reader)."""
    match = re.search(rf'^{key}\s*=\s*"([^"]+)"', manifest, flags=re.MULTILINE)
    if not match:
        raise InstallError(f'blender_addon/blender_manifest.toml has no line {key} = "...".')
    return match.group(1)


def tree(folder: Path) -> Iterator[Path]:
    """Files worth shipping below a folder, sorted."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix not in SKIPPED_SUFFIXES:
            yield path


def engine_requirements() -> str:
    """Text of engine/requirements.txt: torch in a first block of its own, then the rest."""
    pins = read_pins()
    blocks = [f"# group: {group}\n" + "\n".join(pins[group]) + "\n" for group in ENGINE_GROUPS]
    return "# Made from the checkout's requirements.txt; torch is installed first and alone.\n\n" + "\n".join(blocks)


def build(out_dir: Path, root: Path = ROOT) -> Path:
    """Write out_dir/<id>-<version>.zip and return its path. InstallError where a needed file is missing."""
    addon = root / "blender_addon"
    for needed in (addon / "blender_manifest.toml", addon / "__init__.py", root / "lsf_core" / "__init__.py"):
        if not needed.is_file():
            raise InstallError(f"{needed.relative_to(root)} is missing: this is not a whole checkout.")
    if not any((root / "assets").glob("*.safetensors")):
        raise InstallError("assets/ holds no .safetensors checkpoint: fetch the whole repository, weights included.")
    manifest = (addon / "blender_manifest.toml").read_text(encoding="utf-8")
    entries = [(path, path.relative_to(addon).as_posix()) for path in tree(addon)]
    for name in ("lsf_core", "assets"):
        entries += [(path, f"engine/{name}/{path.relative_to(root / name).as_posix()}") for path in tree(root / name)
                    if path.parent != root / "assets" / "demo"]
    entries.append((root / "LICENSE", "LICENSE"))

    out_dir.mkdir(parents=True, exist_ok=True)
    target = out_dir / f"{manifest_value(manifest, 'id')}-{manifest_value(manifest, 'version')}.zip"
    half = target.with_suffix(".zip.part")
    with zipfile.ZipFile(half, "w") as archive:
        for path, name in entries:
            method = zipfile.ZIP_STORED if path.suffix in STORED else zipfile.ZIP_DEFLATED
            add(archive, name, path.read_bytes(), method)
        add(archive, "engine/requirements.txt", engine_requirements().encode(), zipfile.ZIP_DEFLATED)
    half.replace(target)
    return target


def add(archive: zipfile.ZipFile, name: str, content: bytes, method: int) -> None:
    """One file with fixed date and rights."""
    info = zipfile.ZipInfo(name, ZIP_DATE)
    info.compress_type = method
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)


def validator(environment_folder: Path) -> Path | None:
    """Blender's own extension tool inside an environment that has the bpy module."""
    found = sorted(environment_folder.glob("**/site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    return found[0] if found else None
