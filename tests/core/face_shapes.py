"""Meshes for the face tests, made from the shipped template: other people, other topologies, things without a face."""

from __future__ import annotations

import numpy as np

from lsf_core.face import load_template
from lsf_core.face.mesh import triangulate


def person(seed: int, spread: float = 0.8) -> np.ndarray:
    """Template vertices (V,3) in metres of a random identity."""
    template = load_template()
    return template.head(np.random.default_rng(seed).normal(size=32) * spread).astype(np.float64)


def part_mesh(vertices: np.ndarray, *parts: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Only the named parts of the template: vertices, faces (M,4), and which template vertices they are."""
    template = load_template()
    keep = template.of_part(*parts)
    new = np.full(len(vertices), -1)
    new[keep] = np.arange(len(keep))
    faces = template.faces
    inside = np.isin(faces, keep).all(1)
    return vertices[keep], new[faces[inside]], keep


def remesh(vertices: np.ndarray, faces: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Another topology of the same surface: a vertex in every triangle, the old edges flipped away, order shuffled.

    Returns vertices, triangles and a matrix-free recipe (N,3) of template corners: new vertex = mean of the three
    (old vertices name themselves three times), so that any field of the template is known on the new mesh.
    """
    triangles = triangulate(faces)
    count = len(vertices)
    recipe = np.concatenate([np.repeat(np.arange(count)[:, None], 3, 1), triangles])
    middle = count + np.arange(len(triangles))
    owners: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for t, (a, b, c) in enumerate(triangles.tolist()):
        for i, j in ((a, b), (b, c), (c, a)):
            owners.setdefault((min(i, j), max(i, j)), []).append((int(middle[t]), i, j))
    new = []
    for sides in owners.values():
        if len(sides) == 2:
            (m, i, j), (n, _, _) = sides
            new += [(m, i, n), (m, n, j)]
        else:
            new += [(m, i, j) for m, i, j in sides]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(recipe))
    back = np.argsort(order)
    return vertices[recipe].mean(1)[order], back[np.array(new)], recipe[order]


def box(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A cube of six grids (vertices doubled at its edges, as an exporter leaves them), side 2."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, count)] * 2, indexing="ij"), -1).reshape(-1, 2)
    start = (np.arange(count - 1)[:, None] * count + np.arange(count - 1)).ravel()
    quad = np.stack([start, start + count, start + count + 1, start + 1], 1)
    vertices, faces = [], []
    for axis in range(3):
        for side in (-1.0, 1.0):
            faces.append(quad[:, :: 1 if (side > 0) == (axis != 1) else -1] + len(vertices) * count**2)
            vertices.append(np.insert(grid, axis, side, axis=1))
    return np.concatenate(vertices), np.concatenate(faces)


def blob(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A lumpy ball, about as complicated as a head and no face."""
    vertices, faces = box(16)
    vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    bumps = sum(rng.normal() * np.sin(k * vertices @ rng.normal(size=3) + rng.normal()) for k in range(1, 5))
    return vertices * (1.0 + 0.4 * np.tanh(0.5 * bumps))[:, None], faces
