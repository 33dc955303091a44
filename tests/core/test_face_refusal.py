"""What is no face is refused, with words that say what to do."""

import numpy as np
import pytest
from face_shapes import blob, box

from lsf_core.errors import MeshError
from lsf_core.face import read_identity, rig


@pytest.mark.parametrize("shape", [box, blob])
def test_no_face(shape):
    vertices, faces = shape()
    with pytest.raises(MeshError, match=r"No face was found.*Choose the mesh of the head"):
        rig(vertices, faces)


def test_a_ball_has_no_identity():
    vertices, faces = box()
    with pytest.raises(MeshError, match="No face was found"):
        read_identity(vertices / np.linalg.norm(vertices, axis=1, keepdims=True), faces)


def test_nan_vertices():
    vertices, faces = box()
    vertices[3] = np.nan
    with pytest.raises(MeshError, match="NaN"):
        rig(vertices, faces)
