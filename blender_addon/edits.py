"""A take's edits changed without the network: from the raw motion that the take bears, in Blender's own Python.

The sliders belong to the window manager, not to the scene: Blender then makes no undo step of each, and a step can be
made of what they do, once they have come to rest. They hold nothing themselves: they show the active take's edits and
pass on what is set, so there is nothing that could go out of step with an undo, another take or another file.

In a window the keys follow at most every INTERVAL; scripts and background mode, where timers never fire, get them at
once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import bones, compat, curves, keys, mapper, writing
from .mesh_io import curve_path
from .order import edits_of_take
from .report import Problem
from .shared import edits, errors, rawtake

INTERVAL = 0.1
"""Seconds between two writings while a slider is dragged."""

REST = 0.6
"""Seconds without a change after which an undo step is made."""


def refusal(context: bpy.types.Context) -> str | None:
    """Why the active take's edits cannot be changed, in words for the panel; None if they can. Cheap."""
    take = keys.active_take(context.scene.lsf.target)
    if take is None:
        return "No take is active. Click one in the list, or press Animate."
    return unraw(take)


def unraw(take: bpy.types.Action) -> str | None:
    """Why a take cannot be written anew from its raw motion, or None. Cheap."""
    if keys.RAW_TAG not in take:
        return f"'{take.name}' keeps no raw motion: it is from an earlier version. 'Make Again' gives one that does."
    if take.library is not None:
        return f"'{take.name}' is linked from '{take.library.filepath}'. Make it local to edit it."
    return None


@dataclass(frozen=True)
class Clock:
    """Frames per second of a take, its length and first frame, and the frame on which its sound's second 0 lies."""

    fps: float
    frames: int
    first_frame: int
    sound_frame: float


def apply(take: bpy.types.Action, settings: Any, keep: bool = True, clock: Clock | None = None) -> int:
    """Write the take's keys anew from its raw motion with these EditSettings.

    keep: the keys that the artist changed stay as they are; otherwise they are written over. Returns how many are kept.
    clock: another frame rate and place for the take; the artist's keys go along. Raises Problem if the raw motion is
    missing or cannot be read.
    """
    before = keys.take_settings(take)
    made = before if clock is None else {**before, **asdict(clock)}
    style = made.get("style", curves.SPARSE)
    motion, driven, turned = _finished(take, made, settings)
    columns = {curve_path(name): i for i, name in enumerate(driven.names)}
    mask = None
    if style == curves.SPARSE:
        mask = writing.driven_mask(list(motion.names), motion.weights, motion.fps, driven)
    written, first, kept = keys.written_keys(take), int(made["first_frame"]), 0
    if not written:
        raise Problem(f"'{take.name}' does not know the keys it was written with. Press 'Make Again'.")
    shapes = {path: (driven.weights[:, column], None if mask is None else mask[:, column])
              for path, column in columns.items()}
    turns = {bones.curve_id(path, index): (values, at) for path, index, values, at in bones.channels(
        turned, motion.names, motion.weights, motion.head_rotation, style)}
    wanted = {**shapes, **turns}
    ratio = float(made["fps"]) / float(before["fps"])
    for path, curve in _curves(take):
        if path not in wanted or path not in written:
            continue  # a curve of the artist's
        values, at = wanted[path]
        if clock is not None:
            written[path] = curves.retime(curve, written[path], style, ratio, float(before["first_frame"]), first)
        fresh = curves.chosen(values, at, first)
        if keep:
            written[path], changes = curves.rewrite(curve, written[path], fresh, values, first, style)
            kept += changes
        else:
            curves.write(curve, fresh, style)
            written[path] = fresh
    keys.put_written(take, written)
    keys.put_settings(take, {**made, "edits": settings.to_dict(), "hand_keys": kept})
    take.update_tag()
    return kept


def hand_keys(take: bpy.types.Action) -> int:
    """How many keys the artist changed, added or removed since the take was written."""
    style, written = keys.take_settings(take).get("style", curves.SPARSE), keys.written_keys(take)
    return sum(curves.changes(curve, written[path], style) for path, curve in _curves(take) if path in written)


def _curves(take: bpy.types.Action) -> Iterator[tuple[str, Any]]:
    """The take's curves, by what they are called among the keys written."""
    for curve in compat.curves_in(take, "KEY"):
        yield curve.data_path, curve
    for curve in bones.curves_in(take):
        yield bones.curve_id(curve.data_path, curve.array_index), curve


def _finished(take: bpy.types.Action, made: dict[str, Any],
              settings: Any) -> tuple[Any, mapper.Driven, list[bones.Turn]]:
    """The take's motion with these edits, in ARKit's shapes and in the keys that it drives, and what it turns.

    Raises Problem.
    """
    try:
        raw = _raw(bytes(take[keys.RAW_TAG]))
        motion = raw.finish(settings, fps=float(made["fps"]), frames=int(made["frames"]), seed=int(made["seed"]))
        driven = mapper.drive_of(take).apply(motion.names, motion.weights, motion.fps)
        return motion, driven, bones.from_settings(made.get("turns"))
    except (KeyError, TypeError, ValueError, errors.LSFError) as error:
        raise Problem(f"The edits of '{take.name}' cannot be changed: its raw motion or settings are missing or spoilt "
                      f"({error}). Press 'Make Again'.") from error


@lru_cache(maxsize=2)
def _raw(data: bytes) -> Any:
    return rawtake.RawTake.from_bytes(data)


# ---------------------------------------------------------------- what the sliders show and do
_pending: dict[str, Any] = {}
"""Take -> EditSettings that were set and are not written yet."""

_asking: set[str] = set()
"""Takes whose pending edits wait until the artist says what becomes of the keys changed by hand."""

_rest: dict[str, float] = {}
"""Take -> when it was written without an undo step so far."""


def current(take: bpy.types.Action) -> Any:
    """The take's EditSettings, with what was set and is not written yet."""
    return _pending.get(take.name) or edits_of_take(take)


def change(context: bpy.types.Context, settings: Any) -> None:
    """Give the active take other edits: soon in a window, at once in scripts. Raises Problem in scripts only."""
    take = keys.active_take(context.scene.lsf.target)
    if take is None or refusal(context) is not None or settings == current(take):
        return
    _pending[take.name] = settings
    if bpy.app.background:
        _write_pending(context)
    elif not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=INTERVAL / 4)


def asking(take: bpy.types.Action) -> bool:
    """Whether the artist is to say what becomes of the keys changed by hand before the take's edits are written."""
    return take.name in _asking


def answer(take: bpy.types.Action, keep: bool) -> None:
    """What the artist says. Raises Problem."""
    _asking.discard(take.name)
    apply(take, _pending.pop(take.name, None) or edits_of_take(take), keep)


def _write_pending(context: bpy.types.Context) -> None:
    for name in [name for name in _pending if name not in _asking]:
        take = bpy.data.actions.get((name, None))
        if take is None:  # deleted or renamed since
            del _pending[name]
        elif context.scene.lsf.hand_keys == "ASK" and hand_keys(take):
            _asking.add(name)
        else:
            settings = _pending.pop(name)
            apply(take, settings)
            _rest[name] = time.monotonic()


def _tick() -> float | None:
    """In a window: write what is pending; once all is at rest, make an undo step and end."""
    context = bpy.context
    try:
        _write_pending(context)
    except Problem as problem:
        context.scene.lsf.error = str(problem)
    _redraw(context)
    if _rest and time.monotonic() - max(_rest.values()) > REST:
        _rest.clear()
        bpy.ops.ed.undo_push(message="Edit Take")
    return INTERVAL if _rest else None


def _redraw(context: bpy.types.Context) -> None:
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in ("VIEW_3D", "SEQUENCE_EDITOR", "GRAPH_EDITOR", "DOPESHEET_EDITOR"):
                area.tag_redraw()


def _of_active(self: Any) -> Any:
    take = keys.active_take(bpy.context.scene.lsf.target)
    return current(take) if take is not None else edits.DEFAULT


def strength(name: str) -> Any:
    """A slider of one of EditSettings' strengths."""
    def get(self: Any) -> float:
        return getattr(_of_active(self), name)

    def put(self: Any, value: float) -> None:
        change(bpy.context, replace(_of_active(self), **{name: value}))

    return bpy.props.FloatProperty(
        name=name.capitalize(), description=edits.STRENGTHS[name], get=get, set=put, min=0.0,
        max=edits.settings.MAX_STRENGTH, default=getattr(edits.DEFAULT, name), options=set())


def of_shape(table: str, idle: float, low: float, high: float, description: str) -> Any:
    """A slider of `gain` or `offset` of the shape that is chosen beside it."""
    def get(self: Any) -> float:
        return getattr(_of_active(self), table).get(self.shape, idle)

    def put(self: Any, value: float) -> None:
        settings = _of_active(self)
        if self.shape:
            change(bpy.context, replace(settings, **{table: {**getattr(settings, table), self.shape: value}}))

    return bpy.props.FloatProperty(name=table.capitalize(), description=description, get=get, set=put, min=low,
                                   max=high, default=idle, options=set())


@persistent
def _forget(*_: Any) -> None:
    """After an undo, or in another file, what was pending is not wanted any more."""
    _pending.clear()
    _asking.clear()
    _rest.clear()


HANDLERS = (bpy.app.handlers.load_post, bpy.app.handlers.undo_post, bpy.app.handlers.redo_post)


def register() -> None:
    for handlers in HANDLERS:
        handlers.append(_forget)


def unregister() -> None:
    for handlers in HANDLERS:
        handlers.remove(_forget)
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    _forget()
