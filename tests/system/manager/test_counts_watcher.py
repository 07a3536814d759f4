"""What the manager makes of an autoscaling process, whatever that says and however it ends."""

from __future__ import annotations

import os
import select
import signal

import pytest

from django_rq_pool.config.groups import Counts, QueueGroup
from django_rq_pool.ipc.counts_channel import CountsChannel
from django_rq_pool.ipc.counts_records import LoadResult
from django_rq_pool.manager.counts_watcher import CountsWatcher
from django_rq_pool.system import processes

COUNTS = Counts((QueueGroup("high", ("high",), 2),))


def autoscaling(*results: LoadResult, ends_by: int = 0, stays: bool = False):
    """Forks a real process that sends results and ends."""

    def fork(load):
        channel = CountsChannel()

        def child():
            channel.become_child()
            for result in results:
                channel.send(result)
            if ends_by:
                os.kill(os.getpid(), ends_by)
            if stays:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
                signal.pause()
            return 0

        pid = processes.fork(child)
        channel.become_manager()
        return pid, channel

    return fork


def on_exit(watcher: CountsWatcher) -> None:
    pid, status = os.waitpid(watcher._pid, 0)
    signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    watcher.on_exit(processes.Death(pid, None if signum else os.WEXITSTATUS(status), signum))


def test_a_process_that_answers_and_leaves_has_done_its_work():
    watcher = CountsWatcher(autoscaling(LoadResult(COUNTS)), goes_on=False)
    watcher.begin()
    on_exit(watcher)
    assert watcher.take() == [LoadResult(COUNTS)]
    assert watcher.due is None
    assert watcher.filenos() == []


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_process_that_ends_without_an_answer_is_an_answer(goes_on):
    watcher = CountsWatcher(autoscaling(ends_by=signal.SIGKILL), goes_on=goes_on)
    watcher.begin()
    on_exit(watcher)
    assert watcher.take() == [LoadResult(None, error="The autoscaling process ended: SIGKILL.")]
    assert (watcher.due is not None) is goes_on


def test_a_process_that_should_go_on_is_replaced_later_and_says_nothing_twice():
    watcher = CountsWatcher(
        autoscaling(LoadResult(COUNTS, goes_on=True), ends_by=signal.SIGKILL), goes_on=True
    )
    watcher.begin()
    before = processes.monotonic()
    on_exit(watcher)
    assert watcher.take() == [LoadResult(COUNTS, goes_on=True)]
    assert before < watcher.due < processes.monotonic() + 2


def test_a_process_that_cannot_be_forked_is_an_answer():
    def fork(load):
        raise OSError(12, "no memory")

    watcher = CountsWatcher(fork, goes_on=False)
    watcher.begin()
    error = "The autoscaling process cannot be forked: [Errno 12] no memory."
    assert watcher.take() == [LoadResult(None, error=error)]
    assert watcher.due is None


def test_beginning_anew_ends_the_process_before_and_forgets_what_it_said():
    watcher = CountsWatcher(autoscaling(LoadResult(None, error="old"), stays=True), goes_on=True)
    watcher.begin()
    before = watcher._pid
    watcher.begin()
    assert os.waitpid(before, 0) == (before, signal.SIGKILL)
    after = watcher._pid
    watcher.end()
    assert watcher.take() == []
    assert os.waitpid(after, 0) == (after, signal.SIGKILL)


def test_a_process_that_was_not_told_to_load_need_not_answer():
    watcher = CountsWatcher(autoscaling(ends_by=signal.SIGKILL), goes_on=True)
    watcher.begin(load=False)
    on_exit(watcher)
    assert watcher.take() == []
    assert watcher.due is not None


def test_a_process_that_sends_what_is_no_record_is_ended_and_replaced():
    def fork(load):
        channel = CountsChannel()

        def child():
            channel.become_child()
            channel._child_end.sendall(b"no record\n")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            signal.pause()
            return 0

        pid = processes.fork(child)
        channel.become_manager()
        return pid, channel

    watcher = CountsWatcher(fork, goes_on=True)
    watcher.begin()
    [fd] = watcher.filenos()
    select.select([fd], [], [])
    assert watcher.take() == []
    assert watcher.filenos() == []
    on_exit(watcher)
    assert watcher.take() == [LoadResult(None, error="The autoscaling process ended: SIGKILL.")]
    assert watcher.due is not None


def test_a_process_that_was_ended_has_left_when_it_is_reaped():
    watcher = CountsWatcher(autoscaling(stays=True), goes_on=True)
    watcher.begin()
    pid = watcher._pid
    assert not watcher.has_left()
    assert watcher.due > processes.monotonic() - 1
    os.waitpid(pid, 0)
    watcher.on_exit(processes.Death(pid, None, signal.SIGKILL))
    assert watcher.has_left()
    assert watcher.due is None


def test_a_process_that_does_not_end_is_not_waited_for_longer_than_a_moment(monkeypatch):
    now = processes.monotonic()
    monkeypatch.setattr(processes, "monotonic", lambda: now)
    watcher = CountsWatcher(autoscaling(stays=True), goes_on=True)
    watcher.begin()
    pid = watcher._pid
    assert not watcher.has_left()
    now = watcher.due
    assert watcher.has_left()
    os.waitpid(pid, 0)


def test_no_process_has_left_at_once():
    assert CountsWatcher(autoscaling(), goes_on=True).has_left()
