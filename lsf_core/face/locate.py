"""Which part of a mesh is a face, in which pose, and whose: several ways to look, from the likely to the desperate."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..errors import MeshError
from .facing import FALLBACK_SIZES, SIZES, Similarity, descend, find_facing, starts_around, starts_at_eyes
from .fit import Fit, SampleNearest, SurfaceNearest, fit_shape, vertex_area
from .guide import Guide
from .mesh import Surface, split_long
from .prepared import Prepared, Shape
from .sphere import eye_pairs
from .style import STYLE_NAMES

Progress = Callable[[float, str], None]

GOOD = 1.4
"""Up to this strangeness a fit is taken at once; above it the next way to look is tried too."""
FAIR = 2.0
"""Above this strangeness the wide and slow ways to look are tried as well."""
COARSE, FINE = (5, 1200), (10, 4000)
"""Steps and points of the fits on the mesh itself: of those that are compared, and of the one that is taken."""
PERSON = ((24, 1200), (10, 4000))
"""Steps and points of the fits that the identity is read from."""
LONG = 2.5
"""A body is at least so many times longer than thick."""
ROUND_REACH_MM, ROUND_EDGE_MM = 10.0, 4.0
"""For the identity, edges this near to the face are cut to this length and rounded."""
ROUND_POINT_SHARE = 0.05
"""As fit.POINT_SHARE: where triangles are large, the place on them says little."""
MAX_STRANGENESS = 3.0
"""Refusal limit of `Fit.strangeness`. Measured: heads 0.3-2, see docs/transfer.md for what is no face."""


def locate(mesh: Surface, prepared: Prepared, guide: Guide, report: Progress) -> Fit:
    """Best pose and shape of the template's head on a mesh; MeshError when it is no face."""
    best: Fit | None = None
    for count, (limit, look) in enumerate(_ways(mesh, prepared, guide)):
        if best is not None and best.strangeness < limit:
            continue
        report(min(0.3, 0.05 * count), "Looking for the face" if count < 2 else "Looking for the face again")
        fit = look(best)
        if fit is not None and (best is None or fit.strangeness < best.strangeness):
            best = fit
    if best is None or not best.strangeness < MAX_STRANGENESS:
        raise MeshError(
            "No face was found in this mesh"
            + (f": the closest head fits with an error of {best.strangeness:.1f}, a face with less than "
               f"{MAX_STRANGENESS:.0f}" if best else "")
            + ". Choose the mesh of the head; if it is one, separate hair, hat and clothes, limit the area to the face "
            "or set the landmarks by hand."
        )
    return best


def find_person(mesh: Surface, prepared: Prepared, guide: Guide, fit: Fit) -> np.ndarray:
    """Identity (K,) that depends little on the mesh: its facets rounded, and without a style.

    Without, because a face near the limit of what needs a style must keep its identity on whichever side of it another
    mesh of the same face falls.
    """
    face = prepared.head(fit.shape)[prepared.skin][prepared.weight > 0.5]
    scale = fit.pose.scale
    smooth, _ = split_long(mesh, fit.pose.to_mesh(face), ROUND_REACH_MM * scale, ROUND_EDGE_MM * scale, rounded=True)
    # From nobody: begun at the shape found, the same face in another mesh may stay in another dip of the misfit.
    shape = Shape(np.zeros_like(fit.shape.identity))
    for steps, count in PERSON:
        fit = fit_shape(SurfaceNearest(fit.pose, smooth), prepared, guide, shape=shape, steps=steps, count=count,
                        point_share=ROUND_POINT_SHARE)
        shape = fit.shape
    return shape.identity


def _ways(mesh: Surface, prepared: Prepared, guide: Guide
          ) -> Iterator[tuple[float, Callable[[Fit | None], Fit | None]]]:
    """Ways to look, each with the strangeness above which it is worth its time; given the best fit so far."""
    look = Look(mesh, prepared, guide)
    if len(guide.landmarks) >= 3:  # what a person says is not searched for elsewhere
        yield GOOD, lambda best: look.at_landmarks(styled=False)
        yield GOOD, lambda best: look.at_landmarks(styled=True)
        return
    yield GOOD, lambda best: look.at_eyes(styled=False)
    yield FAIR, lambda best: look.everywhere(SIZES, whole=True)
    # What people do not explain may be a style. A good people's fit is left alone: its identity is the surer one.
    yield GOOD, lambda best: look.at_eyes(styled=True)
    yield 0.9 * GOOD, lambda best: look.around(best)
    yield FAIR, lambda best: look.everywhere(FALLBACK_SIZES, whole=False)
    yield MAX_STRANGENESS, lambda best: look.at_ends()


class Look:
    """The ways to look for the template's head on one mesh; each returns its best Fit, or None."""

    def __init__(self, mesh: Surface, prepared: Prepared, guide: Guide) -> None:
        self.mesh, self.prepared, self.guide = mesh, prepared, guide
        self.head, self.face = (self._model(whole) for whole in (True, False))
        self.pairs = eye_pairs(mesh)

    def _model(self, whole: bool) -> tuple[np.ndarray, np.ndarray]:
        """320 points and normals of the template's skin: of the whole head, or of the face alone."""
        skin, weight = self.prepared.surface, self.prepared.weight
        chance = vertex_area(skin) * ((0.15 + weight) if whole else (weight > 0.5))
        pick = np.random.default_rng(2).choice(len(skin.vertices), size=min(320, int((chance > 0).sum())),
                                               replace=False, p=chance / chance.sum())
        return skin.vertices[pick], skin.normals[pick]

    def everywhere(self, sizes: tuple[float, ...], *, whole: bool) -> Fit:
        """Any turn, any place, the model as large as `sizes` of the mesh."""
        points, normals, _ = self.mesh.sample(4000 if whole else 9000, seed=1)
        candidates = find_facing(points, normals, *(self.head if whole else self.face), sizes=sizes)
        return self._best(candidates, *self.mesh.sample(24000 if whole else 60000, seed=3)[:2], styled=False)

    def at_eyes(self, *, styled: bool) -> Fit | None:
        """At pairs of like balls, which eyes are."""
        left, right = (self.prepared.eye_middle(side) for side in ("left", "right"))
        best: Fit | None = None
        for first, second in self.pairs:
            apart = float(np.linalg.norm(first - second))
            points, normals = self._crop((first + second) / 2, 2.8 * apart)
            if len(points) < 400:
                continue
            candidates = descend(points[::8], normals[::8], *self.face, starts_at_eyes(first, second, left, right),
                                 keep=2, apart_mm=15.0)
            fit = self._near(candidates, points, normals, styled=styled)
            if best is None or fit.strangeness < best.strangeness:
                best = fit
            if best.strangeness < FAIR:
                break
        if best is None:
            return None
        if not styled and best.strangeness < FAIR:
            # Once more with the whole head in sight: the way there must not decide between two like faces.
            again = self._near([best.pose], *self._head_at(best.pose), styled=False)
            best = min(best, again, key=lambda fit: fit.strangeness)
        return self._on_mesh(best.pose, best.shape, styled, *FINE)

    def around(self, best: Fit | None) -> Fit | None:
        """Near the best so far, with the face free of its skull, and styles."""
        if best is None:
            return None
        points, normals = self._head_at(best.pose)
        if len(points) < 400:
            return None
        candidates = descend(points[::6], normals[::6], *self.face, starts_around(best.pose, self.face[0]), keep=6,
                             apart_mm=10.0)
        return self._best([*candidates, best.pose], points, normals, styled=True)

    def at_ends(self) -> Fit | None:
        """At both ends of the mesh's longest axis, in slices as large as the head of a body."""
        points, normals, _ = self.mesh.sample(60000, seed=3)
        spread, axes = np.linalg.eigh(np.cov(points.T))
        if spread[2] < LONG**2 * spread[0]:
            return None  # no body: as a head it was looked for already
        along = points @ axes[:, 2]
        low, high = np.percentile(along, [0.05, 99.95])
        best: Fit | None = None
        for share in (0.14, 0.2):
            for inside in (along > high - share * (high - low), along < low + share * (high - low)):
                if inside.sum() < 800:
                    continue
                every = max(1, int(inside.sum()) // 4000)
                candidates = find_facing(points[inside][::every], normals[inside][::every], *self.head,
                                         sizes=(1.2, 0.9))
                fit = self._best(candidates, points[inside], normals[inside], styled=False)
                if best is None or fit.strangeness < best.strangeness:
                    best = fit
                if best.strangeness < GOOD:
                    return best
        return best

    def at_landmarks(self, *, styled: bool) -> Fit:
        """At landmarks set by hand. Raises MeshError where they are no face's."""
        source, target = self.prepared.vertices[self.guide.index], self.guide.points
        start, off = similarity_of(source, target)
        if off > 0.35 * np.sqrt(((source - source.mean(0)) ** 2).sum(1).mean()):
            raise MeshError(f"The {len(source)} landmarks do not form a face: they miss one by {off:.0f} mm on "
                            "average. Left and right are the subject's own; see whether two are swapped.")
        points, normals = self._crop(start.to_mesh(self.prepared.vertices.mean(0)[None])[0], 300.0 * start.scale)
        return self._best([start], points, normals, styled=styled)

    def _head_at(self, pose: Similarity) -> tuple[np.ndarray, np.ndarray]:
        """Samples of the mesh where a pose puts the head."""
        middle = self.prepared.vertices[self.prepared.skin].mean(0)
        return self._crop(pose.to_mesh(middle[None])[0], 260.0 * pose.scale)

    def _crop(self, centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Up to 24,000 even samples of the mesh around a point."""
        near = (np.linalg.norm(self.mesh.vertices - centre, axis=1) < radius)[self.mesh.triangles].any(1)
        if not near.any():
            return np.zeros((0, 3)), np.zeros((0, 3))
        part = Surface(self.mesh.vertices, self.mesh.triangles[near], self.mesh.weld)
        points, normals, _ = part.sample(24000, seed=3)
        inside = np.linalg.norm(points - centre, axis=1) < radius
        return points[inside], normals[inside]

    def _best(self, starts: list[Similarity], points: np.ndarray, normals: np.ndarray, *, styled: bool) -> Fit:
        """The fit of the shape from the best of the starts."""
        good = self._near(starts, points, normals, styled=styled)
        return self._on_mesh(good.pose, good.shape, styled, *FINE)

    def _near(self, starts: list[Similarity], points: np.ndarray, normals: np.ndarray, *, styled: bool) -> Fit:
        """Fit the shape from each start on samples, the best three of them on the mesh itself; near the best fit."""
        begins = self._begins() if styled else [None]
        rough = [fit_shape(SampleNearest(start, points, normals), self.prepared, self.guide, shape=begin, styled=styled,
                           close=False, steps=20, count=500) for start in starts for begin in begins]
        rough.sort(key=lambda fit: fit.strangeness)
        return min((self._on_mesh(fit.pose, fit.shape, styled, *COARSE) for fit in rough[:3]),
                   key=lambda fit: fit.strangeness)

    def _begins(self) -> list[Shape | None]:
        """Styles to begin with: in a long or a short face every feature lies nearest to another one of the mean
        face."""
        if not len(self.prepared.style):
            return [None]
        tall = np.eye(len(STYLE_NAMES))[STYLE_NAMES.index("height")]
        plain = np.zeros(len(self.prepared.modes))
        return [None, *(Shape(plain, size * tall) for size in (1.8, -1.2))]

    def _on_mesh(self, pose: Similarity, shape: Shape, styled: bool, steps: int, count: int) -> Fit:
        return fit_shape(SurfaceNearest(pose, self.mesh), self.prepared, self.guide, shape=shape, styled=styled,
                         steps=steps, count=count)


def similarity_of(source: np.ndarray, target: np.ndarray) -> tuple[Similarity, float]:
    """Similarity that best takes source (N,3) to target (N,3) (Umeyama 1991), and the mean miss in source's unit."""
    ms, mt = source.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((target - mt).T @ (source - ms))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ flip @ vt
    scale = float(np.trace(np.diag(s) @ flip) / max(((source - ms) ** 2).sum(), 1e-12))
    scale = max(scale, 1e-9)
    found = Similarity(scale, rotation, mt - scale * rotation @ ms)
    return found, float(np.linalg.norm(found.to_mesh(source) - target, axis=1).mean() / scale)
