"""Changes of a mesh's topology that know where each new vertex comes from, and things that heads wear. For the
bench."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from .mesh import triangle_normals, unique_edges


def decimate(vertices: np.ndarray, triangles: np.ndarray, count: int, keep: np.ndarray
             ) -> tuple[sp.csr_matrix, np.ndarray]:
    """Collapse edges into one of their ends until about `count` vertices are used; vertices in `keep` stay.

    Quadric error (Garland and Heckbert 1997), many independent collapses a round. Returns the rows that choose the
    surviving vertices, and the new triangles.
    """
    n = len(vertices)
    triangles = np.asarray(triangles, np.int64).copy()
    normal, area = triangle_normals(vertices, triangles)
    plane = np.concatenate([normal, -(normal * vertices[triangles[:, 0]]).sum(1, keepdims=True)], 1)
    outer = (area[:, None, None] * plane[:, :, None] * plane[:, None, :]).reshape(-1, 16)
    quadric = np.stack([np.bincount(triangles.ravel(), np.repeat(outer[:, k], 3), minlength=n) for k in range(16)], 1)
    point = np.concatenate([vertices, np.ones((n, 1))], 1)
    edges, times = unique_edges(triangles)
    fixed = keep.copy()
    fixed[edges[times != 2].ravel()] = True
    while True:
        used = len(np.unique(triangles))
        if used <= count:
            break
        edges, _ = unique_edges(triangles)
        pairs = np.concatenate([edges, edges[:, ::-1]])  # from, to
        pairs = pairs[~fixed[pairs[:, 0]]]
        both = (quadric[pairs[:, 0]] + quadric[pairs[:, 1]]).reshape(-1, 4, 4)
        at = point[pairs[:, 1]]
        length = np.linalg.norm(vertices[pairs[:, 0]] - vertices[pairs[:, 1]], axis=1)
        cost = np.einsum("ei,eij,ej->e", at, both, at) + 1e-3 * length**3
        taken = np.zeros(n, bool)
        target = np.arange(n)
        around = sp.csr_matrix((np.ones(2 * len(edges), bool), (np.r_[edges[:, 0], edges[:, 1]],
                                                               np.r_[edges[:, 1], edges[:, 0]])), shape=(n, n))
        budget, done = max(1, min(used - count, used // 8)), 0
        corners = sp.csr_matrix((np.ones(triangles.size, bool), (triangles.ravel(), np.repeat(
            np.arange(len(triangles)), 3))), shape=(n, len(triangles)))
        for e in np.argsort(cost)[: 6 * budget]:
            a, b = pairs[e]
            ring = around.indices[around.indptr[a]: around.indptr[a + 1]]
            if taken[a] or taken[b] or taken[ring].any():
                continue
            shared = np.intersect1d(ring, around.indices[around.indptr[b]: around.indptr[b + 1]])
            if len(shared) != 2:
                continue
            mine = triangles[corners.indices[corners.indptr[a]: corners.indptr[a + 1]]]
            mine = mine[~(mine == b).any(1)]
            before = triangle_normals(vertices, mine)[0]
            after = triangle_normals(vertices, np.where(mine == a, b, mine))[0]
            if ((before * after).sum(1) < 0.2).any():
                continue
            target[a] = b
            taken[ring] = taken[a] = taken[b] = True
            done += 1
            if done >= budget:
                break
        if not done:
            break
        moved = np.flatnonzero(target != np.arange(n))
        np.add.at(quadric, target[moved], quadric[moved])
        triangles = target[triangles]
        flat = (triangles[:, 0] == triangles[:, 1]) | (triangles[:, 1] == triangles[:, 2])
        triangles = triangles[~(flat | (triangles[:, 2] == triangles[:, 0]))]
    used, inverse = np.unique(triangles, return_inverse=True)
    return sp.identity(n, format="csr")[used], inverse.reshape(triangles.shape)


def subdivide(triangles: np.ndarray, vertices: int, count: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """Each triangle into four while that stays under `count` vertices, then centres into as many as are missing."""
    matrix = sp.identity(vertices, format="csr")
    while True:
        edges, _ = unique_edges(triangles)
        total = matrix.shape[0] + len(edges)
        if total > count:
            break
        middle = sp.csr_matrix((np.full(2 * len(edges), 0.5), (np.repeat(np.arange(len(edges)), 2), edges.ravel())),
                               shape=(len(edges), matrix.shape[0]))
        key = edges[:, 0] * matrix.shape[0] + edges[:, 1]

        def of(a: np.ndarray, b: np.ndarray, key: np.ndarray = key, n: int = matrix.shape[0]) -> np.ndarray:
            return n + np.searchsorted(key, np.minimum(a, b) * n + np.maximum(a, b))

        a, b, c = triangles.astype(np.int64).T
        ab, bc, ca = of(a, b), of(b, c), of(c, a)
        triangles = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        matrix = sp.vstack([matrix, middle @ matrix]).tocsr()
    missing = min(max(count - matrix.shape[0], 0), len(triangles))
    pick = np.random.default_rng(0).permutation(len(triangles))[:missing]
    n = matrix.shape[0]
    centre = sp.csr_matrix((np.full(3 * missing, 1 / 3), (np.repeat(np.arange(missing), 3), triangles[pick].ravel())),
                           shape=(missing, n))
    new = n + np.arange(missing)
    fans = [np.stack([triangles[pick, k], triangles[pick, (k + 1) % 3], new], 1) for k in range(3)]
    triangles = np.concatenate([np.delete(triangles, pick, axis=0), *fans])
    return sp.vstack([matrix, centre @ matrix]).tocsr(), triangles


def merge_faces(triangles: np.ndarray, seed: int) -> list[list[int]]:
    """Polygons: the fans round many vertices that share no triangle become n-gons without their middle vertex's
    edges."""
    rng = np.random.default_rng(seed)
    owner: dict[tuple[int, int], int] = {}
    free = np.ones(len(triangles), bool)
    for t, (a, b, c) in enumerate(triangles.tolist()):
        for i, j in ((a, b), (b, c), (c, a)):
            owner[i, j] = t
    polygons = []
    for t in rng.permutation(len(triangles)).tolist():
        if not free[t]:
            continue
        free[t] = False
        polygon = triangles[t].tolist()
        for _ in range(int(rng.integers(0, 3))):  # up to pentagons
            for k in range(len(polygon)):
                a, b = polygon[k], polygon[(k + 1) % len(polygon)]
                other = owner.get((b, a))
                if other is None or not free[other]:
                    continue
                apex = next(v for v in triangles[other].tolist() if v not in (a, b))
                if apex in polygon:
                    continue
                free[other] = False
                polygon.insert(k + 1, apex)
                break
        polygons.append(polygon)
    return polygons


def split_faces(triangles: np.ndarray, vertices: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Seams as exporters leave them: a third of the faces get vertices of their own. -> rows of old vertices,
    triangles"""
    triangles = triangles.copy().astype(np.int64)
    apart = rng.random(len(triangles)) < 0.33
    rows = np.concatenate([np.arange(vertices), triangles[apart].ravel()])
    triangles[apart] = vertices + np.arange(3 * apart.sum()).reshape(-1, 3)
    return rows, triangles


# -- things that heads wear -----------------------------------------------------------------------------------------

def _grid(points: np.ndarray, around: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Quads of a grid of points (A,B,3), closed along B."""
    a, b = points.shape[:2]
    index = np.arange(a * b).reshape(a, b)
    right = np.roll(index, -1, axis=1) if around else index[:, 1:]
    left = index if around else index[:, :-1]
    quads = np.stack([left[:-1], right[:-1], right[1:], left[1:]], -1).reshape(-1, 4)
    return points.reshape(-1, 3), quads


def tube(path: np.ndarray, radius: float, sides: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A tube along a path (N,3)."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, [0.3, 0.9, 0.31])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, along)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    around = np.cos(angle)[:, None] * side[:, None] + np.sin(angle)[:, None] * up[:, None]
    return _grid(path[:, None] + radius * around)


def glasses(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rims, bridge and temples."""
    apart = np.linalg.norm(left - right)
    turn = np.linspace(0, 2 * np.pi, 49)
    ring = np.stack([np.cos(turn), np.sin(turn), 0 * turn], 1) * [0.4 * apart, 0.33 * apart, 0]
    front = np.array([0.0, 0.0, 0.25 * apart])
    pieces = [tube(c + front + ring, 1.5) for c in (left, right)]
    step = np.linspace(0, 1, 12)[:, None]
    for centre, sign in ((left, 1.0), (right, -1.0)):
        outer = centre + front + [sign * 0.42 * apart, 0, 0]
        pieces.append(tube(outer + step * [sign * 0.25 * apart, 0, -1.6 * apart], 1.5))
    pieces.append(tube((left + right) / 2 + front + (step - 0.5) * [0.22 * apart, 0, 0], 1.5))
    return _join(pieces)


def _join(pieces: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    start = np.cumsum([0, *(len(p) for p, _ in pieces)])
    quads = [q + s for (_, q), s in zip(pieces, start, strict=False)]
    return np.concatenate([p for p, _ in pieces]), np.concatenate(quads)


def cap(vertices: np.ndarray, faces: np.ndarray, skin: np.ndarray, left: np.ndarray, right: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray]:
    """Hair: the scalp's faces a centimetre out, a shell with an inside, falling lower at the back."""
    between, apart = (left + right) / 2, np.linalg.norm(left - right)
    quads = faces[(faces >= 0).all(1)]
    middle = vertices[quads].mean(1)
    high = middle[:, 1] > between[1] + apart * np.clip(0.75 + 0.02 * (middle[:, 2] - between[2]), -1.2, 0.75)
    quads = quads[skin[quads].all(1) & high]
    used, local = np.unique(quads, return_inverse=True)
    local = local.reshape(quads.shape)
    centre = between - [0, 0, 1.2 * apart]
    out = vertices[used] - centre
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    wave = 2.0 * np.sin(0.35 * vertices[used][:, :1]) * np.sin(0.3 * vertices[used][:, 1:2])
    return _join([(vertices[used] + (10.0 + wave) * out, local), (vertices[used] + 3.0 * out, local[:, ::-1])])


def collar(skin: np.ndarray, *, body: bool) -> tuple[np.ndarray, np.ndarray]:
    """A collar round the neck, or a whole simple body with shoulders, arms hanging, down to the feet."""
    low = skin[:, 1].min()
    neck = skin[skin[:, 1] < low + 25]
    middle, width = neck.mean(0), np.ptp(neck[:, 0]) / 2
    if not body:
        profile = [(1.1, 20.0), (1.25, 24.0), (1.5, 0.0), (1.6, -20.0), (1.4, -18.0)]
    else:
        profile = [(0.95, 8.0), (1.1, -10.0), (2.0, -40.0), (3.3, -75.0), (3.4, -250.0), (2.6, -400.0), (2.9, -560.0),
                   (2.4, -900.0), (1.6, -1300.0)]
        heights = np.linspace(8.0, -1300.0, 60)
        radii = np.interp(-heights, [-h for _, h in profile], [r for r, _ in profile])
        profile = list(zip(radii.tolist(), heights.tolist(), strict=True))
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    rows = [np.stack([middle[0] + width * r * np.sin(angle), np.full(48, low + h),
                      middle[2] + width * (0.55 * r + 0.35) * np.cos(angle)], 1) for r, h in profile]
    return _grid(np.stack(rows)[::-1])
