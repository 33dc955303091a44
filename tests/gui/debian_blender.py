"""Debian's own Blender (4.3, of Debian 13 "trixie") in a folder of its own, to be opened in a window nobody sees.

    python tests/gui/debian_blender.py      makes the folder, or says why it cannot

The folder is a small Debian made by debootstrap with Blender, Xvfb, Mesa's software OpenGL, xdotool and ImageMagick:
1.8 GB, about 100 s once; it is kept in the user's cache (or in LSF_GUI_ROOT) for later runs. It takes root, for chroot.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE, MIRROR = "trixie", "http://deb.debian.org/debian"
PACKAGES = ("blender", "python3-numpy", "xvfb", "libgl1-mesa-dri", "xdotool", "imagemagick", "fonts-dejavu-core")
STAMP = "lsf-gui-ready"


class Unavailable(Exception):
    """There can be no Blender window here; the message says why."""


def folder() -> Path:
    """Where the Debian with Blender lies, or will lie."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("LSF_GUI_ROOT") or cache / "lsf-animation" / f"blender-{SUITE}")


def ensure() -> Path:
    """The folder, made where it is not there yet. Raises Unavailable."""
    root = folder()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise Unavailable("a window needs Debian's Blender in a chroot, which takes root on Linux")
    if not shutil.which("debootstrap"):
        _apt_install("debootstrap")
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.with_name(root.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs make it once
        if not (root / STAMP).is_file():
            _make(root)
    return root


def _apt_install(package: str) -> None:
    if not shutil.which("apt-get"):
        raise Unavailable(f"there is no {package}, and no apt-get to fetch it")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=False)
    if subprocess.run(["apt-get", "install", "-y", "-qq", package], env=quiet, check=False).returncode:
        raise Unavailable(f"apt-get could not install {package}")


def _make(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    install = ("export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && "
               f"apt-get install -y -qq --no-install-recommends {' '.join(PACKAGES)} && apt-get clean")
    log = root.with_name(root.name + ".log")
    with open(log, "w") as output:
        for command in (["debootstrap", "--variant=minbase", SUITE, str(root), MIRROR],
                        ["chroot", str(root), "sh", "-c", install]):
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                shutil.rmtree(root, ignore_errors=True)
                raise Unavailable(f"Debian's Blender could not be installed ({' '.join(last)}; see {log})")
    (root / STAMP).touch()


if __name__ == "__main__":
    try:
        print(ensure())
    except Unavailable as reason:
        sys.exit(f"No window: {reason}.")
