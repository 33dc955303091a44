"""The template head keeps its promises: fields and units, symmetry, lips and lids that close, a jaw that
takes its teeth along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsf_core.arkit import ARKIT_NAMES, IDENTITY_DIM, INDEX, mirrored
from lsf_core.errors import MeshError
from lsf_core.face.template import DEFAULT_PATH, LOOPS, Template, load_template

FLIP = np.array([-1, 1, 1], np.float32)


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template()


def posed(template: Template, **weights: float) -> np.ndarray:
    return template.vertices + sum(w * template.expressions[INDEX[n]] for n, w in weights.items())


def along(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Points (N, 3) of a polyline at shares `at` of its length."""
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    return np.stack([np.interp(at, length / length[-1], points[:, k]) for k in range(3)], axis=1)


def gap(points: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Upper line minus lower line (41, 3) in metres, at equal shares of their lengths."""
    at = np.linspace(0, 1, 41)
    return along(points[upper], at) - along(points[lower], at)


def lip_gap(template: Template, points: np.ndarray) -> float:
    between = gap(points, template.loops["lip_upper_inner"], template.loops["lip_lower_inner"])
    return float(np.linalg.norm(between, axis=1).max())


def ball(template: Template, side: str) -> tuple[np.ndarray, float]:
    """Centre and radius of an eyeball by least squares."""
    points = template.vertices[template.of_part(f"eye_{side}")].astype(np.float64)
    solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def test_fields_fit_each_other(template: Template) -> None:
    count = len(template.vertices)
    assert template.expressions.shape == (52, count, 3)
    assert template.identity_modes.shape[0] >= IDENTITY_DIM
    assert template.identity_modes.shape[1:] == (count, 3)
    assert template.faces.min() >= -1
    assert template.faces.max() == count - 1
    assert set(template.part_names) >= {"skin", "teeth_upper", "teeth_lower", "tongue", "eye_left", "eye_right"}
    assert all(len(template.of_part(name)) for name in template.part_names)
    assert template.fit_weight.min() >= 0
    assert template.fit_weight.max() == 1
    assert np.all(template.fit_weight[template.part != template.part_names.index("skin")] == 0)
    assert all(np.isfinite(a).all() for a in (template.vertices, template.expressions, template.identity_modes))
    assert "CC0" in template.licence
    assert "MIT" in template.licence


def test_units_are_metres_and_the_face_looks_to_plus_z(template: Template) -> None:
    left, right = ball(template, "left")[0], ball(template, "right")[0]
    assert 0.058 < left[0] - right[0] < 0.066, "distance of adult eyes; subject's left is +x"
    marks = {name: template.vertices[i] for name, i in template.landmarks.items()}
    assert marks["nose_tip"][2] > marks["eye_outer_left"][2] > marks["ear_top_left"][2]
    assert marks["nasion"][1] > marks["nose_tip"][1] > marks["lip_upper_top"][1] > marks["chin"][1]
    assert 0.030 < np.abs(template.expressions[INDEX["jawOpen"]]).max() < 0.055


def test_arrays_are_read_only(template: Template) -> None:
    with pytest.raises(ValueError, match="read-only"):
        template.vertices[0] = 0


def test_everything_is_mirror_symmetric(template: Template) -> None:
    mirror = template.mirror
    np.testing.assert_allclose(template.vertices[mirror] * FLIP, template.vertices, atol=1e-6)
    for name in ARKIT_NAMES:
        own, other = template.expressions[INDEX[name]], template.expressions[INDEX[mirrored(name)]]
        np.testing.assert_allclose(other[mirror] * FLIP, own, atol=2e-5, err_msg=name)


def test_every_shape_moves_the_face_and_leaves_the_rim_alone(template: Template) -> None:
    edges = np.sort(np.stack([template.faces, np.roll(template.faces, -1, axis=1)], -1).reshape(-1, 2), axis=1)
    unique, times = np.unique(edges, axis=0, return_counts=True)
    rim = np.unique(unique[times == 1])
    below_chin = template.vertices[rim, 1] < template.vertices[template.landmarks["chin"], 1]
    rim = rim[(template.part[rim] == 0) & below_chin]
    assert len(rim) > 20
    for i, name in enumerate(ARKIT_NAMES):
        moved = np.linalg.norm(template.expressions[i], axis=1)
        assert moved[template.of_part("skin")].max() > 0.002, name
        assert moved[rim].max() < 1e-4, name


@pytest.mark.parametrize("name", ["browDownLeft", "browInnerUp", "cheekPuff", "noseSneerLeft", "mouthSmileLeft"])
def test_shapes_are_strong_enough_to_be_seen(template: Template, name: str) -> None:
    assert np.linalg.norm(template.expressions[INDEX[name]], axis=1).max() > 0.005


def test_neutral_lips_touch(template: Template) -> None:
    assert lip_gap(template, template.vertices) < 0.0003


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0])
def test_jaw_open_with_mouth_close_seals_the_lips(template: Template, weight: float) -> None:
    assert lip_gap(template, posed(template, jawOpen=weight)) > 0.02 * weight, "the mouth did open"
    assert lip_gap(template, posed(template, jawOpen=weight, mouthClose=weight)) < 0.0003


def test_closed_lips_keep_their_fullness(template: Template) -> None:
    closed = posed(template, jawOpen=1, mouthClose=1)
    marks = template.landmarks
    for outer, inner in (("lip_upper_top", "lip_upper_inner"), ("lip_lower_bottom", "lip_lower_inner")):
        before = np.linalg.norm(template.vertices[marks[outer]] - template.vertices[marks[inner]])
        after = np.linalg.norm(closed[marks[outer]] - closed[marks[inner]])
        assert 0.85 < after / before < 1.25, outer


def test_no_strings_between_the_lips(template: Template) -> None:
    """The upper lip hardly follows the jaw in its middle and never leaps: neighbours move alike right into
    the corner."""
    jaw = template.expressions[INDEX["jawOpen"]][:, 1]
    upper, lower = jaw[template.loops["lip_upper_inner"]], jaw[template.loops["lip_lower_inner"]]
    middle = len(upper) // 2
    assert np.abs(upper[middle - 4: middle + 5]).max() < 0.15 * np.abs(lower).max()
    assert np.all(np.diff(upper[middle:]) < 0.0005), "the fall towards the corner is monotonic"
    assert np.abs(np.diff(upper)).max() < 0.004
    assert upper[-1] == lower[-1]


def test_lower_teeth_follow_the_jaw_rigidly_and_upper_teeth_stay(template: Template) -> None:
    for name in ("jawOpen", "jawForward", "jawLeft", "jawRight"):
        delta = template.expressions[INDEX[name]]
        lower = template.of_part("teeth_lower")
        before = template.vertices[lower].astype(np.float64)
        after = before + delta[lower]
        between = np.linalg.norm(before[:, None] - before[None], axis=2)
        between_after = np.linalg.norm(after[:, None] - after[None], axis=2)
        np.testing.assert_allclose(between_after, between, atol=3e-5, err_msg=name)
        assert np.linalg.norm(delta[lower], axis=1).mean() > 0.004, name
        assert np.abs(delta[template.of_part("teeth_upper")]).max() == 0, name
    lower = template.of_part("teeth_lower")
    incisor, chin = lower[np.argmax(template.vertices[lower, 2])], template.landmarks["chin"]
    apart = template.vertices[chin] - template.vertices[incisor]
    jaw = template.expressions[INDEX["jawOpen"]]
    apart_open = apart + jaw[chin] - jaw[incisor]
    assert np.linalg.norm(apart_open) == pytest.approx(np.linalg.norm(apart), rel=0.15), "the chin goes with the teeth"


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_blink_closes_the_eye(template: Template, side: str) -> None:
    upper, lower = template.loops[f"lid_upper_{side.lower()}"], template.loops[f"lid_lower_{side.lower()}"]
    assert gap(template.vertices, upper, lower)[:, 1].max() > 0.006, "the neutral eye is open"
    shut = gap(posed(template, **{f"eyeBlink{side}": 1.0}), upper, lower)
    assert shut[:, 1].max() < 0.0001, "the upper lid's edge reaches the lower one's everywhere"
    assert shut[:, 1].min() > -0.0012, "and does not pass it by more than a lid's thickness"


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_lids_stay_outside_the_eyeball(template: Template, side: str) -> None:
    centre, radius = ball(template, side.lower())
    edge = np.r_[template.loops[f"lid_upper_{side.lower()}"], template.loops[f"lid_lower_{side.lower()}"]]
    other = "Right" if side == "Left" else "Left"
    shapes = [n for n in ARKIT_NAMES if n.startswith(("eye", "cheekSquint", "brow")) and not n.endswith(other)]
    for weights in [{}, {f"eyeBlink{side}": 0.5}, *({n: 1.0} for n in shapes)]:
        height = np.linalg.norm(posed(template, **weights)[edge] - centre, axis=1) - radius
        assert height.min() > 0, weights


@pytest.mark.parametrize(("shape", "axis", "sign"), [
    ("eyeLookUp", 1, 1), ("eyeLookDown", 1, -1), ("eyeLookOut", 0, 1), ("eyeLookIn", 0, -1),
])
def test_eyes_turn_about_their_own_centre(template: Template, shape: str, axis: int, sign: int) -> None:
    centre, _ = ball(template, "left")
    index = template.of_part("eye_left")
    front = index[np.argmax(template.vertices[index, 2])]
    delta = template.expressions[INDEX[shape + "Left"]]
    assert sign * delta[front, axis] > 0.003
    before = np.linalg.norm(template.vertices[index] - centre, axis=1)
    after = np.linalg.norm(template.vertices[index] + delta[index] - centre, axis=1)
    np.testing.assert_allclose(after, before, atol=2e-5)
    assert np.abs(delta[template.of_part("eye_right")]).max() == 0


def test_random_identities_keep_the_teeth_inside_and_the_lips_shut(template: Template) -> None:
    rng = np.random.default_rng(0)
    marks = template.landmarks
    for _ in range(40):
        head = template.head(rng.normal(size=len(template.identity_modes)))
        assert lip_gap(template, head) < 0.002
        teeth = head[template.of_part("teeth_upper", "teeth_lower")]
        lips = head[[marks["lip_upper_top"], marks["lip_lower_bottom"]]][:, 2].min()
        assert teeth[:, 2].max() < lips


def test_identity_modes_are_whitened_and_ordered(template: Template) -> None:
    """Modes already carry their standard deviation, so the first ones are the largest and the tail is
    small."""
    use = template.fit_weight > 0.5
    size = np.sqrt((template.identity_modes[:, use] ** 2).sum(axis=2).mean(axis=1)) * 1e3
    assert 0.8 < size[0] < 4.0
    assert size[:8].mean() > size[8:32].mean() > size[32:].mean()


def test_asset_is_small() -> None:
    assert DEFAULT_PATH.stat().st_size < 3.5 * 2**20


def test_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=r"nowhere\.npz"):
        load_template(tmp_path / "nowhere.npz")
    np.savez(tmp_path / "other.npz", expression_names=np.array(ARKIT_NAMES), vertices=np.zeros((3, 3)))
    with pytest.raises(MeshError, match="lacks the array"):
        load_template(tmp_path / "other.npz")


def test_loops_share_their_corners(template: Template) -> None:
    assert set(template.loops) == set(LOOPS)
    for upper, lower in (("lip_upper_inner", "lip_lower_inner"), ("lid_upper_left", "lid_lower_left"),
                         ("lid_upper_right", "lid_lower_right")):
        assert template.loops[upper][0] == template.loops[lower][0]
        assert template.loops[upper][-1] == template.loops[lower][-1]
    x = template.vertices[template.loops["lip_upper_inner"], 0]
    assert x[0] < 0 < x[-1], "lips run from the subject's right corner to the left one"
