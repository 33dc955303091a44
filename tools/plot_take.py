"""Curves of a take under the waveform: jaw, lip gap, rounding, smile, brows and lids over time, with the phones.

    python tools/plot_take.py speech.wav --out curves.png
    python tools/plot_take.py speech.wav --phones phones.json --take take.npz --to 6 --out curves.png

Without --take the sound is animated first, as `python -m lsf_core animate` does it. Phones are a JSON object
{"phones": [[label, start, end], ...]} in seconds. Where they are given, the sounds that close the lips (p b m) and
those that bring the lip to the teeth (f v) are tinted through all curves, so that a missed closure is seen at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lsf_core.audio import SAMPLE_RATE, load_audio
from lsf_core.errors import LSFError
from lsf_core.motion import Motion

Floats = np.ndarray[Any, Any]
Phone = tuple[str, float, float]
Colour = tuple[int, int, int]

CLOSING, TUCKING = frozenset("PBM"), frozenset("FV")
SILENCE = frozenset(("SIL", "SP", "SPN", ""))
CLOSING_TINT, TUCKING_TINT = (252, 219, 219), (221, 232, 250)
INK, GREY, GRID, SOUND = (25, 25, 25), (120, 120, 120), (228, 228, 228), (150, 158, 170)
LEFT, RIGHT, TOP, BOTTOM = 118, 12, 8, 30     # margins in pixels, the left one for the names of the curves
PHONE_LINES = 4
WAVE, PHONES, PANEL, SPACE = 84, 4 + 16 * PHONE_LINES, 84, 10  # heights in pixels


class Curve(NamedTuple):
    """One line of a panel: its name, its colour, and how a take gives its values (F,)."""

    name: str
    colour: Colour
    values: Callable[[Motion], Floats]


class Panel(NamedTuple):
    """Curves that share an axis from 0 to `top`; higher values raise it."""

    curves: tuple[Curve, ...]
    top: float
    unit: str = ""


def sides(name: str) -> Callable[[Motion], Floats]:
    """The mean of a shape's left and right half over a take."""
    return lambda motion: (motion[name + "Left"] + motion[name + "Right"]) / 2


PANELS = (
    Panel((Curve("jawOpen", (176, 72, 24), lambda m: m["jawOpen"]),), 0.4),
    Panel((Curve("lip gap", (190, 30, 60), Motion.lip_gap_mm),), 8.0, " mm"),
    Panel((Curve("rounding", (110, 60, 160), lambda m: m["mouthPucker"] + m["mouthFunnel"]),), 0.6),
    Panel((Curve("smile", (20, 130, 90), sides("mouthSmile")),), 0.3),
    Panel((Curve("browInnerUp", (30, 100, 190), lambda m: m["browInnerUp"]),
           Curve("browDown", (190, 110, 20), sides("browDown"))), 0.3),
    Panel((Curve("eyeBlink", (70, 70, 70), sides("eyeBlink")),), 1.0),
)


def read_phones(path: Path) -> list[Phone]:
    """(label, start, end) of each phone, in seconds. Raises LSFError for a file that does not hold them."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["phones"]
        return [(str(label), float(start), float(end)) for label, start, end in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LSFError(f"'{path}' holds no phones ({error}). "
                       'Write {"phones": [["B", 0.21, 0.35], ...]}, times in seconds.') from error


class Chart:
    """A picture of `width` pixels over the seconds from `start` to `end`, drawn from the top down.

    font: a TrueType file for the phones, None for Pillow's own. Raises LSFError where no time lies between the two.
    """

    def __init__(self, width: int, start: float, end: float, phones: Sequence[Phone], font: Path | None) -> None:
        if not end > start:
            raise LSFError(f"There is nothing between {start:g} s and {end:g} s. Choose --from and --to in the sound.")
        self.start, self.end, self.phones = start, end, phones
        height = TOP + WAVE + (PHONES if phones else 0) + len(PANELS) * (PANEL + SPACE) + BOTTOM
        self.image = Image.new("RGB", (width, height), (255, 255, 255))
        self.draw = ImageDraw.Draw(self.image)
        self.font, self.small = ImageFont.load_default(size=15), ImageFont.load_default(size=13)
        self.letters = ImageFont.truetype(str(font), 13) if font else self.small

    def x(self, seconds: Floats | float) -> Any:
        """Pixels from the left, float."""
        width = self.image.width - LEFT - RIGHT
        return LEFT + (np.asarray(seconds) - self.start) / (self.end - self.start) * width

    def backdrop(self) -> None:
        """Tints of the sounds that close the lips, a line each half second with its time, through all panels."""
        low = self.image.height - BOTTOM + 4
        for label, start, end in self.phones:
            sound = label.upper().rstrip("012")
            if sound in CLOSING | TUCKING and start < self.end and end > self.start:
                tint = CLOSING_TINT if sound in CLOSING else TUCKING_TINT
                self.draw.rectangle((self.x(max(start, self.start)), TOP, self.x(min(end, self.end)), low), fill=tint)
        for time in np.arange(np.ceil(self.start * 2) / 2, self.end + 1e-6, 0.5):
            self.draw.line((self.x(time), TOP, self.x(time), low), fill=GRID)
            self.draw.text((self.x(time), low + 2), f"{time:g} s", fill=GREY, font=self.small, anchor="mt")

    def wave(self, samples: Floats) -> None:
        """The loudest and the lowest sample under each pixel; samples (N,) at 16 kHz, scaled to their loudest."""
        middle, scale = TOP + WAVE / 2, WAVE / 2 / (float(np.abs(samples).max()) or 1.0)
        columns = range(LEFT, self.image.width - RIGHT)
        edges = np.linspace(self.start, self.end, len(columns) + 1) * SAMPLE_RATE
        for column, first, last in zip(columns, edges[:-1].astype(int), np.ceil(edges[1:]).astype(int), strict=True):
            piece = samples[first:last]
            if len(piece):
                self.draw.line((column, middle - scale * piece.max(), column, middle - scale * piece.min()), fill=SOUND)

    def labels(self) -> None:
        """The phones under the waveform, each on the first line where it touches no other."""
        ends = [0.0] * PHONE_LINES
        for label, start, end in self.phones:
            centre = (start + end) / 2
            if label.upper() in SILENCE or not self.start <= centre <= self.end:
                continue
            half = self.draw.textlength(label, font=self.letters) / 2 + 2
            left = float(self.x(centre)) - half
            line = next((i for i, taken in enumerate(ends) if taken <= left), PHONE_LINES - 1)
            ends[line] = left + 2 * half
            self.draw.text((left + half, TOP + WAVE + 4 + 16 * line), label, fill=INK, font=self.letters, anchor="mt")

    def panel(self, index: int, panel: Panel, motion: Motion) -> None:
        """The curves of a panel, with their names and the highest value of the axis on the left."""
        low = TOP + WAVE + (PHONES if self.phones else 0) + index * (PANEL + SPACE) + SPACE + PANEL
        times = np.arange(len(motion)) / motion.fps
        shown = (times >= self.start) & (times <= self.end)
        lines = [curve.values(motion)[shown] for curve in panel.curves]
        top = max(panel.top, *(float(line.max(initial=0.0)) for line in lines))
        self.draw.line((LEFT, low, self.image.width - RIGHT, low), fill=GREY)
        self.draw.text((LEFT - 6, low - PANEL), f"{top:.2g}{panel.unit}", fill=GREY, font=self.small, anchor="rt")
        self.draw.text((LEFT - 6, low), "0", fill=GREY, font=self.small, anchor="rb")
        for row, (curve, line) in enumerate(zip(panel.curves, lines, strict=True)):
            y = low - PANEL / 2 + 17 * (row - (len(lines) - 1) / 2)
            self.draw.text((6, y), curve.name, fill=curve.colour, font=self.font, anchor="lm")
            points = np.stack([self.x(times[shown]), low - line / top * PANEL], 1)
            self.draw.line([tuple(point) for point in points.tolist()], fill=curve.colour, width=2, joint="curve")


def plot(samples: Floats, motion: Motion, phones: Sequence[Phone] = (), *, start: float = 0.0,
         end: float | None = None, width: int = 1600, font: Path | None = None) -> Image.Image:
    """The picture of a take: samples (N,) at 16 kHz, the rest as in `Chart`; end None is the end of the sound."""
    seconds = len(samples) / SAMPLE_RATE
    chart = Chart(width, start, min(seconds, seconds if end is None else end), phones, font)
    chart.backdrop()
    chart.wave(samples)
    chart.labels()
    for index, panel in enumerate(PANELS):
        chart.panel(index, panel, motion)
    return chart.image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--phones", type=Path, metavar="FILE.json")
    parser.add_argument("--take", type=Path, metavar="TAKE.npz", help="default: the sound is animated first")
    parser.add_argument("--from", type=float, default=0.0, dest="start", metavar="SECONDS")
    parser.add_argument("--to", type=float, dest="end", metavar="SECONDS", help="default: to the end")
    parser.add_argument("--font", type=Path, metavar="FILE.ttf", help="for phones in IPA, which Pillow's font lacks")
    parser.add_argument("--width", type=int, default=1600, help="pixels (default 1600)")
    parser.add_argument("--out", type=Path, default=Path("out/curves.png"))
    options = parser.parse_args()
    if options.font and not options.font.is_file():
        parser.error(f"there is no font '{options.font}'")
    try:
        samples = load_audio(options.audio)
        if options.take:
            motion = Motion.load(options.take)
        else:
            from lsf_core import load_model  # seconds that a finished take need not pay

            motion = load_model().animate(options.audio)
        phones = read_phones(options.phones) if options.phones else []
        picture = plot(samples, motion, phones, start=options.start, end=options.end,
                       width=options.width, font=options.font)
    except LSFError as error:
        parser.exit(1, f"{error}\n")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
