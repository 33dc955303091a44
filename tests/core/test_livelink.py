"""The CSV layout of Live Link Face."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.errors import LSFError
from lsf_core.livelink import HEADER, SHAPES, save_csv, timecode
from lsf_core.motion import Motion


def test_every_shape_is_there_once_and_in_the_apps_order():
    assert sorted(SHAPES) == sorted(ARKIT_NAMES)
    assert len(HEADER) == 63
    assert HEADER[:3] == ("Timecode", "BlendShapeCount", "EyeBlinkLeft")
    some = ("JawForward", "MouthClose", "BrowDownLeft", "TongueOut")
    assert [HEADER.index(name) for name in some] == [16, 20, 43, 53]
    assert HEADER[-9:-6] == ("HeadYaw", "HeadPitch", "HeadRoll")


def test_a_file_tells_weights_angles_and_time_of_every_frame(tmp_path):
    weights = np.random.default_rng(0).random((31, 52), np.float32)
    head = np.random.default_rng(1).normal(0, 0.1, (31, 3)).astype(np.float32)
    save_csv(Motion(ARKIT_NAMES, weights, 30, head), tmp_path / "deep" / "take.csv")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["take.csv"]
    with open(tmp_path / "deep" / "take.csv", encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 31
    assert {row["BlendShapeCount"] for row in rows} == {"61"}
    for name, i in INDEX.items():
        assert [float(row[name[0].upper() + name[1:]]) for row in rows] == pytest.approx(weights[:, i], abs=1e-5)
    for i, name in enumerate(("HeadPitch", "HeadYaw", "HeadRoll")):
        assert [float(row[name]) for row in rows] == pytest.approx(head[:, i], abs=1e-5)
    assert rows[30]["Timecode"] == "00:00:01:00.000"
    assert {row["LeftEyeYaw"] for row in rows} == {"0"}


@pytest.mark.parametrize(("frame", "fps", "code"), [
    (0, 30, "00:00:00:00.000"), (59, 60, "00:00:00:59.000"), (30 * 3661 + 7, 29.97, "01:01:01:07.000"),
    (25, 23.976, "00:00:01:01.000"), (3, 0.5, "00:00:03:00.000"),
])  # fmt: skip
def test_time_codes_count_whole_frames(frame, fps, code):
    assert timecode(frame, fps) == code


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LSFError, match=r"Cannot write .*take\.csv"):
        save_csv(Motion(ARKIT_NAMES, np.zeros((2, 52)), 30), tmp_path / "file" / "take.csv")
    (tmp_path / "take.csv").mkdir()
    with pytest.raises(LSFError, match=r"Cannot write"):
        save_csv(Motion(ARKIT_NAMES, np.zeros((2, 52)), 30), tmp_path / "take.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "take.csv"]
