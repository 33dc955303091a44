"""The demo as `install.py demo` runs it, with small pictures: every promised file, and what is in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
READ_BLEND = """
import bpy, sys
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
head = bpy.data.objects['Head']
keys = head.data.shape_keys
print('KEYS', len(keys.key_blocks), keys.animation_data.action is not None)
print('SOUND', [sound.packed_file is not None for sound in bpy.data.sounds])
weights = []
for frame in range(bpy.context.scene.frame_start, bpy.context.scene.frame_end + 1):
    bpy.context.scene.frame_set(frame)
    weights.append(keys.key_blocks['jawOpen'].value)
print('JAW', max(weights) - min(weights) > 0.1)
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out ö"  # a folder with a space and a letter beyond ASCII
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), "--draft", "--out", str(folder)]
    variables = {**os.environ, "LSF_ENGINE_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("demo.blend", "demo.fbx", "demo.png", "demo.mp4"):
        assert (folder / name).is_file()
        assert str(folder / name) in done.stdout  # the closing list names each file
    return folder


def test_the_film_has_pictures_and_sound_of_the_same_length(out: Path) -> None:
    with av.open(str(out / "demo.mp4")) as film:
        assert film.streams.video[0].codec_context.name == "h264"
        assert film.streams.audio[0].codec_context.name == "aac"
        lengths = [float(stream.duration * stream.time_base) for stream in film.streams]
    assert lengths[0] == pytest.approx(lengths[1], abs=0.15)
    assert 7.5 < lengths[0] < 9.0


def test_the_sheet_shows_a_face_that_changes(out: Path) -> None:
    sheet = Image.open(out / "demo.png").convert("L")
    width = sheet.width // 3
    cells = [sheet.crop((i * width, 0, (i + 1) * width, 180)) for i in range(3)]
    for cell in cells:
        assert len(set(cell.tobytes())) > 40  # not an empty picture
    differences = [sum(a != b for a, b in zip(cells[0].tobytes(), cell.tobytes(), strict=True)) for cell in cells[1:]]
    assert max(differences) > 200


def test_the_blend_opens_with_keys_and_its_own_sound(out: Path) -> None:
    command = [sys.executable, "-c", READ_BLEND, str(out / "demo.blend")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "KEYS 53 True" in done.stdout, done.stdout + done.stderr  # Basis and the 52
    assert "SOUND [True]" in done.stdout
    assert "JAW True" in done.stdout


def test_a_missing_head_is_named() -> None:
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), "--head", "/no/such/head.obj"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "/no/such/head.obj does not exist" in done.stderr
