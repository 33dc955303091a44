"""Rigs that were made before, by the content of their mesh: the last few in memory, more in the user's cache folder.

    store = RigStore()
    made, known = store.rig(vertices, faces)      # known: nothing had to be made

The folder is bounded (DISK_LIMIT), the longest unused go first. Files appear whole or not at all, so that two
engines may share it; one that cannot be read is made again. A disk that is full or read-only costs time, never the job.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from .locate import Progress
from .rig import Rig, read_identity, rig
from .template import DEFAULT_PATH

IN_MEMORY = 4
"""Rigs kept in memory: 52 shapes x V vertices x 12 bytes each, that is 31 MB for 50,000 vertices."""
DISK_LIMIT = 512 << 20
"""Bytes that the folder may hold."""
VARIABLE = "LSF_CACHE"
"""Environment variable that names another folder; empty: nothing is kept on disk."""


def cache_folder() -> Path | None:
    """The user's cache folder of this program, or None where the environment says that there shall be none."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE]) if os.environ[VARIABLE] else None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "lsf-animation" / "rigs"


@lru_cache(maxsize=1)
def _version() -> bytes:
    """Changes with the code and the template that rigs are made by."""
    digest = hashlib.sha256(DEFAULT_PATH.read_bytes())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


class RigStore:
    """The rigs of meshes seen before."""

    def __init__(self, folder: Path | None = None, *, limit: int = DISK_LIMIT) -> None:
        """`folder`: instead of the user's cache folder. `limit`: bytes on disk."""
        self._folder = folder or cache_folder()
        self._limit = limit
        self._memory: OrderedDict[str, Rig] = OrderedDict()

    def rig(self, vertices: np.ndarray, faces: np.ndarray, *, landmarks: Mapping[str, Sequence[float]] | None = None,
            area: np.ndarray | None = None, progress: Progress | None = None) -> tuple[Rig, bool]:
        """The rig of a mesh, see `face.rig`, and whether it was known already."""
        key = self.key(vertices, faces, landmarks, area)
        known = self._find(key)
        if known is not None:
            return known, True
        made = rig(vertices, faces, landmarks=landmarks, area=area, progress=progress)
        self._remember(key, made)
        self._write(key, made)
        return made, False

    def identity(self, vertices: np.ndarray, faces: np.ndarray, *,
                 landmarks: Mapping[str, Sequence[float]] | None = None, area: np.ndarray | None = None,
                 progress: Progress | None = None) -> np.ndarray:
        """The identity (32,) of a mesh: of its rig where there is one, else read, which is quicker than a rig."""
        known = self._find(self.key(vertices, faces, landmarks, area))
        if known is not None:
            return known.identity
        return read_identity(vertices, faces, landmarks=landmarks, area=area, progress=progress)

    def clear(self) -> None:
        """Forget what is in memory."""
        self._memory.clear()

    @staticmethod
    def key(vertices: np.ndarray, faces: np.ndarray, landmarks: Mapping[str, Sequence[float]] | None = None,
            area: np.ndarray | None = None) -> str:
        """Hash of all that a rig depends on."""
        digest = hashlib.sha256(_version())
        for array in (vertices, faces, np.zeros(0) if area is None else area):
            array = np.ascontiguousarray(array)
            digest.update(f"{array.dtype} {array.shape}|".encode())
            digest.update(array.tobytes())
        for name in sorted(landmarks or {}):
            digest.update(name.encode() + np.asarray((landmarks or {})[name], np.float64).tobytes())
        return digest.hexdigest()

    def _find(self, key: str) -> Rig | None:
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        if self._folder is None:
            return None
        path = self._folder / f"{key}.npz"
        try:
            known = Rig.load(path)
            os.utime(path)  # the longest unused goes first
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # cut off or of another make
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        self._remember(key, known)
        return known

    def _remember(self, key: str, made: Rig) -> None:
        self._memory[key] = made
        while len(self._memory) > IN_MEMORY:
            self._memory.popitem(last=False)

    def _write(self, key: str, made: Rig) -> None:
        if self._folder is None or made.deltas.nbytes > self._limit // 4:
            return
        part = self._folder / f"{key}.{os.getpid()}.part.npz"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            made.save(part, compressed=False)
            os.replace(part, self._folder / f"{key}.npz")
            self._trim()
        except OSError:
            return
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _trim(self) -> None:
        assert self._folder is not None
        files = [(path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.glob("*.npz")]
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size
