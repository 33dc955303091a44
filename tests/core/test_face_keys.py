"""Shape keys that exist: named in any of the usual ways they are recognised, and visemes are solved."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.face import load_template
from lsf_core.face.keys import names, solve


def test_shapes_are_arkits():
    assert set(names.SHAPES) == set(ARKIT_NAMES)


@pytest.mark.parametrize("convention", names.CONVENTIONS)
def test_each_convention_reads_itself(convention):
    meanings = names.CONVENTIONS[convention]
    matched = names.match(meanings)
    assert {**matched.arkit, **matched.poses} == meanings
    assert matched.convention == convention


@pytest.mark.parametrize(("spelt", "meant"), [
    ("eye_blink_left", "eyeBlinkLeft"), ("EyeBlink_L", "eyeBlinkLeft"), ("eyeBlink.L", "eyeBlinkLeft"),
    ("head_blendShape.jawOpen", "jawOpen"), ("JAW_OPEN", "jawOpen"), ("A37_Mouth_Close", "mouthClose"),
    ("browInnerUp_L", "browInnerUp"), ("blendShape1.mouthSmile_R", "mouthSmileRight"), ("jaw_left", "jawLeft"),
    ("Eye_R_Look_L", "eyeLookInRight"), ("Cheek_Raise_L", "cheekSquintLeft"),
])
def test_spellings(spelt, meant):
    assert names.match([spelt]).arkit == {spelt: meant}


def test_keys_of_a_body_mean_nothing():
    found = names.match(["Basis", "Hand_A", "Breast_L", "Body_Left", "A", "E", "hip.R", "sil_shirt"])
    assert not found.arkit
    assert not found.poses  # a lone A or E is no viseme
    assert found.convention == ""


def test_prefixed_visemes_and_partial_sets():
    keys = [f"Face.M_F00_000_00_Fcl_MTH_{v}" for v in "AIUEO"] + ["Fcl_EYE_Close_L", "mouthSmileLeft"]
    found = names.match(keys)
    assert list(found.poses.values()) == ["aa", "I", "U", "E", "O"]
    assert set(found.arkit.values()) == {"eyeBlinkLeft", "mouthSmileLeft"}
    assert len(found.missing) == 50


@pytest.fixture(scope="module")
def basis():
    """The template's own shapes (52,S,3) mm and visemes (P,S,3) mixed of them."""
    template = load_template()
    shapes = template.expressions[:, template.of_part("skin")].astype(np.float64) * 1000.0
    poses = {p: w for p, w in names.POSES.items() if w}
    return shapes, np.stack([sum(w * shapes[INDEX[n]] for n, w in mix.items()) for mix in poses.values()]), list(poses)


def test_solution_is_the_bounded_least_squares_one(basis):
    shapes, poses, _ = basis
    weights = np.tile(np.random.default_rng(0).uniform(0, 0.8, 52), (4, 1))  # still: smoothing changes nothing
    found = solve.solve_weights(poses, shapes, weights)
    matrix = poses.reshape(len(poses), -1).T
    ridge = np.sqrt(solve.RIDGE) * np.diag(np.linalg.norm(matrix, axis=0))
    wanted = np.r_[weights[0] @ shapes.reshape(52, -1), np.zeros(len(poses))]
    np.testing.assert_allclose(found[1], lsq_linear(np.vstack([matrix, ridge]), wanted, (0, 1)).x, atol=5e-3)


def test_a_viseme_rig_follows_and_is_smooth(basis):
    """Visemes spoken one after the other come back as themselves; a minute solves in one go."""
    shapes, poses, labels = basis
    order = [labels.index(p) for p in ("aa", "PP", "O", "I", "FF", "U")]
    truth = np.zeros((1800, len(poses)))
    for k in range(1800):
        truth[k, order[k // 12 % 6]] = 0.5 - 0.5 * np.cos(2 * np.pi * k / 12)
    weights = truth @ np.array([[names.POSES[p].get(n, 0.0) for n in ARKIT_NAMES] for p in labels])
    found = solve.solve_weights(poses, shapes, weights)
    assert found.min() >= 0
    assert found.max() <= 1
    made = np.linalg.norm((found - truth)[::25] @ poses.reshape(len(poses), -1), axis=1)
    asked = np.linalg.norm(truth[::25] @ poses.reshape(len(poses), -1), axis=1)
    assert made.sum() < 0.2 * asked.sum()
    assert np.abs(np.diff(found, axis=0)).max() < 0.5


def test_retarget_copies_what_is_arkit_and_solves_the_rest(basis):
    shapes, poses, labels = basis
    keys = ["jawOpen", "browInnerUp_L", "browInnerUp_R", "Blink", "shirt"]
    found = names.Matched({"jawOpen": "jawOpen", "browInnerUp_L": "browInnerUp", "browInnerUp_R": "browInnerUp"},
                          {"Blink": "blink"}, "", tuple(n for n in names.SHAPES if n not in ("jawOpen", "browInnerUp")))
    deltas = np.stack([shapes[INDEX["jawOpen"]], *2 * [shapes[INDEX["browInnerUp"]] / 2], poses[labels.index("blink")],
                       0.01 * shapes[INDEX["jawOpen"]]])
    weights = np.zeros((10, 52))
    weights[:, INDEX["jawOpen"]], weights[:, INDEX["browInnerUp"]] = 0.3, 0.6
    weights[:, [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]] = 0.9
    made = solve.retarget(found, keys, deltas, shapes, weights)
    np.testing.assert_allclose(made[5], [0.3, 0.6, 0.6, 0.9, 0.0], atol=0.02)
