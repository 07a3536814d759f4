"""Sites that share a host: a pool replaces those of its own site, whatever others are called."""

from __future__ import annotations

import fcntl
import secrets
import signal

import psutil
import pytest

from django_rq_pool.system import process_files
from harness import Pool

pytestmark = pytest.mark.skipif(
    not process_files.available(), reason="this system does not tell which site a pool is of"
)


@pytest.fixture
def name() -> str:
    """A name that no other pool on this machine has."""
    return f"site-{secrets.token_hex(4)}"


def title_of(pool: Pool) -> str:
    return " ".join(pool.manager.cmdline())


@pytest.mark.parametrize("how", ["--hot-swap", "--swap-step", "--kill-others"])
def test_a_pool_of_another_site_that_has_the_name_is_not_touched(
    start_pool, start_with, pool_environment, name, how
):
    theirs = start_pool("high=2", "--name", name).expect_ready(2)
    before = theirs.worker_pids()
    elsewhere = {"REDIS_URL": pool_environment["OTHER_REDIS_URL"]}
    ours = start_with("", "--name", name, how, "high=1", env=elsewhere)
    assert ours.wait() == 1
    ours.expect(rf"^CommandError: The pool of manager {theirs.manager_pid} in .* Nothing is")
    assert not ours.processes()
    assert theirs.worker_pids() == before
    assert "signal" not in theirs.text()
    assert theirs.stop() == 0


def test_beside_it_a_site_swaps_its_own_pool(start_pool, start_with, pool_environment, name):
    theirs = start_pool("high=1", "--name", name).expect_ready(1)
    elsewhere = {"REDIS_URL": pool_environment["OTHER_REDIS_URL"]}
    old = start_with("", "--name", name, "high=1", env=elsewhere).expect_ready(1)
    old.expect("It is left alone")
    new = start_with("", "--name", name, "--hot-swap", "high=1", env=elsewhere).expect_ready(1)
    assert old.wait() == 0
    new.expect("has gone$")
    assert "signal" not in theirs.text()
    assert [pool.stop() for pool in (theirs, new)] == [0, 0]


@pytest.mark.parametrize("how", ["--hot-swap", "--swap-step"])
def test_a_release_in_another_folder_replaces_a_pool_that_serves_one_of_its_queues(
    start_pool, start_with, name, how
):
    old = start_pool("high=1", "low=1", "--name", name).expect_ready(2)
    new = start_with("", "--name", name, how, "high=1", "bar=1").expect_ready(2)
    assert old.wait() == 0
    assert new.stop() == 0


def test_what_a_reload_has_added_counts_too(start_pool, start_with, name):
    old = start_pool("--name", name, yaml="high: 1").expect_ready(1)
    (old.cwd / "rqpool.yml").write_text("high: 1\nbar: 1\n")
    old.send(signal.SIGHUP).expect("counts: high=1, bar=1")
    new = start_with("", "--name", name, "--hot-swap", "bar=1").expect_ready(1)
    assert old.wait() == 0
    assert new.stop() == 0


def test_a_start_beside_a_pool_of_its_name_says_so_on_the_terminal(start_pool, name):
    old = start_pool("high=1", "--name", name).expect_ready(1)
    new = start_pool("--daemon", "high=1", "--name", name)
    assert new.wait() == 0
    new.expect(
        rf"manager {old.manager_pid} in .* already runs a pool of this site and name, {name}"
    )
    new.become_daemon()
    assert len(old.workers()) == len(new.workers()) == 1
    assert old.stop() == 0
    assert new.send(signal.SIGQUIT)


def test_the_name_comes_from_the_settings_unless_the_command_line_gives_one(start_with, name):
    setting = f"RQ_POOL_NAME = {name!r}"
    pool = start_with(setting, "high=1").expect_ready(1)
    assert title_of(pool).startswith(f"rqpool-manager[{name}]: ")
    other = start_with(setting, "high=1", "--name", f"{name}-too").expect_ready(1)
    assert title_of(other).startswith(f"rqpool-manager[{name}-too]: ")
    assert [each.stop() for each in (pool, other)] == [0, 0]


def test_a_deploy_that_may_not_have_the_lock_gives_up_at_its_time_limit(start_pool, name, tmp_path):
    old = start_pool("high=1", "--name", name).expect_ready(1)
    lock = tmp_path / "pool.lock"
    lock.touch(0o600)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        arguments = ["--hot-swap", "--name", name, "--lock", str(lock), "high=1"]
        new = start_pool("--daemon", *arguments, "--swap-timeout", "0.5")
        assert new.wait() == 1
        new.expect(
            r"after 0\.5 s \(--swap-timeout\), another process still holds an exclusive lock"
        )
        waiting = start_pool(*arguments)
        waiting.expect("waiting, because another process holds an exclusive lock")
        waiting.process.send_signal(signal.SIGTERM)
        assert waiting.wait() == 128 + signal.SIGTERM
    assert "signal" not in old.text()
    assert psutil.pid_exists(old.manager_pid)
    assert old.stop() == 0
