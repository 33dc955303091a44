"""What other programs get: the FBX button's options and its own check, and Blender's glTF and USD exports of a take.

Readers that are not Blender: ufbx for FBX, JSON and struct for glTF, text for USD.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import bpy
import numpy as np
import pytest
from conftest import error_of, keyed, make_object
from test_fbx import Outsider

from blender_addon import fbx, fbx_check, fbx_shapes
from blender_addon.shared import arkit


@pytest.fixture
def take(ball_scene, ball, fake_engine) -> bpy.types.Object:
    """A ball with a take of 50 frames at 25 fps: four shape keys, of which browInnerUp and tongueOut rest."""
    fake_engine()
    bpy.ops.lsf.animate()
    return ball


def at_scene_frames(target: bpy.types.Object) -> dict[str, np.ndarray]:
    """The weights as Blender plays them: name -> (50,)."""
    weights: dict[str, list[float]] = {}
    for frame in range(1, 51):
        bpy.context.scene.frame_set(frame)
        for block in target.data.shape_keys.key_blocks[1:]:
            weights.setdefault(block.name, []).append(block.value)
    return {name: np.array(values) for name, values in weights.items()}


# ---------------------------------------------------------------- FBX: the check
def test_the_check_sees_what_another_reader_sees(take, tmp_path):
    path = tmp_path / "a.fbx"
    bpy.ops.lsf.export_fbx(filepath=str(path))
    found, outsider = fbx_check.contents(path), Outsider(path)
    assert set(found.shapes) == set(outsider.offsets)
    assert set(found.moving) == {name for name, curve in outsider.curves.items() if np.ptp(curve[:, 1]) > 1e-6}
    assert found.keys == sum(len(curve) for curve in outsider.curves.values())
    seconds = np.concatenate([curve[:, 0] for curve in outsider.curves.values()])
    assert (found.first, found.last) == pytest.approx((seconds.min(), seconds.max()), abs=1e-6)
    assert (found.vertices, found.stacks) == (len(outsider.base), outsider.stacks)


def test_the_artist_is_told_what_the_file_holds(take, tmp_path, capfd):
    bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "a.fbx"))
    said = capfd.readouterr().out
    assert re.search(r"86 vertices, 4 shape keys, 2 of them moving, \d+ keys from 0\.04 s to 2\.00 s", said), said
    assert "(frames 1 to 50)" in said


def test_an_export_that_loses_the_animation_is_an_error(take, tmp_path, monkeypatch):
    """Blender's own default flags, without the carrier on the object that makes them work."""
    take.animation_data_clear()
    monkeypatch.setattr(fbx, "FBX_SETTINGS", {"bake_anim": True})
    message = error_of(lambda: bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "a.fbx")))
    assert "does not move ['jawOpen', 'mouthSmileLeft']" in message


@pytest.mark.parametrize("content", [b"", b"Kaydara", b"; FBX 7.4.0 project file",
                                     fbx_check.MAGIC + b"\xe8\x1c\0\0" * 9])
def test_files_of_another_kind_are_refused(tmp_path, content):
    (tmp_path / "a.fbx").write_bytes(content)
    with pytest.raises(fbx_check.FbxError):
        fbx_check.contents(tmp_path / "a.fbx")


# ---------------------------------------------------------------- FBX: the options
def test_names_as_other_programs_spell_them(take, tmp_path):
    before = {block.name: block.value for block in take.data.shape_keys.key_blocks}
    mesh, meshes, actions = take.data, len(bpy.data.meshes), len(bpy.data.actions)
    own = keyed(take)
    for names, wanted in (("PASCAL", {"JawOpen", "MouthSmileLeft", "BrowInnerUp", "TongueOut"}),
                          ("SHORT", {"jawOpen", "mouthSmile_L", "browInnerUp", "tongueOut"})):
        path = tmp_path / f"{names}.fbx"
        bpy.ops.lsf.export_fbx(filepath=str(path), names=names)
        outsider = Outsider(path)
        assert set(outsider.offsets) == wanted
        jaw = next(name for name in wanted if name.lower() == "jawopen")
        assert outsider.weight(jaw, 50 / 25) == pytest.approx(own["jawOpen"][-1, 1], abs=1e-4)
    assert take.data is mesh
    assert {block.name: block.value for block in take.data.shape_keys.key_blocks} == before
    assert (len(bpy.data.meshes), len(bpy.data.actions)) == (meshes, actions)
    for name, points in keyed(take).items():
        np.testing.assert_array_equal(points, own[name])


def test_every_arkit_name_has_a_short_and_a_pascal_form_of_its_own():
    for naming in (fbx_shapes.short_name, fbx_shapes.pascal_name):
        assert len({naming(name) for name in arkit.ARKIT_NAMES}) == 52
        assert naming("My Left") == "My Left", "the artist's own shape keys keep their names"
    assert fbx_shapes.short_name("jawLeft") == "jaw_L"


def test_only_moving_shapes(take, tmp_path):
    path = tmp_path / "a.fbx"
    bpy.ops.lsf.export_fbx(filepath=str(path), only_moving=True)
    outsider = Outsider(path)
    assert "jawOpen" in outsider.offsets
    assert "tongueOut" not in outsider.offsets, "it rests at zero"
    assert "tongueOut" in take.data.shape_keys.key_blocks


@pytest.mark.parametrize("rate", [60.0, 24.0])
def test_keys_at_another_rate_than_the_scenes(take, tmp_path, rate):
    path = tmp_path / "a.fbx"
    bpy.ops.lsf.export_fbx(filepath=str(path), frame_rate=rate)
    outsider = Outsider(path)
    curve = outsider.curves["jawOpen"]
    np.testing.assert_allclose(np.diff(curve[:, 0]), 1 / rate, atol=1e-5)
    assert curve[-1, 0] >= 50 / 25
    wanted = keyed(take)["jawOpen"]
    for seconds in (0.5, 1.0, 1.5):
        bpy.context.scene.frame_set(int(seconds * 25), subframe=seconds * 25 % 1)
        shown = take.data.shape_keys.key_blocks["jawOpen"].value
        assert outsider.weight("jawOpen", seconds) == pytest.approx(shown, abs=2e-3)
    assert len(wanted)


def test_for_unity_the_object_has_a_scale_of_one(take, tmp_path):
    sizes = {}
    for program in ("ANY", "UNITY", "UNREAL"):
        bpy.ops.lsf.export_fbx(filepath=str(tmp_path / f"{program}.fbx"), program=program)
        outsider = Outsider(tmp_path / f"{program}.fbx")
        sizes[program] = np.linalg.norm(outsider.world[:, 0])
        assert len(outsider.offsets) == 4
    assert sizes["ANY"] == pytest.approx(100)
    assert sizes["UNITY"] == pytest.approx(1)


# ---------------------------------------------------------------- glTF, USD: Blender's own exporters
class Gltf:
    """A .gltf with its .bin."""

    def __init__(self, path: Path) -> None:
        self.tree = json.loads(path.read_text())
        self.data = (path.parent / self.tree["buffers"][0]["uri"]).read_bytes()

    def array(self, number: int) -> np.ndarray:
        accessor = self.tree["accessors"][number]
        view = self.tree["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        width = {"SCALAR": 1, "VEC3": 3}[accessor["type"]]
        assert accessor["componentType"] == 5126, "float32"
        return np.frombuffer(self.data, "<f4", accessor["count"] * width, start).reshape(accessor["count"], -1)


@pytest.mark.skipif(bpy.app.version < (4, 3),
                    reason="Blender 4.2 as a module crashes as it ends after any glTF export, of a plain cube too")
def test_gltf_carries_the_take(take, tmp_path):
    path = tmp_path / "a.gltf"
    bpy.ops.export_scene.gltf(filepath=str(path), export_format="GLTF_SEPARATE")
    gltf = Gltf(path)
    [mesh] = gltf.tree["meshes"]
    names = mesh["extras"]["targetNames"]
    assert set(names) == set(keyed(take))
    sampled = [(animation["samplers"][channel["sampler"]]) for animation in gltf.tree["animations"]
               for channel in animation["channels"] if channel["target"]["path"] == "weights"]
    assert len(sampled) == 1
    seconds = gltf.array(sampled[0]["input"])[:, 0]
    weights = gltf.array(sampled[0]["output"]).reshape(len(seconds), len(names))
    wanted = at_scene_frames(take)
    for column, name in enumerate(names):
        for frame in (1, 13, 37, 50):
            found = np.interp((frame - 1) / 25, seconds - seconds[0], weights[:, column])
            assert found == pytest.approx(wanted[name][frame - 1], abs=1e-3), (name, frame)


def test_usd_carries_the_take(take, tmp_path):
    path = tmp_path / "a.usda"
    make_object("Ground", [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)])
    bpy.ops.wm.usd_export(filepath=str(path), export_animation=True)
    text = path.read_text()
    names = re.findall(r'"(\w+)"', re.search(r"uniform token\[\] blendShapes = \[(.*?)\]", text).group(1))
    assert set(names) == set(keyed(take))
    samples = re.search(r"blendShapeWeights\.timeSamples = \{(.*?)\}", text, re.DOTALL).group(1)
    found = {float(frame): [float(x) for x in row.split(",")]
             for frame, row in re.findall(r"([\d.]+): \[(.*?)\]", samples)}
    wanted = at_scene_frames(take)
    for column, name in enumerate(names):
        for frame in (1, 13, 37, 50):
            assert found[frame][column] == pytest.approx(wanted[name][frame - 1], abs=1e-3), (name, frame)
