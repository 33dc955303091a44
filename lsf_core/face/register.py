"""Registration: lay the template head on any mesh of a face. Pose and scale, statistical shape, then the fine shape.

All work happens in the template's canonical frame (millimetres, y up, face to +z): a mesh is brought there by the
similarity that `facing` finds, so no step depends on its unit, axes or topology.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..errors import MeshError
from .correspond import NORMAL_MM, Finder, Match, geodesic, pair_label
from .facing import FALLBACK_SIZES, SIZES, Similarity, find_facing
from .mesh import Surface, triangulate
from .template import Template

Progress = Callable[[float, str], None]

DOUBT = 2.0
"""Above this strangeness a second, wider search is made."""
MAX_STRANGENESS = 3.0
"""Refusal limit of `strangeness`. Measured: heads 0.3-1.8, see docs/transfer.md for what is no face."""
STIFF_FIRST, STIFF_LAST = 600.0, 0.1
"""Weight of smoothness against closeness in the first and the last non-rigid step."""
TANGENT_SHARE = 0.7
"""Share of the way along the surface that a step takes towards its closest point: all of it would let points slide."""
POINT_SHARE = 0.2
"""Weight of a point-to-point residual beside a point-to-plane one in the statistical fit."""
MOUTH_REACH_MM = 30.0
EYE_REACH_MM = 14.0


@dataclass
class Prepared:
    """A template made ready: canonical millimetres, its skin as a surface, labels."""

    template: Template
    vertices: np.ndarray  # (V,3) mm
    triangles: np.ndarray  # (T,3)
    skin: np.ndarray  # (S,) vertex indices of the skin part
    surface: Surface  # the skin alone, vertices in the order of `skin`
    weight: np.ndarray  # (S,) how much each skin vertex counts in fitting
    seeds: dict[str, np.ndarray]  # skin-local indices of the label seeds: lip_upper, lip_lower, lid_upper_left, ...
    labels: np.ndarray  # (S,2) mouth and eye label

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
        result = cls(template, vertices, triangles, skin, surface,
                     np.asarray(template.fit_weight, np.float64)[skin], seeds, labels_from(surface, seeds))
        object.__setattr__(template, "_prepared", result)
        return result

    @property
    def modes(self) -> np.ndarray:
        """Identity modes (K,V,3) in millimetres per standard deviation."""
        return self.template.identity_modes * np.float32(1000.0)


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
    cut = max(1, round(0.15 * len(loop)))
    own = geodesic(surface, loop[cut:-cut], outer)
    across = geodesic(surface, other[cut:-cut], 3 * outer)
    facing = surface.normals[:, 2] > 0.1
    return np.flatnonzero((own >= inner) & (own <= outer) & (across > own + inner) & facing)


def labels_from(surface: Surface, seeds: dict[str, np.ndarray]) -> np.ndarray:
    """(W,2) labels of a surface from its seeds: mouth, and both eyes in one (they are far apart)."""
    mouth = pair_label(surface, seeds["lip_upper"], seeds["lip_lower"], MOUTH_REACH_MM)
    eyes = sum(pair_label(surface, seeds[f"lid_{s}_upper"], seeds[f"lid_{s}_lower"], EYE_REACH_MM)
               for s in ("left", "right"))
    return np.stack([mouth, eyes], axis=1)


@dataclass
class Registration:
    """The template laid on a mesh. Canonical millimetres unless said otherwise.

    vertices (V,3): template vertices on the mesh; fitted (V,3): before the non-rigid steps. identity (K,): whitened.
    whole: the entire welded mesh; skin (W,) bool: its vertices that belong to the face's skin; labels (W,2).
    misfit: of the statistical fit, see `fit_shape`; final_mm: mean distance of the face region at the end.
    """

    prepared: Prepared
    similarity: Similarity
    identity: np.ndarray
    fitted: np.ndarray
    vertices: np.ndarray
    whole: Surface
    skin: np.ndarray
    labels: np.ndarray
    misfit: float
    final_mm: float
    warnings: list[str] = field(default_factory=list)


def outward(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Triangles turned so that the mesh encloses a positive volume: an inside-out export must not hide the face."""
    a, b, c = (vertices[triangles[:, k]] - vertices.mean(0) for k in range(3))
    volume = np.einsum("ij,ij->", a, np.cross(b, c))
    return triangles if volume >= 0 else triangles[:, ::-1].copy()


def register(vertices: np.ndarray, triangles: np.ndarray, template: Template, *, fine: bool = True,
             progress: Progress | None = None) -> Registration:
    """Register `template` to a checked mesh (see mesh.check_mesh). `fine=False` stops after the statistical fit.

    Raises MeshError when no face is found.
    """
    report = progress or (lambda fraction, text: None)
    prepared = Prepared.of(template)
    report(0.0, "Looking for the face")
    mesh = Surface.build(vertices, outward(vertices, triangles))
    similarity, identity, misfit = locate(mesh, prepared, report)
    whole = Surface(similarity.to_canonical(mesh.vertices), mesh.triangles, mesh.weld)
    offset = np.tensordot(identity, prepared.modes, axes=(0, 0)) if len(identity) else 0.0
    fitted = prepared.vertices + offset
    result = Registration(prepared, similarity, identity, fitted, fitted.copy(), whole,
                          np.ones(len(whole.vertices), bool), np.zeros((len(whole.vertices), 2)), misfit, misfit)
    if fine:
        report(0.35, "Fitting the face")
        result.skin = skin_components(whole, prepared, fitted)
        refine(result, report)
    return result


# -- where it is, and the statistical shape ------------------------------------------------------------------------

def locate(mesh: Surface, prepared: Prepared, report: Progress) -> tuple[Similarity, np.ndarray, float]:
    """Best similarity, identity coefficients (K,) and mean face distance (mm); MeshError when it is no face."""
    similarity, identity, score = _search(mesh, prepared, head=True)
    if strangeness(identity, score) > DOUBT:
        report(0.2, "Looking for the face again")
        similarity, identity, score = min(((similarity, identity, score), _search(mesh, prepared, head=False)),
                                          key=lambda found: strangeness(*found[1:]))
    strange = strangeness(identity, score)
    if not strange < MAX_STRANGENESS:
        raise MeshError(
            f"No face was found in this mesh: the closest head fits with an error of {strange:.1f}, a face with less "
            f"than {MAX_STRANGENESS:.0f}. Choose the mesh of the head; if it is one, separate hair, hat and clothes."
        )
    return similarity, identity, score


def strangeness(identity: np.ndarray, score: float) -> float:
    """How unlike a face a fit is: its misfit, plus half the mean squared identity (1 for an average person).

    Enough unlikely identity lets the model imitate a blob; either number alone would let one through.
    """
    return score + 0.5 * float(np.mean(identity**2)) if len(identity) else score


def _search(mesh: Surface, prepared: Prepared, *, head: bool) -> tuple[Similarity, np.ndarray, float]:
    """Best fit over many starts: of the whole head, or of the face alone (masks, whole bodies) with finer samples."""
    points, normals, _ = mesh.sample(4000 if head else 9000, seed=1)
    rng = np.random.default_rng(2)
    skin = prepared.surface
    chance = _vertex_area(skin) * ((0.15 + prepared.weight) if head else (prepared.weight > 0.5))
    pick = rng.choice(len(skin.vertices), size=min(320, int((chance > 0).sum())), replace=False,
                      p=chance / chance.sum())
    candidates = find_facing(points, normals, skin.vertices[pick], skin.normals[pick],
                             sizes=SIZES if head else FALLBACK_SIZES)
    samples, sample_normals, _ = mesh.sample(24000 if head else 60000, seed=3)
    rough = [fit_shape(SampleNearest(start, samples, sample_normals), prepared, steps=20, count=500)
             for start in candidates]
    order = np.argsort([r[2] for r in rough])
    good = min((fit_shape(SurfaceNearest(rough[i][0], mesh), prepared, identity=rough[i][1], steps=5, count=1200)
                for i in order[:2]), key=lambda found: found[2])
    return fit_shape(SurfaceNearest(good[0], mesh), prepared, identity=good[1], steps=10, count=4000)


class SampleNearest:
    """Nearest of many samples of the mesh, in the canonical frame of `start`: fast and rough."""

    def __init__(self, start: Similarity, samples: np.ndarray, normals: np.ndarray) -> None:
        self.start, self.points, self.normals = start, start.to_canonical(samples), normals @ start.rotation
        self.tree = cKDTree(np.concatenate([self.points, NORMAL_MM * self.normals], 1))

    def __call__(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, index = self.tree.query(np.concatenate([points, NORMAL_MM * normals], 1))
        return self.points[index], self.normals[index]


class SurfaceNearest:
    """Exact closest points of the mesh's surface in the canonical frame of `start`: independent of its topology."""

    def __init__(self, start: Similarity, mesh: Surface) -> None:
        self.start = start
        self.finder = Finder(Surface(start.to_canonical(mesh.vertices), mesh.triangles, mesh.weld), samples=30000)

    def __call__(self, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        match = self.finder.query(points, normals)
        return match.position, match.normal


def _vertex_area(surface: Surface) -> np.ndarray:
    a, b, c = (surface.vertices[surface.triangles[:, k]] for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return np.bincount(surface.triangles.ravel(), np.repeat(area / 3, 3), minlength=len(surface.vertices))


def fit_shape(nearest: SampleNearest | SurfaceNearest, prepared: Prepared, *, identity: np.ndarray | None = None,
              steps: int = 12, count: int = 1500) -> tuple[Similarity, np.ndarray, float]:
    """Similarity and identity by point-to-plane iterations with a Gaussian prior on the identity.

    Returns (similarity, coefficients (K,), misfit): the misfit is the trimmed mean distance over the face in mm
    plus a penalty for normals that disagree. With `identity` given, the start is taken as already close.
    """
    skin, modes = prepared.surface, prepared.modes[:, prepared.skin]
    rng = np.random.default_rng(4)
    chance = _vertex_area(skin) * (0.03 + prepared.weight)
    pick = rng.choice(len(skin.vertices), size=min(count, int((chance > 0).sum())), replace=False,
                      p=chance / chance.sum())
    base, base_normal, weight = skin.vertices[pick], skin.normals[pick], 0.03 + prepared.weight[pick]
    basis = modes[:, pick]
    k = len(modes)
    c = np.zeros(k) if identity is None else identity.copy()
    # The search runs in the canonical frame of the start; `pose` is the correction found since.
    pose = Similarity(1.0, np.eye(3), np.zeros(3))
    score = np.inf
    for step in range(steps + 1):
        shape = base + np.tensordot(c, basis, axes=(0, 0)) if k else base
        x, n = pose.to_mesh(shape), base_normal @ pose.rotation.T
        y, m = nearest(x, n)
        gap = np.linalg.norm(x - y, axis=1)
        agree = (n * m).sum(1)
        if step == steps:
            face = weight > 0.5
            cost = (gap / pose.scale + 6.0 * (1.0 - agree))[face]
            score = float(np.sort(cost)[: int(0.85 * len(cost))].mean() + 8.0 * (1.0 - agree[face].mean()))
            break
        # From rigid to supple: a wrong pose must be mended by the pose, not painted over by a strange identity.
        t = 1.0 if identity is not None else step / max(steps - 1, 1)
        free = 0 if t < 0.3 else min(k, round(k * min(1.0, (t - 0.2) / 0.5) ** 2 + 4))
        effective = 20.0 * (300.0 / 20.0) ** t  # residuals are correlated; this many count as independent
        sigma = max(2.0, 16.0 * (1.0 - t))
        w = weight * np.clip(agree, 0, 1) ** 2 / (1 + (gap / sigma) ** 2) ** 2
        w *= effective / max(w.sum(), 1e-9)
        moving = basis[:free]
        jac = np.zeros((len(x), 3, 7 + free))
        centre = x.mean(0)
        centred = x - centre
        jac[:, 0, 1], jac[:, 0, 2] = centred[:, 2], -centred[:, 1]
        jac[:, 1, 0], jac[:, 1, 2] = -centred[:, 2], centred[:, 0]
        jac[:, 2, 0], jac[:, 2, 1] = centred[:, 1], -centred[:, 0]
        jac[:, :, 3:6] = np.eye(3)
        jac[:, :, 6] = centred
        if free:
            jac[:, :, 7:] = np.moveaxis(pose.scale * moving @ pose.rotation.T, 0, 2)
        # Point-to-plane, with a weak point-to-point part that keeps flat regions from sliding.
        plane = np.einsum("ni,nik->nk", m, jac)
        flat, w3 = jac.reshape(-1, 7 + free), np.repeat(w, 3) * POINT_SHARE
        matrix = (plane * w[:, None]).T @ plane + (flat * w3[:, None]).T @ flat
        right = (plane * w[:, None]).T @ (m * (y - x)).sum(1) + (flat * w3[:, None]).T @ (y - x).reshape(-1)
        matrix[np.arange(7, 7 + free), np.arange(7, 7 + free)] += 1.0
        right[7:] -= c[:free]
        matrix[np.diag_indices(7)] *= 1.0 + 1e-6
        solution = np.linalg.solve(matrix, right)
        turn = Rotation.from_rotvec(np.clip(solution[:3], -0.3, 0.3)).as_matrix()
        grow = float(np.exp(np.clip(solution[6], -0.1, 0.1)))
        # Turning and growing happen about the centre of the points, which decouples them from the shift.
        pose = Similarity(pose.scale * grow, turn @ pose.rotation,
                          grow * turn @ (pose.translation - centre) + centre + solution[3:6])
        c[:free] = np.clip(c[:free] + solution[7:], -4.0, 4.0)
    return nearest.start.after(pose), c, score


# -- the fine shape ------------------------------------------------------------------------------------------------

def skin_components(whole: Surface, prepared: Prepared, fitted: np.ndarray) -> np.ndarray:
    """(W,) bool: the connected parts that carry the face's outer surface (not eyeballs, teeth, lashes, clothes)."""
    points, normals, triangle = whole.sample(20000, seed=5)
    tree = cKDTree(np.concatenate([points, 8.0 * normals], 1))
    use = prepared.weight > 0.5
    normal = Surface(fitted[prepared.skin], prepared.surface.triangles, prepared.surface.weld).normals
    _, index = tree.query(np.concatenate([fitted[prepared.skin][use], 8.0 * normal[use]], 1))
    part = whole.component[whole.triangles[triangle[index], 0]]
    votes = np.bincount(part, weights=_vertex_area(prepared.surface)[use], minlength=whole.component.max() + 1)
    return (votes > 0.08 * votes.sum())[whole.component]


def smoothness(surface: Surface) -> csr_matrix:
    """Umbrella operator (W,W): value minus the mean of the neighbours, edges weighted by 1/length (Taubin 1995)."""
    e = surface.edges
    w = 1.0 / np.maximum(np.linalg.norm(surface.vertices[e[:, 0]] - surface.vertices[e[:, 1]], axis=1), 0.05)
    n = len(surface.vertices)
    both = np.concatenate([e, e[:, ::-1]])
    adjacency = coo_matrix((np.tile(w, 2), (both[:, 0], both[:, 1])), shape=(n, n)).tocsr()
    degree = np.asarray(adjacency.sum(1)).ravel()
    used = degree > 0
    return diags(used.astype(float)) - diags(np.where(used, 1 / np.maximum(degree, 1e-12), 0.0)) @ adjacency


def target_labels(whole: Surface, skin: np.ndarray, prepared: Prepared,
                  placed: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Labels (W,2) of the mesh: seeds are its vertices on the template's seeds, spread along the mesh itself."""
    warnings: list[str] = []
    flat = Surface(placed, prepared.surface.triangles, prepared.surface.weld)
    index = np.flatnonzero(skin)
    match = Finder(flat).query(whole.vertices[index], whole.normals[index])
    near = np.linalg.norm(match.position - whole.vertices[index], axis=1) < 8.0
    near &= (match.normal * whole.normals[index]).sum(1) > 0.5
    seeds = {}
    for name, own in prepared.seeds.items():
        flag = np.zeros(len(placed))
        flag[own] = 1.0
        seeds[name] = index[near & (match.interpolate(flat.triangles, flag) > 0.5)]
    for name in ("lip", "lid_left", "lid_right"):
        if len(seeds[f"{name}_upper"]) == 0 or len(seeds[f"{name}_lower"]) == 0:
            seeds[f"{name}_upper"] = seeds[f"{name}_lower"] = np.zeros(0, np.int64)
            warnings.append(f"The mesh is too coarse around the {name.replace('_', ' ')} to tell upper from lower.")
    return labels_from(whole, seeds), warnings


def refine(result: Registration, report: Progress, steps: int = 12) -> None:
    """Non-rigid steps from stiff to soft; fills `vertices`, `labels`, `final_mm` of the registration."""
    prepared, whole = result.prepared, result.whole
    skin = prepared.surface
    rest = result.fitted[prepared.skin]
    allowed = result.skin[whole.triangles].all(1)
    # The operator is taken on the template's own mean: the identity must not change what counts as smooth.
    lap = smoothness(skin)
    stiff = (lap.T @ lap).tocsc()
    placed = rest.copy()
    labels = np.zeros((len(whole.vertices), 2))
    finder = Finder(whole, labels, samples=40000, allowed=allowed)
    match: Match | None = None
    for step in range(steps):
        report(0.35 + 0.35 * step / steps, "Fitting the face")
        if step in (3, 7):
            labels, result.warnings = target_labels(whole, result.skin, prepared, placed)
            finder = Finder(whole, labels, samples=40000, allowed=allowed)
        current = Surface(placed, skin.triangles, skin.weld)
        query_labels = prepared.labels if step >= 3 else np.zeros_like(prepared.labels)
        match = finder.query(placed, current.normals, query_labels)
        gap = match.position - placed
        distance = np.linalg.norm(gap, axis=1)
        agree = (match.normal * current.normals).sum(1)
        weight = prepared.weight * np.clip((agree - 0.3) / 0.5, 0, 1)
        weight /= (1 + (distance / max(3.0, 12.0 - step)) ** 2) ** 2
        weight[np.abs(match.label - query_labels).max(1) > 1.0] = 0.0  # the other lip or lid: no match at all
        along = gap - (gap * match.normal).sum(1, keepdims=True) * match.normal
        goal = placed + gap - (1.0 - TANGENT_SHARE) * along - rest
        alpha = STIFF_FIRST * (STIFF_LAST / STIFF_FIRST) ** (step / (steps - 1))
        system = (diags(weight + 1e-5) + alpha * stiff).tocsc()
        placed = rest + splu(system).solve(weight[:, None] * goal + 1e-5 * (placed - rest))
    result.labels = labels
    face = (prepared.weight > 0.5) & (weight > 0)
    result.final_mm = float(distance[face].mean()) if face.any() else float("inf")
    result.vertices = result.fitted.copy()
    result.vertices[prepared.skin] = placed
    other = np.setdiff1d(np.arange(len(result.fitted)), prepared.skin)
    if len(other):
        result.vertices[other] += carry_inside(rest, placed - rest, weight, result.fitted[other])


def carry_inside(skin: np.ndarray, shift: np.ndarray, weight: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Displacements (P,3) of teeth, tongue, eyes and lashes: the skin's around each, widely blurred."""
    use = np.flatnonzero(weight > 0.2)
    if len(use) == 0:
        return np.zeros_like(points)
    distance, index = cKDTree(skin[use]).query(points, k=min(60, len(use)))
    w = 1.0 / (distance + 4.0) ** 3
    w /= w.sum(1, keepdims=True)
    return np.einsum("nk,nki->ni", w, shift[use][index])
