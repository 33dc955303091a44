"""Which lines go through the network together: those of about one length, and no more than memory is meant for.

The lengths are read from the files' headers, so nothing is decoded for it, and a wrong one costs speed alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .rows import Row, find

GROUP_LINES, GROUP_SECONDS = 64, 480.0
"""A group is full with so many lines or so much sound: 31 MB of it at 16 kHz."""

_BYTES_PER_SECOND = 16_000  # of a file without a header that tells its length: 128 kbit/s
_READERS = 16  # headers read at once: on a network file system each costs its latency


def sound_seconds(path: Path) -> float:
    """The length that a sound file's header tells, or else a guess by its size; 0 for a file that is not there."""
    import soundfile as sf

    try:
        return sf.info(str(path)).duration
    except (sf.LibsndfileError, TypeError, ValueError):
        pass  # FFmpeg may know it
    try:
        import av

        with av.open(str(path), metadata_errors="replace") as container:
            if container.duration:
                return container.duration / av.time_base
    except (av.error.FFmpegError, ValueError):
        pass
    try:
        return os.path.getsize(path) / _BYTES_PER_SECOND
    except OSError:
        return 0.0


def lengths(rows: Sequence[Row], bases: tuple[Path, ...]) -> list[float]:
    """Seconds of each line's sound."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda row: sound_seconds(find(row.audio, bases)), rows, chunksize=64))


def groups(rows: Sequence[Row], seconds: Sequence[float]) -> list[list[Row]]:
    """The lines, longest first, in groups; lines of one length stay in their order.

    Longest first, as what does not fit into memory is then known soon, and nobody waits for a long line at the end.
    """
    made: list[list[Row]] = []
    filled = 0.0
    for i in sorted(range(len(rows)), key=lambda i: -seconds[i]):
        if not made or len(made[-1]) >= GROUP_LINES or filled + seconds[i] > GROUP_SECONDS:
            made.append([])
            filled = 0.0
        made[-1].append(rows[i])
        filled += seconds[i]
    return made
