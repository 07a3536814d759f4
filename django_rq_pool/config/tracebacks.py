"""Tracebacks: where in the project an exception was raised.

Rule of the room: an exception goes in, a place comes out.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

_LIBRARIES = tuple(
    os.path.join(folder, "")  # noqa: PTH118  # a prefix of paths, which Path would not end with /
    for folder in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    | {str(Path(__file__).resolve().parent.parent)}
)
_PACKAGES = ("site-packages", "dist-packages")


def raised_at(error: BaseException) -> str:
    """The place at which an exception was raised: that in the project, if it passed through one.

    Args:
        error: the exception.

    Returns:
        Such as `` (shop/counts.py:12)``, to be put behind a message; empty if nobody knows.
    """
    if isinstance(error, SyntaxError) and error.filename is not None and error.lineno is not None:
        return f" ({_shown(error.filename)}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if _is_of_the_project(frame.filename):
            return f" ({_shown(frame.filename)}:{frame.lineno})"
    return ""


def _is_of_the_project(path: str) -> bool:
    if path.startswith("<"):  # <frozen importlib._bootstrap>, <string>
        return False
    return not (path.startswith(_LIBRARIES) or set(_PACKAGES) & set(Path(path).parts))


def _shown(path: str) -> str:
    """The path, without the current directory."""
    found = Path(path)
    return str(found.relative_to(Path.cwd())) if found.is_relative_to(Path.cwd()) else path
