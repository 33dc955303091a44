"""One optimisation loop for both stages: AdamW, warm-up and cosine decay, gradient clipping, logs, resumable.

On a GPU the steps are replayed as CUDA graphs: this network is so small that launching its kernels takes longer than
running them."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Step = Callable[[int], dict[str, Tensor]]


@dataclass(frozen=True)
class LoopConfig:
    """steps of the optimiser; seconds: stop earlier when this much time has passed (the schedule follows the clock)."""

    steps: int = 10_000
    seconds: float = math.inf
    rate: float = 5e-4
    warm_up: int = 300
    weight_decay: float = 0.05
    clip: float = 1.0
    log_every: int = 250
    save_every: int = 2_000


def run(modules: nn.Module, step: Step, config: LoopConfig, resume: Path, log: Callable[[str], None] = print,
        kinds: int = 0, generator: torch.Generator | None = None) -> None:
    """Minimise the sum of what `step(number)` returns over the parameters of `modules` that require gradients.

    kinds: `step` does the same tensor operations, of the same shapes and without waiting for the GPU, for all numbers
    that are equal modulo `kinds`, drawing from `generator`. Then each kind is captured in a CUDA graph, which saves
    the launching of some thousand small kernels a step. 0: never captured.

    The state is saved to `resume` every `save_every` steps and read from there if it exists, so that a run that was
    cut goes on where it was. One line of losses is logged every `log_every` steps.
    """
    parameters = [p for p in modules.parameters() if p.requires_grad]
    graphed = kinds > 0 and parameters[0].is_cuda
    # A captured optimiser reads its rate from the GPU, where it can be changed between replays.
    highest = torch.tensor(config.rate, device=parameters[0].device) if graphed else config.rate
    optimiser = torch.optim.AdamW(parameters, lr=highest, weight_decay=config.weight_decay, betas=(0.9, 0.98),
                                  capturable=graphed)
    done, spent = 0, 0.0
    if resume.is_file():
        state = torch.load(resume, weights_only=True)
        modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        done, spent = state["done"], state["spent"]
        log(f"resumed {resume} at step {done}")
    begin = time.monotonic() - spent

    def update(number: int) -> dict[str, Tensor]:
        optimiser.zero_grad(set_to_none=not graphed)
        losses = step(number)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimiser.step()
        return {name: value.detach() for name, value in losses.items()}

    take = CapturedSteps(update, kinds, generator) if graphed else update
    sums: dict[str, Tensor] = {}
    modules.train()
    while done < config.steps and (spent := time.monotonic() - begin) < config.seconds:
        part = min(1.0, max(done / config.steps, spent / config.seconds))
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part))
        rate = config.rate * min(1.0, (done + 1) / min(config.warm_up, config.steps // 10 + 1)) * decay
        for group in optimiser.param_groups:
            group["lr"] = group["lr"].fill_(rate) if graphed else rate
        for name, value in take(done).items():
            sums[name] = sums[name] + value if name in sums else value.clone()
        done += 1
        if done % config.log_every == 0:
            row = {name: round(float(value) / config.log_every, 4) for name, value in sums.items()}
            if not all(map(math.isfinite, row.values())):
                raise FloatingPointError(f"training diverged at step {done}: {row}")
            log(json.dumps({"step": done, "s": round(time.monotonic() - begin, 1), "rate": f"{rate:.1e}", **row}))
            sums = {}
        if done % config.save_every == 0:
            _save({"modules": modules.state_dict(), "optimiser": optimiser.state_dict(), "done": done,
                   "spent": time.monotonic() - begin}, resume)
    modules.eval()


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
        with torch.cuda.graph(graph):
            losses = self.update(number)
        return graph, losses


def _save(state: dict[str, object], path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
