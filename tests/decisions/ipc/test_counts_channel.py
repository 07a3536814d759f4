"""Records on their way between the manager and the autoscaling process."""

from __future__ import annotations

import copy
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_rq_pool.config.groups import Counts, QueueGroup
from django_rq_pool.config.options import Bounds, GroupOptions
from django_rq_pool.config.problems import CountsError, Kind, Problem
from django_rq_pool.ipc.counts_channel import CountsChannel, Received
from django_rq_pool.ipc.counts_records import (
    GroupStats,
    LoadResult,
    ScaleResult,
    StatsRequest,
    WorkerStats,
    require_sendable,
)

COUNTS = Counts((QueueGroup("high", ("high",), 2, GroupOptions(worker_class=dict)),))


@pytest.fixture
def channel():
    """The manager's end."""
    channel = CountsChannel()
    yield channel
    channel.close()
    channel.become_manager()


@pytest.fixture
def child_channel(channel):
    """The other end, as the forked process has it."""
    other = copy.copy(channel)
    other._mine = channel._child_end
    return other


def test_a_result_comes_as_it_was_sent(channel, child_channel):
    sent = [LoadResult(COUNTS, failures=3, goes_on=True), LoadResult(None, error="no")]
    for result in sent:
        child_channel.send(result)
    assert channel.receive() == Received(sent)
    assert channel.receive() == Received()


def test_a_result_that_is_not_whole_waits_for_its_rest(channel, child_channel):
    child_channel.send(LoadResult(COUNTS))
    whole = channel._manager_end.recv(65_536)
    for byte in whole[:-1]:
        channel._child_end.send(bytes([byte]))
        assert channel.receive() == Received()
    channel._child_end.send(whole[-1:])
    assert channel.receive() == Received([LoadResult(COUNTS)])


def test_the_end_is_noticed_after_what_was_sent(channel, child_channel):
    child_channel.send(LoadResult(COUNTS))
    channel.become_manager()
    assert channel.receive() == Received([LoadResult(COUNTS)], ended=True)


def test_sending_to_a_manager_that_is_gone_is_no_error(channel, child_channel):
    channel.close()
    child_channel.send(LoadResult(COUNTS))


def test_a_question_is_answered_and_what_was_measured_arrives(channel, child_channel):
    scaled = ScaleResult({"high": 3}, {"high": "why"})
    child_channel.send(StatsRequest())
    child_channel.send(scaled)
    assert channel.receive() == Received([StatsRequest(), scaled])
    stats = WorkerStats({"high": GroupStats(1, 0, 7, 0.5)}, {"high": 2})
    channel.send(stats)
    assert child_channel.receive() == Received([stats])


names = st.text(min_size=1)
groups = st.builds(
    QueueGroup,
    names,
    st.lists(names, min_size=1).map(tuple),
    st.integers(0, 10**6),
    st.builds(
        GroupOptions,
        worker_class=st.none() | names | st.sampled_from([dict, CountsError]),
        max_jobs=st.none() | st.integers(1),
        work_horse_killed_handler=st.none() | names | st.sampled_from([copy.copy, copy.deepcopy]),
        target_latency=st.floats(0.1, 1e6) | st.integers(1),
        with_scheduler=st.booleans(),
    ),
    st.none() | st.builds(Bounds, st.integers(0, 9), st.integers(9)),
)
problems = st.builds(Problem, st.sampled_from(Kind), st.text(), st.text())
counts = st.builds(
    Counts,
    st.lists(groups).map(tuple),
    st.lists(problems).map(tuple),
    st.none() | st.integers(0),
)


@given(st.builds(LoadResult, st.none() | counts, st.text(), st.integers(0), st.booleans()))
def test_every_result_comes_as_it_was_sent(result):
    channel = CountsChannel()
    other = copy.copy(channel)
    other._mine = channel._child_end
    try:
        other.send(result)
        assert channel.receive() == Received([result])
    finally:
        channel.close()
        channel.become_manager()


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b'{"kind": "no such kind"}',
        b'{"kind": "load"}',
        b'{"kind": "scale", "workers": {"high": -1}, "reasons": {}}',
        b'{"kind": "scale", "workers": {"high": true}, "reasons": {}}',
        b'{"kind": "load", "error": "", "failures": 0, "goes_on": 1}',
        b'{"kind": "load", "error": "", "failures": 0, "goes_on": true, "counts": {"groups": [1]}}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_record_breaks_the_channel_and_nothing_else(channel, child_channel, line):
    child_channel.send(StatsRequest())
    channel._child_end.sendall(line + b"\n")
    received = channel.receive()
    assert received.ended
    assert received.broken


def test_a_line_without_end_breaks_the_channel(channel):
    channel._child_end.setblocking(False)
    broken = False
    for _ in range(500):
        channel._child_end.send(b"x" * 10_000)
        if channel.receive().broken:
            broken = True
            break
    assert broken


def test_what_cannot_be_sent_is_an_error_in_words():
    class Local:
        pass

    options = GroupOptions(worker_class=Local)
    with pytest.raises(CountsError) as caught:
        require_sendable(Counts((QueueGroup("high", ("high",), 1, options),)), "RQ_POOL")
    assert str(caught.value).startswith("RQ_POOL: the counts cannot be sent to the manager: ")
    assert str(caught.value).endswith("Give classes by their dotted paths.")


def test_counts_that_are_too_large_to_be_sent_are_an_error_in_words():
    group = QueueGroup("high" * 1_000_000, ("high",), 1)
    with pytest.raises(CountsError, match="they are too large"):
        require_sendable(Counts((group,)), "RQ_POOL")


def test_an_error_of_any_length_is_sent_without_its_middle(channel, child_channel):
    channel._manager_end.setblocking(True)
    received = Received()
    thread = threading.Thread(
        target=child_channel.send, args=[LoadResult(None, error="a" + 1_000_000 * "b" + "c")]
    )
    thread.start()
    while not received.records:
        received = channel.receive()
        assert not received.broken
    thread.join()
    [result] = received.records
    assert result.error.startswith("ab")
    assert result.error.endswith("bc")


def test_a_class_that_the_manager_cannot_import_is_an_error_in_words(channel, child_channel):
    child_channel.send(LoadResult(COUNTS))
    line = channel._manager_end.recv(65_536).replace(b'"builtins"', b'"no_such_module"')
    channel._child_end.sendall(line)
    [result] = channel.receive().records
    assert result.counts is None
    assert "No module named 'no_such_module'" in result.error
