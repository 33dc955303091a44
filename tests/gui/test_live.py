"""Live preview in a real window: the timeline plays, the face that is drawn is the preview's, and nothing stays."""

from __future__ import annotations

from pathlib import Path

from desktop import Desktop
from test_window import PICTURES, SCENE, desktop, window

__all__ = ["desktop", "window"]  # fixtures

TAKE = """
with bpy.context.temp_override(**window_parts()):
    bpy.ops.lsf.animate()
scene = bpy.context.scene
scene.frame_set(1)
bpy.ops.ed.undo_push(message='The take')
value = len(bpy.data.actions)
"""

WATCH = """
import numpy as np
drawn = addon('live').drawn = []
blocks = bpy.context.scene.lsf.target.data.shape_keys.key_blocks
def points(block):
    found = np.empty(len(block.data) * 3, np.float32)
    block.data.foreach_get('co', found)
    return found.reshape(-1, 3)
chin = int(np.abs(points(blocks['jawOpen']) - points(blocks['Basis'])).sum(axis=1).argmax())
def note():
    preview, scene = addon('live').running(), bpy.context.scene
    if preview is None or not addon('live').playing():
        return
    target = scene.lsf.target
    mesh = target.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    place = scene.frame_current - preview._speech.start_frame
    names = preview._driven(np.zeros((1, 52), 'f'))[0]
    wanted = preview._made[place][names.index('jawOpen')] if place in preview._made else -1.0
    drawn.append((scene.frame_current, float(wanted), target.data.shape_keys.key_blocks['jawOpen'].value,
                  mesh.vertices[chin].co.z))
bpy.types.SpaceView3D.draw_handler_add(note, (), 'WINDOW', 'POST_PIXEL')
"""

STATE = """
target = bpy.context.scene.lsf.target
key = target.data.shape_keys
curves = [[tuple(point.co) for point in curve.keyframe_points] for curve in key.animation_data.action.fcurves]
value = [key.animation_data.action.name, curves, [block.value for block in key.key_blocks], sorted(key.keys()),
         len(bpy.data.actions), len(bpy.data.meshes), len(bpy.data.objects)]
"""

PLAY = "with bpy.context.temp_override(**window_parts()): bpy.ops.screen.animation_play()"
TOGGLE = "with bpy.context.temp_override(**window_parts()): value = list(bpy.ops.lsf.live_preview())"


def test_the_face_that_is_drawn_is_the_previews(window: Desktop):
    window.tell(SCENE)
    assert window.tell(TAKE, within=400) > 0
    before = window.tell(STATE)
    window.tell(WATCH)
    assert window.tell(TOGGLE) == ["FINISHED"]
    window.wait_until("(p := addon('live').current).state != 'RUNNING' or 60 in p._made")
    assert window.tell("value = [addon('live').current.state, addon('live').current.error]") == ["RUNNING", ""]
    window.tell(PLAY)
    window.wait_until("len(addon('live').drawn) > 20 or addon('live').running() is None")
    window.screenshot(PICTURES / "live.png")
    window.tell(PLAY)  # pauses
    drawn = [row for row in window.tell("value = addon('live').drawn") if row[1] >= 0]
    assert len(drawn) > 10
    right = sum(abs(wanted - value) < 1e-4 for _, wanted, value, _ in drawn)
    assert right == len(drawn), f"{right} of {len(drawn)} drawn frames had the preview's jaw"
    opened = sorted(drawn, key=lambda row: row[1])
    assert opened[-1][3] < opened[0][3], "and the chin of the drawn mesh is lower where the jaw is open"
    assert window.tell(TOGGLE) == ["FINISHED"]
    window.tell("bpy.context.scene.frame_set(1)")
    assert window.tell(STATE) == before


def test_an_undo_ends_it_and_leaves_the_take(window: Desktop):
    before = window.tell(STATE)
    window.tell("bpy.context.scene.render.resolution_x = 640\nbpy.ops.ed.undo_push(message='A step')")
    window.tell(TOGGLE)
    window.wait_until("addon('live').running() and 5 in addon('live').current._made")
    window.xdotool("mousemove", 300, 400, "key", "ctrl+z")
    window.wait_until("addon('live').running() is None")
    window.wait_until("bpy.context.scene.render.resolution_x != 640")
    window.tell("bpy.context.scene.frame_set(1)")
    assert window.tell(STATE) == before
    assert "Traceback" not in window.log()


def test_the_engine_is_idle_after_it(window: Desktop):
    window.wait_until("addon('engine').running() is None or addon('engine').running().state == 'Idle'")
    folder = window.tell("value = str(addon('live').current._folder)")
    assert not Path(window.debian, folder.lstrip("/")).exists()
