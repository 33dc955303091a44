#!/usr/bin/env python3
"""The project's commands; needs nothing but Python 3.10 or later (and a Python 3.11 to be found for Blender's module;
for the tests in Blender 5.2 a Python 3.13 too, without which they are left out).

    python3 install.py demo                    make .venv, animate the demo head in headless Blender, write out/
    python3 install.py test                    make all environments, lint, type-check, run all tests
    python3 install.py addon [--blender PATH]  build dist/lsf_animation-<version>.zip; with PATH, install it into that
                                               Blender and let it use .venv as the engine
    python3 install.py clean                   remove the environments, out/ and dist/
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from tools.addon_zip import build, validator
from tools.environment import MAIN, OTHER_BLENDERS, ROOT, InstallError, clean_variables, ensure, find_python

STAGE_LIMIT_S = 25 * 60


@dataclass
class Stage:
    """One command of `test`: what it is called, what runs, and what came of it."""

    name: str
    command: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    report: Path | None = None  # pytest's junit file
    seconds: float = 0.0
    outcome: str = ""

    @property
    def failed(self) -> bool:
        return self.outcome != "ok"

    def run(self) -> None:
        """Run with the output going through; a stage that hangs is ended at STAGE_LIMIT_S."""
        print(f"\n=== {self.name}", flush=True)
        begun = time.monotonic()
        variables = {**clean_variables(), **self.variables}
        try:
            code = subprocess.run(self.command, cwd=ROOT, env=variables, timeout=STAGE_LIMIT_S, check=False).returncode
            self.outcome = "ok" if code == 0 else f"exit {code}"
        except subprocess.TimeoutExpired:
            self.outcome = f"ended after {STAGE_LIMIT_S} s"
        self.seconds = time.monotonic() - begun

    def counts(self) -> dict[str, int]:
        """passed, failed, skipped from the junit file; a stage that died before writing it counts as one failure."""
        if self.report is None:
            return {"passed": 0, "failed": 0, "skipped": 0}
        try:
            suites = list(ElementTree.parse(self.report).getroot().iter("testsuite"))
        except (OSError, ElementTree.ParseError):
            return {"passed": 0, "failed": 1, "skipped": 0}
        keys = ("tests", "failures", "errors", "skipped")
        total = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in keys}
        failed = total["failures"] + total["errors"]
        return {"passed": total["tests"] - failed - total["skipped"], "failed": failed, "skipped": total["skipped"]}


def test_stages(main: Path, others: dict[str, Path], reports: Path) -> list[Stage]:
    """All stages, cheap ones first. main, others: the Python of each environment, the others' by Blender's version."""

    def pytest(name: str, python: Path, folders: list[str], **variables: str) -> Stage:
        report = reports / f"{name.split()[0]}.xml"
        options = ["-q", "-rs", "--durations=10", f"--junitxml={report}"]
        return Stage(f"pytest {name}", [str(python), "-m", "pytest", *options, *folders], variables, report)

    engine = {"LSF_ENGINE_PYTHON": str(main)}
    return [
        Stage("ruff", [str(main), "-m", "ruff", "check", "."]),
        Stage("mypy", [str(main), "-m", "mypy"]),
        pytest("core", main, ["tests/core"]),
        pytest("blender4.5", main, ["tests/blender"], **engine),
        *(pytest(f"blender{version}", python, ["tests/blender"], **engine) for version, python in others.items()),
        pytest("gui (Debian's Blender 4.3 in a window)", main, ["tests/gui"], **engine),
    ]


def other_blenders() -> tuple[dict[str, Path], list[str]]:
    """The Pythons of the other Blenders under test, and why some are left out: no Python that they are built for."""
    made, left_out = {}, []
    for version, environment in OTHER_BLENDERS.items():
        if environment.needs != MAIN.needs:
            try:
                find_python(environment.needs)
            except InstallError as error:
                left_out.append(f"Blender {version} is not tested here: {error}")
                continue
        made[version] = ensure(environment)
    return made, left_out


def command_test() -> int:
    """Every stage runs, whatever the ones before it did; the exit code tells whether all passed."""
    main = ensure(MAIN)
    others, left_out = other_blenders()
    reports = ROOT / "out" / "test"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    stages = test_stages(main, others, reports)
    for stage in stages:
        stage.run()
    print("\n=== summary")
    for stage in stages:
        print(f"{stage.name:<28} {stage.seconds:7.1f} s  {stage.outcome}")
    print("\n".join(left_out), end="\n" if left_out else "")
    counts = [stage.counts() for stage in stages]
    totals = {key: sum(count[key] for count in counts) for key in ("passed", "failed", "skipped")}
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped", flush=True)
    return 1 if any(stage.failed for stage in stages) else 0


def command_demo() -> int:
    """The main job in headless Blender; tools/demo.py prints each file and how long each stage took."""
    begun = time.monotonic()
    python = ensure(MAIN)
    print(f"environment: {time.monotonic() - begun:.1f} s", flush=True)
    variables = {**clean_variables(), "LSF_ENGINE_PYTHON": str(python)}
    command = [str(python), "tools/demo.py", "--out", "out"]
    return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode


def command_addon(blender: str | None) -> int:
    """Build the zip, let Blender's own tool judge it where there is one, and install it where a Blender is named."""
    target = build(ROOT / "dist")
    print(f"{target.relative_to(ROOT)}  {target.stat().st_size / 2**20:.1f} MiB", flush=True)
    tool = validator(MAIN.folder)
    if tool is None:
        print("not validated: .venv is not made yet ('python3 install.py demo' makes it).")
    else:
        command = [str(MAIN.python), str(tool), "validate", str(target)]
        if subprocess.run(command, env=clean_variables(), check=False).returncode:
            raise InstallError(f"Blender's extension tool refuses {target.name}; its reasons are above.")
    if blender is None:
        print("Install it: drag the zip into Blender's window, or Preferences > Get Extensions > Install from Disk.")
        return 0
    program = shutil.which(blender)
    if program is None:
        raise InstallError(f"--blender {blender}: no such program. Give the path of Blender 4.2 or later.")
    command = [program, "--command", "extension", "install-file", "--repo", "user_default", "--enable", str(target)]
    python = ensure(MAIN)
    settle = [program, "--background", "--python-exit-code", "1", "--python-expr", point_to_engine(python)]
    for step in (command, settle):
        code = subprocess.run(step, env=clean_variables(), check=False).returncode
        if code:
            raise InstallError(f"{program} did not take {target.name} (exit {code}); its message is above.")
    print(f"Installed into {program}; its engine runs in {python}.")
    return 0


def point_to_engine(python: Path) -> str:
    """Python text for Blender: set the installed add-on's *Engine Python* preference and save the preferences."""
    return (
        "import bpy\n"
        "names = [name for name in bpy.context.preferences.addons.keys() if name.endswith('.lsf_animation')]\n"
        "assert names, 'the add-on is not enabled'\n"
        f"bpy.context.preferences.addons[names[0]].preferences.engine_python = {str(python)!r}\n"
        "bpy.ops.wm.save_userpref()\n"
    )


def command_clean() -> int:
    """Remove all that these commands made."""
    for name in (MAIN.name, *(environment.name for environment in OTHER_BLENDERS.values()), "out", "dist"):
        if (ROOT / name).exists():
            print(f"removing {name}", flush=True)
            shutil.rmtree(ROOT / name)
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="make the environment and run the main job into out/")
    commands.add_parser("test", help="lint, type-check and run all tests")
    addon = commands.add_parser("addon", help="build the extension zip")
    addon.add_argument("--blender", metavar="PATH", help="install the zip into this Blender")
    commands.add_parser("clean", help="remove environments and outputs")
    options = parser.parse_args(arguments)
    try:
        if options.command == "addon":
            return command_addon(options.blender)
        return {"demo": command_demo, "test": command_test, "clean": command_clean}[options.command]()
    except InstallError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - the one file that meets an old Python
        sys.exit(f"install.py needs Python 3.10 or later; this is {sys.version.split()[0]}. Try: python3.11 install.py")
    os.chdir(ROOT)
    sys.exit(main())
