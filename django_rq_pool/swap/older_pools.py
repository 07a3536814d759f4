"""Older pools: which of the pools that run already this one may replace.

Rule of the room: a name is not enough, for sites share names. A pool is replaced only if it is one
of this site; one of another site is never asked for anything.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from ..config.identity import Identity, Site, site_folder
from ..errors import StartError
from ..ipc import identity_record
from . import discovery
from .discovery import RunningManager

logger = logging.getLogger("django_rq_pool")


@dataclass(frozen=True)
class ThisPool:
    """This pool, as it looks for older ones.

    Attributes:
        identity: which pool it is.
        site: its site when it started.
        directory: the directory that it works in.
    """

    identity: Identity
    site: Site
    directory: str = field(default_factory=lambda: str(Path.cwd()))

    @property
    def name(self) -> str:
        """The name of the pool."""
        return self.identity.name


@dataclass(frozen=True)
class OlderPools:
    """The managers of older pools; whoever has them closes each.

    Attributes:
        own: those of this site, the oldest first.
        foreign: those of other sites that have the name of this pool.
    """

    own: list[RunningManager]
    foreign: list[RunningManager]

    def close(self) -> None:
        """Closes all."""
        for manager in (*self.own, *self.foreign):
            manager.close()


def find(pool: ThisPool) -> OlderPools:
    """Finds the pools of this one's name that are older than this process.

    Under the name that an earlier version gave to this pool, only those of its site are found.

    Args:
        pool: this pool.
    """
    found = OlderPools([], [])
    for name in filter(None, (pool.identity.former_name, pool.name)):
        sites = {each: identity_record.read(each.pid) for each in discovery.find_older(name)}
        telling = {manager.pid for manager, site in sites.items() if site is not None}
        for manager, site in sites.items():
            if site is None and manager.parent() in telling:
                manager.close()  # a worker of that pool, which has the manager's title at first
            elif _is_of_site(manager, site, pool):
                found.own.append(manager)
            elif name == pool.name:
                found.foreign.append(manager)
            else:
                manager.close()
    return found


def find_own(pool: ThisPool) -> list[RunningManager]:
    """Finds only those of this site, the oldest first; the caller closes each.

    Args:
        pool: this pool.
    """
    found = find(pool)
    for manager in found.foreign:
        manager.close()
    return found.own


def _is_of_site(manager: RunningManager, site: Site | None, pool: ThisPool) -> bool:
    if site is not None:
        return pool.site.is_same(site)
    # A pool of an earlier version says nothing. Most are started in the folder of the project.
    folder = manager.folder()
    return folder is not None and (
        site_folder(folder) == site_folder(pool.directory) or pool.site.is_in(folder)
    )


def check(pool: ThisPool, *, replaces: bool) -> None:
    """Looks at the older pools when this one starts, and warns of those that stay beside it.

    Args:
        pool: this pool.
        replaces: whether it is to replace older ones.

    Raises:
        StartError: it is to replace some, and all that have its name are of other sites.
    """
    older = find(pool)
    try:
        if replaces and older.foreign and not older.own:
            raise StartError(f"{_of_another_site(older.foreign[0])} Nothing is replaced.")
        for manager in older.foreign:
            logger.warning("%s It is left alone.", _of_another_site(manager))
        for manager in [] if replaces else older.own:
            logger.warning(
                "manager %d%s already runs a pool of this site and name, %s, so its workers and "
                "these add up. To replace it, start with --hot-swap; to run both, give one another "
                "name (--name).",
                manager.pid,
                _place(manager),
                manager.name,
            )
    finally:
        older.close()


def _of_another_site(manager: RunningManager) -> str:
    silent = identity_record.read(manager.pid) is None
    why = "works in another directory" if silent else "serves none of its queues"
    return (
        f"The pool of manager {manager.pid}{_place(manager)} has the name of this one, "
        f"{manager.name}, but {why} and is of another site. Give this pool a name of its own "
        f"(--name, RQ_POOL_NAME), or stop the other one: kill -QUIT {manager.pid}."
    )


def _place(manager: RunningManager) -> str:
    theirs = identity_record.read(manager.pid)
    folder = manager.folder() if theirs is None else theirs.folder
    return f" in {folder}" if folder else ""
