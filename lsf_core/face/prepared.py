"""The template head made ready for fitting: millimetres, its skin as a surface, labels of lips and lids, styles."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .correspond import geodesic, label_of_ways, pair_label
from .mesh import Surface, triangulate
from .style import style_modes
from .template import Template

MOUTH_REACH_MM = 30.0
EYE_REACH_MM = 14.0


@dataclass
class Shape:
    """Coefficients of the statistical shape: identity (K,) whitened, style (G,) or empty where no style was needed."""

    identity: np.ndarray
    style: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def odd(self) -> float:
        """Mean square of the coefficients: about 1 for an average person."""
        both = np.concatenate([self.identity, self.style])
        return float(np.mean(both**2)) if len(both) else 0.0


@dataclass
class Prepared:
    """A template made ready: canonical millimetres, its skin as a surface, labels."""

    template: Template
    vertices: np.ndarray  # (V,3) mm
    triangles: np.ndarray  # (T,3)
    skin: np.ndarray  # (S,) vertex indices of the skin part
    local: np.ndarray  # (V,) place in `skin`, -1 elsewhere
    surface: Surface  # the skin alone, vertices in the order of `skin`
    weight: np.ndarray  # (S,) how much each skin vertex counts in fitting
    seeds: dict[str, np.ndarray]  # skin-local indices of the label seeds: lip_upper, lip_lower, lid_upper_left, ...
    labels: np.ndarray  # (S,2) mouth and eye label
    style: np.ndarray  # (G,V,3) style modes, mm

    @classmethod
    def of(cls, template: Template) -> Prepared:
        cached = getattr(template, "_prepared", None)
        if cached is not None:
            return cached
        vertices = np.asarray(template.vertices, np.float64) * 1000.0
        triangles = triangulate(np.asarray(template.faces))
        is_skin = np.asarray(template.part) == list(template.part_names).index("skin")
        skin = np.flatnonzero(is_skin)
        local = np.full(len(vertices), -1)
        local[skin] = np.arange(len(skin))
        skin_tri = local[triangles[is_skin[triangles].all(1)]]
        surface = Surface(vertices[skin], skin_tri, np.arange(len(skin)))
        seeds = {}
        for name, loops in loop_pairs(template).items():
            for side, loop in zip(("upper", "lower"), loops, strict=True):
                seeds[f"{name}_{side}"] = _outer_seeds(surface, local[loop], local[loops[1 - (side == "lower")]], name)
        result = cls(template, vertices, triangles, skin, local, surface,
                     np.asarray(template.fit_weight, np.float64)[skin], seeds, labels_from(surface, seeds),
                     style_modes(template))
        object.__setattr__(template, "_prepared", result)
        return result

    @cached_property
    def lip_ways(self) -> np.ndarray:
        """(S,2) ways along the skin from the seeds of the upper lip and of the lower one, mm, as in their label."""
        return lip_ways(self.surface, self.seeds)

    @cached_property
    def moves(self) -> np.ndarray:
        """(S,3,G+K) float32: how styles, then identity modes, move each vertex of the skin, mm."""
        return np.ascontiguousarray(np.moveaxis(np.concatenate(
            [self.style[:, self.skin].astype(np.float32), self.modes[:, self.skin]]), 0, 2))

    @property
    def modes(self) -> np.ndarray:
        """Identity modes (K,V,3) in millimetres per standard deviation."""
        return self.template.identity_modes * np.float32(1000.0)

    def eye_middle(self, side: str) -> np.ndarray:
        """Middle (3,) of an eye's lids, mm."""
        upper, lower = loop_pairs(self.template)[f"lid_{side}"]
        return self.vertices[np.concatenate([upper, lower])].mean(0)

    def head(self, shape: Shape) -> np.ndarray:
        """Vertices (V,3) mm of a shape."""
        vertices = self.vertices
        if len(shape.identity):
            vertices = vertices + np.tensordot(shape.identity, self.modes, axes=(0, 0))
        return vertices + np.tensordot(shape.style, self.style, axes=(0, 0)) if len(shape.style) else vertices


def loop_pairs(template: Template) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The openings of the face as (upper, lower) vertex loops: lip, lid_left, lid_right."""
    loops = template.loops
    return {
        "lip": (loops["lip_upper_inner"], loops["lip_lower_inner"]),
        "lid_left": (loops["lid_upper_left"], loops["lid_lower_left"]),
        "lid_right": (loops["lid_upper_right"], loops["lid_lower_right"]),
    }


def _outer_seeds(surface: Surface, loop: np.ndarray, other: np.ndarray, name: str) -> np.ndarray:
    """Skin vertices a few millimetres outside one lip or lid: near enough to be sure, far enough from the other."""
    inner, outer = (4.0, 11.0) if name == "lip" else (2.5, 8.0)
    x = surface.vertices[loop, 0]
    low, high = x.min() + 0.1 * np.ptp(x), x.max() - 0.1 * np.ptp(x)  # the corners belong to both

    def middle(rim: np.ndarray) -> np.ndarray:
        return rim[(surface.vertices[rim, 0] > low) & (surface.vertices[rim, 0] < high)]

    own = geodesic(surface, middle(loop), outer)
    across = geodesic(surface, middle(other), 3 * outer)
    facing = surface.normals[:, 2] > 0.1
    return np.flatnonzero((own >= inner) & (own <= outer) & (across > own + inner) & facing)


def lip_ways(surface: Surface, seeds: dict[str, np.ndarray], known: tuple[np.ndarray, np.ndarray] | None = None
             ) -> np.ndarray:
    """(W,2) ways along a surface from the seeds of the upper lip and of the lower one, at most 2 * MOUTH_REACH_MM.

    `known`: vertices (n,) whose ways (n,2) are known beforehand; others go on from there.
    """
    ways = []
    for k, side in enumerate(("upper", "lower")):
        own, starts = seeds[f"lip_{side}"], None
        if known is not None and len(own):
            starts = np.concatenate([np.zeros(len(own)), known[1][:, k]])
            own = np.concatenate([own, known[0]])
        ways.append(np.minimum(geodesic(surface, own, 2 * MOUTH_REACH_MM, starts), 2 * MOUTH_REACH_MM))
    return np.stack(ways, axis=1)


def labels_from(surface: Surface, seeds: dict[str, np.ndarray],
                known: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """(W,2) labels of a surface from its seeds: mouth, and both eyes in one (they are far apart). `known`: ways of the
    mouth's, as in `lip_ways`."""
    up, low = lip_ways(surface, seeds, known).T
    mouth = label_of_ways(up, low, MOUTH_REACH_MM)
    eyes = sum(pair_label(surface, seeds[f"lid_{s}_upper"], seeds[f"lid_{s}_lower"], EYE_REACH_MM)
               for s in ("left", "right"))
    return np.stack([mouth, eyes], axis=1)
