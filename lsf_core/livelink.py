"""Motion as a CSV file in the layout of Epic's Live Link Face app, which engines and FBX pipelines read.

Unreal's Live Link Face Importer, and importers for Maya, MotionBuilder, Unity and Blender, take this file: one row a
frame with a time code, the 52 ARKit weights (here with a capital first letter, and in the app's order), three angles of
the head and three of each eye.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from .arkit import INDEX
from .wholefile import whole_file

if TYPE_CHECKING:
    from .motion import Motion

_SIDES = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
SHAPES: tuple[str, ...] = (
    *(f"eye{part}Left" for part in _SIDES), *(f"eye{part}Right" for part in _SIDES),
    "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight",
    "mouthLeft", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft",
    "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight",
    "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)  # fmt: skip
"""The 52 shapes in the order of the app's columns."""

ANGLES = ("HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll",
          "RightEyeYaw", "RightEyePitch", "RightEyeRoll")
HEADER = ("Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in SHAPES), *ANGLES)


def save_csv(motion: Motion, path: str | os.PathLike[str]) -> None:
    """Write `motion` at its own frame rate, whole or not at all; missing folders are made.

    Angles are radians, signed as `Motion.head_rotation`. Those of the eyes are 0: the gaze is in the eyeLook shapes.
    Raises LSFError where the file cannot be written.
    """
    values = np.zeros((len(motion), len(SHAPES) + len(ANGLES)))
    values[:, :len(SHAPES)] = motion.weights[:, [INDEX[shape] for shape in SHAPES]]
    if motion.head_rotation is not None:
        values[:, len(SHAPES):len(SHAPES) + 3] = motion.head_rotation[:, [1, 0, 2]]  # yaw, pitch, roll
    numbers = ",".join(["%.6g"] * values.shape[1])
    with whole_file(path) as part, open(part, "w", encoding="ascii", newline="\n") as file:
        file.write(",".join(HEADER) + "\n")
        for frame, row in enumerate(values.tolist()):
            file.write(f"{timecode(frame, motion.fps)},{values.shape[1]},{numbers % tuple(row)}\n")


def timecode(frame: int, fps: float) -> str:
    """HH:MM:SS:FF.fff of a frame. Without dropped frames: at 29.97 the code counts 30 frames as a second, as cameras
    do. Rates below 1 count a frame a second."""
    rate = max(1, round(fps))
    seconds, rest = divmod(frame, rate)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{rest:02d}.000"
