"""The pool put together: the steps from a configuration to a running manager.

Rule of the room: order only. Detach, claim, configure, load, let go of connections, freeze, fork.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from setproctitle import setproctitle

from .. import hooks, log
from ..autoscaling.process import run_autoscaling
from ..config import redis_clients
from ..config.problems import Kind
from ..config.settings import Configuration
from ..connections import manager_connections
from ..errors import StartError
from ..ipc.assignment import EntryPoints
from ..ledger.recovery_process import run_recovery
from ..manager.loop import Manager
from ..manager.spawner import Spawner
from ..manager.status_notifier import StatusNotifier
from ..planning import phases
from ..planning.plan import IMMEDIATE_STOP_GRACE, PlanOptions
from ..planning.progress import StartGoal
from ..swap import discovery
from ..swap.release import OutgoingPool
from ..swap.takeover import GradualTakeover, Takeover, inherit
from ..system import processes, signals
from ..system.containers import container_warning
from ..system.daemon import detach, failing_aloud
from ..system.launch import Launch
from ..system.lockfile import hold_lock
from ..system.logfiles import LogFiles
from ..system.pidfile import PidFile
from ..system.sd_notify import Notifier
from ..worker.main import run_worker
from .fork_audit import ForkError, audit
from .preload import freeze_heap, import_jobs

logger = logging.getLogger("django_rq_pool")

SWAP_TIMEOUT = 60.0
"""Seconds within which a pool that is waited for has to be ready."""

DAEMON_STDOUT = "log/rqpool.stdout.log"
DAEMON_STDERR = "log/rqpool.stderr.log"
DAEMON_PIDFILE = "tmp/pids/rqpool.pid"
HOT_SWAP_LOCK = "tmp/rqpool.lock"


@dataclass(frozen=True)
class RunOptions:
    """How a pool is started, beside what it is to be.

    Attributes:
        burst: end when every worker has found its queues empty.
        preload: modules to import before the first fork; None takes ``RQ_POOL_PRELOAD``.
        strict_fork: refuse to start with what does not bear a fork.
        daemon: detach from the terminal.
        wait: have the command wait until the daemon's start has succeeded or failed.
        stdout, stderr: files for the standard streams, or None.
        sync: write each line at once.
        pidfile: the pid file, or None.
        lock: the lock file, or None.
        spawn_delay: seconds between two forks.
        single_process_group: workers stay in the manager's process group.
        replace_others: ask older pools of this name to leave, once this one is ready.
        whole: only when every worker is ready, and not when each group has one.
        step_by_step: take over worker by worker, once each group has one that is ready.
        swap_timeout: seconds within which the pool has to be ready if something depends on it.
        ends_process: the process has nothing else to do when the pool has ended.
    """

    burst: bool = False
    preload: Iterable[str] | None = None
    strict_fork: bool = False
    daemon: bool = False
    wait: bool = True
    stdout: str | None = None
    stderr: str | None = None
    sync: bool = True
    pidfile: str | None = None
    lock: str | None = None
    spawn_delay: float = 0.0
    single_process_group: bool = False
    replace_others: bool = False
    whole: bool = False
    step_by_step: bool = False
    swap_timeout: float = SWAP_TIMEOUT
    ends_process: bool = True


def run(configure: Callable[[], Configuration], run_options: RunOptions) -> int:
    """Runs a pool until a signal ends it.

    Args:
        configure: finds out what the pool is to be.
        manner: how it is started.

    Returns:
        An exit status; in the daemon only, if it becomes one.

    Raises:
        StartError: the pool cannot be started.
    """
    logfiles = LogFiles(run_options.stdout, run_options.stderr, sync=run_options.sync)

    def redirect() -> None:
        logfiles.redirect()
        log.follow_output()

    if not run_options.daemon:
        redirect()
        return _run(configure, run_options, logfiles, Launch())
    warning = container_warning(os.getpid(), os.environ)
    launch = detach(redirect, run_options.stderr or os.devnull)
    with failing_aloud(launch):
        launch.show(log.LOGGERS)
        if warning is not None:
            logger.warning("%s", warning)
        return _run(configure, run_options, logfiles, launch)


def _run(
    configure: Callable[[], Configuration],
    run_options: RunOptions,
    logfiles: LogFiles,
    launch: Launch,
) -> int:
    with contextlib.ExitStack() as stack:
        # From here on no signal that asks for something else ends the process; one that stops it
        # does so at once, until the manager takes over.
        inbox = signals.SignalInbox(phases.OTHER_SIGNALS)
        # A second QUIT must not end a process that is just leaving with a status of its own.
        stack.callback(inbox.close, signal.SIG_IGN if run_options.ends_process else signal.SIG_DFL)
        inbox.exit_on(phases.STOP_SIGNALS)
        if run_options.pidfile is not None:
            pidfile = PidFile(run_options.pidfile)
            pidfile.claim()
            stack.callback(pidfile.release)
        if run_options.lock is not None:
            hold_lock(run_options.lock)
        notifier = Notifier(os.environ)
        configuration = configure()
        bounded = configuration.counts.bounded
        if run_options.burst and bounded:
            raise StartError(
                f"--burst: the count of {bounded[0].name!r} has bounds, and a burst is over before "
                "anything can be measured. Give it a number."
            )
        # A swap that is ready before this pool finds it by its title, and ends it.
        setproctitle(discovery.title(configuration.name, "starting"))
        if run_options.replace_others:
            _require_counts(configuration)
        for warning in configuration.warnings:
            logger.warning("%s", warning)
        if not run_options.wait:
            launch.succeed()
        _load(configuration, run_options)
        return _manager(configuration, run_options, inbox, logfiles, launch, notifier).run()


def _require_counts(configuration: Configuration) -> None:
    """Refuses to put an empty pool in the place of one that works."""
    for warning in configuration.warnings:
        if warning.kind in (Kind.UNKNOWN_ENVIRONMENT, Kind.EMPTY_POOL):
            raise StartError(f"{warning} Nothing is replaced.")


def _load(configuration: Configuration, run_options: RunOptions) -> None:
    """Imports what jobs import, and makes this process fit to be forked."""
    import_jobs(configuration.preload if run_options.preload is None else run_options.preload)
    hooks.discover()
    for group in configuration.counts.groups[:1]:
        redis_clients.rehearse(group)
    manager_connections.close()
    findings = audit()
    if findings and run_options.strict_fork:
        raise ForkError("\n".join(findings))
    for finding in findings:
        logger.warning("%s", finding)
    freeze_heap(immortal=configuration.immortal)


def _manager(
    configuration: Configuration,
    run_options: RunOptions,
    inbox: signals.SignalInbox,
    logfiles: LogFiles,
    launch: Launch,
    notifier: Notifier,
) -> Manager:
    name, rules = configuration.name, configuration.rules
    goal = None
    if run_options.replace_others or (run_options.daemon and run_options.wait):
        goal = StartGoal(run_options.whole, processes.monotonic() + run_options.swap_timeout)
    takeover: Takeover | None = None
    if run_options.step_by_step:
        takeover = GradualTakeover(name, run_options.swap_timeout)
    elif run_options.replace_others:
        takeover = Takeover(name, run_options.swap_timeout)

    outgoing = OutgoingPool()

    def release_inherited() -> None:
        launch.become_worker()
        outgoing.close()
        if takeover is not None:
            takeover.close()

    identity = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    spawner = Spawner(
        name,
        inbox,
        EntryPoints(run_worker, run_recovery, partial(run_autoscaling, configuration, identity)),
        rules=rules,
        burst=run_options.burst,
        single_process_group=run_options.single_process_group,
        tracks_imports=configuration.tracks_imports,
        reopen_logs=logfiles.reopen,
        release_inherited=release_inherited,
    )
    grace = IMMEDIATE_STOP_GRACE + (rules.term_child or 0.0)
    return Manager(
        name,
        inherit(name, configuration.counts) if run_options.replace_others else configuration.counts,
        spawner,
        inbox,
        StatusNotifier(name, launch, notifier, goal),
        outgoing,
        rules=rules,
        plan_options=PlanOptions(run_options.burst, grace, run_options.spawn_delay),
        watches_counts=configuration.source.dynamic or bool(configuration.counts.bounded),
        is_daemon=run_options.daemon,
        takeover=takeover,
        reopen_logs=logfiles.reopen,
    )
