"""The template head shipped in assets/template_head.npz: one topology for skin, teeth, tongue, eyes and
lashes, with the 52 ARKit shapes and a whitened identity space. Built by `lsf_core.face.build_template`; see
docs/face.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lsf_core.arkit import ARKIT_NAMES
from lsf_core.errors import MeshError

DEFAULT_PATH = Path(__file__).resolve().parents[2] / "assets" / "template_head.npz"
LOOPS = ("lip_upper_inner", "lip_lower_inner", "lid_upper_left", "lid_upper_right", "lid_lower_left", "lid_lower_right")


@dataclass(frozen=True, eq=False)
class Template:
    """Arrays of the template; all read-only.

    vertices (V, 3) float32, metres, y up, face to +z, subject's left = +x; the mean of the identity space.
    faces (M, 4) int32, -1 in the 4th place of a triangle. part (V,) uint8 into part_names. expressions (52,
    V, 3) float32, metres at weight 1, order of ARKIT_NAMES. identity_modes (K, V, 3) float32, metres per
    standard deviation: head = vertices + sum_k c_k modes_k with c ~ N(0, 1); the first 32 are the identity
    that the network reads. landmarks: name -> vertex. loops: name -> ordered vertices (lips from the right
    corner to the left, lids from the inner corner to the outer; upper and lower share their corners).
    fit_weight (V,) float32 in [0, 1]: how much a vertex should count when the template is fitted to a head
    (front of the face 1; neck rim, scalp, inner mouth and eyeballs 0). mirror (V,) int32: the vertex on the
    other side.
    """

    vertices: np.ndarray
    faces: np.ndarray
    part: np.ndarray
    part_names: tuple[str, ...]
    expressions: np.ndarray
    identity_modes: np.ndarray
    landmarks: dict[str, int]
    loops: dict[str, np.ndarray]
    fit_weight: np.ndarray
    mirror: np.ndarray
    licence: str

    def of_part(self, *names: str) -> np.ndarray:
        """Indices of the vertices of the named parts."""
        return np.flatnonzero(np.isin(self.part, [self.part_names.index(n) for n in names]))

    def head(self, identity: np.ndarray) -> np.ndarray:
        """Neutral vertices (V, 3) of whitened identity coefficients (k,), k <= K."""
        return self.vertices + np.tensordot(identity, self.identity_modes[: len(identity)], axes=1).astype(np.float32)


@lru_cache(maxsize=2)
def _load(path: Path) -> Template:
    if not path.exists():
        raise MeshError(f"The template head {path} is missing. Reinstall, or build it: see docs/face.md.")
    with np.load(path, allow_pickle=False) as data:
        try:
            fields = {name: data[name] for name in data.files}
            names = tuple(str(n) for n in fields["expression_names"])
            if names != ARKIT_NAMES:
                raise MeshError(f"{path}: its expressions are not the 52 ARKit names in order; build it again.")
            template = Template(
                vertices=fields["vertices"].astype(np.float32), faces=fields["faces"].astype(np.int32),
                part=fields["part"], part_names=tuple(str(n) for n in fields["part_names"]),
                expressions=fields["expressions_mm"].astype(np.float32) * np.float32(1e-3),
                identity_modes=fields["identity_modes_mm"].astype(np.float32) * np.float32(1e-3),
                landmarks={str(n): int(i) for n, i in
                           zip(fields["landmark_names"], fields["landmark_index"], strict=True)},
                loops={name: fields[name].astype(np.int32) for name in LOOPS},
                fit_weight=fields["fit_weight"].astype(np.float32), mirror=fields["mirror"].astype(np.int32),
                licence=str(fields["licence"]),
            )
        except KeyError as error:
            raise MeshError(f"{path} lacks the array {error}; it is not a template head of this version.") from error
    count = len(template.vertices)
    if template.expressions.shape != (len(ARKIT_NAMES), count, 3) or template.identity_modes.shape[1:] != (count, 3):
        raise MeshError(f"{path}: the shapes of its arrays do not fit {count} vertices; build it again.")
    for array in vars(template).values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    return template


def load_template(path: str | Path | None = None) -> Template:
    """The template head (the shipped one if no path is given), read once and kept. Raises MeshError."""
    return _load(Path(path) if path is not None else DEFAULT_PATH)
