"""A worker that runs its jobs itself outlives a restart of its database."""

from __future__ import annotations

import pytest

from harness import eventually
from postgres import Postgres

SIMPLE = "high: {workers: 1, worker_class: rq.SimpleWorker}"


def end_the_sessions(postgres: Postgres) -> None:
    postgres.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )


def restart(postgres: Postgres) -> None:
    with postgres.restarted():
        pass


@pytest.mark.parametrize("end", [end_the_sessions, restart])
@pytest.mark.parametrize(
    ("variables", "connections"),
    [
        ({}, 1),  # Django's default: a connection for each job, as for each request
        ({"SHOP_CONN_MAX_AGE": "600"}, 1),
        ({"SHOP_POSTGRES_POOL": "1"}, 4),
    ],
    ids=["default", "persistent", "pool"],
)
def test_a_restart_of_the_database_costs_no_job(
    start_shop, postgres, postgres_folder, enqueue, variables, connections, end
):
    pool = start_shop({**postgres_folder, **variables}, yaml=SIMPLE).expect_ready(1)
    # A pool opens its further connections in threads of its own.
    before = [enqueue("high", "backends", connections), enqueue("high", "backend")]
    eventually(lambda: all(job.is_finished for job in before))
    end(postgres)
    later = [enqueue("high", "backend") for _ in range(connections + 2)]
    eventually(lambda: all(job.is_finished or job.is_failed for job in later))
    assert not any(job.is_failed for job in later), later[0].latest_result()
    assert before[1].return_value() not in {job.return_value() for job in later}
    assert pool.stop() == 0


def test_a_job_that_finds_no_database_costs_no_other_that_runs_when_it_is_back(
    start_shop, postgres, postgres_folder, enqueue
):
    """psycopg's pool would wait longer and longer between two attempts to connect."""
    settings = 'DATABASES["default"]["OPTIONS"] = {"pool": {"timeout": 1}}'
    pool = start_shop(postgres_folder, yaml=SIMPLE, settings=settings).expect_ready(1)
    first = enqueue("high", "backend")
    eventually(lambda: first.is_finished)
    with postgres.restarted():
        for _ in range(8):
            job = enqueue("high", "backend")
            eventually(lambda job=job: job.is_failed)
    later = [enqueue("high", "backend") for _ in range(3)]
    eventually(lambda: all(job.is_finished or job.is_failed for job in later))
    assert not any(job.is_failed for job in later)
    assert pool.stop() == 0


def test_a_persistent_connection_lives_on_from_job_to_job(start_shop, postgres_folder, enqueue):
    start_shop({**postgres_folder, "SHOP_CONN_MAX_AGE": "600"}, yaml=SIMPLE).expect_ready(1)
    jobs = [enqueue("high", "backend") for _ in range(3)]
    eventually(lambda: all(job.is_finished for job in jobs))
    assert len({job.return_value() for job in jobs}) == 1
