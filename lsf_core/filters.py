"""Filters over time in numpy alone: the edits run inside Blender's Python, which has no scipy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def gaussian(values: NDArray[Any], sigma: float) -> NDArray[Any]:
    """`values` (F,) or (F, C) under a Gaussian of `sigma` frames along time, the ends held; float in, same type out.

    By Fourier transform, so that a width of a second costs what one of a frame costs.
    """
    reach = int(np.ceil(4 * sigma))
    if sigma <= 0 or reach < 1:
        return values.copy()
    frames = len(values)
    pad = [(reach, reach)] + [(0, 0)] * (values.ndim - 1)
    padded = np.pad(values, pad, mode="edge")
    size = _smooth_length(len(padded))
    # The kernel's own transform, sampled, would ring at the cut-off; a kernel cut at 4 sigma does not.
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    spectrum = np.fft.rfft(kernel / kernel.sum(), size).reshape(-1, *[1] * (values.ndim - 1))
    full = np.fft.irfft(np.fft.rfft(padded, size, axis=0) * spectrum, size, axis=0)
    return full[2 * reach : 2 * reach + frames].astype(values.dtype)


def _smooth_length(least: int) -> int:
    """The smallest 2^a * 3^b * 5^c from `least` on: lengths that the Fourier transform is quick for."""
    best = 1 << max(0, least - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            two = 1 << max(0, (-(-least // three) - 1).bit_length())
            if least <= three * two < best:
                best = three * two
            three *= 3
        five *= 5
    return best


def smoothstep(x: NDArray[Any], low: float = 0.0, high: float = 1.0) -> NDArray[Any]:
    """0 up to `low`, 1 from `high` on, eased in between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)
