"""Which site the settings say a pool is of."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from django.conf import settings
from django.test import override_settings

from django_rq_pool.config.groups import Counts, parse_counts
from django_rq_pool.config.project import find_identity, project_name
from harness import ROOT

NO_COUNTS = Counts(())


def places(queue: object, counts: Counts = NO_COUNTS, name: str = "high") -> frozenset[str]:
    with override_settings(RQ_QUEUES={name: queue}):
        return find_identity("shop", counts).places[name]


@pytest.fixture
def generic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release of a site whose settings module is called as everybody's is; and a link to it."""
    release = tmp_path / "corner" / "releases" / "20261128"
    release.mkdir(parents=True)
    (tmp_path / "corner" / "current").symlink_to(release)
    module = ModuleType("config.settings")
    module.__file__ = str(tmp_path / "corner" / "current" / "config" / "settings.py")
    monkeypatch.setitem(sys.modules, "config.settings", module)
    monkeypatch.setattr(settings, "SETTINGS_MODULE", "config.settings")
    return release


def test_a_project_with_a_name_of_its_own_has_it_as_before():
    identity = find_identity("shop", NO_COUNTS)
    assert project_name() == "shop"
    assert identity.former_name is None
    assert identity.folder == str(ROOT / "testproject")


def test_one_without_is_called_after_its_folder_and_knows_what_it_was_called(generic):
    assert project_name() == "corner"
    identity = find_identity("corner", NO_COUNTS)
    assert identity.former_name == "config"
    assert identity.folder == str(generic)


def test_a_name_that_was_given_has_no_former_one(generic):
    assert find_identity("config", NO_COUNTS).former_name is None
    assert find_identity("own", NO_COUNTS).former_name is None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"URL": "redis://localhost/0"}, {"HOST": "127.0.0.1", "PORT": 6379, "DB": 0}),
        ({"URL": "redis://:secret@cache/3"}, {"URL": "rediss://user:other@CACHE:6379/3"}),
        ({"URL": "redis://cache/0"}, {"URL": "redis://cache"}),
        ({"UNIX_SOCKET_PATH": "/run/a.sock", "DB": 1}, {"URL": "unix:///run/./a.sock?db=1"}),
    ],
)
def test_the_place_of_a_queue_is_its_server_and_database_however_they_are_written(one, two):
    assert places(one) == places(two) != frozenset()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"URL": "redis://cache/0"}, {"URL": "redis://cache/1"}),
        ({"URL": "redis://cache/0"}, {"URL": "redis://store/0"}),
        ({"URL": "redis://cache:6379"}, {"URL": "redis://cache:6380"}),
        ({"UNIX_SOCKET_PATH": "/run/a.sock"}, {"UNIX_SOCKET_PATH": "/run/b.sock"}),
        ({"URL": "redis://cache"}, {"URL": "redis://cache", "QUEUE_CLASS": "own_queues.Own"}),
    ],
)
def test_another_server_database_or_prefix_is_another_place(folder, one, two):
    (folder / "own_queues.py").write_text(
        "from rq import Queue\nclass Own(Queue): redis_queue_namespace_prefix = 'own:'\n"
    )
    assert not places(one) & places(two)


def test_another_queue_is_another_place():
    queue = {"URL": "redis://cache"}
    assert not places(queue) & places(queue, name="low")


def test_the_queue_class_of_a_group_has_its_say(folder):
    (folder / "other_queues.py").write_text(
        "from rq import Queue\nclass Own(Queue): redis_queue_namespace_prefix = 'own:'\n"
    )
    queue = {"URL": "redis://cache"}
    counts = parse_counts(
        {"high": {"workers": 1, "queue_class": "other_queues.Own"}},
        source="test",
        environment=None,
        queues={"high": queue},
    )
    assert not places(queue) & places(queue, counts)


def sentinels(*hosts: str, master: str = "mymaster") -> dict[str, object]:
    return {"SENTINELS": [(host, 26379) for host in hosts], "MASTER_NAME": master, "DB": 0}


def test_behind_sentinels_one_of_them_in_common_is_enough():
    assert places(sentinels("a", "b")) & places(sentinels("b", "c"))
    assert not places(sentinels("a")) & places(sentinels("b"))
    assert not places(sentinels("a")) & places(sentinels("a", master="other"))


def test_a_place_tells_neither_the_server_nor_its_password():
    (place,) = places({"URL": "redis://user:hunter2@cache.example/3"})
    assert not {"hunter2", "cache", "user"} & set(place.split())
    assert len(place) == 32


def test_a_queue_that_cannot_be_connected_to_has_no_place_and_does_no_harm():
    assert places({"URL": "foo://x"}) == frozenset()
