"""What each process of test_training_many.py does: torchrun ... training_process.py FOLDER JOB.

All jobs fit a small network to one fixed batch, of which every process takes a part. What comes of it is written to
FOLDER/<job>-<rank>.json; `fit` is also run by the test itself, as the only process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lsf_core.training import loop
from lsf_core.training.processes import Processes

STEPS, LOG_EVERY, SAVE_EVERY, CUT_AT = 12, 3, 4, 6
CPU = torch.device("cpu")


class Cut(Exception):
    """Ends a run before its time."""


class Small(nn.Module):
    """A network with a buffer that follows what it has seen, as the prior's codebooks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.lerp_(x.mean(0), 0.1)
        return self.layers(x)


def fit(team: Processes, resume: Path, steps: int = STEPS, seconds: float = float("inf"),
        cut_at: int = -1, drift_at: int = -1) -> dict[str, Any]:
    """Train; the losses that were logged, how many steps were made, and the weights and the buffer at the end."""
    torch.manual_seed(team.rank)                    # other weights to begin with in every process
    network, lines, made = Small(), [], 0
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(5))
    goal = 2 * x.sin().sum(1, keepdim=True)

    def step(number: int) -> dict[str, Tensor]:
        nonlocal made
        made += 1
        if number == cut_at:
            raise Cut
        if number == drift_at and not team.main:
            with torch.no_grad():
                network.layers[0].bias += 0.1
        mine = slice(team.rank, None, team.count)
        error = network((1 + 0.1 * number) * x[mine]) - goal[mine]
        return {"square": error.square().mean(), "size": 0.1 * error.abs().mean()}

    config = loop.LoopConfig(steps, seconds, rate=0.03, log_every=LOG_EVERY, save_every=SAVE_EVERY, processes=team)
    try:
        loop.run(network, step, config, resume, lines.append)
    except Cut:
        return {}
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return {"curve": [[row["square"], row["size"]] for row in rows], "made": made, "seen": network.seen.tolist(),
            "weights": torch.cat([p.detach().flatten() for p in network.parameters()]).tolist(), "lines": lines}


def several(team: Processes, folder: Path) -> dict[str, Any]:
    """Everything that succeeds, in one go."""
    # Each process has a folder of its own, like a host that does not see the main one's.
    own = folder / str(team.rank)
    own.mkdir()
    found = {"whole": fit(team, own / "whole.pt")}
    fit(team, own / "cut.pt", cut_at=CUT_AT)
    found["resumed"] = fit(team, own / "cut.pt")
    found["files"] = sorted(p.name for p in own.iterdir())
    found["gathered"] = team.gather(team.share(range(131)))

    ticks = iter(range(10**6))
    loop.time = SimpleNamespace(monotonic=lambda: next(ticks) * (0.1 + 0.2 * team.rank))
    found["by the clock"] = fit(team, own / "clock.pt", steps=10**6, seconds=1.55)
    return found


def main(folder: Path, job: str) -> None:
    team = Processes.launched()
    team.connect(CPU)
    found = several(team, folder) if job == "several" else fit(team, folder / "none.pt", drift_at=4)
    (folder / f"{job}-{team.rank}.json").write_text(json.dumps(found), encoding="utf-8")
    team.disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
