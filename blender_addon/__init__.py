"""LSF-Animation: a speech strip and a neutral mesh become editable, emotional shape-key animation.

This package is everything that imports bpy. The network and the geometry live in lsf_core, in a process of their own
(engine.py); what both sides share is loaded by path (shared.py). Nothing here imports torch.

    shared        what is used of lsf_core: protocol, names, edits  compat      Blender 4.2 to 5.x
    properties    scene.lsf                                         report      errors that the user sees
    engine        the client of the engine process                  task        what it is asked, in steps
    job           a run that makes takes, checked                   order       what a job is asked to make
    writing       its end: takes are written                        pieces      work that a window can interrupt
    strips        sound and frames of a strip                       mesh_io     meshes and shape keys
    parts         the objects that belong to a face                 mapper      which shape keys are driven, and how
    curves        F-curves in bulk, the artist's keys left alone    carrier     what FBX needs on the object
    keys          what a take is and bears                          takes       what can be done with takes
    edits         takes changed without the network                 presets     edits that are kept and shared
    compare       takes side by side                                fbx         export
    live          preview while it speaks: button, timer, handlers  live_preview  one preview, asked and shown
    puppet        shape keys moved by values alone, and put back
    *operators    buttons; button: what they share                  panel*, preferences
"""

from __future__ import annotations

import atexit

from . import (
    compat,
    edit_operators,
    edits,
    engine,
    fbx,
    landmark_operators,
    landmarks,
    live,
    mapper,
    operators,
    panel,
    panel_edits,
    panel_emotion,
    panel_engine,
    panel_face,
    panel_lines,
    panel_live,
    panel_takes,
    panel_targets,
    parts,
    preferences,
    properties,
    setup_operators,
    take_operators,
)

MODULES = (mapper, landmarks, parts, properties, preferences, setup_operators, engine, operators,
           take_operators, landmark_operators, edits, edit_operators, fbx, live, panel, panel_live, panel_emotion,
           panel_targets, panel_face, panel_takes, panel_edits, panel_lines, panel_engine)


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
