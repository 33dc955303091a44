"""Virtual environments for install.py: find a Python, read the pin list, make each environment once. Stdlib only.

An environment is complete when its stamp file holds the hash of its pins; the stamp is written last. One without a
stamp is adopted if every pinned package is there in the pinned version, and made again otherwise (it was left
half-made).
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS_FILE = ROOT / "requirements.txt"
STAMP_NAME = "lsf-stamp.json"
NEEDED = (3, 11)  # the Python that Blender's modules from 4.2 to 5.0 are built for; 5.1 and later take 3.13
RETRY_AFTER_S = 5.0
# What Blender's module links to and a bare Debian or Ubuntu lacks.
BLENDER_LIBRARIES = (
    *("libgl1", "libegl1", "libgl1-mesa-dri", "libsm6"),
    *("libxfixes3", "libxi6", "libxrender1", "libxkbcommon0", "libxxf86vm1"),
)


class InstallError(Exception):
    """Something the user can mend; the message names it and the cure."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment in the checkout and the groups of the pin list that it holds."""

    name: str
    groups: tuple[str, ...]
    needs: tuple[int, int] = NEEDED

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


MAIN = Environment(".venv", ("torch", "arrays", "engine", "training", "many", "blender45", "testing", "checks"))
OTHER_BLENDERS = {
    "4.2": Environment(".venv-bpy42", ("arrays", "blender42", "testing")),
    "5.0": Environment(".venv-bpy50", ("arrays", "blender50", "testing")),
    "5.2": Environment(".venv-bpy52", ("arrays", "blender52", "testing"), needs=(3, 13)),
}
"""The Blenders under test beside .venv's 4.5, each as a module in an environment without PyTorch."""


def read_pins(path: Path = PINS_FILE) -> dict[str, list[str]]:
    """The pin list by group: {"torch": ["torch==..."], ...}. InstallError where a line is not an exact pin."""
    pins: dict[str, list[str]] = {}
    group = None
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.strip()
        if line.startswith("# group:"):
            group = line.removeprefix("# group:").strip()
            pins[group] = []
        elif line and not line.startswith("#"):
            if group is None or "==" not in line:
                raise InstallError(f"{path.name} line {number}: '{line}' is not NAME==VERSION inside a '# group:'.")
            pins[group].append(line)
    return pins


def pins_for(environment: Environment, pins: dict[str, list[str]]) -> list[str]:
    """Every pin of the environment, in the order of installation."""
    missing = [group for group in environment.groups if group not in pins]
    if missing:
        raise InstallError(f"{PINS_FILE.name} has no group {missing}, which {environment.name} needs.")
    return [pin for group in environment.groups for pin in pins[group]]


def clean_variables() -> dict[str, str]:
    """This process's environment without PYTHON* variables, which would leak packages into a virtual environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}


def version_of(python: str) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, or None if it does not start."""
    try:
        answer = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True, text=True, timeout=30, env=clean_variables(),
        )  # fmt: skip
        major, minor = answer.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def python_candidates(needed: tuple[int, int] = NEEDED) -> list[str]:
    """Interpreters worth asking, best first: this one, PATH, and where pyenv, uv and Homebrew put theirs."""
    major, minor = needed
    name = f"python{major}.{minor}"
    home = Path.home()
    folders = (
        home / f".pyenv/versions/{major}.{minor}*/bin/{name}",
        home / f".local/share/uv/python/cpython-{major}.{minor}*/bin/{name}",
        home / f"AppData/Local/Programs/Python/Python{major}{minor}/python.exe",
        Path(f"/opt/homebrew/bin/{name}"),
        Path(f"/usr/local/bin/{name}"),
    )
    found = [sys.executable, shutil.which(name) or "", shutil.which("python3") or "", shutil.which("python") or ""]
    for pattern in folders:
        found += sorted(glob.glob(str(pattern)), reverse=True)
    return list(dict.fromkeys(path for path in found if path))


def find_python(needed: tuple[int, int] = NEEDED) -> str:
    """An interpreter of the needed version. InstallError with the cure where there is none."""
    seen = []
    for candidate in python_candidates(needed):
        version = version_of(candidate)
        if version == needed:
            return candidate
        if version:
            seen.append(f"{candidate} is {version[0]}.{version[1]}")
    wanted = f"{needed[0]}.{needed[1]}"
    debian = {(3, 11): "Debian 12:", (3, 13): "Debian 13:"}.get(needed, "Debian:")
    raise InstallError(
        f"No Python {wanted} found ({'; '.join(seen) or 'no Python on PATH'}).\n"
        "Blender's Python module needs exactly that version. Install it beside what you have, then run this again:\n"
        f"  {debian:<15} sudo apt-get install python{wanted} python{wanted}-venv\n"
        f"  macOS:          brew install python@{wanted}\n"
        f"  Windows:        winget install Python.Python.{wanted}\n"
        f"  anywhere:       uv python install {wanted}    or    pyenv install {wanted}"
    )


def apt_install(packages: tuple[str, ...] | list[str], why: str) -> bool:
    """Install Debian packages where we are root on Debian; True if that worked."""
    if not shutil.which("apt-get") or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    print(f"apt-get install {' '.join(packages)}  ({why})", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=False)
    return subprocess.run(["apt-get", "install", "-y", "-qq", *packages], env=quiet, check=False).returncode == 0


def make_venv(python: str, folder: Path, needed: tuple[int, int] = NEEDED) -> None:
    """`python -m venv folder`; on Debian the part that is packaged apart is fetched if we may."""
    package = f"python{needed[0]}.{needed[1]}-venv"
    for attempt in (1, 2):
        command = [python, "-m", "venv", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True, env=clean_variables())
        if made.returncode == 0:
            return
        shutil.rmtree(folder, ignore_errors=True)
        said = (made.stdout + made.stderr).strip()
        lacks_ensurepip = "ensurepip" in said or "No module named venv" in said
        if attempt == 1 and lacks_ensurepip and apt_install([package], "python -m venv needs it"):
            continue
        cure = f"Run: sudo apt-get install {package}" if lacks_ensurepip else "Check free space and access rights."
        raise InstallError(f"Could not make {folder} with {python}:\n{said}\n{cure}")


def pip_install(python: Path, packages: list[str]) -> None:
    """pip with exact pins; tried twice, because most failures are the network's."""
    quiet = [] if sys.stdout.isatty() else ["-qq", "--progress-bar=off"]  # errors only
    command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *quiet, *packages]
    for attempt in (1, 2):
        if subprocess.run(command, env=clean_variables(), check=False).returncode == 0:
            return
        if attempt == 1:
            print(f"pip failed; trying once more in {RETRY_AFTER_S:.0f} s.", flush=True)
            time.sleep(RETRY_AFTER_S)
    raise InstallError(
        f"pip could not install {' '.join(packages)} into {python.parent.parent}; its own message is above.\n"
        "Check the network (a proxy? set HTTPS_PROXY) and the free space (4 GB; 10 GB with CUDA), then run this again."
    )


def installed_matches(python: Path, pins: list[str]) -> bool:
    """True if every pin is installed in exactly its version."""
    code = (
        "import sys\nfrom importlib.metadata import version\n"
        "from pip._vendor.packaging.requirements import Requirement\n"
        "for line in sys.argv[1:]:\n"
        "    need = Requirement(line)\n"
        "    if need.marker is None or need.marker.evaluate():\n"
        "        assert need.specifier.contains(version(need.name), prereleases=True), line\n"
    )
    check = [str(python), "-c", code, *pins]
    return subprocess.run(check, capture_output=True, env=clean_variables(), check=False).returncode == 0


def pins_hash(pins: list[str]) -> str:
    """What the stamp holds: changes when any pin does."""
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()


def read_stamp(environment: Environment) -> str | None:
    """The pins' hash of a finished environment, or None."""
    try:
        stamp = json.loads((environment.folder / STAMP_NAME).read_text(encoding="utf-8"))
        return str(stamp["pins"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_blender(environment: Environment) -> None:
    """Import bpy once, so that a missing system library is named here and not deep inside a job."""
    command = [str(environment.python), "-c", "import bpy"]
    for attempt in (1, 2):
        tried = subprocess.run(command, capture_output=True, text=True, env=clean_variables(), check=False)
        if tried.returncode == 0:
            return
        said = (tried.stdout + tried.stderr).strip().splitlines()[-1:]
        if attempt == 1 and apt_install(BLENDER_LIBRARIES, "Blender's module links to them"):
            continue
        raise InstallError(
            f"Blender's Python module does not start in {environment.folder}: {' '.join(said)}\n"
            f"On Debian and Ubuntu: sudo apt-get install {' '.join(BLENDER_LIBRARIES)}"
        )


def ensure(environment: Environment) -> Path:
    """The environment's Python, after making or mending the environment where that is needed."""
    pins = pins_for(environment, read_pins())
    wanted = pins_hash(pins)
    stamp = read_stamp(environment)
    starts = environment.python.exists() and version_of(str(environment.python)) == environment.needs
    if starts and stamp == wanted:
        return environment.python

    begun = time.monotonic()
    if not (starts and (stamp or installed_matches(environment.python, pins))):
        if environment.folder.exists():
            print(f"{environment.name} is half-made or broken: making it again.", flush=True)
            shutil.rmtree(environment.folder)
        python = find_python(environment.needs)
        print(f"Making {environment.name} with {python} ...", flush=True)
        make_venv(python, environment.folder, environment.needs)
    if not installed_matches(environment.python, pins):
        # From here on the folder holds neither the old set nor the new one.
        (environment.folder / STAMP_NAME).unlink(missing_ok=True)
        groups = read_pins()
        alone = groups["torch"] if "torch" in environment.groups else []
        for packages in filter(None, (alone, [pin for pin in pins if pin not in alone])):
            names = ", ".join(pin.partition(";")[0].strip() for pin in packages)
            print(f"{environment.name}: installing {names} ...", flush=True)
            pip_install(environment.python, packages)
    if any(group.startswith("blender") for group in environment.groups):
        check_blender(environment)
    stamp_text = json.dumps({"pins": wanted, "packages": pins}, indent=1)
    (environment.folder / STAMP_NAME).write_text(stamp_text, encoding="utf-8")
    print(f"{environment.name} ready in {time.monotonic() - begun:.0f} s.", flush=True)
    return environment.python
