"""What buttons share: they are grey with a reason, and what goes wrong is told as the panel tells it."""

from __future__ import annotations

from typing import Any

import bpy

from .report import Problem


class Refusing:
    """An operator that is grey where `refusal` says why; None where it can be pressed."""

    poll_message_set: Any  # set by Blender
    report: Any

    @classmethod
    def refusal(cls, context: bpy.types.Context) -> str | None:
        raise NotImplementedError

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        # A script gets the bare reason from execute, instead of Blender's words for a poll that failed.
        reason = None if bpy.app.background else cls.refusal(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason


class Button(Refusing):
    """One that is done at once: `work` on what `subject` gives, and tells what was done, if that is worth a line."""

    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012 (Blender's way to say it)

    def subject(self, context: bpy.types.Context) -> tuple[Any, ...]:
        """The arguments of `work`; asked for where nothing is refused."""
        raise NotImplementedError

    def work(self, *args: Any, **kwargs: Any) -> str | None:
        """Raises Problem."""
        raise NotImplementedError

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            reason = self.refusal(context)
            if reason:
                raise Problem(reason)
            told = self.work(*self.subject(context))
        except Problem as problem:
            self.failed(context, problem)
            return {"CANCELLED"}
        if told:
            self.report({"INFO"}, told)
        return {"FINISHED"}

    def failed(self, context: bpy.types.Context, problem: Problem) -> None:
        self.report({"ERROR"}, str(problem))
