"""How sure a fit is: of the face as a whole, and of each landmark, with words for what is doubtful.

A wrong fit can lie close to the mesh everywhere: the last, supple steps lay the template on anything. What cannot be
imitated is an opening: a chin has no way round the corner of the mouth, a cheek has skin where the eye should be.
"""

from __future__ import annotations

import numpy as np

from .correspond import Finder
from .locate import MAX_STRANGENESS
from .mesh import Surface
from .register import Registration

DOUBTFUL = 0.5
"""Below this a landmark, or the whole fit, is reported."""
DISTANCE_MM = 3.0
PULL_MM = 16.0
"""A landmark that the last steps pulled this far from where the face's statistics put it is unlikely."""
SLITS = {"lip": "mouth", "lid_left": "left eye", "lid_right": "right eye"}
REGIONS = {"mouth": "mouth", "lip": "mouth", "nose": "nose", "nas": "nose", "nos": "nose", "brow": "brows",
           "chin": "chin", "ear": "ears"}
"""How a landmark's name begins -> the part of the face, in words; eyes have one a side."""


def landmark_confidence(result: Registration) -> np.ndarray:
    """(L,) in [0,1], in the order of the template's landmarks. Those set by hand have 1."""
    template = result.prepared.template
    index = np.array(list(template.landmarks.values()))
    points = result.vertices[index]
    skin = result.prepared.skin
    normals = Surface(result.vertices[skin], result.prepared.surface.triangles, result.prepared.surface.weld).normals
    match = Finder(result.whole, samples=20000).query(points, normals[result.prepared.local[index]])
    away = np.linalg.norm(match.position - points, axis=1)
    pull = np.linalg.norm(points - result.fitted[index], axis=1)
    sure = np.exp(-((away / DISTANCE_MM) ** 2) - (pull / PULL_MM) ** 2)
    sure *= np.clip((MAX_STRANGENESS + 0.5 - result.fit.strangeness) / 1.5, 0.0, 1.0)
    regions = np.array([region_of(name) for name in template.landmarks])
    for slit in result.shut:
        sure[regions == SLITS[slit]] *= 0.45
    sure[[vertex in result.guide.landmarks for vertex in index.tolist()]] = 1.0
    return sure.astype(np.float32)


def region_of(name: str) -> str:
    """The part of the face that a landmark belongs to, in words."""
    if name.startswith("eye_"):
        return f"{name.rsplit('_', 1)[1]} eye"
    return next((region for start, region in REGIONS.items() if name.startswith(start)), "face")


def doubts(result: Registration, sure: np.ndarray) -> list[str]:
    """Warnings for regions whose landmarks are doubtful, and for openings that the mesh has not; sure (L,)."""
    found = []
    regions = np.array([region_of(name) for name in result.prepared.template.landmarks])
    weak = [region for region in dict.fromkeys(regions.tolist()) if region != "ears"
            and np.median(sure[regions == region]) < DOUBTFUL]
    shut = [SLITS[slit] for slit in result.shut]
    for region in shut:
        found.append(f"No opening was found at the {region}: if it is modelled shut it cannot open; if it lies "
                     "elsewhere, set its landmarks by hand.")
    weak = [region for region in weak if region not in shut]
    if weak:
        found.append(f"The face was found, but not surely: {', '.join(weak)}. Look at the shapes there; if they are "
                     "wrong, set the landmarks by hand.")
    return found
