"""Identity: which site a pool is of, and what the pool is called if nobody says it.

Rule of the room: names, folders and keys go in, names and answers come out. Nothing is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

LONGEST_NAME = 100
"""The most characters of a pool's name: a process title has little room."""

_NO_NAMES = (
    "app application apps backend base code common conf config configs configuration core django "
    "django_project djangoproject main proj project projects root server settings site source src "
    "web www"
)
"""Names of packages and folders that many sites share."""

_SYSTEM_FOLDERS = (
    "bin data deploy deployments deploys dist-packages env home htdocs html lib lib64 local mnt "
    "opt public release releases site-packages srv tmp users usr var venv vhosts virtualenv"
)
"""Names of folders that say nothing of a site."""

_VERSION = re.compile(
    r"latest|(release[-_.]?|python)?v?\d+([._-]\d+)+|(release[-_.]?|python|v)\d+|"
    r"(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,12}",
    re.IGNORECASE,
)
"""A folder of one version or commit of a site, or of Python."""

_LINKS = ("current", "previous")
"""Links to releases, beside the folder of them."""

_DATE = re.compile(r"20\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?([0-2]\d|3[01])[-_.T\d]*Z?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def unusable_name(name: object) -> str | None:
    """Why a pool cannot have a name; a `Validator`.

    Args:
        name: the name.

    Returns:
        What it must be, or None if it can be used.
    """
    if (
        isinstance(name, str)
        and 0 < len(name) <= LONGEST_NAME
        and name.isprintable()
        and not name.isspace()
        and "]" not in name
    ):
        return None
    return f"a name of 1 to {LONGEST_NAME} printable characters without ']'"


def default_name(module: str, folder: str | None) -> str:
    """The name of a pool that is given none.

    It is the first part of the name of the settings module. If that is a word such as ``config``,
    which tells no site from another, it is the folder of the project instead, or the nearest one
    above it that is not such a word, nor the folder of a release or of the system.

    Args:
        module: the dotted name of the settings module.
        folder: see `project_folder`; None if nobody knows it.
    """
    first = module.partition(".")[0]
    if first.lower() not in _NO_NAMES.split():
        return first
    for part in reversed(PurePath(site_folder(folder or "")).parts):
        if _is_telling(part):
            return part
    return first


def _is_telling(part: str) -> bool:
    lower = part.lower()
    return not (
        lower in _NO_NAMES.split()
        or lower in _SYSTEM_FOLDERS.split()
        or lower.startswith(".")
        or _VERSION.fullmatch(part)
        or unusable_name(part)
    ) and any(map(str.isalnum, part))


def project_folder(module: str, file: str) -> str:
    """The folder of a project: where its settings module's first package is, beside ``manage.py``.

    Args:
        module: the dotted name of the settings module.
        file: the path of that module's file, without symbolic links.
    """
    path = PurePath(file)
    if path.stem == "__init__":
        path = path.parent
    return str(path.parents[module.count(".")])


def site_folder(folder: str) -> str:
    """A folder without the parts that differ between two releases of one site.

    Such parts are ``current``, ``previous``, a folder in ``releases``, one whose name is a date
    (and time), and one whose name is a whole commit id.

    Args:
        folder: the absolute path of a folder, without symbolic links.
    """
    kept: list[str] = []
    after_releases = False
    for part in PurePath(folder).parts:
        dropped = part in _LINKS or part == "releases" or after_releases
        if not (dropped or _DATE.fullmatch(part) or _COMMIT.fullmatch(part)):
            kept.append(part)
        after_releases = part == "releases"
    return str(PurePath(*kept)) if kept else folder


@dataclass(frozen=True)
class Site:
    """What tells one site from another.

    Attributes:
        folder: the folder of the project.
        serves: for each queue that the pool serves, what stands for its place: the server, the
            database and the key of the queue.
    """

    folder: str
    serves: frozenset[str]

    def is_same(self, other: Site) -> bool:
        """Whether another pool is one of this site.

        It is if both serve a queue at the same place, for a deploy may add and remove queues, and
        two sites that shared one would run each other's jobs. It also is if it has the same folder,
        or one of another release.

        Args:
            other: the other pool's.
        """
        return bool(self.serves & other.serves) or self.is_in(other.folder)

    def is_in(self, folder: str) -> bool:
        """Whether a folder is this site's; it may be that of another release.

        Args:
            folder: the absolute path of the folder, without symbolic links.
        """
        return site_folder(self.folder) == site_folder(folder)


@dataclass(frozen=True)
class Identity:
    """Which pool this is.

    Attributes:
        name: its name.
        former_name: the name that earlier versions gave to this pool, if it was another one.
        folder: the folder of the project.
        places: for each queue of the project, what stands for its place; see `Site`. A queue on
            servers with several addresses has several.
    """

    name: str
    former_name: str | None
    folder: str
    places: Mapping[str, frozenset[str]]

    def site(self, queues: Iterable[str]) -> Site:
        """The site of this pool.

        Args:
            queues: the names of the queues that it serves now.
        """
        known = (self.places.get(queue, frozenset()) for queue in queues)
        return Site(self.folder, frozenset().union(*known))
