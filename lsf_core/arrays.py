"""Arrays of two libraries: what is dense over time runs on numpy in Blender, and on torch where the network left it.

Functions that say so take either. Both have most methods in common (`clip`, `sum`, `@`, slices); the rest is here.
torch is never imported here: only an array that is one of its own leads to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np


def library(x: Any) -> Any:
    """The module that `x` is an array of: numpy or torch."""
    return sys.modules["torch"] if is_torch(x) else np


def is_torch(x: Any) -> bool:
    """Whether `x` is a tensor of torch."""
    return type(x).__module__.partition(".")[0] == "torch"


def like(values: Any, x: Any) -> Any:
    """numpy values as an array of `x`'s library, on its device and in its type; for numpy, as they are."""
    if not is_torch(x):
        return values
    # Not waited for: a graphics card that is busy goes on, and small arrays are read before this returns.
    return library(x).from_numpy(np.ascontiguousarray(values)).to(x.dtype).to(x.device, non_blocking=True)


def like_index(values: np.ndarray, x: Any) -> Any:
    """Row numbers for `x`, on its device."""
    return library(x).from_numpy(values).to(x.device, non_blocking=True) if is_torch(x) else values


def columns(numbers: Sequence[int], x: Any) -> Any:
    """Column numbers for `x[:, ...]`: on a graphics card once and for all. A list would be copied there each time, and
    all that runs there waited for."""
    return _columns(tuple(numbers), x.device) if is_torch(x) else list(numbers)


@lru_cache(maxsize=256)
def _columns(numbers: tuple[int, ...], device: Any) -> Any:
    torch = sys.modules["torch"]
    with torch.inference_mode(False):  # kept and used anywhere
        return torch.tensor(numbers, device=device)


def percentile(x: Any, percent: float) -> Any:
    """A percentile of all values, a number of the library's own without dimensions."""
    return library(x).quantile(x, percent / 100) if is_torch(x) else np.percentile(x, percent)


def to_numpy(x: Any) -> np.ndarray:
    """The array as numpy's."""
    return x.cpu().numpy() if is_torch(x) else np.asarray(x)
