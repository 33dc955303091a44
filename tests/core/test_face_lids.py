"""Lids over eyeballs: faces kept off the eye, what stays visible told, eyes of any pieces turning about one centre."""

from __future__ import annotations

import numpy as np
import pytest
from face_shapes import person

from lsf_core.arkit import INDEX
from lsf_core.face import load_template, rig
from lsf_core.face.lids import Ball, Lids
from lsf_core.face.mesh import Surface, triangulate

RADIUS, BULGE = 12.0, 1.0


def eye(steps: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A ball about the origin with a cornea, face to +z: vertices (n,3) mm and triangles."""
    polar, round_ = np.linspace(0.0, np.pi, steps), np.linspace(0.0, 2 * np.pi, steps)
    a, b = (grid.ravel() for grid in np.meshgrid(polar, round_, indexing="ij"))
    out = np.stack([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a)], 1)
    points = out * (RADIUS + BULGE * np.exp(-((a / 0.35) ** 2)))[:, None]
    start = (np.arange(steps - 1)[:, None] * steps + np.arange(steps - 1)).ravel()
    quads = np.stack([start, start + steps, start + steps + 1, start + 1], 1)
    return points, triangulate(quads)


def sheet(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A curtain of skin above the eye, 2 mm before it at its lower edge: vertices and triangles facing +z."""
    x, y = np.meshgrid(np.linspace(-14, 14, columns), np.linspace(6, 20, rows), indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), np.sqrt(np.maximum(14.0**2 - x**2 - y**2, 9.0)).ravel()], 1)
    start = (np.arange(columns - 1)[:, None] * rows + np.arange(rows - 1)).ravel()
    return points, triangulate(np.stack([start, start + rows, start + rows + 1, start + 1], 1))


def test_radius_in_every_direction() -> None:
    ball = Ball.of(*eye(), np.zeros(3))
    points = np.array([[0, 0, 14.0], [0, 12.5, 0], [9.0, 0, 9.0], [0, 0, 10.0]])
    depth, outward = ball.depth(points)
    np.testing.assert_allclose(depth, [1.0, 0.5, 9 * 2**0.5 - RADIUS, -3.0], atol=0.15)
    np.testing.assert_allclose(outward[0], [0, 0, 1], atol=1e-6)
    up = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)  # the cornea looks up
    np.testing.assert_allclose(ball.turned(up).depth(np.array([[0, 14.0, 0], [0, 0, 14.0]]))[0], [1.0, 2.0], atol=0.15)


@pytest.mark.parametrize(("columns", "rows"), [(3, 2), (5, 3), (25, 12)])
def test_faces_of_a_lid_stay_off_the_eye(columns: int, rows: int) -> None:
    """Drawn down over the eye, no point on a face lies in it at weights 0.5 and 1, on a lid of six vertices too."""
    points, triangles = sheet(columns, rows)
    lids = Lids(Surface(points, triangles, np.arange(len(points))), Ball.of(*eye(), np.zeros(3)))
    deltas = np.zeros((52, len(points), 3))
    reach = (20.0 - points[:, 1]) / 14.0
    deltas[INDEX["eyeBlinkLeft"]] = reach[:, None] * [0.0, -12.0, -1.0]
    lids.clear(deltas)
    weights = np.random.default_rng(0).dirichlet(np.ones(3), (len(triangles), 60))
    for weight in (0.5, 1.0):
        posed = points + weight * deltas[INDEX["eyeBlinkLeft"]]
        spots = np.einsum("tpk,tki->tpi", weights, posed[triangles]).reshape(-1, 3)
        assert lids.ball.depth(spots)[0].min() > -0.15
    assert not deltas[INDEX["jawOpen"]].any()


def test_what_stays_visible_is_counted() -> None:
    points, triangles = sheet(25, 12)
    ball, faces = eye()
    lids = Lids(Surface(points, triangles, np.arange(len(points))), Ball.of(ball, faces, np.zeros(3)))
    lids.eye = ball[faces]
    rims = np.array([[-10.0, 0, 8], [10, 0, 8], [0, 5, 12], [0, -5, 12]])
    seen = []
    for drop in (0.0, 6.0, 14.0):
        posed = points - [0.0, drop, 0.0]
        posed[:, 2] = np.sqrt(np.maximum(14.0**2 - (posed[:, :2] ** 2).sum(1), 9.0))
        seen.append(lids.shown(posed - points, rims))
    assert seen[0] == pytest.approx(1.0)
    assert 0.2 < seen[1] < 0.8
    assert seen[2] < 0.1


def pieces(*, half: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A head whose left eye is a ball, or its front half, with a flat iris of its own before it: vertices (V,3) m,
    faces, indices of ball and iris, and the ball's centre."""
    template, vertices = load_template(), person(3)
    ball = template.of_part("eye_left")
    out = vertices[ball] - (vertices[ball].min(0) + vertices[ball].max(0)) / 2
    centre, radius = vertices[ball].mean(0), float(np.median(np.linalg.norm(out, axis=1)))
    faces = template.faces
    if half:
        back = np.isin(faces, ball[vertices[ball, 2] < centre[2] + 0.1 * radius]).any(1)
        faces = faces[~back]
        ball = np.intersect1d(ball, faces)
    turn = np.linspace(0, 2 * np.pi, 13)[:-1]
    ring = centre + radius * np.stack([0.3 * np.cos(turn), 0.3 * np.sin(turn), np.full(12, 1.02)], 1)
    iris = len(vertices) + np.arange(13)
    fan = np.stack([np.full(12, iris[12]), iris[:12], np.roll(iris[:12], -1), np.full(12, -1)], 1)
    middle = centre + radius * np.array([[0, 0, 1.02]])
    return np.concatenate([vertices, ring, middle]), np.concatenate([faces, fan]), ball, iris, centre


@pytest.mark.parametrize("half", [False, True], ids=["ball", "half-ball"])
def test_pieces_of_an_eye_turn_as_one(half: bool) -> None:
    vertices, faces, ball, iris, _ = pieces(half=half)
    made = rig(vertices, faces)
    for name in ("eyeLookUpLeft", "eyeLookOutLeft"):
        delta = made.deltas[INDEX[name]].astype(float)
        rest = vertices[np.concatenate([ball, iris])]
        moved = rest + delta[np.concatenate([ball, iris])]
        # One rotation: distances between all points stay, the iris keeps its place on the ball.
        near = np.linalg.norm(rest[:, None] - rest[None], axis=2)
        np.testing.assert_allclose(np.linalg.norm(moved[:, None] - moved[None], axis=2), near, atol=2e-5)
        assert np.linalg.norm(delta[iris], axis=1).min() > 1e-3
    for name in ("eyeBlinkLeft", "jawOpen", "eyeSquintLeft"):
        assert np.abs(made.deltas[INDEX[name]][iris]).max() < 1e-6
