"""nats-py-sync, a blocking wrapper around nats-py, as a contender. Nothing of it runs between its calls."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import nats_sync

from benchmarks.peers import lines
from benchmarks.peers.contender import DEADLINE, Contender, Outcome
from benchmarks.peers.threads import Computing

if TYPE_CHECKING:
    from collections.abc import Callable


class NatsPySync(Contender):
    """Publish, request, and recv() for each message; it has neither close() nor flush()."""

    def begin(self) -> None:
        self._client = nats_sync.connect(self.task.url)
        if self.task.kind == "subscribe":
            self._subscription = self._client.subscribe(self.task.subject)
            self._flush()

    def end(self) -> None:
        del self._client

    def measure(self, count: int) -> Outcome:
        method: Callable[[int], Outcome] = getattr(self, self.task.kind)
        return method(count)

    def _flush(self) -> None:
        # The server answers a question that nobody else answers after all that came before.
        with contextlib.suppress(Exception):
            self._client.request("bench.nobody", b"", timeout=DEADLINE)

    def publish(self, count: int) -> Outcome:
        publish, subject, data = self._client.publish, self.task.subject, self.task.data
        with Outcome(count) as outcome:
            for _ in range(count):
                publish(subject, data)
            self._flush()
        return outcome

    def subscribe(self, count: int) -> Outcome:
        receive = self._subscription.recv
        with Outcome(count) as outcome:
            self.ready()
            for _ in range(count):
                receive(timeout=DEADLINE)
        return outcome

    def request(self, count: int) -> Outcome:
        request, service, data, clock = self._client.request, self.task.service, self.task.data, time.perf_counter
        with Computing(self.task.computing), Outcome(count) as outcome:
            for _ in range(count):
                begin = clock()
                request(service, data, timeout=DEADLINE)
                outcome.latencies.append(clock() - begin)
        return outcome

    def connect(self, count: int) -> Outcome:
        with Outcome(count) as outcome:
            for _ in range(count):
                begin = time.perf_counter()
                nats_sync.connect(self.task.url)
                outcome.latencies.append(time.perf_counter() - begin)
        return outcome


if __name__ == "__main__":
    lines.serve(NatsPySync())
