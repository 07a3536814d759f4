"""``manage.py rqpool``: options in, exit status out."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import __version__, conf, log, pool
from ...audit import ForkError
from ...conf import Configuration
from ...logfiles import LogFileError, LogFiles
from ...phases import TermPolicy
from ...problems import CountsError

TERM_OPTIONS = {
    TermPolicy.IMMEDIATE: "end running jobs, account for them, leave nobody behind (default)",
    TermPolicy.GRACEFUL_WAIT: "finish running jobs, leave when the last worker is gone",
    TermPolicy.GRACEFUL: "leave at once, workers finish their jobs on their own",
}


class Command(BaseCommand):
    help = (
        "Runs a pool of RQ workers: one manager loads the project once and forks every worker of "
        "every queue group, replaces those that die, and stops them all on QUIT, INT or TERM."
    )
    # Other apps' checks are not the pool's business, and its own speak of the counts in the
    # settings, which --config or the command line may replace. The command checks what it uses.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "counts",
            nargs="*",
            metavar="QUEUES=COUNT",
            help="a queue group and its count, such as high,default=4; "
            "replaces every other source of counts",
        )
        parser.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            help="a YAML file of counts (default: $RQ_POOL_CONFIG, the setting RQ_POOL, "
            "rqpool.yml, config/rqpool.yml)",
        )
        parser.add_argument(
            "-E",
            "--environment",
            metavar="NAME",
            help="the section of the counts that overrides the others "
            "(default: $RQ_POOL_ENV, $DJANGO_ENV)",
        )
        parser.add_argument(
            "-a",
            "--name",
            "--appname",
            metavar="NAME",
            help="the pool's name in titles, logs and worker names (default: the project's)",
        )
        parser.add_argument(
            "--burst",
            action="store_true",
            help="end when every worker has found its queues empty",
        )
        term = parser.add_mutually_exclusive_group()
        for policy, meaning in TERM_OPTIONS.items():
            term.add_argument(
                f"--term-{policy.value}",
                dest="term",
                action="store_const",
                const=policy,
                default=TermPolicy.IMMEDIATE,
                help=f"TERM means: {meaning}",
            )
        for stream in ("stdout", "stderr"):
            parser.add_argument(
                f"--{stream}",
                metavar="FILE",
                help=f"append standard {'output' if stream == 'stdout' else 'error'} to a file; "
                "HUP opens it anew",
            )
        parser.add_argument(
            "--nosync",
            action="store_true",
            help="write standard output in blocks, not each line at once",
        )
        parser.add_argument(
            "--strict-fork",
            action="store_true",
            help="refuse to start when threads or open sockets would be forked; else warn",
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="print the queue groups and exit, 0 if they can be used; start nothing",
        )

    def get_version(self) -> str:
        return __version__

    def handle(self, *args: Any, **options: Any) -> None:
        log.set_up(options["verbosity"])
        configure = partial(
            conf.configure,
            command_line=options["counts"],
            config=options["config"],
            environment=options["environment"],
            name=options["name"],
            term=options["term"],
        )
        try:
            if options["check"]:
                self.check_counts(configure())
                return
            logfiles = LogFiles(options["stdout"], options["stderr"], sync=not options["nosync"])
            status = pool.run(
                configure,
                burst=options["burst"],
                strict_fork=options["strict_fork"],
                logfiles=logfiles,
            )
        except (CountsError, LogFileError, ForkError) as error:
            raise CommandError(str(error)) from error
        sys.exit(status)

    def check_counts(self, configuration: Configuration) -> None:
        for warning in configuration.warnings:
            self.stderr.write(str(warning))
        self.stdout.write(table(configuration))


def table(configuration: Configuration) -> str:
    """The queue groups as lines of text, for people."""
    heading = f"pool {configuration.name}, counts from: {configuration.source.name}"
    if configuration.environment:
        heading += f", environment: {configuration.environment}"
    rows = [("GROUP", "WORKERS", "QUEUES", "OPTIONS")]
    for group in configuration.groups:
        given = (f"{name}={value}" for name, value in group.options.given().items())
        workers = str(group.bounds or group.workers)
        rows.append((group.name, workers, " ".join(group.queues), " ".join(given) or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    least = sum(group.workers for group in configuration.groups)
    most = sum(
        group.bounds.max if group.bounds else group.workers for group in configuration.groups
    )
    total = f"{least} workers" if least == most else f"{least} to {most} workers"
    return "\n".join([heading, *(line.rstrip() for line in lines), total])
