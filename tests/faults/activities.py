"""The activities: what a client does while a fault strikes, and how one sees afterwards that it did it right."""

from __future__ import annotations

import contextlib
import itertools
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from natsync import (
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    NatsError,
    NatsTimeoutError,
    OutboundBufferLimitError,
)
from tests.faults.calls import MARGIN, Calls, Crew
from tests.faults.invariants import INBOX, check_once_and_in_order, seal, unseal
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from natsync import Client, Msg

WRITE_TIMEOUT = 1.0
PATIENCE = 10.0 * TIME_FACTOR  # seconds for what works again
SHORT = 0.5  # seconds for requests, flushes, round trips
DRAIN_TIMEOUT = 1.0
CLOSE = 2.5  # seconds: what close() grants the last bytes, and its threads
BUFFER = 128 * 1024  # bytes, of both buffers

Right = dict[str, tuple[type[NatsError], ...]]


class Activity:
    """Base: doing nothing.

    `start()`, then the fault strikes, `struck()`, the client has felt it, `felt()`; after recovery `finish()`.
    """

    right: ClassVar[Right] = {}
    """What calls may raise while there is a fault."""
    ends_client = False

    def __init__(self, client: Client) -> None:
        self.client = client
        self.calls = Calls()
        self.crew = Crew()
        self.received = Recorder()
        self.peak = 0

    @property
    def held(self) -> list[str]:
        """The subjects of the client's subscriptions, the inbox of requests as `INBOX`."""
        return []

    def start(self) -> None:
        pass

    def struck(self) -> None:
        pass

    def felt(self) -> None:
        pass

    def finish(self) -> None:
        """The client is back, so everything must work again, without an error."""
        self.client.flush(PATIENCE)

    def stop(self) -> None:
        """End the threads; none may hang."""
        self.crew.stop(WRITE_TIMEOUT)

    def check(self, connections: int) -> None:
        """Check what came, and what the calls did, when all is over."""
        received = [unseal(msg.data) for msg in self.received.items]
        check_once_and_in_order(received, connections)
        assert self.peak <= BUFFER, f"{self.peak} bytes were buffered"

    def _warm(self, what: str, count: int) -> None:
        eventually(lambda: self.calls.made[what] >= count, message=f"{what} does not get going")

    def _publishers(self, count: int, burst: int = 4, pause: float = 0.005) -> None:
        self.numbers = [itertools.count() for _ in range(count)]
        for publisher in range(count):
            self.crew.loop(partial(self._burst, publisher, burst), pause)

    def _burst(self, publisher: int, count: int) -> bool:
        error = None
        for _ in range(count):
            data = seal(publisher, next(self.numbers[publisher]))
            error = self.calls("publish", WRITE_TIMEOUT, partial(self.client.publish, "data", data))
            self.peak = max(self.peak, self.client.buffered)
        return not isinstance(error, (ConnectionClosedError, ConnectionDrainingError))


class Idle(Activity):
    def start(self) -> None:
        self.client.subscribe("data", cb=self.received)

    @property
    def held(self) -> list[str]:
        return ["data"]

    def finish(self) -> None:
        self.client.publish("data", seal(0, 0))
        self.client.flush(PATIENCE)
        self.received.wait_for(1)


class Publishing(Activity):
    """8 threads publish numbered messages; a callback of the same client counts them."""

    right: ClassVar[Right] = {"publish": (OutboundBufferLimitError,)}

    def start(self) -> None:
        self.client.subscribe("data", cb=self.received)
        self._publishers(8)
        self._warm("publish", 200)

    @property
    def held(self) -> list[str]:
        return ["data"]

    def finish(self) -> None:
        self.crew.stop(WRITE_TIMEOUT)
        last = {(publisher, next(numbers)) for publisher, numbers in enumerate(self.numbers)}
        for publisher, number in last:
            self.client.publish("data", seal(publisher, number))
        self.client.flush(PATIENCE)
        eventually(lambda: last <= {unseal(msg.data) for msg in self.received.items})


class Subscribing(Activity):
    """2 threads subscribe and unsubscribe; what is held all the while has to come back."""

    def start(self) -> None:
        self.client.subscribe("data", cb=self.received)
        self.client.subscribe("read.*")
        self.client.subscribe("shared", queue="q")
        self.numbers = [itertools.count(), itertools.count()]
        for number in range(2):
            self.crew.loop(partial(self._change, number), 0.001)
        self._warm("subscribe", 50)

    @property
    def held(self) -> list[str]:
        return ["data", "read.*", "shared"]

    def _change(self, number: int) -> bool:
        subscriptions: list[Any] = []
        subject = f"brief.{number}.{next(self.numbers[number])}"
        begun = self.calls("subscribe", MARGIN, lambda: subscriptions.append(self.client.subscribe(subject)))
        ended = begun or self.calls("unsubscribe", MARGIN, lambda: subscriptions[0].unsubscribe())
        return not isinstance(ended, ConnectionClosedError)

    def finish(self) -> None:
        self.crew.stop(MARGIN)
        self.client.publish("data", seal(0, 0))
        self.client.flush(PATIENCE)
        self.received.wait_for(1)


class Requesting(Activity):
    """2 threads ask a callback of the same client, and get their own answers."""

    right: ClassVar[Right] = {"request": (NatsTimeoutError,)}

    def start(self) -> None:
        self.client.subscribe("echo", cb=self._echo)
        self.numbers = [itertools.count(), itertools.count()]
        for number in range(2):
            self.crew.loop(partial(self._ask, number), 0.002)
        self._warm("request", 20)

    @property
    def held(self) -> list[str]:
        return ["echo", INBOX]

    def _echo(self, msg: Msg) -> None:
        with contextlib.suppress(ConnectionClosedError):
            msg.respond(msg.data)

    def _ask(self, asker: int) -> bool:
        data = seal(asker, next(self.numbers[asker]))

        def ask() -> None:
            answer = self.client.request("echo", data, timeout=SHORT)
            assert answer.data == data, "somebody else's answer"

        return not isinstance(self.calls("request", SHORT, ask), ConnectionClosedError)

    def finish(self) -> None:
        self.crew.stop(SHORT)
        assert self.client.request("echo", b"once more", timeout=PATIENCE).data == b"once more"


class Flushing(Activity):
    """A thread flushes and one measures round trips."""

    right: ClassVar[Right] = {
        "flush": (NatsTimeoutError, ConnectionReconnectingError),
        "rtt": (NatsTimeoutError, ConnectionReconnectingError),
    }

    def start(self) -> None:
        self.crew.loop(lambda: self._wait("flush", lambda: self.client.flush(SHORT)), 0.001)
        self.crew.loop(lambda: self._wait("rtt", lambda: self.client.rtt(SHORT)), 0.005)
        self._warm("flush", 20)

    def _wait(self, what: str, call: Any) -> bool:
        return not isinstance(self.calls(what, SHORT, call), ConnectionClosedError)

    def finish(self) -> None:
        self.crew.stop(SHORT)
        self.client.flush(PATIENCE)
        assert self.client.rtt(PATIENCE) < PATIENCE


class Draining(Activity):
    """A drain is under way, held up by a callback, when the fault strikes."""

    right: ClassVar[Right] = {
        "drain": (ConnectionClosedError, ConnectionReconnectingError, NatsTimeoutError),
        "publish": (ConnectionClosedError, ConnectionDrainingError),
    }
    ends_client = True
    count = 50

    def start(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.client.subscribe("data", cb=self._handle)
        for number in range(self.count):
            self.client.publish("data", seal(0, number))
        self.client.flush(PATIENCE)
        assert self.entered.wait(PATIENCE)
        self.crew.do(partial(self.calls, "drain", DRAIN_TIMEOUT, self._drain))
        eventually(lambda: self.client.is_draining)

    def _handle(self, msg: Msg) -> None:
        self.entered.set()
        self.gate.wait(DRAIN_TIMEOUT)
        self.calls("publish", WRITE_TIMEOUT, partial(self.client.publish, "answer", msg.data))
        self.received(msg)

    def _drain(self) -> None:
        self.client.drain(DRAIN_TIMEOUT)
        assert len(self.received) == self.count, f"drained, and {len(self.received)} of {self.count} handled"

    def struck(self) -> None:
        self.gate.set()

    def stop(self) -> None:
        self.crew.stop(DRAIN_TIMEOUT)

    def check(self, connections: int) -> None:
        super().check(connections)
        assert self.client.is_closed
        assert self.calls.made["drain"] == 1
        with pytest.raises(ConnectionClosedError):
            self.client.drain()


class Closing(Activity):
    """`close()` the moment the fault strikes, while 2 threads publish."""

    right: ClassVar[Right] = {"publish": (ConnectionClosedError, OutboundBufferLimitError)}
    ends_client = True

    def start(self) -> None:
        self.client.subscribe("data", cb=self.received)
        self._publishers(2)
        self._warm("publish", 20)

    def struck(self) -> None:
        self._close()

    def _close(self) -> None:
        assert self.calls("close", CLOSE, self.client.close) is None
        assert self.client.is_closed

    def check(self, connections: int) -> None:
        super().check(connections)
        with pytest.raises(ConnectionClosedError):
            self.client.publish("data", b"")
        with pytest.raises(ConnectionClosedError):
            self.client.flush(SHORT)


class ClosingWhileDown(Closing):
    """`close()` when the client has felt the fault, in the middle of its way back."""

    def struck(self) -> None:
        pass

    def felt(self) -> None:
        self._close()


ACTIVITIES: dict[str, type[Activity]] = {
    "idle": Idle,
    "publishing": Publishing,
    "subscribing": Subscribing,
    "requesting": Requesting,
    "flushing": Flushing,
    "draining": Draining,
    "closing": Closing,
    "closing-while-down": ClosingWhileDown,
}
