"""The exported FBX, read by ufbx, which knows nothing of Blender: weights and vertex positions at sampled frames.

ufbx gives the base mesh, the displacement of each blend shape and the keys of each curve; the positions are summed up
here by hand. Compared with Blender's evaluated mesh, relative to the size of the face's movement and of the head.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import SPEECH, add_strip, error_of, evaluated, keyed, make_object

from blender_addon import compat, fbx, keys

pytest.importorskip("ufbx")
READER = Path(__file__).with_name("read_fbx.py")
TOLERANCE = 1e-4


class Outsider:
    """What another program finds in the file."""

    def __init__(self, path: Path) -> None:
        subprocess.run([sys.executable, str(READER), str(path), str(path.with_suffix(".npz"))], check=True)
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as found:
            self.stacks, self.fps = int(found["stacks"]), float(found["fps"])
            self.nodes = set(found["nodes"].tolist())
            if "base" not in found:
                return
            self.base, self.world = found["base"], found["world"]
            names = found["shapes"].tolist()
            self.offsets = dict(zip(names, found["offsets"], strict=True))
            self.curves = {name: found[f"curve_{k}"] for k, name in enumerate(names) if f"curve_{k}" in found}

    def weight(self, name: str, seconds: float) -> float:
        curve = self.curves.get(name)
        return 0.0 if curve is None else float(np.interp(seconds, curve[:, 0], curve[:, 1]))

    def positions(self, seconds: float) -> np.ndarray:
        """(V, 3) in the mesh's own space."""
        return self.base + sum(self.weight(name, seconds) * offset for name, offset in self.offsets.items())


def compare(path: Path, target: bpy.types.Object, first: int, last: int) -> Outsider:
    """Everything the outsider sees, against the keys and the evaluated mesh."""
    outsider = Outsider(path)
    fps = bpy.context.scene.render.fps / bpy.context.scene.render.fps_base
    assert outsider.fps == pytest.approx(fps, rel=1e-4)
    wanted = {curve.data_path.split('"')[1]: curve for curve in compat.curves_of(target.data.shape_keys)}
    assert set(outsider.offsets) == {block.name for block in target.data.shape_keys.key_blocks[1:]}
    moved = 0.0
    basis = np.array([p.co[:] for p in compat.key_points(target.data.shape_keys.reference_key)])
    for frame in np.linspace(first, last, 7).round().astype(int):
        seconds = frame / fps
        for name, curve in wanted.items():
            assert outsider.weight(name, seconds) == pytest.approx(curve.evaluate(frame), abs=TOLERANCE), name
        shown = evaluated(target, int(frame))
        movement = np.abs(shown - basis).max()
        moved = max(moved, movement)
        found = outsider.positions(seconds)
        assert found.shape == shown.shape
        # Where a frame hardly moves, the float32 coordinates of the file themselves are the limit: 1e-6 of the head.
        assert np.abs(found - shown).max() <= TOLERANCE * max(movement, 1e-2 * np.ptp(basis)), f"frame {frame}"
    # FBX is Y up and in centimetres: Blender's world (x, y, z) is the file's (x, z, -y) * 100.
    matrix = np.array(target.matrix_world)
    here = (basis @ matrix[:3, :3].T + matrix[:3, 3])[:, [0, 2, 1]] * (100, 100, -100)
    there = outsider.base @ outsider.world[:, :3].T + outsider.world[:, 3]
    np.testing.assert_allclose(there, here, atol=TOLERANCE * 100 * np.ptp(basis))
    assert moved > 0, "a comparison of still faces proves nothing"
    return outsider


def test_an_outsider_finds_the_same_face(scene, head, real_engine, tmp_path):
    strip = add_strip(scene, SPEECH, frame=9)
    strip.frame_offset_end = strip.frame_duration - 60
    bpy.ops.lsf.animate()
    path = tmp_path / "take.fbx"
    bpy.ops.lsf.export_fbx(filepath=str(path))
    outsider = compare(path, head, 9, 68)
    assert outsider.stacks == 1
    assert len(outsider.offsets) == 52
    jaw = keyed(head)["jawOpen"]
    assert np.ptp(jaw[:, 1]) > 0.1


@pytest.mark.parametrize(("fps", "base"), [(24, 1.001), (30, 1.0), (60, 1.0)])
def test_at_other_frame_rates(ball_scene, ball, fake_engine, tmp_path, fps, base):
    fake_engine()
    ball_scene.render.fps, ball_scene.render.fps_base = fps, base
    bpy.ops.lsf.animate()
    take = keys.take_settings(keys.active_take(ball))
    bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "a.fbx"))
    compare(tmp_path / "a.fbx", ball, take["first_frame"], take["first_frame"] + take["frames"] - 1)


def test_a_take_longer_than_the_scene_is_not_cut_and_the_scene_stays(ball_scene, ball, fake_engine, tmp_path):
    fake_engine()
    ball_scene.lsf.extend_frame_range = False
    ball_scene.frame_start, ball_scene.frame_end = 10, 20
    ball_scene.frame_set(13)
    bpy.ops.object.select_all(action="DESELECT")
    bpy.ops.lsf.animate()
    bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "a.fbx"))
    assert (ball_scene.frame_start, ball_scene.frame_end, ball_scene.frame_current) == (10, 20, 13)
    assert not ball.select_get()
    compare(tmp_path / "a.fbx", ball, 1, 50)


def test_modifiers_do_not_cost_the_shape_keys(ball_scene, ball, fake_engine, tmp_path):
    fake_engine()
    bpy.ops.lsf.animate()
    ball.modifiers.new("Smooth", "SUBSURF")
    bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "a.fbx"))
    ball.modifiers.clear()
    compare(tmp_path / "a.fbx", ball, 1, 50)


def test_the_character_goes_along_and_the_rest_of_the_scene_does_not(ball_scene, ball, fake_engine, tmp_path):
    fake_engine()
    body = make_object("Body", [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)])
    make_object("Teapot", [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)])
    ball.parent = body
    bpy.ops.lsf.animate()
    assert {o.name for o in fbx.belongings(ball, ball_scene)} == {"Ball", "Body"}
    bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "a.fbx"))
    names = Outsider(tmp_path / "a.fbx").nodes
    assert {"Ball", "Body"} <= names
    assert "Teapot" not in names
    bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "all.fbx"), whole_scene=True)
    assert "Teapot" in Outsider(tmp_path / "all.fbx").nodes


def test_blenders_own_export_with_default_settings_keeps_the_take(ball_scene, ball, fake_engine, tmp_path):
    """What an artist does who never sees our button: File > Export > FBX."""
    fake_engine()
    bpy.ops.lsf.animate()
    bpy.ops.export_scene.fbx(filepath=str(tmp_path / "plain.fbx"))
    outsider = Outsider(tmp_path / "plain.fbx")
    for name, points in keyed(ball).items():
        if np.ptp(points[:, 1]) > 0:
            found = outsider.curves[name]
            assert np.ptp(found[:, 1]) == pytest.approx(np.ptp(points[:, 1]), rel=0.02), name


def test_blenders_own_export_gives_each_of_two_heads_one_animation(ball_scene, ball, fake_engine, tmp_path):
    fake_engine()
    bpy.ops.lsf.animate()
    bpy.ops.export_scene.fbx(filepath=str(tmp_path / "one.fbx"))
    bpy.ops.mesh.primitive_uv_sphere_add(segments=12, ring_count=8)
    ball_scene.lsf.target = bpy.context.object
    bpy.ops.lsf.animate()
    bpy.ops.export_scene.fbx(filepath=str(tmp_path / "two.fbx"))
    assert Outsider(tmp_path / "two.fbx").stacks == Outsider(tmp_path / "one.fbx").stacks + 1


def test_a_success_clears_the_error_and_tells_the_path_that_was_written(ball_scene, ball, fake_engine, tmp_path, capfd):
    fake_engine()
    bpy.ops.lsf.animate()
    assert "There is no folder" in error_of(lambda: bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "no" / "y")))
    assert "There is no folder" in ball_scene.lsf.error
    capfd.readouterr()
    bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "y"))
    assert ball_scene.lsf.error == ""
    assert f"Exported {tmp_path / 'y.fbx'}\n" in capfd.readouterr().out
    assert (tmp_path / "y.fbx").is_file()


def by_blender(path: Path) -> Any:
    """The file read back by Blender's own importer: the mesh object."""
    before = set(bpy.data.objects)
    bpy.ops.import_scene.fbx(filepath=str(path), anim_offset=0.0)
    [mesh] = [o for o in bpy.data.objects if o not in before and o.type == "MESH"]
    return mesh


def test_blender_reads_it_back(ball_scene, ball, fake_engine, tmp_path):
    fake_engine()
    bpy.ops.lsf.animate()
    bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "a.fbx"))
    shown = {frame: evaluated(ball, frame) for frame in (1, 25, 50)}
    twin = by_blender(tmp_path / "a.fbx")
    for frame, points in shown.items():
        np.testing.assert_allclose(evaluated(twin, frame), points, atol=1e-4)
