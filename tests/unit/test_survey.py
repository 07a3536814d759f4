"""Findings on their way to the manager, and surveyors that end without one."""

from __future__ import annotations

import copy
import os
import signal
import sys

import pytest

from django_rq_pool.autoscaling.demand import Effort
from django_rq_pool.config.groups import Counts, QueueGroup
from django_rq_pool.config.options import GroupOptions
from django_rq_pool.config.problems import CountsError
from django_rq_pool.ipc.counts_channel import (
    Finding,
    Muster,
    Scaled,
    Survey,
    SurveyLine,
    require_passable,
)
from django_rq_pool.system import processes

COUNTS = Counts((QueueGroup("high", ("high",), 2, GroupOptions(worker_class=dict)),))


@pytest.fixture
def line():
    """The manager's side of a line."""
    line = SurveyLine()
    yield line
    line.close()
    line.become_manager()


@pytest.fixture
def surveyor_line(line):
    """The surveyor's side of it, as a fork has it."""
    other = copy.copy(line)
    other._mine = line._surveyor_end
    return other


def test_a_finding_comes_as_it_was_sent(line, surveyor_line):
    sent = [Finding(COUNTS, failures=3, goes_on=True), Finding(None, error="no")]
    for finding in sent:
        surveyor_line.find(finding)
    assert line.take() == (sent, False)
    assert line.take() == ([], False)


def test_a_finding_that_is_not_whole_waits_for_its_rest(line, surveyor_line):
    surveyor_line.find(Finding(COUNTS))
    whole = line._manager_end.recv(65_536)
    for byte in whole[:-1]:
        line._surveyor_end.send(bytes([byte]))
        assert line.take() == ([], False)
    line._surveyor_end.send(whole[-1:])
    assert line.take() == ([Finding(COUNTS)], False)


def test_the_end_of_a_line_is_noticed_after_what_was_sent(line, surveyor_line):
    surveyor_line.find(Finding(COUNTS))
    line.become_manager()
    assert line.take() == ([Finding(COUNTS)], True)


def test_what_cannot_be_passed_on_is_an_error_in_words():
    class Local:
        pass

    options = GroupOptions(worker_class=Local)
    with pytest.raises(CountsError) as caught:
        require_passable(Counts((QueueGroup("high", ("high",), 1, options),)), "RQ_POOL")
    assert str(caught.value).startswith("RQ_POOL: what was loaded cannot be passed on: ")
    assert str(caught.value).endswith("Give classes by their dotted paths.")


def test_sending_to_a_manager_that_is_gone_is_no_error(line, surveyor_line):
    line.close()
    surveyor_line.find(Finding(COUNTS))


def test_a_question_is_answered_and_what_was_measured_arrives(line, surveyor_line):
    surveyor_line.ask()
    surveyor_line.scale(Scaled({"high": 3}, {"high": "why"}))
    (question, scaled), _ = line.take()
    assert not isinstance(question, (Finding, Scaled))
    assert scaled == Scaled({"high": 3}, {"high": "why"})
    line.answer(Muster({"high": Effort(1, 0, 7, 0.5)}, {"high": 2}))
    assert surveyor_line.take() == ([Muster({"high": Effort(1, 0, 7, 0.5)}, {"high": 2})], False)


def surveyor(*findings: Finding, ends_by: int = 0, stays: bool = False):
    """Forks a real process that sends findings and ends."""

    def fork(load):
        line = SurveyLine()

        def child():
            line.become_surveyor()
            for finding in findings:
                line.find(finding)
            if ends_by:
                os.kill(os.getpid(), ends_by)
            if stays:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
                signal.pause()
            return 0

        pid = processes.fork(child)
        line.become_manager()
        return pid, line

    return fork


def bury(survey: Survey) -> None:
    pid, status = os.waitpid(survey._pid, 0)
    signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    survey.bury(processes.Death(pid, None if signum else os.WEXITSTATUS(status), signum))


def test_a_surveyor_that_answers_and_leaves_has_done_its_work():
    survey = Survey(surveyor(Finding(COUNTS)), goes_on=False)
    survey.begin()
    bury(survey)
    assert survey.take() == [Finding(COUNTS)]
    assert survey.due is None
    assert survey.filenos() == []


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_surveyor_that_ends_without_an_answer_is_an_answer(goes_on):
    survey = Survey(surveyor(ends_by=signal.SIGKILL), goes_on=goes_on)
    survey.begin()
    bury(survey)
    assert survey.take() == [Finding(None, error="The surveyor ended: SIGKILL.")]
    assert (survey.due is not None) is goes_on


def test_a_surveyor_that_should_go_on_is_replaced_later_and_says_nothing_twice():
    survey = Survey(surveyor(Finding(COUNTS, goes_on=True), ends_by=signal.SIGKILL), goes_on=True)
    survey.begin()
    bury(survey)
    assert survey.take() == [Finding(COUNTS, goes_on=True)]
    assert 0 < survey.due - processes.monotonic() < 2


def test_a_surveyor_that_cannot_be_forked_is_an_answer():
    def fork(load):
        raise OSError(12, "no memory")

    survey = Survey(fork, goes_on=False)
    survey.begin()
    error = "No surveyor can be forked: [Errno 12] no memory."
    assert survey.take() == [Finding(None, error=error)]
    assert survey.due is None


def test_beginning_anew_ends_the_surveyor_before_and_forgets_what_it_said():
    survey = Survey(surveyor(Finding(None, error="old"), stays=True), goes_on=True)
    survey.begin()
    before = survey._pid
    survey.begin()
    assert os.waitpid(before, 0) == (before, signal.SIGKILL)
    after = survey._pid
    survey.end()
    assert survey.take() == []
    assert os.waitpid(after, 0) == (after, signal.SIGKILL)


def test_a_surveyor_that_was_not_told_to_load_need_not_answer():
    survey = Survey(surveyor(ends_by=signal.SIGKILL), goes_on=True)
    survey.begin(load=False)
    bury(survey)
    assert survey.take() == []
    assert survey.due is not None


def test_a_class_that_only_the_surveyor_has_is_an_error_in_words(line):
    # A pickle that names a module which is not there.
    data = b"cno_such_module\nThing\n."
    line._surveyor_end.sendall(len(data).to_bytes(8, sys.byteorder) + data)
    [finding], _ = line.take()
    assert finding.counts is None
    assert "No module named 'no_such_module'" in finding.error
