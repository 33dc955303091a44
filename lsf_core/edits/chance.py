"""Chances of the edits. Each edit draws from a stream of its own, so that switching one off shifts no other."""

from __future__ import annotations

import numpy as np

from ..filters import gaussian


def stream(edit: int, seed: int) -> np.random.Generator:
    """The stream of an edit (any number that no other edit has) under the take's seed."""
    return np.random.default_rng([edit, abs(int(seed))])


def slow_noise(rng: np.random.Generator, frames: int, columns: int, sigma: float) -> np.ndarray:
    """(frames, columns) of Gaussian noise that changes over `sigma` frames: mean 0, standard deviation 1."""
    reach = int(np.ceil(4 * sigma))  # drawn beyond both ends: the filter holds the ends, and one held draw would
    white = rng.standard_normal((frames + 2 * reach, columns))  # count for half a filter's width of them
    # A Gaussian filter leaves white noise a variance of 1 / (2 sqrt(pi) sigma).
    return gaussian(white, sigma)[reach:reach + frames] * np.sqrt(2 * np.sqrt(np.pi) * max(sigma, 1.0))
