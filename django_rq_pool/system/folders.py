"""Folders: creates missing folders of pid, lock and log files.

Rule of the room: only this user can write to a new folder, whatever the umask is.
"""

from __future__ import annotations

from pathlib import Path


def make_folder_of(path: Path) -> None:
    """Creates the missing folders above a file.

    Args:
        path: the absolute path of the file.

    Raises:
        OSError: a folder cannot be created, or a file has its path.
    """
    for folder in reversed(path.parents):
        if not folder.is_dir():
            folder.mkdir(mode=0o755, exist_ok=True)
