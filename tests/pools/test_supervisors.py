"""Pools under real supervisors, with the files of examples/ as they are but for paths."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml
from rq.job import JobStatus

from harness import DEADLINE, MANAGE, ROOT, Pool, eventually

EXAMPLES = ROOT / "examples"

COUNTS = "production: {high: 1, low: 1}"

Supervised = tuple[Pool, Callable[..., str]]


def example(name: str, instead: Mapping[str, str]) -> str:
    """An example's text with other text for what only a real host has; each must be there."""
    text = (EXAMPLES / name).read_text()
    for old, new in instead.items():
        assert old in text, f"{name} does not have {old!r}"
        text = text.replace(old, new)
    return text


COMMAND = {"/srv/shop/venv/bin/python manage.py": f"{sys.executable} {MANAGE}"}


def output_of(*command: object) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=2 * DEADLINE
    )
    return done.stdout + done.stderr


SUPERVISORD = """
[supervisord]
nodaemon=true
pidfile={folder}/pid
logfile={folder}/log
[unix_http_server]
file={folder}/s
[supervisorctl]
serverurl=unix://{folder}/s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


@pytest.fixture
def under_supervisord(start_pool: Callable[..., Pool], tmp_path: Path) -> Iterator[Supervised]:
    """A pool under supervisord, and supervisorctl."""
    log = tmp_path / "rqpool.log"
    instead = {
        **COMMAND,
        "directory=/srv/shop/current": f"directory={tmp_path / 'pool0'}",
        "user=shop\n": "",
        "/var/log/shop/rqpool.log": str(log),
    }
    configuration = tmp_path / "conf"
    configuration.write_text(
        SUPERVISORD.format(folder=tmp_path) + example("supervisord/rqpool.conf", instead)
    )
    pool = start_pool(
        command=[sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
        yaml=COUNTS,
    )
    pool.log = log
    eventually(log.exists)

    def control(command: str) -> str:
        supervisorctl = (sys.executable, "-m", "supervisor.supervisorctl", "-c", configuration)
        return output_of(*supervisorctl, command, "rqpool")

    yield pool, control
    end(pool)


@pytest.fixture
def under_runit(start_pool: Callable[..., Pool], tmp_path: Path) -> Iterator[Supervised]:
    """A pool under runsv, and sv."""
    if shutil.which("runsv") is None:
        pytest.skip("runsv is not installed (Debian: runit)")
    service = tmp_path / "rqpool"
    (service / "control").mkdir(parents=True)
    here = {**COMMAND, "/srv/shop/current": str(tmp_path / "pool0"), "chpst -u shop:shop ": ""}
    for name, instead in {"run": here, "control/t": {}, "finish": {}}.items():
        (service / name).write_text(example(f"runit/{name}", instead))
        (service / name).chmod((EXAMPLES / "runit" / name).stat().st_mode)
    pool = start_pool(command=["runsv", str(service)], yaml=COUNTS)

    def control(command: str) -> str:
        return output_of("sv", "-w", f"{DEADLINE:.0f}", command, service)

    yield pool, control
    end(pool)


def end(pool: Pool) -> None:
    """Ends the supervisor, which ends the pool first and would start one again that is killed."""
    pool.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        pool.wait()


@pytest.fixture(params=["under_supervisord", "under_runit"])
def supervised(request: pytest.FixtureRequest) -> Supervised:
    return request.getfixturevalue(request.param)


def managers(pool: Pool) -> list[int]:
    """The pids of the managers so far."""
    return [int(match[1]) for match in pool.found(r"manager (\d+) of pool shop started")]


def test_a_stop_lets_the_running_job_finish(supervised, enqueue, valkey):
    pool, control = supervised
    pool.expect_ready(2)
    job = enqueue("high", "hold", "gate")
    valkey.blpop(["gate:running"], DEADLINE)

    with ThreadPoolExecutor(1) as executor:
        stopped = executor.submit(control, "stop")
        pool.expect("signal QUIT: stopping gracefully, leaving when the last worker is gone")
        assert not stopped.done()
        assert job.get_status() == JobStatus.STARTED
        valkey.rpush("gate:open", 1)
        assert re.search("stopped|down:", stopped.result(DEADLINE))
    assert job.get_status() == JobStatus.FINISHED
    assert not psutil.pid_exists(pool.manager_pid)
    pool.expect("manager .+ finished")
    assert len(managers(pool)) == 1


def test_a_killed_manager_is_started_again(supervised, enqueue):
    pool, _ = supervised
    pool.expect_ready(2)
    os.kill(pool.manager_pid, signal.SIGKILL)
    pool.expect_ready(4)
    assert len(managers(pool)) == 2
    job = enqueue("low", "nothing")
    eventually(lambda: job.get_status() == JobStatus.FINISHED)


def test_a_restart_replaces_the_manager(supervised):
    pool, control = supervised
    pool.expect_ready(2)
    control("restart")
    pool.expect_ready(4)
    first, second = managers(pool)
    assert not psutil.pid_exists(first)
    assert psutil.pid_exists(second)


def test_the_end_of_the_supervisor_is_a_graceful_end_of_the_pool(supervised, enqueue, valkey):
    pool, _ = supervised
    pool.expect_ready(2)
    job = enqueue("high", "hold", "gate")
    valkey.blpop(["gate:running"], DEADLINE)
    pool.process.terminate()
    pool.expect("signal QUIT")
    valkey.rpush("gate:open", 1)
    pool.wait()
    assert job.get_status() == JobStatus.FINISHED
    assert pool.processes() == []


# The verifiers of the tools


def require(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: {package})")


@pytest.mark.parametrize("unit", ["rqpool.service", "rqpool-swap.service"])
def test_systemd_has_nothing_to_say_about_a_unit(tmp_path, unit):
    require("systemd-analyze", "systemd")
    instead = {"/srv/shop/venv/bin/python": sys.executable}
    (tmp_path / unit).write_text(example(f"systemd/{unit}", instead))
    assert output_of("systemd-analyze", "verify", tmp_path / unit) == ""


def test_monit_accepts_its_file(tmp_path):
    require("monit", "monit")
    control = tmp_path / "monitrc"
    text = example("monit/rqpool", {'uid "shop" and gid "shop"': 'uid "root" and gid "root"'})
    control.write_text(f"set daemon 30\nset idfile {tmp_path}/id\n{text}")
    control.chmod(0o600)
    assert output_of("monit", "-t", "-c", control).endswith("\nControl file syntax OK\n")


def test_logrotate_rotates_and_sends_hup(talk, tmp_path):
    require("logrotate", "logrotate")
    tmp_path.chmod(0o755)
    pool = talk(
        "import signal, sys\n"
        "signal.signal(signal.SIGHUP, lambda *_: print('HUP', flush=True))\n"
        "print('here', flush=True)\nsys.stdin.readline()"
    )
    assert pool.hear() == "here"
    (tmp_path / "log").mkdir(mode=0o755)
    (tmp_path / "tmp" / "pids").mkdir(parents=True)
    (tmp_path / "tmp" / "pids" / "rqpool.pid").write_text(f"{pool.pid}\n")
    logs = [tmp_path / "log" / f"rqpool.{stream}.log" for stream in ("stdout", "stderr")]
    for log in logs:
        log.write_text("a line\n")
    user, group = tmp_path.owner(), tmp_path.group()
    instead = {"/srv/shop/shared": str(tmp_path), "shop shop": f"{user} {group}"}
    configuration = tmp_path / "logrotate.conf"
    configuration.write_text(example("logrotate/rqpool", instead))
    configuration.chmod(0o644)
    assert output_of("logrotate", "--force", "--state", tmp_path / "state", configuration) == ""
    for log in logs:
        assert log.read_text() == ""
        assert log.with_name(f"{log.name}.1").read_text() == "a line\n"
    assert pool.hear() == "HUP"
    assert pool.say().hear() == ""  # and not a second time


def test_compose_gives_jobs_time_and_brings_a_crashed_pool_back():
    service = yaml.safe_load((EXAMPLES / "docker/compose.yaml").read_text())["services"]["rqpool"]
    assert service["stop_grace_period"] == "10m"
    assert service["restart"] == "unless-stopped"


def test_the_kubernetes_probe_tells_a_pool_with_workers_from_one_without(start_pool):
    manifest = yaml.safe_load((EXAMPLES / "kubernetes/deployment.yaml").read_text())
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    assert container["command"][:3] == ["python", "manage.py", "rqpool"]
    probe = container["readinessProbe"]["exec"]["command"]

    def is_ready(pool: Pool) -> bool:
        here = [part.replace("/proc/1/", f"/proc/{pool.manager_pid}/") for part in probe]
        return subprocess.run(here, timeout=DEADLINE).returncode == 0

    assert is_ready(start_pool("high=1").expect_ready(1))
    empty = start_pool("high=0")
    assert not is_ready(empty)


@pytest.mark.parametrize("script", ["run", "finish", "control/t", "log/run"])
def test_runits_scripts_are_executable_and_can_be_read_by_a_shell(script):
    path = EXAMPLES / "runit" / script
    assert os.access(path, os.X_OK)
    assert output_of("sh", "-n", path) == ""
