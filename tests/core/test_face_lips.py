"""Lips on the mesh itself: shut up to their corners, and each vertex on its own lip, on coarse meshes too."""

import numpy as np
import pytest
from face_shapes import person

from lsf_core.arkit import INDEX
from lsf_core.face import load_template, rig
from lsf_core.face.bench import measure
from lsf_core.face.bench_heads import STYLES, Base, Head, style
from lsf_core.face.mesh import check_mesh
from lsf_core.face.register import Registration, register
from lsf_core.face.transfer import TORN_TOLD_MM, Carrier


def base(seed: int) -> Base:
    """A person with the template's topology and shapes, in mm."""
    return Base.of("anny", load_template(), person(seed) * 1000.0)


@pytest.mark.parametrize("drawn", ["wide", "long"])
def test_lips_shut_up_to_their_corners(drawn: str) -> None:
    """The corners of a drawn mouth lie millimetres beside the registered ones, and no label tells lips apart there."""
    head = Head.of("", style(base(4), **STYLES[drawn])).posed(4)
    figures = measure(head, rig(head.vertices, head.faces))
    assert figures["slit_seen"] <= 0.3
    assert figures["lip_overlap_press"] < 0.5


def coarse(seed: int, count: int) -> Head:
    return Head.of("", base(seed).without("teeth_upper", "teeth_lower", "tongue")).decimated(count)


def registered(head: Head) -> Registration:
    return register(*check_mesh(head.vertices, head.faces), load_template())


@pytest.mark.parametrize(("seed", "count"), [(3, 1200), (5, 1000)])
def test_coarse_lips_know_their_side(seed: int, count: int) -> None:
    """Labels of a coarse mesh near the corners of the mouth are those of the same places on the template."""
    head = coarse(seed, count)
    found = registered(head)
    source = np.asarray(head.recipe.argmax(1)).ravel()
    lips = head.base.vertices[np.concatenate([head.base.loops[f"lip_{side}_inner"] for side in ("upper", "lower")])]
    place = found.prepared.local[source]
    at_corner = (place >= 0) & (np.linalg.norm(head.vertices[:, None] - lips[None], axis=2).min(1) < 10.0) \
        & (np.abs(head.vertices[:, 0] - lips[:, 0].mean()) > 0.4 * np.ptp(lips[:, 0]))
    off = found.labels[found.whole.weld[at_corner], 0] - found.prepared.labels[place[at_corner], 0]
    assert at_corner.sum() > 10
    assert np.sqrt(np.mean(off**2)) < 0.35


def test_a_torn_corner_is_shared_out_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faces of a coarse corner join both lips: no edge takes the whole opening alone, or a warning says so."""
    found = registered(coarse(4, 1000))
    jaw = found.prepared.template.expressions[INDEX["jawOpen"], found.prepared.skin].astype(np.float64) * 1000.0

    def torn(carrier: Carrier) -> float:
        return float(carrier.torn(carrier.carry(jaw[None])[0]).max())

    assert torn(Carrier(found)) < 0.5 * TORN_TOLD_MM
    assert found.warnings == []
    monkeypatch.setattr("lsf_core.face.transfer.TORN_ROUNDS", 0)
    assert torn(Carrier(found)) > TORN_TOLD_MM
    assert len(found.warnings) == 1
    assert "corner of the mouth" in found.warnings[0]
