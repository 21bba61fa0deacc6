"""A whole run with tiny counts: natsync and the floor, on a real server, each in a process of its own."""

from __future__ import annotations

import sys

import pytest

from benchmarks.runner import Bench
from benchmarks.scenarios import BY_KEY, RATE
from benchmarks.worker import Worker, WorkerError

QUICK = (
    "publish-headers",
    "publish-4-threads",
    "callback-16",
    "callback-headers",
    "iteration-16",
    "next-msg-16",
    "queue-group",
    "subscriptions-100",
    "request",
    "request-8-threads",
    "request-in-flight",
    "respond",
    "connect",
    "tls-publish-16",
    "tls-request",
)
SLOW = ("request-computing", "memory-connection", "memory-subscription", "import")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("keys,rounds", [(QUICK, 2), (SLOW, 1)], ids=["quick", "slow"])
def test_every_kind_of_scenario_is_measured_and_nothing_is_lost(keys: tuple[str, ...], rounds: int):
    with Bench(["floor", "natsync"], rounds=rounds, seconds=0.005, tell=pytest.fail) as bench:
        for key in keys:
            bench.run(BY_KEY[key])
    for (key, contender), series in bench.results.series.items():
        assert series.error is None, (key, contender)
        assert series.lost == 0, (key, contender)
        assert len(series.values[BY_KEY[key].metrics[0]]) == rounds, (key, contender)
    assert {key for key, _ in bench.results.series} == set(keys)


def test_a_run_takes_about_as_long_as_it_should():
    with Bench(["floor"], rounds=2, seconds=0.01) as bench:
        bench.run(BY_KEY["publish-16"])
    series = bench.results.series["publish-16", "floor"]
    assert series.sent > 2 * BY_KEY["publish-16"].least
    assert all(value > 0 for value in series.values[RATE])


def test_a_process_that_fails_says_why():
    with Worker(sys.executable, "benchmarks.peers.floor") as worker:
        with pytest.raises(WorkerError, match="TypeError"):
            worker.ask("open", nonsense=1)
        assert worker.ask("about")["python"]


def test_a_process_that_has_ended_says_its_last_words():
    with Worker(sys.executable, "benchmarks.peers.nonsense") as worker, pytest.raises(WorkerError, match="No module"):
        worker.hear()
