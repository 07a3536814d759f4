"""A pool of RQ workers for Django: one preloaded manager, many queue groups.

Importable without configured settings; what needs them is imported when it is called.
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
    verbosity: int = 1,
) -> int:
    """Runs a pool in this process until a signal ends it, as ``manage.py rqpool`` does.

    Call it in the main thread of a script, after ``django.setup()`` and before anything that
    starts threads or opens sockets: workers are forked from this process as it is then.

    Args:
        counts: the counts, in a form that the setting ``RQ_POOL`` may have: a mapping, the path of
            a YAML file, or a loader; None looks for them where the command does.
        name: the name of the pool; None takes the project's.
        environment: the section of the counts that overrides the others; None asks
            ``RQ_POOL_ENV``, then ``DJANGO_ENV``.
        burst: end when every worker has found its queues empty.
        preload: modules to import before the first fork; None takes ``RQ_POOL_PRELOAD``.
        term: what TERM means: ``immediate``, ``graceful-wait`` or ``graceful``, as the command's
            options of these names.
        strict_fork: refuse to start when the manager has threads or open sockets, which a fork
            does not bear, instead of warning.
        verbosity: what is logged, unless ``LOGGING`` says where it goes: 0 warnings, 1 what
            happens, 2 the details.

    Returns:
        The exit status, 0 when the pool was told to end or has finished in burst mode.

    Raises:
        StartError: the counts cannot be used, or ``strict_fork`` refuses. Nothing was started.
        ValueError: ``term`` has no such value.
        RuntimeError: this is not the main thread, where signals are heeded.
        Exception: whatever a module raises that is imported before the first fork.
    """
    import threading

    from . import log
    from .config import settings
    from .config.stop_policy import TermPolicy
    from .startup.run import run
    from .startup.run_options import RunOptions

    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_pool: call it in the main thread, where signals are heeded.")
    policy = TermPolicy(term)
    log.set_up(verbosity)
    return run(
        lambda: settings.configure(counts=counts, name=name, environment=environment, term=policy),
        RunOptions(burst=burst, preload=preload, strict_fork=strict_fork, ends_process=False),
    )
