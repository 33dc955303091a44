"""ICT-FaceKit's identities in the template's topology: skin through the registration, eyes and lashes
placed anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lsf_core.face.build_contacts import push_out
from lsf_core.face.build_expressions import FLIP, Builder, fit_sphere, lash_roots
from lsf_core.face.build_ict import Ict
from lsf_core.face.build_register import Correspondence, similarity
from lsf_core.face.build_topology import MOUTH_CORNER, MOUTH_SEAL, MOUTH_SIZE

EYEBALLS = ((21451, 23021), (23021, 24591))
SPREAD = 0.9
"""ICT's modes are drawn with this standard deviation: at 1 all hundred together give some heads nobody
has."""
TEETH_SCALE = (0.85, 1.08)
NEUTRAL_CLEARANCE = 0.0002
"""Least distance (m) of the open lids from the eyeball."""


def ict_identities(ict: Ict, match: Correspondence, build: Builder, weight: np.ndarray, count: int, seed: int
                   ) -> tuple[np.ndarray, tuple[float, np.ndarray, np.ndarray]]:
    """`count` ICT heads (count, V, 3) with random mode weights, the neutral first, in the template's frame
    (metres).

    Uncovered skin (back of the head, ears, inner mouth, sockets) continues the displacement smoothly;
    eyeballs take ICT's centre and radius; lashes go with the lids; teeth are placed later
    (settle_inner_parts). -> heads, (scale, rotation, shift) that takes ICT's frame to the template's.
    """
    rng = np.random.default_rng(seed)
    use = np.flatnonzero(weight > 0.3)
    scale, rotation, shift = similarity(match.neutral[use], build.vertices[use])

    def to_template(points: np.ndarray) -> np.ndarray:
        return scale * points @ rotation.T + shift

    mean = build.vertices
    neutral = to_template(match.neutral)
    covered = match.covered & build.skin
    # where the template's neutral head was not matched it keeps its own form, carried along smoothly
    offset = np.where(covered[:, None], neutral - mean, 0.0)
    neutral = np.where(build.skin[:, None], mean + build.fill(offset, covered), mean)
    neutral = (neutral + neutral[build.head.mirror] * FLIP) / 2

    basis = scale * np.stack([match.rows @ mode for mode in ict.identity]) @ rotation.T
    modes = build.fill(basis.transpose(1, 0, 2).reshape(len(mean), -1) * covered[:, None], covered)
    modes = modes.reshape(len(mean), len(ict.identity), 3).transpose(1, 0, 2)

    roots = [lash_roots(build, side) for side in (0, 1)]
    heads = np.empty((count, len(mean), 3))
    for i in range(count):
        draw = SPREAD * rng.normal(size=len(ict.identity)) if i else np.zeros(len(ict.identity))
        head = neutral + np.tensordot(draw, modes, axes=1)
        source = ict.vertices + np.tensordot(draw, ict.identity, axes=1)
        placed = to_template(source)
        for side, ball in enumerate(EYEBALLS):
            index = build.part(("eye_left", "eye_right")[side])
            centre, radius = build.eye_centre(side)
            new_centre, new_radius = fit_sphere(placed[slice(*ball)])
            head[index] = new_centre + (mean[index] - centre) * (new_radius / radius)
            lashes, rim, rows = roots[side]
            head[lashes] = mean[lashes] + rows @ (head[rim] - mean[rim])
        heads[i] = head
    return heads, (scale, rotation, shift)


def settle_inner_parts(head: np.ndarray, build: Builder) -> np.ndarray:
    """A head (V, 3) whose skin is final -> the same with teeth and tongue set behind its lips and its lids
    clear of its eyes.

    Neither family places the teeth well on a head that is a mixture (offsets made for adults push a child's
    teeth through the chin): they keep the mean head's place behind the line where the lips meet and its
    size against the mouth's width.
    """
    seal = build.topology.mouth[MOUTH_SEAL]
    mouth = np.concatenate([build.part(n) for n in ("teeth_upper", "teeth_lower", "tongue")])
    middle = seal[[0, MOUTH_SIZE // 2]]
    corners = seal[[MOUTH_CORNER, MOUTH_SIZE - MOUTH_CORNER]]
    pivot, place = build.vertices[middle].mean(axis=0), head[middle].mean(axis=0)
    width = np.linalg.norm(np.diff(head[corners], axis=0)) / np.linalg.norm(np.diff(build.vertices[corners], axis=0))
    depth = (place - head[corners].mean(axis=0))[2] / (pivot - build.vertices[corners].mean(axis=0))[2]
    grow = np.clip([width, 1.0, min(depth, width)], TEETH_SCALE[0], TEETH_SCALE[1])
    out = head.copy()
    out[mouth] = (build.vertices[mouth] - pivot) * grow + place
    own = replace(build, vertices=out)
    for side in (0, 1):
        lift = np.zeros_like(out)
        push_out(own, lift, side, own.eye_centre(side)[0], NEUTRAL_CLEARANCE)
        out += lift
    return out
