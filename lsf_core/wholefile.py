"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import LSFError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to instead of `path`: renamed to it at the end, removed where that is not reached.

    Missing folders are made. Raises LSFError where the file cannot be written.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")  # beside it: renaming is atomic in one file system
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, target)
    except OSError as error:
        reason = error.strerror or error
        raise LSFError(f"Cannot write '{target}' ({reason}). Choose a folder that can be written.") from error
    finally:
        with suppress(OSError):  # it was renamed, or there was never a folder for it
            part.unlink()
