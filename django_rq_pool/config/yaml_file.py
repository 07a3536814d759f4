"""The YAML file of counts: rendered as a Django template, then parsed.

Rule of the room: text in, plain data or one sentence out. The template engine is its own, so that
the project's ``TEMPLATES`` has no say; a file without template tags is rendered to itself.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import yaml
from django.template import Context, Engine

from ..text import in_a_line
from .problems import CountsError, Kind, Problem


def read_yaml(path: str, environment: str | None) -> object:
    """Reads a YAML file of counts.

    The file is a Django template first, as resque-pool's is ERB. It may use ``env`` (the process's
    environment variables), ``hostname``, ``cpu_count`` (the CPUs that this process may use) and
    ``environment``.

    Args:
        path: the file, from the current directory.
        environment: the environment's name or None, for the template.

    Returns:
        What the file holds; an empty mapping for an empty file.

    Raises:
        CountsError: the file is missing, cannot be read, is no template, is not YAML, or has a key
            twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _unusable(path, "there is no such file.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(
            path, f"it cannot be read: {error}.", "It must be a text file that this user may read."
        ) from error
    rendered = _render(text, path, environment)
    try:
        data = yaml.load(rendered, Loader=_UniqueKeyLoader)  # noqa: S506  # a SafeLoader
    except Exception as error:  # beside its own errors PyYAML lets those of bad values through
        where = "it" if rendered == text else "what its template renders to"
        raise _unusable(
            path,
            f"{where} is not YAML: {in_a_line(error).rstrip('.')}.",
            "Write one line for each queue group: names: count.",
        ) from error
    return {} if data is None else data


def _render(text: str, path: str, environment: str | None) -> str:
    context = Context(
        {
            # A copy: a template calls what it names, and os.environ has clear().
            "env": dict(os.environ),
            "hostname": socket.gethostname(),
            "cpu_count": _cpu_count(),
            "environment": environment,
        },
        autoescape=False,
        use_l10n=False,  # a number is for YAML, not for people
    )
    try:
        # Only in debug mode does an error know its line.
        return Engine(debug=True).from_string(text).render(context)
    except Exception as error:  # a filter lets through whatever its value raises
        line = getattr(error, "template_debug", {}).get("line")
        raise _unusable(
            path,
            f"{'its template' if line is None else f'line {line}'} cannot be rendered: "
            f"{type(error).__name__}: {in_a_line(error).rstrip('.')}.",
            "The file is a Django template before it is YAML: "
            "put text with {{, {% or {# between {% verbatim %} and {% endverbatim %}.",
        ) from error


def _cpu_count() -> int:
    """The CPUs that this process may use, which in a container can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _unusable(path: str, text: str, hint: str) -> CountsError:
    return CountsError(Problem(Kind.SOURCE, f"{path}: {text}", hint))


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys and says nothing; here it is an error."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[yaml.MappingNode] = set()  # a merged mapping is flattened again

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Looks at the keys before those of a merge (``<<``) come among them, where one that the
        mapping overrides is no repetition."""
        self._check_keys(node)
        super().flatten_mapping(node)

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
