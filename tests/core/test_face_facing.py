"""The face is found in any pose, also with shoulders under it or without a skull behind it."""

import numpy as np
import pytest
from face_shapes import part_mesh, person
from scipy.spatial.transform import Rotation

from lsf_core.face import load_template
from lsf_core.face.mesh import check_mesh
from lsf_core.face.register import register


def found_turn(vertices, faces):
    """Angle (degrees) between the pose found and the canonical one, and the registration."""
    result = register(*check_mesh(vertices, faces), load_template(), fine=False)
    return result, lambda turn: np.degrees((Rotation.from_matrix(result.similarity.rotation) * turn.inv()).magnitude())


@pytest.mark.parametrize("seed", [1, 2])
def test_random_pose(seed):
    turn = Rotation.random(random_state=seed)
    size = 10.0 ** np.random.default_rng(seed).uniform(-2, 3)
    result, off = found_turn(size * turn.apply(person(seed)), load_template().faces)
    assert off(turn) < 4.0
    assert abs(result.similarity.scale * 1000.0 / size - 1.0) < 0.06


def test_bust_with_shoulders():
    """The head on a broad slab of shoulders, twice as wide as the head: the slab is ignored."""
    vertices, faces, _ = part_mesh(person(4), "skin")
    count, low = 30, vertices[:, 1].min()
    angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, count, endpoint=False), np.linspace(0, 1, 10))
    wide = 1.0 + 2.0 * np.sin(np.pi / 2 * height)
    chest = np.stack([0.09 * wide * np.sin(angle), low - 0.22 * height, 0.07 * wide**0.5 * np.cos(angle) - 0.06], -1)
    start = (np.arange(9)[:, None] * count + np.arange(count)).ravel()
    right = np.where(start % count == count - 1, start - count + 1, start + 1)
    quads = np.stack([start + count, right + count, right, start], 1) + len(vertices)
    turn = Rotation.from_euler("x", -90, degrees=True)
    _, off = found_turn(turn.apply(np.concatenate([vertices, chest.reshape(-1, 3)])), np.concatenate([faces, quads]))
    assert off(turn) < 4.0


def test_mask_without_a_skull():
    vertices, faces, _ = part_mesh(person(6), "skin")
    front = vertices[:, 2] > np.median(vertices[:, 2])
    keep = faces[front[faces].all(1)]
    used, new = np.unique(keep, return_inverse=True)
    turn = Rotation.from_euler("zx", [30, 70], degrees=True)
    _, off = found_turn(turn.apply(vertices[used]), new.reshape(keep.shape))
    assert off(turn) < 6.0
