"""Where the network runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from .errors import ModelError


def pick_device(name: str = "auto") -> torch.device:
    """`name` as a torch device that exists on this machine; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises ModelError if the device asked for is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"Unknown device {name!r}. Use auto, cpu, cuda or mps.") from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False):
        raise ModelError(f"The device {name!r} is not available in this PyTorch ({torch.__version__}). "
                         "Choose auto or cpu, or install a PyTorch built for it.")
    return device


def device_name(name: str = "auto") -> str:
    """The device that `pick_device` takes, with the graphics card's own name. Raises ModelError."""
    device = pick_device(name)
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def memory_in_use() -> dict[str, int | None]:
    """Bytes that this process holds: `memory` (None where the system does not tell) and `gpu_memory`."""
    if torch.cuda.is_available():
        gpu = torch.cuda.memory_reserved()
    else:
        gpu = torch.mps.driver_allocated_memory() if torch.backends.mps.is_available() else 0
    return {"memory": _resident(), "gpu_memory": gpu}


def _resident() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):  # not Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
