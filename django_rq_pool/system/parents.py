"""Parents: what becomes of this process when its parent ends, and of the orphans below it.

Rule of the room: prctl(2), which only Linux has. Elsewhere nothing happens, and the caller learns
that.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Has the system send TERM to this process when its parent ends (see prctl(2); Linux only)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM.value, 0, 0, 0)


_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def adopt_orphans(adopts: bool = True) -> bool:
    """Makes this process the parent of descendants whose parent dies (see prctl(2)).

    Args:
        adopts: False: init, or another process above this one, becomes their parent again.

    Returns:
        Whether the system can do that; only Linux can.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopts), 0, 0, 0) == 0)


def adopts_orphans() -> bool:
    """Whether `adopt_orphans` has been called, by whomever."""
    if not sys.platform.startswith("linux"):
        return False
    adopts = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(adopts), 0, 0, 0)
    return bool(adopts.value)
