"""Run: the steps from a configuration to a running manager.

Rule of the room: order only. Detach, claim the files, configure, preload, let go of connections,
freeze, fork.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from setproctitle import setproctitle

from .. import log
from ..autoscaling.process import run_autoscaling
from ..config import redis_clients
from ..config.classes import clean_up_seconds
from ..config.problems import Kind
from ..config.project import find_identity
from ..config.settings import Configuration
from ..config.stop_policy import STOP_SIGNALS, TIMER_SIGNALS
from ..connections import close_connections, manager_connections
from ..errors import ExitStatus, StartError
from ..ipc.assignment import EntryPoints
from ..ipc.identity_record import IdentityRecord
from ..ledger.recovery_process import run_recovery
from ..manager.loop import Manager
from ..manager.parts import ManagerOptions, Parts
from ..manager.spawner import Spawner, SpawnOptions
from ..manager.status_notifier import StatusNotifier
from ..planning import phases
from ..planning.plan import IMMEDIATE_STOP_GRACE, PlanOptions
from ..planning.progress import StartGoal
from ..swap import discovery, older_pools
from ..swap.older_pools import ThisPool
from ..swap.release import OutgoingPool
from ..swap.takeover import GradualTakeover, NoTakeover, Takeover, starting_counts
from ..system import processes, signals
from ..system.containers import container_warning
from ..system.daemon import detach, reporting_failure
from ..system.launch import Launch
from ..system.lockfile import hold_lock
from ..system.logfiles import LogFiles
from ..system.pidfile import PidFile
from ..system.sd_notify import Notifier
from ..worker.main import run_worker
from .caller import given_back, require_no_transaction
from .fork_audit import ForkError, audit
from .preload import freeze_heap, import_jobs
from .run_options import RunOptions, SwapMode
from .start_hook import run_start_hook

logger = logging.getLogger("django_rq_pool")

_LEAST_TIME = 0.1
"""Seconds that a start has in any case, after it has waited for the lock."""

_NOTHING_STARTED = {
    False: "Nothing was started.",
    True: "Nothing was started, and the older pool is untouched.",
}
"""What a failure means, by whether the pool was to replace another."""


def run(configure: Callable[[], Configuration], options: RunOptions) -> int:
    """Runs a pool until a signal ends it.

    Args:
        configure: finds out what the pool is to be.
        options: how it is started.

    Returns:
        An exit status; in the daemon only, if it becomes one.

    Raises:
        StartError: the pool cannot be started.
    """
    logfiles = LogFiles(options.stdout, options.stderr, sync=options.sync)

    def redirect() -> None:
        logfiles.redirect()
        log.follow_output()

    if not options.ends_process:
        require_no_transaction()
    if not options.daemon:
        with contextlib.ExitStack() as stack:
            if not options.ends_process:
                stack.enter_context(given_back(logfiles))
            redirect()
            return _run(configure, options, logfiles, Launch())
    if not options.ends_process:
        return _start_daemon(configure, options)
    warning = container_warning(os.getpid(), os.environ)
    launch = detach(redirect, options.stderr or os.devnull)
    with reporting_failure(launch):
        launch.show(log.LOGGERS)
        if warning is not None:
            logger.warning("%s", warning)
        return _run(configure, options, logfiles, launch)


def _start_daemon(configure: Callable[[], Configuration], options: RunOptions) -> int:
    """Runs the command that starts a daemon, which never returns, in a process of its own.

    Returns:
        The exit status of the command.
    """

    def command() -> int:
        signal.set_wakeup_fd(-1)
        signals.unblock()
        try:
            return run(configure, replace(options, ends_process=True))
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else ExitStatus.FAILED
        except StartError as error:
            logger.error("%s", error)
            return ExitStatus.FAILED

    close_connections()  # the daemon would say goodbye to the servers on them
    pid = processes.fork(command)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else ExitStatus.SIGNAL - code


def _run(
    configure: Callable[[], Configuration], options: RunOptions, logfiles: LogFiles, launch: Launch
) -> int:
    with contextlib.ExitStack() as stack:
        # From here on no signal that asks for something else ends the process; one that stops it
        # does so at once, until the manager takes over.
        inbox = signals.SignalInbox(phases.OTHER_SIGNALS, TIMER_SIGNALS)
        if options.ends_process:
            # A second QUIT must not end a process that is just leaving with a status of its own.
            stack.callback(inbox.close, signal.SIG_IGN)
        else:
            stack.callback(inbox.give_back)
        inbox.exit_on(STOP_SIGNALS)
        if options.pidfile is not None:
            pidfile = PidFile(options.pidfile)
            pidfile.claim()
            stack.callback(pidfile.release)
        options = _hold_lock(options, stack)
        notifier = Notifier(os.environ)
        configuration = configure()
        _require_no_bounds_in_burst(configuration, options)
        if options.swap is not SwapMode.NONE:
            _require_counts(configuration)
        pool, record = _introduce(configuration)
        stack.callback(record.close)
        older_pools.check(pool, replaces=options.swap is not SwapMode.NONE)
        for warning in configuration.warnings:
            logger.warning("%s", warning)
        if not options.wait:
            launch.succeed()
        _prepare_image(configuration, options)
        return _manager(
            configuration, options, inbox, logfiles, launch, notifier, pool, record
        ).run()


def _hold_lock(options: RunOptions, stack: contextlib.ExitStack) -> RunOptions:
    """Locks the lock file, and returns the options with the time that is left for the start."""
    if options.lock is None:
        return options
    began = processes.monotonic()
    lock = hold_lock(options.lock, options.swap_timeout if _is_waited_for(options) else None)
    if not options.ends_process:
        stack.callback(os.close, lock)
    left = options.swap_timeout - (processes.monotonic() - began)
    return replace(options, swap_timeout=max(_LEAST_TIME, left))


def _introduce(configuration: Configuration) -> tuple[ThisPool, IdentityRecord]:
    """Lets other pools find this one by its title, and read which site it is of."""
    queues = configuration.counts.queues
    identity = find_identity(configuration.name, configuration.counts)
    record = IdentityRecord(identity, queues)  # first: whoever finds the title reads it
    # A swap that is ready before this pool finds it by its title, and ends it.
    setproctitle(discovery.title(configuration.name, "starting"))
    if not discovery.can_be_found(configuration.name):
        logger.warning(
            "The process title has no room for %r, so that no other pool can find and replace "
            "this one. Start it with more environment variables, or with a shorter name.",
            discovery.title(configuration.name, "").rstrip(),
        )
    return ThisPool(identity, identity.site(queues)), record


def _require_no_bounds_in_burst(configuration: Configuration, options: RunOptions) -> None:
    bounded = configuration.counts.bounded
    if options.burst and bounded:
        raise StartError(
            f"--burst: the count of {bounded[0].name!r} has bounds, and a burst is over before "
            "anything can be measured. Give it a number."
        )


def _require_counts(configuration: Configuration) -> None:
    """Refuses to put an empty pool in the place of one that works."""
    for warning in configuration.warnings:
        if warning.kind in (Kind.UNKNOWN_ENVIRONMENT, Kind.EMPTY_POOL):
            raise StartError(f"{warning} Nothing is replaced.")


def _prepare_image(configuration: Configuration, options: RunOptions) -> None:
    """Imports what jobs import, and makes this process fit to be forked."""
    preload = configuration.preload if options.preload is None else options.preload
    import_jobs(preload, configuration.preload_exclude, _NOTHING_STARTED[options.swap.replaces])
    for group in configuration.counts.groups[:1]:
        redis_clients.rehearse(group)
    manager_connections.close()
    findings = audit()
    refused = [finding.text for finding in findings if finding.counts]
    if refused and options.strict_fork:
        raise ForkError("\n".join(refused))
    for finding in findings:
        logger.log(logging.WARNING if finding.counts else logging.INFO, "%s", finding.text)
    freeze_heap(immortal=configuration.immortal, huge_pages=configuration.huge_pages)


def _manager(
    configuration: Configuration,
    options: RunOptions,
    inbox: signals.SignalInbox,
    logfiles: LogFiles,
    launch: Launch,
    notifier: Notifier,
    pool: ThisPool,
    record: IdentityRecord,
) -> Manager:
    name, stop_rules = configuration.name, configuration.stop_rules
    takeover = _takeover(pool, options)
    outgoing = OutgoingPool(record)

    def release_inherited() -> None:
        launch.become_worker()
        logfiles.become_worker()
        outgoing.close()
        takeover.close()

    identity = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    spawner = Spawner(
        SpawnOptions(
            pool=name,
            stop_rules=stop_rules,
            burst=options.burst,
            tracks_imports=configuration.tracks_imports,
            own_process_groups=not options.single_process_group,
        ),
        EntryPoints(
            run_worker,
            run_recovery,
            partial(run_autoscaling, configuration, identity),
            run_start_hook,
        ),
        reopen_logs=logfiles.reopen,
        release_inherited=release_inherited,
    )
    clean_up = [clean_up_seconds(group, stop_rules) for group in configuration.counts.groups]
    grace = IMMEDIATE_STOP_GRACE + max((seconds or 0.0 for seconds in clean_up), default=0.0)
    manager_options = ManagerOptions(
        name=name,
        stop_rules=stop_rules,
        plan=PlanOptions(options.burst, grace, options.spawn_delay),
        watches_counts=configuration.source.dynamic or bool(configuration.counts.bounded),
        may_hold=options.daemon,
        start_goal=_start_goal(options),
    )
    counts = configuration.counts
    if takeover.replaces:
        counts = starting_counts(pool, counts)
    parts = Parts(inbox, spawner, StatusNotifier(name, launch, notifier), outgoing, takeover)
    return Manager(manager_options, counts, parts)


def _takeover(pool: ThisPool, options: RunOptions) -> NoTakeover:
    if options.swap is SwapMode.NONE:
        return NoTakeover()
    kind = GradualTakeover if options.swap is SwapMode.GRADUAL else Takeover
    return kind(pool, options.swap_timeout)


def _start_goal(options: RunOptions) -> StartGoal | None:
    """What the start has to reach if something waits for it."""
    if not _is_waited_for(options):
        return None
    return StartGoal(
        all_workers=options.swap is SwapMode.HOT,
        until=processes.monotonic() + options.swap_timeout,
    )


def _is_waited_for(options: RunOptions) -> bool:
    """Whether something waits for the start to succeed or fail: a command, or an older pool."""
    return options.swap is not SwapMode.NONE or (options.daemon and options.wait)
