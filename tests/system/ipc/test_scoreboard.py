"""Slots in shared memory."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_rq_pool.ipc.scoreboard import Scoreboard, Slot

JOB = "0f6e1a3c-35c1-4a51-9b5e-7a4b1c2d3e4f"


@pytest.fixture
def slot() -> Slot:
    return Scoreboard().acquire()


def seen(slot: Slot) -> tuple[bool, str, int]:
    return slot.busy, slot.job_id, slot.horse_pid


def test_a_new_slot_is_idle(slot):
    assert seen(slot) == (False, "", 0)


def test_a_slot_shows_a_job_from_its_beginning_to_its_end(slot):
    slot.begin(JOB)
    assert seen(slot) == (True, JOB, 0)
    slot.horse(4_000_000)
    assert seen(slot) == (True, JOB, 4_000_000)
    slot.end()
    assert seen(slot) == (False, "", 0)


def test_a_slot_shows_that_its_worker_has_left_and_the_next_worker_has_not(slot):
    slot.begin(JOB)
    slot.pause(True)
    assert not slot.has_left
    slot.leave()
    assert slot.has_left
    slot.clear()
    assert not slot.has_left
    slot.leave()
    slot.pause(False)
    slot.end()
    assert slot.has_left


def test_the_next_job_does_not_inherit_the_last_ones_horse_or_letters(slot):
    slot.begin(JOB)
    slot.horse(77)
    slot.begin("short")
    assert seen(slot) == (True, "short", 0)


def test_the_largest_pid_fits(slot):
    slot.begin(JOB)
    slot.horse(2**31 - 1)
    assert slot.horse_pid == 2**31 - 1


def test_a_long_id_is_cut_to_its_beginning(slot):
    slot.begin("x" * 60 + "y" * 60)
    assert slot.job_id == "x" * 60 + "y" * 30


def test_an_id_that_is_cut_inside_a_character_can_still_be_read(slot):
    slot.begin("a" + "é" * 60)
    assert slot.job_id == "a" + "é" * 44
    assert slot.busy


@given(job_id=st.text(min_size=1, max_size=22).filter(str.isprintable), pid=st.integers(1, 2**22))
def test_any_id_of_ordinary_length_can_be_read_back(job_id, pid):
    slot = Scoreboard().acquire()
    slot.begin(job_id)
    slot.horse(pid)
    assert seen(slot) == (True, job_id, pid)


def test_slots_do_not_overlap_even_beyond_one_page():
    scoreboard = Scoreboard()
    enough = mmap.PAGESIZE // 40
    slots = [scoreboard.acquire() for _ in range(enough)]
    for number, slot in enumerate(slots):
        slot.begin(f"{number}".ljust(90, "#"))
        slot.horse(number + 1)
    for number, slot in enumerate(slots):
        assert slot.job_id.rstrip("#") == str(number)
        assert slot.horse_pid == number + 1
    slots[1].end()
    assert [slot.busy for slot in slots].count(False) == 1


def test_a_released_slot_comes_back_idle_after_others():
    scoreboard = Scoreboard()
    slot = scoreboard.acquire()
    slot.begin(JOB)
    slot.horse(5)
    scoreboard.release(slot)
    turns = 0
    while (again := scoreboard.acquire()) is not slot:
        scoreboard.release(again)
        turns += 1
        assert turns < 1000, "it never comes back"
    assert turns >= 10
    assert seen(again) == (False, "", 0)


def test_slots_that_come_back_are_enough_for_ever():
    scoreboard = Scoreboard()
    held = [scoreboard.acquire() for _ in range(10)]
    known = {id(slot): slot for slot in held}
    for _ in range(1000):
        scoreboard.release(held.pop(0))
        held.append(scoreboard.acquire())
        known[id(held[-1])] = held[-1]
    assert len(known) < 100


def test_a_slot_that_was_not_released_is_not_handed_out_again():
    scoreboard = Scoreboard()
    slots = [scoreboard.acquire() for _ in range(200)]
    assert len(set(map(id, slots))) == 200


def test_a_released_slot_still_shows_the_last_job_until_it_is_handed_out():
    scoreboard = Scoreboard()
    slot = scoreboard.acquire()
    slot.begin(JOB)
    scoreboard.release(slot)
    assert slot.job_id == JOB
