"""Ownership: whether a file, a process or a peer belongs to this user.

Rule of the room: what belongs to anybody else, root included, is not believed. Every check of a
user in this package is made here.
"""

from __future__ import annotations

import os
import stat


def is_ours(uid: int) -> bool:
    """Whether a user is the one that this process acts as.

    Args:
        uid: the owner of a file, or the effective user of a process.
    """
    return uid == os.geteuid()


def flaw(status: os.stat_result) -> str | None:
    """Why a file cannot be a file of this user's pool.

    Args:
        status: what ``lstat`` or ``fstat`` says about it.

    Returns:
        The reason, to go on after *it* in a sentence; None for a regular file of this user.
    """
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if not is_ours(status.st_uid):
        return f"belongs to user {status.st_uid}, but this is user {os.geteuid()}"
    return None
