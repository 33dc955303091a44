"""A neutral mesh becomes a rig: 52 shapes as offsets of its own vertices, landmarks, and the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..arkit import ARKIT_NAMES, IDENTITY_DIM, INDEX
from .confidence import doubts, landmark_confidence
from .contacts import correct_template
from .guide import check_guide
from .lids import Lids
from .locate import Progress
from .mesh import check_mesh
from .parts import Part, find_parts, part_deltas
from .register import Registration, register
from .seal import seal
from .teeth import clear_teeth
from .template import Template, load_template
from .transfer import Carrier, skin_deltas

IDENTITY_LIMIT = 3.0
"""Whitened identity coefficients are clipped to this: beyond it the network has seen nobody."""


SHOWN = 0.05
"""More of an eye than this share of what is seen of it in the neutral, seen in a blink, is told."""


@dataclass
class Rig:
    """The 52 ARKit shapes of a mesh.

    names (52,); deltas (52,V,3) float32, in the mesh's own unit, axes and vertex order: vertex = neutral + w * delta.
    landmarks (L,3) float32 in the mesh's space with landmark_names (L,). identity (32,) float32, whitened.
    landmark_confidence (L,) and confidence in [0,1]: below confidence.DOUBTFUL `warnings` tell what is doubtful.
    fit_error: mean distance of the fitted template from the face, in millimetres of the template's size.
    """

    names: tuple[str, ...]
    deltas: np.ndarray
    landmarks: np.ndarray
    landmark_names: tuple[str, ...]
    identity: np.ndarray
    fit_error: float
    landmark_confidence: np.ndarray
    confidence: float
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | Path) -> Rig:
        """Read what `save` wrote. Raises OSError, ValueError or KeyError for anything else."""
        with np.load(path, allow_pickle=False) as data:
            return cls(
                names=tuple(str(n) for n in data["names"]), deltas=data["deltas"], landmarks=data["landmarks"],
                landmark_names=tuple(str(n) for n in data["landmark_names"]), identity=data["identity"],
                fit_error=float(data["fit_error"]), landmark_confidence=data["landmark_confidence"],
                confidence=float(data["confidence"]), warnings=[str(w) for w in data["warnings"]],
            )

    def save(self, path: str | Path, *, compressed: bool = True) -> None:
        """Write a .npz with the fields above; `warnings` as an array of text."""
        (np.savez_compressed if compressed else np.savez)(
            path, names=np.array(self.names), deltas=self.deltas, landmarks=self.landmarks,
            landmark_names=np.array(self.landmark_names), identity=self.identity,
            fit_error=np.float32(self.fit_error), landmark_confidence=self.landmark_confidence,
            confidence=np.float32(self.confidence), warnings=np.array(self.warnings, dtype=np.str_),
        )


def rig(vertices: np.ndarray, faces: np.ndarray | Sequence[Sequence[int]], *,
        landmarks: Mapping[str, Sequence[float]] | None = None, area: np.ndarray | None = None,
        progress: Progress | None = None, template: Template | None = None) -> Rig:
    """Make the 52 shapes for a neutral face mesh of any topology, pose and scale.

    vertices (V,3); faces (M,3), (M,4) with -1 as padding, or a list of polygons. landmarks: corrected ones, name ->
    point in the mesh's space, any subset of the template's. area (V,): weights in [0,1] of where the face is.
    `progress(fraction, text)` is called on the way and may raise Cancelled. `template` replaces the shipped template
    head. Raises MeshError when the mesh is broken, holds no face, or the landmarks are none.
    """
    report = progress or (lambda fraction, text: None)
    vertices, triangles = check_mesh(vertices, faces)
    template = template or load_template()
    guide = check_guide(landmarks, area, vertices, template)
    result = register(vertices, triangles, template, guide=guide, progress=report)
    report(0.7, "Transferring expressions")
    welded = expression_deltas(result, report)
    move = result.similarity
    turn = (move.scale * move.rotation.T).astype(np.float32)
    deltas = np.stack([(shape @ turn)[result.whole.weld] for shape in welded])
    if guide.area is not None:
        deltas[:, result.skin[result.whole.weld]] *= guide.area[result.skin[result.whole.weld], None].astype(np.float32)
    sure = landmark_confidence(result)
    report(1.0, "Done")
    return Rig(
        names=ARKIT_NAMES, deltas=deltas,
        landmarks=move.to_mesh(result.vertices[list(template.landmarks.values())]).astype(np.float32),
        landmark_names=tuple(template.landmarks), identity=_identity(result), fit_error=result.final_mm,
        landmark_confidence=sure, confidence=float(np.median(sure)), warnings=result.warnings + doubts(result, sure),
    )


def read_identity(vertices: np.ndarray, faces: np.ndarray | Sequence[Sequence[int]], *,
                  landmarks: Mapping[str, Sequence[float]] | None = None, area: np.ndarray | None = None,
                  progress: Progress | None = None) -> np.ndarray:
    """Only the identity (32,) float32 of a neutral face mesh: the statistical fit without the transfer. As `rig`."""
    vertices, triangles = check_mesh(vertices, faces)
    guide = check_guide(landmarks, area, vertices, load_template())
    return _identity(register(vertices, triangles, load_template(), guide=guide, fine=False, progress=progress))


def _identity(result: Registration) -> np.ndarray:
    identity = np.zeros(IDENTITY_DIM, np.float32)
    known = result.identity[:IDENTITY_DIM]
    identity[: len(known)] = np.clip(known, -IDENTITY_LIMIT, IDENTITY_LIMIT)
    return identity


def expression_deltas(result: Registration, report: Progress, *, contacts: bool = True,
                      carrier: Carrier | None = None) -> np.ndarray:
    """Deltas (52,W,3) float32 in canonical millimetres for every welded vertex of a registered mesh.

    `contacts=False` leaves the plain transfer: no closing of lids and lips, nothing pushed out of the eyeballs.
    `carrier`: made before from the same registration, else made here.
    """
    on_template = skin_deltas(result)
    if contacts:
        on_template = correct_template(result, on_template)
    report(0.8, "Transferring expressions")
    carrier = carrier or Carrier(result)
    skin = carrier.carry(on_template)
    report(0.92, "Transferring expressions")
    parts = find_parts(result)
    if contacts:
        _settle_contacts(result, carrier, parts, skin)
    moves = part_deltas(result, parts, carrier.index, skin, on_template, _jaw_scale(result, on_template))
    if contacts:
        clear_teeth(result, parts, moves, carrier.surface.vertices, skin)
    deltas = np.zeros((len(ARKIT_NAMES), len(result.whole.vertices), 3), np.float32)
    deltas[:, carrier.index] = skin
    for part, move in zip(parts, moves, strict=True):
        deltas[:, part.vertices] = move
    return deltas


def _settle_contacts(result: Registration, carrier: Carrier, parts: list[Part], skin: np.ndarray) -> None:
    """Lids and lips on the mesh itself, in place on skin (52,n,3): lids out of the eyeball before and after they
    meet. An eye that stays visible is told in the registration's warnings."""
    surface = carrier.surface
    found = {side: Lids.of(result, parts, side, surface) for side in ("left", "right")}
    lids = {side: lid for side, lid in found.items() if lid is not None}
    for lid in lids.values():
        lid.clear(skin)
    seal(result, surface.vertices, surface.triangles, result.labels[carrier.index], skin)
    for side, lid in lids.items():
        lid.clear(skin, [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]])
        loops = result.prepared.template.loops
        rims = result.vertices[np.concatenate([loops[f"lid_upper_{side}"], loops[f"lid_lower_{side}"]])]
        shown = lid.shown(skin[INDEX[f"eyeBlink{side.capitalize()}"]], rims)
        if shown > SHOWN:
            result.warnings.append(
                f"In a blink {shown:.0%} of what is seen of the {side} eye stays visible: its lids have too few "
                "vertices to close over the eyeball. Give them an edge loop or two between brow and rim, or subdivide "
                "them, and rig again.")


def _jaw_scale(result: Registration, on_template: np.ndarray) -> float:
    """How much farther this face's chin drops in jawOpen than the template's: teeth and tongue must follow it."""
    own = result.prepared.template.expressions[INDEX["jawOpen"], result.prepared.skin] * 1000.0
    length = np.linalg.norm(own, axis=1)
    chin = length > 0.8 * length.max()
    return float(np.linalg.norm(on_template[INDEX["jawOpen"], chin], axis=1).mean() / length[chin].mean())
