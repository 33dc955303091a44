"""A face in several objects: teeth, tongue, eyes and lashes of their own, rigged and animated as one with the head."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from conftest import ASSETS, SPEECH, add_strip, error_of, evaluated, keyed, make_object, read_obj
from mathutils import Euler, Matrix

from blender_addon import compare, compat, curves, fbx_check, keys, mesh_io, takes
from blender_addon.shared import arkit


def pieces(vertices: list, faces: list) -> dict[str, tuple[np.ndarray, list]]:
    """The demo head cut into its parts, each (vertices, faces): connected pieces, told apart by their place."""
    parent = list(range(len(vertices)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for face in faces:
        for corner in face[1:]:
            parent[root(corner)] = root(face[0])
    roots = np.array([root(i) for i in range(len(vertices))])
    places = np.array(vertices)
    name_of = {each: part_name(places[roots == each]) for each in np.unique(roots)}
    names = np.array([name_of[each] for each in roots])
    found = {}
    for name in dict.fromkeys(names):
        own = np.flatnonzero(names == name)
        place = {int(v): i for i, v in enumerate(own)}
        found[str(name)] = places[own], [[place[c] for c in face] for face in faces if face[0] in place]
    return found


def part_name(points: np.ndarray) -> str:
    """Which part a piece of the demo head is (metres, y up, the subject's left is +x)."""
    x, y, _ = points.mean(axis=0)
    if len(points) > 500:
        return "Head" if len(points) > 5000 else "Gums"
    if y > 0:
        return "Lashes" if len(points) < 400 else "EyeLeft" if x > 0 else "EyeRight"
    return "TeethUpper" if y > -0.034 else "TeethLower"


def as_object(name: str, vertices: np.ndarray, faces: list, matrix: Matrix) -> bpy.types.Object:
    """The piece where it is in the head, as an object that stands, and is scaled, in a way of its own."""
    back = np.array(matrix.inverted())
    made = make_object(name, (vertices @ back[:3, :3].T + back[:3, 3]).tolist(), faces)
    made.matrix_world = matrix
    return made


@pytest.fixture
def in_parts(scene):
    """The demo head as seven objects, name -> object, each lying in another way; the head stands upright."""
    upright = Matrix.Translation((1, 2, 3)) @ Euler((np.pi / 2, 0, 0.4)).to_matrix().to_4x4()
    objects = {}
    for number, (name, (vertices, faces)) in enumerate(pieces(*read_obj(ASSETS / "demo" / "head.obj")).items()):
        own = Matrix() if name == "Head" else (
            Matrix.Translation((0.1 * number, -0.2, 0.05)) @ Euler((number, 0.5, -number)).to_matrix().to_4x4()
            @ Matrix.Diagonal((2.0, 0.5, 1.0 + number, 1.0)))
        objects[name] = as_object(name, vertices, faces, own)
        objects[name].matrix_world = upright @ own
    bpy.context.view_layer.update()
    scene.lsf.target = objects["Head"]
    for thing in list(objects.values())[1:]:
        objects["Head"].lsf_parts.add().object = thing
    return objects


@pytest.fixture
def ready(scene, in_parts, real_engine):
    """The first 2 s of the demo speech."""
    strip = add_strip(scene, SPEECH, frame=1)
    strip.frame_offset_end = strip.frame_duration - 50
    return scene


def shape(thing: bpy.types.Object, name: str) -> np.ndarray:
    """Displacements (V, 3) in the world of a shape key at 1; zeros where the object has none of that name."""
    blocks = thing.data.shape_keys.key_blocks if thing.data.shape_keys else {}
    if name not in blocks:
        return np.zeros((len(thing.data.vertices), 3))
    moved = np.array([p.co[:] for p in compat.key_points(blocks[name])])
    moved -= np.array([p.co[:] for p in compat.key_points(blocks["Basis"])])
    return moved @ np.array(thing.matrix_world.to_3x3()).T


def names_of(thing: bpy.types.Object) -> set[str]:
    return set(mesh_io.existing_keys(thing))


def test_each_object_gets_the_shapes_that_move_it_in_its_own_space(ready, in_parts):
    assert bpy.ops.lsf.animate() == {"FINISHED"}
    head, lower = in_parts["Head"], in_parts["TeethLower"]
    jaw = {"jawOpen", "jawForward", "jawLeft", "jawRight", "tongueOut"}
    assert names_of(head) == set(arkit.ARKIT_NAMES)
    assert (names_of(lower), names_of(in_parts["Gums"]), names_of(in_parts["TeethUpper"])) == (jaw, jaw, set())
    for side in ("Left", "Right"):
        eye = in_parts[f"Eye{side}"]
        assert names_of(eye) == {f"eyeLook{way}{side}" for way in ("In", "Out", "Up", "Down")}
        points = np.array([eye.matrix_world @ v.co for v in eye.data.vertices])
        centre = (points.max(axis=0) + points.min(axis=0)) / 2
        turned = points + shape(eye, f"eyeLookOut{side}")
        away = np.linalg.norm(turned - centre, axis=1) - np.linalg.norm(points - centre, axis=1)
        assert np.abs(away).max() < 2e-4, "an eyeball turns about its own centre"
        assert np.linalg.norm(turned - points, axis=1).max() > 0.006
    # The world is upright and in metres. The chin goes down by as much as the teeth beside it.
    assert shape(lower, "jawOpen")[:, 2].max() < -0.01
    assert shape(lower, "jawOpen")[:, 2].min() == pytest.approx(shape(head, "jawOpen")[:, 2].min(), rel=0.1)
    assert shape(in_parts["Lashes"], "eyeBlinkLeft")[:, 2].min() < -0.008
    frame = int(max(keyed(head)["jawOpen"], key=lambda point: point[1])[0])
    moved = evaluated(lower, frame) - np.array([v.co[:] for v in lower.data.vertices])
    assert (moved @ np.array(lower.matrix_world.to_3x3()).T)[:, 2].max() < -0.001, "the take moves the teeth too"
    assert len(actions()) == 1 + 6, "one take, and a carrier for each object that it animates"
    assert bpy.ops.lsf.animate() == {"FINISHED"}
    assert "(0 made)" in ready.lsf.summary


# ---------------------------------------------------------------- takes of several objects, with the fake engine
def actions() -> set[str]:
    return {action.name for action in bpy.data.actions}


@pytest.fixture
def trio(ball_scene, ball, fake_engine):
    """A ball with two other meshes for parts, one of which has shape keys and an Action of the artist's."""
    fake_engine()
    made = [ball]
    for name in ("Tongue", "Eye"):
        made.append(make_object(name, [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)]))
        ball.lsf_parts.add().object = made[-1]
    made[2].shape_key_add(name="Basis")
    made[2].shape_key_add(name="Pupil")
    action = bpy.data.actions.new("Pupils")
    compat.assign_action(made[2].data.shape_keys, action)
    compat.new_curve(action, made[2].data.shape_keys, 'key_blocks["Pupil"].value').keyframe_points.insert(3, 0.5)
    return made


def played(things: list[bpy.types.Object]) -> set[bpy.types.Action | None]:
    return {compat.assigned(thing.data.shape_keys).action for thing in things}


def test_one_take_is_all_its_objects(trio, ball_scene):
    ball, tongue, eye = trio
    for _ in range(2):
        bpy.ops.lsf.animate()
    first, second = keys.takes_of(ball)
    assert played(trio) == {second}
    assert [len(keyed(thing)) for thing in trio] == [4, 4, 4]
    assert names_of(eye) == {"Pupil", *names_of(tongue)}
    assert bpy.data.actions["Pupils"].use_fake_user
    assert "The Action 'Pupils' was active before" not in ball_scene.lsf.warnings, "that was the first take"
    takes.activate(ball, first)
    assert played(trio) == {first}
    ball_scene.frame_set(50)
    assert {round(thing.data.shape_keys.key_blocks["jawOpen"].value, 5) for thing in trio} == {0.9}
    copies = compare.show(ball_scene, ball, [second]).objects
    assert len(copies) == 3
    assert played(list(copies)) == {second}
    compare.clear(ball_scene)
    takes.move(ball, first, 10)
    assert {thing.animation_data.action.frame_range[1] for thing in trio} == {60}
    takes.push_down(ball, first)
    assert played(trio) == {None}
    assert [strip.action for _, strip in takes.nla_strips(ball)] == [first] * 3
    takes.activate(ball, second)
    takes.delete(ball, second)
    assert played(trio) == {first}


def test_a_failure_leaves_every_object_as_it_was(trio, monkeypatch):
    ball, tongue, eye = trio

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(curves, "write", fail)
    assert "no room" in error_of(bpy.ops.lsf.animate)
    assert ball.data.shape_keys is None
    assert tongue.data.shape_keys is None
    assert names_of(eye) == {"Pupil"}
    assert actions() == {"Pupils"}
    assert played([eye]) == {bpy.data.actions["Pupils"]}
    assert [thing.animation_data for thing in trio] == [None] * 3


def test_a_part_that_is_taken_off_the_list_rests(trio, ball_scene):
    ball, tongue, eye = trio
    bpy.ops.lsf.animate()
    ball_scene.frame_set(50)
    ball.lsf_active_part = 0
    bpy.ops.lsf.remove_part()
    assert [item.object for item in ball.lsf_parts] == [eye]
    assert played([tongue]) == {None}
    assert [block.value for block in tongue.data.shape_keys.key_blocks] == [0] * 5
    assert len(played([ball, eye])) == 1


def test_selected_meshes_become_parts_once(trio):
    ball, tongue, _ = trio
    ball.lsf_parts.clear()
    for thing in bpy.context.scene.objects:
        thing.select_set(thing in (ball, tongue))
    bpy.ops.lsf.add_parts()
    assert [item.object for item in ball.lsf_parts] == [tongue]
    assert "Select the teeth, tongue, eyes or lashes" in error_of(bpy.ops.lsf.add_parts)


def test_parts_that_cannot_be_animated_are_refused_by_name(trio, tmp_path):
    ball, tongue, eye = trio
    tongue.data = eye.data
    assert "'Tongue' and 'Eye' share the mesh 'Eye'" in error_of(bpy.ops.lsf.animate)
    library = tmp_path / "library.blend"
    teeth = make_object("Teeth", [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)])
    bpy.data.libraries.write(str(library), {teeth})
    bpy.data.objects.remove(teeth)
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.objects = ["Teeth"]
    bpy.context.scene.collection.objects.link(wanted.objects[0])
    ball.lsf_parts[0].object = wanted.objects[0]
    message = error_of(bpy.ops.lsf.animate)
    assert "Parts of 'Ball': 'Teeth' is linked from" in message
    assert "Make it local" in message
    assert ball.data.shape_keys is None


def test_fbx_holds_the_parts_under_the_chosen_names(trio, tmp_path):
    ball, *_ = trio
    bpy.ops.lsf.animate()
    path = str(tmp_path / "face.fbx")
    assert bpy.ops.lsf.export_fbx(filepath=path, names="PASCAL") == {"FINISHED"}
    found = fbx_check.contents(path)
    assert {"JawOpen", "MouthSmileLeft"} <= set(found.moving)
    assert not {name for name in found.shapes if name.startswith("jaw")}
    assert found.vertices == sum(len(thing.data.vertices) for thing in trio)
    assert names_of(ball) == {"jawOpen", "mouthSmileLeft", "browInnerUp", "tongueOut"}


@pytest.mark.skipif(not compat.has_slots(), reason="bones need Actions with slots (Blender 4.4)")
def test_an_overridden_character_that_was_rigged_in_its_library_is_animated(ball_scene, ball, fake_engine, tmp_path):
    """Shape keys, list of parts and bones come from the library; the take is the shot's own and survives saving."""
    fake_engine()
    tongue = make_object("Tongue", [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)])
    ball.lsf_parts.add().object = tongue
    rig = bpy.data.objects.new("Rig", None)
    ball.parent = tongue.parent = ball.lsf_bones.owner = rig
    for thing, names in ((ball, arkit.ARKIT_NAMES), (tongue, ["tongueOut", "jawOpen"])):
        for name in ("Basis", *names):
            thing.shape_key_add(name=name).points[0].co.x += name != "Basis"
    character = bpy.data.collections.new("Character")
    for thing in (ball, tongue, rig):
        character.objects.link(thing)
    bpy.data.libraries.write(str(tmp_path / "library.blend"), {character})
    bpy.data.batch_remove([character, ball, tongue, rig])
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, wanted):
        wanted.collections = ["Character"]
    ball_scene.collection.children.link(wanted.collections[0])
    wanted.collections[0].override_hierarchy_create(ball_scene, bpy.context.view_layer, do_fully_editable=True)
    own = {thing.name: thing for thing in bpy.data.objects if thing.override_library}
    ball_scene.lsf.target = own["Ball"]
    assert own["Ball"].lsf_parts[0].object == own["Tongue"]
    assert "override its mesh too" in error_of(bpy.ops.lsf.animate)
    for name in ("Ball", "Tongue"):
        own[name].data.override_create(remap_local_usages=True)
    assert bpy.ops.lsf.animate() == {"FINISHED"}
    assert "(0 made)" in ball_scene.lsf.summary
    path = str(tmp_path / "shot.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    own = {thing.name: thing for thing in bpy.data.objects if thing.override_library}
    take = keys.active_take(own["Ball"])
    assert keys.takes_of(own["Ball"]) == [take]
    assert played([own["Ball"], own["Tongue"]]) == {take}
    bpy.context.scene.frame_set(50)
    assert own["Tongue"].data.shape_keys.key_blocks["jawOpen"].value == pytest.approx(0.9)
    assert [strip.action for track in own["Rig"].animation_data.nla_tracks for strip in track.strips] == [take]
