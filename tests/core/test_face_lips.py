"""Lips on the mesh itself: shut up to their corners, and each vertex on its own lip, on coarse meshes too."""

import pytest
from face_shapes import person

from lsf_core.face import load_template, rig
from lsf_core.face.bench import measure
from lsf_core.face.bench_heads import STYLES, Base, Head, style


def base(seed: int) -> Base:
    """A person with the template's topology and shapes, in mm."""
    return Base.of("anny", load_template(), person(seed) * 1000.0)


@pytest.mark.parametrize("drawn", ["wide", "long"])
def test_lips_shut_up_to_their_corners(drawn: str) -> None:
    """The corners of a drawn mouth lie a few millimetres beside the registered ones, where no label tells lips apart."""
    head = Head.of("", style(base(4), **STYLES[drawn])).posed(4)
    figures = measure(head, rig(head.vertices, head.faces))
    assert figures["slit_seen"] <= 0.3
    assert figures["lip_overlap_press"] < 0.5
