"""The command line: python -m lsf_core animate | rig | animate-many | worker | train.

What a command needs is imported when it runs: torch takes seconds, and --help and a mistyped path should not.
What the user can mend ends as one line `error: ...` on stderr and exit status 2; `animate-many` ends with 1 if some of
its lines failed. Outputs appear whole or not at all.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .arkit import EMOTIONS
from .errors import Cancelled, LSFError

if TYPE_CHECKING:
    import numpy as np

    from .edits import EditSettings

USER_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        # These two have options of their own, which argparse would try to read here.
        if arguments[:1] == ["worker"]:
            from .worker import main as worker_main

            return worker_main(arguments[1:]) or 0
        if arguments[:1] == ["train"]:
            from .training.cli import main as train_main

            return train_main(arguments[1:]) or 0
        options = _parser().parse_args(arguments)
        return options.run(options)
    except LSFError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"error: {Cancelled()}", file=sys.stderr)
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors, like all the others."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"error: {message}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lsf_core", description="Speech and a neutral face to facial animation.")
    parser.add_argument("--version", action="version", version=f"lsf_core {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    animate = commands.add_parser("animate", help="one sound file to a take (.npz of 52 ARKit weights per frame)")
    animate.add_argument("audio", metavar="AUDIO", help="wav, mp3, ogg, flac, m4a ... with speech")
    animate.add_argument("--mesh", metavar="HEAD.obj|.npz", help="the neutral face; without it, an average one")
    animate.add_argument("--out", required=True, metavar="TAKE.npz")
    animate.add_argument("--fps", type=_rate, default=30.0, help="frames per second (default 30)")
    animate.add_argument("--seed", type=int, default=0, help="another seed, another take (default 0)")
    animate.add_argument("--offset", type=_not_negative, default=0.0, help="seconds of the file to skip")
    animate.add_argument("--duration", type=_positive, help="seconds of the file to animate (default: to its end)")
    _add_network_options(animate)
    animate.set_defaults(run=_animate)

    rig = commands.add_parser("rig", help="a neutral head mesh to the 52 shapes it needs")
    rig.add_argument("head", metavar="HEAD.obj|.npz")
    rig.add_argument("--out", required=True, metavar="RIG.npz")
    rig.add_argument("--landmarks", metavar="FILE.json", help='corrected landmarks, {"nose_tip": [x, y, z], ...}')
    rig.set_defaults(run=_rig)

    many = commands.add_parser(
        "animate-many",
        help="the lines of a table, with one load of the network; run again, it goes on where it stopped",
        description="Columns of MANIFEST (.csv or .parquet): audio, output; optional: mesh, character, language, fps, "
        "seed, emotion_from, emotion_mix, emotion_strength; the options serve lines that leave them empty. Sound and "
        "mesh paths are relative to the table (or else to the current folder), outputs to DIR. DIR/results.csv tells "
        "what became of each line. Exit status 1 if any failed. docs/many.md tells more.",
    )
    many.add_argument("manifest", metavar="MANIFEST")
    many.add_argument("--out", required=True, metavar="DIR")
    many.add_argument("--fps", type=_rate, default=30.0, help="where the line says none (default 30)")
    many.add_argument("--seed", type=int, default=0, help="where the line says none (default 0)")
    many.add_argument("--characters", metavar="FILE", help="a table (.csv, .parquet) with the columns character and "
                      "mesh, for lines that name a character")
    many.add_argument("--format", choices=("npz", "csv"), default="npz", help="of outputs without such a suffix: npz "
                      "(default), or csv in the layout of Live Link Face, which engines import")
    many.add_argument("--results", choices=("csv", "parquet"), help="kind of the table of results (default: that of "
                      "MANIFEST)")
    many.add_argument("--overwrite", action="store_true", help="make finished outputs again")
    many.add_argument("--ray", metavar="ADDRESS", help="make the lines on a Ray cluster: auto on one of its machines, "
                      "HOST:PORT, or local for one of this machine alone; all paths on a file system that all share")
    many.add_argument("--cores", type=_whole, metavar="N", help="CPU cores of each network in the cluster (default 2; "
                      "with graphics cards, each one's share of the cores)")
    _add_network_options(many)
    many.set_defaults(run=_animate_many)

    commands.add_parser("worker", help="the engine process that Blender talks to")
    commands.add_parser("train", help="train the network (see train --help)")
    return parser


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME|FILE", help="another network than the one that ships")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--temperature",
        type=_not_negative,
        default=0.0,
        help="0 (default): the likeliest motion, the same for every seed; about 1: livelier takes that differ",
    )
    parser.add_argument(
        "--emotion-strength",
        type=_not_negative,
        metavar="X",
        help="0: neutral delivery, 1 (default): as heard, 2: twice that",
    )
    parser.add_argument("--emotion-from", metavar="FILE", help="another recording: feel as that one does")
    parser.add_argument("--emotion-mix", metavar="MIX", help="emotions by name, 0 to 1, such as happy=0.6,fear=0.2; "
                        f"what they lack to 1 stays as heard. There are {', '.join(EMOTIONS)}")
    edits = parser.add_mutually_exclusive_group()
    edits.add_argument("--edits", metavar="FILE.json", help="strengths of edits (lsf_core.edits.EditSettings)")
    edits.add_argument("--no-edits", action="store_true",
                       help="the network's motion alone: no blinks, gaze, head motion, breath; no rest at both ends")


# ---------------------------------------------------------------- commands


def _animate(options: argparse.Namespace) -> int:
    out = _output(options.out)
    begun = time.perf_counter()
    # Sound and mesh are read before torch is imported: what is wrong with them is told at once.
    from .audio import SAMPLE_RATE, check_speech, load_audio
    from .feeling import parse_mix, spoken_frames

    edits, mix = _edits(options), parse_mix(options.emotion_mix or "")
    audio = load_audio(options.audio, options.offset, options.duration)
    check_speech(audio, f"The sound '{options.audio}'")
    identity = read_identity_of(options.mesh) if options.mesh else None
    reference = None
    if options.emotion_from:
        reference = load_audio(options.emotion_from), SAMPLE_RATE
        spoken_frames(reference[0], options.emotion_from)
    from .animator import load_model

    with _Bar("Animating") as bar:
        model = load_model(options.model, options.device)
        motion = model.animate(
            audio,
            SAMPLE_RATE,
            identity=identity,
            fps=options.fps,
            seed=options.seed,
            temperature=options.temperature,
            edits=edits,
            progress=bar,
            emotion_from=reference,
            emotion_mix=mix,
        )
    motion.save(out)
    took = time.perf_counter() - begun
    print(f"{out}: {len(motion)} frames at {motion.fps:g} fps, {motion.seconds:.2f} s of speech, made in {took:.1f} s")
    return 0


def _rig(options: argparse.Namespace) -> int:
    out = _output(options.out)
    from .face import load_mesh, read_landmarks, rig

    vertices, faces = load_mesh(options.head)
    landmarks = read_landmarks(options.landmarks) if options.landmarks else None
    with _Bar("Rigging") as bar:
        made = rig(vertices, faces, landmarks=landmarks, progress=bar)
    # Written beside under a name that ends in .npz (numpy would add it), then renamed.
    part = out.with_name(f"{out.name}.{os.getpid()}.part.npz")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made.save(part)
        os.replace(part, out)
    except OSError as error:
        raise LSFError(f"Cannot write '{out}' ({error.strerror}). Choose a folder that can be written.") from error
    finally:
        part.unlink(missing_ok=True)
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{out}: {len(made.names)} shapes of {len(vertices)} vertices, fit error {float(made.fit_error):.2f} mm, "
          f"confidence {made.confidence:.2f}")
    return 0


def _animate_many(options: argparse.Namespace) -> int:
    from .many import Settings, animate_many

    settings = Settings(
        fps=options.fps,
        seed=options.seed,
        model=options.model,
        device=options.device,
        temperature=options.temperature,
        edits=_edits(options),
        emotion_from=os.path.abspath(options.emotion_from) if options.emotion_from else "",
        emotion_mix=options.emotion_mix or "",
        overwrite=options.overwrite,
        format=options.format,
        characters=options.characters,
        results=options.results,
    )
    if not options.ray:
        return animate_many(options.manifest, options.out, settings)
    from .many.cluster import on_ray

    return animate_many(options.manifest, options.out, settings, on_ray(options.ray, options.cores))


def _edits(options: argparse.Namespace) -> EditSettings:
    """The edits that the options ask for; --emotion-strength goes before the file's."""
    from .edits import EditSettings, edit_settings

    strength = options.emotion_strength
    if not options.edits:
        return edit_settings(1.0 if strength is None else strength, not options.no_edits)
    try:
        settings = EditSettings.from_json(Path(options.edits).read_text(encoding="utf-8"))
        return settings if strength is None else replace(settings, emotion=strength)
    except OSError as error:
        raise LSFError(f"The edits cannot be read: '{options.edits}' ({error.strerror}). Check the path.") from error
    except UnicodeDecodeError as error:
        raise LSFError(f"The edits are not a text in UTF-8: '{options.edits}'. Save them again.") from error
    except LSFError as error:
        raise LSFError(f"The edits '{options.edits}' cannot be used. {error}") from error


def read_identity_of(mesh: str) -> np.ndarray:
    """Identity coefficients (32,) of the neutral mesh in a file. Raises MeshError."""
    from .face import load_mesh, read_identity

    return read_identity(*load_mesh(mesh))


# ---------------------------------------------------------------- small parts


def _output(name: str) -> Path:
    """The output's path; refused before the work rather than after it."""
    out = Path(name)
    if out.is_dir():
        raise LSFError(f"The output is a folder: '{out}'. Give a file name in it, such as '{out / 'take.npz'}'.")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise LSFError(f"Cannot write '{out}': '{folder}' is not a folder that can be written. Choose another one.")
    return out


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0")
    return value


def _rate(text: str) -> float:
    from .motion import MAX_FPS

    value = _positive(text)
    if value >= MAX_FPS:
        raise argparse.ArgumentTypeError(f"{text} frames per second is a mistake; give less than {MAX_FPS:g}")
    return value


def _whole(text: str) -> int:
    value = _positive(text)
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"{text} must be a whole number")
    return int(value)


def _not_negative(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return value


class _Bar:
    """Progress of one job as a line on a terminal; nothing is drawn into a log file."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._draw: Callable[[str], object] | None = sys.stderr.write if sys.stderr.isatty() else None

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, fraction: float, text: str = "") -> None:
        if self._draw:
            self._draw(f"\r\x1b[K{self._title} {fraction:4.0%}  {text[:80]}")
            sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._draw:
            self._draw("\r\x1b[K")
