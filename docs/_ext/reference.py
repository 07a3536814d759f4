"""Reference: the Sphinx directives whose tables are collected from the code and the benchmarks.

Rule of the room: parsing only; what the tables hold is the business of `tables` and `measured`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util.docutils import SphinxDirective

import measured
import tables
import tried

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


class TableDirective(SphinxDirective):
    """Puts tables in its place."""

    def collect(self) -> Iterable[tables.Table]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # what they are collected from is not known to Sphinx
        found: list[nodes.Node] = []
        for table in self.collect():
            found += self.parse_text_to_nodes(table.as_rst())
        return found


class ReferenceTable(TableDirective):
    """The tables of `tables.TABLES` that have the directive's name."""

    def collect(self) -> Iterable[tables.Table]:
        return tables.TABLES[self.name]()


class TriedTable(TableDirective):
    """The tables of `tried.TABLES` that have the directive's name."""

    def collect(self) -> Iterable[tables.Table]:
        return tried.TABLES[self.name]()


class KeptResults(TableDirective):
    """The tables of a file in which results of the benchmarks are kept, which is the argument."""

    required_arguments = 1

    @property
    def path(self) -> Path:
        return Path(self.env.srcdir) / self.arguments[0]


class SuiteResults(KeptResults):
    """The tables of a run of the suite, and where it was made."""

    def collect(self) -> Iterable[tables.Table]:
        return measured.suite_results(self.path)

    def run(self) -> list[nodes.Node]:
        return [*super().run(), *self.parse_text_to_nodes(measured.circumstances(self.path))]


class StormResults(KeptResults):
    """The table of a run of the storm."""

    def collect(self) -> Iterable[tables.Table]:
        return measured.storm_results(self.path)


class Simulations(TableDirective):
    """What the autoscaling does in simulations."""

    def collect(self) -> Iterable[tables.Table]:
        return measured.simulations()


def setup(app: Sphinx) -> ExtensionMetadata:
    for name in tables.TABLES:
        app.add_directive(name, ReferenceTable)
    for name in tried.TABLES:
        app.add_directive(name, TriedTable)
    app.add_directive("suite-results", SuiteResults)
    app.add_directive("storm-results", StormResults)
    app.add_directive("simulations", Simulations)
    return {"parallel_read_safe": True}
