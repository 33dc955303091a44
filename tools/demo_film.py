"""The demo's pictures: a contact sheet with labelled frames and a film with the scene's own sound (Workbench)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import bpy
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LABEL_HEIGHT = 44
# The label tells the strongest key of each group: what the mouth does and how it is felt.
MOUTH_KEYS = (
    *("jawOpen", "mouthPucker", "mouthFunnel", "mouthSmileLeft", "mouthFrownLeft", "mouthPressLeft"),
    *("mouthStretchLeft", "mouthRollLower", "mouthUpperUpLeft", "mouthLowerDownLeft"),
)
UPPER_KEYS = ("browDownLeft", "browInnerUp", "browOuterUpLeft", "noseSneerLeft", "cheekSquintLeft", "eyeBlinkLeft")


@dataclass(frozen=True)
class Quality:
    """How large and how many the pictures are."""

    cell: tuple[int, int] = (320, 360)  # pixels of one picture of the sheet
    columns: int = 6
    rows: int = 4
    film_size: tuple[int, int] = (640, 720)
    film_step: int = 1  # scene frames from one picture of the film to the next


DRAFT = Quality(cell=(160, 180), columns=3, rows=1, film_size=(160, 180), film_step=4)


def read_phones(speech: Path) -> list[tuple[str, float, float]]:
    """(label, start, end) in seconds of the sound file, from NAME.phones.json beside it; [] where there is none."""
    file = speech.with_suffix(".phones.json")
    if not file.is_file():
        return []
    return [(str(p), float(a), float(b)) for p, a, b in json.loads(file.read_text(encoding="utf-8"))["phones"]]


@contextmanager
def silent_blender() -> Iterator[None]:
    """Send the process's stdout to nowhere: Blender prints two lines for every picture it renders."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def render_still(scene: bpy.types.Scene, frame: int, size: tuple[int, int], folder: Path) -> Path:
    """Render one frame of the scene to a PNG in folder and return its path."""
    settings = scene.render
    settings.resolution_x, settings.resolution_y = size
    settings.resolution_percentage = 100
    settings.image_settings.file_format = "PNG"
    settings.image_settings.color_mode = "RGB"
    settings.image_settings.compression = 5
    settings.use_sequencer = False  # the only strip is sound
    settings.filepath = str(folder / f"{frame:05d}.png")
    scene.frame_set(frame)
    with silent_blender():
        bpy.ops.render.render(write_still=True)
    return Path(settings.filepath)


def sheet_frames(
    scene: bpy.types.Scene, phones: list[tuple[str, float, float]], sound_zero: float, count: int
) -> list[tuple[int, str]]:
    """(frame, phone label) of `count` frames: one before the speech, then even steps moved to phone middles."""
    fps = scene.render.fps / scene.render.fps_base
    even = np.linspace(scene.frame_start, scene.frame_end, count + 1)[1:-1]
    chosen = [(scene.frame_start, "(before)")]
    spoken = [(label, sound_zero + (a + b) / 2 * fps) for label, a, b in phones if label not in ("SIL", "sil")]
    for frame in even:
        label, middle = min(spoken, key=lambda item: abs(item[1] - frame), default=("", float(frame)))
        near = abs(middle - frame) <= 0.15 * fps
        chosen.append((round(middle) if near else round(frame), label if near else ""))
    return chosen


def contact_sheet(
    scene: bpy.types.Scene,
    head: bpy.types.Object,
    target: Path,
    phones: list[tuple[str, float, float]],
    sound_zero: float,
    quality: Quality,
) -> None:
    """Write a sheet of front views; under each its time, what is being said, and the strongest keys."""
    fps = scene.render.fps / scene.render.fps_base
    width, height = quality.cell
    columns, rows = quality.columns, quality.rows
    sheet = Image.new("RGB", (columns * width, rows * (height + LABEL_HEIGHT)), (14, 16, 19))
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(size=18), ImageFont.load_default(size=13)
    portrait = scene.camera
    scene.display.render_aa = "8"
    scene.camera = bpy.data.objects["Front"]
    with tempfile.TemporaryDirectory() as folder:
        for place, (frame, phone) in enumerate(sheet_frames(scene, phones, sound_zero, columns * rows)):
            picture = Image.open(render_still(scene, frame, quality.cell, Path(folder)))
            x, y = place % columns * width, place // columns * (height + LABEL_HEIGHT)
            sheet.paste(picture, (x, y))
            blocks = head.data.shape_keys.key_blocks
            top = []
            for names in (MOUTH_KEYS, UPPER_KEYS):
                value, name = max((blocks[name].value, name) for name in names if name in blocks)
                top += [f"{name} {value:.2f}"] if value > 0.05 else []
            seconds = (frame - scene.frame_start) / fps
            draw.text((x + 8, y + height + 2), f"{seconds:.2f} s   {phone}", fill=(235, 235, 235), font=large)
            draw.text((x + 8, y + height + 24), "  ".join(top), fill=(160, 168, 178), font=small)
    scene.camera = portrait
    sheet.save(target)


def film(scene: bpy.types.Scene, target: Path, quality: Quality) -> None:
    """Write an MP4 of the scene's frame range: Workbench pictures and the sequencer's mixdown, H.264 and AAC."""
    fps = Fraction(scene.render.fps) / Fraction(scene.render.fps_base).limit_denominator(1001) / quality.film_step
    scene.display.render_aa = "FXAA"  # a fourth of the time of eight samples without a graphics card
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = range(scene.frame_start, scene.frame_end + 1, quality.film_step)
        pictures = [render_still(scene, frame, quality.film_size, folder) for frame in frames]
        sound = folder / "mix.flac"
        bpy.ops.sound.mixdown(filepath=str(sound), container="FLAC", codec="FLAC", format="S16")
        with av.open(str(target), "w") as container:
            video = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "fast"})
            video.width, video.height = quality.film_size
            video.pix_fmt = "yuv420p"
            audio = container.add_stream("aac", rate=48000)
            for picture in pictures:
                shot = av.VideoFrame.from_image(Image.open(picture).convert("RGB"))
                container.mux(video.encode(shot))
            container.mux(video.encode(None))
            resampler = av.AudioResampler(format="fltp", layout="stereo", rate=48000)
            with av.open(str(sound)) as source:
                for piece in source.decode(audio=0):
                    for ready in resampler.resample(piece):
                        container.mux(audio.encode(ready))
            for ready in resampler.resample(None):
                container.mux(audio.encode(ready))
            container.mux(audio.encode(None))


def check_film(target: Path, scene: bpy.types.Scene) -> str:
    """Read the film back; RuntimeError unless both streams are there, last as long as the scene, and are not silent."""
    fps = scene.render.fps / scene.render.fps_base
    wanted = (scene.frame_end - scene.frame_start + 1) / fps
    with av.open(str(target)) as container:
        if not container.streams.video or not container.streams.audio:
            raise RuntimeError(f"{target.name} lacks a video or an audio stream.")
        pictures = sum(1 for _ in container.decode(video=0))
        rate = float(container.streams.video[0].average_rate or 0)
    with av.open(str(target)) as container:
        pieces = [piece.to_ndarray() for piece in container.decode(audio=0)]
        audio_rate = container.streams.audio[0].rate
    samples = np.concatenate(pieces, axis=1)
    shown, heard = pictures / rate, samples.shape[1] / audio_rate
    if abs(shown - wanted) > 0.15 or abs(heard - wanted) > 0.15:
        raise RuntimeError(f"{target.name}: {shown:.2f} s of pictures, {heard:.2f} s of sound, wanted {wanted:.2f} s.")
    loudness = float(np.sqrt(np.mean(np.square(samples))))
    if loudness < 1e-3:
        raise RuntimeError(f"{target.name}: the sound is silent (level {loudness:.1e}).")
    return f"{pictures} pictures at {rate:.1f} fps, {shown:.2f} s; sound {heard:.2f} s, level {loudness:.3f}"
