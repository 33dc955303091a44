"""The demo's scene: a head from a file, materials that show its colours, a portrait camera and three lights."""

from __future__ import annotations

import math
from pathlib import Path

import bpy
import numpy as np
from mathutils import Vector

PORTRAIT_LENS_MM = 85.0
SENSOR_MM = 36.0
HEAD_IN_PICTURE = 0.87  # height of the head (crown to chin) over the picture's, for the film
FACE_IN_SHEET = 1.25  # the same for the contact sheet: the picture ends on the forehead and below the chin
BACKGROUND = (0.055, 0.062, 0.075)
GLOSS = {"eye_left": 0.08, "eye_right": 0.08, "teeth_upper": 0.25, "teeth_lower": 0.25}  # roughness; skin gets 0.55


def load_head(path: Path) -> bpy.types.Object:
    """Import an OBJ head as one smooth-shaded object with materials that show its colours."""
    before = set(bpy.data.objects)
    bpy.ops.wm.obj_import(filepath=str(path))
    meshes = [thing for thing in bpy.data.objects if thing not in before and thing.type == "MESH"]
    if len(meshes) != 1:
        raise RuntimeError(f"{path.name} holds {len(meshes)} mesh objects; the demo wants one.")
    head = meshes[0]
    head.name = "Head"
    head.data.polygons.foreach_set("use_smooth", np.ones(len(head.data.polygons), dtype=bool))
    if head.data.shape_keys is not None:
        raise RuntimeError(f"{path.name} came with shape keys; the demo shows a head that has none.")
    colours = head.data.color_attributes
    if colours:
        for slot in head.material_slots:
            show_colours(slot.material, colours[0].name)
    return head


def show_colours(material: bpy.types.Material, attribute: str) -> None:
    """Base colour from the mesh's colour attribute, for EEVEE, Cycles and material preview."""
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    source = nodes.new("ShaderNodeAttribute")
    source.attribute_name = attribute
    source.location = (shader.location.x - 250, shader.location.y)
    links.new(source.outputs["Color"], shader.inputs["Base Color"])
    shader.inputs["Roughness"].default_value = GLOSS.get(material.name, 0.55)


def world_points(head: bpy.types.Object) -> np.ndarray:
    """Vertices (V, 3) in the scene's axes and metres."""
    points = np.empty(len(head.data.vertices) * 3, dtype=np.float32)
    head.data.vertices.foreach_get("co", points)
    matrix = np.array(head.matrix_world)
    return points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def face_frame(head: bpy.types.Object) -> tuple[Vector, float]:
    """(middle of the head, its height from crown to chin) of a head that faces -y and stands along z.

    Heads differ in how much neck and shoulder they bring, so the upper third decides: from crown to chin a head is
    about as high as its skull is deep.
    """
    points = world_points(head)
    crown = points[:, 2].max()
    extent = crown - points[:, 2].min()
    upper = points[points[:, 2] > crown - 0.35 * extent]
    middle_x = (upper[:, 0].min() + upper[:, 0].max()) / 2
    depth = upper[:, 1].max() - upper[:, 1].min()
    height = min(1.08 * depth, extent)
    front = points[:, 1].min()
    return Vector((middle_x, front + 0.3 * depth, crown - 0.55 * height)), float(height)


def light_and_camera(scene: bpy.types.Scene, head: bpy.types.Object) -> None:
    """Portrait camera a little to the side, key, fill and rim light, and Workbench set up for clear faces."""
    middle, height = face_frame(head)
    per_height = height * PORTRAIT_LENS_MM / SENSOR_MM
    face = middle - Vector((0.0, 0.0, 0.08 * height))
    add_camera(scene, "Front", face, per_height / FACE_IN_SHEET, 0.0)
    scene.camera = add_camera(scene, "Portrait", middle, per_height / HEAD_IN_PICTURE, math.radians(12.0))
    for name, side, up, power in (("Key", 40.0, 30.0, 8.0), ("Fill", -55.0, 5.0, 3.0), ("Rim", 160.0, 40.0, 10.0)):
        light = bpy.data.lights.new(name, "AREA")
        light.energy, light.size = power, 0.4
        thing = bpy.data.objects.new(name, light)
        place(thing, middle, 1.0, math.radians(side), math.radians(up))
        scene.collection.objects.link(thing)
    world = bpy.data.worlds.new("Studio")
    world.color = BACKGROUND
    scene.world = world

    scene.render.engine = "BLENDER_WORKBENCH"
    scene.view_settings.view_transform = "Standard"
    scene.render.film_transparent = False
    shading = scene.display.shading
    shading.light = "STUDIO"
    shading.color_type = "VERTEX" if head.data.color_attributes else "MATERIAL"
    shading.show_specular_highlight = False  # the studio's highlights wash out brows and lips
    shading.show_cavity = True
    shading.cavity_type = "WORLD"  # darkens creases: smile lines, frown, lids
    shading.cavity_ridge_factor = 0.0
    shading.cavity_valley_factor = 0.8
    shading.background_type = "WORLD"


def add_camera(scene: bpy.types.Scene, name: str, target: Vector, distance: float, side: float) -> bpy.types.Object:
    """A camera that looks at the target from the front, turned by `side` radians around it."""
    camera = bpy.data.cameras.new(name)
    camera.lens, camera.sensor_width, camera.sensor_fit = PORTRAIT_LENS_MM, SENSOR_MM, "VERTICAL"
    camera.sensor_height = SENSOR_MM
    camera.clip_start, camera.clip_end = distance * 0.05, distance * 20
    thing = bpy.data.objects.new(name, camera)
    place(thing, target, distance, side, 0.0)
    scene.collection.objects.link(thing)
    return thing


def place(thing: bpy.types.Object, target: Vector, distance: float, side: float, up: float) -> None:
    """Put an object on a sphere around the target (side = 0: in front, -y) and turn its -z axis to it."""
    away = Vector((math.sin(side) * math.cos(up), -math.cos(side) * math.cos(up), math.sin(up)))
    thing.location = target + distance * away
    thing.rotation_euler = away.to_track_quat("Z", "Y").to_euler()
