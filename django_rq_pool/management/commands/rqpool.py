"""``manage.py rqpool``: starts a pool.

Rule of the room: options in, exit status out. It starts nothing itself.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import __version__, log
from ...config import settings
from ...config.settings import Configuration
from ...errors import StartError
from ...startup.job_modules import unknown_exclusions
from ...startup.preload_check import failing_imports
from ...startup.run import run
from ...system.cgroups import usable_resources
from ...text import listed
from ...worker.trial import try_servers
from ..options import add_options, chosen_run_options
from ..summary import server_lines, table


class Command(BaseCommand):
    """The command ``rqpool``."""

    help = (
        "Runs a pool of RQ workers. One manager loads the project once and forks the workers of "
        "every queue group. It replaces workers that die, and stops all on QUIT, INT or TERM."
    )
    # A pool does not need the checks of other apps. Its own system checks check the counts in the
    # settings, which --config or the command line may replace. The command checks what it uses.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Adds the command's options, in groups.

        Args:
            parser: Django's parser for this command.
        """
        add_options(parser)

    def get_version(self) -> str:
        """The version of this package, for ``--version``."""
        return __version__

    _ends_process = False

    def run_from_argv(self, argv: list[str]) -> None:
        """Runs the command of a command line: the process has nothing else to do."""
        self._ends_process = True
        super().run_from_argv(argv)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Renames the options ``stdout`` and ``stderr``, which Django would take for streams.

        ``call_command`` may still pass streams by these names.
        """
        for stream in ("stdout", "stderr"):
            given = options.get(stream)
            options[f"{stream}_file"] = given if isinstance(given, str) else None
            if isinstance(given, str):
                options[stream] = None
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs or checks the pool. On a command line it exits then; ``call_command`` returns.

        Raises:
            CommandError: the pool cannot be started, or the options contradict each other; from
                ``call_command`` also: its start has failed later on.
            SystemExit: on a command line, with the pool's exit status; and with 128 plus its
                number if a signal came before the pool was running.
        """
        if threading.current_thread() is not threading.main_thread():
            raise CommandError("rqpool: call it in the main thread, which handles signals.")
        configure = partial(
            settings.configure,
            command_line=options["counts"],
            config=options["config"],
            environment=options["environment"],
            name=options["name"],
            term=options["term"],
            allow_empty=options["allow_empty"],
        )
        chosen = replace(chosen_run_options(options), ends_process=self._ends_process)
        try:
            with log.set_up(options["verbosity"]):
                if options["check"]:
                    self.check_all(configure(), preload=options["preload"], redis=options["redis"])
                    return
                status = run(configure, chosen)
        except StartError as error:
            raise CommandError(str(error)) from error
        if self._ends_process:
            sys.exit(status)
        if status:
            raise CommandError("rqpool: the start has failed; the log says why.", returncode=status)

    def check_all(self, configuration: Configuration, *, preload: bool, redis: bool) -> None:
        """Prints the queue groups and what they may use to standard output, and the warnings to
        standard error.

        Args:
            configuration: the checked configuration.
            preload: whether to import what a start imports too.
            redis: whether to ask the Redis servers of the queue groups too.

        Raises:
            CommandError: something is wrong, be it that a start of this pool would only warn of it.
        """
        problems = (*configuration.warnings, *settings.problems_elsewhere(configuration))
        for warning in problems:
            if not warning.kind.is_error:
                self.stderr.write(str(warning))
        self.stdout.write(table(configuration))
        self.stdout.write(f"{usable_resources()} may be used")
        errors = [str(each) for each in problems if each.kind.is_error]
        if preload:
            errors += self.check_imports(configuration)
        if redis:
            errors += self.check_servers(configuration)
        if errors:
            raise CommandError("\n".join(errors))

    def check_imports(self, configuration: Configuration) -> list[str]:
        """Imports what a start would import. Prints to standard error what fails, and why.

        Args:
            configuration: the checked configuration.

        Returns:
            Why a start would fail, a sentence at most.
        """
        for sentence in unknown_exclusions(configuration.preload_exclude):
            self.stderr.write(sentence)
        failures = failing_imports(configuration.preload, configuration.preload_exclude)
        for failure in failures:
            self.stderr.write("\n".join(filter(None, (failure.traceback, str(failure)))))
        fatal = [failure.module for failure in failures if failure.fatal]
        if fatal:
            return [f"--preload: a start would fail, because of {listed(fatal)}."]
        self.stdout.write("all modules can be imported" if not failures else "a start would warn")
        return []

    def check_servers(self, configuration: Configuration) -> list[str]:
        """Prints what each Redis server of the queue groups says about a worker's work.

        Args:
            configuration: the checked configuration.

        Returns:
            Why workers cannot work there, a sentence for each reason.
        """
        trials = try_servers(configuration.counts.groups, settings.queue_connections())
        for trial in trials:
            for line in server_lines(trial):
                self.stdout.write(line)
        return [f"redis {each.address}: {error}." for each in trials for error in each.errors]
