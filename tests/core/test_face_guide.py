"""What a person says about a face is used: landmarks set by hand, an area; what cannot be right is refused by name."""

from contextlib import suppress

import numpy as np
import pytest
from face_shapes import part_mesh, person

from lsf_core.arkit import INDEX
from lsf_core.errors import MeshError
from lsf_core.face import load_template, read_landmarks, rig
from lsf_core.face.guide import check_guide


def marks(vertices, *names):
    template = load_template()
    return {name: vertices[template.landmarks[name]] for name in names}


def test_landmarks_set_by_hand_are_kept_and_doubtless():
    """The mouth's corner a few millimetres off the found place: it stays where the artist put it."""
    vertices, faces = person(3), load_template().faces
    given = marks(vertices, "nose_tip", "chin", "eye_outer_left", "eye_outer_right", "mouth_right")
    given["mouth_left"] = marks(vertices, "mouth_left")["mouth_left"] + [0.004, 0.001, -0.002]
    made = rig(vertices, faces, landmarks=given)
    found = dict(zip(made.landmark_names, made.landmarks, strict=True))
    for name, place in given.items():
        assert np.linalg.norm(found[name] - place) < 0.001, name
    sure = dict(zip(made.landmark_names, made.landmark_confidence, strict=True))
    assert sure["mouth_left"] == 1.0
    assert not made.warnings


def test_wrong_landmarks_are_never_used_silently():
    vertices, faces = person(3), load_template().faces
    swapped = marks(vertices, "nose_tip", "chin", "eye_outer_left", "eye_outer_right", "mouth_left", "mouth_right")
    for name in ("eye_outer", "mouth"):
        left, right = swapped[f"{name}_left"], swapped[f"{name}_right"]
        swapped[f"{name}_left"], swapped[f"{name}_right"] = right, left
    with pytest.raises(MeshError, match=r"swapped|No face"):
        rig(vertices, faces, landmarks=swapped)
    low = {name: place - [0, 0.02, 0] for name, place in
           marks(vertices, "nose_tip", "eye_outer_left", "eye_outer_right", "mouth_left", "mouth_right").items()}
    with suppress(MeshError):  # refused is as good as flagged
        assert rig(vertices, faces, landmarks=low).warnings


def test_only_the_area_moves():
    """A face area without the brows: they stay, and the mouth moves as ever."""
    template = load_template()
    vertices, faces, keep = part_mesh(person(5), "skin")
    brow = vertices[keep == template.landmarks["brow_middle_left"]][0]
    area = (vertices[:, 1] < brow[1] - 0.006) * 1.0
    made = rig(vertices, faces, area=area)
    assert np.abs(made.deltas[:, area == 0]).max() == 0
    truth = template.expressions[INDEX["mouthSmileLeft"]][keep]
    moving = np.linalg.norm(truth, axis=1) > 0.001
    assert np.linalg.norm(made.deltas[INDEX["mouthSmileLeft"]] - truth, axis=1)[moving].mean() < 0.0007


@pytest.mark.parametrize(("landmarks", "area", "message"), [
    ({"nose": (0, 0, 0)}, None, "no landmark 'nose'.*nose_tip"),
    ({"nose_tip": (0, 0)}, None, "'nose_tip'.*three finite numbers"),
    ({"nose_tip": (0, np.nan, 0)}, None, "'nose_tip'.*three finite numbers"),
    ({"nose_tip": (0, 0, 9)}, None, "'nose_tip' lies"),
    (None, np.ones(7), r"\(7,\)"),
    (None, "zeros", "0 vertices"),
])
def test_what_cannot_be_right_is_named(landmarks, area, message):
    vertices = person(1)
    area = np.zeros(len(vertices)) if isinstance(area, str) else area
    with pytest.raises(MeshError, match=message):
        check_guide(landmarks, area, vertices, load_template())


def test_landmark_files(tmp_path):
    file = tmp_path / "marks.json"
    file.write_text('{"nose_tip": [0, 1, 2.5]}', encoding="utf-8")
    assert read_landmarks(file) == {"nose_tip": [0, 1, 2.5]}
    for wrong in ("[1, 2]", '{"nose_tip": 3}', "{", ""):
        file.write_text(wrong, encoding="utf-8")
        with pytest.raises(MeshError, match="landmarks"):
            read_landmarks(file)
