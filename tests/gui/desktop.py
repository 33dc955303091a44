"""A virtual screen with Blender in full size on it, and hands to use it: mouse, keys, screenshots, questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIZE = (1280, 1000)


class Desktop:
    """Xvfb and one Blender, both in the chroot `debian`; `home` holds Blender's user folder and the mailbox."""

    def __init__(self, debian: Path, home: Path) -> None:
        self.debian, self.home = debian, home
        self._asked = 0
        read, write = os.pipe()
        command = ["chroot", str(debian), "Xvfb", "-displayfd", str(write), "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24",
                   "-nolisten", "tcp", "-noreset"]
        with open(home / "xvfb.log", "w") as log:
            self._screen = subprocess.Popen(command, pass_fds=[write], stdout=log, stderr=log)
        os.close(write)
        with os.fdopen(read) as pipe:
            self.display = ":" + pipe.readline().strip()
        self._blender: subprocess.Popen[bytes] | None = None

    # -- programs in the chroot -------------------------------------------------------------------------------------
    def _variables(self) -> dict[str, str]:
        return {"HOME": str(self.home), "BLENDER_USER_RESOURCES": str(self.home / "user"), "DISPLAY": self.display,
                "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "LIBGL_ALWAYS_SOFTWARE": "1",
                "OMP_NUM_THREADS": "1"}

    def blender_command(self, *arguments: str) -> list[str]:
        """Blender in a mount namespace of its own, in which the checkout, `home` and this Python lie where they do
        outside: the engine of the checkout's .venv runs in there. Nothing stays mounted after it."""
        binds = [ROOT, self.home, Path(sys.prefix), Path(sys.base_prefix), Path("/dev")]
        steps = [f"mkdir -p '{self.debian}{place}' && mount --rbind '{place}' '{self.debian}{place}'"
                 for place in binds]
        steps.append(f"mount -t proc proc '{self.debian}/proc'")
        run = f"exec chroot '{self.debian}' \"$@\""
        (self.home / "user").mkdir(exist_ok=True)
        return ["unshare", "--mount", "sh", "-c", " && ".join([*steps, run]), "sh", "blender", *arguments]

    def blender(self, *arguments: str) -> str:
        """Run Blender to its end, without a window; its output. Raises CalledProcessError."""
        done = subprocess.run(self.blender_command(*arguments), env=self._variables(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def open(self, *arguments: str) -> None:
        """Open the window and wait until it answers."""
        mailbox = self.home / "mailbox"
        mailbox.mkdir(exist_ok=True)
        remote = Path(__file__).with_name("remote.py")
        command = self.blender_command("--window-geometry", "0", "0", *map(str, SIZE), "--offline-mode", *arguments,
                                       "--python", str(remote), "--", str(mailbox))
        with open(self.home / "blender.log", "w") as log:
            self._blender = subprocess.Popen(command, env=self._variables(), stdout=log, stderr=log)
        self.tell("value = bpy.app.version_string", within=150)

    def close(self) -> None:
        """End Blender and the screen."""
        for process in (self._blender, self._screen):
            if process is not None:
                process.kill()
                process.wait()

    def quit(self, within: float = 60.0) -> None:
        """Let Blender quit by itself, as its menu does, without asking."""
        assert self._blender
        self.tell("bpy.app.timers.register(lambda: bpy.ops.wm.quit_blender() and None, first_interval=0.2)")
        self._blender.wait(within)

    # -- asking Blender ---------------------------------------------------------------------------------------------
    def tell(self, code: str, within: float = 150.0) -> Any:
        """Run `code` in Blender between two of its events; what it assigned to `value`."""
        mailbox = self.home / "mailbox"
        half, todo = mailbox / "half", mailbox / f"{self._asked}.py"
        half.write_text(code, encoding="utf-8")
        half.rename(todo)
        answer = mailbox / f"{self._asked}.json"
        self._asked += 1
        wait_for(answer.exists, within, lambda: f"no answer to: {code}\n{self.log()}")
        said = json.loads(answer.read_text(encoding="utf-8"))
        assert "error" not in said, said.get("error")
        return said["value"]

    def wait_until(self, expression: str, within: float = 180.0) -> None:
        """Wait until `expression` is true in Blender."""
        wait_for(lambda: self.tell(f"value = bool({expression})"), within, lambda: f"never true: {expression}")

    def log(self) -> str:
        return (self.home / "blender.log").read_text(errors="replace")[-3000:]

    # -- mouse, keys, eyes ------------------------------------------------------------------------------------------
    def xdotool(self, *words: str | int) -> None:
        subprocess.run(["chroot", str(self.debian), "xdotool", *map(str, words)], env=self._variables(), check=True)

    def find_button(self, command: str) -> tuple[int, int]:
        """Screen position of the sidebar's button of an operator ("lsf.animate"): the mouse is moved down the panel
        until Blender's own *Copy Python Command* says that this is the button under it."""
        x, y, width, height = self.tell("r = window_parts()['region']\nvalue = (r.x, r.y, r.width, r.height)")
        look = ("with bpy.context.temp_override(**window_parts()):\n"
                "    copy = bpy.ops.ui.copy_python_command_button\n"
                "    value = copy.poll() and copy() and bpy.context.window_manager.clipboard")
        for down in range(30, height, 9):
            spot = x + (width - 20) // 2, SIZE[1] - (y + height) + down
            self.xdotool("mousemove", *spot)
            time.sleep(0.06)
            if str(self.tell(look)).startswith(f"bpy.ops.{command}("):
                return spot
        raise AssertionError(f"no button {command} in the sidebar")

    def press(self, operator: str) -> None:
        """Click the sidebar's button of an operator with the mouse."""
        self.xdotool("mousemove", *self.find_button(operator), "click", 1)

    def screenshot(self, path: Path, view_only: bool = False) -> Path:
        """The screen, or the 3D view alone, as PNG, taken from outside Blender, with the mouse out of the way."""
        cut: list[str] = []
        if view_only:
            x, y, width, height = self.tell("a = window_parts()['area']\nvalue = (a.x, a.y, a.width, a.height)")
            cut = ["-crop", f"{width}x{height}+{x}+{SIZE[1] - y - height}", "+repage"]
        self.xdotool("mousemove", SIZE[0] // 4, SIZE[1] - 150)
        self.tell("for area in bpy.context.window_manager.windows[0].screen.areas: area.tag_redraw()")
        time.sleep(1.0)  # panels take a moment to glide into place
        with open(path, "wb") as file:
            subprocess.run(["chroot", str(self.debian), "import", "-window", "root", *cut, "png:-"], stdout=file,
                           env=self._variables(), check=True)
        return path


def wait_for(condition: Callable[[], bool], within: float, complaint: Callable[[], str]) -> None:
    """Poll until `condition`; AssertionError with `complaint` after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, complaint()
        time.sleep(0.03)
