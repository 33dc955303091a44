"""The add-on in a real window: the zip as a user installs it into Debian's Blender, a mouse that presses its buttons.

One story, told in order in one Blender; pictures of its stations lie in out/gui/ afterwards, and the README's are made
of them. Needs root and the Debian mirror, see debian_blender.py; without them every test says why it is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import debian_blender
import pytest
from desktop import ROOT, Desktop

sys.path.insert(0, str(ROOT))

from install import point_to_engine
from tools.addon_zip import build

PICTURES = ROOT / "out" / "gui"
ENGINE_PYTHON = Path(os.environ.get("LSF_ENGINE_PYTHON") or ROOT / ".venv" / "bin" / "python")

SCENE = f"""
import sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import demo_scene
from pathlib import Path
bpy.data.objects.remove(bpy.data.objects['Cube'])
head = demo_scene.load_head(Path({str(ROOT / "assets/demo/head.obj")!r}))
scene = bpy.context.scene
demo_scene.light_and_camera(scene, head)
scene.sequence_editor_create()
strip = scene.sequence_editor.sequences.new_sound('speech', {str(ROOT / "assets/demo/speech.ogg")!r}, 1, 1)
scene.lsf.target, scene.lsf.strip_name = head, strip.name
shading = window_parts()['area'].spaces[0].shading
shading.color_type, shading.show_cavity = 'VERTEX', True
window_parts()['area'].spaces[0].overlay.show_overlays = False
with bpy.context.temp_override(**{{**window_parts(), 'region': next(
        r for r in window_parts()['area'].regions if r.type == 'WINDOW')}}):
    bpy.ops.view3d.view_camera()
scene.camera.data.show_passepartout = False
window_parts()['area'].spaces[0].region_3d.view_camera_zoom = 6
window_parts()['area'].spaces[0].region_3d.view_camera_offset = (0.08, 0)
bpy.ops.ed.undo_push(message='The scene')
"""

WATCH = """
import time
job, operators = addon('job'), addon('operators')
ticks = job.ticks = []
plain = operators.LSF_OT_animate.modal
def modal(self, context, event):
    kind, begun = event.type, time.perf_counter()
    answer = plain(self, context, event)
    if kind == 'TIMER':
        ticks.append(((time.perf_counter() - begun) * 1000, job.busy()))
    return answer
operators.LSF_OT_animate.modal = modal
"""

WIDEST = """
scene = bpy.context.scene
blocks, jaw = scene.lsf.target.data.shape_keys.key_blocks, {}
for frame in range(scene.frame_start, scene.frame_end + 1):
    scene.frame_set(frame)
    jaw[blocks['jawOpen'].value] = frame
scene.frame_set(jaw[max(jaw)])
"""


@pytest.fixture(scope="module")
def desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desktop]:
    try:
        debian = debian_blender.ensure()
    except debian_blender.Unavailable as reason:
        pytest.skip(f"no window: {reason}")
    PICTURES.mkdir(parents=True, exist_ok=True)
    made = Desktop(debian, tmp_path_factory.mktemp("desktop"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def window(desktop: Desktop) -> Desktop:
    """Blender open at its LSF panel, with the add-on from the zip and the checkout's engine."""
    zip_file = build(desktop.home)
    assert "Success" in desktop.blender("--command", "extension", "validate", str(zip_file))
    desktop.blender("--command", "extension", "install-file", "--repo", "user_default", "--enable", str(zip_file))
    settle = f"import bpy\nbpy.context.preferences.view.show_splash = False\n{point_to_engine(ENGINE_PYTHON)}"
    desktop.blender("--background", "--python-exit-code", "1", "--python-expr", settle)
    desktop.open()
    desktop.tell("window_parts()['area'].spaces[0].show_region_ui = True")
    show_panel(desktop)
    return desktop


def show_panel(desktop: Desktop) -> None:
    desktop.wait_until("window_parts()['region'].width > 1")
    desktop.tell("p = window_parts()\np['region'].active_panel_category = 'LSF'\np['area'].tag_redraw()")


def test_without_a_mesh_animate_is_grey_and_says_why(window: Desktop):
    spot = window.find_button("lsf.animate")
    window.xdotool("mousemove", *spot, "click", 1)
    assert window.tell("value = [addon('job').current is None, addon('operators').disabled_reason(bpy.context)]") == [
        True, "No mesh is chosen. Choose the neutral head in 'Mesh'."]
    window.screenshot(PICTURES / "grey.png")


def test_cancel_stops_a_run(window: Desktop):
    window.tell(SCENE)
    window.tell(WATCH)
    window.press("lsf.animate")
    window.wait_until("addon('job').current")
    window.press("lsf.cancel")      # at once: with a warm engine and a known mesh a run takes a second
    window.wait_until("not addon('job').busy()")
    state = window.tell("job = addon('job').current\nkeys = bpy.context.scene.lsf.target.data.shape_keys\n"
                        "value = [job.state, keys is None, len(bpy.data.actions)]")
    assert state == ["CANCELLED", True, 0]


def test_the_next_run_keys_the_face_in_one_undo_step(window: Desktop):
    window.press("lsf.animate")
    window.wait_until("addon('job').busy()")
    window.screenshot(PICTURES / "progress.png")
    window.wait_until("not addon('job').busy()")
    assert window.tell("job = addon('job').current\nvalue = [job.state, job.error]") == ["DONE", ""]
    count = "keys = bpy.context.scene.lsf.target.data.shape_keys\nvalue = len(keys.key_blocks) if keys else 0"
    assert window.tell(count) == 53
    window.tell(WIDEST)
    window.screenshot(PICTURES / "panel.png", view_only=True)
    window.xdotool("mousemove", 300, 400, "key", "ctrl+z")
    window.wait_until("bpy.context.scene.lsf.target.data.shape_keys is None")
    window.xdotool("key", "ctrl+shift+z")
    window.wait_until("bpy.context.scene.lsf.target.data.shape_keys is not None")
    assert window.tell(count) == 53
    ticks = window.tell("value = addon('job').ticks")
    waiting = sorted(seconds for seconds, busy in ticks if busy)
    assert len(waiting) > 20, "the window's timer ran while the engine worked"
    figures = {"ticks": len(waiting), "median_ms": waiting[len(waiting) // 2], "longest_ms": waiting[-1],
               "writing_ms": [round(seconds, 1) for seconds, busy in ticks if not busy]}
    (PICTURES / "ticks.json").write_text(json.dumps(figures))


def test_the_preferences_show_the_engine(window: Desktop):
    window.tell("with bpy.context.temp_override(**window_parts()): bpy.ops.lsf.show_preferences()")
    window.wait_until("len(bpy.context.window_manager.windows) == 2")
    assert window.tell("value = bpy.context.window_manager.windows[1].screen.areas[0].type") == "PREFERENCES"
    window.screenshot(PICTURES / "preferences.png")
    window.tell("second = bpy.context.window_manager.windows[1]\n"
                "with bpy.context.temp_override(window=second): bpy.ops.wm.window_close()")
    window.wait_until("len(bpy.context.window_manager.windows) == 1")


def test_quitting_in_the_middle_of_a_run_leaves_nothing_behind(window: Desktop):
    window.press("lsf.animate")
    window.wait_until("addon('job').busy()")
    pid, folder = window.tell("value = [addon('engine').running().pid, str(addon('job').current._folder)]")
    inside = window.debian / folder.lstrip("/")
    assert inside.is_dir()
    window.quit()
    assert not inside.exists()
    assert subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode != 0
    assert "Traceback" not in window.log()
