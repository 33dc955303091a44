"""A rig on other people, topologies, poses and scales: the shapes of the template arrive, lips and lids close."""

import numpy as np
import pytest
from face_shapes import part_mesh, person, remesh
from scipy.spatial.transform import Rotation

import lsf_core
from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.errors import Cancelled
from lsf_core.face import load_template, read_identity, rig
from lsf_core.face.evaluate import opening


@pytest.fixture(scope="module")
def head():
    """Another person on another topology with every part, its rig, and the template's fields on it."""
    template = load_template()
    vertices = person(3)
    mesh, triangles, recipe = remesh(vertices, template.faces, seed=1)
    return {"vertices": vertices, "mesh": mesh, "triangles": triangles, "recipe": recipe, "rig": rig(mesh, triangles)}


def errors(head, name):
    """Distance (N,) mm between the made shape and the template's on the same skin, and the template's motion (N,)."""
    template = load_template()
    skin = (template.part[head["recipe"]] == template.part_names.index("skin")).all(1)
    truth = template.expressions[INDEX[name]][head["recipe"]].mean(1) * 1000.0
    made = head["rig"].deltas[INDEX[name]] * 1000.0
    return np.linalg.norm(made - truth, axis=1)[skin], np.linalg.norm(truth, axis=1)[skin]


def old_vertices(head):
    """Index in the new mesh of each template vertex."""
    recipe = head["recipe"]
    own = np.flatnonzero((recipe == recipe[:, :1]).all(1))
    index = np.full(len(head["vertices"]), -1)
    index[recipe[own, 0]] = own
    return index


def test_result_is_complete(head):
    made = head["rig"]
    assert made.names == ARKIT_NAMES
    assert made.deltas.shape == (52, len(head["mesh"]), 3)
    assert made.deltas.dtype == np.float32
    assert np.isfinite(made.deltas).all()
    assert made.identity.shape == (32,)
    assert np.abs(made.identity).max() <= 3
    assert made.landmarks.shape == (len(made.landmark_names), 3)
    assert 0 <= made.fit_error < 0.5


@pytest.mark.parametrize(("name", "mean", "p95"), [
    ("jawOpen", 1.2, 3.5), ("mouthSmileLeft", 0.7, 1.8), ("mouthPucker", 0.7, 1.8), ("browInnerUp", 0.5, 1.2),
    ("noseSneerRight", 0.4, 1.0), ("cheekPuff", 0.6, 1.5),
])
def test_shapes_arrive(head, name, mean, p95):
    error, motion = errors(head, name)
    moving = motion > 1.0
    assert error[moving].mean() < mean
    assert np.percentile(error[moving], 95) < p95
    assert error[motion < 0.01].mean() < 0.1


def test_no_strings_between_the_lips(head):
    """In jawOpen no lip vertex hangs on the other lip: that would be an error of half the opening or more."""
    error, motion = errors(head, "jawOpen")
    assert (error > 8.0).sum() == 0
    assert motion.max() > 25.0


def test_lids_meet_in_a_blink(head):
    template, index, made = load_template(), old_vertices(head), head["rig"]
    for side in ("left", "right"):
        delta = made.deltas[INDEX[f"eyeBlink{side.capitalize()}"]][index].astype(float) * 1000.0
        upper, lower = template.loops[f"lid_upper_{side}"], template.loops[f"lid_lower_{side}"]
        assert opening(head["vertices"] * 1000.0, 0 * delta, upper, lower) > 5.0
        assert opening(head["vertices"] * 1000.0, delta, upper, lower) < 0.4


def test_lips_stay_shut_when_only_the_jaw_drops(head):
    template, index, made = load_template(), old_vertices(head), head["rig"]
    both = (made.deltas[INDEX["jawOpen"]] + made.deltas[INDEX["mouthClose"]])[index].astype(float) * 1000.0
    lips = template.loops["lip_upper_inner"], template.loops["lip_lower_inner"]
    jaw = made.deltas[INDEX["jawOpen"]][index].astype(float) * 1000.0
    assert opening(head["vertices"] * 1000.0, jaw, *lips) > 15.0
    assert opening(head["vertices"] * 1000.0, both, *lips, beyond_rest=True) < 0.5


def test_lower_teeth_follow_the_jaw_and_upper_stay(head):
    template, index, made = load_template(), old_vertices(head), head["rig"]
    lower = made.deltas[INDEX["jawOpen"]][index[template.of_part("teeth_lower")]] * 1000.0
    truth = template.expressions[INDEX["jawOpen"]][template.of_part("teeth_lower")] * 1000.0
    assert np.linalg.norm(lower - truth, axis=1).mean() < 0.2 * np.linalg.norm(truth, axis=1).mean()
    upper = made.deltas[INDEX["jawOpen"]][index[template.of_part("teeth_upper")]] * 1000.0
    assert np.abs(upper).max() < 0.5


def test_eyeballs_turn_about_their_own_centre(head):
    template, index, made = load_template(), old_vertices(head), head["rig"]
    ball = index[template.of_part("eye_left")]
    rest, turned = head["mesh"][ball], head["mesh"][ball] + made.deltas[INDEX["eyeLookUpLeft"]][ball]
    assert np.linalg.norm(turned - rest, axis=1).max() > 1e-3
    np.testing.assert_allclose(turned.mean(0), rest.mean(0), atol=2e-3)
    assert np.abs(made.deltas[INDEX["jawOpen"]][ball]).max() < 1e-4


@pytest.mark.parametrize(("turn", "scale"), [
    (Rotation.from_euler("x", 90, degrees=True), 100.0),       # Z up, centimetres
    (Rotation.from_euler("zyx", [160, -50, 70], degrees=True), 0.003),
])
def test_pose_and_scale_do_not_matter(head, turn, scale):
    moved = scale * turn.apply(head["mesh"]) + scale * np.array([3.0, -1.0, 0.5])
    again = rig(moved, head["triangles"])
    back = turn.inv().apply((again.deltas / scale).reshape(-1, 3)).reshape(again.deltas.shape)
    off = np.linalg.norm(back - head["rig"].deltas, axis=2) * 1000.0
    assert off.mean() < 0.05
    assert np.percentile(off[INDEX["jawOpen"]], 99) < 1.0
    np.testing.assert_allclose(again.identity, head["rig"].identity, atol=0.25)


def test_bare_skin_inside_out_is_enough():
    """No eyes, teeth, tongue, lashes; faces as quads with flipped winding; the skin's shapes still arrive."""
    template = load_template()
    vertices, faces, keep = part_mesh(person(5), "skin")
    made = rig(vertices, [list(map(int, face[::-1])) for face in faces])
    truth = template.expressions[INDEX["mouthSmileLeft"]][keep] * 1000.0
    moving = np.linalg.norm(truth, axis=1) > 1.0
    assert np.linalg.norm(made.deltas[INDEX["mouthSmileLeft"]] * 1000.0 - truth, axis=1)[moving].mean() < 0.7


def test_identity_does_not_depend_on_the_topology(head):
    template = load_template()
    plain = read_identity(head["vertices"], template.faces)
    np.testing.assert_allclose(plain, head["rig"].identity, atol=0.25)
    assert np.abs(plain - read_identity(person(9), template.faces)).max() > 0.5


def test_public_api_saves_what_the_contract_names(head, tmp_path):
    assert lsf_core.rig is rig
    head["rig"].save(tmp_path / "rig.npz")
    with np.load(tmp_path / "rig.npz", allow_pickle=False) as saved:
        assert {"names", "deltas", "landmarks", "fit_error", "warnings"} <= set(saved.files)
        assert tuple(saved["names"]) == ARKIT_NAMES
        np.testing.assert_array_equal(saved["deltas"], head["rig"].deltas)


def test_progress_can_cancel(head):
    seen = []

    def stop(fraction, text):
        seen.append(fraction)
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        rig(head["mesh"], head["triangles"], progress=stop)
    assert seen == sorted(seen)
    assert len(seen) >= 2
