"""What natsync has set itself to reach, and whether a run reaches it. Every goal is a ratio, but for three sizes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from benchmarks.contenders import ASYNCIO, FLOOR, NATSYNC, PEERS
from benchmarks.scenarios import P50, RATE, SECONDS, SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.results import Results


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A goal beside what a run says about it; `value` is None if the run does not."""

    title: str
    limit: str
    value: float | None
    text: str
    is_reached: bool | None


@dataclasses.dataclass(frozen=True)
class Goal:
    """One row: at least (`sign` is ">=") or at most ("<=") `limit`."""

    title: str
    sign: str
    limit: float
    measure: Callable[[Results], tuple[float, str] | None]
    unit: str = "x"

    def judge(self, results: Results) -> Verdict:
        """Look whether a run reaches it."""
        limit = f"{self.sign} {self.limit:g} {self.unit}"
        measured = self.measure(results)
        if measured is None:
            return Verdict(self.title, limit, None, "not measured", None)
        value, beside = measured
        is_reached = value >= self.limit if self.sign == ">=" else value <= self.limit
        return Verdict(self.title, limit, value, f"{value:.3g} {self.unit} {beside}".strip(), is_reached)


def judge(results: Results) -> list[Verdict]:
    """All goals beside a run."""
    return [goal.judge(results) for goal in GOALS]


def _best(scenario: str, peers: tuple[str, ...], metric: str = RATE) -> Callable[[Results], tuple[float, str] | None]:
    return lambda results: results.ratio_to_best(scenario, metric, peers)


def _beside(scenario: str, other: str) -> Callable[[Results], tuple[float, str] | None]:
    def measure(results: Results) -> tuple[float, str] | None:
        mine, theirs = (results.median(key, NATSYNC, RATE) for key in (scenario, other))
        return (mine / theirs, other) if mine and theirs else None

    return measure


def _size(scenario: str) -> Callable[[Results], tuple[float, str] | None]:
    def measure(results: Results) -> tuple[float, str] | None:
        size = results.median(scenario, NATSYNC, SIZE)
        return None if size is None else (size, "")

    return measure


def _more_than_floor(results: Results) -> tuple[float, str] | None:
    mine, floor = (results.median("import", key, SECONDS) for key in (NATSYNC, FLOOR))
    return None if mine is None or floor is None else (1000 * (mine - floor), "")


def _places_over_tls(results: Results) -> tuple[float, str] | None:
    """How many places natsync loses over TLS, in the scenario where it loses most."""
    lost: list[tuple[int, str]] = []
    for scenario in {scenario for scenario, _ in results.series if scenario.startswith("tls-")}:
        plain = scenario.removeprefix("tls-")
        metric = P50 if plain == "request" else RATE
        peers = [key for key in PEERS if results.ratio(scenario, metric, key) and results.ratio(plain, metric, key)]
        if peers:
            lost.append((_place(results, scenario, metric, peers) - _place(results, plain, metric, peers), scenario))
    return max(lost) if lost else None


def _place(results: Results, scenario: str, metric: str, peers: list[str]) -> int:
    better = [results.ratio(scenario, metric, key) or 1.0 for key in peers]
    return 1 + sum(ratio > 1 if metric == P50 else ratio < 1 for ratio in better)


GOALS = (
    Goal("publish 16 B, by the best peer in Python", ">=", 2.0, _best("publish-16", ASYNCIO)),
    Goal("publish 16 B, by natsrpy", ">=", 1.0, _best("publish-16", ("natsrpy",))),
    Goal("subscribe 16 B, callback, by the best asyncio peer", ">=", 6.0, _best("callback-16", ASYNCIO)),
    Goal("subscribe 16 B, iteration, by the best asyncio peer", ">=", 5.0, _best("iteration-16", ASYNCIO)),
    Goal("subscribe 16 B, next_msg(), by the best asyncio peer", ">=", 4.0, _best("next-msg-16", ASYNCIO)),
    Goal("request, median, by the floor", "<=", 1.15, _best("request", (FLOOR,), P50)),
    Goal("request, median, by the best peer", "<=", 0.75, _best("request", PEERS, P50)),
    Goal("request, 32 in flight from one thread, by the best peer", ">=", 1.5, _best("request-in-flight", PEERS)),
    Goal("request, 32 threads, by the best peer with 32 tasks", ">=", 1.0, _best("request-32-threads", PEERS)),
    Goal(
        "request beside computing threads, median, by run_coroutine_threadsafe",
        "<=",
        0.5,
        _best("request-computing", ("nats-py+threads",), P50),
    ),
    Goal("publish 64 KiB, by the floor", ">=", 0.9, _best("publish-64k", (FLOOR,))),
    Goal("subscribe 64 KiB, callback, by the floor", ">=", 0.9, _best("callback-64k", (FLOOR,))),
    Goal("subscribe 64 KiB, iteration, by the floor", ">=", 0.9, _best("iteration-64k", (FLOOR,))),
    Goal("places lost over TLS", "<=", 0, _places_over_tls, ""),
    Goal(
        "messages for one of 10,000 subscriptions, by a single one", ">=", 0.9, _beside("one-of-10000", "callback-16")
    ),
    Goal("messages for all of 10,000 subscriptions, by one", ">=", 0.9, _beside("subscriptions-10000", "callback-16")),
    Goal("publish from 64 threads, by one", ">=", 0.9, _beside("publish-64-threads", "publish-16")),
    Goal("memory of a pending message of 16 B", "<=", 250, _size("memory-pending"), "bytes"),
    Goal("import, more than ssl, json and threading", "<=", 60, _more_than_floor, "ms"),
)
