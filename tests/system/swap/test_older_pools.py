"""Which older pools are of this one's site, told by processes that say what managers say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conversations import Conversation
from django_rq_pool.ipc import identity_record
from django_rq_pool.swap.discovery import title
from django_rq_pool.system import process_files

NAME = f"{os.getpid()}site"
"""A name of this run's own: other pools of this user's may live on this machine."""

MANAGER = """
import sys
from django_rq_pool.config.identity import Identity
from django_rq_pool.ipc.identity_record import IdentityRecord

folder, *queues = sys.argv[1:]
identity = Identity("", None, folder, {each: frozenset([each]) for each in queues})
record = IdentityRecord(identity, queues)
print("here", flush=True)
for line in sys.stdin:
    record.update(line.split())
    print("updated", flush=True)
"""

SILENT = """
import sys
print("here", flush=True)
sys.stdin.readline()
"""

CHECK = """
import logging, sys
from django_rq_pool.config.identity import Identity
from django_rq_pool.errors import StartError
from django_rq_pool.swap import older_pools

logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
what, name, former, folder, *queues = sys.argv[1:]
identity = Identity(name, former or None, folder, {each: frozenset([each]) for each in queues})
pool = older_pools.ThisPool(identity, identity.site(queues))
if what == "find":
    found = older_pools.find(pool)
    print([each.pid for each in found.own], [each.pid for each in found.foreign], flush=True)
else:
    try:
        older_pools.check(pool, replaces=what == "replaces")
    except StartError as error:
        print(error, flush=True)
    print("looked", flush=True)
"""

StartManager = Callable[..., Conversation]

needs_records = pytest.mark.skipif(
    not process_files.available(), reason="this system has no /proc/PID/fd"
)


@pytest.fixture
def manager(talk: Callable[..., Conversation]) -> StartManager:
    """Starts what looks like the manager of a pool and says which site it is of."""

    def start(folder: str, *queues: str, name: str = NAME) -> Conversation:
        process = talk(MANAGER, folder, *queues, title=title(name, "managing []"))
        assert process.hear() == "here"
        return process

    return start


@pytest.fixture
def earlier(talk: Callable[..., Conversation], tmp_path: Path) -> StartManager:
    """Starts what looks like the manager of a pool of an earlier version, which says nothing."""

    def start(folder: str, name: str = NAME) -> Conversation:
        cwd = tmp_path / folder
        cwd.mkdir(parents=True, exist_ok=True)
        process = talk(SILENT, title=title(name, "managing []"), cwd=cwd)
        assert process.hear() == "here"
        return process

    return start


@pytest.fixture
def look(talk: Callable[..., Conversation]) -> Callable[..., list[str]]:
    """What a new pool of a site says of older ones."""

    def look(
        what: str, folder: object, *queues: str, name: str = NAME, former: str = "", **options
    ) -> list[str]:
        process = talk(CHECK, what, name, former, folder, *queues, **options)
        said = []
        while line := process.hear():
            said.append(line)
        assert process.wait() == 0
        return said

    return look


@needs_records
def test_pools_of_this_site_are_told_from_those_of_others_that_have_its_name(manager, look):
    same_queue = manager("/srv/a", "high", "low")
    other_site = manager("/srv/b", "theirs")
    same_folder = manager("/srv/c/releases/1")
    assert look("find", "/srv/c/releases/2", "high", "new") == [
        f"[{same_queue.pid}, {same_folder.pid}] [{other_site.pid}]"
    ]


@needs_records
def test_what_a_pool_serves_after_a_reload_counts(manager, look):
    pool = manager("/srv/a", "high", "low")
    own, foreign = f"[{pool.pid}] []", f"[] [{pool.pid}]"
    for serves, seen in (("low", foreign), ("", foreign), ("high low", own), ("high", own)):
        assert pool.say(serves).hear() == "updated"
        assert look("find", "/srv/b", "high") == [seen]


FORKS_A_WORKER = MANAGER.replace(
    'print("here"',
    """\
over, ours = os.pipe()
if os.fork() == 0:
    os.close(ours)
    record.close()  # and has its manager's title until it sets its own
    os.read(over, 1)
    os._exit(0)
print("here\"""",
).replace("import sys", "import os, sys")


@needs_records
def test_a_worker_that_still_has_its_managers_title_is_no_pool(talk, look):
    pool = talk(FORKS_A_WORKER, "/srv/a", "high", title=title(NAME, "managing []"))
    assert pool.hear() == "here"
    assert look("find", "/srv/a", "high") == [f"[{pool.pid}] []"]
    assert look("find", "/srv/b", "low") == [f"[] [{pool.pid}]"]


@needs_records
def test_a_record_is_read_whole_whenever_it_is_read(manager):
    many = [f"queue-{number}" for number in range(2_000)]
    pool = manager("/srv/a", *many)
    for number in range(200):
        pool.say("queue-1" if number % 2 else " ".join(many))
        seen = identity_record.read(pool.pid)
        assert seen is not None
        assert len(seen.serves) in (1, len(many))
        assert pool.hear() == "updated"


def test_a_pool_of_an_earlier_version_is_told_by_the_directory_that_it_works_in(
    earlier, look, tmp_path
):
    here = earlier("shop")
    there = earlier("blog")
    assert look("find", "/elsewhere", cwd=tmp_path / "shop") == [f"[{here.pid}] [{there.pid}]"]
    next_release = tmp_path / "shop" / "releases" / "2"
    next_release.mkdir(parents=True)
    assert look("find", "/elsewhere", cwd=next_release) == [f"[{here.pid}] [{there.pid}]"]
    assert look("find", tmp_path / "blog") == [f"[{there.pid}] [{here.pid}]"]


def test_to_replace_one_that_works_elsewhere_is_refused(earlier, look, tmp_path):
    other = earlier("blog")
    refusal, _ = look("replaces", tmp_path / "shop")
    assert refusal.startswith(
        f"The pool of manager {other.pid} in {tmp_path / 'blog'} has the name of this one, {NAME}, "
        "but works in another directory and is of another site."
    )


def test_one_whose_release_has_been_removed_is_still_told(earlier, look, tmp_path):
    old = earlier("shop/releases/1")
    (tmp_path / "shop" / "releases" / "1").rmdir()
    assert look("find", tmp_path / "shop" / "releases" / "2") == [f"[{old.pid}] []"]


def test_under_the_name_that_it_had_in_an_earlier_version_only_pools_of_this_site_are_found(
    earlier, look, tmp_path
):
    old = earlier("shop", name=f"{NAME}-former")
    earlier("blog", name=f"{NAME}-former")
    former = f"{NAME}-former"
    assert look("find", tmp_path / "shop", former=former) == [f"[{old.pid}] []"]
    assert look("replaces", tmp_path / "corner", former=former) == ["looked"]


@pytest.mark.parametrize("what", ["replaces", "stays beside"])
def test_where_there_is_no_older_pool_nothing_is_said(look, what):
    assert look(what, "/srv/a", "high") == ["looked"]


@needs_records
def test_to_replace_a_pool_of_another_site_is_refused_with_what_to_do(manager, look):
    other = manager("/srv/b", "theirs")
    refusal, _ = look("replaces", "/srv/a", "high")
    assert refusal == (
        f"The pool of manager {other.pid} in /srv/b has the name of this one, {NAME}, but serves "
        "none of its queues and is of another site. Give this pool a name of its own (--name, "
        f"RQ_POOL_NAME), or stop the other one: kill -QUIT {other.pid}. Nothing is replaced."
    )


@needs_records
def test_beside_a_pool_of_its_own_one_of_another_site_is_left_alone_with_a_warning(manager, look):
    manager("/srv/a", "high")
    other = manager("/srv/b", "theirs")
    warning, looked = look("replaces", "/srv/a", "high")
    assert warning.startswith(f"WARNING The pool of manager {other.pid} in /srv/b has the name of")
    assert warning.endswith("It is left alone.")
    assert looked == "looked"


@needs_records
def test_a_start_beside_a_pool_of_its_site_warns_that_the_workers_add_up(manager, look):
    old = manager("/srv/a", "high")
    assert look("stays beside", "/srv/a", "high") == [
        f"WARNING manager {old.pid} in /srv/a already runs a pool of this site and name, {NAME}, "
        "so its workers and these add up. To replace it, start with --hot-swap; to run both, give "
        "one another name (--name).",
        "looked",
    ]


def test_a_start_beside_a_pool_of_an_earlier_version_names_its_directory(earlier, look, tmp_path):
    old = earlier("shop")
    warning, _ = look("stays beside", tmp_path / "shop")
    assert warning.startswith(f"WARNING manager {old.pid} in {tmp_path / 'shop'} already runs")
