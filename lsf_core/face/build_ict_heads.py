"""ICT-FaceKit's identities in the template's topology: skin through the registration, eyes, teeth and lashes placed anew."""

from __future__ import annotations

import numpy as np

from lsf_core.face.build_expressions import FLIP, Builder, fit_sphere
from lsf_core.face.build_ict import Ict
from lsf_core.face.build_register import Correspondence, similarity
from lsf_core.face.build_topology import EYE_MARGIN

UPPER_TEETH, LOWER_TEETH = (17039, 19247), (19247, 21451)
EYEBALLS = ((21451, 23021), (23021, 24591))


def ict_identities(ict: Ict, match: Correspondence, build: Builder, weight: np.ndarray, count: int, seed: int
                   ) -> tuple[np.ndarray, tuple[float, np.ndarray, np.ndarray]]:
    """`count` ICT heads (count, V, 3) with N(0, 1) mode weights, the neutral first, in the template's frame (metres).

    Uncovered skin (back of the head, ears, inner mouth, sockets) continues the displacement smoothly; eyeballs take ICT's
    centre and radius; teeth and tongue go with ICT's teeth; lashes with the lids. -> heads, (scale, rotation, shift) that
    takes ICT's frame to the template's.
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

    teeth = np.r_[slice(*UPPER_TEETH), slice(*LOWER_TEETH)]
    own_front = _front_tooth(mean, build.part("teeth_upper"))
    ict_front = _front_tooth(to_template(ict.vertices), np.arange(*UPPER_TEETH))
    own_mouth = np.concatenate([build.part(n) for n in ("teeth_upper", "teeth_lower", "tongue")])

    heads = np.empty((count, len(mean), 3))
    for i in range(count):
        draw = rng.normal(size=len(ict.identity)) if i else np.zeros(len(ict.identity))
        head = neutral + np.tensordot(draw, modes, axes=1)
        source = ict.vertices + np.tensordot(draw, ict.identity, axes=1)
        placed = to_template(source)
        for side, ball in enumerate(EYEBALLS):
            index = build.part(("eye_left", "eye_right")[side])
            centre, radius = build.eye_centre(side)
            new_centre, new_radius = fit_sphere(placed[slice(*ball)])
            head[index] = new_centre + (mean[index] - centre) * (new_radius / radius)
            lashes = build.part(("lashes_left", "lashes_right")[side])
            rim = build.topology.eyes[side][EYE_MARGIN]
            root = rim[np.linalg.norm(mean[lashes][:, None] - mean[rim][None], axis=2).argmin(axis=1)]
            head[lashes] = mean[lashes] + head[root] - mean[root]
        grow, turn, move = similarity(to_template(ict.vertices)[teeth], placed[teeth])
        start = mean[own_mouth] - own_front + ict_front
        head[own_mouth] = grow * start @ turn.T + move
        heads[i] = head
    return heads, (scale, rotation, shift)


def _front_tooth(points: np.ndarray, teeth: np.ndarray) -> np.ndarray:
    """The lower front edge of the upper incisors: on the midline, as far forward as any tooth, at their lower end."""
    upper = points[teeth]
    middle = upper[np.abs(upper[:, 0]) < 0.006]
    front = middle[middle[:, 2] > middle[:, 2].max() - 0.004]
    return np.array([0.0, front[:, 1].min(), front[:, 2].max()])
