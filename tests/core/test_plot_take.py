"""tools/plot_take.py: the curves lie where the take has them, and files that are none are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lsf_core.arkit import ARKIT_NAMES, INDEX  # noqa: E402
from lsf_core.errors import LSFError  # noqa: E402
from lsf_core.motion import Motion  # noqa: E402
from tools import plot_take  # noqa: E402

SECONDS, FPS = 2.0, 30.0


def one_syllable() -> tuple[np.ndarray, Motion]:
    """Two seconds of a tone, and a jaw that opens once, at 1.5 s."""
    time = np.arange(int(SECONDS * FPS)) / FPS
    weights = np.zeros((len(time), len(ARKIT_NAMES)), np.float32)
    weights[:, INDEX["jawOpen"]] = 0.4 * np.exp(-0.5 * ((time - 1.5) / 0.1) ** 2)
    tone = 0.2 * np.sin(2 * np.pi * 200 * np.arange(int(SECONDS * 16000)) / 16000)
    return tone.astype(np.float32), Motion(ARKIT_NAMES, weights, FPS)


def highest(picture: Image.Image, colour: plot_take.Colour) -> float:
    """The pixel column at which the line of a colour is highest, right of the names."""
    rows, columns = np.nonzero((np.asarray(picture)[:, plot_take.LEFT:] == colour).all(-1))
    return float(columns[rows == rows.min()].mean()) + plot_take.LEFT


def test_each_curve_peaks_at_its_time_under_the_sound() -> None:
    samples, motion = one_syllable()
    jaw = plot_take.PANELS[0].curves[0].colour
    for start, end in ((0.0, None), (1.0, 1.8)):
        picture = plot_take.plot(samples, motion, [("B", 0.2, 0.4)], start=start, end=end)
        width = picture.width - plot_take.LEFT - plot_take.RIGHT
        expected = plot_take.LEFT + width * (1.5 - start) / ((end or SECONDS) - start)
        assert highest(picture, jaw) == pytest.approx(expected, abs=3)


def test_a_sound_that_closes_the_lips_is_tinted_over_its_own_time_alone() -> None:
    samples, motion = one_syllable()
    picture = np.asarray(plot_take.plot(samples, motion, [("b", 0.5, 0.75), ("AH1", 0.75, 1.0), ("V", 1.0, 1.2)]))
    columns = np.flatnonzero((picture == plot_take.CLOSING_TINT).all(-1).any(0))
    width = picture.shape[1] - plot_take.LEFT - plot_take.RIGHT
    assert (columns - plot_take.LEFT)[[0, -1]] / width * SECONDS == pytest.approx([0.5, 0.75], abs=0.01)


def test_the_tool_writes_a_picture_and_names_what_it_cannot_read(tmp_path: Path) -> None:
    samples, motion = one_syllable()
    sound, take, phones, out = (tmp_path / name for name in ("s.wav", "take.npz", "phones.json", "new/curves.png"))
    soundfile.write(sound, samples, 16000)
    motion.save(take)
    phones.write_text(json.dumps({"phones": [["B", 0.2, 0.4]]}))
    command = [sys.executable, str(ROOT / "tools" / "plot_take.py"), str(sound), "--take", str(take),
               "--phones", str(phones), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert Image.open(out).width == 1600

    phones.write_text('{"words": []}')
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert str(phones) in refused.stderr
    assert "Traceback" not in refused.stderr
    with pytest.raises(LSFError, match="3 s and 2 s"):
        plot_take.plot(samples, motion, start=3.0)
