"""Declared: every Django setting and every environment variable that the pool reads.

Rule of the room: one line for each, with its default and its meaning. The code reads them through
these objects, and the documentation's tables are made from them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from ..text import short
from .problems import Kind, Problem
from .validators import Validator, names, pool_name, seconds, whole, yes_or_no


@dataclass(frozen=True)
class Setting:
    """A Django setting of the pool.

    Attributes:
        name: its name in the settings module.
        default: its value if it is not set.
        meaning: what it does, in reStructuredText.
        validator: which values it may have; None: that is found out where it is used.
    """

    name: str
    default: object
    meaning: str
    validator: Validator | None = None

    def value(self) -> Any:
        """The project's value, or the default."""
        return getattr(settings, self.name, self.default)

    def usable(self) -> Any:
        """The project's value; the default if the value cannot be used, which `problem` tells."""
        return self.value() if self.problem() is None else self.default

    def problem(self) -> Problem | None:
        """What is wrong with the project's value, if it cannot be used."""
        wanted = None if self.validator is None else self.validator(self.value())
        if wanted is None:
            return None
        return Problem(
            Kind.SOURCE, f"{self.name}: {short(self.value())} is not {wanted}.", f"Give {wanted}."
        )


@dataclass(frozen=True)
class Variable:
    """An environment variable.

    Attributes:
        name: its name.
        default: its value if it is not set, or None.
        meaning: what it does, in reStructuredText.
    """

    name: str
    default: str | None
    meaning: str

    def value(self) -> str | None:
        """The value in the environment, or the default."""
        return os.environ.get(self.name, self.default)


COUNTS = Setting(
    "RQ_POOL",
    None,
    "The counts: a mapping, the path of a YAML file, or a loader (a callable or its dotted path).",
)
NAME = Setting(
    "RQ_POOL_NAME",
    None,
    "The pool's name, unless ``--name`` gives one. ``None`` takes the first part of the settings "
    "module's name, or, if that is a word such as ``config``, the project's folder.",
    pool_name,
)
LOADER_TIMEOUT = Setting(
    "RQ_POOL_LOADER_TIMEOUT",
    5.0,
    "Seconds that a loader may take. A call that takes longer counts as failed.",
    seconds,
)
PRELOAD = Setting(
    "RQ_POOL_PRELOAD",
    (),
    "Modules to import before the first fork, in addition to the modules ``tasks`` and ``jobs`` "
    "of every installed app: a list of dotted names.",
    names,
)
PRELOAD_EXCLUDE = Setting(
    "RQ_POOL_PRELOAD_EXCLUDE",
    (),
    "What is not imported before the first fork: a list of apps, whose modules ``tasks`` and "
    "``jobs`` are left out, and of dotted names of such modules.",
    names,
)
LEARN_PRELOAD = Setting(
    "RQ_POOL_LEARN_PRELOAD",
    False,
    "Log the modules that jobs import and the manager has not: candidates for "
    "``RQ_POOL_PRELOAD``. ``True`` or ``False``.",
    yes_or_no,
)
IMMORTAL = Setting(
    "RQ_POOL_IMMORTAL",
    False,
    "Make loaded classes, functions and modules immortal on CPython 3.12 and 3.13, so that "
    "workers share more memory. It writes to the interpreter's memory. ``True`` or ``False``.",
    yes_or_no,
)
HUGE_PAGES = Setting(
    "RQ_POOL_HUGE_PAGES",
    True,
    "Keep the loaded image in huge pages where the system can (Linux 6.1), so that each job's fork "
    "costs less. ``True`` or ``False``.",
    yes_or_no,
)
WAIT_REPLICAS = Setting(
    "RQ_POOL_WAIT_REPLICAS",
    0,
    "How many replicas must confirm that a job was begun or settled before the worker goes on. "
    "``0`` waits for none: a failover can then take back what Redis had acknowledged.",
    whole,
)

SETTINGS = (
    COUNTS,
    NAME,
    LOADER_TIMEOUT,
    PRELOAD,
    PRELOAD_EXCLUDE,
    LEARN_PRELOAD,
    IMMORTAL,
    HUGE_PAGES,
    WAIT_REPLICAS,
)

CONFIG_FILE = Variable(
    "RQ_POOL_CONFIG",
    None,
    "A YAML file of counts. It comes after ``--config`` and before the setting ``RQ_POOL``.",
)
POOL_ENVIRONMENT = Variable(
    "RQ_POOL_ENV", None, "The environment of the counts, unless ``--environment`` names one."
)
PROJECT_ENVIRONMENT = Variable(
    "DJANGO_ENV", None, "The same, when ``RQ_POOL_ENV`` is not set either."
)
TERM_CHILD = Variable(
    "TERM_CHILD",
    None,
    "If set to anything, an immediate stop raises ``django_rq_pool.TermException`` in the running "
    "job, so that it can clean up; and QUIT makes the manager leave at once while the workers "
    "finish.",
)
TERM_TIMEOUT = Variable(
    "RQ_TERM_TIMEOUT",
    "4.0",
    "With ``TERM_CHILD``: seconds that the job has to clean up before it is killed.",
)
DYNO = Variable(
    "DYNO",
    None,
    "Set by Heroku. The pool then warns if ``TERM_CHILD`` is not set and TERM means an immediate "
    "stop.",
)

VARIABLES = (CONFIG_FILE, POOL_ENVIRONMENT, PROJECT_ENVIRONMENT, TERM_CHILD, TERM_TIMEOUT, DYNO)
