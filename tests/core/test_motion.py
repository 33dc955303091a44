"""motion.py: what a take promises at any frame rate, and its file."""

from __future__ import annotations

import os
import stat
import zipfile

import numpy as np
import pytest

from lsf_core.arkit import ARKIT_NAMES, INDEX
from lsf_core.errors import LSFError
from lsf_core.lips import GAP_ROW
from lsf_core.motion import Motion, frame_count


def motion_of(curves: dict[str, np.ndarray], fps: float = 50.0) -> Motion:
    """A Motion from named curves; all others are 0."""
    frames = len(next(iter(curves.values())))
    weights = np.zeros((frames, 52), np.float32)
    for name, curve in curves.items():
        weights[:, INDEX[name]] = curve
    return Motion(ARKIT_NAMES, weights, fps)


def talking(closed_frames: int, seed: int = 0, seconds: float = 20.0) -> tuple[Motion, list[float]]:
    """A mouth that hangs open at 50 fps and shuts for `closed_frames` frames now and then, and when (s, middle)."""
    rng = np.random.default_rng(seed)
    frames = int(50 * seconds)
    jaw = 0.35 + 0.1 * np.sin(np.arange(frames) / 9.0)
    close, times, frame = np.zeros(frames), [], 12
    while frame < frames - 12:
        close[frame : frame + closed_frames] = 1.0
        times.append((frame + (closed_frames - 1) / 2) / 50)
        frame += int(rng.integers(9 + closed_frames, 25))
    shut = jaw * GAP_ROW[INDEX["jawOpen"]] / -GAP_ROW[INDEX["mouthClose"]] + 0.02
    return motion_of({"jawOpen": jaw, "mouthClose": close * shut}), times


# ---------------------------------------------------------------- construction


def test_weights_are_clipped_to_what_exporters_can_carry():
    motion = Motion(ARKIT_NAMES, np.linspace(-1, 2, 3 * 52).reshape(3, 52), 30)
    assert motion.weights.dtype == np.float32
    assert motion.weights.min() == 0.0
    assert motion.weights.max() == 1.0


def test_the_arrays_given_are_copied_not_kept():
    weights = np.zeros((3, 52), np.float32)
    motion = Motion(ARKIT_NAMES, weights, 30)
    weights[:] = 1
    assert not motion.weights.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ARKIT_NAMES[::-1]}, "order"),
        ({"names": ("jaw_open", *ARKIT_NAMES[1:])}, "jaw_open"),
        ({"weights": np.zeros((3, 51))}, r"\(3, 51\).*\(F, 52\)"),
        ({"weights": np.zeros((0, 52))}, "no frames"),
        ({"weights": np.full((3, 52), np.nan)}, "NaN.*frame 0"),
        ({"fps": 0}, "more than 0"),
        ({"fps": float("nan")}, "more than 0"),
        ({"head_rotation": np.zeros((4, 3))}, r"head_rotation.*\(3, 3\)"),
        ({"head_rotation": np.full((3, 3), np.inf)}, "head_rotation.*NaN"),
    ],
)
def test_what_is_not_a_motion_is_refused(change, words):
    good = {"names": ARKIT_NAMES, "weights": np.zeros((3, 52)), "fps": 30.0}
    with pytest.raises(LSFError, match=words):
        Motion(**{**good, **change})


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"),
    [(10, 30, 300), (0.1, 30, 3), (7.652, 30, 230), (7.652, 24, 184), (1.001, 29.97, 30), (1, 23.976, 24), (0, 24, 1)],
)
def test_frames_are_the_duration_times_fps_rounded_up(seconds, fps, frames):
    assert frame_count(seconds, fps) == frames


# ---------------------------------------------------------------- resampling


@pytest.mark.parametrize("fps", [12, 23.976, 24, 25, 30, 48, 50, 60, 120])
def test_frames_stay_at_their_times(fps):
    seconds = 4.0
    ramp = np.arange(200) / 200
    out = motion_of({"browInnerUp": ramp}).resample(fps)
    assert len(out) == frame_count(seconds, fps)
    times = np.arange(len(out)) / fps
    assert out["browInnerUp"] == pytest.approx(np.minimum(times * 50, 199) / 200, abs=1e-5)


def test_the_same_rate_gives_the_same_motion():
    motion, _ = talking(3)
    assert np.array_equal(motion.resample(50).weights, motion.weights)


@pytest.mark.parametrize("closed_frames", [1, 3])
@pytest.mark.parametrize("fps", [12, 23.976, 24, 25, 29.97, 30, 48, 60])
def test_no_lip_closure_is_lost_at_any_rate(fps, closed_frames):
    """A /p/ shut for 20 or 60 ms is shut in the frame nearest to it, at 24 fps as at 60."""
    motion, times = talking(closed_frames)
    out = motion.resample(fps)
    gap, frame_times = out.lip_gap_mm(), np.arange(len(out)) / fps
    for time in times:
        near = np.abs(frame_times - time) <= 0.5 / fps + (closed_frames - 1) / 100 + 1e-9
        assert gap[near].min() < 0.05 * np.median(gap)


def test_plain_interpolation_would_have_lost_closures():
    """The promise above is not empty: sampled by time alone, 24 fps misses a good part of the short closures."""
    motion, times = talking(1)
    gap = np.interp(np.arange(480) / 24, np.arange(len(motion)) / 50, motion.lip_gap_mm())
    lost = [gap[max(0, round(t * 24) - 1) : round(t * 24) + 2].min() > 0.2 * np.median(gap) for t in times]
    assert np.mean(lost) > 0.3


def test_keeping_closures_moves_only_the_mouth_and_by_less_than_half_a_frame():
    motion, _ = talking(1)
    motion.weights[:, INDEX["browInnerUp"]] = np.linspace(0, 1, len(motion))
    out = motion.resample(24)
    times, old_times = np.arange(len(out)) / 24, np.arange(len(motion)) / 50
    assert out["browInnerUp"] == pytest.approx(np.interp(times, old_times, motion["browInnerUp"]), abs=1e-5)
    for time, value in zip(times, out["jawOpen"], strict=True):  # a jaw value from within half a frame of that time
        near = np.interp(np.linspace(time - 0.5 / 24, time + 0.5 / 24, 50), old_times, motion["jawOpen"])
        assert near.min() - 1e-4 <= value <= near.max() + 1e-4


@pytest.mark.parametrize("fps", [24, 30])
def test_no_blink_is_lost(fps):
    lid = np.zeros(500)
    peaks = np.arange(20, 480, 31)
    lid[peaks], lid[peaks - 1], lid[peaks + 1] = 1.0, 0.4, 0.4
    out = motion_of({"eyeBlinkLeft": lid, "eyeBlinkRight": lid}).resample(fps)
    for peak in peaks:
        frame = round(peak / 50 * fps)
        assert out["eyeBlinkLeft"][frame - 1 : frame + 2].max() > 0.999


def test_more_frames_than_there_are_hold_the_last_pose():
    out = motion_of({"browInnerUp": np.arange(50) / 50}).resample(25, frames=40)
    assert len(out) == 40
    assert out["browInnerUp"][25:] == pytest.approx(49 / 50)


def test_head_rotation_is_resampled_with_the_weights():
    rotation = np.stack([np.arange(100) / 100] * 3, axis=1)
    out = Motion(ARKIT_NAMES, np.zeros((100, 52)), 50, rotation).resample(25)
    assert out.head_rotation is not None
    assert out.head_rotation[:, 0] == pytest.approx(np.arange(50) / 50, abs=1e-6)


@pytest.mark.parametrize(("fps", "frames"), [(0, None), (-24, None), (float("inf"), None), (24, 0)])
def test_impossible_rates_are_refused(fps, frames):
    with pytest.raises(LSFError):
        talking(1)[0].resample(fps, frames)


def test_a_single_frame_can_be_resampled():
    assert len(Motion(ARKIT_NAMES, np.zeros((1, 52)), 50).resample(120)) == 3


# ---------------------------------------------------------------- mixing


def test_blend_goes_from_one_to_the_other():
    a, b = motion_of({"jawOpen": np.zeros(4)}), motion_of({"jawOpen": np.ones(4)})
    assert a.blend(b, 0.25)["jawOpen"] == pytest.approx(0.25)
    per_frame = np.array([[0], [0.5], [1], [1]])
    assert a.blend(b, per_frame)["jawOpen"].tolist() == [0, 0.5, 1, 1]
    only_brows = np.array([name.startswith("brow") for name in ARKIT_NAMES], np.float32)
    assert not a.blend(b, only_brows)["jawOpen"].any()


def test_motions_of_different_lengths_or_rates_are_not_mixed():
    with pytest.raises(LSFError, match="Resample"):
        motion_of({"jawOpen": np.zeros(4)}).blend(motion_of({"jawOpen": np.zeros(5)}), 0.5)
    with pytest.raises(LSFError, match="Resample"):
        motion_of({"jawOpen": np.zeros(4)}).blend(motion_of({"jawOpen": np.zeros(4)}, fps=24), 0.5)


def test_gains_scale_named_shapes_alone():
    motion = motion_of({"jawOpen": np.full(3, 0.6), "mouthPucker": np.full(3, 0.5)}).scaled({"jawOpen": 2.0})
    assert motion["jawOpen"].tolist() == [1.0] * 3
    assert motion["mouthPucker"].tolist() == [0.5] * 3
    with pytest.raises(LSFError, match="jawopen"):
        motion.scaled({"jawopen": 1.0})


# ---------------------------------------------------------------- files


def test_the_file_holds_exactly_what_the_contract_says(tmp_path):
    path = tmp_path / "süß take.npz"
    rotation = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    weights = np.random.default_rng(1).random((7, 52)).astype(np.float32)
    Motion(ARKIT_NAMES, weights, 29.97, rotation).save(path)
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == ["fps", "head_rotation", "names", "weights"]
        assert file["names"].dtype.kind == "U"
        assert file["names"].tolist() == list(ARKIT_NAMES)
        assert file["weights"].dtype == np.float32
        assert np.array_equal(file["weights"], weights)
        assert float(file["fps"]) == 29.97
        assert np.array_equal(file["head_rotation"], rotation)
    back = Motion.load(path)
    assert back.head_rotation is not None
    assert back.names == ARKIT_NAMES
    assert back.fps == 29.97
    assert np.array_equal(back.weights, weights)
    assert np.array_equal(back.head_rotation, rotation)


def test_without_head_motion_there_is_no_head_rotation(tmp_path):
    Motion(ARKIT_NAMES, np.zeros((2, 52)), 30).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert "head_rotation" not in file.files
    assert Motion.load(tmp_path / "a.npz").head_rotation is None


def test_the_name_is_kept_and_folders_are_made(tmp_path):
    motion = Motion(ARKIT_NAMES, np.zeros((2, 52)), 30)
    motion.save(tmp_path / "new" / "folder" / "take")  # numpy would call it take.npz
    assert os.listdir(tmp_path / "new" / "folder") == ["take"]
    assert len(Motion.load(tmp_path / "new" / "folder" / "take")) == 2


def test_a_save_that_fails_leaves_the_old_take_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "take.npz"
    Motion(ARKIT_NAMES, np.zeros((2, 52)), 30).save(path)
    before = path.read_bytes()

    def disk_full(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    with pytest.raises(LSFError, match="No space left on device"):
        Motion(ARKIT_NAMES, np.ones((2, 52)), 30).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["take.npz"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_others_may_read_the_file_as_the_umask_says(tmp_path):
    Motion(ARKIT_NAMES, np.zeros((2, 52)), 30).save(tmp_path / "a.npz")
    (tmp_path / "plain").touch()
    mode = stat.S_IMODE((tmp_path / "a.npz").stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_columns_in_another_order_are_sorted_on_loading(tmp_path):
    weights = np.random.default_rng(0).random((3, 52)).astype(np.float32)
    order = np.random.default_rng(1).permutation(52)
    np.savez(tmp_path / "a.npz", names=np.array(ARKIT_NAMES)[order], weights=weights[:, order], fps=30.0)
    assert np.array_equal(Motion.load(tmp_path / "a.npz").weights, weights)


def test_files_that_are_no_takes_are_refused_in_words(tmp_path):
    with pytest.raises(LSFError, match="does not exist"):
        Motion.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(LSFError, match="cannot be read"):
        Motion.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros((2, 52)))
    with pytest.raises(LSFError, match="no names, fps"):
        Motion.load(tmp_path / "other.npz")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    with pytest.raises(LSFError, match="not a take"):
        Motion.load(tmp_path / "empty.npz")


def test_a_pickle_in_a_take_is_not_executed(tmp_path):
    np.savez(tmp_path / "evil.npz", names=np.array(ARKIT_NAMES, object), weights=np.zeros((2, 52)), fps=30.0)
    with pytest.raises(LSFError, match="cannot be read"):
        Motion.load(tmp_path / "evil.npz")
