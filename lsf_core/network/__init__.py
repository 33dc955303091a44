"""The LSF network (Lu et al., LSF-Animation, SIGGRAPH Asia 2025), in our own words."""

from .config import LSFConfig, PriorConfig
from .lsf import LSFNetwork, LSFOutput
from .prior import MotionPrior

__all__ = ["LSFConfig", "LSFNetwork", "LSFOutput", "MotionPrior", "PriorConfig"]
