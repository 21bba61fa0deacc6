"""nats-py as threads use it: its loop runs in a thread of its own, driven by `asyncio.run_coroutine_threadsafe`."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import nats

from benchmarks.peers import lines
from benchmarks.peers.contender import DEADLINE, Contender, Outcome
from benchmarks.peers.threads import Computing, InThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

WINDOW = 32


class NatsPyThreads(Contender):
    """What remains of asyncio's speed for a program of threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def begin(self) -> None:
        self._client = self._wait(nats.connect(self.task.url))

    def end(self) -> None:
        self._wait(self._client.close())

    def measure(self, count: int) -> Outcome:
        method: Callable[[int], Outcome] = getattr(self, self.task.kind)
        return method(count)

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def publish(self, count: int) -> Outcome:
        wait, publish, subject, data = self._wait, self._client.publish, self.task.subject, self.task.data

        def some(times: int) -> None:
            for _ in range(times):
                wait(publish(subject, data))

        with InThreads(self.task.threads, count, some) as work, Outcome(count) as outcome:
            work()
            # The server answers a question that nobody else answers after all that came before.
            with contextlib.suppress(Exception):
                wait(self._client.request("bench.nobody", b"", timeout=DEADLINE))
        return outcome

    def request(self, count: int) -> Outcome:
        wait, request, service, data = self._wait, self._client.request, self.task.service, self.task.data
        latencies: list[float] = []

        def some(times: int) -> None:
            for _ in range(times):
                begin = time.perf_counter()
                wait(request(service, data, timeout=DEADLINE))
                latencies.append(time.perf_counter() - begin)

        with (
            Computing(self.task.computing),
            InThreads(self.task.threads, count, some) as work,
            Outcome(count) as outcome,
        ):
            work()
        outcome.latencies = latencies
        return outcome

    def inflight(self, count: int) -> Outcome:
        request, service, data, loop = self._client.request, self.task.service, self.task.data, self._loop
        waiting: collections.deque[Any] = collections.deque()
        with Outcome(count) as outcome:
            for _ in range(count):
                if len(waiting) == WINDOW:
                    waiting.popleft().result()
                coroutine = request(service, data, timeout=DEADLINE)
                waiting.append(asyncio.run_coroutine_threadsafe(coroutine, loop))
            while waiting:
                waiting.popleft().result()
        return outcome


if __name__ == "__main__":
    lines.serve(NatsPyThreads())
