"""The main job from end to end, headless: a head without shape keys and a speech strip become an animated face.

    .venv/bin/python tools/demo.py [--head FILE.obj] [--speech FILE] [--out out] [--fps 30] [--draft]

It uses the add-on as an artist would, through its properties and operators, and writes demo.blend, demo.fbx, demo.png
(contact sheet) and demo.mp4 (with sound). Any head and any speech may be named. `python3 install.py demo` calls this.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bpy

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tools"))

import demo_film  # noqa: E402 - found by the paths above
import demo_scene  # noqa: E402

# The strip starts late and its first word is trimmed away, so that a job which ignores either is seen to be wrong.
STRIP_STARTS_S = 0.4
TRIMMED_S = 0.21
TAIL_S = 0.3


class Stages:
    """Prints what runs and how long it took; keeps the files for the closing list."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.files: list[Path] = []

    @contextmanager
    def stage(self, name: str, file: Path | None = None) -> Iterator[None]:
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        if file is not None and not file.is_file():
            raise RuntimeError(f"{name}: {file} was not written.")
        if file is not None:
            self.files.append(file)
        print(f"[{seconds:6.1f} s] {name}", flush=True)

    def close(self) -> None:
        print(f"\nall in {time.monotonic() - self.begun:.1f} s:")
        for file in self.files:
            print(f"  {file}  {file.stat().st_size / 2**20:.2f} MiB")


def add_speech(scene: bpy.types.Scene, speech: Path) -> bpy.types.Strip:
    """A sound strip that begins STRIP_STARTS_S into the scene with the first TRIMMED_S of the sound cut off."""
    fps = scene.render.fps / scene.render.fps_base
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    trimmed = round(TRIMMED_S * fps)
    shown_from = scene.frame_start + round(STRIP_STARTS_S * fps)
    strip = strips.new_sound(name="speech", filepath=str(speech), channel=1, frame_start=shown_from - trimmed)
    strip.frame_offset_start = trimmed
    scene.frame_end = int(strip.frame_final_end) + round(TAIL_S * fps)
    return strip


def describe_motion(head: bpy.types.Object, scene: bpy.types.Scene) -> str:
    """One line that tells whether the face really moves: how far the evaluated mesh is displaced, and by what."""
    keys = head.data.shape_keys
    if keys is None or len(keys.key_blocks) < 2:
        raise RuntimeError(f"'{head.name}' has no shape keys after the run.")
    rest = [vertex.co.copy() for vertex in head.data.vertices]
    farthest = 0.0
    most: dict[str, float] = {}
    for frame in range(scene.frame_start, scene.frame_end + 1, 5):
        scene.frame_set(frame)
        shown = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
        moved = max((a.co - b).length for a, b in zip(shown.vertices, rest, strict=True))
        farthest = max(farthest, moved * max(head.matrix_world.to_scale()))
        for block in keys.key_blocks[1:]:
            most[block.name] = max(most.get(block.name, 0.0), block.value)
    strongest = sorted(most.items(), key=lambda item: -item[1])[:6]
    if farthest <= 0.0:
        raise RuntimeError(f"The keys of '{head.name}' were written but its mesh does not move.")
    words = ", ".join(f"{name} {value:.2f}" for name, value in strongest)
    return f"{len(keys.key_blocks) - 1} shape keys; farthest vertex moves {farthest * 1000:.1f} mm; strongest: {words}"


def run(head_path: Path, speech: Path, out: Path, fps: int, quality: demo_film.Quality) -> None:
    """The whole demo. Raises RuntimeError (with the panel's message) where the job fails."""
    import blender_addon

    stages = Stages()
    with stages.stage("scene: head without shape keys, trimmed speech strip, camera, lights"):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene = bpy.context.scene
        scene.render.fps, scene.render.fps_base = fps, 1.0
        head = demo_scene.load_head(head_path)
        strip = add_speech(scene, speech)
        demo_scene.light_and_camera(scene, head)
    with stages.stage("Animate (engine start, rig of the mesh, network, keys)"):
        blender_addon.register()
        scene.lsf.target = head
        scene.lsf.strip_name = strip.name
        bpy.ops.lsf.animate()
    print(f"           {describe_motion(head, scene)}")
    scene.frame_set(scene.frame_start)
    blend = out / "demo.blend"
    with stages.stage("save", blend):
        strip.sound.pack()
        bpy.ops.wm.save_as_mainfile(filepath=str(blend), copy=True)
    fbx = out / "demo.fbx"
    with stages.stage("export FBX", fbx):
        bpy.ops.lsf.export_fbx(filepath=str(fbx))
    sheet = out / "demo.png"
    with stages.stage("contact sheet", sheet):
        phones = demo_film.read_phones(speech)
        sound_zero = float(strip.frame_start)  # the scene frame at which the untrimmed sound would begin
        demo_film.contact_sheet(scene, head, sheet, phones, sound_zero, quality)
    film = out / "demo.mp4"
    with stages.stage("film with sound", film):
        demo_film.film(scene, film, quality)
        print(f"           {demo_film.check_film(film, scene)}")
    stages.close()
    # Blender 4.5's module never leaves exit() while classes are registered.
    blender_addon.unregister()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", type=Path, default=ROOT / "assets/demo/head.obj")
    parser.add_argument("--speech", type=Path, default=ROOT / "assets/demo/speech.ogg")
    parser.add_argument("--out", type=Path, default=ROOT / "out")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--draft", action="store_true", help="few and small pictures: seconds instead of minutes")
    options = parser.parse_args()
    for needed in (options.head, options.speech):
        if not needed.is_file():
            print(f"{needed} does not exist.", file=sys.stderr)
            return 2
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        quality = demo_film.DRAFT if options.draft else demo_film.Quality()
        run(options.head.resolve(), options.speech.resolve(), out, options.fps, quality)
    except RuntimeError as error:
        print(f"\nThe demo stopped: {str(error).strip()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
