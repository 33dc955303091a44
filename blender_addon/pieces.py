"""Work in pieces, so that the window never waits for long: a generator that yields wherever it may be interrupted.

A window takes as many pieces as fit into the time of a timer's tick; scripts take all at once (`whole`). What needs no
Blender at all is done `aside`, by another thread. A piece of work that is dropped in the middle is closed, and undoes
in its `except` and `finally` clauses what it had begun.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")

Pieces = Generator["Future[Any] | None", None, T]
"""Yields what it waits for, or None where it can go on at once; returns what the work is for."""


LONG: Future[None] = Future()
"""Yielded before a piece that takes long by itself: it gets a tick of its own."""
LONG.set_result(None)

SWITCH = 0.0005
"""Seconds after which a thread that does work aside hands Python to the window, if that asks for it; usually 0.005."""


def aside(work: Callable[[], T]) -> Pieces[T]:
    """Do `work` on another thread. It must not touch Blender. What it raises is raised here."""
    pool, usual = ThreadPoolExecutor(1, thread_name_prefix="lsf"), sys.getswitchinterval()
    sys.setswitchinterval(min(usual, SWITCH))
    try:
        done = pool.submit(work)
        while not done.done():
            yield done
        return done.result()
    finally:
        sys.setswitchinterval(usual)
        pool.shutdown(wait=False, cancel_futures=True)


def whole(work: Pieces[T]) -> T:
    """Do all of it now."""
    while True:
        try:
            waiting = next(work)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if waiting is not None:
            wait([waiting])


def some(work: Pieces[Any], seconds: float) -> bool:
    """Do as many pieces as can be begun in that time; True when there is nothing left to do. What another thread does
    is waited for only where there is all the time in the world (math.inf)."""
    end = time.perf_counter() + seconds
    while True:
        try:
            waiting = next(work)
        except StopIteration:
            return True
        if waiting is not None and seconds == math.inf:
            wait([waiting])
        elif waiting is not None or time.perf_counter() >= end:
            return False
