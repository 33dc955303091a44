"""The mesh: what can be refused before the engine is asked, bulk reading, and shape keys made or found.

The engine sees the vertices in the mesh's own space, or, where the object's scale would distort or mirror the face, as
the artist sees them; `MeshData.from_engine` carries what comes back into the mesh's own space again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bpy
import numpy as np

from . import compat, pieces
from .report import Cure, Problem, told

MADE_TAG, MADE_AS_TAG = "lsf_made", "lsf_made_as"
"""Custom properties of the Key data-block: JSON list of the shape keys that this add-on made, and JSON of a digest of
each as it was made, which tells those that the artist sculpted since."""

LOOK_TAG = "lsf_look"
"""Custom property of the scene that is there for the moment of a look, see `moves`."""


@dataclass(frozen=True)
class MeshData:
    """A neutral face as the engine gets it."""

    vertices: np.ndarray
    """(V, 3) float64, engine's space."""
    triangles: np.ndarray
    """(T, 3) int32."""
    basis: np.ndarray
    """(V, 3) float32, the mesh's own space: the Basis shape key, or the mesh where it has none."""
    to_engine: np.ndarray = field(default_factory=lambda: np.eye(3))
    """(3, 3): engine = to_engine @ own."""

    def from_engine(self, deltas: np.ndarray) -> np.ndarray:
        """Displacements (..., V, 3) from the engine's space to the mesh's own, float32."""
        return (deltas @ np.linalg.inv(self.to_engine).T).astype(np.float32)


def refusal(target: bpy.types.Object | None, scene: bpy.types.Scene) -> str | None:
    """Why this object cannot be animated, in words for the panel; None if nothing speaks against it. Cheap."""
    if target is None:
        return "No mesh is chosen. Choose the neutral head in 'Mesh'."
    name = target.name
    if target.type != "MESH":
        return f"'{name}' is not a mesh but a {target.type.lower()}. Choose the head's mesh object."
    if not in_scene(target, scene):
        return f"'{name}' is not in the scene '{scene.name}'. Link it there or choose another mesh."
    if target.mode != "OBJECT":
        return told(f"'{name}' is in {target.mode.replace('_', ' ').title()} Mode. Leave it for Object Mode first.",
                    Cure("object.mode_set", {"mode": "OBJECT"}, "Object Mode"))
    mesh = target.data
    if mesh.library is not None or target.library is not None:
        library = (mesh.library or target.library).filepath
        return (f"'{name}' is linked from '{library}': neither shape keys nor their animation, mapping or landmarks "
                "can be written to it. Make it local (Object > Relations), or, if it has all its shape keys, override "
                "its mesh too (Outliner > Library Override > Make).")
    if mesh.override_library is not None and mesh.shape_keys is None:
        return overridden(target)
    if not mesh.vertices or not mesh.polygons:
        return f"'{name}' has no faces. Choose the head's mesh object."
    keys = mesh.shape_keys
    if keys is None and mirrors(target):
        return (f"'{name}' has the modifier '{mirrors(target)[0]}', which mirrors it: the engine would see half a "
                "face, and both halves would make the same movements. Apply it (in its menu in the Modifiers tab), or "
                "switch it off in the viewport.")
    if keys is not None and not keys.use_relative:
        return f"The shape keys of '{name}' are absolute. Switch them to Relative in its Shape Keys panel."
    if keys is not None and keys.animation_data is not None and keys.animation_data.use_tweak_mode:
        return (f"'{name}' is in NLA tweak mode, where its shape keys take no other Action: leave it (Tab in the NLA "
                "editor) and try again.")
    return None


def mirrors(target: bpy.types.Object) -> list[str]:
    """Names of the modifiers that show the mesh mirrored."""
    return [modifier.name for modifier in target.modifiers if modifier.type == "MIRROR" and modifier.show_viewport]


def overridden(target: bpy.types.Object) -> str:
    """Why a mesh that is a library override gets no shape keys, in words for the panel."""
    return (f"The mesh of '{target.name}' is a library override: new shape keys on it are lost when the file is opened "
            "again. Make it local (Object > Relations), or animate it once in the library, where it gets them.")


def in_scene(thing: bpy.types.Object, scene: bpy.types.Scene) -> bool:
    """Whether the object is in the scene. A name is not enough: a linked object and its override share theirs."""
    return scene.objects.get(thing.name) == thing or any(other == thing for other in scene.objects)


def existing_keys(target: bpy.types.Object) -> list[str]:
    """Names of the mesh's shape keys but the Basis."""
    keys = target.data.shape_keys
    return [block.name for block in keys.key_blocks if block != keys.reference_key] if keys else []


def basis_of(target: bpy.types.Object) -> np.ndarray:
    """The neutral mesh in its own space, (V, 3) float32: the Basis shape key, or the mesh where it has none."""
    mesh = target.data
    basis = np.empty(len(mesh.vertices) * 3, np.float32)
    if mesh.shape_keys is not None:
        compat.key_points(mesh.shape_keys.reference_key).foreach_get("co", basis)
    else:
        mesh.vertices.foreach_get("co", basis)
    return basis.reshape(-1, 3)


def read(target: bpy.types.Object) -> MeshData:
    """The neutral mesh. Raises Problem for coordinates that are not numbers and objects without extent."""
    mesh = target.data
    count, basis = len(mesh.vertices), basis_of(target)
    bad = np.flatnonzero(~np.isfinite(basis).all(axis=1))
    if len(bad):
        raise Problem(f"'{target.name}' has {len(bad)} of {count} vertices whose position is not a number (NaN or "
                      f"infinite; the first is {bad[0]}). Delete or move them in Edit Mode.")
    mesh.calc_loop_triangles()
    triangles = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    to_engine = _distortion(target)
    vertices = basis.astype(np.float64) @ to_engine.T
    return MeshData(vertices, triangles.reshape(-1, 3), basis, to_engine)


def _distortion(target: bpy.types.Object) -> np.ndarray:
    """The object's 3x3 matrix where it bends proportions or mirrors, else the identity. Raises Problem for scale 0."""
    matrix = np.array(target.matrix_world.to_3x3(), np.float64)
    stretch = np.linalg.svd(matrix, compute_uv=False)
    if not np.isfinite(matrix).all() or stretch.min() < 1e-9:
        raise Problem(f"'{target.name}' is scaled to nothing along an axis (scale {tuple(target.scale)}). "
                      "Give it a scale other than 0.")
    if stretch.max() / stretch.min() > 1.001 or np.linalg.det(matrix) < 0:
        return matrix
    return np.eye(3)


def make_keys(target: bpy.types.Object, names: Sequence[str], deltas: np.ndarray, basis: np.ndarray,
              digests: Sequence[str] = ()) -> None:
    """Add shape keys, or make anew those that we made. deltas: (len(names), V, 3) in the mesh's own space. digests: of
    each, `digests_of`, where they were made before. Made keys are listed under MADE_TAG."""
    shown = target.active_shape_key_index
    if target.data.shape_keys is None:
        target.shape_key_add(name="Basis", from_mix=False)
    keys = target.data.shape_keys
    made_as, ours = _made_as(keys), made_keys(target)
    for name, delta, digest in zip(names, deltas, digests or digests_of(deltas, basis), strict=True):
        block = keys.key_blocks.get(name)
        if block is None or name not in ours:
            block = target.shape_key_add(name=name, from_mix=False)
            block.value = 0.0
        if block.name != name:
            raise AssertionError(f"Blender named the shape key {block.name!r} instead of {name!r}")
        compat.key_points(block).foreach_set("co", _moved(basis, delta))
        made_as[name] = digest
    keys[MADE_TAG], keys[MADE_AS_TAG] = json.dumps(sorted({*made_keys(target), *names})), json.dumps(made_as)
    target.active_shape_key_index = shown
    target.data.update()


def digests_of(deltas: np.ndarray, basis: np.ndarray) -> list[str]:
    """What tells shape keys as they are made from those that were sculpted since. Touches nothing of Blender."""
    return [hashlib.sha1(_moved(basis, delta).tobytes()).hexdigest() for delta in deltas]


def _moved(basis: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """A shape key's points (3 V,) float32."""
    return np.ascontiguousarray(basis + delta, np.float32).ravel()


def made_keys(target: bpy.types.Object) -> list[str]:
    """Names of the shape keys that this add-on made on the mesh."""
    keys = target.data.shape_keys
    if keys is None or MADE_TAG not in keys:
        return []
    present = set(existing_keys(target))
    return [name for name in json.loads(keys[MADE_TAG]) if name in present]


def untouched(target: bpy.types.Object) -> list[str]:
    """Those of `made_keys` that nobody sculpted since; none of a version that did not note how they were made."""
    keys = target.data.shape_keys
    digests = _made_as(keys)
    return [name for name in made_keys(target) if digests.get(name) == _digest(keys.key_blocks[name])]


def _made_as(keys: bpy.types.Key | None) -> dict[str, str]:
    return json.loads(keys[MADE_AS_TAG]) if keys is not None and MADE_AS_TAG in keys else {}


def _points(block: Any) -> np.ndarray:
    points = np.empty(3 * len(block.data), np.float32)
    compat.key_points(block).foreach_get("co", points)
    return points


def _digest(block: Any) -> str:
    return hashlib.sha1(_points(block).tobytes()).hexdigest()


@contextlib.contextmanager
def keys_restored(changed: Mapping[bpy.types.Object, Iterable[str]]) -> Iterator[None]:
    """What fails inside leaves no new shape keys on these objects, and the `changed` ones of each as they were."""
    before = {}
    for thing, names in changed.items():
        keys, there = thing.data.shape_keys, existing_keys(thing)
        before[thing.name] = (there, {name: _points(keys.key_blocks[name]) for name in names if name in there},
                              keys[MADE_AS_TAG] if keys is not None and MADE_AS_TAG in keys else None)
    try:
        yield
    except Exception:
        for thing in changed:
            there, points, digests = before[thing.name]
            remove_keys(thing, [name for name in existing_keys(thing) if name not in there])
            for name, places in points.items():
                compat.key_points(thing.data.shape_keys.key_blocks[name]).foreach_set("co", places)
            if digests is not None:
                thing.data.shape_keys[MADE_AS_TAG] = digests
        raise


def remove_keys(target: bpy.types.Object, names: list[str]) -> None:
    """Undo `make_keys` after a failure, the Basis too where nothing else is left."""
    for name in names:
        block = target.data.shape_keys and target.data.shape_keys.key_blocks.get(name)
        if block:
            target.shape_key_remove(block)
    if target.data.shape_keys and not existing_keys(target):
        target.shape_key_clear()


def hindrances(target: bpy.types.Object, names: list[str]) -> list[str]:
    """Warnings: what keeps weights from showing on the mesh."""
    keys = target.data.shape_keys
    found = []
    muted = [name for name in names if keys.key_blocks[name].mute]
    if muted:
        found.append(f"{_listed(muted)} muted on '{target.name}' and will not show. Unmute them.")
    wanted = {curve_path(name): name for name in names}
    drivers = keys.animation_data.drivers if keys.animation_data else []
    driven = [wanted[driver.data_path] for driver in drivers if driver.data_path in wanted and not driver.mute]
    if driven:
        found.append(f"{_listed(driven)} driven on '{target.name}': the driver wins. Remove or mute it.")
    animation = keys.animation_data
    if animation is not None and animation.action is not None and animation.action_influence < 1:
        found.append(f"The Action's influence on '{target.name}' is {animation.action_influence:.2f}: the take shows "
                     "in part. Set it to 1 in the NLA editor.")
    solo = [track.name for track in animation.nla_tracks if track.is_solo] if animation is not None else []
    if solo:
        found.append(f"The NLA track '{solo[0]}' of '{target.name}' plays solo and hides the take: end that in the NLA "
                     "editor.")
    if target.show_only_shape_key:
        found.append(f"'{target.name}' shows only its active shape key (the pin is on): unpin it to see the take.")
    if mirrors(target):
        found.append(f"The modifier '{mirrors(target)[0]}' mirrors '{target.name}': both halves make the movements of "
                     "one. A winking eye needs a mesh of both halves.")
    if target.data.users > 1:
        found.append(f"The mesh of '{target.name}' is shared by {target.data.users} objects: all of them move.")
    return found


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"Shape key {shown} is" if len(names) == 1 else f"Shape keys {shown} are"


def curve_path(name: str) -> str:
    """Data path of a shape key's weight, from the Key data-block."""
    return f'key_blocks["{bpy.utils.escape_identifier(name)}"].value'


def moves(target: bpy.types.Object, names: list[str], scene: bpy.types.Scene, frame: int) -> pieces.Pieces[bool]:
    """Whether the evaluated mesh at `frame` differs from what it is with the shape keys `names` muted.

    Muting rather than comparing two frames: an armature or a walk cycle moves the mesh between frames as well. True
    where nobody can tell: Blender does not evaluate hidden objects, nor scenes that no window shows. It is looked at in
    a scene of its own for the moment, so that the artist's stays at its frame, and a full one costs nothing.
    """
    if bpy.context.scene != scene or not target.visible_get():
        return True
    alone = bpy.data.scenes.new("LSF look")
    try:
        alone[LOOK_TAG] = True
        for setting in ("use_simplify", "simplify_subdivision"):
            setattr(alone.render, setting, getattr(scene.render, setting))
        alone.collection.objects.link(target)
        alone.view_layers[0].update()  # Blender copies for it what is evaluated, the take too
        yield pieces.LONG
        alone.frame_set(frame)
        with_keys = _evaluated(target, alone)
        yield pieces.LONG
        blocks = [block for name in names if not (block := target.data.shape_keys.key_blocks[name]).mute]
        try:
            for block in blocks:
                block.mute = True
            without = _evaluated(target, alone)
        finally:
            for block in blocks:
                block.mute = False
        # What is evaluated here is written back into the shape keys' values: leave those of the artist's own frame.
        alone.frame_set(scene.frame_current, subframe=scene.frame_subframe)
    finally:
        with contextlib.suppress(ReferenceError):
            bpy.data.scenes.remove(alone)
    if with_keys.shape != without.shape:
        return True
    size = float(np.ptp(without, axis=0).max()) if len(without) else 0.0
    return bool(len(without)) and float(np.abs(with_keys - without).max()) > 1e-6 * max(size, 1e-12)


def remove_looks() -> None:
    """Remove the scenes of `moves` in a state that an undo step caught in the middle of a look, or an autosave."""
    for scene in [scene for scene in bpy.data.scenes if LOOK_TAG in scene and scene.library is None]:
        bpy.data.scenes.remove(scene)


def _evaluated(target: bpy.types.Object, scene: bpy.types.Scene) -> np.ndarray:
    layer = scene.view_layers[0]
    layer.update()
    mesh = target.evaluated_get(layer.depsgraph).data
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", points)
    return points.reshape(-1, 3)
