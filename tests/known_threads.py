"""Looks again at what stands in ``django_rq_pool/startup/known_threads.py``.

    pip install polars pyarrow numpy scipy scikit-learn tokenizers ddtrace sentry-sdk ...
    python tests/known_threads.py [name ...]

For each library that is installed, in a process of its own: use it as a module might while it is
imported, run the fork audit, fork, and use the library in the child as a job would. Printed are the
version, the findings, and whether the child has done it (status 0), lacks a thread (1) or hangs. It
is no test: it needs some gigabytes of libraries, and a new version may behave in another way, which
is what to look for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from django_rq_pool.startup.fork_audit import audit
from django_rq_pool.system import processes

LIMIT = 15.0
"""Seconds after which a child hangs. None has more than a second's work."""


@dataclass(frozen=True)
class Case:
    """How a library is used: by the manager, and then by a forked child."""

    package: str
    manager: str
    child: str


POLARS = "pl.DataFrame({'a': [*range(99999)]}).lazy().group_by(pl.col('a') % 7).len().collect()"
ARROW = "pa.table({'a': [*range(99999)]}).group_by('a').aggregate([('a', 'sum')])"
KMEANS = "cluster.KMeans(3).fit(numpy.random.rand(3000, 4))"
PRODUCT = "numpy.random.rand(600, 600) @ numpy.random.rand(600, 600)"
DUCK = "db.sql('select sum(i) from range(9999999) t(i)').fetchall()"
TOKENS = "words.encode_batch(['a a a'] * 2000)"
TORCH = "torch.rand(600, 600) @ torch.rand(600, 600)"

CASES = {
    "numpy, computed": Case("numpy", f"import numpy\n{PRODUCT}", PRODUCT),
    "scikit-learn": Case("scikit-learn", "import numpy\nfrom sklearn import cluster", KMEANS),
    "scikit-learn, computed": Case(
        "scikit-learn", f"import numpy\nfrom sklearn import cluster\n{KMEANS}", KMEANS
    ),
    "torch": Case("torch", "import torch", TORCH),
    "torch, computed": Case("torch", f"import torch\n{TORCH}", TORCH),
    "polars": Case("polars", "import polars as pl", POLARS),
    "polars, computed": Case("polars", f"import polars as pl\n{POLARS}", POLARS),
    "pyarrow": Case("pyarrow", "import pyarrow as pa, pyarrow.compute", ARROW),
    "pyarrow, computed": Case("pyarrow", f"import pyarrow as pa, pyarrow.compute\n{ARROW}", ARROW),
    "duckdb, computed": Case("duckdb", f"import duckdb\ndb = duckdb.connect()\n{DUCK}", DUCK),
    "tokenizers, computed": Case(
        "tokenizers",
        "from tokenizers import Tokenizer, models\n"
        f"words = Tokenizer(models.WordLevel({{'a': 0}}, unk_token='a'))\n{TOKENS}",
        TOKENS,
    ),
    "gevent, thread pool": Case(
        "gevent",
        "import gevent\ngevent.get_hub().threadpool.apply(int)",
        "gevent.get_hub().threadpool.apply(int)",
    ),
    "grpc, channel": Case(
        "grpcio",
        "import grpc\nchannel = grpc.insecure_channel('127.0.0.1:1')\n"
        "grpc.channel_ready_future(channel)\ntime.sleep(0.3)",
        "grpc.channel_ready_future(grpc.insecure_channel('127.0.0.1:1'))",
    ),
    "sentry": Case(
        "sentry-sdk",
        "import sentry_sdk\n"
        "sentry_sdk.init('http://a@127.0.0.1:1/1', traces_sample_rate=1.0, enable_logs=True)\n"
        "sentry_sdk.capture_message('manager')\nsentry_sdk.logger.info('manager')",
        "sentry_sdk.capture_message('child')\nsentry_sdk.flush(1)\n"
        "assert 'sentry-sdk.BackgroundWorker' in names()",
    ),
    "ddtrace": Case(
        "ddtrace",
        "import ddtrace.auto, ddtrace\nwith ddtrace.tracer.trace('manager'): pass",
        "with ddtrace.tracer.trace('child'): pass\nddtrace.tracer.flush()",
    ),
    "opentelemetry": Case(
        "opentelemetry-sdk",
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter\n"
        "traces = TracerProvider()\n"
        "out = ConsoleSpanExporter(out=open(os.devnull, 'w'))\n"
        "traces.add_span_processor(BatchSpanProcessor(out))",
        "with traces.get_tracer('child').start_as_current_span('span'): pass\n"
        "assert traces.force_flush(1000)\nassert names()",
    ),
    "elastic-apm": Case(
        "elastic-apm",
        "import elasticapm\n"
        "client = elasticapm.Client(service_name='x', server_url='http://127.0.0.1:1')",
        "client.capture_message('child')\nassert names()",
    ),
    "posthog": Case(
        "posthog",
        "import posthog\nclient = posthog.Posthog('x', host='http://127.0.0.1:1')",
        "assert names()",
    ),
    "newrelic": Case(
        "newrelic",
        "os.environ['NEW_RELIC_LICENSE_KEY'] = 'x' * 40\nimport newrelic.agent\n"
        "newrelic.agent.initialize()\nnewrelic.agent.register_application(timeout=0.2)",
        "assert names()",
    ),
    "pymongo": Case(
        "pymongo",
        "import pymongo\nclient = pymongo.MongoClient('127.0.0.1:1', "
        "serverSelectionTimeoutMS=200)\ntime.sleep(0.3)",
        "try: client.admin.command('ping')\nexcept pymongo.errors.PyMongoError: pass",
    ),
    "confluent-kafka": Case(
        "confluent-kafka",
        "import confluent_kafka\nproducer = confluent_kafka.Producer("
        "{'bootstrap.servers': '127.0.0.1:1', 'log_level': 0})",
        "from pathlib import Path\n"
        "assert any('rdk' in task.read_text() for task in Path('/proc/self/task').glob('*/comm'))",
    ),
    "launchdarkly": Case(
        "launchdarkly-server-sdk",
        "import ldclient\nfrom ldclient.config import Config\nnowhere = 'http://127.0.0.1:1'\n"
        "ldclient.set_config(Config('x', stream_uri=nowhere, base_uri=nowhere))\nldclient.get()",
        "assert names()",
    ),
    "psycopg-pool": Case(
        "psycopg-pool",
        "import psycopg_pool\nconnections = psycopg_pool.ConnectionPool('host=127.0.0.1 port=1')",
        "assert names()",
    ),
    "apscheduler": Case(
        "APScheduler",
        "from apscheduler.schedulers.background import BackgroundScheduler\n"
        "BackgroundScheduler().start()",
        "assert names()",
    ),
    "watchdog": Case(
        "watchdog",
        "from watchdog import events, observers\nobserver = observers.Observer()\n"
        "observer.schedule(events.FileSystemEventHandler(), '/tmp')\nobserver.start()",
        "assert names()",
    ),
    "prometheus": Case(
        "prometheus-client",
        "import prometheus_client\nprometheus_client.start_http_server(0)",
        "assert names()",
    ),
    "an executor": Case(
        "pip",
        "from concurrent.futures import ThreadPoolExecutor\nexecutor = ThreadPoolExecutor(1)\n"
        "executor.submit(int).result()",
        "executor.submit(int).result()",
    ),
}

PREPARE = """
import os, threading, time

def names():
    return [thread.name for thread in threading.enumerate() if thread.name != "MainThread"]
"""


def look(name: str) -> None:
    """Uses a library in this process and in a child, and tells what was seen."""
    case, given = CASES[name], {}
    exec(PREPARE + case.manager, given)  # noqa: S102
    print(f"\n{name}: {case.package} {version(case.package)}")
    for finding in audit():
        print(f"  {finding.kind.value}: {finding.text}")

    def use() -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        try:
            exec(case.child, given)  # noqa: S102
        except AssertionError:
            return 1
        return 0

    sys.stdout.flush()
    pid = processes.fork(use)
    hangs = not processes.wait_for_end(pid, LIMIT)
    if hangs:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    print("  child:", "hangs" if hangs else f"status {os.waitstatus_to_exitcode(status)}")
    sys.stdout.flush()
    os._exit(0)


def main(names: list[str]) -> None:
    for name in names or CASES:
        try:
            version(CASES[name].package)
        except PackageNotFoundError:
            print(f"\n{name}: {CASES[name].package} is not installed")
            continue
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", f"import known_threads as k; k.look({name!r})"],
            cwd=Path(__file__).parent,
            timeout=10 * LIMIT,
            check=False,
        )


if __name__ == "__main__":
    began = time.monotonic()
    main(sys.argv[1:])
    print(f"\n{time.monotonic() - began:.0f} s")
