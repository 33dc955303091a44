"""Contact sheet of a face rig: every shape at full weight, in one picture, to be looked at.

    python tools/render_shapes.py assets/template_head.npz --out sheet.png
    python tools/render_shapes.py head.obj --rig rig.npz --view mouth --shapes neutral jawOpen jawOpen+mouthClose

Needs the `bpy` module and pillow. All heads stand in one scene under one orthographic camera, so a sheet of
53 heads is one Workbench render (a few seconds without a graphics card). A shape may be a sum:
`jawOpen*0.5+mouthFunnel`; a template also has `mode1`, `mode2`, ... (identity modes) and `person1` ...
`person40` (random identities).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import bpy
import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COLOURS = {
    "skin": (0.62, 0.47, 0.40), "teeth": (0.88, 0.86, 0.78), "tongue": (0.65, 0.25, 0.25), "eye": (0.9, 0.9, 0.9),
    "iris": (0.15, 0.28, 0.42), "pupil": (0.02, 0.02, 0.02), "lashes": (0.08, 0.06, 0.05),
}
VIEWS = {
    "front": (0.0, 0.0, 1.0), "quarter": (35.0, 5.0, 1.0), "side": (90.0, 0.0, 1.0), "below": (20.0, -25.0, 1.0),
    "mouth": (0.0, 0.0, 0.49), "mouthquarter": (45.0, -5.0, 0.49), "eyes": (0.0, 0.0, 0.53), "eye": (0.0, 0.0, 0.26),
    "nose": (25.0, 0.0, 0.5), "eyequarter": (50.0, 10.0, 0.26),
}
"""Name -> turn about the vertical in degrees, tilt in degrees, width of the picture as a share of the
head's."""


class Rig:
    """Vertices (V, 3) with y up and the face to +z, faces (M, 4; -1 pads), shapes by name, colour (V, 3) of
    each vertex."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, shapes: dict[str, np.ndarray], colour: np.ndarray,
                 face_height: float, centres: dict[str, np.ndarray]) -> None:
        self.vertices, self.faces, self.shapes, self.colour = vertices, faces, shapes, colour
        self.face_height, self.centres = face_height, centres

    def posed(self, formula: str) -> np.ndarray:
        vertices = self.vertices.copy()
        for term in formula.split("+"):
            name, _, factor = term.strip().partition("*")
            if name != "neutral":
                vertices = vertices + self.shapes[name] * float(factor or 1)
        return vertices


def template_rig(path: Path, identity_seed: int | None) -> Rig:
    """The rig of a template asset, of its mean head or of a random identity."""
    from lsf_core.arkit import ARKIT_NAMES
    from lsf_core.face.template import load_template

    template = load_template(path)
    vertices = template.vertices.astype(np.float64)
    if identity_seed is not None:
        draw = np.random.default_rng(identity_seed).normal(size=len(template.identity_modes))
        vertices = template.head(draw).astype(np.float64)
    names = np.array([template.part_names[p] for p in template.part])
    colour = np.array([COLOURS[n.split("_")[0]] for n in names])
    for side in ("left", "right"):
        ball = np.flatnonzero(names == f"eye_{side}")
        points = template.vertices[ball]
        out = points - (points.min(axis=0) + points.max(axis=0)) / 2
        cosine = out[:, 2] / np.linalg.norm(out, axis=1)
        colour[ball[cosine > np.cos(np.radians(27))]] = COLOURS["iris"]
        colour[ball[cosine > np.cos(np.radians(10))]] = COLOURS["pupil"]
    marks = {n: vertices[i] for n, i in template.landmarks.items()}
    height = float(np.linalg.norm(marks["nasion"] - marks["chin"]))
    eye = (marks["eye_inner_left"] + marks["eye_outer_left"]) / 2
    centres = {"face": (marks["nasion"] + marks["nose_base"]) / 2,
               "mouth": (marks["mouth_left"] + marks["mouth_right"]) / 2 - [0, 0.12 * height, 0],
               "eyes": eye * [0, 1, 1], "eye": eye, "eyequarter": eye}
    centres["mouthquarter"] = centres["mouth"]
    shapes = dict(zip(ARKIT_NAMES, template.expressions.astype(np.float64), strict=True))
    # beside the 52: mode1, mode2, ... of the identity space, and person1, person2, ... drawn from it
    shapes |= {f"mode{k + 1}": m.astype(np.float64) for k, m in enumerate(template.identity_modes)}
    for seed in range(1, 41):
        draw = np.random.default_rng(seed).normal(size=len(template.identity_modes))
        shapes[f"person{seed}"] = np.tensordot(draw, template.identity_modes, axes=1).astype(np.float64)
    return Rig(vertices, template.faces, shapes, colour, height, centres)


def mesh_rig(path: Path, rig_path: Path) -> Rig:
    """The rig of any mesh with a rig npz (names, deltas, landmarks, landmark_names)."""
    from lsf_core.face.mesh import load_mesh

    vertices, triangles = load_mesh(path)[:2]
    with np.load(rig_path, allow_pickle=False) as data:
        shapes = {str(n): d.astype(np.float64) for n, d in zip(data["names"], data["deltas"], strict=True)}
        marks = {str(n): p for n, p in zip(data["landmark_names"], data["landmarks"], strict=True)}
    faces = np.c_[triangles, np.full(len(triangles), -1)]
    # turn the mesh so that the face looks to +z with y up, whatever its own axes are
    right, up = marks["eye_outer_left"] - marks["eye_outer_right"], marks["nasion"] - marks["chin"]
    x = right / np.linalg.norm(right)
    y = up - x * (x @ up)
    y /= np.linalg.norm(y)
    turn = np.stack([x, y, np.cross(x, y)])
    vertices, shapes = vertices @ turn.T, {n: d @ turn.T for n, d in shapes.items()}
    marks = {n: turn @ p for n, p in marks.items()}
    height = float(np.linalg.norm(marks["nasion"] - marks["chin"]))
    mouth = (marks["mouth_left"] + marks["mouth_right"]) / 2 - [0, 0.12 * height, 0]
    eye = (marks["eye_inner_left"] + marks["eye_outer_left"]) / 2
    face = (marks["nasion"] + marks["nose_base"]) / 2
    centres = {"face": face, "mouth": mouth, "mouthquarter": mouth, "eyes": (eye + face) / 2, "eye": eye,
               "nose": face, "eyequarter": eye}
    return Rig(vertices, faces, shapes, np.tile(COLOURS["skin"], (len(vertices), 1)), height, centres)


def _turned(points: np.ndarray, centre: np.ndarray, turn: float, tilt: float) -> np.ndarray:
    """Points about a centre, turned so that the view is along -z, then to Blender's axes (z up, seen from
    -y)."""
    a, b = np.radians(-turn), np.radians(tilt)
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    p = (points - centre) @ (about_x @ about_y).T
    return np.stack([p[:, 0], -p[:, 2], p[:, 1]], axis=1)


def render(rig: Rig, formulas: list[str], view: str, columns: int, tile: int, path: Path, *,
           labels: bool = True) -> None:
    """Render one tile per formula into `path`, with its name on it unless `labels` is False."""
    turn, tilt, share = VIEWS[view]
    centre = rig.centres.get(view, rig.centres["face"] - [0, 0, 0.75 * rig.face_height * (turn != 0)])
    width = 2.6 * rig.face_height * share
    aspect = 1.2 if share == 1 else 0.8
    height = width * aspect
    rows = -(-len(formulas) // columns)
    corner = rig.faces.reshape(-1, 4)
    polygons = [[int(v) for v in f if v >= 0] for f in corner]

    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    for i, formula in enumerate(formulas):
        points = _turned(rig.posed(formula), centre, turn, tilt)
        inside = (np.abs(points[:, 0]) < width / 2) & (np.abs(points[:, 2]) < height / 2)
        keep = [p for p in polygons if inside[p].all()]
        mesh = bpy.data.meshes.new(formula)
        mesh.from_pydata(points.tolist(), [], keep)
        mesh.polygons.foreach_set("use_smooth", np.ones(len(keep), bool))
        layer = mesh.color_attributes.new("colour", "FLOAT_COLOR", "POINT")
        layer.data.foreach_set("color", np.c_[rig.colour, np.ones(len(points))].astype(np.float32).ravel())
        thing = bpy.data.objects.new(formula, mesh)
        thing.location = ((i % columns) * width, 0, -(i // columns) * height)
        scene.collection.objects.link(thing)

    camera = bpy.data.cameras.new("camera")
    camera.type, camera.clip_end = "ORTHO", 100 * rig.face_height
    camera.sensor_fit = "HORIZONTAL"
    camera.ortho_scale = columns * width
    holder = bpy.data.objects.new("camera", camera)
    holder.location = ((columns - 1) * width / 2, -20 * rig.face_height, -(rows - 1) * height / 2)
    holder.rotation_euler = (np.pi / 2, 0, 0)
    scene.collection.objects.link(holder)
    scene.camera = holder
    scene.render.engine = "BLENDER_WORKBENCH"
    shading = scene.display.shading
    shading.light, shading.color_type = "STUDIO", "VERTEX"
    shading.show_cavity, shading.cavity_type, shading.show_shadows = True, "BOTH", False
    scene.display.render_aa = "5"
    scene.render.resolution_x, scene.render.resolution_y = columns * tile, round(rows * tile * aspect)
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    with tempfile.TemporaryDirectory() as folder:
        scene.render.filepath = str(Path(folder) / "sheet.png")
        bpy.ops.render.render(write_still=True)
        picture = Image.open(scene.render.filepath).convert("RGBA")
        sheet = Image.new("RGBA", picture.size, (225, 228, 232, 255))
        sheet.alpha_composite(picture)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=max(11, tile // 16))
    for i, formula in enumerate(formulas if labels else ()):
        draw.text(((i % columns) * tile + 4, (i // columns) * tile * aspect + 2), formula, fill=(20, 20, 20), font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.convert("RGB").save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", type=Path, help="template npz, or a mesh together with --rig")
    parser.add_argument("--rig", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/shapes.png"))
    parser.add_argument("--view", choices=sorted(VIEWS), default="front")
    parser.add_argument("--shapes", nargs="*", help="formulas; default: neutral and every shape")
    parser.add_argument("--identity", type=int, help="seed of a random identity (template only)")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--tile", type=int, default=230, help="width of one picture in pixels")
    options = parser.parse_args()
    rig = mesh_rig(options.head, options.rig) if options.rig else template_rig(options.head, options.identity)
    formulas = options.shapes or ["neutral", *(n for n in rig.shapes if not n.startswith(("mode", "person")))]
    columns = min(options.columns, len(formulas))
    render(rig, formulas, options.view, columns, options.tile, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
