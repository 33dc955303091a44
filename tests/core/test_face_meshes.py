"""The meshes that artists have: what `rig` must take, on a head whose every vertex has a known truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from face_shapes import person

from lsf_core.arkit import INDEX
from lsf_core.face import load_template, rig
from lsf_core.face.bench import measure
from lsf_core.face.bench_heads import Base, Head
from lsf_core.face.rig import read_identity

MOUTH = ("teeth_upper", "teeth_lower", "tongue")


def base(seed: int = 3) -> Base:
    """A person with the template's topology and shapes, in mm."""
    return Base.of("anny", load_template(), person(seed) * 1000.0)


def half_shut(head: Base) -> Base:
    """Lids let down to narrow slits in the neutral."""
    lids = head.truth[INDEX["eyeBlinkLeft"]] + head.truth[INDEX["eyeBlinkRight"]]
    left = head.truth.copy()
    for side in ("Left", "Right"):
        left[INDEX[f"eyeBlink{side}"]] *= 0.35
    return Base(head.family, head.vertices + 0.65 * lids, head.faces, head.part, left, head.loops, head.landmarks)


HEADS: dict[str, Callable[[], Head]] = {
    "doubled, non-manifold and loose": lambda: Head.of("", base()).dirtied(1),
    "n-gons": lambda: Head.of("", base()).polygons_merged(1),
    "1,000 vertices": lambda: Head.of("", base().without(*MOUTH)).decimated(1000),
    "mouth a little open": lambda: Head.of("", base().parted(0.08)),
    "eyes as slits": lambda: Head.of("", half_shut(base())),
    "hair, glasses and collar in the mesh": lambda: Head.of("", base()).dressed("hair", "glasses", "collar"),
    "skin alone": lambda: Head.of("", base().without("eye_left", "eye_right", "lashes_left", "lashes_right", *MOUTH)),
    "200,000 vertices": lambda: Head.of("", base()).subdivided(200_000),
}
"""Each is then turned anyhow and brought to any scale."""


@pytest.mark.parametrize("name", HEADS)
def test_any_mesh_is_rigged(name: str) -> None:
    head = HEADS[name]().posed(7)
    made = rig(head.vertices, head.faces)
    figures = measure(head, made)
    assert figures["warnings"] == []
    assert figures["strings"] == 0
    assert figures["landmark_mean"] < (4.0 if name == "1,000 vertices" else 2.5)
    assert np.isfinite(made.deltas).all()
    used = np.zeros(len(head.vertices), bool)
    for face in head.faces:
        used[[corner for corner in face if corner >= 0]] = True
    assert not made.deltas[:, ~used].any()  # loose vertices stay
    coarse = name == "1,000 vertices"
    for shape, limit in (("jawOpen", 2.0 if coarse else 1.0), ("mouthSmileLeft", 1.2 if coarse else 0.6)):
        assert figures["expressions"][shape][0] < limit, shape
    # Shut over an open jaw, the lips show no more of a slit than the neutral does, and closed lids little of the eye.
    assert figures["slit_seen"] <= max(0.5, figures["slit_seen_rest"])
    assert max(figures.get(f"eye_seen_{side}", 0.0) for side in ("left", "right")) < (0.3 if coarse else 0.05)


@pytest.mark.parametrize("stretch", [(-1.0, 1.0, 1.0), (1.0, 1.12, 0.95)], ids=["mirrored", "unequal"])
def test_unapplied_scale(stretch: tuple[float, float, float]) -> None:
    """An object's scale that is negative (inside out, left and right swapped) or unequal along its axes."""
    head = base()
    made = rig(head.vertices * stretch, head.faces)
    assert made.warnings == []
    marks = dict(zip(made.landmark_names, made.landmarks / stretch, strict=True))
    swap = {"left": "right", "right": "left"} if stretch[0] < 0 else {"left": "left", "right": "right"}
    for here, there in swap.items():
        true = head.vertices[head.landmarks[f"eye_outer_{there}"]]
        assert np.linalg.norm(marks[f"eye_outer_{here}"] - true) < 3.0
    teeth = head.part == "teeth_lower"
    truth, found = (shapes[INDEX["jawOpen"]][teeth] for shapes in (head.truth, made.deltas / stretch))
    assert np.linalg.norm(found - truth, axis=1).mean() < 0.2 * np.linalg.norm(truth, axis=1).mean()


def test_identity_is_stable_on_coarse_meshes() -> None:
    """The same face with 2,000 vertices is nearer to itself than to anybody else."""
    people = [base(seed) for seed in (3, 4)]
    plain = [read_identity(head.vertices, head.faces) for head in people]
    apart = float(np.linalg.norm(plain[0] - plain[1]))
    coarse = Head.of("", people[0]).decimated(2000).posed(2)
    moved = float(np.linalg.norm(read_identity(coarse.vertices, coarse.faces) - plain[0]))
    assert moved < 0.2 * apart
