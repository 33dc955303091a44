"""Which stretch of which sound file a strip plays, and on which frames of the scene.

Checked against Blender's own mix (`sound.mixdown`): the file's second

    trunc(frame_offset_start + animation_offset_start) / fps - sound_offset

is heard at the strip's left handle, with fps = render.fps / render.fps_base. Blender cuts fractions of a frame off the
offset, so a strip always starts on a whole frame; finer shifts are made by sound_offset. Negative: silence first.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from . import compat
from .report import Cure, Problem


@dataclass(frozen=True)
class Choice:
    """What the artist points at: a strip by its name, or, where that is empty, a sound file and where it begins."""

    strip: str = ""
    audio_path: str = ""
    start_frame: float = 1.0


@dataclass(frozen=True)
class Speech:
    """A stretch of sound on the timeline. Seconds are the timeline's."""

    choice: Choice
    name: str
    path: str
    offset: float
    duration: float | None
    """None: to the end of the file."""
    start_frame: int
    frames: int | None
    """None: as many as the file lasts."""
    fps: float
    content_seconds: float | None = None
    """Of a strip played at another speed: how long the whole file takes on the timeline."""
    warnings: tuple[str, ...] = ()

    @property
    def told(self) -> dict[str, Any]:
        """As the engine is told of it, see lsf_core/protocol.py."""
        return {"audio": self.path, "audio_name": f"The sound '{self.name}'", "offset": self.offset,
                "duration": self.duration, "content_seconds": self.content_seconds}

    @property
    def sound_frame(self) -> float:
        """Frame on which the sound's second 0 lies: moves with the strip, and stays where a strip is trimmed."""
        return self.start_frame - self.offset * self.fps


def scene_fps(scene: bpy.types.Scene) -> float:
    """Frames per second: fps_base divides (24 / 1.001 = 23.976)."""
    return scene.render.fps / scene.render.fps_base


def sound_strips(context: bpy.types.Context, scene: bpy.types.Scene) -> list[Any]:
    """The sound strips of the scene, or, if it has none, of the scene that the sequencer shows (Blender 5.0+)."""
    for place in dict.fromkeys((scene, compat.sequencer_scene(context, scene))):
        found = [strip for strip in compat.all_strips(place) if strip.type == "SOUND"]
        if found:
            return found
    return []


def choice_of(settings: Any) -> Choice:
    """What is chosen in the panel."""
    return Choice(settings.strip_name, "" if settings.strip_name else settings.audio_path, settings.start_frame)


def find(context: bpy.types.Context, scene: bpy.types.Scene, name: str) -> Any | None:
    """The sound strip of this name, or None."""
    return next((strip for strip in sound_strips(context, scene) if strip.name == name), None)


def refusal(context: bpy.types.Context, scene: bpy.types.Scene, choice: Choice | None = None) -> str | None:
    """Why no speech is to be had from the choice (None: the panel's), for the panel; None if some is. Cheap."""
    choice = choice or choice_of(scene.lsf)
    if choice.strip:
        strip = find(context, scene, choice.strip)
        if strip is None:
            there = ", ".join(f"'{s.name}'" for s in sound_strips(context, scene)[:5]) or "none"
            return f"There is no sound strip '{choice.strip}' in the sequencer (there: {there}). Choose another."
        if strip.sound is None:
            return f"The strip '{strip.name}' has no sound. Relink it or choose another."
        owner = strip.id_data
        if owner is not scene and abs(scene_fps(owner) - scene_fps(scene)) > 1e-6:
            return (f"The strip is in scene '{owner.name}' at {scene_fps(owner):.3f} fps, the mesh in '{scene.name}' "
                    f"at {scene_fps(scene):.3f} fps. Set both to the same frame rate.")
        return None
    if not choice.audio_path:
        return "No speech is chosen. Choose a sound strip or a sound file."
    return None


def speech_of(context: bpy.types.Context, scene: bpy.types.Scene, folder: Path, choice: Choice | None = None,
              whole: bool = False) -> Speech:
    """What is chosen (None: in the panel). Packed sounds are written into `folder`. Raises Problem.

    whole: the strip's whole stretch, even where only the scene's frame range is to be animated.
    """
    choice = choice or choice_of(scene.lsf)
    reason = refusal(context, scene, choice)
    if reason:
        raise Problem(reason)
    strip = find(context, scene, choice.strip) if choice.strip else None
    if strip is not None:
        span = (scene.frame_start, scene.frame_end + 1) if scene.lsf.frame_range_only and not whole else None
        return speech_of_strip(strip, strip.id_data, folder, span)
    path = os.path.normpath(bpy.path.abspath(choice.audio_path))
    first = math.floor(choice.start_frame)  # keys lie on whole frames; what the sound is later is silence before it
    fps = scene_fps(scene)
    return Speech(choice, bpy.path.display_name_from_filepath(path) or "speech", _checked(path, "sound file"),
                  -(choice.start_frame - first) / fps, None, first, None, fps)


def speech_of_strip(strip: Any, scene: bpy.types.Scene, folder: Path, span: tuple[int, int] | None = None) -> Speech:
    """The stretch that `strip` plays, cut to the frames from span[0] up to, without, span[1]. Raises Problem."""
    fps = scene_fps(scene)
    own_start = compat.left_handle(strip)
    start, end = own_start, compat.right_handle(strip)
    warnings = [f"The strip '{strip.name}' is muted; the face was animated all the same."] if strip.mute else []
    meta = compat.parent_meta(strip)
    while meta is not None:
        start, end = max(start, compat.left_handle(meta)), min(end, compat.right_handle(meta))
        meta = compat.parent_meta(meta)
    if end <= start:
        raise Problem(f"The strip '{strip.name}' is trimmed away by the meta strip around it. Lengthen the meta strip.")
    if span is not None:
        if end <= span[0] or start >= span[1]:
            raise Problem(f"The strip '{strip.name}' plays from frame {start} to {end - 1}, outside the scene's frame "
                          f"range ({span[0]} to {span[1] - 1}). Move it, or switch 'Frame Range Only' off.")
        start, end = max(start, span[0]), min(end, span[1])
    skipped = int(compat.content_skipped(strip))  # towards zero, as Blender does
    offset = skipped / fps - getattr(strip, "sound_offset", 0.0) + (start - own_start) / fps
    return Speech(
        choice=Choice(strip=strip.name),
        name=strip.name,
        path=_sound_path(strip.sound, folder),
        offset=offset,
        duration=(end - start) / fps,
        start_frame=start,
        frames=end - start,
        fps=fps,
        content_seconds=_content_seconds(strip, fps),
        warnings=tuple(warnings),
    )


def sound_frame(strip: Any) -> float:
    """Frame on which the sound's second 0 lies, see `Speech.sound_frame`. Cheap."""
    skipped = int(compat.content_skipped(strip))
    return compat.left_handle(strip) - skipped + getattr(strip, "sound_offset", 0.0) * scene_fps(strip.id_data)


def _content_seconds(strip: Any, fps: float) -> float | None:
    """Timeline seconds of the whole file for a strip at another speed, else None. Raises Problem for changing speed."""
    if not compat.is_retimed(strip):
        return None
    if len(strip.retiming_keys) > 2:
        raise Problem(f"The speed of the strip '{strip.name}' changes along the way ({len(strip.retiming_keys)} "
                      "retiming keys). Give it one speed, or render the sound to a file and use that.")
    return compat.content_frames(strip) / fps


def _sound_path(sound: bpy.types.Sound, folder: Path) -> str:
    path = os.path.normpath(bpy.path.abspath(sound.filepath, library=sound.library))
    if sound.packed_file is not None:
        copy = folder / ("packed" + Path(path).suffix)
        copy.write_bytes(sound.packed_file.data)
        return str(copy)
    return _checked(path, f"file of the sound '{sound.name}'")


def _checked(path: str, what: str) -> str:
    if not os.path.isfile(path):
        raise Problem(f"The {what} is not there: '{path}'. Correct the path, or relink it (File > External Data).",
                      cures=[Cure("file.find_missing_files")])
    return path
