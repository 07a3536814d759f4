"""Findings on their way to the manager, and surveyors that end without one."""

from __future__ import annotations

import os
import signal

import pytest

from django_rq_pool import processes
from django_rq_pool.groups import QueueGroup
from django_rq_pool.options import GroupOptions
from django_rq_pool.survey import Finding, Survey, SurveyLine

GROUPS = (QueueGroup("high", ("high",), 2, GroupOptions(worker_class=dict)),)


@pytest.fixture
def line():
    line = SurveyLine()
    yield line
    line.close()
    line.become_manager()


def test_a_finding_comes_as_it_was_sent(line):
    sent = [Finding(GROUPS, ("a remark",), failures=3), Finding(None, error="no")]
    for finding in sent:
        line.send(finding)
    assert line.take() == (sent, False)
    assert line.take() == ([], False)


def test_a_finding_that_is_not_whole_waits_for_its_rest(line):
    line.send(Finding(GROUPS))
    whole = line._manager_end.recv(65_536)
    for byte in whole[:-1]:
        line._surveyor_end.send(bytes([byte]))
        assert line.take() == ([], False)
    line._surveyor_end.send(whole[-1:])
    assert line.take() == ([Finding(GROUPS)], False)


def test_the_end_of_a_line_is_noticed_after_what_was_sent(line):
    line.send(Finding(GROUPS))
    line.become_manager()
    assert line.take() == ([Finding(GROUPS)], True)


def test_what_cannot_be_passed_on_is_an_error_in_words(line):
    class Local:
        pass

    line.send(Finding((QueueGroup("high", ("high",), 1, GroupOptions(worker_class=Local)),)))
    [finding], _ = line.take()
    assert finding.groups is None
    assert finding.error.startswith("What the loader returned cannot be passed on: ")
    assert finding.error.endswith("Give classes by their dotted paths.")


def test_sending_to_a_manager_that_is_gone_is_no_error(line):
    line.close()
    line.send(Finding(GROUPS))


def surveyor(*findings: Finding, ends_by: int = 0, stays: bool = False):
    """Forks a real process that sends findings and ends."""

    def fork():
        line = SurveyLine()

        def child():
            line.become_surveyor()
            for finding in findings:
                line.send(finding)
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
    survey = Survey(surveyor(Finding(GROUPS)), goes_on=False)
    survey.begin()
    bury(survey)
    assert survey.take() == [Finding(GROUPS)]
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
    survey = Survey(surveyor(Finding(GROUPS), ends_by=signal.SIGKILL), goes_on=True)
    survey.begin()
    bury(survey)
    assert survey.take() == [Finding(GROUPS)]
    assert 0 < survey.due - processes.monotonic() < 2


def test_a_surveyor_that_cannot_be_forked_is_an_answer():
    def fork():
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
    assert not processes.exists(before)
    after = survey._pid
    survey.end()
    assert survey.take() == []
    assert not processes.exists(after)
