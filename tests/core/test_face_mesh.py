"""Any mesh file is read in its own order, and a broken one is refused by name and with a cure."""

import numpy as np
import pytest
from face_shapes import box, person

from lsf_core.errors import MeshError
from lsf_core.face import load_mesh, load_template
from lsf_core.face.correspond import barycentric
from lsf_core.face.mesh import Surface, check_mesh, triangulate, weld_map


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


def test_template_is_one_skin():
    template = load_template()
    surface = Surface.build(person(0), triangulate(template.faces))
    skin = template.of_part("skin")
    assert len(np.unique(surface.component[surface.weld[skin]])) == 1
