"""Landmarks of a face: where the last fit put them, where the artist moved them, and the area in which the face lies.

Shown, they are empties that hang on the mesh; moved, they are taken as true by every later fit. The artist's own lie on
the object as the custom property `lsf_landmarks`, a fit with its confidence as `lsf_fit`: both go wherever the object
goes. All points are in the mesh's own space, so that moving, turning or scaling the object changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import mesh_io, parts
from .report import Problem
from .shared import arrayfile

LANDMARKS_TAG, FIT_TAG = "lsf_landmarks", "lsf_fit"
"""Custom properties of the head: JSON of the artist's landmarks {name: [x, y, z]}, and of the last Fit."""

NAME_TAG, PLACED_TAG = "lsf_landmark", "lsf_placed"
"""Custom properties of an empty: the landmark it shows, and where it was put."""

MADE_WITH_TAG = "lsf_made_with"
"""Custom property of the Key data-block: `wishes` with which our shape keys were made."""

MOVED = 1e-4
"""An empty farther than this share of the face from where it was put was moved."""

DOUBTFUL = 0.5
"""Confidence below which a landmark's place is doubtful (lsf_core.face.confidence)."""


@dataclass(frozen=True)
class Fit:
    """Where the engine found the face. points: landmark -> [x, y, z], mesh's own space; confidence: of each, in [0, 1];
    sure: of the whole; mesh: of which mesh and wishes (`state`)."""

    points: dict[str, list[float]]
    confidence: dict[str, float]
    sure: float
    warnings: list[str]
    mesh: str


def fit_of(data: dict[str, Any], joined: parts.Joined, mesh: str) -> Fit | None:
    """The fit in the engine's answer to `rig`, None where it holds no landmarks. Raises Problem for numbers that are
    none."""
    names = [str(name) for name in data.get("landmark_names", [])]
    if not names:
        return None
    own = np.asarray(data["landmarks"], np.float64) @ np.linalg.inv(joined.meshes[0].to_engine).T
    sure = np.asarray(data["landmark_confidence"], np.float64)
    if own.shape != (len(names), 3) or sure.shape != (len(names),) or not np.isfinite(own).all():
        raise Problem(f"The engine's landmarks are {own.shape} for {len(names)} names. Nothing was changed.")
    return Fit(dict(zip(names, own.tolist(), strict=True)), dict(zip(names, sure.tolist(), strict=True)),
               float(data["confidence"]), [str(warning) for warning in data.get("warnings", [])], mesh)


def fit(target: bpy.types.Object) -> Fit | None:
    """The last fit that is kept on the object, of whatever mesh it was then."""
    try:
        return Fit(**json.loads(target[FIT_TAG]))
    except (KeyError, TypeError, ValueError):
        return None


def up_to_date(target: bpy.types.Object) -> Fit | None:
    """The last fit, if neither mesh nor area nor the artist's landmarks changed since."""
    found = fit(target)
    return found if found is not None and found.mesh == state(parts.read(target), wishes(target)) else None


def doubts(target: bpy.types.Object) -> list[str]:
    """What the panel says of the last fit, if it is not sure: the engine's warnings name the regions."""
    found = fit(target)
    if found is None:
        return []
    if found.sure < DOUBTFUL:
        return [f"The face was found with a confidence of {found.sure:.2f} only. Look at its landmarks.",
                *found.warnings]
    return found.warnings


# ---------------------------------------------------------------- what the artist says
def shown(target: bpy.types.Object) -> dict[str, bpy.types.Object]:
    """The empties of the object's landmarks that are in some scene, by landmark."""
    return {child[NAME_TAG]: child for child in target.children if NAME_TAG in child and child.users_collection}


def corrected(target: bpy.types.Object) -> dict[str, list[float]]:
    """The landmarks that the artist set, in the mesh's own space: those kept on the object, and empties that were
    moved. Of shown landmarks, one whose empty was deleted is the fit's again."""
    kept = _kept(target)
    empties = shown(target)
    if not empties:
        return kept
    bpy.context.view_layer.update()  # a script may have moved them just now
    to_own = target.matrix_world.inverted_safe()
    own = {name: np.array(to_own @ empty.matrix_world.translation) for name, empty in empties.items()}
    far = MOVED * max(float(np.ptp(np.array(list(own.values())), axis=0).max()), 1e-12)
    return {name: place.tolist() for name, place in own.items()
            if name in kept or np.abs(place - np.array(empties[name][PLACED_TAG])).max() > far}


def _kept(target: bpy.types.Object) -> dict[str, list[float]]:
    try:
        kept = json.loads(target[LANDMARKS_TAG])
        return {str(name): [float(x) for x in place] for name, place in kept.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def area(target: bpy.types.Object) -> np.ndarray | None:
    """Weights (V,) in [0, 1] of the chosen vertex group, None where none is chosen. Raises Problem if it is gone."""
    if not target.lsf_area:
        return None
    group = target.vertex_groups.get(target.lsf_area)
    if group is None:
        raise Problem(str(refusal(target)))
    weights = np.zeros(len(target.data.vertices))
    for vertex in target.data.vertices:
        for one in vertex.groups:
            if one.group == group.index:
                weights[vertex.index] = one.weight
    return weights


def refusal(target: bpy.types.Object) -> str | None:
    """Why the face cannot be looked for as the artist says, or None. Cheap."""
    if target.lsf_area and target.lsf_area not in target.vertex_groups:
        return (f"'{target.name}' has no vertex group '{target.lsf_area}' any more. Choose another in 'Face Area' "
                "or clear it.")
    return None


def wishes(target: bpy.types.Object) -> str:
    """A digest of the artist's landmarks and area: '' for none."""
    landmarks, weights = corrected(target), area(target)
    if not landmarks and weights is None:
        return ""
    digest = hashlib.sha1(json.dumps({n: np.round(p, 6).tolist() for n, p in sorted(landmarks.items())}).encode())
    digest.update(b"" if weights is None else weights.tobytes())
    return digest.hexdigest()


def state(joined: parts.Joined, wished: str) -> str:
    """A digest of all that a fit depends on: the neutral mesh, its parts and the artist's `wishes`."""
    return hashlib.sha1(joined.vertices.tobytes() + joined.triangles.tobytes() + wished.encode()).hexdigest()


def guide(target: bpy.types.Object, joined: parts.Joined, folder: Path, number: int) -> dict[str, Any]:
    """What the engine is told of a face besides its mesh: `landmarks` and `area` of the protocol. Writes the area's
    file into the folder. Raises Problem."""
    told: dict[str, Any] = {}
    landmarks, weights = corrected(target), area(target)
    if landmarks:
        to_engine = joined.meshes[0].to_engine
        told["landmarks"] = {name: (to_engine @ np.array(place)).tolist() for name, place in landmarks.items()}
    if weights is not None:
        told["area"] = f"area{number}.npy"
        everywhere = np.ones(len(joined.vertices))  # the parts belong to the face
        everywhere[: len(weights)] = weights
        arrayfile.save_array(folder / told["area"], everywhere)
    return told


# ---------------------------------------------------------------- what is kept, shown and removed
def keep(target: bpy.types.Object, found: Fit | None) -> None:
    """Keep the artist's landmarks, and a new fit, with the object; empties that were not moved follow the fit."""
    landmarks = corrected(target)
    if landmarks:
        target[LANDMARKS_TAG] = json.dumps(landmarks)
    elif LANDMARKS_TAG in target:
        del target[LANDMARKS_TAG]
    if found is None:
        return
    target[FIT_TAG] = json.dumps(asdict(found))
    for name, empty in shown(target).items():
        if name in found.points and name not in landmarks:
            empty.location = empty[PLACED_TAG] = found.points[name]
        empty.show_name = found.confidence.get(name, 1.0) < DOUBTFUL


def show(target: bpy.types.Object, found: Fit) -> int:
    """Make empties at the landmarks, the artist's where there are some. Names stand beside doubtful ones. Returns how
    many there are."""
    hide(target)
    mine = _kept(target)
    size = float(np.ptp(np.array(list(found.points.values())), axis=0).max())
    collection = next((one for one in target.users_collection if one.library is None), bpy.context.scene.collection)
    for name, place in found.points.items():
        empty = bpy.data.objects.new(f"{target.name} {name}", None)
        empty[NAME_TAG], empty[PLACED_TAG] = name, place
        empty.parent, empty.location = target, mine.get(name, place)
        empty.empty_display_type, empty.empty_display_size = "SPHERE", 0.015 * size
        empty.show_in_front = empty.hide_render = True
        empty.show_name = found.confidence.get(name, 1.0) < DOUBTFUL
        collection.objects.link(empty)
    return len(found.points)


def hide(target: bpy.types.Object) -> None:
    """Remove the empties; what the artist set stays on the object."""
    if shown(target):
        keep(target, None)
        for empty in shown(target).values():
            bpy.data.objects.remove(empty)


def forget(target: bpy.types.Object) -> None:
    """Remove the empties and what the artist set: the next fit finds all landmarks by itself."""
    hide(target)
    for tag in (LANDMARKS_TAG, FIT_TAG):
        if tag in target:
            del target[tag]


# ---------------------------------------------------------------- shape keys made from other landmarks
def outdated(target: bpy.types.Object) -> bool:
    """Whether our shape keys were made with other landmarks, or another area, than there are now, and can be made anew:
    on a library override that would be lost."""
    made = mesh_io.made_keys(target) and target.data.override_library is None
    return bool(made) and str(target.data.shape_keys.get(MADE_WITH_TAG, "")) != wishes(target)


def made_with(target: bpy.types.Object, wished: str) -> None:
    """Note with which `wishes` our shape keys were made."""
    if target.data.shape_keys is not None:
        target.data.shape_keys[MADE_WITH_TAG] = wished


def register() -> None:
    bpy.types.Object.lsf_area = bpy.props.StringProperty(
        name="Face Area", description="Vertex group that holds the face: only there it is looked for, and only there "
                                      "skin moves. Empty: the whole mesh")


def unregister() -> None:
    del bpy.types.Object.lsf_area
