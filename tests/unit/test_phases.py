"""The table of phases: complete, and no stop ever gets softer, whatever the rules."""

from __future__ import annotations

import signal
from itertools import product

import pytest

from django_rq_pool.phases import (
    INFO,
    MANAGER_SIGNALS,
    Phase,
    StopRules,
    TermPolicy,
    transitions,
)

FROM_SOFT_TO_HARD = [Phase.RUNNING, Phase.QUITTING, Phase.LEAVING, Phase.TERMINATING]
STOPS = [signal.SIGQUIT, signal.SIGINT, signal.SIGTERM]
NO_STOPS = [
    signal.SIGHUP,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    INFO,
]
EVERY_RULES = [
    StopRules(policy, term_child) for policy, term_child in product(TermPolicy, [None, 5.0])
]

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
    return FROM_SOFT_TO_HARD.index(phase)


def test_the_manager_hears_each_signal_of_the_contract_once():
    assert sorted(MANAGER_SIGNALS) == sorted([*STOPS, *NO_STOPS])


def test_info_is_the_systems_own_or_29():
    assert getattr(signal, "SIGINFO", 29) == INFO


def test_without_being_told_term_stops_immediately():
    assert StopRules() == StopRules(term=TermPolicy.IMMEDIATE, term_child=None)


@pytest.mark.parametrize("rules", EVERY_RULES)
def test_every_signal_has_an_answer_in_every_phase_and_nothing_else_has(rules):
    assert set(transitions(rules)) == set(product(Phase, MANAGER_SIGNALS))


@pytest.mark.parametrize("rules", EVERY_RULES)
def test_no_signal_makes_a_stop_softer(rules):
    for (phase, _), after in transitions(rules).items():
        assert hardness(after) >= hardness(phase)


@pytest.mark.parametrize(("rules", "signum", "phase"), MEANINGS)
def test_a_running_pool_stops_as_signal_and_rules_say(rules, signum, phase):
    assert transitions(rules)[Phase.RUNNING, signum] is phase


@pytest.mark.parametrize(("rules", "signum", "phase"), MEANINGS)
def test_a_later_signal_hardens_a_stop_exactly_when_it_is_harder(rules, signum, phase):
    for under_way in Phase:
        harder = max(under_way, phase, key=hardness)
        assert transitions(rules)[under_way, signum] is harder


@pytest.mark.parametrize("rules", EVERY_RULES)
@pytest.mark.parametrize("signum", NO_STOPS)
def test_a_signal_that_is_no_stop_leaves_the_phase_alone(rules, signum):
    for phase in Phase:
        assert transitions(rules)[phase, signum] is phase


@pytest.mark.parametrize("rules", EVERY_RULES)
def test_a_signal_twice_is_as_good_as_once(rules):
    table = transitions(rules)
    for (_, signum), once in table.items():
        assert table[once, signum] is once
