"""Arrays in .npy files, between Blender and the engine. NumPy alone; both sides use it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np


def save_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array, whole or not: raises OSError where a disk is full.

    np.save itself hands the numbers to C's stdio and does not look whether all of them arrived.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with open(path, "wb") as file:
        file.write(content.getbuffer())
