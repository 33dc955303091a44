"""Filters over time without scipy, which Blender's Python has not. Arrays are numpy's, or torch's (arrays.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import library, like


def gaussian(values: Any, sigma: float) -> Any:
    """`values` (F,) or (F, C) under a Gaussian of `sigma` frames along time, the ends held; float in, same type out.

    By Fourier transform, so that a width of a second costs what one of a frame costs.
    """
    reach, xp = int(np.ceil(4 * sigma)), library(values)
    if sigma <= 0 or reach < 1:
        return 1 * values
    frames = len(values)
    ends = [end.repeat(reach, *[1] * (values.ndim - 1)) if xp is not np else np.repeat(end, reach, axis=0)
            for end in (values[:1], values[-1:])]
    padded = xp.concatenate([ends[0], values, ends[1]])
    size = _smooth_length(len(padded))
    # The kernel's own transform, sampled, would ring at the cut-off; a kernel cut at 4 sigma does not.
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    spectrum = xp.fft.rfft(like(kernel / kernel.sum(), values), size).reshape(-1, *[1] * (values.ndim - 1))
    full = xp.fft.irfft(xp.fft.rfft(padded, size, axis=0) * spectrum, size, axis=0)[2 * reach : 2 * reach + frames]
    return full.astype(values.dtype) if xp is np else full


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


def smoothstep(x: Any, low: float = 0.0, high: float = 1.0) -> Any:
    """0 up to `low`, 1 from `high` on, eased in between; an array of numpy or torch."""
    t = ((x - low) / (high - low)).clip(0.0, 1.0)
    return t * t * (3 - 2 * t)
