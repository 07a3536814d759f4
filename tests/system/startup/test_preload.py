"""Preload: what is kept in huge pages is the heap, and it is the same afterwards."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import re
import subprocess
import sys

import pytest

from django_rq_pool.config import declared
from django_rq_pool.startup.immortal import can_be_done
from django_rq_pool.startup.preload import PreloadError, _heap, import_jobs, use_huge_pages

MAPS = """\
00600000-00a00000 rw-p 00000000 00:00 0
00a00000-00c00000 r--p 00000000 00:00 0
00c00000-01000000 rw-p 00000000 08:01 42                                 /usr/lib/a library.so
01300000-01900000 rw-p 00000000 00:00 0                                  [heap]
02000000-02100000 rw-p 00000000 00:00 0
03000000-03400000 rw-s 00000000 00:01 7                                  /dev/zero (deleted)
7ffc00000000-7ffc00400000 rw-p 00000000 00:00 0                          [stack]
"""


def test_only_whole_aligned_pieces_of_private_memory_are_the_heap():
    assert [hex(start) for start in _heap(MAPS, 0x200000)] == [
        "0x600000",
        "0x800000",
        "0x1400000",
        "0x1600000",
    ]


def test_what_is_in_memory_survives_being_put_into_huge_pages():
    everything = [bytes([number % 256]) * 4000 for number in range(4000)]
    before = hashlib.sha256(b"".join(everything)).digest()
    assert use_huge_pages() >= 0
    assert hashlib.sha256(b"".join(everything)).digest() == before


HUGE = """
import sys
from pathlib import Path

from django_rq_pool.startup.preload import freeze_heap, use_huge_pages

def huge():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))

kept = [bytes([number % 256]) * 1000 for number in range(40_000)]
before = huge()
freeze_heap(immortal=False, huge_pages=sys.argv[1] == "True")
print(huge() > before, use_huge_pages() > 0)
"""


@pytest.mark.parametrize("wanted", [True, False])
def test_the_heap_is_kept_in_huge_pages_if_that_is_wanted(wanted):
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(wanted)], capture_output=True, text=True, check=True
    )
    used, possible = done.stdout.split()
    if possible == "False":
        pytest.skip("this system keeps no heap in huge pages")
    assert used == str(wanted)


SPOKEN = """
import logging, sys
from django_rq_pool.startup.preload import freeze_heap

logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")
freeze_heap(immortal=sys.argv[1] == "True", huge_pages=False)
"""


def log_of_a_freeze(*, immortal: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SPOKEN, str(immortal)], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_nothing_is_made_immortal_unless_the_project_asks_for_it():
    assert declared.IMMORTAL.default is False
    assert log_of_a_freeze(immortal=False) == []


def test_the_log_says_in_a_line_what_was_made_immortal_or_that_nothing_can_be():
    (line,) = log_of_a_freeze(immortal=True)
    if can_be_done():
        number, rest = re.fullmatch(r"INFO RQ_POOL_IMMORTAL: (\d+) objects (.+)", line).groups()
        assert int(number) > 1000
        assert "never freed" in rest
        assert rest.endswith("If the interpreter crashes, turn it off first.")
    else:
        assert line.startswith("WARNING RQ_POOL_IMMORTAL: it does nothing on this interpreter (")
        assert line.endswith(". It is for CPython 3.12 and 3.13.")


@pytest.mark.parametrize("last_line", ["", "1 / 0"])
def test_the_collector_rests_while_jobs_are_imported_and_not_longer(
    tmp_path, monkeypatch, last_line
):
    (tmp_path / "heavy_jobs.py").write_text(last_line)
    (tmp_path / "look.py").write_text("import gc\nat_work = gc.isenabled()")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PreloadError) if last_line else contextlib.nullcontext():
        import_jobs(["look", "heavy_jobs"], (), "Nothing was started.")
    assert not sys.modules.pop("look").at_work
    sys.modules.pop("heavy_jobs", None)
    assert gc.isenabled()
