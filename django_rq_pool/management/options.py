"""Options: what can be said on the command line of ``rqpool``, and what it comes to.

Rule of the room: an option is declared here and converted here. Nothing is started or read.
"""

from __future__ import annotations

from argparse import _ArgumentGroup as ArgumentGroup
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..config.stop_policy import TermPolicy
from ..ipc import swap_channel
from ..startup import run_options
from ..startup.run_options import RunOptions, SwapMode

TERM_OPTIONS = {
    TermPolicy.IMMEDIATE: "interrupt running jobs and leave no process behind (default)",
    TermPolicy.GRACEFUL_WAIT: "finish running jobs, leave after the last worker",
    TermPolicy.GRACEFUL: "leave at once; workers finish their jobs on their own",
}
"""The help of the options that set what TERM does."""


def add_options(parser: CommandParser) -> None:
    """Adds the command's options to its parser, in groups.

    Args:
        parser: Django's parser for the command.
    """
    _add_what(parser.add_argument_group("what the pool is"))
    _add_running(parser.add_argument_group("how it runs"))
    _add_files(parser.add_argument_group("its files (missing folders are created)"))
    _add_replacing(parser.add_argument_group("how it replaces older pools"))
    term = parser.add_argument_group("what TERM does").add_mutually_exclusive_group()
    for policy, meaning in TERM_OPTIONS.items():
        term.add_argument(
            f"--term-{policy.value}",
            dest="term",
            action="store_const",
            const=policy,
            default=TermPolicy.IMMEDIATE,
            help=meaning,
        )


def _add_what(what: ArgumentGroup) -> None:
    what.add_argument(
        "counts",
        nargs="*",
        metavar="QUEUES=COUNT",
        help="a queue group and its count, such as high,default=4; "
        "replaces every other source of counts",
    )
    what.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="a YAML file of counts (default: $RQ_POOL_CONFIG, the setting RQ_POOL, "
        "rqpool.yml, config/rqpool.yml)",
    )
    what.add_argument(
        "-E",
        "--environment",
        metavar="NAME",
        help="the environment, a section of the counts that overrides the root "
        "(default: $RQ_POOL_ENV, $DJANGO_ENV)",
    )
    what.add_argument(
        "-a",
        "--name",
        "--appname",
        metavar="NAME",
        help="the pool's name in process titles, logs and worker names (default: the setting "
        "RQ_POOL_NAME, the project's name)",
    )
    what.add_argument(
        "--allow-empty",
        action="store_true",
        help="start without any queue group, because HUP or a loader will bring some",
    )
    what.add_argument(
        "--check",
        action="store_true",
        help="print the queue groups and start nothing; the exit status is 0 if they, and those of "
        "every environment, can be used",
    )
    what.add_argument(
        "--preload",
        action="store_true",
        help="with --check: import too what a start imports before the first fork",
    )
    what.add_argument(
        "--redis",
        action="store_true",
        help="with --check: ask each Redis server whether workers can work there, and print what "
        "its user lacks",
    )


def _add_running(running: ArgumentGroup) -> None:
    running.add_argument(
        "-d",
        "--daemon",
        action="store_true",
        help="detach from the terminal; the command returns when each group has a ready "
        "worker, or fails with the reason",
    )
    running.add_argument(
        "--no-wait",
        dest="wait",
        action="store_false",
        help="with --daemon: return as soon as the counts are known",
    )
    running.add_argument(
        "--burst",
        action="store_true",
        help="stop when every worker has found its queues empty",
    )
    running.add_argument(
        "-s",
        "--spawn-delay",
        type=int,
        default=0,
        metavar="MS",
        help="milliseconds between two forks (default: %(default)s)",
    )
    running.add_argument(
        "--single-process-group",
        action="store_true",
        help="keep workers in the manager's process group, so that one kill reaches them all",
    )
    running.add_argument(
        "--strict-fork",
        action="store_true",
        help="refuse to start, instead of warning, if the manager has threads or open sockets "
        "that are not safe to fork",
    )


def _add_files(files: ArgumentGroup) -> None:
    files.add_argument(
        "-o",
        "--stdout",
        metavar="FILE",
        help=f"append standard output to a file (default of a daemon: {run_options.DAEMON_STDOUT})",
    )
    files.add_argument(
        "-e",
        "--stderr",
        metavar="FILE",
        help=f"append standard error to a file (default of a daemon: {run_options.DAEMON_STDERR})",
    )
    files.add_argument(
        "--nosync",
        dest="sync",
        action="store_false",
        help="write standard output in blocks instead of line by line",
    )
    pidfile = files.add_mutually_exclusive_group()
    pidfile.add_argument(
        "-p",
        "--pidfile",
        metavar="FILE",
        help="write the manager's pid to a file "
        f"(default of a daemon without --hot-swap: {run_options.DAEMON_PIDFILE})",
    )
    pidfile.add_argument("--no-pidfile", action="store_true", help="write no pid file")
    files.add_argument(
        "-l",
        "--lock",
        metavar="FILE",
        help="lock a file in shared mode until the last process of the pool has ended "
        f"(default with --hot-swap: {run_options.HOT_SWAP_LOCK})",
    )


def _add_replacing(replacing: ArgumentGroup) -> None:
    replacing.add_argument(
        "-k",
        "--kill-others",
        action="store_true",
        help="stop older pools of this name gracefully, once each group has a ready worker",
    )
    replacing.add_argument(
        "-H",
        "--hot-swap",
        action="store_true",
        help="the same, once every worker is ready; if that fails, leave with an error and do "
        "not touch the older pools",
    )
    replacing.add_argument(
        "--swap-step",
        action="store_true",
        help="a hot swap worker by worker, for hosts without memory for two pools: each group "
        "has at most one worker too many (Linux only)",
    )
    replacing.add_argument(
        "--swap-timeout",
        type=float,
        default=run_options.SWAP_TIMEOUT,
        metavar="SECONDS",
        help="how long a daemon or a hot swap may take to be ready (default: %(default)g)",
    )


def chosen_run_options(options: Mapping[str, Any]) -> RunOptions:
    """Converts the command's options.

    Args:
        options: the options as Django parsed them.

    Raises:
        CommandError: the options contradict each other, or a value cannot be used.
    """
    if options["counts"] and options["config"]:
        raise CommandError("--config: counts on the command line replace it. Give one of the two.")
    if options["redis"] and not options["check"]:
        raise CommandError("--redis: the servers are asked by --check only. Add --check.")
    if not (options["wait"] or options["daemon"]):
        raise CommandError("--no-wait: the command waits for a daemon only. Add --daemon.")
    if options["preload"] and not options["check"]:
        raise CommandError("--preload: a start imports the modules anyway. Add --check.")
    if options["spawn_delay"] < 0:
        raise CommandError("--spawn-delay: give a number of milliseconds, 0 or more.")
    if not options["swap_timeout"] > 0:
        raise CommandError("--swap-timeout: give a number of seconds above 0.")
    if options["swap_step"] and not swap_channel.available():
        raise CommandError("--swap-step: this system does not support it. Use --hot-swap.")
    daemon = options["daemon"]
    hot_swap = _swap_mode(options) in (SwapMode.HOT, SwapMode.GRADUAL)
    has_pidfile = daemon and not hot_swap and not options["no_pidfile"]
    return RunOptions(
        burst=options["burst"],
        strict_fork=options["strict_fork"],
        daemon=daemon,
        wait=options["wait"],
        stdout=options["stdout_file"] or (run_options.DAEMON_STDOUT if daemon else None),
        stderr=options["stderr_file"] or (run_options.DAEMON_STDERR if daemon else None),
        sync=options["sync"],
        pidfile=options["pidfile"] or (run_options.DAEMON_PIDFILE if has_pidfile else None),
        lock=options["lock"] or (run_options.HOT_SWAP_LOCK if hot_swap else None),
        spawn_delay=options["spawn_delay"] / 1000,
        single_process_group=options["single_process_group"],
        swap=_swap_mode(options),
        swap_timeout=options["swap_timeout"],
    )


def _swap_mode(options: Mapping[str, Any]) -> SwapMode:
    if options["swap_step"]:
        return SwapMode.GRADUAL
    if options["hot_swap"]:
        return SwapMode.HOT
    return SwapMode.KILL_OTHERS if options["kill_others"] else SwapMode.NONE
