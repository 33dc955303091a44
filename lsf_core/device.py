"""Where the network runs."""

from __future__ import annotations

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
