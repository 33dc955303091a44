"""Meshes as arrays: loading, triangulation, checks, and the welded surface that the registration works on.

Nothing here knows a unit or an axis: lengths are the mesh's own. The caller's vertex order is never changed; where
doubled vertices must be joined (an exporter splits them at texture seams), an internal copy with a map back is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..errors import MeshError

MIN_VERTICES = 200
"""Fewer than this cannot hold lips and lids; such a mesh is refused."""


def load_mesh(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mesh file: .obj, or .npz with arrays `vertices` (V,3) and `faces` (M,3|4, -1 pads).

    Returns vertices (V,3) float64 in file order and units, and triangles (T,3) int32 (polygons are split as fans).
    Raises MeshError when the file is missing, unreadable, of another kind, or holds no usable mesh.
    """
    path = Path(path)
    if not path.is_file():
        raise MeshError(f"The mesh file {path} does not exist. Check the path.")
    kind = path.suffix.lower()
    try:
        if kind == ".obj":
            vertices, faces = _read_obj(path)
        elif kind == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                missing = {"vertices", "faces"} - set(archive.files)
                if missing:
                    raise MeshError(f"{path.name} has no array {min(missing)!r}. Save 'vertices' (V,3) and 'faces'.")
                vertices, faces = archive["vertices"], archive["faces"]
        else:
            raise MeshError(f"{path.name}: meshes are read from .obj or .npz, not {kind or 'a file without ending'}.")
    except MeshError:
        raise
    except Exception as error:
        raise MeshError(f"The mesh file {path} cannot be read ({error}). Export it again.") from error
    return check_mesh(vertices, faces)


def _read_obj(path: Path) -> tuple[np.ndarray, list[list[int]]]:
    """Vertices and polygons of a Wavefront .obj; only `v` and `f` lines matter, negative indices count from the end."""
    vertices: list[tuple[float, float, float]] = []
    faces: list[list[int]] = []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("v "):
                x, y, z = line.split()[1:4]
                vertices.append((float(x), float(y), float(z)))
            elif line.startswith("f "):
                corner = [int(part.split("/", 1)[0]) for part in line.split()[1:]]
                faces.append([c - 1 if c > 0 else len(vertices) + c for c in corner])
    return np.asarray(vertices, float).reshape(-1, 3), faces


def triangulate(faces: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """Triangles (T,3) int32 of (M,3) triangles, (M,4) quads with -1 as padding, or a list of polygons (fans).

    A fan is enough here: only positions near the surface are asked of it, never its diagonal.
    """
    if isinstance(faces, np.ndarray) and faces.dtype != object:
        if faces.size == 0:
            return np.zeros((0, 3), np.int32)
        if faces.ndim != 2 or faces.shape[1] < 3:
            raise MeshError(f"Faces have the shape {faces.shape}; (M,3) or (M,4) is needed.")
        fans = [faces[:, [0, k, k + 1]] for k in range(1, faces.shape[1] - 1)]
        triangles = np.stack(fans, 1).reshape(-1, 3).astype(np.int64)
        return triangles[(triangles >= 0).all(1)].astype(np.int32)
    by_length: dict[int, list[Sequence[int]]] = {}
    for polygon in faces:
        by_length.setdefault(len(polygon), []).append(polygon)
    parts = [triangulate(np.asarray(group, np.int64)) for n, group in sorted(by_length.items()) if n >= 3]
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.int32)


def check_mesh(vertices: np.ndarray, faces: np.ndarray | Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Checked (vertices (V,3) float64, triangles (T,3) int32), or a MeshError that names the fault and the cure."""
    vertices = np.asarray(vertices, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise MeshError(f"Vertices have the shape {vertices.shape}; (V,3) is needed.")
    if len(vertices) == 0:
        raise MeshError("The mesh has no vertices. Choose a head mesh.")
    bad = ~np.isfinite(vertices).all(1)
    if bad.any():
        raise MeshError(
            f"{int(bad.sum())} of {len(vertices)} vertices are NaN or infinite (first: vertex {int(np.argmax(bad))}). "
            "Delete or repair them."
        )
    triangles = triangulate(faces)
    if len(triangles) == 0:
        raise MeshError("The mesh has no faces, only vertices. Choose a mesh with a surface.")
    if triangles.max() >= len(vertices):
        raise MeshError(f"A face uses vertex {int(triangles.max())}, but the mesh has only {len(vertices)}. Repair it.")
    if len(vertices) < MIN_VERTICES:
        raise MeshError(
            f"The mesh has only {len(vertices)} vertices; a head with lips and eyelids needs at least {MIN_VERTICES}. "
            "Choose a head mesh, or subdivide it."
        )
    if np.ptp(vertices, axis=0).max() <= 0:
        raise MeshError("All vertices lie on one point. Choose a head mesh.")
    return vertices, triangles


def triangle_normals(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (T,3) and areas (T,) of triangles; a degenerate triangle has a zero normal."""
    a, b, c = vertices[triangles[:, 0]], vertices[triangles[:, 1]], vertices[triangles[:, 2]]
    cross = np.cross(b - a, c - a)
    length = np.linalg.norm(cross, axis=1)
    return cross / np.maximum(length, 1e-30)[:, None], 0.5 * length


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit vertex normals (V,3); zero where a vertex has no face."""
    normal, area = triangle_normals(vertices, triangles)
    weighted = normal * area[:, None]
    total = np.stack([
        np.bincount(triangles.ravel(), np.repeat(weighted[:, k], 3), minlength=len(vertices)) for k in range(3)
    ], axis=1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30)


def unique_edges(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undirected edges (E,2), sorted within, and how many triangles use each (E,)."""
    a, b, c = np.asarray(triangles, np.int64).reshape(-1, 3).T
    start, end = np.concatenate([a, b, c]), np.concatenate([b, c, a])
    size = int(max(start.max(), end.max())) + 1 if len(start) else 1
    # As single numbers: sorting those is ten times faster than sorting rows.
    key, count = np.unique(np.minimum(start, end) * size + np.maximum(start, end), return_counts=True)
    return np.stack([key // size, key % size], axis=1), count


def weld_map(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """For each vertex (V,) the index of the welded vertex it belongs to.

    Vertices are joined when they coincide (1e-6 of the mesh's size), both lie on an open edge, and their surfaces do
    not face each other: an exporter's seam is joined; two lips or lids that touch are not, or they would stay shut.
    """
    edges, count = unique_edges(triangles)
    border = np.zeros(len(vertices), bool)
    border[edges[count == 1].ravel()] = True
    index = np.flatnonzero(border)
    target = np.arange(len(vertices))
    if len(index) < 2:
        return target
    size = float(np.ptp(vertices, axis=0).max())
    pairs = cKDTree(vertices[index]).query_pairs(1e-6 * size, output_type="ndarray")
    if len(pairs) == 0:
        return target
    pairs = index[pairs]
    normal = vertex_normals(vertices, triangles)
    pairs = pairs[(normal[pairs[:, 0]] * normal[pairs[:, 1]]).sum(1) > -0.2]
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(vertices),) * 2)
    _, group = connected_components(graph, directed=False)
    return group


@dataclass
class Surface:
    """A welded triangle mesh with what closest-point searches need. Lengths in the unit of `vertices`.

    vertices (W,3), triangles (T,3), normals (W,3); `weld` (V,) maps the caller's vertices to these.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    weld: np.ndarray
    normals: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.normals = vertex_normals(self.vertices, self.triangles)

    @cached_property
    def edges(self) -> np.ndarray:
        """Undirected edges (E,2)."""
        return unique_edges(self.triangles)[0]

    @cached_property
    def component(self) -> np.ndarray:
        """Number (W,) of the connected part that each vertex belongs to."""
        n = len(self.vertices)
        graph = coo_matrix((np.ones(len(self.edges)), (self.edges[:, 0], self.edges[:, 1])), shape=(n, n))
        return connected_components(graph, directed=False)[1]

    @classmethod
    def build(cls, vertices: np.ndarray, triangles: np.ndarray) -> Surface:
        """Weld (V,3) vertices and (T,3) triangles; degenerate triangles are dropped, unused vertices kept."""
        group = weld_map(vertices, triangles)
        welded, inverse = np.unique(group, return_inverse=True)
        first = np.zeros(len(welded), np.int64)
        first[inverse[::-1]] = np.arange(len(vertices))[::-1]
        triangles = inverse[triangles]
        flat = (triangles[:, 0] == triangles[:, 1]) | (triangles[:, 1] == triangles[:, 2])
        flat |= triangles[:, 2] == triangles[:, 0]
        return cls(np.asarray(vertices, np.float64)[first], triangles[~flat], inverse)

    @cached_property
    def edge_graph(self) -> csr_matrix:
        """Symmetric (W,W) matrix of edge lengths."""
        edges = self.edges
        length = np.linalg.norm(self.vertices[edges[:, 0]] - self.vertices[edges[:, 1]], axis=1)
        n = len(self.vertices)
        both = np.concatenate([edges, edges[:, ::-1]])
        # A zero length would vanish from the sparse graph and tear it; the floor keeps the edge.
        return csr_matrix((np.maximum(np.tile(length, 2), 1e-9), (both[:, 0], both[:, 1])), shape=(n, n))

    def sample(self, count: int, seed: int = 0, only: np.ndarray | None = None
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points spread evenly by area: positions (count,3), unit triangle normals (count,3), triangle (count,).

        `only` (W,) bool: on triangles whose corners are all in it.
        """
        normal, area = triangle_normals(self.vertices, self.triangles)
        if only is not None:
            area = area * only[self.triangles].all(1)
        rng = np.random.default_rng(seed)
        # Stratified along the cumulated area: far more even than independent draws.
        total = np.cumsum(area)
        at = (np.arange(count) + rng.random(count)) / count * total[-1]
        tri = np.minimum(np.searchsorted(total, at), len(area) - 1)
        u, v = rng.random((2, count))
        flip = u + v > 1
        u[flip], v[flip] = 1 - u[flip], 1 - v[flip]
        a, b, c = (self.vertices[self.triangles[tri, k]] for k in range(3))
        return a + u[:, None] * (b - a) + v[:, None] * (c - a), normal[tri], tri


ROUNDNESS = 0.75
"""Share of the way to the tangent planes, after Boubekeur and Alexa, Phong Tessellation (SIGGRAPH Asia 2008)."""


def split_long(surface: Surface, near: np.ndarray, reach: float, longest: float, *, rounded: bool = False,
               rounds: int = 5) -> tuple[Surface, np.ndarray]:
    """A copy whose edges within `reach` of the points `near` (N,3) are at most `longest`, and the vertex (n,) of
    `surface` that each of its vertices comes from; the first ones are those of `surface`, in their order.

    Triangles are cut into four, round by round. At the border of the cut region an edge stays whole for one of its two
    triangles: good for ways along the surface and for points on it, not for fields that need a closed mesh.
    `rounded`: new vertices bulge as the normals at their edge's ends say, but not at creases. The facets of a coarse
    face lie up to 2 mm under the face that its vertices were taken from.
    """
    vertices, normals, done, open_ = surface.vertices, surface.normals, [], surface.triangles
    origin = np.arange(len(vertices))
    tree = cKDTree(near)
    for _ in range(rounds):
        corner = vertices[open_]
        size = np.linalg.norm(corner[:, [1, 2, 0]] - corner, axis=2).max(1)
        cut = size > longest
        if cut.any():
            # Nothing beyond the largest reach is looked for: most of a mesh is far from the face.
            away, _ = tree.query(corner[cut].mean(1), distance_upper_bound=reach + size[cut].max())
            cut[cut] = away < reach + size[cut]
        if not cut.any():
            break
        done.append(open_[~cut])
        edges, _ = unique_edges(open_[cut])
        key = edges[:, 0].astype(np.int64) * len(vertices) + edges[:, 1]
        a, b, c = open_[cut].astype(np.int64).T
        ab, bc, ca = (len(vertices) + np.searchsorted(key, np.minimum(i, j) * len(vertices) + np.maximum(i, j))
                      for i, j in ((a, b), (b, c), (c, a)))
        open_ = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        middle, ends = vertices[edges].mean(1), normals[edges]
        if rounded:
            over = ((middle[:, None] - vertices[edges]) * ends).sum(2, keepdims=True) * ends  # the tangent planes
            alike = (ends[:, 0] * ends[:, 1]).sum(1, keepdims=True)
            middle = middle - ROUNDNESS * np.clip((alike - 0.3) / 0.4, 0.0, 1.0) * over.mean(1)
        normal = ends.sum(1)
        normals = np.concatenate([normals, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)])
        vertices = np.concatenate([vertices, middle])
        origin = np.concatenate([origin, origin[edges[:, 0]]])
    return Surface(vertices, np.concatenate([*done, open_]), surface.weld), origin
