"""The operator as a button: it returns at once, works on a timer, and lets every other event through.

Blender runs no modal operators without a window, so its methods are called as a window would call them, on an object
that stands in for the operator, with a window manager that only takes notes.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import bpy
import pytest

from blender_addon import job, keys, operators

METHODS = ("orders", "task", "execute", "invoke", "modal", "cancel", "_begin", "_finish", "_set_timer", "_remove_timer")


class Manager:
    """Notes what a window manager is asked for."""

    def __init__(self) -> None:
        self.timers: list[object] = []
        self.handlers: list[object] = []
        self.windows: list[object] = []

    def event_timer_add(self, step: float, window: Any) -> object:
        self.timers.append(object())
        return self.timers[-1]

    def event_timer_remove(self, timer: object) -> None:
        self.timers.remove(timer)

    def modal_handler_add(self, operator: object) -> None:
        self.handlers.append(operator)


@pytest.fixture
def window(ball_scene, monkeypatch):
    """(operator, context) as a window would have them."""
    monkeypatch.setattr(operators, "bpy", SimpleNamespace(app=SimpleNamespace(background=False)))
    real = {**vars(operators.RunsTask), **vars(operators.LSF_OT_animate)}
    told: list[tuple[str, str]] = []
    methods = {name: real[name] for name in METHODS}
    state = {"_timer": None, "_interval": 0.0, "_told": None,
             "report": lambda _, kind, text: told.append((*kind, text))}
    stand = type("Stand", (), {**methods, **state})()
    stand.told = told
    preferences = bpy.context.preferences
    context = SimpleNamespace(scene=ball_scene, window=None, window_manager=Manager(), preferences=preferences)
    yield stand, context
    if job.current is not None:
        job.current.abandon()
        job.current = None


def tick(stand: Any, context: Any, within: float = 20.0) -> set[str]:
    """Timer events until the operator ends."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        answer = stand.modal(context, SimpleNamespace(type="TIMER"))
        if answer != {"PASS_THROUGH"}:
            return answer
        time.sleep(0.01)
    raise AssertionError("it never ended")


def test_it_returns_at_once_and_finishes_on_the_timer(window, ball, fake_engine):
    fake_engine("chatty")
    stand, context = window
    start = time.monotonic()
    assert stand.invoke(context, None) == {"RUNNING_MODAL"}
    assert time.monotonic() - start < 0.5
    assert len(context.window_manager.timers) == 1
    assert context.window_manager.handlers == [stand]
    assert tick(stand, context) == {"FINISHED"}
    assert context.window_manager.timers == []
    assert keys.active_take(ball) is not None
    assert [kind for kind, _ in stand.told] == ["WARNING", "INFO"]


def test_other_events_pass_through(window, fake_engine):
    fake_engine("slow")
    stand, context = window
    stand.invoke(context, None)
    for kind in ("MOUSEMOVE", "LEFTMOUSE", "ESC", "SPACE"):
        assert stand.modal(context, SimpleNamespace(type=kind)) == {"PASS_THROUGH"}
    assert job.busy()


def test_the_cancel_button_ends_it_without_an_error(window, ball, fake_engine):
    fake_engine("slow")
    stand, context = window
    stand.invoke(context, None)
    while "Half" not in job.current.text:
        stand.modal(context, SimpleNamespace(type="TIMER"))
    job.current.cancel()
    assert tick(stand, context) == {"CANCELLED"}
    assert stand.told == [("INFO", "Cancelled. Nothing was changed.")]
    assert context.window_manager.timers == []
    assert ball.data.shape_keys is None


def test_a_failure_is_reported_and_kept(window, fake_engine):
    fake_engine("user error")
    stand, context = window
    stand.invoke(context, None)
    assert tick(stand, context) == {"CANCELLED"}
    assert stand.told == [("ERROR", "The fake refuses this.")]
    assert context.scene.lsf.error == "The fake refuses this."


def test_opening_another_file_drops_the_job_and_the_engine(window, fake_engine):
    process = fake_engine("slow")
    stand, context = window
    stand.invoke(context, None)
    folder = job.current._folder
    stand.cancel(context)
    assert context.window_manager.timers == []
    assert not job.busy()
    assert not process.alive
    assert not folder.exists()


def test_a_second_press_is_refused(window, fake_engine):
    fake_engine("slow")
    stand, context = window
    stand.invoke(context, None)
    first = job.current
    assert stand.invoke(context, None) == {"CANCELLED"}
    assert job.current is first
    assert "Wait for it or cancel it" in stand.told[0][1]
