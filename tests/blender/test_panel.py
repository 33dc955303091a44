"""What the panel shows, drawn into a layout that only takes notes: there is no window here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bpy
import pytest
from conftest import add_strip

from blender_addon import (
    fbx,
    job,
    operators,
    panel,
    panel_edits,
    panel_emotion,
    panel_engine,
    panel_face,
    panel_lines,
    panel_takes,
    preferences,
)
from blender_addon.shared import arkit
from blender_addon.shared import edits as core


class Notes:
    """Stands in for a UILayout: every call is noted, sub-layouts note into the same list."""

    def __init__(self, calls: list[tuple[str, Any]] | None = None) -> None:
        self.__dict__["calls"] = [] if calls is None else calls

    def __setattr__(self, name: str, value: Any) -> None:
        self.calls.append((name, value))

    def row(self, **_: Any) -> Notes:
        return Notes(self.calls)

    column = box = row

    def template_list(self, kind: str, _: str, data: Any, items: str, active_data: Any, active: str, **__: Any) -> None:
        assert hasattr(bpy.types, kind)
        assert hasattr(data, items)
        assert isinstance(getattr(active_data, active), int)
        self.calls.append(("list", kind))

    def menu(self, name: str, **_: Any) -> None:
        assert hasattr(bpy.types, name)
        self.calls.append(("menu", name))

    def label(self, text: str = "", icon: str = "NONE") -> None:
        assert icon in bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items
        self.calls.append(("label", text))

    def prop(self, data: Any, name: str, **_: Any) -> None:
        assert name in data.bl_rna.properties
        self.calls.append(("prop", name))

    def prop_search(self, data: Any, name: str, searched: Any, items: str, **_: Any) -> None:
        assert items in searched.bl_rna.properties
        self.prop(data, name)

    def operator(self, name: str, **_: Any) -> SimpleNamespace:
        group, _, verb = name.partition(".")
        getattr(getattr(bpy.ops, group), verb).get_rna_type()
        self.calls.append(("operator", name))
        return SimpleNamespace()

    def progress(self, factor: float, text: str) -> None:
        self.calls.append(("progress", (factor, text)))

    def separator(self, **_: Any) -> None:
        pass

    def of(self, kind: str) -> list[Any]:
        return [value for name, value in self.calls if name == kind]

    @property
    def text(self) -> str:
        return " ".join(self.of("label"))


SECTIONS = (*panel.CLASSES, *panel_emotion.CLASSES, *panel_face.CLASSES, *panel_takes.CLASSES, *panel_edits.CLASSES,
            *panel_lines.PANELS, *panel_engine.CLASSES)


def drawn(space: str = "VIEW_3D") -> Notes:
    """Every section of the panel in one editor's sidebar, open."""
    notes = Notes()

    class Stand:
        layout = notes

    for cls in SECTIONS:
        if cls.bl_space_type == space:
            cls.draw(Stand(), bpy.context)
    return notes


@pytest.mark.parametrize("space", panel.SIDEBARS)
def test_the_controls_are_there_in_both_editors(scene, space):
    notes = drawn(space)
    assert {"target", "strip_name", "audio_path", "emotion_strength", "seed"} <= set(notes.of("prop"))
    assert {"lsf.animate", "lsf.export_fbx", "lsf.animate_lines", "lsf.compare_takes"} <= set(notes.of("operator"))
    assert notes.of("list") == ["LSF_UL_takes", "LSF_UL_lines"]
    assert notes.of("menu") == ["LSF_MT_take", "LSF_MT_presets"]
    assert all(cls.is_registered and cls.bl_region_type == "UI" for cls in SECTIONS)


def test_every_strength_of_the_core_has_its_slider_and_its_place():
    placed = [name for group in panel_edits.GROUPS.values() for name in group]
    sliders = bpy.context.window_manager.lsf_edits.bl_rna.properties
    assert sorted(placed) == sorted(core.STRENGTHS) == sorted({*core.STRENGTHS} & {*sliders.keys()})
    assert {*arkit.EMOTIONS} <= {*bpy.context.scene.lsf.feeling.bl_rna.properties.keys()}


def test_it_says_why_animate_is_grey(scene, head):
    scene.lsf.target = None
    assert "No mesh is chosen." in drawn().text
    scene.lsf.target = head
    assert "No speech is chosen." in drawn().text
    scene.lsf.strip_name = "ghost"
    assert "There is no sound strip 'ghost'" in drawn().text


def test_it_says_that_no_engine_is_set_up(ball_scene, monkeypatch):
    monkeypatch.setenv("LSF_ENGINE_PYTHON", "/no/such/python")
    assert "does not exist: '/no/such/python'" in operators.disabled_reason(bpy.context)
    assert "/no/such/python" in drawn().text


def test_nothing_speaks_against_a_scene_that_is_ready(ball_scene):
    assert operators.disabled_reason(bpy.context) is None
    assert "chosen" not in drawn().text
    assert ("start_frame" in drawn().of("prop")) == (not ball_scene.lsf.strip_name)


def test_every_reason_for_grey_is_the_tooltip_too(scene, monkeypatch):
    """`poll` refuses with `disabled_reason` in a window; in scripts it lets execute tell it."""
    said = []
    monkeypatch.setattr(operators.bpy, "app", type("App", (), {"background": False}))
    for cls, reason in ((operators.LSF_OT_animate, operators.disabled_reason), (fbx.LSF_OT_export_fbx, fbx.refusal)):
        monkeypatch.setattr(cls, "poll_message_set", said.append, raising=False)
        assert not cls.poll(bpy.context)
        assert said[-1] == reason(bpy.context)


def test_progress_and_cancel_take_the_place_of_animate(ball_scene, fake_engine):
    fake_engine("slow")
    work = job.current = job.Job(bpy.context, "unused")
    try:
        work.fraction, work.text = 0.42, "Listening"
        notes = drawn()
        assert notes.of("progress") == [(0.42, "Listening (42%)")]
        assert "lsf.cancel" in notes.of("operator")
        assert "lsf.animate" not in notes.of("operator")
        assert ("enabled", False) in notes.calls
    finally:
        work.abandon()
        job.current = None


def test_the_outcome_is_shown(ball_scene, ball, fake_engine):
    fake_engine()
    bpy.ops.lsf.animate()
    text = drawn().text
    assert "'speech', frames 1 to 50" in text
    assert "Seed 0" in text
    assert "frames 1 to 50, 4 shape keys (4" in text
    assert "A warning of the rig." in text
    assert "no take yet" not in text


def test_a_failure_is_shown_with_its_report(ball_scene, fake_engine):
    fake_engine("bug")
    with pytest.raises(RuntimeError):
        bpy.ops.lsf.animate()
    notes = drawn()
    assert "The fake is broken." in notes.text
    assert "lsf.copy_report" in notes.of("operator")


def test_long_messages_are_wrapped_to_the_sidebar(scene):
    notes = Notes()
    panel.draw_message(notes, "word " * 60, "ERROR")
    assert len(notes.of("label")) > 5
    assert max(len(line) for line in notes.of("label")) <= panel.WRAP


def test_the_width_of_a_line_follows_the_sidebar():
    def chars(width: int, scale: float) -> int:
        system = SimpleNamespace(ui_scale=scale)
        region = SimpleNamespace(width=width)
        return panel.wrap_width(SimpleNamespace(region=region, preferences=SimpleNamespace(system=system)))

    assert chars(280, 1.0) < chars(500, 1.0)
    assert chars(560, 2.0) == chars(280, 1.0)
    assert chars(30, 1.0) == 20
    assert 25 <= chars(280, 1.0) <= 36, "what the usual sidebar shows"


def test_strips_can_be_searched_by_name(scene, hum):
    from blender_addon.properties import _strip_names

    for name in ("Anna 1", "Anna 2", "Bert"):
        add_strip(scene, hum, name=name)
    assert _strip_names(scene.lsf, bpy.context, "anna") == ["Anna 1", "Anna 2"]


def test_the_preferences_say_where_the_engine_runs(scene, monkeypatch, tmp_path):
    notes = Notes()

    class Stand(dict):
        layout = notes
        bl_rna = preferences.LSFPreferences.bl_rna

    monkeypatch.setenv("LSF_ENGINE_PYTHON", __file__)
    preferences.LSFPreferences.draw(Stand(), bpy.context)
    assert f"The engine runs in {__file__}" in notes.text
    monkeypatch.setenv("LSF_ENGINE_PYTHON", "/no/such")
    preferences.LSFPreferences.draw(Stand(), bpy.context)
    assert "does not exist: '/no/such'" in notes.text
