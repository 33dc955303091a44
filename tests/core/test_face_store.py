"""A rig is made once: known again by the mesh's content, in memory and on disk; a broken or full disk costs no job."""

import os

import numpy as np
import pytest
from face_shapes import box

from lsf_core.arkit import ARKIT_NAMES
from lsf_core.face import Rig, RigStore, store


@pytest.fixture
def made(monkeypatch):
    """Every mesh given to `rig` so far; the rig itself is cut short, for only the keeping is tried here."""
    calls = []

    def short(vertices, faces, **_):
        calls.append(len(vertices))
        deltas = np.full((52, len(vertices), 3), float(vertices[0, 0]), np.float32)
        return Rig(ARKIT_NAMES, deltas, np.zeros((1, 3), np.float32), ("nose_tip",), np.ones(32, np.float32), 0.1,
                   np.ones(1, np.float32), 0.9, ["look at the eyes"])

    monkeypatch.setattr(store, "rig", short)
    return calls


def test_same_mesh_is_known_again_by_another_engine(made, tmp_path):
    vertices, faces = box()
    first, known = RigStore(tmp_path).rig(vertices, faces)
    again, known_again = RigStore(tmp_path).rig(vertices, faces)
    assert (known, known_again, len(made)) == (False, True, 1)
    np.testing.assert_array_equal(again.deltas, first.deltas)
    assert again.warnings == first.warnings
    np.testing.assert_array_equal(RigStore(tmp_path).identity(vertices, faces), first.identity)


def test_what_a_rig_depends_on_makes_another(made, tmp_path):
    vertices, faces = box()
    keep = RigStore(tmp_path)
    keep.rig(vertices, faces)
    keep.rig(vertices + 1e-6, faces)
    keep.rig(vertices, faces[1:])
    keep.rig(vertices, faces, landmarks={"nose_tip": (0, 0, 1)})
    keep.rig(vertices, faces, area=np.ones(len(vertices)))
    assert len(made) == 5


def test_a_broken_file_is_made_again_and_nothing_half_made_stays(made, tmp_path):
    vertices, faces = box()
    RigStore(tmp_path).rig(vertices, faces)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert RigStore(tmp_path).rig(vertices, faces)[1] is False
    assert RigStore(tmp_path).rig(vertices, faces)[1] is True
    assert len(list(tmp_path.iterdir())) == 1


def test_the_folder_is_bounded_and_the_longest_unused_goes_first(made, tmp_path):
    vertices, faces = box()
    size = 52 * len(vertices) * 12
    for k in range(6):
        RigStore(tmp_path, limit=5 * size).rig(vertices + k, faces)
        for path in tmp_path.iterdir():  # make the ages differ by more than a file system's clock
            os.utime(path, (path.stat().st_atime - 10, path.stat().st_mtime - 10))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5 * size
    assert RigStore(tmp_path, limit=5 * size).rig(vertices + 5, faces)[1] is True
    assert RigStore(tmp_path, limit=5 * size).rig(vertices, faces)[1] is False


def test_no_folder_no_loss(made, tmp_path):
    vertices, faces = box()
    (tmp_path / "file").write_text("in the way")
    keep = RigStore(tmp_path / "file" / "rigs")
    assert keep.rig(vertices, faces)[1] is False
    assert keep.rig(vertices, faces)[1] is True  # from memory
