"""Registration: lay the template head on any mesh of a face. Pose and scale, statistical shape, then the fine shape.

All work happens in the template's canonical frame (millimetres, y up, face to +z): a mesh is brought there by the
similarity that `facing` finds, so no step depends on its unit, axes or topology.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, diags
from scipy.sparse.linalg import SuperLU, splu
from scipy.spatial import cKDTree

from .correspond import Finder, opening_ratio
from .facing import Similarity
from .fit import Fit, SurfaceNearest, fit_shape, vertex_area
from .guide import Guide
from .locate import Progress, find_person, locate
from .mesh import Surface, split_long
from .prepared import MOUTH_REACH_MM, Prepared, labels_from, loop_pairs
from .template import Template

STIFF_FIRST, STIFF_LAST = 600.0, 0.1
"""Weight of smoothness against closeness in the first and the last non-rigid step."""
TANGENT_SHARE = 0.7
"""Share of the way along the surface that a step takes towards its closest point: all of it would let points slide."""
OPEN_RATIO = 1.5
"""The way along a mesh from the upper lip to the lower one is at least so much longer than the straight one where there
is a mouth; measured: 2.2 and more."""
OPEN_SHARE = 0.35
"""Skin nearer to the middle between the lids than this share of the way to their edges means that there is no eye."""
START_STEPS, START_TRUST = 8, 2000.0
"""Of the fit that the non-rigid steps start from; the identity is the earlier one's, which trusts the mesh less."""
LABEL_EDGE_MM = 2.0
"""Edges near lips and lids are cut to this length where upper is told from lower."""
SEED_NEAR_MM, SEED_FAR_MM = 3.0, 8.0
"""A vertex of the mesh is a seed as near as this to the template's; where a mesh has none so near, as far as that."""
FOLD_MM, FOLD_RATIO = 6.0, 1.6
"""The registration may be off by so much where lips are told apart; on one lip, ways along the skin are so much longer
than straight ones."""
PIN_WEIGHT = 30.0
"""Weight of a landmark set by hand against a vertex's closest point, in the non-rigid steps."""


@dataclass
class Registration:
    """The template laid on a mesh. Canonical millimetres unless said otherwise.

    fit: statistical shape. similarity: from here to the mesh's space. vertices (V,3): template vertices on the mesh;
    fitted (V,3): before the non-rigid steps. whole: the entire welded mesh; skin (W,) bool: its vertices that belong to
    the face's skin; labels (W,2). final_mm: mean distance of the face region at the end. guide: what the caller said,
    landmarks in the mesh's space.
    shut: those of lip, lid_left, lid_right that are no opening on this mesh.
    """

    prepared: Prepared
    fit: Fit
    similarity: Similarity
    fitted: np.ndarray
    vertices: np.ndarray
    whole: Surface
    skin: np.ndarray
    labels: np.ndarray
    final_mm: float
    guide: Guide
    shut: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def identity(self) -> np.ndarray:
        return self.fit.shape.identity if self.fit.person is None else self.fit.person


def outward(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Triangles turned so that the mesh encloses a positive volume: an inside-out export must not hide the face."""
    a, b, c = (vertices[triangles[:, k]] - vertices.mean(0) for k in range(3))
    volume = np.einsum("ij,ij->", a, np.cross(b, c))
    return triangles if volume >= 0 else triangles[:, ::-1].copy()


def register(vertices: np.ndarray, triangles: np.ndarray, template: Template, *, guide: Guide | None = None,
             fine: bool = True, progress: Progress | None = None) -> Registration:
    """Register `template` to a checked mesh (see mesh.check_mesh). `fine=False` stops after the statistical fit.

    Raises MeshError when no face is found.
    """
    report = progress or (lambda fraction, text: None)
    prepared = Prepared.of(template)
    report(0.0, "Looking for the face")
    mesh = Surface.build(vertices, outward(vertices, triangles))
    guide = guide or Guide()
    inside = np.ones(len(mesh.vertices), bool)
    if guide.area is not None:
        inside = np.bincount(mesh.weld, guide.area, minlength=len(mesh.vertices)) \
            >= 0.5 * np.bincount(mesh.weld, minlength=len(mesh.vertices))
    seen = mesh if inside.all() else Surface(mesh.vertices, mesh.triangles[inside[mesh.triangles].all(1)], mesh.weld)
    fit = locate(seen, prepared, guide, report)
    if not fine:
        return _begun(mesh, prepared, guide, replace(fit, person=find_person(seen, prepared, guide, fit)), fit)
    # Nothing below needs to know who it is, so that is found meanwhile.
    with ThreadPoolExecutor(max_workers=1) as pool:
        person = pool.submit(find_person, seen, prepared, guide, fit)
        # Where skin is smooth only the statistics keep points from sliding, so here they follow the mesh closely.
        start = fit_shape(SurfaceNearest(fit.pose, seen), prepared, guide, shape=fit.shape,
                          styled=bool(fit.shape.style.any()), steps=START_STEPS, count=3000, trust=START_TRUST)
        result = _begun(mesh, prepared, guide, fit, start)
        report(0.35, "Fitting the face")
        result.skin = skin_components(result.whole, prepared, result.fitted) & inside
        refine(result, report)
        result.fit = replace(fit, person=person.result())
    return result


def _begun(mesh: Surface, prepared: Prepared, guide: Guide, fit: Fit, start: Fit) -> Registration:
    """The registration that the non-rigid steps begin with, from the statistical fit `start`."""
    whole = Surface(start.pose.to_canonical(mesh.vertices), mesh.triangles, mesh.weld)
    fitted = prepared.head(start.shape)
    return Registration(prepared, fit, start.pose, fitted, fitted.copy(), whole, np.ones(len(whole.vertices), bool),
                        np.zeros((len(whole.vertices), 2)), fit.misfit, guide)


# -- the fine shape ------------------------------------------------------------------------------------------------

def skin_components(whole: Surface, prepared: Prepared, fitted: np.ndarray) -> np.ndarray:
    """(W,) bool: the connected parts that carry the face's outer surface (not eyeballs, teeth, lashes, clothes)."""
    points, normals, triangle = whole.sample(20000, seed=5)
    tree = cKDTree(np.concatenate([points, 8.0 * normals], 1))
    use = prepared.weight > 0.5
    normal = Surface(fitted[prepared.skin], prepared.surface.triangles, prepared.surface.weld).normals
    _, index = tree.query(np.concatenate([fitted[prepared.skin][use], 8.0 * normal[use]], 1))
    part = whole.component[whole.triangles[triangle[index], 0]]
    votes = np.bincount(part, weights=vertex_area(prepared.surface)[use], minlength=whole.component.max() + 1)
    return (votes > 0.08 * votes.sum())[whole.component]


def factorised(matrix: csc_matrix) -> SuperLU:
    """A symmetric positive definite matrix made ready to solve with: ordered as such, in 40 to 60 % of the time."""
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


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


def short_edged(whole: Surface, prepared: Prepared, placed: np.ndarray) -> tuple[Surface, np.ndarray]:
    """The mesh with short edges around the lips and lids, and where its vertices come from, as `split_long`: seeds and
    ways on a coarse mesh are few and crooked."""
    rims = placed[prepared.local[np.concatenate([*chain(*loop_pairs(prepared.template).values())])]]
    return split_long(whole, rims, MOUTH_REACH_MM, LABEL_EDGE_MM)


def target_labels(whole: Surface, skin: np.ndarray, prepared: Prepared,
                  placed: np.ndarray) -> tuple[np.ndarray, list[str], list[str]]:
    """Labels (n,2) of the mesh: seeds are its vertices on the template's seeds, spread along the mesh itself.

    whole: with short edges; skin (n,) bool: its vertices that are skin. Also ['lip'] where the mouth is no opening, and
    warnings.
    """
    warnings: list[str] = []
    flat = Surface(placed, prepared.surface.triangles, prepared.surface.weld)
    every = np.concatenate(list(prepared.seeds.values()))
    ends = placed[flat.edges[np.isin(flat.edges, every).any(1)]]
    # What is farther from all seeds lies on no triangle with a seed.
    longest = float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).max(initial=0.0))
    reach = max(SEED_NEAR_MM + longest, SEED_FAR_MM)
    index = np.flatnonzero(skin)
    index = index[np.isfinite(cKDTree(placed[every]).query(whole.vertices[index], distance_upper_bound=reach)[0])]
    match = Finder(flat).query(whole.vertices[index], whole.normals[index])
    # Near, or the rim of one coarse lip takes the other's skin for its own.
    near = np.linalg.norm(match.position - whole.vertices[index], axis=1) < SEED_NEAR_MM
    near &= (match.normal * whole.normals[index]).sum(1) > 0.5
    tree = cKDTree(np.concatenate([whole.vertices[index], 4.0 * whole.normals[index]], 1))
    seeds, shut = {}, []
    for name, own in prepared.seeds.items():
        flag = np.zeros(len(placed))
        flag[own] = 1.0
        seeds[name] = index[near & (match.interpolate(flat.triangles, flag) > 0.5)]
        if len(seeds[name]) < 3:  # a coarse mesh may have no vertex just there: those nearest
            gap, at = tree.query(np.concatenate([placed[own], 4.0 * flat.normals[own]], 1))
            seeds[name] = np.unique(index[at[gap < SEED_FAR_MM]])
        seeds[name] = seeds[name][_beyond_rim(whole.vertices[seeds[name]], placed, prepared, name)]
    for name in ("lip", "lid_left", "lid_right"):
        both = np.intersect1d(seeds[f"{name}_upper"], seeds[f"{name}_lower"])
        upper, lower = (np.setdiff1d(seeds[f"{name}_{side}"], both) for side in ("upper", "lower"))
        if len(upper) == 0 or len(lower) == 0:
            upper = lower = np.zeros(0, np.int64)
            warnings.append(f"The mesh is too coarse around the {name.replace('_', ' ')} to tell upper from lower.")
        elif name == "lip" and opening_ratio(whole, upper, lower) < OPEN_RATIO:
            shut.append(name)
        seeds[f"{name}_upper"], seeds[f"{name}_lower"] = upper, lower
    # Where a coarse mesh has no seeds, at the corners most of all, its surely matched points know their ways all the
    # same: the template's, on it.
    sure = near & (match.interpolate(flat.triangles, _by_other_lip(placed, prepared).astype(float)) < 0.1)
    known = index[sure], match.interpolate(flat.triangles, prepared.lip_ways)[sure]
    return labels_from(whole, seeds, known), shut, warnings


def _by_other_lip(placed: np.ndarray, prepared: Prepared) -> np.ndarray:
    """(S,) bool: vertices of the placed template (S,3) where a match may be on the wrong lip: those within FOLD_MM of
    one that is much farther off along the skin, and those that do not count in fitting."""
    ways = prepared.lip_ways
    index = np.flatnonzero(ways.min(1) < MOUTH_REACH_MM)
    side = ways[index, 1] - ways[index, 0]
    pairs = cKDTree(placed[index]).query_pairs(FOLD_MM, output_type="ndarray")
    apart = np.linalg.norm(placed[index[pairs[:, 0]]] - placed[index[pairs[:, 1]]], axis=1)
    # Along the skin the difference of the ways changes by twice the distance at most.
    folded = np.abs(side[pairs[:, 0]] - side[pairs[:, 1]]) > FOLD_RATIO * 2.0 * apart + 2.0
    found = prepared.weight < 0.3
    found[index[pairs[folded].ravel()]] = True
    return found


def _beyond_rim(points: np.ndarray, placed: np.ndarray, prepared: Prepared, seed: str) -> np.ndarray:
    """(N,) bool: points that lie clearly above (or below) the slit that the seeds called `seed` belong to."""
    slit, side = seed.rsplit("_", 1)
    upper, lower = (placed[prepared.local[loop]] for loop in loop_pairs(prepared.template)[slit])
    upper, lower = upper[np.argsort(upper[:, 0])], lower[np.argsort(lower[:, 0])]
    middle = (np.interp(points[:, 0], upper[:, 0], upper[:, 1]) + np.interp(points[:, 0], lower[:, 0], lower[:, 1])) / 2
    return (points[:, 1] - middle) * (1.0 if side == "upper" else -1.0) > (2.0 if slit == "lip" else 1.0)


def shut_eyes(result: Registration) -> list[str]:
    """The eyes, as lid_left and lid_right, between whose lids there is skin: modelled shut, or not the eyes at all."""
    tree = cKDTree(result.whole.sample(40000, seed=6, only=result.skin)[0])
    found = []
    for name, (upper, lower) in loop_pairs(result.prepared.template).items():
        high, low = result.vertices[upper], result.vertices[lower]
        top, bottom = high[len(high) // 2], low[len(low) // 2]
        height = float(np.linalg.norm(top - bottom))
        if name.startswith("lid") and height > 3.0 and tree.query((top + bottom) / 2)[0] < OPEN_SHARE * height / 2:
            found.append(name)
    return found


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
    pinned = prepared.local[result.guide.index]
    pin = np.zeros(len(skin.vertices))
    pin[pinned] = PIN_WEIGHT
    pin_goal = np.zeros_like(rest)
    pin_goal[pinned] = result.similarity.to_canonical(result.guide.points) - rest[pinned]
    for step in range(steps):
        report(0.35 + 0.35 * step / steps, "Fitting the face")
        if step in (3, 7):
            if step == 3:  # Rims move too little afterwards to cut the mesh anew.
                cut, origin = short_edged(whole, prepared, placed)
            labels, result.shut, result.warnings = target_labels(cut, result.skin[origin], prepared, placed)
            labels = labels[: len(whole.vertices)]
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
        weight[pinned] = 0.0
        system = (diags(weight + pin + 1e-5) + alpha * stiff).tocsc()
        right = weight[:, None] * goal + pin[:, None] * pin_goal + 1e-5 * (placed - rest)
        placed = rest + factorised(system).solve(right)
    result.labels = labels
    face = (prepared.weight > 0.5) & (weight > 0)
    result.final_mm = float(distance[face].mean()) if face.any() else float("inf")
    result.vertices = result.fitted.copy()
    result.vertices[prepared.skin] = placed
    result.shut += shut_eyes(result)
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
