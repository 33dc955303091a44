"""Graphs: a network's kernels recorded once and started together.

A window goes through some 300 small kernels. Starting each from Python takes longer than running it on a fast graphics
card; a CUDA graph starts them all at once. Recording costs a few tenths of a second, many times what a run saves, and
holds the memory of one run: it is done for shapes that come again.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .failures import out_of_gpu_memory

Run = Callable[..., Tensor]
_WARM_UPS = 2  # runs before recording: libraries choose their kernels and take their work space in the first ones


@dataclass(frozen=True, eq=False)
class _Recording:
    graph: Any                       # torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Graphs:
    """`run`, which maps tensors to a tensor, recorded for each shape of its inputs that `__call__` is given.

    The output is overwritten by the next call: use it before. most: shapes that are kept; the one that was used
    longest ago goes. Where the driver cannot record, everything runs as it comes, and a warning in the log says so.
    """

    def __init__(self, run: Run, most: int = 16) -> None:
        self._run, self._most = run, most
        self._recordings: OrderedDict[tuple, _Recording] = OrderedDict()
        self._seen: Counter[tuple] = Counter()
        self._pool: Any = None       # one memory for all: they never run at the same time
        self._works = True

    def __call__(self, *inputs: Tensor, after: int = 1) -> Tensor:
        """after: so many calls with a shape run as they come before it is recorded."""
        key = tuple(tuple(x.shape) for x in inputs)
        recording = self._recordings.get(key)
        if recording is None:
            if not self._works or self._seen[key] < after:
                self._seen[key] += 1
                return self._run(*inputs)
            recording = self._recorded(key, inputs)
            if recording is None:
                return self._run(*inputs)
        self._recordings.move_to_end(key)
        for static, given in zip(recording.inputs, inputs, strict=True):
            static.copy_(given)
        recording.graph.replay()
        return recording.output

    def _recorded(self, key: tuple, inputs: tuple[Tensor, ...]) -> _Recording | None:
        while len(self._recordings) >= self._most:
            del self._seen[self._recordings.popitem(last=False)[0]]
        try:
            self._recordings[key] = self._record(inputs)
        except RuntimeError as error:
            if out_of_gpu_memory(error):
                raise
            self._works = False
            logging.getLogger(__name__).warning("CUDA graphs do not work here, animating is slower: %s", error)
            return None
        return self._recordings[key]

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        static = tuple(x.clone() for x in inputs)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._run(*static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: another thread may call CUDA meanwhile, such as the one that loads a network beside a job.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self._run(*static)
        return _Recording(graph, static, output)
