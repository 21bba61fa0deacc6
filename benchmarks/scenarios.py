"""What is measured: one table. Who takes part is decided in `contenders.py`, what is to be reached in `goals.py`."""

from __future__ import annotations

import dataclasses
from typing import Any

RATE = "rate"
P50 = "p50"
P99 = "p99"
CPU = "cpu"
SIZE = "size"
SECONDS = "seconds"


@dataclasses.dataclass(frozen=True)
class Metric:
    """One kind of figure: what it is called, and in which direction it is better."""

    key: str
    unit: str
    factor: float = 1.0  # from what is measured to the unit
    higher_is_better: bool = False


METRICS = {
    metric.key: metric
    for metric in (
        Metric(RATE, "messages/s", higher_is_better=True),
        Metric(P50, "µs, median", 1e6),
        Metric(P99, "µs, 99th percentile", 1e6),
        Metric(CPU, "CPU s a million"),
        Metric(SIZE, "bytes each"),
        Metric(SECONDS, "ms", 1e3),
    )
}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One thing to do, and how it is measured.

    Attributes:
        key: What `--scenario` takes.
        title: What the table says.
        kind: The contender's method.
        feeder: The role of the process on the other side (`peers/feeder.py`).
        metrics: What is reported; goals and ratios are about the first.
        needs: What a contender must have (`contenders.py`).
        tls: Whether all of it goes over TLS.
        least: The smallest count of a run.
        count: A fixed count; None finds one that takes the time a run should take.
        fresh: Whether every run has a process of its own.
        task: More of the contender's task.
    """

    key: str
    title: str
    kind: str
    feeder: str | None = None
    metrics: tuple[str, ...] = (RATE, CPU)
    needs: frozenset[str] = frozenset()
    tls: bool = False
    least: int = 100
    count: int | None = None
    fresh: bool = False
    task: dict[str, Any] = dataclasses.field(default_factory=dict)


def _publish(key: str, title: str, needs: str = "", **task: Any) -> Scenario:
    return Scenario(key, title, "publish", needs=frozenset(needs.split()), task=task)


def _subscribe(key: str, title: str, needs: str = "", least: int = 100, **task: Any) -> Scenario:
    words = frozenset(needs.split())
    return Scenario(key, title, "subscribe", feeder="publisher", needs=words, least=least, task=task)


def _request(key: str, title: str, needs: str = "", kind: str = "request", **more: Any) -> Scenario:
    return Scenario(key, title, kind, feeder="responder", needs=frozenset(needs.split()), **more)


def _memory(key: str, title: str, count: int, feeder: str | None = None) -> Scenario:
    kind = key.replace("-", "_")
    return Scenario(
        key,
        title,
        kind,
        feeder,
        metrics=(SIZE,),
        needs=frozenset({kind}),
        count=count,
        fresh=True,
        task={"via": "none"},
    )


def _over_tls(scenario: Scenario) -> Scenario:
    return dataclasses.replace(
        scenario,
        key=f"tls-{scenario.key}",
        title=f"TLS: {scenario.title}",
        tls=True,
        needs=scenario.needs | {"tls"},
    )


_PLAIN = (
    _publish("publish-16", "publish 16 B"),
    _publish("publish-1k", "publish 1 KiB", size=1024),
    _publish("publish-64k", "publish 64 KiB", size=65536),
    _publish("publish-4-threads", "publish 16 B, 4 threads (tasks)", "threads", threads=4),
    _publish("publish-16-threads", "publish 16 B, 16 threads (tasks)", "threads", threads=16),
    _publish("publish-64-threads", "publish 16 B, 64 threads (tasks)", "threads", threads=64),
    _publish("publish-headers", "publish 16 B with 2 headers", "headers", headers=True),
    _subscribe("callback-16", "subscribe 16 B, callback", "callback"),
    _subscribe("callback-1k", "subscribe 1 KiB, callback", "callback", size=1024),
    _subscribe("callback-64k", "subscribe 64 KiB, callback", "callback", size=65536),
    _subscribe("iteration-16", "subscribe 16 B, iteration", "iteration", via="iteration"),
    _subscribe("iteration-64k", "subscribe 64 KiB, iteration", "iteration", via="iteration", size=65536),
    _subscribe("next-msg-16", "subscribe 16 B, next_msg()", "next_msg", via="next_msg"),
    _subscribe("callback-headers", "subscribe 16 B with 2 headers, callback", "callback headers", headers=True),
    _subscribe("queue-group", "queue group of 4 subscriptions, callback", "callback", queue=True, subscriptions=4),
    _subscribe("subscriptions-100", "100 subscriptions, callback", "callback", subscriptions=100),
    _subscribe("subscriptions-10000", "10,000 subscriptions, callback", "callback", least=10_000, subscriptions=10_000),
    _subscribe(
        "one-of-10000", "10,000 subscriptions, messages for one of them", "callback", subscriptions=10_000, busy=1
    ),
    _request("request", "request, one after the other", metrics=(P50, P99, CPU)),
    _request("request-8-threads", "request, 8 threads (tasks)", "threads", task={"threads": 8}),
    _request("request-32-threads", "request, 32 threads (tasks)", "threads", task={"threads": 32}),
    _request("request-in-flight", "request, 32 in flight from one thread", "inflight", kind="inflight"),
    _request(
        "request-computing",
        "request beside 4 computing threads",
        metrics=(P50, P99),
        least=5,
        task={"computing": 4},
    ),
    Scenario("respond", "respond from a callback", "respond", "requester", needs=frozenset({"callback"})),
    Scenario("connect", "connect", "connect", metrics=(P50,), count=10),
)

_TLS = ("publish-16", "publish-64k", "callback-16", "callback-64k", "request", "request-in-flight")

SCENARIOS = (
    *_PLAIN,
    *(_over_tls(each) for each in _PLAIN if each.key in _TLS),
    _memory("memory-connection", "memory of a connection", 50),
    _memory("memory-subscription", "memory of a subscription with a callback", 2000),
    _memory("memory-pending", "memory of a pending message of 16 B", 1_000_000, "publisher"),
    Scenario("import", "import", "import", metrics=(SECONDS,), needs=frozenset({"import"})),
)

# By name everything can be had over TLS.
BY_KEY = {scenario.key: scenario for scenario in (*SCENARIOS, *map(_over_tls, _PLAIN))}
