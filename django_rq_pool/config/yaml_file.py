"""YAML file: reads a file of counts, which is a Django template that renders to YAML.

Rule of the room: a path goes in, plain data or one problem comes out. The template engine does not
use the project's ``TEMPLATES``. A file without template tags renders to itself.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import yaml
from django.template import Context, Engine

from ..system.cgroups import usable_resources
from ..text import in_a_line
from .problems import CountsError, Kind, Problem


def read_yaml(path: str, environment: str | None) -> object:
    """Reads a YAML file of counts.

    The file is rendered as a Django template, like resque-pool's file is ERB. The template may use
    ``env`` (the environment variables), ``hostname``, ``cpu_count`` (how many CPUs this process may
    use), ``memory_limit`` (how many bytes of memory) and ``environment``.

    Args:
        path: the path of the file, relative to the current directory.
        environment: the environment's name or None, for the template.

    Returns:
        The parsed YAML, which may have any type; an empty dict for an empty file.

    Raises:
        CountsError: the file is missing, cannot be read, cannot be rendered, is not YAML, or has
            the same key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _unusable(path, "there is no such file.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(
            path, f"it cannot be read: {error}.", "Give a text file that this user may read."
        ) from error
    rendered = _render(text, path, environment)
    try:
        data = yaml.load(rendered, Loader=_UniqueKeyLoader)  # noqa: S506  # a SafeLoader
    except Exception as error:  # a bad value may raise an exception that is not PyYAML's
        where = "it" if rendered == text else "the rendered template"
        raise _unusable(
            path,
            f"{where} is not YAML: {in_a_line(error).rstrip('.')}.",
            "Write one line for each queue group: its queues, a colon, its count.",
        ) from error
    return {} if data is None else data


def _render(text: str, path: str, environment: str | None) -> str:
    resources = usable_resources()
    context = Context(
        {
            # A copy, because a template could call os.environ.clear().
            "env": dict(os.environ),
            "hostname": socket.gethostname(),
            "cpu_count": resources.cpus,
            "memory_limit": resources.memory,
            "environment": environment,
        },
        autoescape=False,
        use_l10n=False,  # YAML does not know localised numbers
    )
    try:
        # Errors have a line number in debug mode only.
        return Engine(debug=True).from_string(text).render(context)
    except Exception as error:  # a filter may raise anything
        line = getattr(error, "template_debug", {}).get("line")
        raise _unusable(
            path,
            f"{'its template' if line is None else f'line {line}'} cannot be rendered: "
            f"{type(error).__name__}: {in_a_line(error).rstrip('.')}.",
            "The file is rendered as a Django template. "
            "Put text with {{, {% or {# between {% verbatim %} and {% endverbatim %}.",
        ) from error


def _unusable(path: str, text: str, hint: str) -> CountsError:
    return CountsError(Problem(Kind.SOURCE, f"{path}: {text}", hint))


_MOST_KEYS = 10_000
"""Keys that a mapping may have, with those that are merged into it."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice. PyYAML silently keeps the last one."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[yaml.MappingNode] = set()  # a merged mapping is flattened twice

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Checks the keys before a merge (``<<``) adds others, which the mapping may override."""
        self._check_keys(node)
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:  # merges of merges can grow without a limit
            raise yaml.constructor.ConstructorError(
                None, None, f"a mapping has more than {_MOST_KEYS} keys", node.start_mark
            )

    def _check_keys(self, node: yaml.MappingNode) -> None:
        if node in self._checked:
            return
        self._checked.add(node)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
