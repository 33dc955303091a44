"""Windows: a clip of any length is cut in pieces that the network hears one by one, and put together again.

    window 0   ________________
                               \\________
    window 1                   /        ________________

Each window fades in and out over OVERLAP frames. The fades of a frame add up to 1, so that joining is a weighted sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .speech import SAMPLES_PER_FRAME

WINDOW = 400                 # frames: 8 s, longer than any window the network was trained on is of no use
OVERLAP = 100                # frames: 2 s, over which neighbouring windows are cross-faded


@dataclass(frozen=True, eq=False)
class Piece:
    """One window: `length` frames of clip number `clip` from its frame `start` on.

    fade: (length,) float32, its share of each frame. turn: windows of one turn (every other one, and the last) never
    overlap within a clip.
    """

    clip: int
    start: int
    length: int
    fade: np.ndarray
    turn: int


def feature_frames(samples: np.ndarray | Tensor) -> int:
    """Frames at 50 Hz that cover the samples."""
    return max(1, -(-len(samples) // SAMPLES_PER_FRAME))


def window_starts(frames: int) -> list[int]:
    """First frames of the windows. The last one ends with the clip, so that every window but that of a short clip is
    full and no window sees padding; it may overlap its neighbour by more than OVERLAP."""
    if frames <= WINDOW:
        return [0]
    starts = list(range(0, frames - WINDOW, WINDOW - OVERLAP))
    return [*starts, frames - WINDOW]


def cut_windows(frames: Sequence[int]) -> list[Piece]:
    """The windows of clips of these lengths, in the order in which they go through the network: by length, as only
    windows of one length share a batch, then by turn."""
    pieces = []
    for clip, count in enumerate(frames):
        starts, fades = window_starts(count), window_fades(count)
        pieces += [Piece(clip, start, len(fade), fade, 2 if i and i == len(starts) - 1 else i % 2)
                   for i, (start, fade) in enumerate(zip(starts, fades, strict=True))]
    return sorted(pieces, key=lambda piece: (-piece.length, piece.turn))


def batches(pieces: Sequence[Piece], most: int) -> Iterator[Sequence[Piece]]:
    """Runs of at most `most` windows of one length."""
    done = 0
    while done < len(pieces):
        batch = [p for p in pieces[done:done + most] if p.length == pieces[done].length]
        yield batch
        done += len(batch)


def window_fades(frames: int) -> np.ndarray:
    """(windows, T) float32: how much of each frame of a clip each window gives; a frame's shares add up to 1."""
    starts = np.array(window_starts(frames))
    length = min(WINDOW, frames)
    fades = np.ones((len(starts), length))
    if len(starts) == 1:
        return fades.astype(np.float32)
    ramp = (np.arange(OVERLAP) + 1) / (OVERLAP + 1)
    fades[1:, :OVERLAP] = ramp
    fades[:-1, -OVERLAP:] = ramp[::-1]
    where = starts[:, None] + np.arange(length)
    total = np.bincount(where.ravel(), fades.ravel(), frames)
    return (fades / total[where]).astype(np.float32)


def cut(clip: Tensor, start: int, length: int) -> Tensor:
    """`length` frames of a clip's samples (N,) from frame `start`; the clip's last frame is filled up with zeros."""
    piece = clip[start * SAMPLES_PER_FRAME:(start + length) * SAMPLES_PER_FRAME]
    return F.pad(piece, (0, length * SAMPLES_PER_FRAME - len(piece)))


class OverlapAdd:
    """The frames of several clips, put together from their windows where these were made: nothing leaves the device,
    and the same windows give the same sum bit by bit, whatever the device."""

    def __init__(self, frames: Sequence[int], device: torch.device) -> None:
        self._ends = np.cumsum(frames)
        self._firsts = self._ends - np.asarray(frames)
        self._device = device
        self._sum: Tensor | None = None              # (frames of all clips, D, 52)

    def add(self, pieces: Sequence[Piece], made: Tensor) -> None:
        """Lay windows (B, T, D, 52), of which the pieces are told, over the frames they belong to."""
        if self._sum is None:
            self._sum = made.new_zeros((int(self._ends[-1]), *made.shape[2:]), dtype=torch.float32)
        # Not waited for: the device goes on with the network meanwhile.
        fades = torch.from_numpy(np.stack([p.fade for p in pieces])).to(self._device, non_blocking=True)
        firsts = torch.from_numpy(np.array([self._firsts[p.clip] + p.start for p in pieces]))
        firsts = firsts.to(self._device, non_blocking=True)
        where = firsts[:, None] + torch.arange(made.shape[1], device=self._device)
        weighted = made * fades[..., None, None]
        turns = np.array([p.turn for p in pieces])
        # One turn after the other: adding in no fixed order to the same frame would round differently in each run.
        for run in np.split(np.arange(len(pieces)), np.flatnonzero(np.diff(turns)) + 1):
            rows = slice(int(run[0]), int(run[-1]) + 1)
            self._sum.index_add_(0, where[rows].flatten(), weighted[rows].flatten(0, 1))

    def clip(self, number: int) -> Tensor:
        """The deliveries (D, F, 52) of one clip."""
        assert self._sum is not None, "every clip has a window"
        return self._sum[self._firsts[number]:self._ends[number]].transpose(0, 1)
