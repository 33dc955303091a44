"""Contact sheet of takes on the template head: a row a take, its frames at even times or at the phones asked for.

    python tools/render_take.py take1.npz take2.npz --out sheet.png
    python tools/render_take.py angry.npz sad.npz --label angry sad --times 0.4 0.8 1.2

A take is what `python -m lsf_core animate` writes. Needs the `bpy` module and pillow; one Workbench render.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from render_shapes import VIEWS, Rig, render, template_rig

from lsf_core.face.template import DEFAULT_PATH
from lsf_core.motion import Motion


def add_frames(rig: Rig, motion: Motion, label: str, times: list[float]) -> list[str]:
    """Add the face at each time (s) to the rig as a shape of its own; the names, which become captions."""
    names = []
    for time in times:
        frame = min(round(time * motion.fps), len(motion.weights) - 1)
        name = f"{label} {time:.2f} s"
        rig.shapes[name] = sum(weight * rig.shapes[shape] for shape, weight in
                               zip(motion.names, motion.weights[frame], strict=True))
        names.append(name)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("takes", type=Path, nargs="+")
    parser.add_argument("--label", nargs="+", help="one a take; default: the file's name")
    parser.add_argument("--times", type=float, nargs="+", help="seconds; default: --columns even times of each take")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--view", choices=sorted(VIEWS), default="front")
    parser.add_argument("--tile", type=int, default=230)
    parser.add_argument("--out", type=Path, default=Path("out/takes.png"))
    options = parser.parse_args()
    labels = options.label or [take.stem for take in options.takes]
    if len(labels) != len(options.takes):
        parser.error(f"{len(labels)} labels for {len(options.takes)} takes: give one each")
    rig = template_rig(DEFAULT_PATH, None)
    formulas = []
    for take, label in zip(options.takes, labels, strict=True):
        motion = Motion.load(take)
        times = options.times or list(np.linspace(0, len(motion.weights) / motion.fps, options.columns + 2)[1:-1])
        formulas += add_frames(rig, motion, label, times)
    render(rig, formulas, options.view, len(options.times or []) or options.columns, options.tile, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
