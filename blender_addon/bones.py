"""Bones, or a parent object, that a take turns: head, jaw and eyes, chosen on the head (`Object.lsf_bones`).

The turns are keyed in the take's own Action, in a slot for the armature, and play from an NLA track of ours: what the
artist animates on the armature stays its active Action, and the head's turn is combined with it. A parent object is
turned by its delta rotation, which leaves its own rotation to the artist.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Euler, Matrix, Quaternion

from . import compat, curves, mesh_io
from .shared import sparse

TRACK = "LSF take"
"""Name of the NLA track from which the active take turns the bones."""

ROLES = {"head": "Head", "jaw": "Jaw", "eye_left": "Left Eye", "eye_right": "Right Eye"}

TOLERANCE = math.radians(0.1) / 2
"""How far sparse keys may be off: 0.1 degrees, half of it in the components of a quaternion."""

LOOK = {"Up": -22.0, "Down": 28.0, "In": -32.0, "Out": 32.0}
"""Degrees of an eye at a weight of 1, as the template's eyeballs turn: pitch, and yaw to the eye's own side."""

UPRIGHT = math.radians(20)
"""A head whose axes are nearer to those of its object, or of the world, is taken to lie along them."""


@dataclass(frozen=True)
class Turn:
    """What turns: its role, the data path keyed, `order` as the rotation mode has it (QUATERNION, XYZ ...), and the
    face's axes (left, up, forward; the columns of a 3x3 matrix, row by row) in the space of the keys."""

    role: str
    path: str
    order: str
    axes: tuple[float, ...]
    degrees: float
    """Of the jaw at jawOpen 1."""

    def values(self, angles: np.ndarray) -> np.ndarray:
        """Keys (F, 4 or 3) for the angles (F, 3) radians: pitch, yaw and roll as in lsf_core.motion.Motion."""
        axes = Matrix(np.array(self.axes).reshape(3, 3).tolist())
        found: list[Sequence[float]] = []
        before: Any = Quaternion() if self.order == "QUATERNION" else Euler((0, 0, 0), self.order)
        for pitch, yaw, roll in angles.tolist():
            own = Matrix.Rotation(yaw, 3, "Y") @ Matrix.Rotation(pitch, 3, "X") @ Matrix.Rotation(-roll, 3, "Z")
            turned: Any = (axes @ own @ axes.transposed()).to_quaternion()
            if self.order == "QUATERNION":
                turned.make_compatible(before)
            else:
                turned = turned.to_euler(self.order, before)
            before = turned
            found.append(tuple(turned))
        return np.array(found, np.float32)


# ---------------------------------------------------------------- what the artist chose
def refusal(target: bpy.types.Object, scene: bpy.types.Scene) -> str | None:
    """Why the bones cannot be turned, in words for the panel; None if they can, or none are chosen. Cheap."""
    chosen = target.lsf_bones
    owner = chosen.owner
    if owner is None or not wanted(target):
        return None
    if not compat.has_slots():
        return ("Bones need Blender 4.4 or later, whose Actions have slots: empty the field 'Armature' to animate the "
                "shape keys alone.")
    if not mesh_io.in_scene(owner, scene):
        return f"'{owner.name}' is not in the scene '{scene.name}'. Link it there or choose another one."
    if owner.library is not None:
        return (f"'{owner.name}' is linked from '{owner.library.filepath}' and cannot be keyed. Make a library "
                "override of it (Object > Library Override > Make).")
    if owner.animation_data is not None and owner.animation_data.use_tweak_mode:
        return f"'{owner.name}' is in NLA tweak mode: leave it (Tab in the NLA editor) and try again."
    used: dict[str, str] = {}
    for role, name in wanted(target).items():
        thing = owner.pose.bones.get(name) if name else owner
        if thing is None:
            return f"'{owner.name}' has no bone '{name}'. Choose the bone for '{ROLES[role]}' again."
        if thing.rotation_mode == "AXIS_ANGLE":
            return f"'{name or owner.name}' turns by Axis Angle. Set its rotation mode to Quaternion or XYZ Euler."
        if name in used:
            return f"The bone '{name}' is chosen for '{ROLES[used[name]]}' and for '{ROLES[role]}'. Clear one of them."
        used[name] = role
    return None


def wanted(target: bpy.types.Object) -> dict[str, str]:
    """What is turned: role -> name of the bone, '' for the parent object itself."""
    chosen = target.lsf_bones
    if chosen.owner is None:
        return {}
    if chosen.owner.type != "ARMATURE":
        return {"head": ""}
    return {role: getattr(chosen, role) for role in ROLES if getattr(chosen, role)}


def turns(target: bpy.types.Object, shapes: dict[str, str]) -> list[Turn]:
    """The turns of a new take. shapes: ARKit shape -> shape key of the head, by which is told where the face looks."""
    owner, found = target.lsf_bones.owner, []
    for role, name in wanted(target).items():
        if name:
            bone = owner.pose.bones[name]
            rigid = target.parent == owner and target.parent_type == "BONE"
            rest = owner.matrix_world @ (bone.matrix if rigid else bone.bone.matrix_local)
            to_keys, path, order = Matrix.Identity(3), f"{bone.path_from_id()}.rotation", bone.rotation_mode
        else:
            # Where the object is turned at rest in its parent's space, which is that of delta rotations.
            quaternion = owner.rotation_mode == "QUATERNION"
            delta = owner.delta_rotation_quaternion if quaternion else owner.delta_rotation_euler
            to_keys = delta.to_matrix().inverted() @ owner.matrix_basis.to_3x3().normalized()
            rest, path, order = owner.matrix_world, "delta_rotation", owner.rotation_mode
        local = _rotation(rest.inverted_safe() @ target.matrix_world @ facing(target, shapes).to_4x4())
        path += "_quaternion" if order == "QUATERNION" else "_euler"
        axes = tuple(float(x) for row in to_keys @ local for x in row)
        found.append(Turn(role, path, order, axes, math.degrees(target.lsf_bones.jaw_angle)))
    return found


def facing(target: bpy.types.Object, shapes: dict[str, str]) -> Matrix:
    """The face's left, up and forward as the columns of a 3x3 matrix, in the mesh's own space, of whatever length.

    Told by where blinks and smiles move the mesh; a mesh without those is taken to look along -Y, as is usual.
    """
    world = target.matrix_world.to_3x3()
    blocks = target.data.shape_keys.key_blocks
    names = [shapes.get(name, "") for name in ("eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight")]
    centres = [centre for name in names if name in blocks and (centre := _centre(target, blocks[name])) is not None]
    usual = world.inverted_safe() @ Matrix(((1, 0, 0), (0, 0, -1), (0, 1, 0)))
    if len(centres) < len(names):
        return usual
    matrix = np.array(world, np.float64)
    mirrored = np.linalg.det(matrix) < 0  # left and right are what they are in the world only
    for space in [matrix] if mirrored else [np.eye(3), matrix]:
        eye_left, eye_right, mouth_left, mouth_right = (space @ centre for centre in centres)
        left, up = eye_left - eye_right + mouth_left - mouth_right, eye_left + eye_right - mouth_left - mouth_right
        forward = np.cross(left, up)
        if not np.linalg.norm(forward) > 0.1 * np.linalg.norm(up) ** 2:  # no face: the eyes lie above one another
            return usual
        left, forward = left / np.linalg.norm(left), forward / np.linalg.norm(forward)
        axes = np.stack([left, np.cross(forward, left), forward], axis=1)
        near = np.round(axes)
        if np.abs(near).sum() == 3 and math.acos(min(1.0, (np.trace(near.T @ axes) - 1) / 2)) < UPRIGHT:
            axes = near
            break
    return Matrix(np.linalg.solve(space, axes).tolist())


def _centre(target: bpy.types.Object, block: Any) -> np.ndarray | None:
    """Middle (3,) of what a shape key moves, in the mesh's own space; None if it moves nothing."""
    points = np.empty((2, len(target.data.vertices) * 3), np.float32)
    for row, each in zip(points, (block, target.data.shape_keys.reference_key), strict=True):
        compat.key_points(each).foreach_get("co", row)
    moved, basis = points.reshape(2, -1, 3).astype(np.float64)
    share = ((moved - basis) ** 2).sum(axis=1)
    return share @ basis / share.sum() if share.sum() > 0 else None


def _rotation(matrix: Matrix) -> Matrix:
    """The turn in a matrix, without scale and shear."""
    u, _, v = np.linalg.svd(np.array(matrix.to_3x3()))
    return Matrix((u @ v).tolist())


# ---------------------------------------------------------------- keys of a take
def left_out(target: bpy.types.Object, direct: dict[str, str]) -> set[str]:
    """Shape keys that are not keyed as a bone does what they do. direct: key -> ARKit shape."""
    return {key for key, shape in direct.items() if shape == "jawOpen"} if "jaw" in wanted(target) else set()


def channels(made: Sequence[Turn], names: Sequence[str], weights: np.ndarray, head: np.ndarray | None,
             style: str) -> Iterator[tuple[str, int, np.ndarray, np.ndarray | None]]:
    """Curves of the turns: data path, index, values (F,) and where sparse keys are (F,), None for every frame.

    weights: (F, len(names)) of ARKit shapes. head: (F, 3) radians, None for a head that is still.
    """
    for turn in made:
        values = turn.values(_angles(turn, list(names), weights, head))
        mask = None
        if style == curves.SPARSE:  # all curves of a rotation have their keys together, as an animator wants them
            mask = sparse.sparse_keys(values, tolerance=TOLERANCE).any(axis=1)
        for index in range(values.shape[1]):
            yield turn.path, index, values[:, index], mask


def _angles(turn: Turn, names: list[str], weights: np.ndarray, head: np.ndarray | None) -> np.ndarray:
    """Pitch, yaw and roll (F, 3) in radians."""
    def weight(name: str) -> np.ndarray:
        return weights[:, names.index(name)] if name in names else np.zeros(len(weights))

    angles = np.zeros((len(weights), 3))
    if turn.role == "head":
        return angles if head is None else head
    if turn.role == "jaw":
        angles[:, 0] = weight("jawOpen") * math.radians(turn.degrees)
        return angles
    side = "Left" if turn.role == "eye_left" else "Right"
    look = {way: weight(f"eyeLook{way}{side}") * math.radians(degrees) for way, degrees in LOOK.items()}
    angles[:, 0] = look["Up"] + look["Down"]
    angles[:, 1] = (look["In"] + look["Out"]) * (1 if side == "Left" else -1)
    return angles


def curve_id(path: str, index: int) -> str:
    """What a curve of a turn is called among the keys that a take remembers as written."""
    return f"{path}[{index}]"


def curves_in(take: bpy.types.Action) -> Iterator[Any]:
    """The take's curves that turn bones or the parent."""
    if compat.has_slots():  # without slots an Action is either for shape keys or for objects
        yield from compat.curves_in(take, "OBJECT")


def write(target: bpy.types.Object, take: bpy.types.Action, made: Sequence[Turn], names: Sequence[str],
          weights: np.ndarray, head: np.ndarray | None, first_frame: int, style: str) -> dict[str, curves.Keys]:
    """Key the turns in a slot of the take. Returns the keys written, by `curve_id`."""
    written: dict[str, curves.Keys] = {}
    if not made:
        return written
    slot = take.slots.new("OBJECT", target.lsf_bones.owner.name)
    bag = compat.channelbag(take, slot, make=True)
    assert bag is not None
    groups = {}
    for path, index, values, mask in channels(made, names, weights, head, style):
        chosen = curves.chosen(values, mask, first_frame)
        curve = bag.fcurves.new(path, index=index)
        if path not in groups:
            bone = path.split('"')[1] if '"' in path else "Delta Rotation"
            groups[path] = bag.groups.new(bone)
        curve.group = groups[path]
        curves.write(curve, chosen, style)
        written[curve_id(path, index)] = chosen
    return written


def to_settings(made: Sequence[Turn]) -> list[dict[str, Any]]:
    """For the settings that a take keeps."""
    return [asdict(turn) for turn in made]


def from_settings(stored: Any) -> list[Turn]:
    """Raises TypeError or ValueError for anything but what `to_settings` made."""
    return [Turn(**{**each, "axes": tuple(each["axes"])}) for each in stored or ()]


# ---------------------------------------------------------------- playing
def play(target: bpy.types.Object, take: bpy.types.Action | None, own: Container[bpy.types.Action]) -> None:
    """Let the take turn the bones, or nothing. own: the takes of this head, which play no more on other objects."""
    for thing in bpy.data.objects:
        if thing.animation_data is not None and thing.animation_data.use_tweak_mode:
            continue  # Blender holds on to the track that is being tweaked
        for track in tracks(thing):
            if track.name.startswith(TRACK) and all(strip.action is None or strip.action in own
                                                    for strip in track.strips):
                thing.animation_data.nla_tracks.remove(track)
    owner = target.lsf_bones.owner
    slot = compat.slot_for(take, "OBJECT") if take is not None and compat.has_slots() else None
    if owner is None or owner.library is not None or take is None or slot is None:
        return
    track = owner.animation_data_create().nla_tracks.new()
    track.name = TRACK
    strip = track.strips.new(take.name, math.floor(take.frame_range[0]), take)
    strip.action_slot = slot
    strip.blend_type = "COMBINE"


def tracks(thing: bpy.types.Object) -> list[Any]:
    """The NLA tracks of an object."""
    return list(thing.animation_data.nla_tracks) if thing.animation_data is not None else []


def push_down(target: bpy.types.Object, take: bpy.types.Action) -> None:
    """Leave the take on its NLA track for good; it plays within its frames only."""
    owner = target.lsf_bones.owner
    for track in tracks(owner) if owner is not None else []:
        for strip in track.strips:
            if track.name.startswith(TRACK) and strip.action == take:
                track.name, strip.extrapolation = take.name, "NOTHING"


def hindrances(target: bpy.types.Object, take: bpy.types.Action) -> list[str]:
    """Warnings: what keeps the keyed turns from showing."""
    owner = target.lsf_bones.owner
    if owner is None or not wanted(target):
        return []
    found = []
    data = owner.animation_data
    paths = {curve.data_path for curve in curves_in(take)}
    rivals = [curve.data_path for curve in compat.curves_of(owner) if curve.data_path in paths]
    if rivals and data.action_blend_type == "REPLACE":
        found.append(f"The Action '{data.action.name}' of '{owner.name}' keys {rivals[0]} as the take does "
                     "and hides that: set that Action's blending to Combine in the NLA editor.")
    if owner.type == "ARMATURE" and owner.data.pose_position == "REST":
        found.append(f"'{owner.name}' is shown in Rest Position, where its bones do not move: choose Pose Position.")
    return found
