"""What an exception that is not ours means to the artist: whose fault it is, what is said, and what mends it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from . import protocol
from .errors import LSFError

GPU_ERRORS = ("OutOfMemoryError", "AcceleratorError", "RuntimeError")


@dataclass(frozen=True)
class Failure:
    """An error event's kind, message and cure, see protocol."""

    kind: str
    message: str
    cure: str = ""


def explain(error: BaseException) -> Failure:
    """The failure that an exception is."""
    if isinstance(error, LSFError):
        return Failure(protocol.USER, str(error))
    if out_of_gpu_memory(error):
        return Failure(protocol.USER, "The graphics card has too little free memory. Close other programs, or set the "
                       "engine's device to CPU in the add-on's preferences.", protocol.DEVICE)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return Failure(protocol.USER, "The engine ran out of memory. Use a shorter strip or a lighter mesh, or close "
                       "other programs.")
    if isinstance(error, ImportError):
        return Failure(protocol.USER, f"The engine's Python, '{sys.executable}', lacks something ({error}). Set up the "
                       "engine, or choose another Python in the add-on's preferences.", protocol.ENGINE)
    what = f"{type(error).__name__}: {error}"
    return Failure(protocol.BUG, f"The engine failed ({what}). This is a defect: please report it.")


def out_of_gpu_memory(error: BaseException) -> bool:
    """Whether it is PyTorch's word for a graphics card without free memory; CUDA and Apple say it differently."""
    said = str(error).lower()
    return type(error).__name__ in GPU_ERRORS and ("out of memory" in said or "cublas_status_alloc_failed" in said)


def disk_failure(path: str, error: OSError) -> LSFError:
    """The error for a file of a job that could not be written."""
    return LSFError(f"The temporary file '{path}' cannot be written ({error.strerror or error}). Free some space on "
                    "that disk, or start Blender with the environment variable TMPDIR naming another folder.")
