"""The documentation as the tests see it: its pages, and the examples in them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.rst"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(page for page in DOCS.rglob("*.rst") if "_build" not in page.parts)]


@dataclass(frozen=True)
class Example:
    """A ``code-block`` of a page.

    Attributes:
        page: where it stands.
        language: what it is written in.
        name: its ``:name:``, or nothing.
        text: what is in it, without the indentation.
    """

    page: Path
    language: str
    name: str
    text: str

    def __str__(self) -> str:
        return self.name or f"{self.page.relative_to(ROOT)}: {self.text.splitlines()[0]}"


BLOCK = re.compile(
    r"^\.\. code-block:: (?P<language>\S+)\n"
    r"(?P<options>(?:   :.*\n)*)"
    r"(?P<text>(?:   .*\n|\n)+)",
    re.MULTILINE,
)


def _examples() -> Iterator[Example]:
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text() + "\n"):
            name = re.search(r":name: (\S+)", block["options"])
            text = textwrap.dedent(block["text"]).strip("\n") + "\n"
            yield Example(page, block["language"], name[1] if name else "", text)


EXAMPLES = list(_examples())


def example(name: str) -> str:
    """The text of the one example of this name."""
    (found,) = (each.text for each in EXAMPLES if each.name == name)
    return found
