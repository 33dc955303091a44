"""LSF-Animation: a speech strip and a neutral mesh become editable, emotional shape-key animation.

This package is everything that imports bpy. The network and the geometry live in lsf_core, in a process of their own
(engine.py); what both sides share is loaded by path (shared.py). Nothing here imports torch.

    shared        the two files of lsf_core that are used here      compat      Blender 4.2 to 5.x
    properties    scene.lsf                                         report      errors that the user sees
    engine        the client of the engine process                  job         one run, checked, then written
    strips        sound and frames of a strip                       mesh_io     meshes and shape keys
    keys          takes                                             fbx         export
    operators     buttons                                           panel, panel_*, preferences
"""

from __future__ import annotations

import atexit

from . import compat, engine, fbx, operators, panel, panel_takes, preferences, properties, setup_operators

MODULES = (properties, preferences, setup_operators, engine, operators, fbx, panel, panel_takes)


def register() -> None:
    """Called by Blender when the add-on is enabled, or by a script: works from a checkout with the bpy module too."""
    for module in MODULES:
        module.register()
    if compat.is_module():
        # A script seldom unregisters, and the bpy module hangs in its static destructors over classes left behind.
        atexit.register(unregister)


def unregister() -> None:
    """Called when the add-on is disabled; ends the engine."""
    atexit.unregister(unregister)
    for module in reversed(MODULES):
        module.unregister()
