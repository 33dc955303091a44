"""Any mesh file is read in its own order, and a broken one is refused by name and with a cure."""

import numpy as np
import pytest
from face_shapes import box, person

from lsf_core.errors import MeshError
from lsf_core.face import load_mesh, load_template
from lsf_core.face.correspond import Finder, barycentric, pair_label
from lsf_core.face.mesh import Surface, check_mesh, split_long, triangulate, unique_edges, weld_map


def write_obj(path, vertices, faces, *, negative=False):
    lines = ["# head", "mtllib x.mtl"]
    lines += [f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in vertices]
    for face in faces:
        shift = -len(vertices) if negative else 1
        lines.append("f " + " ".join(f"{int(i) + shift}/1/1" for i in face if i >= 0))
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("negative", [False, True])
def test_obj_keeps_vertex_order(tmp_path, negative):
    vertices, faces = box()
    path = tmp_path / "Kopf ä 1.obj"
    write_obj(path, vertices, faces, negative=negative)
    read, triangles = load_mesh(path)
    assert read.dtype == np.float64
    assert triangles.dtype == np.int32
    np.testing.assert_allclose(read, vertices, atol=1e-7)
    np.testing.assert_array_equal(triangles, triangulate(faces))


def test_npz_is_read(tmp_path):
    vertices, faces = box()
    np.savez(tmp_path / "head.npz", vertices=vertices, faces=faces)
    read, triangles = load_mesh(tmp_path / "head.npz")
    np.testing.assert_array_equal(read, vertices)
    assert len(triangles) == 2 * len(faces)


def test_polygons_of_every_length_become_fans():
    mixed = triangulate([[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10, 11]])
    assert len(mixed) == 1 + 2 + 3
    padded = triangulate(np.array([[0, 1, 2, -1], [3, 4, 5, 6]]))
    assert sorted(map(tuple, padded.tolist())) == [(0, 1, 2), (3, 4, 5), (3, 5, 6)]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("none.obj", None, "does not exist"),
    ("head.fbx", "x", "read from .obj or .npz"),
    ("head.obj", "v 0 0 zero\n", "cannot be read"),
    ("head.npz", "not a zip", "cannot be read"),
    ("only.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
])
def test_unusable_files_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(MeshError, match=message):
        load_mesh(tmp_path / name)


def test_broken_arrays_are_refused():
    vertices, faces = box()
    broken = vertices.copy()
    broken[7, 1] = np.nan
    with pytest.raises(MeshError, match=r"1 of \d+ vertices are NaN or infinite \(first: vertex 7\)"):
        check_mesh(broken, faces)
    with pytest.raises(MeshError, match="no faces"):
        check_mesh(vertices, np.zeros((0, 3), int))
    with pytest.raises(MeshError, match="only 24 vertices"):
        check_mesh(*box(2))
    with pytest.raises(MeshError, match=f"has only {len(vertices)}"):
        check_mesh(vertices, faces + 1)
    with pytest.raises(MeshError, match="shape"):
        check_mesh(vertices[:, :2], faces)


def test_split_seams_are_welded():
    vertices, faces = box()
    welded = Surface.build(vertices, triangulate(faces))
    assert len(welded.vertices) == len(np.unique(vertices.round(6), axis=0))
    assert welded.component.max() == 0
    np.testing.assert_allclose(welded.vertices[welded.weld], vertices)


def test_touching_lips_are_not_welded():
    """Two open sheets that touch with opposite normals, as closed lips do, stay two sheets."""
    line = np.linspace(0, 1, 30)
    sheet = np.stack([np.tile(line, 8), np.zeros(240), np.repeat(np.linspace(0, 1, 8), 30)], 1)
    start = (np.arange(7)[:, None] * 30 + np.arange(29)).ravel()
    quad = np.stack([start, start + 1, start + 31, start + 30], 1)
    both = np.concatenate([sheet, sheet])
    faces = np.concatenate([quad, quad[:, ::-1] + 240])
    assert len(np.unique(weld_map(both, triangulate(faces)))) == 480


def test_barycentric_is_the_closest_point():
    rng = np.random.default_rng(0)
    a, b, c, p = rng.normal(size=(4, 500, 3))
    weights = barycentric(p, a, b, c)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1)
    corner = np.stack([a, b, c], 1)
    found = np.linalg.norm((weights[..., None] * corner).sum(1) - p, axis=1)
    tried = rng.dirichlet([0.5] * 3, size=4000)
    best = np.min([np.linalg.norm(np.einsum("k,nki->ni", w, corner) - p, axis=1) for w in tried], axis=0)
    assert (found <= best + 1e-9).all()


def test_closest_points_of_triangles_that_are_lines_or_points():
    rng = np.random.default_rng(3)
    a, b, p = rng.normal(size=(3, 400, 3))
    c = a + rng.random((400, 1)) * (b - a)
    b[:100], c[:100], c[100:200] = a[:100], a[:100], b[100:200]
    weights = barycentric(p, a, b, c)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1)
    found = np.linalg.norm((weights[..., None] * np.stack([a, b, c], 1)).sum(1) - p, axis=1)
    share = np.clip(((p - a) * (b - a)).sum(1) / np.maximum(((b - a) ** 2).sum(1), 1e-12), 0, 1)[:, None]
    np.testing.assert_allclose(found, np.linalg.norm(a + share * (b - a) - p, axis=1), atol=1e-6)


def test_closest_points_on_a_ball():
    """More points than are compared at a time, on a mesh fine enough to know the answer."""
    surface = ball(30)
    points = np.random.default_rng(1).normal(size=(5000, 3))
    points *= (np.linspace(8.0, 12.0, 5000) / np.linalg.norm(points, axis=1))[:, None]
    outward = points / np.linalg.norm(points, axis=1, keepdims=True)
    match = Finder(surface, samples=4000).query(points, outward)
    np.testing.assert_allclose(match.position, 10.0 * outward, atol=0.15)
    np.testing.assert_allclose(match.normal, outward, atol=0.05)
    np.testing.assert_allclose(match.position, match.interpolate(surface.triangles, surface.vertices), atol=1e-9)
    assert match.label.shape == (5000, 0)


def test_a_label_steers_to_its_own_side():
    """Of two sheets at one place a point gets the one of its label."""
    line = np.linspace(0.0, 10.0, 12)
    x, y = (v.ravel() for v in np.meshgrid(line, line, indexing="ij"))
    sheet = np.stack([x, y, 0 * x], 1)
    start = (np.arange(11)[:, None] * 12 + np.arange(11)).ravel()
    quad = np.stack([start, start + 12, start + 13, start + 1], 1)
    both = np.concatenate([sheet, sheet + np.array([0.0, 0.0, 0.5])])
    surface = Surface(both, triangulate(np.concatenate([quad, quad + 144])), np.arange(288))
    labels = np.repeat([[1.0], [-1.0]], 144, axis=0)
    points = np.random.default_rng(0).uniform(1, 9, size=(50, 3)) * [1, 1, 0] + [0, 0, 0.25]
    finder = Finder(surface, labels, samples=3000)
    for side, height in ((1.0, 0.0), (-1.0, 0.5)):
        match = finder.query(points, np.tile([0.0, 0.0, 1.0], (50, 1)), np.full((50, 1), side), k=12)
        np.testing.assert_allclose(match.position[:, 2], height, atol=1e-9)
        np.testing.assert_allclose(match.label, side)


def test_template_is_one_skin():
    template = load_template()
    surface = Surface.build(person(0), triangulate(template.faces))
    skin = template.of_part("skin")
    assert len(np.unique(surface.component[surface.weld[skin]])) == 1


def ball(count: int) -> Surface:
    """A sphere of radius 10 without seams."""
    vertices, faces = box(count)
    return Surface.build(10.0 * vertices / np.linalg.norm(vertices, axis=1, keepdims=True), triangulate(faces))


def test_edges_are_sorted_unique_and_counted():
    edges, count = unique_edges(np.array([[2, 1, 0], [1, 2, 3], [1, 2, 4]]))
    assert edges.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [1, 4], [2, 3], [2, 4]]
    assert count.tolist() == [1, 1, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("rounded", [False, True])
def test_long_edges_are_cut_where_asked(rounded):
    coarse = ball(5)
    pole = np.array([[0.0, 0.0, 10.0]])
    fine, origin = split_long(coarse, pole, 4.0, 1.0, rounded=rounded)
    assert (fine.vertices[: len(coarse.vertices)] == coarse.vertices).all()
    assert (origin[: len(coarse.vertices)] == np.arange(len(coarse.vertices))).all()
    corner = fine.vertices[fine.triangles]
    long = np.linalg.norm(corner[:, [1, 2, 0]] - corner, axis=2).max(1) > 1.0
    near = np.linalg.norm(corner.mean(1) - pole, axis=1) < 4.0
    assert near.any()
    assert long.any()
    assert not (near & long).any()
    new = fine.vertices[len(coarse.vertices):]
    miss = np.abs(np.linalg.norm(new, axis=1) - 10.0).mean()
    flat = split_long(coarse, pole, 4.0, 1.0)[0].vertices[len(coarse.vertices):]
    assert miss < 0.5 * np.abs(np.linalg.norm(flat, axis=1) - 10.0).mean() if rounded else miss > 0.2


def test_sides_of_a_slit_are_told_apart_to_its_ends_and_behind_it():
    """A band bent into a U with its open end in front: the labels of its two arms are opposite far behind the seeds."""
    place = np.linspace(-40.0, 40.0, 81)
    across = np.linspace(-5.0, 5.0, 11)
    s, x = (grid.ravel() for grid in np.meshgrid(place, across, indexing="ij"))
    vertices = np.stack([x, np.sign(s) * np.minimum(np.abs(s), 0.5), -np.abs(np.abs(s) - 40.0)], 1)
    start = (np.arange(80)[:, None] * 11 + np.arange(10)).ravel()
    quads = np.stack([start, start + 11, start + 12, start + 1], 1)
    surface = Surface(vertices, triangulate(quads), np.arange(len(vertices)))
    label = pair_label(surface, np.flatnonzero(s == 40.0), np.flatnonzero(s == -40.0), 40.0)
    assert (label[s > 25.0] > 0.9).all()
    assert (label[s < -25.0] < -0.9).all()
    assert np.abs(label[s == 0.0]).max() < 0.1
