"""Folders: those of pid, lock and log files, made when they are missing.

Rule of the room: what is made here may be written to by nobody else, whatever the umask.
"""

from __future__ import annotations

from pathlib import Path


def make_folder_of(path: Path) -> None:
    """Makes the folder that a file is to be in, and those above it.

    Args:
        path: the absolute path of the file.

    Raises:
        OSError: one of them cannot be made, or is there and no folder.
    """
    for folder in reversed(path.parents):
        if not folder.is_dir():
            folder.mkdir(mode=0o755, exist_ok=True)
