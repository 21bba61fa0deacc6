"""What every contender is: the task it gets, the clock it is measured by, and how it counts what it receives.

A contender connects at `open()`, is run several times with different counts, and closes. `ready()` tells the harness
that the other side may begin; the start is then the other side's (`time.perf_counter()` is one clock for all
processes of a system), and the end is when the last message is in the user's hands, or the flush is confirmed.
"""

from __future__ import annotations

import abc
import dataclasses
import gc
import itertools
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.peers import lines

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 20.0
"""Seconds after which a run is over although messages are missing; they count as lost."""

NO_LIMIT = 10**9
"""A pending limit that no run reaches: every contender may fall behind as far as it likes."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be measured, without how often."""

    kind: str
    url: str
    subject: str
    service: str = "bench.service"
    ca: str | None = None
    size: int = 16
    via: str = "callback"
    threads: int = 1
    subscriptions: int = 1
    busy: int = 0  # how many of the subscriptions get messages; 0 for all
    queue: bool = False
    headers: bool = False
    computing: int = 0

    @property
    def data(self) -> bytes:
        """A payload."""
        return b"x" * self.size


@dataclasses.dataclass
class Outcome:
    """What one run has to tell; a context manager that stops the clocks, unless `end` was noted before."""

    count: int
    start: float = 0.0
    end: float = 0.0
    cpu: float = 0.0  # seconds of all threads of the process, in user and system mode
    latencies: list[float] = dataclasses.field(default_factory=list)
    size: float = 0.0  # bytes of memory for each of `count` things

    def __enter__(self) -> Outcome:
        gc.collect()
        self.cpu = time.process_time()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.end = self.end or time.perf_counter()
        self.cpu = time.process_time() - self.cpu

    def message(self) -> dict[str, Any]:
        """As the harness gets it; of the latencies the median and the 99th percentile."""
        message = {"count": self.count, "start": self.start, "end": self.end, "cpu": self.cpu, "size": self.size}
        ordered = sorted(self.latencies)
        if ordered:
            message |= {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]}
        return message


class Countdown:
    """Counts the messages of a run in a callback, with no more than a closure and a C iterator, in any thread."""

    def __init__(self) -> None:
        tick: Callable[[], int] = itertools.count(1).__next__
        last = 0
        finish: Callable[[], object] = tick

        def callback(_: object) -> None:
            if tick() == last:
                self.end = time.perf_counter()
                finish()

        async def async_callback(_: object) -> None:
            if tick() == last:
                self.end = time.perf_counter()
                finish()

        def arm(count: int, then: Callable[[], object]) -> None:
            nonlocal tick, last, finish
            tick, last, finish, self.end = itertools.count(1).__next__, count, then, 0.0

        self.end = 0.0
        self.callback = callback
        self.async_callback = async_callback
        self.arm = arm
        self.taken: Callable[[], int] = lambda: tick() - 1  # how many came; only once it is over


class Contender(abc.ABC):
    """One client, or none, that does tasks."""

    task: Task

    def open(self, task: dict[str, Any]) -> dict[str, Any]:
        """Connect for a task."""
        self.task = Task(**task)
        self.begin()
        return {}

    def run(self, count: int) -> dict[str, Any]:
        """Do the task `count` times and tell what it took."""
        return self.measure(count).message()

    def close(self) -> dict[str, Any]:
        """Disconnect."""
        self.end()
        return {}

    def about(self) -> dict[str, Any]:
        """Tell who this is."""
        return {"python": sys.version.split()[0]}

    @abc.abstractmethod
    def begin(self) -> None:
        """Connect for `self.task`, and subscribe if it says so."""

    @abc.abstractmethod
    def measure(self, count: int) -> Outcome:
        """Do `self.task` `count` times."""

    @abc.abstractmethod
    def end(self) -> None:
        """Disconnect."""

    def ready(self) -> None:
        """Tell the harness that the other side may begin."""
        lines.say({"ready": True})


def resident() -> int:
    """Bytes of this process in memory (where there is no /proc: the most there ever were)."""
    gc.collect()
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
