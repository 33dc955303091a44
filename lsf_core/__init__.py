"""LSF-Animation: label-free speech-driven facial animation, as a library.

    import lsf_core
    model = lsf_core.load_model()
    motion = model.animate("speech.wav", mesh="head.obj", fps=30, seed=0)
    motion.save("take.npz")
    rig = lsf_core.rig(vertices, faces)

Importing the package is light: torch is imported by the first call that needs it. Nothing here imports bpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Motion", "Stream", "load_model", "rig"]

if TYPE_CHECKING:
    from .animator import load_model as load_model
    from .face import rig as rig
    from .motion import Motion as Motion
    from .streaming import Stream as Stream

_HOMES = {"load_model": ".animator", "rig": ".face", "Motion": ".motion", "Stream": ".streaming"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)
