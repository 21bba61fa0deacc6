"""Runs scenarios: a fresh server for each, all contenders connected, their rounds interleaved.

Each contender gets as many messages as take it `seconds`, found out before the first round that counts. The order of
the contenders moves by one in every round, so that none is always behind the same other.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

from benchmarks import contenders as table
from benchmarks.environments import NoEnvironmentError, compile_natsync, python_of, version_of, versions_of
from benchmarks.results import Results, Series
from benchmarks.scenarios import CPU, RATE, SECONDS, Scenario
from benchmarks.worker import ROOT, Worker, WorkerError
from natsync.testing import NatsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.contenders import Contender

_FEEDER = "benchmarks.peers.feeder"
# A subscriber may fall behind as far as it likes: the server must neither drop it nor hold back the publisher.
_SERVER = 'max_pending: 2GB\nwrite_deadline: "60s"\nping_interval: "10m"\n'
_ENOUGH = 0.25  # of `seconds`: a run that took so long says how fast a contender is
_GROWTH = 20
_SLOW_COUNT = 100_000  # messages that a peer keeps pending, where natsync keeps a million


class Bench:
    """The processes of the contenders, and what they measure; a context manager that ends them.

    Args:
        keys: The contenders.
        rounds: How many figures each scenario gets from each contender.
        seconds: How long one run should take.
        tell: Gets one line for each thing that is done.
    """

    def __init__(
        self, keys: Iterable[str], *, rounds: int = 5, seconds: float = 0.12, tell: Callable[[str], None] = print
    ) -> None:
        self.results = Results(rounds=rounds, seconds=seconds)
        self._tell = tell
        self._pythons: dict[str, str] = {}
        self._workers: dict[str, Worker] = {}
        self._stack = contextlib.ExitStack()
        self._authority = trustme.CA()
        self._files = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._ca = self._files / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self._ca))
        for key in keys:
            self._prepare(table.BY_KEY[key])

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.kill()
        self._stack.close()

    def run(self, scenario: Scenario) -> None:
        """Measure one scenario."""
        able = [key for key in self._pythons if table.takes_part(table.BY_KEY[key], scenario.kind, scenario.needs)]
        for key in able:
            self.results.series[scenario.key, key] = Series()
        if scenario.kind == "import":
            self._imports(scenario, able)
            return
        with NatsServer(self._server_config(scenario)) as server, contextlib.ExitStack() as feeders:
            stage = Stage(self, scenario, server, feeders)
            if scenario.fresh:
                self._interleave(able, stage.measure_fresh)
                return
            for key in able:
                with self._noting(scenario, key):
                    stage.open(key)
                    stage.calibrate(key)
            self._interleave(able, stage.measure)
            for key in able:
                if self.results.series[scenario.key, key].error is None:
                    with self._noting(scenario, key):
                        stage.close(key)

    def worker(self, key: str) -> Worker:
        """The process of a contender, started at its first use."""
        if key not in self._workers:
            self._workers[key] = self.start(key)
        return self._workers[key]

    def start(self, key: str) -> Worker:
        """Start a process for a contender."""
        contender = table.BY_KEY[key]
        module = f"benchmarks.peers.{contender.module}"
        # The one way to name an authority to a client that has no option for it.
        environment = {"SSL_CERT_FILE": str(self._ca)}
        return Worker(self._pythons[key], module, *contender.arguments, environment=environment)

    def ca_of(self, scenario: Scenario) -> str | None:
        """The file of the authority, if a scenario goes over TLS."""
        return str(self._ca) if scenario.tls else None

    def fail(self, scenario: Scenario, key: str, error: WorkerError) -> None:
        """Note that a contender has failed, and give it a new process the next time."""
        self.results.series[scenario.key, key].error = str(error)
        self.forget(key)

    def forget(self, key: str) -> None:
        """End the process of a contender; the next use starts a new one."""
        if key in self._workers:
            self._workers.pop(key).kill()

    @contextlib.contextmanager
    def _noting(self, scenario: Scenario, key: str) -> Iterator[None]:
        try:
            yield
        except WorkerError as error:
            self.fail(scenario, key, error)

    def _prepare(self, contender: Contender) -> None:
        try:
            python = python_of(contender)
            if contender.imports == table.NATSYNC:
                compile_natsync(python)
        except NoEnvironmentError as error:
            self._tell(f"{contender.key} is not measured: {error}")
            return
        self._pythons[contender.key] = python
        self.results.contenders[contender.key] = {
            "python": version_of(python),
            **versions_of(python, contender.requirements),
        }

    def _server_config(self, scenario: Scenario) -> str:
        if not scenario.tls:
            return _SERVER
        cert, key = self._files / "cert.pem", self._files / "key.pem"
        issued = self._authority.issue_cert("127.0.0.1", "localhost")
        issued.cert_chain_pems[0].write_to_path(str(cert))
        issued.private_key_pem.write_to_path(str(key))
        return f'{_SERVER}tls {{ cert_file: "{cert.as_posix()}", key_file: "{key.as_posix()}", timeout: 10 }}\n'

    def _interleave(self, keys: Sequence[str], measure: Callable[[str], None]) -> None:
        for number in range(self.results.rounds):
            shift = number % len(keys) if keys else 0
            for key in (*keys[shift:], *keys[:shift]):
                measure(key)

    def _imports(self, scenario: Scenario, keys: list[str]) -> None:
        def measure(key: str) -> None:
            series = self.results.series[scenario.key, key]
            try:
                series.add(SECONDS, self._import(key))
            except WorkerError as error:
                series.error = str(error)

        for key in keys:
            with self._noting(scenario, key):
                self._import(key)  # it compiles what was not compiled
        self._interleave(keys, measure)

    def _import(self, key: str) -> float:
        code = (
            "import time; begin = time.perf_counter()\n"
            f"import {table.BY_KEY[key].imports}\n"
            "print(time.perf_counter() - begin)"
        )
        done = subprocess.run([self._pythons[key], "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkerError(done.stderr.strip().splitlines()[-1])
        return float(done.stdout)


class Stage:
    """One scenario on its server."""

    def __init__(self, bench: Bench, scenario: Scenario, server: NatsServer, stack: contextlib.ExitStack) -> None:
        self._bench = bench
        self._scenario = scenario
        self._server = server
        self._stack = stack
        self._feeders: dict[str, Worker] = {}
        self._counts: dict[str, int] = {}

    def open(self, key: str) -> None:
        """Connect a contender and the process on its other side."""
        task = self._task(key)
        self._bench.worker(key).ask("open", task=task)
        role = self._scenario.feeder
        shared = "responder" if role == "responder" else key
        if role is not None and shared not in self._feeders:
            self._feeders[shared] = self._stack.enter_context(Worker(sys.executable, _FEEDER))
            self._feeders[shared].ask("open", role=role, task=task)

    def close(self, key: str) -> None:
        """Disconnect a contender."""
        self._bench.worker(key).ask("close")

    def calibrate(self, key: str) -> None:
        """Warm a contender up, and find the count that takes it as long as a run should take."""
        if self._scenario.count is not None:
            self._counts[key] = self._scenario.count
            return
        count = self._scenario.least
        while True:
            took = self._run(key, count)["seconds"]
            self._counts[key] = self._count_for(key, count, took)
            if took >= _ENOUGH * self._bench.results.seconds or self._counts[key] <= count:
                return
            count = min(self._counts[key], count * _GROWTH)

    def _count_for(self, key: str, count: int, took: float) -> int:
        scenario = self._scenario
        wanted = max(scenario.least, int(count * self._bench.results.seconds / max(took, 1e-6)))
        most = table.BY_KEY[key].most if scenario.feeder == "publisher" else None
        return wanted if most is None else min(most, wanted)

    def measure(self, key: str) -> None:
        """Run a contender once and note its figures."""
        series = self._bench.results.series[self._scenario.key, key]
        if series.error is not None:
            return
        count = self._counts[key]
        try:
            outcome = self._run(key, count)
        except WorkerError as error:
            self._bench.fail(self._scenario, key, error)
            return
        series.sent += count
        series.lost += max(0, count - outcome["count"])
        if self._scenario.count is None:
            # A run that was disturbed makes no small count of all that follow.
            self._counts[key] = max(count, self._count_for(key, count, outcome["seconds"]))
        for metric in self._scenario.metrics:
            if metric in outcome:
                series.add(metric, outcome[metric])

    def measure_fresh(self, key: str) -> None:
        """Run a contender once in a process of its own."""
        scenario = self._scenario
        assert scenario.count is not None
        is_ours = key in (table.NATSYNC, table.NATSYNC_NEWER)
        self._counts[key] = scenario.count if is_ours else min(scenario.count, _SLOW_COUNT)
        self._bench.forget(key)
        try:
            self.open(key)
            self.measure(key)
            self.close(key)
        except WorkerError as error:
            self._bench.fail(scenario, key, error)

    def _task(self, key: str) -> dict[str, Any]:
        scenario = self._scenario
        return {
            "kind": scenario.kind,
            "url": self._server.url,
            "ca": self._bench.ca_of(scenario),
            "subject": f"bench.{key.replace('+', '-')}",
            "service": "bench.service",
            "size": 16,
            "queue": False,
            "headers": False,
            "subscriptions": 1,
            "busy": 0,
            **scenario.task,
        }

    def _run(self, key: str, count: int) -> dict[str, Any]:
        scenario, worker = self._scenario, self._bench.worker(key)
        before = self._published() if scenario.kind == "publish" else 0
        worker.tell("run", count=count)
        fed = {}
        if scenario.feeder in ("publisher", "requester"):
            worker.hear()  # it is ready
            fed = self._feeders[key].ask("run", count=count)
        outcome = worker.hear()
        if scenario.kind == "publish":
            outcome["count"] = min(count, self._published(at_least=before + count) - before)
        start = fed.get("start", outcome["start"])
        end = fed["end"] if scenario.feeder == "requester" else outcome["end"]
        seconds = end - start
        outcome |= {"seconds": seconds, RATE: outcome["count"] / seconds if seconds > 0 else 0.0}
        if outcome["count"]:
            outcome[CPU] = outcome["cpu"] * 1e6 / outcome["count"]
        return outcome

    def _published(self, at_least: int = 0) -> int:
        """How many messages the server has taken; it counts some moments after it has answered."""
        give_up = time.monotonic() + 1.0
        while True:
            count: int = self._server.varz()["in_msgs"]
            if count >= at_least or time.monotonic() > give_up:
                return count
            time.sleep(0.002)
