"""One optimisation loop for both stages: AdamW, warm-up and cosine decay, gradient clipping, logs, resumable.

On a GPU the steps are replayed as CUDA graphs: this network is so small that launching its kernels takes longer than
running them. Several processes, each with a GPU of its own, replay a graph up to the gradients, average those by one
message outside of any graph, and replay another for the optimiser."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .processes import ALONE, Processes, flat_gradients

Step = Callable[[int], dict[str, Tensor]]


@dataclass(frozen=True)
class LoopConfig:
    """steps of the optimiser; seconds: stop earlier when this much time has passed (the schedule follows the clock);
    processes: who shares the work, each with a part of the batch."""

    steps: int = 10_000
    seconds: float = math.inf
    rate: float = 5e-4
    warm_up: int = 300
    weight_decay: float = 0.05
    clip: float = 1.0
    log_every: int = 250
    save_every: int = 2_000
    processes: Processes = ALONE


def run(modules: nn.Module, step: Step, config: LoopConfig, resume: Path, log: Callable[[str], None] = print,
        kinds: int = 0, generator: torch.Generator | None = None) -> None:
    """Minimise the sum of what `step(number)` returns over the parameters of `modules` that require gradients.

    kinds: `step` does the same tensor operations, of the same shapes and without waiting for the GPU, for all numbers
    that are equal modulo `kinds`, drawing from `generator`. Then each kind is captured in a CUDA graph, which saves
    the launching of some thousand small kernels a step. 0: never captured.

    The state is saved to `resume` every `save_every` steps and read from there if it exists, so that a run that was
    cut goes on where it was. One line of losses is logged every `log_every` steps.

    In several processes the main one reads, saves and keeps the time, all log; weights start as the main one's and
    stay equal. Buffers that training changes, the prior's codebooks, follow the main process's windows.
    """
    team = config.processes
    parameters = [p for p in modules.parameters() if p.requires_grad]
    graphed = kinds > 0 and parameters[0].is_cuda
    # A captured optimiser reads its rate from the GPU, where it can be changed between replays.
    highest = torch.tensor(config.rate, device=parameters[0].device) if graphed else config.rate
    optimiser = torch.optim.AdamW(parameters, lr=highest, weight_decay=config.weight_decay, betas=(0.9, 0.98),
                                  capturable=graphed)
    done, spent = 0, 0.0
    if state := team.read_by_main(lambda: _load(resume)):
        modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        for group in optimiser.param_groups:        # of this device, whichever one the state was saved on
            group.update(lr=highest, capturable=graphed)
        done, spent = state["done"], state["spent"]
        log(f"resumed {resume} at step {done}")
    team.copy_main([*modules.parameters(), *modules.buffers()])
    begin = time.monotonic() - spent

    def backward(number: int) -> dict[str, Tensor]:
        optimiser.zero_grad(set_to_none=not graphed and team.count == 1)
        losses = step(number)
        torch.stack(list(losses.values())).sum().backward()
        return {name: value.detach() for name, value in losses.items()}

    def descend(_: int) -> dict[str, Tensor]:
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimiser.step()
        return {}

    def captured(part: Step, kinds: int, generator: torch.Generator | None = None) -> Step:
        return CapturedSteps(part, kinds, generator) if graphed else part

    if team.count == 1:
        take = captured(lambda number: backward(number) | descend(number), kinds, generator)
    else:
        take = _shared(team, modules, parameters, captured(backward, kinds, generator), captured(descend, 1))
    sums: dict[str, Tensor] = {}
    modules.train()
    while done < config.steps and (spent := team.of_main(time.monotonic() - begin)) < config.seconds:
        part = min(1.0, max(done / config.steps, spent / config.seconds))
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part))
        rate = config.rate * min(1.0, (done + 1) / min(config.warm_up, config.steps // 10 + 1)) * decay
        for group in optimiser.param_groups:
            group["lr"] = group["lr"].fill_(rate) if graphed else rate
        for name, value in take(done).items():
            sums[name] = sums[name] + value if name in sums else value.clone()
        done += 1
        if done % config.log_every == 0:
            means = team.average(torch.stack(list(sums.values()))).tolist()
            row = {name: round(mean / config.log_every, 4) for name, mean in zip(sums, means, strict=True)}
            if not all(map(math.isfinite, row.values())):
                raise FloatingPointError(f"training diverged at step {done}: {row}")
            team.check_same(parameters, f"at step {done}")
            log(json.dumps({"step": done, "s": round(time.monotonic() - begin, 1), "rate": f"{rate:.1e}", **row}))
            sums = {}
        if done % config.save_every == 0 and team.main:
            _save({"modules": modules.state_dict(), "optimiser": optimiser.state_dict(), "done": done,
                   "spent": time.monotonic() - begin}, resume)
    modules.eval()


def _shared(team: Processes, modules: nn.Module, parameters: list[nn.Parameter], backward: Step, descend: Step) -> Step:
    """The step of one process among several: `backward` alone, `descend` by the gradients of all."""
    gradients: Tensor | None = None
    changing: list[Tensor] = []

    def take(number: int) -> dict[str, Tensor]:
        nonlocal gradients
        losses = backward(number)
        if gradients is None:
            gradients = flat_gradients(parameters)
            # What is in evaluation mode after a step (stage 2's prior) keeps its buffers.
            changing.extend(b for m in modules.modules() if m.training for b in m.buffers(recurse=False))
        team.average(gradients)
        team.copy_main(changing)
        descend(number)
        return losses

    return take


class CapturedSteps:
    """`update(number)` as CUDA graphs, one for each kind of step: a few eager rounds, then capture, then replay.

    What a replay returns lies in the graph's own memory: read it before the next replay.
    """

    EAGER_ROUNDS = 3    # the optimiser's state, cuBLAS and cuFFT plans must exist before a capture

    def __init__(self, update: Step, kinds: int, generator: torch.Generator | None) -> None:
        self.update, self.kinds, self.generator = update, kinds, generator
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]] = {}
        self.eager = self.EAGER_ROUNDS * kinds
        self.side = torch.cuda.Stream()

    def __call__(self, number: int) -> dict[str, Tensor]:
        kind = number % self.kinds
        if kind not in self.graphs:
            if self.eager > 0:
                self.eager -= 1
                return self._eagerly(number)
            self.graphs[kind] = self._capture(number)
        graph, losses = self.graphs[kind]
        graph.replay()
        return losses

    def _eagerly(self, number: int) -> dict[str, Tensor]:
        """On a side stream, as torch asks of what is captured later."""
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            losses = self.update(number)
        torch.cuda.current_stream().wait_stream(self.side)
        return losses

    def _capture(self, number: int) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]:
        graph = torch.cuda.CUDAGraph()
        if self.generator is not None:
            graph.register_generator_state(self.generator)
        # Only this thread's calls can spoil a capture: NCCL's own threads go on asking for what has arrived.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            losses = self.update(number)
        return graph, losses


def _load(path: Path) -> dict[str, Any] | None:
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


def _save(state: dict[str, object], path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
