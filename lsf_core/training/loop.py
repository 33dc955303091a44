"""One optimisation loop for both stages: AdamW, warm-up and cosine decay, gradient clipping, logs, resumable."""

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


def run(modules: nn.Module, step: Callable[[int], dict[str, Tensor]], config: LoopConfig, resume: Path,
        log: Callable[[str], None] = print) -> None:
    """Minimise the sum of what `step(number)` returns over the parameters of `modules` that require gradients.

    The state is saved to `resume` every `save_every` steps and read from there if it exists, so that a run that was
    cut goes on where it was. One line of losses is logged every `log_every` steps.
    """
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=config.rate, weight_decay=config.weight_decay, betas=(0.9, 0.98))
    done, spent = 0, 0.0
    if resume.is_file():
        state = torch.load(resume, weights_only=True)
        modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        done, spent = state["done"], state["spent"]
        log(f"resumed {resume} at step {done}")
    begin = time.monotonic() - spent
    sums: dict[str, Tensor] = {}
    modules.train()
    while done < config.steps and (spent := time.monotonic() - begin) < config.seconds:
        part = min(1.0, max(done / config.steps, spent / config.seconds))
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part))
        rate = config.rate * min(1.0, (done + 1) / min(config.warm_up, config.steps // 10 + 1)) * decay
        for group in optimiser.param_groups:
            group["lr"] = rate
        losses = step(done)
        optimiser.zero_grad(set_to_none=True)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimiser.step()
        done += 1
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.detach()
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


def _save(state: dict[str, object], path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
