"""One training run in several processes, one for each GPU, started by `torchrun` or `accelerate launch`.

Both tell every process its place in environment variables and end all of them when one fails. What the processes then
need of each other is little: the takes are made in shares, weights start equal, gradients are averaged, and one clock
decides. That is done here by hand and not by DistributedDataParallel, whose hooks do not fit into CUDA graphs and which
would have to wrap the many calls that a step makes of its network.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..device import pick_device
from ..errors import LSFError, ModelError

T = TypeVar("T")

PATIENCE = timedelta(hours=1)   # for a process that hangs; one that dies ends the others at once
GATHERED_AT_ONCE = 64           # takes; some 50 MB from each process


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`, and `local_rank` of the `local_count` on this host. Number 0, the main
    one, is the only one that writes. With a count of 1 every method gives back what it got."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def launched(cls) -> Processes:
        """The place that a launcher gave this process; the only one where none did."""
        if not dist.is_torchelastic_launched():
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))

    @property
    def main(self) -> bool:
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process, a GPU of its own where there are any. Raises ModelError."""
        device = pick_device(name)
        if self.count == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or device.index is not None:
            raise ModelError(f"{self.count} processes cannot share the device '{device}'. Give --device cuda, where "
                             "each has a GPU of its own, or cpu.")
        if self.local_count > torch.cuda.device_count():
            raise ModelError(f"{self.local_count} processes on a host with {torch.cuda.device_count()} GPU(s). Start "
                             "as many processes as there are GPUs (--nproc-per-node).")
        return torch.device("cuda", self.local_rank)

    def batch(self, total: int) -> int:
        """This process's share of a batch of `total` windows. Raises LSFError where it is no whole number."""
        if total % self.count:
            raise LSFError(f"--batch {total} cannot be shared evenly by {self.count} processes. Give a multiple of "
                           f"{self.count}.")
        return total // self.count

    def workers(self) -> int:
        """How many processes this one may start to use the CPU cores of its host."""
        return max(1, (os.cpu_count() or 1) // self.local_count)

    def connect(self, device: torch.device) -> None:
        """Let the processes reach each other: over NCCL between GPUs, and over gloo, whose numbers lie in the
        computer's memory, so that no process waits for its GPU to read them."""
        if self.count > 1:
            # Functions of this module, which optimisers import, keep the group there is at its import as a default. A
            # group that is kept is never closed, and gloo's threads then abort the process at its end.
            import torch.distributed.nn

            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)

    def disconnect(self) -> None:
        """At the end of a run that succeeded; after a failure this could wait for processes that are gone."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def share(self, jobs: Sequence[T]) -> list[T]:
        """Every `count`-th of the jobs, which all processes know in the same order."""
        return list(jobs[self.rank::self.count])

    def gather(self, made: list[T]) -> list[T]:
        """What came of the jobs that `share` dealt out, from all processes and in the order of the jobs."""
        if self.count == 1:
            return made
        joined: list[T] = []
        for first in range(0, round(self.of_main(len(made))), GATHERED_AT_ONCE):   # the main one's share is the longest
            parts: list[list[T]] = [[] for _ in range(self.count)]
            dist.all_gather_object(parts, made[first:first + GATHERED_AT_ONCE])
            joined += [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)]
        return joined

    def of_main(self, number: float) -> float:
        """The main process's number, for all: what is decided by it is decided alike."""
        if self.count == 1:
            return number
        held = torch.tensor(number, dtype=torch.float64)
        dist.broadcast(held, 0)
        return float(held)

    def read_by_main(self, read: Callable[[], Any]) -> Any:
        """What `read()` returns in the main process, for all: other hosts may not see its files."""
        if self.count == 1:
            return read()
        held = [read() if self.main else None]
        dist.broadcast_object_list(held, 0)
        return held[0]

    def copy_main(self, tensors: Iterable[Tensor]) -> None:
        """Give each tensor, in place, the main process's values."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def average(self, tensor: Tensor) -> Tensor:
        """The tensor, in place, with the mean over the processes."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count
        return tensor

    def check_same(self, parameters: list[nn.Parameter], when: str) -> None:
        """Raises LSFError where this process's weights are not the main one's."""
        if self.count == 1:
            return
        own = float(torch.stack([p.detach().double().abs().sum() for p in parameters]).sum())
        main = self.of_main(own)
        if not math.isclose(own, main, rel_tol=1e-6):
            raise LSFError(f"Process {self.rank} of {self.count} has drifted from the main one {when}: its weights sum "
                           f"up to {own:.9g} and not {main:.9g}. Use GPUs of one kind, or go on from the resume point.")


ALONE = Processes()


def flat_gradients(parameters: list[nn.Parameter]) -> Tensor:
    """One vector that the gradients become views of, so that one message averages them; to be called after a first
    backward pass, which tells the parameters that have gradients."""
    known = [(p, p.grad) for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for _, gradient in known])
    for (parameter, _), gradient in zip(known, flat.split([p.numel() for p, _ in known]), strict=True):
        parameter.grad = gradient.view_as(parameter)
    return flat
