"""natsync as a contender."""

from __future__ import annotations

import collections
import functools
import threading
import time
from typing import TYPE_CHECKING, Any

import natsync
from benchmarks.peers import lines, wire
from benchmarks.peers.contender import DEADLINE, NO_LIMIT, Contender, Countdown, Outcome, resident
from benchmarks.peers.threads import Computing, InThreads, ticks

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 32


class Natsync(Contender):
    """Blocking calls and threads."""

    def begin(self) -> None:
        task = self.task
        self._countdown = Countdown()
        self._clients: list[natsync.Client] = []
        self._client = self._connect()
        self._subscriptions: list[natsync.Subscription] = []
        if task.kind == "subscribe":
            self._subscribe(cb=self._countdown.callback if task.via == "callback" else None)
        elif task.kind == "respond":
            data, countdown = task.data, self._countdown.callback

            def respond(msg: natsync.Msg) -> None:
                msg.respond(data)
                countdown(msg)

            self._subscribe(cb=respond)

    def end(self) -> None:
        for client in self._clients:
            client.close()

    def measure(self, count: int) -> Outcome:
        method: Callable[[int], Outcome] = getattr(self, self.task.kind)
        return method(count)

    def _connect(self) -> natsync.Client:
        client = natsync.connect(self.task.url, tls_ca=self.task.ca)
        self._clients.append(client)
        return client

    def _subscribe(self, cb: Callable[[natsync.Msg], Any] | None = None) -> None:
        task = self.task
        names = [task.subject] * task.subscriptions if task.queue else wire.subjects(task.subject, task.subscriptions)
        limits = {"pending_msgs_limit": NO_LIMIT, "pending_bytes_limit": NO_LIMIT}
        queue = "group" if task.queue else None
        self._subscriptions += [self._client.subscribe(name, cb=cb, queue=queue, **limits) for name in names]
        self._client.flush()

    # What is measured

    def publish(self, count: int) -> Outcome:
        task, client = self.task, self._client
        publish = functools.partial(client.publish, headers=wire.HEADERS) if task.headers else client.publish

        def some(times: int) -> None:
            subject, data = task.subject, task.data
            for _ in range(times):
                publish(subject, data)

        with InThreads(task.threads, count, some) as work, Outcome(count) as outcome:
            work()
            client.flush(DEADLINE)
        return outcome

    def subscribe(self, count: int) -> Outcome:
        if self.task.via == "callback":
            return self._callbacks(count)
        subscription = self._subscriptions[0]
        give_up = threading.Timer(DEADLINE, subscription.unsubscribe)
        give_up.start()
        with Outcome(count) as outcome:
            self.ready()
            outcome.count = self._read(subscription, count)
        give_up.cancel()
        return outcome

    def _callbacks(self, count: int) -> Outcome:
        done = threading.Event()
        self._countdown.arm(count, done.set)
        with Outcome(count) as outcome:
            self.ready()
            if not done.wait(DEADLINE):
                outcome.count = self._countdown.taken()
            outcome.end = self._countdown.end
        return outcome

    respond = _callbacks

    def _read(self, subscription: natsync.Subscription, count: int) -> int:
        received = 0
        if self.task.via == "iteration":
            for _ in subscription:
                received += 1
                if received == count:
                    break
        else:
            next_msg = subscription.next_msg
            for _ in range(count):
                next_msg(timeout=DEADLINE)
                received += 1
        return received

    def request(self, count: int) -> Outcome:
        task, request = self.task, self._client.request
        latencies: list[float] = []

        def some(times: int) -> None:
            service, data, clock, note = task.service, task.data, time.perf_counter, latencies.append
            for _ in range(times):
                begin = clock()
                request(service, data, timeout=DEADLINE)
                note(clock() - begin)

        with Computing(task.computing), InThreads(task.threads, count, some) as work, Outcome(count) as outcome:
            work()
        outcome.latencies = latencies
        return outcome

    def inflight(self, count: int) -> Outcome:
        request, service, data = self._client.request_future, self.task.service, self.task.data
        waiting: collections.deque[Any] = collections.deque()
        with Outcome(count) as outcome:
            for _ in range(count):
                if len(waiting) == WINDOW:
                    waiting.popleft().result()
                waiting.append(request(service, data, timeout=DEADLINE))
            while waiting:
                waiting.popleft().result()
        return outcome

    def connect(self, count: int) -> Outcome:
        outcome = Outcome(count)
        with outcome:
            for _ in range(count):
                begin = time.perf_counter()
                client = self._connect()
                outcome.latencies.append(time.perf_counter() - begin)
                client.close()
        self._clients[1:] = []
        return outcome

    def memory_connection(self, count: int) -> Outcome:
        before = resident()
        for _ in range(count):
            self._connect()
        return Outcome(count, size=(resident() - before) / count)

    def memory_subscription(self, count: int) -> Outcome:
        before = resident()
        for number in range(count):
            self._client.subscribe(f"{self.task.subject}.{number}", cb=self._countdown.callback)
        self._client.flush()
        return Outcome(count, size=(resident() - before) / count)

    def memory_pending(self, count: int) -> Outcome:
        self._subscribe()
        subscription = self._subscriptions[0]
        before = resident()
        self.ready()
        for _ in ticks():
            if subscription.pending_msgs >= count:
                break
        return Outcome(subscription.pending_msgs, size=(resident() - before) / count)


if __name__ == "__main__":
    lines.serve(Natsync())
