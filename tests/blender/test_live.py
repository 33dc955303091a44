"""Live preview: a strip drives the shape keys by their values, and everything is as it was at its end; no key."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy
import numpy as np
import pytest
from conftest import SPEECH, add_strip, error_of, evaluated

from blender_addon import engine, job, keys, live, live_preview, mapper, puppet, strips
from blender_addon.shared import arkit, protocol

NAMES = arkit.ARKIT_NAMES
JAW = NAMES.index("jawOpen")


class FakeEngine:
    """Answers stream requests at once: frame n of a stream has a jawOpen that tells its place on the timeline."""

    def __init__(self) -> None:
        self.alive, self.versions, self.hello = True, {"protocol": 1}, 0
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.events: list[protocol.Event] = []
        self.given, self.microphone, self.fails = 0, 0, ""
        self.start: dict[str, Any] = {}

    def ask(self, method: str, **params: Any) -> int:
        self.asked.append((method, params))
        number = len(self.asked)
        if self.fails == method:
            self.events.append(protocol.Event(number, protocol.ERROR, kind="user", message="The fake refuses this."))
        elif method == "listen":
            self.events.append(protocol.Event(number, protocol.RESULT, data={"seconds": 2.0}))
        elif method == "stream_start":
            self.start, self.given = params, 0
            name = "Fake Mic" if "microphone" in params else None
            self.events.append(protocol.Event(number, protocol.RESULT, data={"microphone": name}))
        elif method == "stream_end":
            self.events.append(protocol.Event(number, protocol.RESULT, data={}))
        elif method == "stream_chunk":
            self.events.append(protocol.Event(number, protocol.RESULT, data=self._chunk(params)))
        return number

    def _chunk(self, params: dict[str, Any]) -> dict[str, Any]:
        fps, mic = self.start["fps"], "microphone" in self.start
        total = 10**6 if mic else round(self.start["duration"] * fps)
        count = self.microphone if mic else min(round(params["seconds"] * fps), total - self.given)
        first, self.given = self.given, self.given + count
        weights = np.zeros((count, len(NAMES)), np.float32)
        weights[:, JAW] = value(np.arange(first, first + count) + (0 if mic else round(self.start["offset"] * fps)))
        if count:
            np.save(Path(params["folder"]) / "frames.npy", weights)
        return {"weights": "frames.npy" if count else None, "first": first, "frames": count, "heard": 0.0,
                "ended": self.given >= total, "level": -20.0}

    def poll(self) -> list[protocol.Event]:
        events, self.events = self.events, []
        return events

    def methods(self) -> list[str]:
        return [method for method, _ in self.asked]


@pytest.fixture
def played(monkeypatch):
    """The timeline plays: without a window it never does."""
    monkeypatch.setattr(live, "playing", lambda: True)


def value(frame: Any) -> Any:
    """The jawOpen of the fake at a frame of the strip."""
    return 0.1 + (np.asarray(frame) % 80) / 100


@pytest.fixture
def fake(monkeypatch):
    made = FakeEngine()
    monkeypatch.setattr(engine, "start", lambda python, device="auto": made)
    yield made
    live._stop()
    live.current = None


@pytest.fixture
def face(ball_scene, ball):
    """A ball with keys of ARKit's names, of which jawOpen is animated and browInnerUp set by hand."""
    for name in ("Basis", "jawOpen", "browInnerUp", "mouthSmileLeft", "Artist"):
        block = ball.shape_key_add(name=name, from_mix=False)
        block.value = 0.0
        if name == "jawOpen":
            points = np.empty(len(block.data) * 3, np.float32)
            block.data.foreach_get("co", points)
            block.data.foreach_set("co", points + 1.0)
    blocks = ball.data.shape_keys.key_blocks
    blocks["browInnerUp"].value, blocks["Artist"].value = 0.25, 0.5
    for frame, level in ((1, 0.0), (50, 0.7)):
        blocks["jawOpen"].value = level
        blocks["jawOpen"].keyframe_insert("value", frame=frame)
    # In the build without strips (4.2) the sound file is what the preview hears; both begin on frame 1.
    assert ball_scene.lsf.strip_name or ball_scene.lsf.audio_path
    ball_scene.frame_set(10)
    return ball


def values(target: bpy.types.Object) -> dict[str, float]:
    return {block.name: block.value for block in target.data.shape_keys.key_blocks}


def begin(times: int = 10) -> live.Preview:
    assert bpy.ops.lsf.live_preview() == {"FINISHED"}
    made = live.running()
    assert made is not None
    for _ in range(times):
        made.poll()
    return made


def untouched(target: bpy.types.Object) -> dict[str, Any]:
    """All that a preview must not change."""
    key = target.data.shape_keys
    points = [tuple(point.co) for curve in key.animation_data.action.fcurves for point in curve.keyframe_points] \
        if hasattr(key.animation_data.action, "fcurves") else []
    return {"actions": [(a.name, a.users, len(a.keys())) for a in bpy.data.actions], "points": points,
            "action": key.animation_data.action.name, "values": values(target), "properties": sorted(key.keys()),
            "mutes": [b.mute for b in key.key_blocks],
            "objects": sorted(bpy.data.objects.keys()), "meshes": sorted(bpy.data.meshes.keys())}


# ---------------------------------------------------------------- a strip
def test_the_timeline_drives_the_keys_and_stop_restores_all(face, fake, played):
    scene, before = bpy.context.scene, untouched(face)
    preview = begin()
    assert values(face)["jawOpen"] == pytest.approx(value(9)), "frame 10 is frame 9 of the strip"
    for frame in (11, 12, 30, 50):
        scene.frame_set(frame)
        assert values(face)["jawOpen"] == pytest.approx(value(frame - 1))
        assert values(face)["browInnerUp"] == 0.0
        assert values(face)["Artist"] == 0.5, "a key that stands for nothing is left alone"
        preview.poll()
    assert bpy.ops.lsf.live_preview() == {"FINISHED"}
    assert live.running() is None
    scene.frame_set(10)
    assert untouched(face) == before
    scene.frame_set(50)
    assert values(face)["jawOpen"] == pytest.approx(0.7), "the artist's animation plays again"
    assert fake.methods()[-1] == "stream_end"
    assert not preview._folder.exists()


def test_the_viewport_sees_it_over_the_animation(face, fake, played):
    begin()
    seen = evaluated(face, 30)
    rest = np.empty_like(seen).ravel()
    face.data.shape_keys.reference_key.data.foreach_get("co", rest)
    np.testing.assert_allclose(seen - rest.reshape(-1, 3), value(29), atol=1e-4)


def test_exporters_see_the_animation_and_a_rendering_ends_it(face, fake):
    scene = bpy.context.scene
    preview = begin()
    assert values(face)["jawOpen"] == pytest.approx(value(9))
    scene.frame_set(50)  # as an exporter does it
    assert values(face)["jawOpen"] == pytest.approx(0.7)
    preview.poll()
    assert values(face)["jawOpen"] == pytest.approx(value(49)), "and the window's timer shows the preview again"
    for handler in bpy.app.handlers.render_init:
        handler(scene)
    assert preview.state == "STOPPED"


def test_outside_of_the_strip_the_face_rests(face, fake):
    scene = bpy.context.scene
    preview = begin()
    for frame in (0, 51, 90):
        scene.frame_set(frame)
        preview.poll()
        assert values(face)["jawOpen"] == 0.0


def test_frames_are_asked_for_ahead_of_the_playhead_and_again_where_it_jumps(face, fake, monkeypatch):
    monkeypatch.setattr(live_preview, "AHEAD_SECONDS", 0.2)
    monkeypatch.setattr(live_preview, "LEAD_SECONDS", 0.2)
    monkeypatch.setattr(live_preview, "CHUNK_SECONDS", 0.2)
    scene = bpy.context.scene
    scene.frame_set(1)
    preview = begin(20)
    assert 5 < preview._next <= 11, "no more than is needed soon"
    scene.frame_set(40)
    for _ in range(10):
        preview.poll()
    assert fake.start["offset"] == pytest.approx((39 - 5) / 25), "it begins a little before"
    assert values(face)["jawOpen"] == pytest.approx(value(39))
    chunks = len(fake.asked)
    scene.frame_set(3)
    preview.poll()
    assert values(face)["jawOpen"] == pytest.approx(value(2)), "what was made is kept"
    scene.frame_set(40)
    for _ in range(5):
        preview.poll()
    assert len(fake.asked) - chunks <= 2


def test_solved_visemes_of_the_active_take_are_driven(face, fake, monkeypatch):
    drive = mapper.Drive({"Artist": "jawOpen"})
    monkeypatch.setattr(keys, "active_take", lambda target: "a take")
    monkeypatch.setattr(mapper, "drive_of", lambda take: drive)
    begin()
    assert values(face)["Artist"] == pytest.approx(value(9))


def test_parts_move_with_the_head(face, fake):
    other = face.copy()
    other.data = face.data.copy()
    other.data.shape_keys.animation_data_clear()
    bpy.context.scene.collection.objects.link(other)
    face.lsf_parts.add().object = other
    before = values(other)
    begin()
    assert values(other)["jawOpen"] == pytest.approx(value(9))
    live._stop()
    assert values(other) == before


def test_the_engine_is_heard_out_after_the_end(face, fake, monkeypatch):
    """Or it would seem to be at work for ever, and be ended for its silence."""
    preview = begin()
    monkeypatch.setattr(live, "running", lambda: preview if preview.state == "RUNNING" else None)
    assert live._tick() == pytest.approx(0.04)
    live._stop()
    kept, fake.events = fake.events, []
    assert live._tick() == 0.1
    fake.events = kept
    assert live._tick() is None
    assert "cancel" not in fake.methods()


# ---------------------------------------------------------------- nothing may stay
def test_saving_finds_everything_as_it_was(face, fake, tmp_path):
    preview = begin()
    hand = 0.25
    path = tmp_path / "saved.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True)
    assert live.running() is preview, "and the preview goes on"
    preview.poll()
    assert values(face)["jawOpen"] == pytest.approx(value(9))
    with bpy.data.libraries.load(str(path)) as (there, wanted):
        wanted.objects = [name for name in there.objects if name == face.name]
    saved = wanted.objects[0].data.shape_keys
    assert saved.key_blocks["browInnerUp"].value == hand
    assert puppet.TAG not in saved


def test_another_file_ends_it(face, fake):
    preview = begin()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    assert preview.state == "STOPPED"
    assert live.running() is None


def test_an_undo_ends_it_and_brings_back_no_previewed_face(face, fake):
    bpy.context.preferences.edit.use_global_undo = True
    bpy.ops.ed.undo_push(message="before")
    begin()
    bpy.ops.ed.undo_push(message="a step while the preview runs")
    live._stop()
    bpy.context.object.location.x = 3
    bpy.ops.ed.undo_push(message="after")
    bpy.ops.ed.undo()
    key = bpy.data.objects["Ball"].data.shape_keys
    assert puppet.TAG not in key
    assert key.key_blocks["browInnerUp"].value == 0.25
    assert live.running() is None


def test_what_a_crash_left_behind_is_mended(face, fake, tmp_path):
    begin()
    path = tmp_path / "autosave.blend"
    for name in ("save_pre", "save_post"):  # an autosave calls no handlers
        handlers = getattr(bpy.app.handlers, name)
        handlers[:] = [h for h in handlers if h not in (live._before_save, live._after_save)]
    try:
        bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True)
    finally:
        bpy.app.handlers.save_pre.append(live._before_save)
        bpy.app.handlers.save_post.append(live._after_save)
    live._stop()
    bpy.ops.wm.open_mainfile(filepath=str(path))
    key = bpy.data.objects["Ball"].data.shape_keys
    assert puppet.TAG not in key
    assert key.key_blocks["browInnerUp"].value == 0.25


def test_a_spoilt_note_of_the_values_is_dropped(face):
    face.data.shape_keys[puppet.TAG] = "spoilt"
    assert puppet.mend()
    assert puppet.TAG not in face.data.shape_keys
    face.data.shape_keys[puppet.TAG] = json.dumps([["gone", 1.0], ["browInnerUp", 0.75]])
    puppet.mend()
    assert values(face)["browInnerUp"] == 0.75
    assert not puppet.mend()


# ---------------------------------------------------------------- what the artist does meanwhile
def test_a_mesh_that_gets_the_name_of_one_that_is_gone_is_left_alone(face, fake):
    preview, name = begin(), face.data.shape_keys.name
    face.shape_key_clear()
    for key in ("Basis", "jawOpen"):
        face.shape_key_add(name=key, from_mix=False).value = 0.25
    face.data.shape_keys.name = name
    assert preview.poll()
    assert "removed or renamed" in preview.error
    assert values(face)["jawOpen"] == 0.25


def test_another_frame_rate_ends_it(face, fake):
    preview = begin()
    bpy.context.scene.render.fps += 5
    assert preview.poll()
    assert "frame rate was changed" in preview.error
    assert values(face)["browInnerUp"] == 0.25


def test_a_removed_mesh_ends_it(face, fake):
    preview = begin()
    bpy.data.meshes.remove(face.data)
    assert preview.poll()
    assert "removed or renamed" in preview.error


def test_renamed_shape_keys_and_objects_get_their_values_back(face, fake):
    begin()
    blocks = face.data.shape_keys.key_blocks
    face.name = face.data.name = "Other"
    blocks["browInnerUp"].name = "Brow"
    live._stop()
    assert blocks["Brow"].value == 0.25
    face.data.shape_keys.animation_data_clear()
    begin()
    face.data.shape_keys.name = "Renamed"
    live.running().poll()
    assert live.running() is None
    assert values(face)["jawOpen"] != pytest.approx(value(9))
    assert puppet.TAG not in face.data.shape_keys


def test_a_removed_shape_key_moves_no_value_to_its_neighbour(face, fake):
    begin()
    blocks = face.data.shape_keys.key_blocks
    face.shape_key_remove(blocks["mouthSmileLeft"])
    live._stop()
    assert (blocks["browInnerUp"].value, blocks["Artist"].value) == (0.25, 0.5)


def test_an_export_of_ours_ends_it_first(face, fake, tmp_path):
    keys.write_take(face, "take", ["jawOpen"], np.linspace(0, 1, 50, dtype=np.float32)[:, None], 1, {"number": 1})
    begin()
    seen = set()

    def note(*_: Any) -> None:
        seen.add(values(face)["browInnerUp"])

    bpy.app.handlers.frame_change_post.append(note)
    try:
        assert bpy.ops.lsf.export_fbx(filepath=str(tmp_path / "take.fbx")) == {"FINISHED"}
    finally:
        bpy.app.handlers.frame_change_post.remove(note)
    assert seen == {0.25}
    assert live.running() is None


def test_a_copy_made_meanwhile_is_not_left_as_the_preview_has_it(face, fake):
    begin()
    copy = face.copy()
    copy.data = face.data.copy()
    live._stop()
    assert puppet.TAG not in copy.data.shape_keys
    assert values(copy)["browInnerUp"] == 0.25


def test_an_engine_that_is_stopped_between_two_requests_ends_it(face, fake):
    before, preview = untouched(face), begin(20)
    assert preview._request is None, "enough frames are ready"
    fake.alive = False
    assert preview.poll()
    assert "engine was stopped" in preview.error
    assert untouched(face) == before


def test_a_defect_is_told_and_puts_everything_back(face, fake, monkeypatch):
    before, preview = untouched(face), begin()

    def broken(scene: Any) -> None:
        raise KeyError("first")

    monkeypatch.setattr(preview, "show", broken)
    assert preview.poll()
    assert "report it" in preview.error
    assert untouched(face) == before


def test_a_start_that_fails_leaves_nothing(face, fake, monkeypatch, tmp_path):
    before, there = untouched(face), set(tmp_path.iterdir())
    monkeypatch.setattr(live_preview.tempfile, "tempdir", str(tmp_path))

    def broken(*_: Any) -> None:
        raise live_preview.Problem("No such drive.")

    monkeypatch.setattr(live_preview.mesh_io, "hindrances", broken)
    assert "No such drive" in error_of(bpy.ops.lsf.live_preview)
    assert untouched(face) == before
    assert set(tmp_path.iterdir()) == there
    assert live.running() is None


def test_switching_the_add_on_off_ends_it_with_its_timer(face, fake):
    before, preview = untouched(face), begin()
    bpy.app.timers.register(live._tick, first_interval=60)
    live.unregister()
    try:
        assert preview.state == "STOPPED"
        assert untouched(face) == before
        assert not bpy.app.timers.is_registered(live._tick)
        assert all(handler not in getattr(bpy.app.handlers, name) for name, handler in live.HANDLERS)
    finally:
        live.register()


# ---------------------------------------------------------------- microphone
def test_a_microphone_is_shown_as_it_comes(face, fake):
    bpy.context.window_manager.lsf_live.source = live.MICROPHONE
    try:
        preview = begin(2)
        fake.microphone = 2
        seen = []
        for _ in range(12):
            preview.poll()
            seen.append(round(values(face)["jawOpen"], 3))
        assert preview.text == "Hearing Fake Mic"
        assert preview.level == -20.0
        assert len(preview._waiting) <= live_preview.BACKLOG
        assert seen[-1] > seen[0], "it goes on without the timeline"
        fake.microphone = 50
        preview.poll()
        preview.poll()
        assert len(preview._waiting) <= live_preview.BACKLOG, "what comes too late is left out"
        assert fake.start["look_ahead"] == pytest.approx(0.16)
    finally:
        bpy.context.window_manager.lsf_live.source = live.STRIP


# ---------------------------------------------------------------- errors
def test_a_whole_file_is_measured_first(face, fake, hum):
    scene = bpy.context.scene
    scene.lsf.strip_name, scene.lsf.audio_path, scene.lsf.start_frame = "", str(hum), 6.0
    begin()
    assert fake.methods()[:2] == ["listen", "stream_start"]
    assert values(face)["jawOpen"] == pytest.approx(value(4)), "frame 10 of a sound that begins on 6"
    scene.frame_set(60)
    live.current.poll()
    assert values(face)["jawOpen"] == 0.0, "it has ended"


@pytest.mark.parametrize("method", ["stream_start", "stream_chunk"])
def test_what_the_engine_refuses_is_told_and_nothing_stays(face, fake, method):
    before, fake.fails = untouched(face), method
    bpy.ops.lsf.live_preview()
    preview = live.current
    for _ in range(5):
        preview.poll()
    assert (preview.state, preview.error) == ("FAILED", "The fake refuses this.")
    assert untouched(face) == before


def test_frames_that_are_none_end_it(face, fake, monkeypatch):
    monkeypatch.setattr(fake, "_chunk", lambda params: {"weights": "gone.npy", "first": 0, "ended": False})
    bpy.ops.lsf.live_preview()
    for _ in range(5):
        live.current.poll()
    assert "cannot be read" in live.current.error


def test_a_job_ends_it(face, fake, monkeypatch):
    before = untouched(face)
    preview = begin()
    monkeypatch.setattr(job, "current", SimpleNamespace(state="DONE"))
    preview.poll()
    assert "as a take was made" in preview.error
    assert untouched(face) == before


def test_it_says_why_it_cannot_be_started(face, fake, monkeypatch):
    scene, context = bpy.context.scene, bpy.context
    assert live.refusal(context) is None
    monkeypatch.setattr(job, "current", SimpleNamespace(state="RUNNING"))
    assert live.refusal(context) == job.BUSY
    monkeypatch.undo()
    scene.lsf.strip_name = "none such"
    assert "no sound strip 'none such'" in live.refusal(context)
    context.window_manager.lsf_live.source = live.MICROPHONE
    scene.lsf.target.shape_key_clear()
    assert "has no shape keys that a preview could move" in live.refusal(context)
    assert "Press Animate once" in error_of(bpy.ops.lsf.live_preview)
    scene.lsf.target = None
    assert "No mesh is chosen" in live.refusal(context)
    context.window_manager.lsf_live.source = live.STRIP


# ---------------------------------------------------------------- the engine itself
def test_a_real_strip_moves_a_real_face(real_engine, head, scene):
    """The demo's head after a take: the preview speaks as the take does, and leaves the take as it is."""
    if not bpy.app.build_options.audaspace:
        scene.lsf.audio_path = str(SPEECH)
    else:
        add_strip(scene, SPEECH)
    scene.frame_end = 60
    scene.lsf.frame_range_only = True
    bpy.ops.lsf.animate()
    take = keys.active_take(head)
    scene.frame_set(40)
    before, offline = values(head), {}
    for frame in range(20, 60):
        scene.frame_set(frame)
        offline[frame] = values(head)["jawOpen"]
    written = {action.name: action.users for action in bpy.data.actions}
    scene.frame_set(20)
    assert bpy.ops.lsf.live_preview() == {"FINISHED"}
    preview, end = live.current, time.monotonic() + 120
    while preview.poll() is False and 62 - preview._speech.start_frame not in preview._made:
        assert time.monotonic() < end, preview.text
        time.sleep(0.02)
    assert preview.state == "RUNNING", preview.error
    shown = {}
    for frame in range(20, 60):
        scene.frame_set(frame)
        preview.poll()
        shown[frame] = values(head)["jawOpen"]
    there, wanted = np.array(list(shown.values())), np.array(list(offline.values()))
    alike = {late: np.corrcoef(there[4 + late : 36 + late], wanted[4:36])[0, 1] for late in range(-4, 5)}
    assert max(alike, key=alike.__getitem__) == 0, "every frame is shown where it is spoken"
    assert alike[0] > 0.9
    bpy.ops.lsf.live_preview()
    scene.frame_set(40)
    assert values(head) == before
    assert keys.active_take(head) == take
    assert {action.name: action.users for action in bpy.data.actions} == written
    live.current = None


def test_without_a_microphone_the_engine_says_what_is_missing(real_engine, face, monkeypatch):
    monkeypatch.setattr(engine, "start", lambda python, device="auto": real_engine)
    bpy.context.window_manager.lsf_live.source = live.MICROPHONE
    try:
        bpy.ops.lsf.live_preview()
        preview, end = live.current, time.monotonic() + 60
        while not preview.poll() and time.monotonic() < end:
            time.sleep(0.02)
        assert preview.state == "FAILED"
        words = ("sounddevice", "PortAudio", "Connect a microphone")
        assert any(word in preview.error for word in words), preview.error
    finally:
        bpy.context.window_manager.lsf_live.source = live.STRIP
        live.current = None


def test_the_engine_removes_the_folder_of_a_stream_where_blender_dies(tmp_path):
    import subprocess

    folder = tmp_path / "lsf-stream"
    folder.mkdir()
    (folder / "faces.npy").touch()
    process = subprocess.Popen(engine.worker_command(engine.find_python()), env=engine.worker_environment(),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin
    assert process.stdout
    process.stdin.write(protocol.encode(protocol.Request(1, "stream_start", {
        "folder": str(folder), "audio": str(SPEECH), "offset": 0.0, "duration": 1.0, "fps": 25.0, "look_ahead": 0.16,
        "seed": 0, "edits": True, "emotion_strength": 1.0})))
    process.stdin.flush()
    for line in process.stdout:
        event = protocol.decode_event(line)
        if event.event != protocol.PROGRESS:
            break
    assert event.event == protocol.RESULT, event.message
    assert folder.exists()
    process.stdin.close()
    process.wait(20)
    process.stdout.close()
    assert not folder.exists()


def test_the_stretch_is_told_as_jobs_tell_it(ball_scene, tmp_path):
    speech = strips.speech_of(bpy.context, ball_scene, tmp_path)
    assert set(speech.told) == {"audio", "audio_name", "offset", "duration", "content_seconds"}
