"""What a pool is called, and which pools are of one site."""

from __future__ import annotations

import pytest

from django_rq_pool.config.identity import (
    LONGEST_NAME,
    Identity,
    Site,
    default_name,
    project_folder,
    site_folder,
    unusable_name,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("folder", [None, "/srv/corner", "/app"])
@pytest.mark.parametrize("module", ["shop.settings", "shop", "netbox.settings", "api.config"])
def test_a_pool_is_called_after_the_package_of_its_settings_if_that_tells(module, folder):
    assert default_name(module, folder) == module.partition(".")[0]


@pytest.mark.parametrize(
    "module",
    [
        "config.settings",
        "Config.settings",
        "settings",
        "conf.production",
        "project.settings",
        "core.settings",
        "app.settings",
        "src.settings",
        "django.conf",
        "main.settings",
    ],
)
def test_one_whose_settings_are_called_like_everybodys_is_called_after_its_folder(module):
    assert default_name(module, "/srv/shop") == "shop"


@pytest.mark.parametrize(
    "folder",
    [
        "/srv/shop/current",
        "/srv/shop/releases/20261128",
        "/srv/shop/releases/20261128121500",
        "/srv/shop/releases/42",
        "/srv/shop/releases/any-word/backend",
        "/srv/shop/2026-11-28T12-15-00",
        "/srv/shop/v1.2.3/src",
        "/srv/shop/release-7",
        "/srv/shop/1.20.3",
        f"/srv/shop/{COMMIT}",
        f"/srv/shop/{COMMIT[4:11]}",
        "/srv/shop/src/backend",
        "/home/shop/app",
        "/var/www/shop/html",
        "/srv/shop/.venv/lib/python3.11/site-packages",
        "/srv/shop/venv/lib/python3/dist-packages",
        "/srv/shop/latest",
        "/opt/a]b/../shop",
    ],
)
def test_folders_of_releases_and_of_the_system_and_such_words_are_passed_over(folder):
    assert default_name("config.settings", folder) == "shop"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/home/anna/projects/corner-shop", "corner-shop"),
        ("/srv/customers/1234567/app", "1234567"),
        ("/srv/facade/app", "facade"),
    ],
)
def test_a_folder_that_tells_one_site_from_another_is_taken(folder, name):
    assert default_name("config.settings", folder) == name


@pytest.mark.parametrize("folder", [None, "", "/", "/app", "/usr/src/app", "/var/www/html", "/a]b"])
def test_where_no_folder_tells_anything_the_name_is_that_of_the_package(folder):
    assert default_name("config.settings.production", folder) == "config"


@pytest.mark.parametrize(
    ("module", "file", "folder"),
    [
        ("shop.settings", "/srv/site/shop/settings.py", "/srv/site"),
        ("settings", "/srv/site/settings.py", "/srv/site"),
        ("config.settings.production", "/srv/site/config/settings/production.py", "/srv/site"),
        ("config.settings", "/srv/site/config/settings/__init__.py", "/srv/site"),
        ("config.settings", "/srv/site/config/settings.pyc", "/srv/site"),
    ],
)
def test_the_folder_of_a_project_has_the_first_package_of_its_settings(module, file, folder):
    assert project_folder(module, file) == folder


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("/srv/shop", "/srv/shop"),
        ("/srv/shop/releases/20261128", "/srv/shop/releases/20261129"),
        ("/srv/shop/releases/7", "/srv/shop/releases/8"),
        ("/srv/shop/current", "/srv/shop/releases/20261128"),
        ("/srv/shop/20261128-1215/backend", "/srv/shop/20261129-0900/backend"),
        (f"/srv/shop/{COMMIT}", f"/srv/shop/{COMMIT[::-1]}"),
    ],
)
def test_two_releases_are_of_one_site(one, two):
    assert site_folder(one) == site_folder(two)
    assert Site(one, frozenset()).is_same(Site(two, frozenset()))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("/srv/shop", "/srv/blog"),
        ("/srv/shop/releases/1", "/srv/blog/releases/1"),
        ("/srv/app/src", "/srv/src"),
        ("/srv/customers/12345678/app", "/srv/customers/87654321/app"),
        ("/srv/v1/shop", "/srv/v2/shop"),
        ("/srv/staging/shop", "/srv/production/shop"),
        ("/", "/srv"),
    ],
)
def test_two_folders_that_are_no_releases_are_of_two_sites(one, two):
    assert not Site(one, frozenset()).is_same(Site(two, frozenset()))


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ({"high", "low"}, {"high", "low"}, True),
        ({"high", "low"}, {"high"}, True),
        ({"high"}, {"high", "new"}, True),
        ({"high"}, {"low"}, False),
        ({"high"}, set(), False),
        (set(), set(), False),
    ],
)
def test_pools_that_serve_a_queue_in_common_are_of_one_site_wherever_they_stand(one, two, same):
    assert Site("/srv/a", frozenset(one)).is_same(Site("/srv/b", frozenset(two))) is same


def test_a_pool_is_told_by_the_queues_that_it_serves_and_not_by_those_that_it_fills():
    places = {"own": frozenset({"1"}), "theirs": frozenset({"2", "3"})}
    identity = Identity("shop", None, "/srv/shop", places)
    assert identity.site(["own"]).serves == {"1"}
    assert identity.site(["theirs", "own"]).serves == {"1", "2", "3"}
    assert identity.site(["unknown"]).serves == frozenset()


@pytest.mark.parametrize("name", ["shop", "corner shop", "[shop", "läden", "x" * LONGEST_NAME])
def test_names_that_can_be_part_of_a_title(name):
    assert unusable_name(name) is None


@pytest.mark.parametrize(
    "name", ["", " ", "a]b", "a\nb", "a\0b", "x" * (LONGEST_NAME + 1), None, 5, b"shop", ["shop"]]
)
def test_names_that_cannot(name):
    assert unusable_name(name) == "a name of 1 to 100 printable characters without ']'"


@pytest.mark.parametrize("part", ["20261128" + "1" * 5000 + "x", "a" * 5000 + "1" * 5000])
def test_a_folder_with_an_absurd_name_takes_no_time(part):
    assert default_name("config.settings", f"/srv/{part}") in ("config", part)
