"""Read an FBX with ufbx and write what is in it as .npz: python read_fbx.py IN.fbx OUT.npz

A process of its own, because ufbx's Python objects do not keep their parents alive and take the interpreter down when a
parent is collected: hence `keep`, and hence no harm to the tests if that is not enough.

    fps, stacks, nodes            frame rate, animation stacks, names of the nodes
    base (V, 3)                   the mesh that has blend shapes, in its own space; `world` (3, 4) leads to the file's
    shapes (K,)                   names of the blend channels
    offsets (K, V, 3)             displacement of each at full weight
    curve_<k> (N, 2)              keys of channel k where it has any: seconds, weight (1 = full)
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import ufbx

_keep: list[Any] = []


def keep(thing: Any) -> Any:
    _keep.append(thing)
    return thing


def each(things: Any) -> list[Any]:
    keep(things)
    return [keep(things[i]) for i in range(len(things))]


def vectors(things: Any) -> np.ndarray:
    return np.array([(v.x, v.y, v.z) for v in each(things)]).reshape(-1, 3)


def read(path: str) -> dict[str, Any]:
    scene = keep(ufbx.load_file(path))
    found: dict[str, Any] = {
        "fps": keep(scene.settings).frames_per_second,
        "stacks": len(each(scene.anim_stacks)),
        "nodes": [node.name for node in each(scene.nodes)],
    }
    meshes = [m for m in each(scene.meshes) if len(each(m.blend_deformers))]
    if len(meshes) != 1:
        return found
    found["base"] = vectors(meshes[0].vertices)
    node = each(meshes[0].instances)[0]
    matrix = keep(node.geometry_to_world)
    found["world"] = np.array([(c.x, c.y, c.z) for c in map(keep, (matrix.c0, matrix.c1, matrix.c2, matrix.c3))]).T
    channels = each(scene.blend_channels)
    found["shapes"] = [channel.name for channel in channels]
    found["offsets"] = np.zeros((len(channels), *found["base"].shape))
    for k, channel in enumerate(channels):
        shape = keep(channel.target_shape)
        moved = np.array(each(shape.offset_vertices), int)
        if len(moved):
            found["offsets"][k, moved] = vectors(shape.position_offsets)
    for layer in each(scene.anim_layers):
        for prop in each(layer.anim_props):
            if prop.prop_name == "DeformPercent":
                k = found["shapes"].index(keep(prop.element).name)
                curve = each(keep(prop.anim_value).curves)[0]
                found[f"curve_{k}"] = np.array([(key.time, key.value / 100) for key in each(curve.keyframes)])
    return found


if __name__ == "__main__":
    np.savez(sys.argv[2], **read(sys.argv[1]))
    os._exit(0)  # at an ordinary end ufbx's objects are freed in any order, and crash
