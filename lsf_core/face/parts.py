"""What is not skin: eyeballs turn about their own centres, lower teeth and tongue follow the jaw, lashes their lid.

Each connected part of the mesh is recognised by where it lies on the registered template and by its shape. All in
canonical millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..arkit import ARKIT_NAMES
from .register import Registration
from .sphere import fit_sphere

MOUTH_MM = 12.0
"""A part whose vertices lie, in the median, this near the template's teeth or tongue is part of the mouth."""

EYE_POINTS, EYE_SIZES, EYE_SHELL = 6, (0.5, 2.0), 1.15
"""Of eyes: vertices that a ball needs, its size over the template's, how far a cornea rises over the white."""

RIM_MM = 2.5
"""A part whose vertices lie, in the median, this near the rims of the lids is none of the eye."""

RIDE_MM = 5.0
"""Parts that lie nearer to the skin than this, such as brows and stubble, bend with it; others are stiff."""


@dataclass
class Part:
    """A connected part of the mesh: vertices (n,) welded indices; kind: eye_left, eye_right, mouth, lash or loose."""

    kind: str
    vertices: np.ndarray
    centre: np.ndarray


def rigid(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3,3) and translation (3,) that best move source (N,3) to target (N,3) (Kabsch 1976)."""
    ms, mt = source.mean(0), target.mean(0)
    u, _, vt = np.linalg.svd((target - mt).T @ (source - ms))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    return rotation, mt - rotation @ ms


def template_part(result: Registration, name: str) -> np.ndarray:
    """Vertex indices of a part of the template, empty if it has none of that name."""
    names = list(result.prepared.template.part_names)
    if name not in names:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.asarray(result.prepared.template.part) == names.index(name))


def eye_centre(result: Registration, side: str) -> tuple[np.ndarray, float]:
    """Where the registered template expects an eyeball's centre, and its radius in mm."""
    index = template_part(result, f"eye_{side}")
    if len(index) >= 8:
        centre, radius, _ = fit_sphere(result.vertices[index])
        return centre, radius
    loops = result.prepared.template.loops
    rim = np.concatenate([loops[f"lid_upper_{side}"], loops[f"lid_lower_{side}"]])
    return result.vertices[rim].mean(0) - np.array([0.0, 0.0, 9.0]), 12.0


def find_parts(result: Registration) -> list[Part]:
    """The connected parts that are not skin, each with its kind."""
    whole = result.whole
    teeth = {n: template_part(result, n) for n in ("teeth_upper", "teeth_lower", "tongue")}
    inside = np.concatenate(list(teeth.values()))
    mouth_tree = cKDTree(result.vertices[inside]) if len(inside) else None
    lids = {side: np.concatenate([result.prepared.template.loops[f"lid_{v}_{side}"] for v in ("upper", "lower")])
            for side in ("left", "right")}
    lip_front = result.vertices[result.prepared.template.loops["lip_upper_inner"]][:, 2].max()
    rims = np.concatenate([result.vertices[lids["left"]], result.vertices[lids["right"]]])
    pieces = _pieces(result)
    centres = _eyes(result, pieces, rims)
    found = []
    for k, vertices in enumerate(pieces):
        points = whole.vertices[vertices]
        kind, centre = centres.get(k, ("loose", points.mean(0)))
        if kind == "loose" and mouth_tree is not None and points[:, 2].mean() < lip_front \
                and np.median(mouth_tree.query(points)[0]) < MOUTH_MM:
            kind = "mouth"
        if kind == "loose" and cKDTree(rims).query(points)[0].max() < 16:
            kind = "lash"
        found.append(Part(kind, vertices, centre))
    return found


def _pieces(result: Registration) -> list[np.ndarray]:
    """Vertex indices of each connected part of the mesh that is not skin."""
    whole = result.whole
    used = np.zeros(len(whole.vertices), bool)
    used[whole.triangles.ravel()] = True
    order = np.argsort(whole.component, kind="stable")
    bounds = np.flatnonzero(np.diff(whole.component[order])) + 1
    return [p for p in np.split(order, bounds) if used[p[0]] and not result.skin[p].any()]


def _eyes(result: Registration, pieces: list[np.ndarray], rims: np.ndarray) -> dict[int, tuple[str, np.ndarray]]:
    """Which pieces belong to an eye: its kind and the centre about which it turns; rims (n,3) of the lids.

    White, cornea, iris and pupil may be pieces of their own and turn about one centre, that of the largest ball: the
    fit to a cornea alone, or to a half-ball's iris, has another.
    """
    found: dict[int, tuple[str, np.ndarray]] = {}
    clouds = {k: result.whole.vertices[piece] for k, piece in enumerate(pieces)}
    for side in ("left", "right"):
        middle, expected = eye_centre(result, side)
        near = {k: p for k, p in clouds.items() if k not in found
                and np.linalg.norm(p - middle, axis=1).max() < EYE_SIZES[1] * expected + max(9.0, 0.5 * expected)}
        balls = []
        for k, points in near.items():
            if len(points) < EYE_POINTS:
                continue
            ball, radius, error = fit_sphere(points)
            spread = np.linalg.svd(points - points.mean(0), compute_uv=False) / np.sqrt(len(points))
            fits = EYE_SIZES[0] < radius / expected < EYE_SIZES[1] and error < 0.12 * radius
            if fits and spread[1] > 0.2 * radius and np.linalg.norm(ball - middle) < max(9.0, 0.5 * expected):
                balls.append((float(np.ptp(points, axis=0).max()), len(points), k, ball, radius))
        if not balls:
            continue
        _, _, _, centre, radius = max(balls, key=lambda ball: ball[:2])
        for k, points in near.items():
            inside = np.linalg.norm(points - centre, axis=1).max() < EYE_SHELL * radius
            # What lies along the rims, such as a line of tears, goes with the lids.
            along = np.median(cKDTree(rims).query(points)[0]) < RIM_MM
            if any(ball[2] == k for ball in balls) or (inside and not along):
                found[k] = (f"eye_{side}", centre)
    return found


def eye_turns(result: Registration, side: str) -> dict[int, np.ndarray]:
    """Rotation (3,3) of an eye in each of its eyeLook shapes, by the shape's place in ARKIT_NAMES."""
    index = template_part(result, f"eye_{side}")
    if len(index) < 8:
        return {}
    rest = result.prepared.vertices[index]
    moves = 1000.0 * result.prepared.template.expressions[:, index]
    return {k: rigid(rest, rest + moves[k])[0] for k, name in enumerate(ARKIT_NAMES)
            if name.startswith("eyeLook") and name.endswith(side.capitalize())}


def part_deltas(result: Registration, parts: list[Part], skin_index: np.ndarray, skin_deltas: np.ndarray,
                on_template: np.ndarray, jaw_scale: float) -> list[np.ndarray]:
    """Deltas (52,n,3) mm of each part.

    skin_deltas (52,m,3): of the mesh's skin vertices skin_index (m,). on_template (52,S,3): of the registered skin.
    """
    moves = MouthMoves(result, parts, jaw_scale)
    tree = cKDTree(result.whole.vertices[skin_index])
    out = []
    for part in parts:
        points = result.whole.vertices[part.vertices]
        if part.kind.startswith("eye_"):
            out.append(_eye_deltas(result, part, points))
        elif part.kind.startswith("mouth"):
            out.append(moves.deltas(part, points))
        elif part.kind == "lash":
            out.append(_lash_deltas(result, points, on_template))
        else:
            distance, near = tree.query(points, k=8)
            weight = 1.0 / (distance + 0.3) ** 2
            weight /= weight.sum(1, keepdims=True)
            weight *= np.clip(2.0 - distance[:, :1] / 15.0, 0.0, 1.0)  # hair and clothes off the face stay
            ride = np.stack([np.einsum("nk,nki->ni", weight, shape[near]) for shape in skin_deltas])
            out.append(ride if np.median(distance[:, 0]) < RIDE_MM else _stiff(points, ride, distance[:, 0]))
    return out


def _stiff(points: np.ndarray, ride: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Deltas (52,n,3) of a part that does not bend, such as glasses: it goes with the skin that it is nearest to."""
    held = np.argsort(distance)[: max(12, len(points) // 6)]
    out = np.zeros_like(ride)
    for k, move in enumerate(ride):
        if np.abs(move[held]).max() > 1e-3:
            turn, slide = rigid(points[held], points[held] + move[held])
            out[k] = points @ turn.T + slide - points
    return out


def _eye_deltas(result: Registration, part: Part, points: np.ndarray) -> np.ndarray:
    deltas = np.zeros((len(ARKIT_NAMES), len(points), 3))
    for k, turn in eye_turns(result, part.kind[4:]).items():
        deltas[k] = (points - part.centre) @ (turn - np.eye(3)).T
    return deltas


class MouthMoves:
    """Motion of teeth, gums and tongue: rigid for teeth, the template's own for the tongue, blended in mixed parts.

    Every part of the mouth is first called upper, lower, tongue or mixed; gums then go with the mesh's own teeth.
    """

    def __init__(self, result: Registration, parts: list[Part], jaw_scale: float) -> None:
        self.result, self.jaw_scale = result, jaw_scale
        self.index = {n: i for n in ("teeth_upper", "teeth_lower", "tongue") if len(i := template_part(result, n))}
        self.trees = {n: cKDTree(result.vertices[i]) for n, i in self.index.items()}
        own: dict[str, list[np.ndarray]] = {"teeth_upper": [], "teeth_lower": []}
        for part in parts:
            if part.kind == "mouth":
                points = result.whole.vertices[part.vertices]
                part.kind = f"mouth_{self._name(points)}"
                if part.kind[6:] in own:
                    own[part.kind[6:]].append(points)
        self.near = dict(self.trees)
        if all(own.values()):
            self.near |= {n: cKDTree(np.concatenate(points)) for n, points in own.items()}

    def _name(self, points: np.ndarray) -> str:
        names = list(self.trees)
        distance = np.stack([self.trees[n].query(points)[0] for n in names])
        teeth = [i for i, n in enumerate(names) if n != "tongue"]
        if np.ptp(points, axis=0).max() < 26.0 and teeth:  # a single tooth with its root
            return names[teeth[int(distance[teeth].mean(1).argmin())]]
        share = np.bincount(distance.argmin(0), minlength=len(names)) / len(points)
        return names[int(share.argmax())] if share.max() > 0.7 else "mixed"

    def deltas(self, part: Part, points: np.ndarray) -> np.ndarray:
        """(52,n,3) for the points (n,3) of one connected part."""
        names = list(self.index)
        name = part.kind[6:]
        if name in names:
            weight = np.zeros((len(names), len(points)))
            weight[names.index(name)] = 1.0
        else:
            weight = np.stack([1.0 / (self.near[n].query(points)[0] + 1.0) ** 4 for n in names])
            weight /= weight.sum(0)
            # Averaged over neighbours, or the border between upper and lower gum tears into folds.
            _, around = cKDTree(points).query(points, k=min(12, len(points)))
            for _ in range(4):
                weight = weight[:, around].mean(-1)
        out = np.zeros((len(ARKIT_NAMES), len(points), 3))
        for n, w in zip(names, weight, strict=True):
            if w.max() > 1e-6:
                out += self.jaw_scale * w[:, None] * self._field(n, points)
        return out

    def _field(self, name: str, points: np.ndarray) -> np.ndarray:
        index = self.index[name]
        rest = self.result.prepared.vertices[index]
        shift = self.result.vertices[index].mean(0) - rest.mean(0)
        move = 1000.0 * self.result.prepared.template.expressions[:, index].astype(np.float64)
        near, which = self.trees[name].query(points, k=min(8, len(index)))
        soft = 1.0 / (near + 0.5) ** 2
        soft /= soft.sum(1, keepdims=True)
        out = np.zeros((len(move), len(points), 3))
        for k in range(len(move)):
            if not np.abs(move[k]).max() > 1e-3:
                continue
            if name == "tongue":
                out[k] = np.einsum("nk,nki->ni", soft, move[k][which])
            else:
                turn, slide = rigid(rest, rest + move[k])
                out[k] = (points - shift) @ (turn - np.eye(3)).T + slide
        return out


def _lash_deltas(result: Registration, points: np.ndarray, on_template: np.ndarray) -> np.ndarray:
    """Lashes (52,n,3) move with the rims of the lids, each vertex with the nearer one: a part may hold both rows."""
    local = np.full(len(result.vertices), -1)
    local[result.prepared.skin] = np.arange(len(result.prepared.skin))
    side = "left" if points[:, 0].mean() > result.vertices[:, 0].mean() else "right"
    total, out = np.zeros(len(points)), np.zeros((len(on_template), len(points), 3))
    for lid in ("upper", "lower"):
        loop = result.prepared.template.loops[f"lid_{lid}_{side}"]
        distance, near = cKDTree(result.vertices[loop]).query(points, k=5)
        weight = 1.0 / (distance + 0.5) ** 2
        weight /= weight.sum(1, keepdims=True)
        share = 1.0 / (distance[:, 0] + 0.3) ** 6
        total += share
        out += share[:, None] * np.einsum("nk,snki->sni", weight, on_template[:, local[loop]][:, near])
    return out / total[:, None]
