"""What the tests of animate-many share: manifests, and what a folder of takes holds."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import numpy as np
import soundfile as sf

from lsf_core.audio import load_audio

SPEECH = Path(__file__).parents[2] / "assets" / "demo" / "speech.ogg"


def sound(path: Path, seconds: float, begin: float = 0.3) -> str:
    """Write some of the demo speech; the file's name."""
    sf.write(path, load_audio(SPEECH, begin, seconds), 16000)
    return path.name


def manifest(path: Path, *lines: str, header: str = "audio,output") -> str:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return str(path)


def results(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file["weights"]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every take in the folder with what changes when it is made again: its inode and its time."""
    paths = [Path(root, name) for top in folder.glob("[!.]*") if top.is_dir()
             for root, _, names in os.walk(top) for name in names]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in [*paths, *folder.glob("*")] if path.suffix == ".npz"}


def die_or_double(number: int, folder: str) -> int:
    """Work for a helper process: 0 kills its process, always; 1 does so once; others double the number."""
    if number == 0 or (number == 1 and not os.path.exists(f"{folder}/tried")):
        Path(folder, "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number
