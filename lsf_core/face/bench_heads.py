"""Heads for the bench: people of two families, warped into styles, remeshed, dirtied and dressed, with the truth kept.

A Base is a head in its family's own topology with the family's shapes. Whatever is done to its mesh is kept as a sparse
matrix from the base's vertices to the new ones, so the truth of every vertex is known on every mesh. Lengths in mm,
y up, the face to +z, until `Head.posed` turns them anyhow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from scipy.spatial.transform import Rotation

from ..arkit import INDEX
from .bench_mesh import cap, collar, decimate, glasses, merge_faces, split_faces, subdivide
from .facing import Similarity
from .mesh import Surface, triangulate
from .template import Template

Warp = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Base:
    """vertices (V,3) mm, faces (M,4; -1 pads), part (V,) names, truth (52,V,3) mm, loops and landmarks as in
    Template."""

    family: str
    vertices: np.ndarray
    faces: np.ndarray
    part: np.ndarray
    truth: np.ndarray
    loops: dict[str, np.ndarray]
    landmarks: dict[str, int]

    @classmethod
    def of(cls, family: str, template: Template, vertices: np.ndarray) -> Base:
        names = np.array(template.part_names)
        return cls(family, vertices, template.faces, names[template.part],
                   template.expressions.astype(np.float64) * 1000.0, template.loops, template.landmarks)

    def warped(self, warp: Warp) -> Base:
        """The head in another style; its truth is what the warp makes of the moved head."""
        rest = warp(self.vertices)
        truth = np.stack([warp(self.vertices + d) - rest for d in self.truth])
        return replace(self, vertices=rest, truth=truth)

    def parted(self, jaw: float) -> Base:
        """The head with its mouth open by a share of jawOpen in the neutral."""
        return replace(self, vertices=self.vertices + jaw * self.truth[INDEX["jawOpen"]])

    def without(self, *parts: str) -> Base:
        """Less the faces of the named parts; vertices stay (loose ones are part of the test)."""
        keep = ~np.isin(self.part[np.maximum(self.faces, 0)], parts).any(1)
        return replace(self, faces=self.faces[keep])

    def centre(self, name: str) -> np.ndarray:
        """A point of the face by name: eye_left, eye_right, mouth, or a landmark."""
        loops = {"eye_left": ("lid_upper_left", "lid_lower_left"), "eye_right": ("lid_upper_right", "lid_lower_right"),
                 "mouth": ("lip_upper_inner", "lip_lower_inner")}
        rings = loops.get(name)
        return self.vertices[np.concatenate([self.loops[r] for r in rings])].mean(0) if rings else \
            self.vertices[self.landmarks[name]]


# -- styles ---------------------------------------------------------------------------------------------------------

def swell(points: np.ndarray, centre: np.ndarray, sigma: float, factor: float) -> np.ndarray:
    """Displacement that scales the surroundings of `centre` by `factor`, fading out over `sigma` mm."""
    out = points - centre
    return (factor - 1.0) * out * np.exp(-(out**2).sum(-1, keepdims=True) / (2 * sigma**2))


def ramp(values: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at 0 to 1 at 1."""
    t = np.clip(values, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def style(base: Base, *, eyes: float = 1.0, nose: float = 1.0, mouth: float = 1.0, jaw: float = 1.0, chin: float = 0.0,
          skull: float = 1.0, height: float = 1.0, depth: float = 1.0, skew: float = 0.0) -> Base:
    """A stylised copy: local scales of the eyes, nose and mouth, width of the jaw, `chin` mm longer, size of the
    cranium, whole height and depth; `skew` mm shifts one eye up and the mouth's corner to the side."""
    left, right, lips = (base.centre(n) for n in ("eye_left", "eye_right", "mouth"))
    between = (left + right) / 2
    tip = np.array([between[0], 0.35 * between[1] + 0.65 * lips[1], lips[2] + 6.0])
    apart = float(np.linalg.norm(left - right))

    def warp(p: np.ndarray) -> np.ndarray:
        q = p + swell(p, left, 0.32 * apart, eyes) + swell(p, right, 0.32 * apart, eyes)
        q = q + swell(p, tip, 0.24 * apart, nose) + swell(p, lips, 0.5 * apart, mouth)
        low = ramp((between[1] - 0.2 * apart - p[:, 1]) / (1.2 * apart))[:, None]
        q = q + low * ((jaw - 1.0) * (p - between) * [1, 0, 0.3] + [0, -chin, 0])
        up = ramp((p[:, 1] - between[1] - 0.2 * apart) / apart)[:, None]
        q = q + up * (skull - 1.0) * (p - between)
        side = ramp((p[:, 0] - between[0]) / apart + 0.5)[:, None]
        q = q + skew * side * np.array([0.0, 0.8, 0.2]) + skew * low * np.array([1.0, 0.0, 0.0])
        return between + (q - between) * [1.0, height, depth]

    return base.warped(warp)


STYLES: dict[str, dict[str, float]] = {
    "big eyes": {"eyes": 1.5, "nose": 0.65, "skull": 1.2, "jaw": 0.88},
    "chibi": {"eyes": 1.7, "nose": 0.5, "mouth": 0.75, "skull": 1.35, "jaw": 0.85, "depth": 0.9},
    "jaw": {"jaw": 1.35, "chin": 14.0, "skull": 0.92},
    "long": {"height": 1.2, "chin": 8.0, "nose": 1.25},
    "wide": {"height": 0.86, "jaw": 1.25, "mouth": 1.3},
    "nose": {"nose": 1.7, "eyes": 0.85, "chin": -8.0},
    "flat": {"depth": 0.75, "eyes": 1.3},
    "doll": {"eyes": 1.35, "nose": 0.7, "mouth": 0.85, "jaw": 0.8, "chin": -5.0, "skull": 1.12},
}


# -- meshes ---------------------------------------------------------------------------------------------------------

@dataclass(eq=False)
class Head:
    """One mesh of the bench: vertices (N,3), faces, recipe (N,V): which base vertices each comes from (empty: none)."""

    name: str
    base: Base
    vertices: np.ndarray
    faces: np.ndarray | list[list[int]]
    recipe: sp.csr_matrix
    pose: Similarity = field(default_factory=lambda: Similarity(1.0, np.eye(3), np.zeros(3)))

    @classmethod
    def of(cls, name: str, base: Base) -> Head:
        return cls(name, base, base.vertices, base.faces, sp.identity(len(base.vertices), format="csr"))

    @cached_property
    def known(self) -> np.ndarray:
        """(N,) bool: vertices with a truth."""
        return np.asarray(self.recipe.sum(1)).ravel() > 0.5

    def remeshed(self, recipe: sp.spmatrix, faces: np.ndarray | list[list[int]]) -> Head:
        recipe = sp.csr_matrix(recipe)
        return replace(self, vertices=recipe @ self.vertices, faces=faces, recipe=recipe @ self.recipe)

    def with_parts(self, *extra: tuple[np.ndarray, np.ndarray]) -> Head:
        """Joined with other objects' meshes (vertices, quads)."""
        vertices, faces, count = [self.vertices], [list(map(int, f)) for f in self._polygons()], len(self.vertices)
        for points, quads in extra:
            faces += [[int(i) + count for i in f] for f in quads]
            vertices.append(points)
            count += len(points)
        recipe = sp.vstack([self.recipe, sp.csr_matrix((count - len(self.vertices), self.recipe.shape[1]))]).tocsr()
        return replace(self, vertices=np.concatenate(vertices), faces=faces, recipe=recipe)

    def _polygons(self) -> list[list[int]]:
        faces = self.faces.tolist() if isinstance(self.faces, np.ndarray) else self.faces
        return [[i for i in face if i >= 0] for face in faces]

    def decimated(self, count: int) -> Head:
        keep = np.zeros(len(self.vertices), bool)
        keep[np.concatenate(list(self.base.loops.values()))] = True  # artists' low heads keep their rings
        return self.remeshed(*decimate(self.vertices, triangulate(self.faces), count, keep))

    def subdivided(self, count: int) -> Head:
        return self.remeshed(*subdivide(triangulate(self.faces), len(self.vertices), count))

    def polygons_merged(self, seed: int) -> Head:
        return replace(self, faces=merge_faces(triangulate(self.faces), seed))

    def dirtied(self, seed: int) -> Head:
        """Split seams, doubled faces, fins on edges (three faces at one edge), loose vertices, shuffled order."""
        rng = np.random.default_rng(seed)
        rows, triangles = split_faces(triangulate(self.faces), len(self.vertices), rng)
        head = self.remeshed(sp.identity(len(self.vertices), format="csr")[rows], triangles)
        fins = triangles[rng.choice(len(triangles), 40)].copy()
        size = np.ptp(self.vertices, axis=0).max()
        loose = rng.normal(size=(60, 3)) * size
        fins[:, 2] = len(head.vertices) + np.arange(40)
        faces = np.concatenate([triangles, triangles[rng.choice(len(triangles), 30)], fins])
        near = head.vertices[fins[:, 0]] + rng.normal(size=(40, 3)) * 0.3
        head = replace(head, vertices=np.concatenate([head.vertices, near, loose]), faces=faces, recipe=sp.vstack(
            [head.recipe, sp.csr_matrix((100, head.recipe.shape[1]))]).tocsr())
        return head.shuffled(seed)

    def shuffled(self, seed: int) -> Head:
        order = np.random.default_rng(seed).permutation(len(self.vertices))
        back = np.argsort(order)
        return replace(self, vertices=self.vertices[order], faces=back[triangulate(self.faces)],
                       recipe=self.recipe[order])

    def no_mouth_bag(self) -> Head:
        """Less what lies behind the lips: teeth and tongue too."""
        base = self.base
        lips = base.vertices[np.concatenate([base.loops["lip_upper_inner"], base.loops["lip_lower_inner"]])]
        low, high = lips.min(0), lips.max(0)
        inside = (np.abs(base.vertices[:, 0] - lips[:, 0].mean()) < 0.8 * np.ptp(lips[:, 0])) \
            & (base.vertices[:, 1] > low[1] - 30) & (base.vertices[:, 1] < high[1] + 25)
        # Behind the front of the teeth, as far as the rest of the mouth is joined to it by the mesh.
        deep = base.vertices[:, 2] < lips[:, 2].max() - 9.0
        ring = np.zeros(len(base.vertices), bool)
        ring[np.concatenate([base.loops["lip_upper_inner"], base.loops["lip_lower_inner"]])] = True
        behind = inside & deep & ~ring & (base.part != "skin")
        surface = Surface(base.vertices, triangulate(base.faces), np.arange(len(base.vertices)))
        inward = inside & ~ring & (surface.normals[:, 2] < -0.05) & (base.part == "skin") \
            & (base.vertices[:, 2] > lips[:, 2].min() - 40)
        gone = behind | inward
        faces = base.faces[~gone[np.maximum(base.faces, 0)].any(1)]
        return replace(self, faces=faces)

    def dressed(self, *what: str) -> Head:
        base = self.base
        made = {"hair": lambda: cap(base.vertices, base.faces, base.part == "skin", base.centre("eye_left"),
                                    base.centre("eye_right")),
                "glasses": lambda: glasses(base.centre("eye_left"), base.centre("eye_right")),
                "collar": lambda: collar(base.vertices[base.part == "skin"], body=False),
                "body": lambda: collar(base.vertices[base.part == "skin"], body=True)}
        return self.with_parts(*(made[w]() for w in what))

    def posed(self, seed: int) -> Head:
        rng = np.random.default_rng(seed)
        pose = Similarity(10.0 ** rng.uniform(-3, 1), Rotation.random(random_state=seed).as_matrix(),
                          rng.normal(size=3) * 300.0)
        return replace(self, vertices=pose.to_mesh(self.vertices), pose=pose)
