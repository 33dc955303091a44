"""What a person says about a face: corrected landmarks and the area in which it lies. Checked before anything is
done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import MeshError
from .template import Template

FAR = 0.15
"""A landmark farther from the mesh than this share of its size is a mistake."""


@dataclass(frozen=True)
class Guide:
    """landmarks: template vertex -> point (3,) in the mesh's space. area (V,) weights in [0,1], or None: everywhere."""

    landmarks: dict[int, np.ndarray] = field(default_factory=dict)
    area: np.ndarray | None = None

    @property
    def index(self) -> np.ndarray:
        """(P,) template vertices of the landmarks."""
        return np.array(list(self.landmarks), np.int64)

    @property
    def points(self) -> np.ndarray:
        """(P,3) where they lie, in the mesh's space."""
        return np.array(list(self.landmarks.values()), np.float64).reshape(-1, 3)


def check_guide(landmarks: Mapping[str, Sequence[float]] | None, area: np.ndarray | None, vertices: np.ndarray,
                template: Template) -> Guide:
    """A Guide from what a caller gives, or a MeshError that names what is wrong with it."""
    found: dict[int, np.ndarray] = {}
    size = float(np.ptp(vertices, axis=0).max())
    for name, place in (landmarks or {}).items():
        if name not in template.landmarks:
            raise MeshError(f"There is no landmark {name!r}. Known: {', '.join(sorted(template.landmarks))}.")
        point = np.asarray(place, np.float64)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise MeshError(f"The landmark {name!r} is {place!r}; three finite numbers are needed.")
        away = float(np.sqrt(((vertices - point) ** 2).sum(1).min()))
        if away > FAR * size:
            raise MeshError(f"The landmark {name!r} lies {away:.3g} from the mesh, which is {size:.3g} in size. Move "
                            "it onto the face, in the mesh's own space.")
        found[template.landmarks[name]] = point
    if area is None:
        return Guide(found)
    area = np.asarray(area, np.float64)
    if area.shape != (len(vertices),) or not np.isfinite(area).all():
        raise MeshError(f"The face area has the shape {area.shape}; one finite weight for each of the {len(vertices)} "
                        "vertices is needed.")
    area = np.clip(area, 0.0, 1.0)
    if (area >= 0.5).sum() < 100:
        raise MeshError(f"The face area holds only {int((area >= 0.5).sum())} vertices. Paint the whole face, from "
                        "the brows to the chin.")
    return Guide(found, area)


def read_landmarks(path: str | Path) -> dict[str, list[float]]:
    """Landmarks of a JSON file {"name": [x, y, z], ...}. Raises MeshError when it is none."""
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MeshError(f"The landmarks '{path}' cannot be read ({error}).") from error
    if not isinstance(read, dict) or not all(isinstance(place, list) for place in read.values()):
        raise MeshError(f'The landmarks \'{path}\' are not of the form {{"nose_tip": [x, y, z], ...}}.')
    return read
