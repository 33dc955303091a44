"""Make assets/demo/head.obj: a head without shape keys whose topology has nothing to do with the template's.

    python tools/make_demo_head.py --faces ict_facekit.npz --out assets/demo/head.obj

A pleasant, seeded mixture of ICT-FaceKit's identity modes (MIT licence) is cut down to what a game head has (skin,
mouth and eye sockets, gums and tongue, teeth, eyeballs, lashes), decimated with Blender's collapse so that lips, lids
and brows stay dense, joined back to quads where that is harmless, and painted: colour per vertex for skin, lips, brows,
iris. The file is in metres, y up, facing +z. Needs the `bpy` module; run it with .venv's Python.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import bpy  # before bmesh, which the bpy module brings with it

# isort: split
import bmesh
import numpy as np
from scipy.spatial import cKDTree

CM_TO_M = 0.01
IDENTITY_MODES = 40
SKIN = (0.91, 0.72, 0.62)
LIPS = (0.76, 0.36, 0.35)
BROW = (0.20, 0.12, 0.09)
SOCKET = (0.38, 0.10, 0.10)
TEETH_DROP = 0.22  # centimetres
THROAT = (0.10, 0.02, 0.03)
GUMS = (0.72, 0.33, 0.34)
TONGUE = (0.74, 0.36, 0.37)
TEETH = (0.93, 0.90, 0.83)
SCLERA = (0.93, 0.92, 0.90)
IRIS = (0.22, 0.36, 0.42)
PUPIL = (0.02, 0.02, 0.02)
LASH = (0.12, 0.08, 0.07)

# Multi-PIE 68 landmarks: subject's right brow, left brow, outer lip loop, eye loops.
BROWS = (range(17, 22), range(22, 27))
OUTER_LIP = range(48, 60)
EYES = (range(36, 42), range(42, 48))


@dataclass(frozen=True)
class Part:
    """A piece of the source head: its vertex range(s), how many vertices stay, and its colours."""

    name: str
    vertices: np.ndarray  # (n,) indices into the source head
    keep: int  # vertices wanted after decimation
    colours: np.ndarray  # (n, 3) linear in [0, 1]
    weights: np.ndarray | None = None  # (n,) 0 = thin out freely, 1 = keep dense


def smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(x, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def mix(base: np.ndarray, colour: tuple[float, float, float], amount: np.ndarray) -> np.ndarray:
    """Blend `colour` over base (n, 3) by amount (n,) in [0, 1]."""
    return base + amount[:, None] * (np.asarray(colour) - base)


def polyline_distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance (n,) of points (n, D) to a polyline (m, D)."""
    best = np.full(len(points), np.inf)
    for a, b in pairwise(line):
        ab = b - a
        t = np.clip((points - a) @ ab / (ab @ ab), 0.0, 1.0)
        best = np.minimum(best, np.linalg.norm(points - (a + t[:, None] * ab), axis=1))
    return best


def inside_polygon(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Even-odd test (n,) of points (n, 2) against a closed polygon (m, 2)."""
    inside = np.zeros(len(points), dtype=bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < (x1 - x0) * (y - y0) / np.where(y1 == y0, 1.0, y1 - y0) + x0)
    return inside


def into_the_throat(points: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """0 (n,) at the lips to 1 from 5 cm behind them: no light falls there, and Workbench casts no shadows inside."""
    return 0.9 * smooth_step((marks[list(OUTER_LIP), 2].max() - 1.6 - points[:, 2]) / 3.4)


def show_upper_teeth(head: np.ndarray, regions: dict[str, tuple[int, int]]) -> None:
    """Move the upper teeth and their gums down by TEETH_DROP, in place.

    Identity modes move lips and teeth without regard to each other, and this mixture hides the incisors wholly; most
    people show about 2 mm of them with the lips apart. The overbite grows by as much, the closed mouth looks the same.
    """
    upper = slice(*regions["teeth_upper"])
    bite = head[upper, 1].min()
    head[upper, 1] -= TEETH_DROP
    gums = slice(*regions["gums_and_tongue"])
    tongue_reach = 0.72 * np.abs(head[upper, 0]).max()
    outside = (np.abs(head[gums, 0]) > tongue_reach) | (head[gums, 2] > head[upper, 2].max() - 1.2)
    head[gums, 1] -= TEETH_DROP * smooth_step((head[gums, 1] - bite) / 0.4) * outside


def region_table(data: np.lib.npyio.NpzFile) -> dict[str, tuple[int, int]]:
    """First and past-the-last vertex of each named region."""
    names = [str(name) for name in data["region_names"]]
    return {name: (int(a), int(b)) for name, (a, b) in zip(names, data["region_ranges"], strict=True)}


def skin_part(head: np.ndarray, regions: dict[str, tuple[int, int]], marks: np.ndarray, keep: int) -> Part:
    """Face, neck, mouth and eye sockets, which are one connected surface in ICT-FaceKit."""
    end = regions["eye_socket_right"][1]
    face_end = regions["face"][1]
    points = head[:end]
    colours = np.tile(SKIN, (end, 1))
    weights = np.zeros(end)
    face = np.arange(end) < face_end

    cheeks = np.exp(-(((np.abs(points[:, 0]) - 4.8) / 1.7) ** 2) - ((points[:, 1] - marks[30, 1] + 0.3) / 1.6) ** 2)
    colours = mix(colours, (0.90, 0.55, 0.49), 0.35 * cheeks * face)
    for brow in BROWS:
        line = marks[list(brow)]
        near = smooth_step(1.4 - polyline_distance(points, line) / 0.42)
        colours = mix(colours, BROW, 0.85 * near * face)
        weights = np.maximum(weights, 0.6 * smooth_step(2.0 - polyline_distance(points, line) / 0.8) * face)

    loop = marks[list(OUTER_LIP)]
    closed = np.vstack([loop, loop[:1]])
    edge = polyline_distance(points[:, :2], closed[:, :2])
    signed = np.where(inside_polygon(points[:, :2], loop[:, :2]), edge, -edge)
    front = face & (points[:, 2] > loop[:, 2].min() - 1.0)
    colours = mix(colours, LIPS, 0.8 * smooth_step(0.5 + signed / 0.22) * front)
    weights = np.maximum(weights, smooth_step(1.0 + (signed + 0.5) / 0.8) * front)

    for eye in EYES:
        ring = marks[list(eye)]
        centre = ring.mean(0)
        away = np.linalg.norm((points - centre) / (2.1, 1.5, 2.0), axis=1)
        weights = np.maximum(weights, smooth_step((1.5 - away) / 0.5) * face)
    socket = (np.arange(end) >= regions["mouth_socket"][0]) & (np.arange(end) < regions["mouth_socket"][1])
    # Where the socket meets the lips its first rows are still lip: darken with depth behind the lips.
    depth = smooth_step((loop[:, 2].max() - 0.6 - points[:, 2]) / 1.0)
    inside = mix(mix(np.tile(LIPS, (end, 1)), SOCKET, depth), THROAT, into_the_throat(points, marks))
    colours = np.where(socket[:, None], inside, colours)
    return Part("skin", np.arange(end), keep, colours, weights)


def make_parts(head: np.ndarray, data: np.lib.npyio.NpzFile) -> list[Part]:
    """All kept pieces with their budgets; about 8,000 vertices in all."""
    regions = region_table(data)
    component = data["component"]
    marks = head[data["landmarks68"]]
    parts = [skin_part(head, regions, marks, keep=5400)]

    gums = np.arange(*regions["gums_and_tongue"])
    # The tongue is the middle of the piece: inside the arch of the lower teeth.
    lower = head[slice(*regions["teeth_lower"])]
    half_width = 0.72 * np.abs(lower[:, 0]).max()
    tongue = smooth_step(2.0 * (1.0 - np.abs(head[gums, 0]) / half_width))
    colours = mix(np.tile(GUMS, (len(gums), 1)), TONGUE, tongue)
    colours = mix(colours, THROAT, into_the_throat(head[gums], marks))
    parts.append(Part("gums_and_tongue", gums, 750, colours))
    for name in ("teeth_upper", "teeth_lower"):
        teeth = np.arange(*regions[name])
        front = smooth_step((head[teeth, 2] - head[teeth, 2].max() + 2.0) / 1.5)
        parts.append(Part(name, teeth, 640, np.tile(TEETH, (len(teeth), 1)), front))
    for side in ("left", "right"):
        eye = np.arange(*regions[f"eyeball_{side}"])
        # Two shells: the inner one carries the iris, the outer one is a glass cornea that would only hide it.
        shells = [eye[component[eye] == c] for c in np.unique(component[eye])]
        radii = [np.linalg.norm(np.ptp(head[shell], axis=0)) for shell in shells]
        ball = shells[int(np.argmin(radii))]
        centre = (head[ball].max(0) + head[ball].min(0)) / 2
        # The pupil looks straight ahead (+z) in the neutral; the iris is about 6 mm in radius.
        across = np.linalg.norm(head[ball, :2] - centre[:2], axis=1)
        ahead = head[ball, 2] > centre[2]
        colours = mix(np.tile(SCLERA, (len(ball), 1)), IRIS, smooth_step((0.66 - across) / 0.08) * ahead)
        # The pupil is a hole in the source: what shows through it, the back of the ball, is painted like the pupil.
        colours = mix(colours, PUPIL, smooth_step((0.28 - across) / 0.08) * ahead)
        colours = mix(colours, PUPIL, smooth_step((centre[2] - head[ball, 2]) / 0.3))
        parts.append(Part(f"eye_{side}", ball, 420, colours, (ahead & (across < 0.75)).astype(float)))
        lashes = np.arange(*regions[f"eyelashes_{side}"])
        # Lower lashes are cards as thick as the upper ones; in plain dark colour they read as heavy make-up.
        below = smooth_step((centre[1] - 0.1 - head[lashes, 1]) / 0.2)
        colours = mix(np.tile(LASH, (len(lashes), 1)), SKIN, 0.7 * below)
        parts.append(Part(f"lashes_{side}", lashes, 250, colours))
    return parts


def sub_mesh(head: np.ndarray, faces: np.ndarray, part: Part) -> tuple[np.ndarray, list[list[int]]]:
    """The part's vertices (n, 3) and its faces in the part's own numbering."""
    local = np.full(len(head) + 1, -1)
    local[part.vertices] = np.arange(len(part.vertices))
    polygons = []
    for face in faces:
        corners = [int(local[i]) for i in face if i >= 0]
        if min(corners) >= 0:
            polygons.append(corners)
    return head[part.vertices], polygons


def decimate(points: np.ndarray, polygons: list[list[int]], keep: int, weights: np.ndarray | None) -> bpy.types.Mesh:
    """Blender's collapse decimation to about `keep` vertices, then triangles joined to quads where flat enough."""
    mesh = bpy.data.meshes.new("part")
    mesh.from_pydata(points.tolist(), [], polygons)
    thing = bpy.data.objects.new("part", mesh)
    bpy.context.scene.collection.objects.link(thing)
    modifier = thing.modifiers.new("thin out", "DECIMATE")
    modifier.ratio = min(1.0, keep / len(points))
    if weights is not None:
        group = thing.vertex_groups.new(name="thin")
        # Blender scales each edge's cost by the weight: more weight is removed later.
        for index, weight in enumerate(weights):
            group.add([index], float(1.0 - weight), "REPLACE")
        modifier.vertex_group = group.name
        modifier.vertex_group_factor = 3.0
    evaluated = thing.evaluated_get(bpy.context.evaluated_depsgraph_get())
    result = bpy.data.meshes.new_from_object(evaluated)
    bpy.data.objects.remove(thing)
    work = bmesh.new()
    work.from_mesh(result)
    bmesh.ops.join_triangles(
        work, faces=work.faces[:], angle_face_threshold=0.35, angle_shape_threshold=0.7, cmp_materials=False
    )
    work.to_mesh(result)
    work.free()
    return result


def write_obj(path: Path, parts: list[tuple[str, np.ndarray, np.ndarray, list[list[int]]]]) -> tuple[int, int]:
    """Write one object, a material per part, colours after the coordinates. Returns vertex and face counts."""
    lines = ["# Demo head: ICT-FaceKit identity mixture (MIT), decimated; see assets/LICENSES.md", "o demo_head"]
    total = 0
    polygon_lines = []
    polygon_count = 0
    for name, points, colours, polygons in parts:
        for (x, y, z), (r, g, b) in zip(points * CM_TO_M, colours, strict=True):
            lines.append(f"v {x:.5f} {y:.5f} {z:.5f} {r:.2f} {g:.2f} {b:.2f}")
        polygon_lines.append(f"usemtl {name}")
        polygon_lines += ["f " + " ".join(str(i + 1 + total) for i in polygon) for polygon in polygons]
        total += len(points)
        polygon_count += len(polygons)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, *polygon_lines]) + "\n", encoding="ascii")
    return total, polygon_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="ict_facekit.npz")
    parser.add_argument("--out", type=Path, default=Path("assets/demo/head.obj"))
    parser.add_argument("--seed", type=int, default=7, help="which identity")
    parser.add_argument("--strength", type=float, default=0.75, help="standard deviations of the identity mixture")
    options = parser.parse_args()

    data = np.load(options.faces)
    chance = np.random.default_rng(options.seed)
    amounts = options.strength * chance.standard_normal(IDENTITY_MODES)
    modes = data["identity"][:IDENTITY_MODES].astype(np.float64)
    head = data["verts"].astype(np.float64) + np.tensordot(amounts, modes, axes=1)

    show_upper_teeth(head, region_table(data))

    bpy.ops.wm.read_factory_settings(use_empty=True)
    written = []
    for part in make_parts(head, data):
        points, polygons = sub_mesh(head, data["faces"], part)
        mesh = decimate(points, polygons, part.keep, part.weights)
        kept = np.array([v.co[:] for v in mesh.vertices])
        colours = part.colours[cKDTree(points).query(kept)[1]]
        written.append((part.name, kept, colours, [list(p.vertices) for p in mesh.polygons]))
        print(f"{part.name}: {len(points)} -> {len(kept)} vertices")
    vertices, polygons_kept = write_obj(options.out, written)
    size = options.out.stat().st_size / 1024
    print(f"{options.out}: {vertices} vertices, {polygons_kept} faces, {size:.0f} KiB")


if __name__ == "__main__":
    main()
