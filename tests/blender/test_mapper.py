"""Shape keys that a mesh has already: recognised under any name, mapped by hand, driven directly or by solving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import SPEECH, add_strip, error_of, evaluated, keyed

from blender_addon import compat, edits, keys, mapper, mesh_io, order
from blender_addon.shared import arkit, key_names
from blender_addon.shared import edits as core

VRM = {key: key_names.POSES[pose] for key, pose in key_names.CONVENTIONS["VRM 0"].items() if pose in key_names.POSES}
"""VRM's visemes and blink, as mixes of ARKit's shapes."""


@pytest.fixture
def ready(scene, head, real_engine):
    """The demo head and 2 s of the demo speech."""
    strip = add_strip(scene, SPEECH, frame=-20)
    strip.frame_offset_start = 31
    strip.frame_offset_end = strip.frame_duration - 31 - 50
    return scene


def points(block: Any) -> np.ndarray:
    found = np.empty(3 * len(block.data), np.float32)
    compat.key_points(block).foreach_get("co", found)
    return found.reshape(-1, 3)


def rekey(head: bpy.types.Object, keys_of: Mapping[str, Mapping[str, float]]) -> bpy.types.Object:
    """A twin of an animated head, whose keys are these mixes of the shapes, and 'fat', which means nothing."""
    blocks = head.data.shape_keys.key_blocks
    basis = points(blocks["Basis"])
    twin = bpy.data.objects.new("Twin", head.data.copy())
    twin.shape_key_clear()
    bpy.context.scene.collection.objects.link(twin)
    mixes = {"Basis": {}, "fat": {"cheekPuff": 1.0}, **keys_of}
    for name, mix in mixes.items():
        twin.shape_key_add(name=name, from_mix=False).value = 0.0  # Blender 5 makes them at 1
        moved = sum((weight * (points(blocks[shape]) - basis) for shape, weight in mix.items()), np.zeros_like(basis))
        compat.key_points(twin.data.shape_keys.key_blocks[name]).foreach_set("co", (basis + moved).ravel())
    bpy.context.scene.lsf.target = twin
    return twin


def short(name: str) -> str:
    """eyeBlinkLeft -> EyeBlink_L."""
    name = name[0].upper() + name[1:]
    return next((name.removesuffix(side) + tail for side, tail in (("Left", "_L"), ("Right", "_R"))
                 if name.endswith(side)), name)


def test_keys_under_other_names_get_the_same_curves_and_nothing_is_made(ready, head):
    bpy.ops.lsf.animate()
    plain = keyed(head)
    twin = rekey(head, {short(name): {name: 1.0} for name in arkit.ARKIT_NAMES})
    before = points(twin.data.shape_keys.key_blocks["fat"])
    assert mapper.describe(twin) == "ARKit: 52 of 52 shapes"
    bpy.ops.lsf.animate()
    found = keyed(twin)
    assert set(found) == {short(name) for name in arkit.ARKIT_NAMES}
    for name in arkit.ARKIT_NAMES:
        np.testing.assert_allclose(found[short(name)], plain[name], atol=1e-5)
    assert mesh_io.made_keys(twin) == []
    np.testing.assert_array_equal(points(twin.data.shape_keys.key_blocks["fat"]), before)


def test_visemes_are_solved_and_the_face_comes_near_what_the_shapes_do(ready, head):
    ready.lsf.key_style = "EVERY_FRAME"
    bpy.ops.lsf.animate()
    rest = evaluated(head, 0) * 0 + points(head.data.shape_keys.key_blocks["Basis"])
    wanted = [evaluated(head, frame) - rest for frame in range(12, 60, 6)]
    twin = rekey(head, VRM)
    assert mapper.describe(twin) == "VRM 0: 0 of 52 shapes, 6 visemes and poses by solving"
    bpy.ops.lsf.animate()
    found = keyed(twin)
    assert set(found) == set(VRM)
    weights = np.concatenate([curve[:, 1] for curve in found.values()])
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert [block.name for block in twin.data.shape_keys.key_blocks] == ["Basis", "fat", *VRM]
    lips = points(head.data.shape_keys.key_blocks["jawOpen"]) - rest
    moving = np.linalg.norm(lips, axis=1) > 0.5 * np.linalg.norm(lips, axis=1).max()
    made = [evaluated(twin, frame) - rest for frame in range(12, 60, 6)]
    off = np.mean([np.linalg.norm((a - b)[moving], axis=1).mean() for a, b in zip(made, wanted, strict=True)])
    still = np.mean([np.linalg.norm(b[moving], axis=1).mean() for b in wanted])
    assert off < 0.5 * still


def test_edits_hit_the_keys_that_the_take_drives(ready, head):
    bpy.ops.lsf.animate()
    plain = keys.active_take(head)
    twin = rekey(head, {**VRM, "Jaw_Forward": {"jawForward": 1.0}, "mouthSmile_L": {"mouthSmileLeft": 1.0}})
    bpy.ops.lsf.animate()
    take = keys.active_take(twin)
    before = keyed(twin)
    copied = take.copy()
    edits.apply(copied, core.EditSettings(jaw=0.0, lips=0.0))
    compat.assign_action(twin.data.shape_keys, copied)
    quiet = keyed(twin)
    assert set(quiet) == set(before) == {*VRM, "Jaw_Forward", "mouthSmile_L"}
    assert quiet["A"][:, 1].max() < 0.3 * before["A"][:, 1].max()
    assert quiet["Blink"][:, 1].max() > 0.5, "eyes are not the jaw's"
    edits.apply(copied, order.edits_of_take(take))
    for name, curve in keyed(twin).items():
        np.testing.assert_allclose(curve, before[name], atol=1e-5)
    assert mapper.DRIVE_TAG not in plain, "a plain take needs no table"


def test_a_partial_set_is_driven_and_what_lacks_is_made_or_left(ready, head):
    bpy.ops.lsf.animate()
    few = {"Jaw_Open": {"jawOpen": 1.0}, "Eye_Blink_L": {"eyeBlinkLeft": 1.0}, "Eye_Blink_R": {"eyeBlinkRight": 1.0}}
    twin = rekey(head, few)
    twin.lsf_keys.missing = "LEAVE"
    bpy.ops.lsf.animate()
    assert set(keyed(twin)) == set(few)
    assert mesh_io.made_keys(twin) == []
    twin.lsf_keys.missing = "AUTO"
    bpy.ops.lsf.animate()
    made = mesh_io.made_keys(twin)
    assert len(made) == 49
    assert "jawOpen" not in made
    assert set(keyed(twin)) == {*few, *made}
    assert mapper.describe(twin) == "ARKit: 52 of 52 shapes"


def test_keys_that_do_the_same_are_driven_once():
    """Ready Player Me's mouthOpen beside ARKit's jawOpen; halves of a middle shape stay together."""
    both = key_names.match([*arkit.ARKIT_NAMES, "mouthOpen", "viseme_aa", "viseme_O", "viseme_PP", "browInnerUp_L"])
    assert mapper.one_way(both.arkit) == {name: name for name in arkit.ARKIT_NAMES}
    halves = {"Brow_Raise_Inner_L": "browInnerUp", "Brow_Raise_Inner_R": "browInnerUp"}
    assert mapper.one_way(halves) == halves


@pytest.fixture
def avatar(ball_scene, ball, fake_engine):
    """A ball with keys of no known name; the fake engine moves jawOpen, mouthSmileLeft, browInnerUp and tongueOut."""
    fake_engine()
    for name in ("Basis", "gape", "grin", "brow l", "brow r", "horns"):
        ball.shape_key_add(name=name, from_mix=False)
    ball.lsf_keys.missing = "LEAVE"
    return ball


def row(target: bpy.types.Object, meaning: str) -> Any:
    return target.lsf_keys.rows[meaning]


def test_a_mapping_by_hand_is_driven_kept_and_cleared(avatar, tmp_path):
    assert mapper.describe(avatar).startswith("No shape key is recognised")
    bpy.ops.lsf.map_keys()
    row(avatar, "jawOpen").key = "gape"
    row(avatar, "mouthSmileLeft").key = "grin"
    row(avatar, "browInnerUp").key = "brow l + brow r"
    bpy.ops.lsf.animate()
    assert set(keyed(avatar)) == {"gape", "grin", "brow l", "brow r"}
    np.testing.assert_allclose(keyed(avatar)["gape"][[0, -1], 1], [0.1, 0.9], atol=0.01)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
    avatar = bpy.data.objects["Ball"]
    assert row(avatar, "browInnerUp").key == "brow l + brow r"
    row(avatar, "tongueOut").key = "gape"
    assert row(avatar, "jawOpen").key == "", "a key stands for one thing"
    row(avatar, "mouthSmileLeft").key = ""
    assert mapper.plan(avatar).direct == {"gape": "tongueOut", "brow l": "browInnerUp", "brow r": "browInnerUp"}
    bpy.ops.lsf.unmap_keys()
    assert mapper.plan(avatar).direct == {}


def test_presets_fill_the_mapping_and_one_that_does_not_fit_is_refused(avatar):
    avatar.data.shape_keys.key_blocks["gape"].name = "V_Open"
    bpy.ops.lsf.map_keys(preset="Reallusion CC")
    assert row(avatar, "aa").key == "V_Open"
    assert "None of the 5 shape keys of 'Ball' is named as in VRM 1" in error_of(
        lambda: bpy.ops.lsf.map_keys(preset="VRM 1"))
    assert row(avatar, "aa").key == "V_Open", "a refusal changes nothing"


def test_a_cleared_key_of_the_artists_is_neither_driven_nor_made_anew(avatar):
    avatar.data.shape_keys.key_blocks["gape"].name = "jawOpen"
    avatar.lsf_keys.missing = "MAKE"
    bpy.ops.lsf.map_keys()
    row(avatar, "jawOpen").key = ""
    bpy.ops.lsf.animate()
    assert set(keyed(avatar)) == {"mouthSmileLeft", "browInnerUp", "tongueOut"}


def test_why_keys_cannot_be_mapped(ball_scene, ball, tmp_path):
    assert "has no shape keys to map" in error_of(bpy.ops.lsf.map_keys)
    ball.shape_key_add(name="Basis")
    ball.shape_key_add(name="jawOpen")
    path = str(tmp_path / "library.blend")
    bpy.data.libraries.write(path, {ball})
    with bpy.data.libraries.load(path, link=True) as (_, wanted):
        wanted.objects = ["Ball"]
    linked = wanted.objects[0]
    bpy.context.scene.collection.objects.link(linked)
    ball_scene.lsf.target = linked
    said = error_of(bpy.ops.lsf.map_keys)
    assert "is linked from" in said
    assert "Make it local" in said


def test_the_panel_shows_what_was_recognised_and_the_list(avatar):
    from test_panel import drawn

    assert "No shape key is recognised" in drawn().text
    bpy.ops.lsf.map_keys()
    row(avatar, "jawOpen").key = "gape"
    notes = drawn()
    assert "Your mapping: 1 of 52 shapes" in notes.text
    assert "LSF_UL_mapping" in notes.of("list")
    assert {"missing"} <= set(notes.of("prop"))
