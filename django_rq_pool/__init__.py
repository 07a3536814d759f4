"""A pool of RQ workers for Django: one preloaded manager, many queue groups.

Rule of the room: it can be imported before Django's settings are configured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .config.throttled import Throttled
from .errors import StartError, TermException

__version__ = "0.1.0"

__all__ = ["StartError", "TermException", "Throttled", "__version__", "run_pool"]


def run_pool(
    counts: Mapping[str, object] | str | Callable[[str | None], object] | None = None,
    *,
    name: str | None = None,
    environment: str | None = None,
    burst: bool = False,
    preload: Iterable[str] | None = None,
    term: str = "immediate",
    strict_fork: bool = False,
    allow_empty: bool = False,
    verbosity: int = 1,
) -> int:
    """Runs a pool in this process until a signal ends it, as ``manage.py rqpool`` does.

    Call it in the main thread of a script, after ``django.setup()``. Call it before anything
    starts a thread or opens a socket, because every worker is a fork of this process.

    However it ends, the process is as it was: its signal handlers and its alarm, its title, its
    standard streams and log handlers, the garbage collector, and who adopts orphans. A child that
    it had before keeps its exit status for whoever waits for it. Databases and caches are closed;
    they open again when they are used. What stays are imported modules and, with
    ``RQ_POOL_IMMORTAL``, immortal definitions. Workers never return into the caller's code.

    Args:
        counts: the counts, in any form that the setting ``RQ_POOL`` takes: a mapping, the path of
            a YAML file, or a loader. None: search where the command searches.
        name: the name of the pool. None: ``RQ_POOL_NAME``, then the name of the project.
        environment: the environment, a section of the counts that overrides the root. None:
            ``RQ_POOL_ENV``, then ``DJANGO_ENV``.
        burst: stop when every worker has found its queues empty.
        preload: dotted names of modules to import before the first fork. None:
            ``RQ_POOL_PRELOAD``.
        term: what TERM does: ``"immediate"``, ``"graceful-wait"`` or ``"graceful"``, like the
            command's options ``--term-immediate`` and so on.
        strict_fork: refuse to start if the manager has threads or open sockets that are not safe
            to fork. False: only warn.
        allow_empty: start without any queue group, because HUP or a loader will bring some. False:
            that is an error.
        verbosity: how much is logged: 0 warnings, 1 events, 2 details. A logger that has a
            handler or a level in ``LOGGING`` keeps it.

    Returns:
        The exit status, 0 if a signal stopped the pool or it finished in burst mode.

    Raises:
        StartError: the counts cannot be used, a module cannot be imported before the first fork,
            ``strict_fork`` refuses, or a database is in a transaction. Nothing was started.
        SystemExit: QUIT, INT or TERM came before the pool was running, with 128 plus its number.
        ValueError: ``term`` is none of the three values.
        RuntimeError: this is not the main thread. Python handles signals there only.
    """
    import threading

    from . import log
    from .config import settings
    from .config.stop_policy import TermPolicy
    from .startup.run import run
    from .startup.run_options import RunOptions

    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_pool: call it in the main thread, which handles signals.")
    policy = TermPolicy(term)
    with log.set_up(verbosity):
        return run(
            lambda: settings.configure(
                counts=counts,
                name=name,
                environment=environment,
                term=policy,
                allow_empty=allow_empty,
            ),
            RunOptions(burst=burst, preload=preload, strict_fork=strict_fork, ends_process=False),
        )
