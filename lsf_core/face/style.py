"""Style modes: how drawn heads differ from grown ones. Eyes, nose, mouth, jaw and skull larger or smaller than
anybody's.

The identity space holds people. Where nobody fits well, the search is made again with these few smooth deformations
of the template beside it; they absorb the style, so that the identity stays that of a person, and the parts of the
face are found where the artist put them.
"""

from __future__ import annotations

import numpy as np

from .template import Template

STYLE_NAMES = ("height", "depth", "eyes size", "eyes apart", "eyes up", "nose size", "nose up", "mouth size",
               "mouth up", "jaw width", "chin length", "skull size")


def _ramp(values: np.ndarray) -> np.ndarray:
    t = np.clip(values, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def style_modes(template: Template) -> np.ndarray:
    """The deformations STYLE_NAMES of the template (12,V,3) in mm, each of the size of a clearly stylised head.

    Empty for a template without the landmarks that they are built on.
    """
    needed = {f"eye_{place}_{side}" for place in ("inner", "outer") for side in ("left", "right")}
    if not needed | {"mouth_left", "mouth_right", "nose_tip", "nose_base"} <= set(template.landmarks):
        return np.zeros((0, len(template.vertices), 3))
    p = np.asarray(template.vertices, np.float64) * 1000.0
    mark = {name: p[index] for name, index in template.landmarks.items()}
    eye = {side: (mark[f"eye_inner_{side}"] + mark[f"eye_outer_{side}"]) / 2 for side in ("left", "right")}
    between = (eye["left"] + eye["right"]) / 2
    apart = float(np.linalg.norm(eye["left"] - eye["right"]))
    mouth, nose = (mark["mouth_left"] + mark["mouth_right"]) / 2, (mark["nose_tip"] + mark["nose_base"]) / 2
    up, side = np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])

    def near(centre: np.ndarray, sigma: float) -> np.ndarray:
        return np.exp(-((p - centre) ** 2).sum(1, keepdims=True) / (2 * (sigma * apart) ** 2))

    def swell(centre: np.ndarray, sigma: float) -> np.ndarray:
        return (p - centre) * near(centre, sigma)

    eyes = {s: near(centre, 0.34) for s, centre in eye.items()}
    low = _ramp((between[1] - 0.2 * apart - p[:, 1]) / (1.2 * apart))[:, None]
    high = _ramp((p[:, 1] - between[1] - 0.2 * apart) / apart)[:, None]
    return np.stack([
        0.12 * (p - between) * up,
        0.15 * (p - between) * [0.0, 0.0, 1.0],
        0.3 * (swell(eye["left"], 0.34) + swell(eye["right"], 0.34)),
        4.0 * (eyes["left"] - eyes["right"]) * side,
        4.0 * (eyes["left"] + eyes["right"]) * up,
        0.3 * swell(nose, 0.3),
        4.0 * near(nose, 0.3) * up,
        0.2 * swell(mouth, 0.45),
        4.0 * near(mouth, 0.45) * up,
        0.18 * low * (p - between) * [1.0, 0.0, 0.3],
        -9.0 * low * up,
        0.15 * high * (p - between),
    ])
