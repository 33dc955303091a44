"""What the demo ships: a usable head without shape keys, of another topology than the template, and audible speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lsf_core.audio import SAMPLE_RATE, check_speech, load_audio
from lsf_core.face import load_mesh

ASSETS = Path(__file__).resolve().parents[2] / "assets"
HEAD = ASSETS / "demo" / "head.obj"


def test_head_loads_whole_in_its_own_order() -> None:
    vertices, triangles = load_mesh(HEAD)
    lines = [line.split() for line in HEAD.read_text(encoding="ascii").splitlines() if line.startswith("v ")]
    assert np.allclose(vertices, [[float(x) for x in line[1:4]] for line in lines])
    assert np.array_equal(np.unique(triangles), np.arange(len(vertices)))  # no stray vertices
    assert np.isfinite(vertices).all()
    assert 0.2 < np.ptp(vertices[:, 1]) < 0.5  # a head with neck and shoulders, in metres, y up


def test_head_is_not_the_template() -> None:
    vertices, _ = load_mesh(HEAD)
    with np.load(ASSETS / "template_head.npz") as template:
        counts = {len(template[name]) for name in template.files if template[name].ndim}
    assert len(vertices) not in counts


def test_speech_is_speech() -> None:
    audio = load_audio(SPEECH := ASSETS / "demo" / "speech.ogg")
    check_speech(audio)
    assert 7.0 < len(audio) / SAMPLE_RATE < 8.0, SPEECH


def test_assets_stay_small() -> None:
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20
    assert sum(path.stat().st_size for path in (ASSETS / "demo").iterdir()) <= 2**20
