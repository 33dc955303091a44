"""The end of a job: the engine's files are read and checked, and then shape keys and takes are written, all or none.

What takes long is done in pieces: keys are chosen aside and written into Actions that nothing uses yet. Only then, at
one stroke, the shape keys are made and the Actions become takes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import bones, curves, keys, mapper, mesh_io, parts, pieces
from .report import Problem
from .shared import arkit, errors, motion, protocol, rawtake, sparse
from .strips import Speech


@dataclass(frozen=True, eq=False)
class Shapes:
    """Shape keys to make: their names, and displacements (K, V, 3) from `basis` (V, 3), in the mesh's own space."""

    names: list[str]
    deltas: np.ndarray
    basis: np.ndarray
    parts: tuple[Shapes, ...] = ()
    """The same for each part of the head, in the order of `parts.together`; empty where they have what they need."""
    digests: tuple[str, ...] = ()
    """Of each shape key, see mesh_io.digests_of."""


@dataclass(frozen=True, eq=False)
class Motion:
    """What the engine made of a take: weights (F, C) in [0, 1] of the shapes `names`, and the take before edits."""

    names: list[str]
    weights: np.ndarray
    raw: bytes
    """A packed RawTake, to be kept with the take; empty from an engine that gives none."""
    checkpoint: str
    head: np.ndarray | None = None
    """(F, 3) radians, as lsf_core.motion.Motion has it; None where the head is still."""


@dataclass(frozen=True, eq=False)
class Result:
    """One take, checked, ready to be written."""

    target: bpy.types.Object
    shapes: Shapes
    motion: Motion
    drive: mapper.Drive
    speech: Speech
    settings: dict[str, Any]

    @cached_property
    def driven(self) -> mapper.Driven:
        """The motion in the mesh's own keys."""
        return self.drive.apply(self.motion.names, self.motion.weights, self.speech.fps)


@dataclass(frozen=True)
class Outcome:
    """What the artist is told."""

    summary: str
    warnings: list[str]


def write(scene: bpy.types.Scene, results: list[Result], check: Callable[[], None] = lambda: None
          ) -> pieces.Pieces[Outcome]:
    """Write all takes; each becomes its mesh's active one. What fails leaves everything as it was, and so does being
    dropped in the middle. check: called before the first change that the artist sees; raises Problem to prevent it."""
    targets = list({result.target.name: result.target for result in results}.values())
    objects = list({thing.name: thing for target in targets for thing in parts.together(target)}.values())
    made_before = {thing.name: mesh_io.existing_keys(thing) for thing in objects}
    warnings: list[str] = []
    takes = []
    shapes = {thing: made for result in results for thing, made in _shapes_of(result)}
    drafts: list[_Draft] = []
    try:
        for result in results:
            draft = yield from _draft(scene, result, drafts)
            drafts.append(draft)
        yield pieces.LONG
        check()
        with mesh_io.keys_restored({thing: made.names for thing, made in shapes.items()}), keys.all_or_nothing(targets):
            for thing, made in shapes.items():
                if made.names:
                    mesh_io.make_keys(thing, made.names, made.deltas, made.basis, made.digests)
            for result, draft in zip(results, drafts, strict=True):
                take, told = _put_on(scene, result, draft)
                takes.append(take)
                warnings += told
    except BaseException:
        for draft in drafts:
            keys.drop(draft.action)
        raise
    if scene.lsf.extend_frame_range:
        scene.frame_end = max(scene.frame_end, *(take.last_frame for take in takes))
    for target in targets:
        yield pieces.LONG
        last = max(i for i, result in enumerate(results) if result.target == target)
        warnings += yield from _look_at(scene, results[last], takes[last], drafts[last].loudest)
        yield pieces.LONG
    if _alike(results):
        warnings.append("The variations differ in blinks, gaze and head alone: raise 'Variation' above 0 for other "
                        "performances.")
    new = sum(len(mesh_io.existing_keys(thing)) - len(made_before[thing.name]) for thing in objects)
    return Outcome(_summary(takes, results, new), list(dict.fromkeys(warnings)))


def _shapes_of(result: Result) -> list[tuple[bpy.types.Object, Shapes]]:
    """The shape keys to make on the head and on each part."""
    made = (result.shapes, *result.shapes.parts)
    return list(zip(parts.together(result.target), made, strict=False))


@dataclass(frozen=True, eq=False)
class _Draft:
    """A take that nothing uses yet: its Action, what is keyed in it, and its number among the takes of its target."""

    action: bpy.types.Action
    motion: keys.KeyedMotion
    number: int
    target: bpy.types.Object
    loudest: int
    """Frame of the motion in which the mesh itself moves most."""


def _draft(scene: bpy.types.Scene, result: Result, others: list[_Draft]) -> pieces.Pieces[_Draft]:
    """The keys of a take, chosen and written; `others` are drafts made before."""
    target = result.target
    numbers = [keys.take_settings(take).get("number", 0) for take in keys.takes_of(target)]
    numbers += [draft.number for draft in others if draft.target == target]
    number = 1 + max(numbers, default=0)
    present = {name for thing in parts.together(target) for name in mesh_io.existing_keys(thing)}
    present |= {name for _, made in _shapes_of(result) for name in made.names}
    present -= bones.left_out(target, result.drive.direct)
    is_sparse = scene.lsf.key_style == curves.SPARSE
    own = {*mesh_io.existing_keys(target), *result.shapes.names}
    motion = yield from pieces.aside(lambda: _keyed(result, present, is_sparse))
    loudest = yield from pieces.aside(lambda: _loudest(result.driven, own))
    name = f"{result.speech.name} {result.settings['label'] or 'take'} {number}"
    action = yield from keys.draft(name, motion)
    return _Draft(action, motion, number, target, loudest)


def _keyed(result: Result, present: Collection[str], is_sparse: bool) -> keys.KeyedMotion:
    """Choose the keys of a take for the shape keys `present`. Touches nothing of Blender."""
    made, driven = result.motion, result.driven
    chosen = [i for i, name in enumerate(driven.names) if name in present]
    mask = driven_mask(made.names, made.weights, result.speech.fps, driven)[:, chosen] if is_sparse else None
    return keys.keyed_motion([driven.names[i] for i in chosen], driven.weights[:, chosen], result.speech.start_frame,
                             mask, made.raw)


def _loudest(driven: mapper.Driven, own: Collection[str]) -> int:
    return int(np.argmax(driven.weights[:, [name in own for name in driven.names]].sum(axis=1)))


def _put_on(scene: bpy.types.Scene, result: Result, draft: _Draft) -> tuple[keys.Take, list[str]]:
    """Make a take of a draft, which turns the bones too."""
    target, made, settings = result.target, result.motion, {**result.settings, "number": draft.number}
    turns = bones.turns(target, {shape: key for key, shape in result.drive.direct.items()})
    if turns:
        turned = bones.write(target, draft.action, turns, made.names, made.weights, made.head, draft.motion.start_frame,
                             scene.lsf.key_style)
        keys.put_written(draft.action, {**draft.motion.curves, **turned})
        settings["turns"] = bones.to_settings(turns)
    take = keys.put_on(target, draft.action, draft.motion, settings)
    mapper.put_drive(take.action, result.drive)
    at_rest = bones.left_out(target, result.drive.direct)
    for thing in parts.keyed(target):
        for name in at_rest & set(mesh_io.existing_keys(thing)):
            thing.data.shape_keys.key_blocks[name].value = 0.0
    bones.play(target, take.action, keys.takes_of(target))
    return take, [f"The Action '{name}' was active before; it is kept, and no longer plays." for name in take.set_aside]


def sparse_mask(names: list[str], weights: np.ndarray, fps: float) -> np.ndarray:
    """Where sparse keys are: (F, C) bool. The 52 ARKit shapes are bound by millimetres of the face as well."""
    if tuple(names) != arkit.ARKIT_NAMES:
        return sparse.sparse_keys(weights)
    take = motion.Motion(arkit.ARKIT_NAMES, weights, fps)
    return sparse.sparse_keys(take.weights, sparse.exact_keys(take), sparse.face_probes())


def driven_mask(names: list[str], weights: np.ndarray, fps: float, driven: mapper.Driven) -> np.ndarray:
    """The same for the keys that a motion drives, (F, K) bool: copied ones have the keys of their shape."""
    solved = driven.weights[:, len(driven.copied):]
    mask = sparse_mask(names, weights, fps)[:, driven.copied]
    return np.concatenate([mask, sparse.sparse_keys(solved)], axis=1) if solved.shape[1] else mask


def _summary(takes: list[keys.Take], results: list[Result], made: int) -> str:
    if len(takes) == 1:
        take, result = takes[0], results[0]
        shapes = sum(1 for name in result.driven.names if name in mesh_io.existing_keys(result.target))
        return (f"{take.action.name}: frames {take.first_frame} to {take.last_frame}, {shapes} shape keys "
                f"({made} made), {take.keys} keys")
    names = [take.action.name for take in takes]
    return f"{len(takes)} takes, {names[0]} to {names[-1]}: {made} shape keys made, {sum(t.keys for t in takes)} keys"


def _alike(results: list[Result]) -> bool:
    """Whether variations were asked for of which the network makes the same performance."""
    steady = [(r.target.name, r.speech.choice, str(r.settings["performance"])) for r in results
              if not r.settings["performance"].get("temperature")]
    return len(set(steady)) < len(steady)


def _look_at(scene: bpy.types.Scene, result: Result, take: keys.Take, loudest: int) -> pieces.Pieces[list[str]]:
    """Warnings of what the artist would otherwise find out by a face that stays still."""
    target, warnings = result.target, []
    for thing in parts.keyed(target):
        there = set(mesh_io.existing_keys(thing))
        warnings += mesh_io.hindrances(thing, [name for name in result.driven.names if name in there])
    warnings += bones.hindrances(target, take.action)
    there = set(mesh_io.existing_keys(target))
    shapes, frame = [name for name in result.driven.names if name in there], take.first_frame + loudest
    yield pieces.LONG
    moving = yield from mesh_io.moves(target, shapes, scene, frame)
    if not moving:
        warnings.append(f"The keys were written, but '{target.name}' does not move at frame {frame}. "
                        "Look for muted shape keys, drivers, and modifiers that overwrite the shape.")
    return warnings


# ---------------------------------------------------------------- the engine's files
def no_shapes(joined: parts.Joined) -> Shapes:
    """For meshes that have all shape keys."""
    basis = joined.meshes[0].basis
    return Shapes([], np.zeros((0, *basis.shape), np.float32), basis)


def read_shapes(folder: Path, data: dict[str, Any], joined: parts.Joined, wanted: list[list[str]]) -> Shapes:
    """The shape keys to make, of the engine's answer to `rig`; wanted: names for the head and for each part, which
    gets those only that move it. Touches nothing of Blender. Raises Problem."""
    names = [str(name) for name in data["names"]]
    deltas = _array(folder, data["deltas"], (len(names), *joined.vertices.shape))
    made = []
    for number, own in enumerate(joined.split(deltas)):
        moving = joined.moving(deltas, number) | (number == 0)
        chosen = [name for name in wanted[number] if name in names and moving[names.index(name)]]
        moved, basis = own[[names.index(name) for name in chosen]], joined.meshes[number].basis
        made.append(Shapes(chosen, moved, basis, digests=tuple(mesh_io.digests_of(moved, basis))))
    return replace(made[0], parts=tuple(made[1:]))


def read_motion(folder: Path, data: dict[str, Any], frames: int) -> Motion:
    """The engine's answer to `animate`. Touches nothing of Blender. Raises Problem."""
    names = [str(name) for name in data["names"]]
    weights = _array(folder, data["weights"], (frames, len(names)))
    if weights.min() < -1e-4 or weights.max() > 1.0001:
        raise Problem(f"The engine gave weights from {weights.min():.3f} to {weights.max():.3f}, outside 0 to 1. "
                      "Nothing was changed.")
    raw = b""
    if "raw" in data:
        try:
            raw = rawtake.RawTake.load(protocol.inside(str(folder), data["raw"])).to_bytes()
        except (errors.LSFError, ValueError) as error:
            raise Problem(f"The engine's raw take cannot be used ({error}). Nothing was changed.") from error
    head = _array(folder, data["head_rotation"], (frames, 3)) if data.get("head_rotation") else None
    return Motion(names, np.clip(weights, 0.0, 1.0), raw, str(data.get("checkpoint", "")), head)


def _array(folder: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A result file, if it is what was asked for. Raises Problem."""
    try:
        array = np.load(protocol.inside(str(folder), name), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Problem(f"The engine's result '{name}' cannot be read ({error}). Nothing was changed.") from error
    if array.shape != shape or array.dtype.kind != "f":
        raise Problem(f"The engine's result '{name}' is {array.dtype} {array.shape}, expected {shape}. "
                      "Nothing was changed.")
    if not np.isfinite(array).all():
        raise Problem(f"The engine's result '{name}' holds numbers that are not finite. Nothing was changed.")
    return array
