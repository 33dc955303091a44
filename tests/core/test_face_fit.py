"""The statistical fit: its equations, and that it finds whom it was given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from face_shapes import person
from scipy.spatial.transform import Rotation

from lsf_core.face import load_template
from lsf_core.face.facing import Similarity, plane_steps
from lsf_core.face.fit import SurfaceNearest, _equations, fit_shape
from lsf_core.face.guide import Guide
from lsf_core.face.locate import find_person, locate
from lsf_core.face.mesh import Surface, check_mesh
from lsf_core.face.prepared import Prepared, Shape
from lsf_core.face.register import register
from lsf_core.face.transfer import AT_ONCE, Carrier, deform_template


def test_the_equations_are_those_of_the_weighted_squares() -> None:
    """Against the sum of squares itself, differentiated by steps."""
    rng = np.random.default_rng(0)
    x, gap, normal = rng.normal(size=(3, 40, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    basis, weight = rng.normal(size=(120, 5)), rng.random(40)
    matrix, right = _equations(x, basis, gap, normal, weight, 0.2)

    def squares(u: np.ndarray) -> float:
        move = np.cross(u[:3], x) + u[3:6] + u[6] * x + (basis @ u[7:]).reshape(-1, 3)
        off = gap - move
        return float((weight * ((normal * off).sum(1) ** 2 + 0.2 * (off**2).sum(1))).sum())

    step = 1e-3 * np.eye(12)
    slope = [(squares(e) - squares(-e)) / 2e-3 for e in step]
    np.testing.assert_allclose(-2.0 * right, slope, atol=1e-8)
    bend = [[(squares(e + f) - squares(e - f) - squares(f - e) + squares(-e - f)) / 4e-6 for e in step] for f in step]
    np.testing.assert_allclose(2.0 * matrix, bend, atol=1e-6)


def test_many_similarities_at_once_step_onto_their_goals() -> None:
    rng = np.random.default_rng(1)
    placed = rng.normal(size=(3, 60, 3))
    normal = rng.normal(size=(3, 60, 3))
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    turn = Rotation.from_rotvec(rng.normal(size=(3, 3)) * 0.02).as_matrix()
    goal = 1.01 * np.einsum("sij,snj->sni", turn, placed) + [0.3, -0.2, 0.1]
    grow, found, shift, centre = plane_steps(placed, goal, normal, rng.random((3, 60)) + 0.1)
    moved = grow[:, None, None] * np.einsum("sij,snj->sni", found, placed - centre[:, None]) \
        + (centre + shift)[:, None]
    assert np.abs(moved - goal).max() < 0.01  # one linear step; before it they were 0.3 off


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_a_person_is_found_again_in_any_frame(scale: float) -> None:
    """The skin of the template with known coefficients, from a start that is a little off."""
    prepared = Prepared.of(load_template())
    rng = np.random.default_rng(5)
    truth = np.zeros(len(prepared.modes))
    truth[:20] = rng.normal(size=20) * 0.7
    pose = Similarity(scale, Rotation.random(random_state=3).as_matrix(), rng.normal(size=3) * 50.0)
    mesh = Surface(pose.to_mesh(prepared.head(Shape(truth))[prepared.skin]), prepared.surface.triangles,
                   prepared.surface.weld)
    start = pose.after(Similarity(1.02, Rotation.from_rotvec([0.04, -0.03, 0.02]).as_matrix(), np.array([2.0, 1, -1])))
    fit = fit_shape(SurfaceNearest(start, mesh), prepared, Guide(), shape=Shape(np.zeros(len(truth))), steps=25,
                    count=1500, trust=3000.0)
    placed = pose.to_canonical(fit.pose.to_mesh(prepared.head(fit.shape)))
    off = np.linalg.norm(placed - prepared.head(Shape(truth)), axis=1)[prepared.skin][prepared.weight > 0.5]
    assert off.mean() < 0.5
    assert np.linalg.norm(fit.shape.identity[:20] - truth[:20]) < 0.4 * np.linalg.norm(truth)
    assert fit.strangeness < 0.6


def test_the_identity_does_not_hang_on_the_way_there() -> None:
    """The search may come to a face from anywhere, with any shape in mind."""
    template = load_template()
    prepared = Prepared.of(template)
    mesh = Surface.build(*check_mesh(person(6), template.faces))
    fit = locate(mesh, prepared, Guide(), lambda fraction, text: None)
    straight = find_person(mesh, prepared, Guide(), fit)[:32]
    rng = np.random.default_rng(2)
    astray = Similarity(1.02, Rotation.from_rotvec([0.02, 0.03, -0.01]).as_matrix(), np.array([1.0, 2.0, -1.5]))
    other = replace(fit, pose=fit.pose.after(astray), shape=Shape(2.0 * rng.normal(size=len(prepared.modes))))
    assert np.linalg.norm(find_person(mesh, prepared, Guide(), other)[:32] - straight) < 0.3
    someone = Surface.build(*check_mesh(person(7), template.faces))
    else_fit = locate(someone, prepared, Guide(), lambda fraction, text: None)
    assert np.linalg.norm(find_person(someone, prepared, Guide(), else_fit)[:32] - straight) > 2.0


def test_fields_are_carried_alike_one_by_one_and_together() -> None:
    template = load_template()
    carrier = Carrier(register(*check_mesh(person(2), template.faces), template))
    fields = np.random.default_rng(0).normal(size=(AT_ONCE + 3, len(carrier.template.vertices), 3))
    together = carrier.carry(fields)
    one_by_one = np.concatenate([carrier.carry(field[None]) for field in fields])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


def test_shapes_carried_to_the_same_head_are_the_same() -> None:
    """But for the few vertices at the border of what moves, which are held."""
    prepared = Prepared.of(load_template())
    rest = prepared.vertices[prepared.skin]
    deltas = load_template().expressions[[3, 17, 24]][:, prepared.skin].astype(np.float64) * 1000.0
    again = deform_template(rest, deltas, rest, prepared.surface.triangles)
    off = np.linalg.norm(again - deltas, axis=2)
    assert off.mean() < 0.02
    assert np.percentile(off, 99) < 0.2
