"""Shape keys that the mesh has already: which of them a take drives, and how.

A key that stands for an ARKit shape, in whatever spelling, gets that shape's weight. Visemes and other poses (VRM,
Oculus, Microsoft ...) get weights solved so that together they come as near as they can to the shapes that the mesh
lacks. What the names say is recognised (`lsf_core.face.keys.names`); the artist's own mapping, where there is one, lies
on the object: one row for each ARKit shape and pose, empty rows stand for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import bpy
import numpy as np
from bpy.props import CollectionProperty, EnumProperty, IntProperty, PointerProperty, StringProperty

from . import compat, mesh_io
from .button import Button
from .report import Problem
from .shared import arkit, key_names, key_solve

DRIVE_TAG = "lsf_drive"
"""Custom property of our Actions: JSON of the Drive, where it is not the plain one."""

AND = " + "
"""Between the keys of a row: halves of a shape that are driven alike."""

NOT_SPEECH = ("silence", "blink", "smile")
SPEAKING = 3
"""So many visemes make a mouth that can speak, so that no shape keys have to be made."""

AUTO, MAKE, LEAVE = "AUTO", "MAKE", "LEAVE"


@dataclass(frozen=True)
class Plan:
    """What becomes of a mesh's shape keys. direct: key -> ARKit shape; solved: keys that are poses, to be solved;
    make: ARKit shapes to be made as new keys; lacking: ARKit shapes that no key stands for."""

    direct: dict[str, str]
    solved: tuple[str, ...]
    make: tuple[str, ...]
    lacking: tuple[str, ...]
    convention: str


def plan(target: bpy.types.Object) -> Plan:
    """What a take does with the mesh's shape keys. Cheap."""
    existing = mesh_io.existing_keys(target)
    direct, poses, convention = _meanings(target, existing)
    for shape in mesh_io.made_keys(target):  # ours, whatever the rows say
        if shape in arkit.INDEX and shape not in direct.values():
            direct[shape] = shape
    lacking = tuple(shape for shape in arkit.ARKIT_NAMES if shape not in direct.values())
    speaking = sum(pose not in NOT_SPEECH for pose in poses.values()) >= SPEAKING
    wish = target.lsf_keys.missing
    leave = wish == LEAVE or (wish == AUTO and speaking)
    make = () if leave else tuple(shape for shape in lacking if shape not in existing)
    return Plan(direct, tuple(poses) if leave and lacking else (), make, lacking, convention)


def _meanings(target: bpy.types.Object, existing: list[str]) -> tuple[dict[str, str], dict[str, str], str]:
    """key -> ARKit shape, key -> pose, and the convention that the names follow: '' for none or a mapping by hand."""
    rows = target.lsf_keys.rows
    if not len(rows):
        matched = _recognised(tuple(existing))
        return one_way(matched.arkit), dict(matched.poses), matched.convention
    mapped = {key: row.name for row in rows for key in keys_in(row.key, existing)}
    return ({key: meaning for key, meaning in mapped.items() if meaning in arkit.INDEX},
            {key: meaning for key, meaning in mapped.items() if meaning in key_names.POSES}, "")


@lru_cache(maxsize=16)
def _recognised(existing: tuple[str, ...]) -> key_names.Matched:
    """Kept, for panels ask at every drawing."""
    return key_names.match(existing)


def one_way(direct: dict[str, str]) -> dict[str, str]:
    """Without keys that do the same as another: jawOpen and mouthOpen together would open the jaw twice.

    A key of ARKit's own name comes first, then the first that is whole; halves of a middle shape stay together.
    """
    kept: dict[str, str] = {}
    for shape in dict.fromkeys(direct.values()):
        keys = [key for key, meaning in direct.items() if meaning == shape]
        words = key_names.words(shape)
        own = [key for key in keys if key_names.words(key)[-len(words):] == words]
        halves = [key for key in keys if {"left", "right"} & set(key_names.words(key))]
        whole = [key for key in keys if key not in halves]
        sided = words[-1] in ("left", "right")
        chosen = own[:1] or (keys[:1] if sided else whole[:1] or halves)
        kept.update(dict.fromkeys(chosen, shape))
    return kept


def keys_in(text: str, existing: Iterable[str]) -> list[str]:
    """The keys that a row names, of those there are."""
    there = set(existing)
    return [text] if text in there else [key for key in text.split(AND) if key in there]


def describe(target: bpy.types.Object) -> str:
    """What was recognised, for the panel."""
    made = plan(target)
    if not (made.direct or made.solved):
        return f"No shape key is recognised; {len(made.make)} are made"
    source = made.convention or "Your mapping"
    told = [f"{source}: {len(set(made.direct.values()))} of {len(arkit.ARKIT_NAMES)} shapes"]
    if made.solved:
        told.append(f"{len(made.solved)} visemes and poses by solving")
    if made.make:
        told.append(f"{len(made.make)} are made")
    return ", ".join(told)


# ---------------------------------------------------------------- from a motion to the mesh's own keys
@dataclass(frozen=True, eq=False)
class Driven:
    """A motion in a mesh's own keys: their names, weights (F, K) in [0, 1]. copied: which columns of the ARKit motion
    the first of them are; the others are solved."""

    names: list[str]
    weights: np.ndarray
    copied: list[int]


@dataclass(frozen=True, eq=False)
class Drive:
    """How a motion of ARKit shapes drives the keys of one mesh. direct: key -> shape, copied; solved: keys whose
    weights are solved for the shapes `lacking` (S,), from inner products own (P, P) and shared (S, P)."""

    direct: dict[str, str]
    solved: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    own: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    shared: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def apply(self, names: Sequence[str], weights: np.ndarray, fps: float) -> Driven:
        """What becomes of a motion: weights (F, C) in [0, 1] of the shapes `names`."""
        place = {name: i for i, name in enumerate(names)}
        pairs = sorted((place[shape], key) for key, shape in self.direct.items() if shape in place)
        copied = [i for i, _ in pairs]
        found = weights[:, copied]
        if self.solved:
            rows = [i for i, shape in enumerate(self.lacking) if shape in place]
            wanted = weights[:, [place[self.lacking[i]] for i in rows]]
            solved = key_solve.solve_products(self.own, self.shared[rows], wanted, fps)
            found = np.concatenate([found, solved], axis=1)
        return Driven([*(key for _, key in pairs), *self.solved], found, copied)

    def to_json(self) -> str:
        return json.dumps({"direct": self.direct, "solved": self.solved, "lacking": self.lacking,
                           "own": self.own.tolist(), "shared": self.shared.tolist()})

    @staticmethod
    def from_json(text: str) -> Drive:
        """Raises ValueError, KeyError or TypeError for anything but what `to_json` made."""
        data = json.loads(text)
        solved, lacking = tuple(data["solved"]), tuple(data["lacking"])
        return Drive(dict(data["direct"]), solved, lacking,
                     np.array(data["own"], np.float64).reshape(len(solved), len(solved)),
                     np.array(data["shared"], np.float64).reshape(-1, len(solved)))


PLAIN = Drive({name: name for name in arkit.ARKIT_NAMES})
"""Every shape its own key."""


def drive(target: bpy.types.Object, made: Plan, shapes: np.ndarray, others: Iterable[str] = ()) -> Drive:
    """The drive of a plan. shapes: (len(made.lacking), V, 3) displacements of the lacking shapes in the mesh's own
    space, where poses are to be solved; others: names of shape keys of the parts, which the same Action animates."""
    direct = {**made.direct, **{shape: shape for shape in made.make}}
    others = [key for key in others if key not in direct and key not in made.solved]
    direct.update(one_way(key_names.match(others).arkit))
    if not made.solved:
        return Drive(direct)
    own, shared = key_solve.products(_displacements(target, made.solved), shapes)
    return Drive(direct, made.solved, made.lacking, own, shared)


def _displacements(target: bpy.types.Object, names: Iterable[str]) -> np.ndarray:
    """What keys do to the mesh at weight 1: (K, V, 3), each against the key that it is relative to."""
    blocks = target.data.shape_keys.key_blocks

    def points(block: Any) -> np.ndarray:
        found = np.empty(len(target.data.vertices) * 3, np.float32)
        compat.key_points(block).foreach_get("co", found)
        return found.reshape(-1, 3)

    return np.stack([points(blocks[name]) - points(blocks[name].relative_key) for name in names])


def put_drive(take: bpy.types.Action, made: Drive) -> None:
    """Keep the drive with a take, so that its edits hit the same keys."""
    if made.direct != PLAIN.direct or made.solved:
        take[DRIVE_TAG] = made.to_json()


def drive_of(take: bpy.types.Action) -> Drive:
    """The drive that a take was written with. Raises ValueError, KeyError or TypeError where it is spoilt."""
    return Drive.from_json(take[DRIVE_TAG]) if DRIVE_TAG in take else PLAIN


# ---------------------------------------------------------------- the artist's mapping
def _key_names(self: Any, _context: bpy.types.Context, typed: str) -> list[str]:
    return [name for name in mesh_io.existing_keys(self.id_data) if typed.lower() in name.lower()]


def _assigned(self: Any, _context: bpy.types.Context) -> None:
    """A key stands for one thing: given to this row, it is taken from the others."""
    existing = mesh_io.existing_keys(self.id_data)
    mine = set(keys_in(self.key, existing))
    for row in self.id_data.lsf_keys.rows:
        theirs = keys_in(row.key, existing)
        if row.name != self.name and mine & set(theirs):
            row.key = AND.join(key for key in theirs if key not in mine)


class LSFMapping(bpy.types.PropertyGroup):
    """One row: `name` is an ARKit shape or a pose."""

    key: StringProperty(name="Shape Key", search=_key_names, update=_assigned,
                        description="The shape key that stands for this; empty: none. Halves are joined by ' + '")


class LSFKeys(bpy.types.PropertyGroup):
    """`object.lsf_keys`: the artist's mapping; without rows the names of the keys are recognised."""

    rows: CollectionProperty(type=LSFMapping, name="Mapping")
    row: IntProperty(name="Active Row", options={"HIDDEN"})
    missing: EnumProperty(
        name="Missing Shapes", default=AUTO,
        items=[(AUTO, "Automatic", "Make shape keys for them, unless the mesh has visemes that can stand for them"),
               (MAKE, "Make", "Make shape keys for all that the mesh lacks; its visemes are left alone"),
               (LEAVE, "Leave", "Make none: use the shape keys there are, visemes by solving")],
        description="What becomes of ARKit shapes that no shape key of the mesh stands for",
    )


def refusal(target: bpy.types.Object | None, scene: bpy.types.Scene) -> str | None:
    """Why the keys of this object cannot be mapped, in words for the panel; None if they can. Cheap."""
    reason = mesh_io.refusal(target, scene)
    if reason:
        return reason
    assert target is not None
    if not mesh_io.existing_keys(target):
        return f"'{target.name}' has no shape keys to map: Animate makes them."
    return None


def assign(target: bpy.types.Object, convention: str = "") -> int:
    """Fill the mapping from the names of the keys, read as `convention`, or as recognised. Returns how many keys have a
    meaning. Raises Problem where none has."""
    existing = mesh_io.existing_keys(target)
    try:
        matched = key_names.match(existing, convention or None)
    except KeyError as error:
        raise Problem(str(error.args[0])) from error
    found = {**one_way(matched.arkit), **matched.poses}
    if convention and not found:
        raise Problem(f"None of the {len(existing)} shape keys of '{target.name}' is named as in {convention}. Choose "
                      "another preset, or assign the keys by hand.")
    rows = target.lsf_keys.rows
    rows.clear()
    for meaning in (*arkit.ARKIT_NAMES, *key_names.POSES):
        row = rows.add()
        row.name = meaning
        row["key"] = AND.join(key for key, means in found.items() if means == meaning)
    return len(found)


class _OnKeys(Button):
    """An operator on the mapping of the chosen mesh: `work` does it and tells what was done."""

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        return refusal(context.scene.lsf.target, context.scene)

    def subject(self, context: bpy.types.Context) -> tuple[Any, ...]:
        return (context.scene.lsf.target,)


class LSF_OT_map_keys(_OnKeys, bpy.types.Operator):
    bl_idname = "lsf.map_keys"
    bl_label = "Map Shape Keys"
    bl_description = "List which shape key stands for which ARKit shape or viseme, to be changed by hand"

    preset: StringProperty(name="Preset", default="", options={"SKIP_SAVE"},
                           description="Naming that the keys follow; empty: as recognised")

    def work(self, target: bpy.types.Object) -> str:
        return f"{assign(target, self.preset)} shape keys of '{target.name}' mapped"


class LSF_OT_unmap_keys(_OnKeys, bpy.types.Operator):
    bl_idname = "lsf.unmap_keys"
    bl_label = "Forget Mapping"
    bl_description = "Drop the mapping made by hand: the names of the shape keys are recognised again"

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        target = context.scene.lsf.target
        return refusal(target, context.scene) or (
            None if len(target.lsf_keys.rows) else f"'{target.name}' has no mapping made by hand")

    def work(self, target: bpy.types.Object) -> str:
        target.lsf_keys.rows.clear()
        return f"Mapping of '{target.name}' forgotten"


CLASSES = (LSFMapping, LSFKeys, LSF_OT_map_keys, LSF_OT_unmap_keys)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Object.lsf_keys = PointerProperty(type=LSFKeys)


def unregister() -> None:
    del bpy.types.Object.lsf_keys
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
