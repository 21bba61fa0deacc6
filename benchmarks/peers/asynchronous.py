"""What the asyncio clients have in common: the same loops, over each one's own methods.

The loops call the client's methods directly, without a layer in between; a client's file says how it connects,
subscribes and flushes, and changes what its author would write differently.
"""

from __future__ import annotations

import abc
import asyncio
import collections
import contextlib
import functools
import ssl
import time
from typing import TYPE_CHECKING, Any

from benchmarks.peers import wire
from benchmarks.peers.contender import DEADLINE, Contender, Countdown, Outcome, resident
from benchmarks.peers.threads import Computing

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine

WINDOW = 32


class AsyncioContender(Contender):
    """Coroutines on one loop; where others have threads, it has tasks."""

    client: Any

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    # What is each client's own

    @abc.abstractmethod
    async def dial(self) -> Any:
        """Connect a client."""

    @abc.abstractmethod
    async def hang_up(self, client: Any) -> None:
        """Close a client."""

    @abc.abstractmethod
    async def subscribe_to(self, subject: str, queue: str, cb: Callable[[Any], Any] | None) -> Any:
        """Subscribe with every pending limit out of the way."""

    async def flush(self) -> None:
        """Wait until the server has worked off all that was published.

        It answers a question that nobody else answers after all that came before. A client's own flush() may say less:
        natsrpy's ends when the socket has the bytes, and nats-py's PING overtakes what it has not written yet.
        """
        await self.client.flush()
        with contextlib.suppress(Exception):
            await self.client.request("bench.nobody", b"", timeout=DEADLINE)

    def counting(self, countdown: Countdown) -> Callable[[Any], Any]:
        """A callback that counts."""
        return countdown.async_callback

    def responding(self, countdown: Countdown) -> Callable[[Any], Any]:
        """A callback that responds and counts."""
        data, count = self.task.data, countdown.callback

        async def respond(msg: Any) -> None:
            await msg.respond(data)
            count(msg)

        return respond

    def messages(self, subscription: Any) -> AsyncIterable[Any]:
        """What `async for` takes."""
        stream: AsyncIterable[Any] = subscription.messages
        return stream

    def next_msg(self, subscription: Any) -> Awaitable[Any]:
        """Wait for one message."""
        waiting: Awaitable[Any] = subscription.next_msg(timeout=DEADLINE)
        return waiting

    def pending(self, subscription: Any) -> int:
        """How many messages wait to be taken."""
        count: int = subscription.pending_msgs
        return count

    # The contender

    def begin(self) -> None:
        self.loop.run_until_complete(self._begin())

    def end(self) -> None:
        self.loop.run_until_complete(self._end())

    def measure(self, count: int) -> Outcome:
        method: Callable[[int], Coroutine[Any, Any, Outcome]] = getattr(self, self.task.kind)
        return self.loop.run_until_complete(method(count))

    def tls_context(self) -> ssl.SSLContext | None:
        """What verifies the server; None without TLS."""
        return ssl.create_default_context(cafile=self.task.ca) if self.task.ca is not None else None

    async def _begin(self) -> None:
        task = self.task
        self._countdown = Countdown()
        self._subscriptions: list[Any] = []
        self._clients = [await self.dial()]
        self.client = self._clients[0]
        if task.kind == "subscribe":
            await self._subscribe(self.counting(self._countdown) if task.via == "callback" else None)
        elif task.kind == "respond":
            await self._subscribe(self.responding(self._countdown))

    async def _end(self) -> None:
        for client in self._clients:
            await self.hang_up(client)

    async def _subscribe(self, cb: Callable[[Any], Any] | None = None) -> None:
        task = self.task
        names = [task.subject] * task.subscriptions if task.queue else wire.subjects(task.subject, task.subscriptions)
        queue = "group" if task.queue else ""
        self._subscriptions += [await self.subscribe_to(name, queue, cb) for name in names]
        await self.flush()

    async def _in_tasks(self, count: int, some: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        tasks = self.task.threads
        if tasks == 1:
            await some(count)
        else:
            await asyncio.gather(*(some(count // tasks + (number < count % tasks)) for number in range(tasks)))

    # What is measured

    async def publish(self, count: int) -> Outcome:
        task = self.task
        publish = functools.partial(self.client.publish, headers=wire.HEADERS) if task.headers else self.client.publish

        async def some(times: int) -> None:
            subject, data = task.subject, task.data
            for _ in range(times):
                await publish(subject, data)

        with Outcome(count) as outcome:
            await self._in_tasks(count, some)
            await self.flush()
        return outcome

    async def subscribe(self, count: int) -> Outcome:
        if self.task.via == "callback":
            return await self._callbacks(count)
        received = 0

        async def read() -> None:
            nonlocal received
            if self.task.via == "iteration":
                async for _ in self.messages(self._subscriptions[0]):
                    received += 1
                    if received == count:
                        break
            else:
                for _ in range(count):
                    await self.next_msg(self._subscriptions[0])
                    received += 1

        with Outcome(count) as outcome:
            self.ready()
            try:
                await asyncio.wait_for(read(), DEADLINE)
            except asyncio.TimeoutError:
                outcome.count = received
        return outcome

    async def _callbacks(self, count: int) -> Outcome:
        done = asyncio.Event()
        self._countdown.arm(count, done.set)
        with Outcome(count) as outcome:
            self.ready()
            try:
                await asyncio.wait_for(done.wait(), DEADLINE)
            except asyncio.TimeoutError:
                outcome.count = self._countdown.taken()
            outcome.end = self._countdown.end
        return outcome

    respond = _callbacks

    async def request(self, count: int) -> Outcome:
        task, request = self.task, self.client.request
        latencies: list[float] = []

        async def some(times: int) -> None:
            service, data, clock, note = task.service, task.data, time.perf_counter, latencies.append
            for _ in range(times):
                begin = clock()
                await request(service, data, timeout=DEADLINE)
                note(clock() - begin)

        with Computing(task.computing), Outcome(count) as outcome:
            await self._in_tasks(count, some)
        outcome.latencies = latencies
        return outcome

    async def inflight(self, count: int) -> Outcome:
        """As many tasks as the others have requests on the way: asyncio's own way to have several."""
        request, service, data = self.client.request, self.task.service, self.task.data
        numbers = collections.deque(range(count))

        async def some() -> None:
            while numbers:
                numbers.pop()
                await request(service, data, timeout=DEADLINE)

        with Outcome(count) as outcome:
            await asyncio.gather(*(some() for _ in range(WINDOW)))
        return outcome

    async def connect(self, count: int) -> Outcome:
        with Outcome(count) as outcome:
            for _ in range(count):
                begin = time.perf_counter()
                client = await self.dial()
                outcome.latencies.append(time.perf_counter() - begin)
                await self.hang_up(client)
        return outcome

    async def memory_connection(self, count: int) -> Outcome:
        before = resident()
        self._clients += [await self.dial() for _ in range(count)]
        return Outcome(count, size=(resident() - before) / count)

    async def memory_subscription(self, count: int) -> Outcome:
        before = resident()
        callback = self.counting(self._countdown)
        self._subscriptions += [
            await self.subscribe_to(f"{self.task.subject}.{number}", "", callback) for number in range(count)
        ]
        await self.flush()
        await asyncio.sleep(0)
        return Outcome(count, size=(resident() - before) / count)

    async def memory_pending(self, count: int) -> Outcome:
        await self._subscribe()
        subscription = self._subscriptions[0]
        before = resident()
        self.ready()
        give_up = time.monotonic() + DEADLINE
        while self.pending(subscription) < count and time.monotonic() < give_up:
            await asyncio.sleep(0.01)
        return Outcome(self.pending(subscription), size=(resident() - before) / count)
