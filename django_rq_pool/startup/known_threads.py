"""Known threads: what the threads of well-known libraries mean to a process that forks.

Rule of the room: data only, which the documentation shows too. Each row was seen with the version
that it names: a forked child then did what a worker would do with the library, and did it, lacked
something, or hung (``tests/known_threads.py`` does it again). A thread that is in no row is taken
for what it may be at worst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What it means to workers that the manager has a thread."""

    HARMLESS = "harmless"
    """Workers do without it, or start their own. It is told, and ``--strict-fork`` does not
    mind."""
    MISSING = "missing in workers"
    """What it does is not done in workers. It has to be started in them, in an ``after_prefork``
    hook."""
    MAY_HANG = "may hang workers"
    """Workers believe that it is there, and may wait for it, or for a lock that it holds, for
    ever."""


@dataclass(frozen=True)
class KnownThread:
    """A thread of a library.

    Attributes:
        library: the library and the version that was looked at.
        name: a pattern of its name; that of a native thread has 15 characters at most.
        module: a pattern of the module whose code it runs; None for a native thread, which
            Python does not know.
        kind: what it means to workers.
        sentence: the same in words, and what to do about it.
    """

    library: str
    name: str
    module: str | None
    kind: Kind
    sentence: str

    def is_it(self, name: str, module: str | None) -> bool:
        """Whether this is the thread of this name, which runs code of this module (None: it is a
        native thread)."""
        if (module is None) is not (self.module is None):
            return False
        return bool(
            re.fullmatch(self.name, name)
            and (self.module is None or re.fullmatch(self.module, module or ""))
        )


ANY = ".*"

PYTHON_THREAD = (
    "workers do not have it: what it does is not done in them, and a lock that it holds at a fork "
    "stays locked. Start it in an after_prefork hook."
)
"""What a Python thread means that is not known."""

NATIVE_THREAD = (
    "workers do not have it, and may wait for it for ever. Use the library in jobs only, not while "
    "modules are imported."
)
"""What a native thread means that is not known."""

NAMELESS_THREAD = (
    "workers do not have it, and may wait for it for ever. It has no name of its own: OpenMP "
    "(scikit-learn, LightGBM), DuckDB, gevent's thread pool and tokenizers start such threads when "
    "they compute. Have them compute in jobs only, not while modules are imported; OpenMP starts "
    "none when the environment has OMP_NUM_THREADS=1."
)
"""What a native thread means that has only the name of its process."""

_ANEW = "each worker starts its own when it needs it."

KNOWN_THREADS = (
    # Harmless
    KnownThread(
        "jemalloc 5, in pyarrow 26.0 and polars 2.1",
        "jemalloc_bg_thd",
        None,
        Kind.HARMLESS,
        "it returns memory to the system, and jemalloc's own fork handlers start it again.",
    ),
    KnownThread(
        "polars 2.1",
        "polars-ooc-clea",
        None,
        Kind.HARMLESS,
        "it removes files that larger-than-memory queries leave, and workers compute without it.",
    ),
    KnownThread(
        "sentry-sdk 2.75",
        r"sentry-sdk\..+|sentry\..+",
        ANY,
        Kind.HARMLESS,
        _ANEW,
    ),
    KnownThread("sentry-sdk 2.75", ANY, r"sentry_sdk\._(span_)?batcher", Kind.HARMLESS, _ANEW),
    KnownThread(
        "opentelemetry-sdk 1.45",
        "Otel(Batch|Periodic).+",
        ANY,
        Kind.HARMLESS,
        "its own fork handlers start it again in each worker.",
    ),
    KnownThread("elastic-apm 6.26", "eapm .+", ANY, Kind.HARMLESS, _ANEW),
    KnownThread(
        "posthog 7.91",
        ANY,
        r"posthog\..+",
        Kind.HARMLESS,
        "its own fork handlers start it again in each worker.",
    ),
    # Missing
    KnownThread(
        "logging.handlers.QueueListener",
        ANY,
        r"logging\.handlers",
        Kind.MISSING,
        "log records that a worker puts into its queue are written by nobody. Start it in an "
        "after_prefork hook.",
    ),
    KnownThread(
        "multiprocessing.Queue",
        "QueueFeederThread",
        ANY,
        Kind.MISSING,
        "what a worker puts into its queue is sent by nobody. Make the queue in an after_prefork "
        "hook.",
    ),
    KnownThread(
        "redis 8.1, PubSubWorkerThread",
        ANY,
        r"redis\.client",
        Kind.MISSING,
        "workers hear nothing of its subscription. Subscribe in an after_prefork hook.",
    ),
    KnownThread(
        "APScheduler 3.11",
        "APScheduler",
        ANY,
        Kind.MISSING,
        "what it schedules runs in the manager, and not in workers. Schedule with RQ "
        "(with_scheduler), or run it in a process of its own.",
    ),
    KnownThread(
        "Django 6.1, runserver's reloader",
        "django-main-thread",
        ANY,
        Kind.MISSING,
        "the project runs under the reloader, which would restart this process. Start the pool "
        "without it.",
    ),
    KnownThread(
        "watchdog 7.1",
        ANY,
        r"watchdog\..+",
        Kind.MISSING,
        "workers hear of no change. Start the observer in an after_prefork hook.",
    ),
    KnownThread(
        "socketserver, as in prometheus-client 0.26",
        ANY,
        "socketserver",
        Kind.MISSING,
        "the manager answers requests, and no worker does. Start the server in a process of its "
        "own, or in an after_prefork hook on a port of the worker's.",
    ),
    KnownThread(
        "launchdarkly-server-sdk 9.20",
        r"ldclient\..+",
        ANY,
        Kind.MISSING,
        "flags in a worker stay as they were at the fork. Call ldclient.get().postfork() in an "
        "after_prefork hook.",
    ),
    KnownThread(
        "newrelic 14.1",
        "NR-.+",
        ANY,
        Kind.MISSING,
        "workers send no data. Call newrelic.agent.register_application() in an after_prefork "
        "hook, and not before.",
    ),
    KnownThread(
        "confluent-kafka 2.16, librdkafka",
        "rdk:.+",
        None,
        Kind.MISSING,
        "what a worker produces is never sent. Make producers and consumers in an after_prefork "
        "hook.",
    ),
    # May hang
    KnownThread(
        "concurrent.futures.ThreadPoolExecutor",
        ANY,
        r"concurrent\.futures\.thread",
        Kind.MAY_HANG,
        "a worker that submits to its executor waits for the result for ever. Make the executor in "
        "an after_prefork hook.",
    ),
    KnownThread(
        "multiprocessing.pool.ThreadPool",
        ANY,
        r"multiprocessing\.pool",
        Kind.MAY_HANG,
        "a worker that uses its pool waits for the result for ever. Make the pool in an "
        "after_prefork hook.",
    ),
    KnownThread(
        "asyncio, an event loop in a thread",
        ANY,
        r"asyncio\..+",
        Kind.MAY_HANG,
        "what a worker gives to its loop is never run, and waiting for it never ends. Start the "
        "loop in an after_prefork hook.",
    ),
    KnownThread(
        "psycopg-pool 3.3",
        ANY,
        r"psycopg_pool\..+",
        Kind.MAY_HANG,
        "its pool opens no connection in workers, and shares those that it has. Open it in an "
        "after_prefork hook. Those of Django's databases are closed before a fork anyway.",
    ),
    KnownThread(
        "pymongo 4.20",
        "pymongo_.+",
        ANY,
        Kind.MAY_HANG,
        "workers start their own, but PyMongo itself warns that a client may deadlock after a "
        "fork. Make the client in an after_prefork hook.",
    ),
    KnownThread(
        "grpcio 1.85",
        "grpc_.+|event_engine|lifeguard|timer_manager|(default|resolver)-executo",
        None,
        Kind.MAY_HANG,
        "a channel of gRPC does not work after a fork. Make it in an after_prefork hook.",
    ),
    KnownThread(
        "grpcio 1.85",
        ANY,
        r"grpc\._.+",
        Kind.MAY_HANG,
        "a channel of gRPC does not work after a fork. Make it in an after_prefork hook.",
    ),
    KnownThread(
        "polars 2.1",
        r"polars-\d+|async-executor-",
        None,
        Kind.MAY_HANG,
        "polars has computed in the manager, and a worker that computes with it hangs. Compute in "
        "jobs only; importing it is harmless.",
    ),
    KnownThread(
        "tokio or rayon, of a library in Rust",
        "tokio-.+|rayon.*",
        None,
        Kind.MAY_HANG,
        "a library in Rust has worked in the manager, and a worker that uses it may hang. Use it "
        "in jobs only.",
    ),
)


def known(name: str, module: str | None) -> KnownThread | None:
    """The row for a thread, or None.

    Args:
        name: its name.
        module: the module whose code it runs, perhaps empty; None for a native thread.
    """
    return next((each for each in KNOWN_THREADS if each.is_it(name, module)), None)
