"""Work beside the network: in threads, or in processes that may die without taking the others' work along."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from ..errors import LSFError

T = TypeVar("T")

_TRIES = 3


class Helpers:
    """A pool of processes, or with none of `threads`. A context manager."""

    def __init__(self, processes: int, threads: int) -> None:
        self.processes, self.threads = processes, threads
        self.pool = self._new_pool()

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def start(self, work: Callable[..., T], *arguments: Any) -> Task[T]:
        """Begin `work`, which a pool of processes must be able to pickle."""
        return Task(self, work, arguments)

    def renew(self, broken: Executor) -> None:
        """Have another pool instead of a broken one; whoever notices it first does it for all."""
        if self.pool is broken:
            broken.shutdown(wait=False)
            self.pool = self._new_pool()

    def _new_pool(self) -> Executor:
        if not self.processes:
            return ThreadPoolExecutor(self.threads)
        # Spawned: a forked process would inherit the graphics card's state and torch's threads.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.processes, context, initializer=_end_with_parent)


class Task(Generic[T]):
    """A piece of work that is begun."""

    def __init__(self, helpers: Helpers, work: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        self._helpers, self._work, self._arguments = helpers, work, arguments
        self._begin()

    def _begin(self) -> None:
        try:
            self._pool = self._helpers.pool
            self._future = self._pool.submit(self._work, *self._arguments)
        except BrokenExecutor:
            self._helpers.renew(self._pool)
            self._pool = self._helpers.pool
            self._future = self._pool.submit(self._work, *self._arguments)

    def result(self) -> T:
        """Wait for it; raises what it raises. A process that dies takes all with it that its pool has begun: each is
        begun again when its turn comes, and blamed only where that goes wrong again and again."""
        for _ in range(_TRIES):
            try:
                return self._future.result()
            except BrokenExecutor:
                self._helpers.renew(self._pool)
                self._begin()
        raise LSFError(f"The process that worked on it died {_TRIES} times: out of memory, or a damaged file. Look at "
                       "the file, or give the machine fewer lines at once.")


def _end_with_parent() -> None:
    """In a process of the pool: end when the process that it helps does, even if that is killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
