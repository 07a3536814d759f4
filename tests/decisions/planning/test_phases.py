"""The table of phases: complete, and no stop ever gets softer, whatever the rules."""

from __future__ import annotations

import signal
from itertools import product

import pytest

from django_rq_pool.config.stop_policy import StopRules, TermPolicy
from django_rq_pool.planning.phases import (
    INFO,
    MANAGER_SIGNALS,
    STOPS,
    Effect,
    Phase,
    Response,
    after_load,
    responses,
)

STOP_SIGNALS = [signal.SIGQUIT, signal.SIGINT, signal.SIGTERM]
OTHER_SIGNALS = [
    signal.SIGHUP,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    INFO,
]
LIVES_ON = [Phase.RUNNING, Phase.RESUMING, Phase.HOLDING]
EVERY_TABLE = [
    responses(StopRules(policy, term_child), may_hold=may_hold)
    for policy, term_child, may_hold in product(TermPolicy, [None, 5.0], [True, False])
]
DAEMON = responses(StopRules(), may_hold=True)
FOREGROUND = responses(StopRules(), may_hold=False)

# What each stop makes of a running pool.
MEANINGS = [
    (StopRules(), signal.SIGQUIT, Phase.QUITTING),
    (StopRules(), signal.SIGINT, Phase.LEAVING),
    (StopRules(), signal.SIGTERM, Phase.TERMINATING),
    (StopRules(term=TermPolicy.GRACEFUL_WAIT), signal.SIGQUIT, Phase.QUITTING),
    (StopRules(term=TermPolicy.GRACEFUL_WAIT), signal.SIGINT, Phase.LEAVING),
    (StopRules(term=TermPolicy.GRACEFUL_WAIT), signal.SIGTERM, Phase.QUITTING),
    (StopRules(term=TermPolicy.GRACEFUL), signal.SIGQUIT, Phase.QUITTING),
    (StopRules(term=TermPolicy.GRACEFUL), signal.SIGINT, Phase.LEAVING),
    (StopRules(term=TermPolicy.GRACEFUL), signal.SIGTERM, Phase.LEAVING),
    (StopRules(term_child=5.0), signal.SIGQUIT, Phase.LEAVING),
    (StopRules(term_child=5.0), signal.SIGINT, Phase.LEAVING),
    (StopRules(term_child=5.0), signal.SIGTERM, Phase.TERMINATING),
]


def hardness(phase: Phase) -> int:
    return STOPS.index(phase) if phase in STOPS else -1


def test_the_manager_hears_each_signal_of_the_contract_once():
    assert sorted(MANAGER_SIGNALS) == sorted([*STOP_SIGNALS, *OTHER_SIGNALS])


def test_info_is_the_systems_own_or_29():
    assert getattr(signal, "SIGINFO", 29) == INFO


def test_every_phase_ends_the_pool_or_lets_it_live_on():
    assert set(Phase) == {*LIVES_ON, *STOPS}


def test_without_being_told_term_stops_immediately():
    assert StopRules() == StopRules(term=TermPolicy.IMMEDIATE, term_child=None)


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_every_signal_has_an_answer_in_every_phase_and_nothing_else_has(table):
    assert set(table) == set(product(Phase, MANAGER_SIGNALS))


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_no_signal_makes_a_stop_softer(table):
    for (phase, _), response in table.items():
        assert hardness(response.phase) >= hardness(phase)


@pytest.mark.parametrize(("rules", "signum", "phase"), MEANINGS)
@pytest.mark.parametrize("before", LIVES_ON)
def test_a_living_pool_stops_as_signal_and_rules_say(rules, signum, phase, before):
    assert responses(rules, may_hold=True)[before, signum] == Response(phase)


@pytest.mark.parametrize(("rules", "signum", "phase"), MEANINGS)
@pytest.mark.parametrize("under_way", STOPS)
def test_a_later_signal_hardens_a_stop_exactly_when_it_is_harder(rules, signum, phase, under_way):
    harder = max(under_way, phase, key=hardness)
    assert responses(rules, may_hold=True)[under_way, signum] == Response(harder)


@pytest.mark.parametrize("table", EVERY_TABLE)
@pytest.mark.parametrize("signum", OTHER_SIGNALS)
@pytest.mark.parametrize("phase", STOPS)
def test_a_signal_that_is_no_stop_leaves_a_stop_alone(table, signum, phase):
    assert table[phase, signum].phase is phase


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_a_signal_twice_leads_where_once_leads(table):
    for (_, signum), once in table.items():
        assert table[once.phase, signum].phase is once.phase


@pytest.mark.parametrize("phase", Phase)
def test_info_has_a_report_written_in_every_phase_and_changes_none(phase):
    assert DAEMON[phase, INFO] == Response(phase, Effect.REPORT)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT])
@pytest.mark.parametrize("phase", LIVES_ON)
def test_what_is_for_the_workers_is_forwarded(phase, signum):
    assert DAEMON[phase, signum] == Response(phase, Effect.FORWARD)


def test_a_running_pool_reloads_on_hup_and_goes_on_running():
    assert DAEMON[Phase.RUNNING, signal.SIGHUP] == Response(Phase.RUNNING, Effect.RELOAD)


@pytest.mark.parametrize("phase", STOPS)
def test_hup_reopens_log_files_while_the_pool_stops(phase):
    assert DAEMON[phase, signal.SIGHUP] == Response(phase, Effect.REOPEN)


@pytest.mark.parametrize("phase", LIVES_ON)
def test_winch_makes_a_daemon_hold_and_is_nothing_in_the_foreground(phase):
    assert DAEMON[phase, signal.SIGWINCH] == Response(Phase.HOLDING)
    assert FOREGROUND[phase, signal.SIGWINCH] == Response(phase)


def test_a_pool_that_holds_does_so_until_hup_and_the_counts_are_there():
    for signum in MANAGER_SIGNALS:
        after = DAEMON[Phase.HOLDING, signum].phase
        assert after in (Phase.HOLDING, *STOPS) or signum == signal.SIGHUP
    assert DAEMON[Phase.HOLDING, signal.SIGHUP] == Response(Phase.RESUMING, Effect.RELOAD)
    assert after_load(Phase.RESUMING) is Phase.RUNNING


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.RESUMING])
def test_loaded_counts_change_no_other_phase(phase):
    assert after_load(phase) is phase
