"""Versions of the network that were shipped: by which name they are loaded, and what each scored.

A name stands for one file for ever, told by its sha256. Only the newest ships; the others lie in the history of the
repository. What the figures mean, on which recordings, and how they were measured: docs/checkpoint.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import ModelError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
SHIPPED = ASSETS / "lsf-animation.safetensors"
DEFAULT = "default"


@dataclass(frozen=True)
class Version:
    """commit: the one that brought the file as assets/lsf-animation.safetensors. scores: figure -> value."""

    name: str
    sha256: str
    commit: str
    note: str
    scores: dict[str, float]


VERSIONS = (
    Version("lsf-animation-0.1", "83bd55f5be2a5a567985794f6bcbd2fc186f9b57f6f5b33cf8bc4744a304b929", "d7524d0",
            "synthesised and acted speech",
            {"aperture r": 0.630, "closure recall": 0.984, "emotion recall": 0.447, "strong over normal": 0.777}),
    Version("lsf-animation-0.2", "b5eab4373afe2f0dfaba8783126c370a64a53657978f104cad521ad339dec78b", "a43d6a1",
            "real Mandarin motion, surprise, named emotions",
            {"aperture r": 0.623, "closure recall": 0.967, "emotion recall": 0.477, "strong over normal": 0.818}),
    Version("lsf-animation-0.3", "9c16218041a4a8fb98e0428d5577ed47933cefa7de7d5abd260f6e3819d27a55", "8b46fe6",
            "less of the one captured voice, shorter training",
            {"aperture r": 0.622, "closure recall": 0.984, "emotion recall": 0.464, "strong over normal": 0.812}),
    Version("lsf-animation-0.4", "c44c12b523bcf49dfc42cbe8d93241272128936c9b2c23a2404c23a3e0114b9e", "905652a",
            "mouths drawn to what a linear map hears, which joins as a second opinion",
            {"aperture r": 0.653, "closure recall": 0.984, "emotion recall": 0.493, "strong over normal": 0.821}),
)
"""From the oldest to the newest."""


def checkpoint_path(name: str | Path | None) -> Path:
    """The file that a name or a path stands for; None and "default" are the one that ships.

    A version that does not ship is looked for beside it as NAME.safetensors. Raises ModelError for a name that there is
    not, or whose file is not here.
    """
    if name is None or str(name) == DEFAULT:
        return SHIPPED
    version = next((v for v in VERSIONS if v.name == str(name)), None)
    if version is None:
        path = Path(name)
        if path.is_file() or path.suffix:
            return path
        raise ModelError(f"There is no network called '{name}'. There are {DEFAULT}, "
                         f"{', '.join(v.name for v in VERSIONS)}; or give the path of a .safetensors file.")
    if version_of(SHIPPED) == version:
        return SHIPPED
    beside = ASSETS / f"{version.name}.safetensors"
    if not beside.is_file():
        raise ModelError(f"{version.name} does not ship any more. Take it out of the repository's history with "
                         f"`git show {version.commit}:assets/{SHIPPED.name} > {beside}`, its .sha256 likewise.")
    return beside


def version_of(path: Path) -> Version | None:
    """Which version a checkpoint is by the sha256 beside it; None for one that was never shipped."""
    try:
        digest = path.with_name(path.name + ".sha256").read_text(encoding="ascii").split()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        return None
    return next((v for v in VERSIONS if v.sha256 == digest), None)
