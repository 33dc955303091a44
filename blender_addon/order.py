"""What a job is asked to make: one order is one take, of one mesh from one stretch of speech.

Orders come from the panel (one strip, or the list of lines, each in as many variations as are asked for) or from a take
that is to be made again. They hold names rather than Blender's objects, which an undo makes invalid.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import bpy

from . import bones, keys, landmarks, mesh_io, parts, presets, strips
from .report import Problem
from .shared import arkit, edits, errors
from .strips import Choice

Pair = tuple["bpy.types.Object | None", Choice]
"""A mesh and what it shall say."""


@dataclass(frozen=True)
class Order:
    """One take. performance: what the engine is told besides sound, mesh, seed and edits, such as the temperature."""

    target: str
    choice: Choice
    seed: int
    edits: dict[str, Any]
    """Of the take: lsf_core.edits.EditSettings.to_dict()."""
    performance: dict[str, Any] = field(default_factory=dict)
    feeling: Choice | None = None
    """The recording whose emotion the take shows; None: the speech's own."""
    label: str = ""
    """What the take is called, instead of take."""


def panel_pairs(scene: bpy.types.Scene) -> list[Pair]:
    """The mesh and the speech of the panel."""
    return [(scene.lsf.target, strips.choice_of(scene.lsf))]


def line_pairs(scene: bpy.types.Scene) -> list[Pair]:
    """Every line of the list: its mesh and its strip."""
    return [(line.target, Choice(line.strip_name)) for line in scene.lsf.lines]


def refusal(context: bpy.types.Context, pairs: list[Pair]) -> str | None:
    """Why these cannot be animated, in words for the panel; None if nothing speaks against it. Cheap."""
    if not pairs:
        return "There are no lines. Select sound strips in the sequencer and press 'Add Selected Strips'."
    for target, choice in pairs:
        reason = mesh_io.refusal(target, context.scene)
        if reason is None and target is not None:
            reason = parts.refusal(target, context.scene) or bones.refusal(target, context.scene)
            reason = reason or landmarks.refusal(target) or strips.refusal(context, context.scene, choice)
        if reason:
            return reason
    feeling = feeling_of(context.scene)
    reason = strips.refusal(context, context.scene, feeling) if feeling else None
    return f"Emotion: {reason}" if reason else None


def feeling_of(scene: bpy.types.Scene) -> Choice | None:
    """The recording that the panel takes the emotion from; None for the speech's own."""
    chosen = scene.lsf.feeling
    if not (chosen.strip_name or chosen.audio_path):
        return None
    return Choice(chosen.strip_name, "" if chosen.strip_name else chosen.audio_path)


def mix_of(scene: bpy.types.Scene) -> dict[str, float]:
    """The panel's mix of named emotions, without those at 0."""
    weights = {name: getattr(scene.lsf.feeling, name) for name in arkit.EMOTIONS}
    return {name: round(weight, 4) for name, weight in weights.items() if weight > 0}


def checked(context: bpy.types.Context, pairs: list[Pair]) -> list[Order]:
    """An order for each pair, in as many variations as the panel asks for. Raises Problem with the refusal."""
    reason = refusal(context, pairs)
    if reason:
        raise Problem(reason)
    scene, settings, mix = context.scene, context.scene.lsf, mix_of(context.scene)
    wanted = edits_of_new_take(scene).to_dict()
    performance = {"temperature": settings.temperature, **({"emotion_mix": mix} if mix else {})}
    return [Order(target.name, choice, settings.seed + number, wanted, performance,
                  feeling_of(scene))
            for target, choice in pairs for number in range(settings.variations) if target is not None]


def one_of_each(context: bpy.types.Context) -> list[Order]:
    """The panel's mesh and speech once in each named emotion. Raises Problem."""
    first = checked(context, panel_pairs(context.scene))[0]
    return [replace(first, feeling=None, label=name, performance={**first.performance, "emotion_mix": {name: 1.0}})
            for name in arkit.EMOTIONS]


def edits_of_new_take(scene: bpy.types.Scene) -> Any:
    """EditSettings that a take starts with: the panel's preset, its emotion times the panel's; none if switched off.

    Raises Problem for a preset that there is not any more.
    """
    settings = scene.lsf
    start = presets.load(settings.preset) if settings.edits else edits.NONE
    strongest = edits.settings.MAX_STRENGTH
    return replace(start, emotion=min(start.emotion * settings.emotion_strength, strongest))


def edits_of_take(take: bpy.types.Action) -> Any:
    """The EditSettings that a take was written with; the defaults where they are spoilt or of another version."""
    stored = keys.take_settings(take).get("edits")
    try:
        return edits.EditSettings.from_dict(stored) if isinstance(stored, dict) else edits.DEFAULT
    except (errors.LSFError, TypeError):
        return edits.DEFAULT


def again(take: bpy.types.Action, target: bpy.types.Object, seed: int | None = None) -> Order:
    """The order that makes a take once more, or with another seed. Raises Problem for a take without its settings."""
    made = keys.take_settings(take)
    source = made.get("source")
    if not isinstance(source, dict) or "seed" not in made:
        raise Problem(f"The take '{take.name}' does not tell what it was made of. Press Animate for a new one.")
    choice = Choice(str(source.get("strip", "")), str(source.get("audio_path", "")),
                    float(source.get("start_frame", 1.0)))
    feeling = made.get("feeling")
    return Order(target.name, choice, int(made["seed"]) if seed is None else seed, edits_of_take(take).to_dict(),
                 dict(made.get("performance", {})), Choice(**feeling) if feeling else None, made.get("label", ""))


def settings_of(order: Order, speech: strips.Speech) -> dict[str, Any]:
    """What a take keeps of its order, as plain values."""
    return {"seed": order.seed, "edits": order.edits, "performance": order.performance, "target": order.target,
            "speech": speech.name, "source": asdict(speech.choice), "sound_frame": speech.sound_frame,
            "fps": speech.fps, "feeling": order.feeling and asdict(order.feeling), "label": order.label}
