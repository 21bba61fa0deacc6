"""One client at work: publishers with ledgers, callbacks, a reader, requests, and subscriptions that come and go."""

from __future__ import annotations

import contextlib
import itertools
import threading
from functools import partial
from typing import TYPE_CHECKING

import natsync
from natsync import (
    ConnectionReconnectingError,
    NatsConnectionError,
    NatsError,
    NatsTimeoutError,
    OutboundBufferLimitError,
)
from natsync.events import Reconnected, ReconnectFailed
from tests.faults.calls import Calls, Crew
from tests.faults.invariants import INBOX, check_subscriptions, seal, unseal
from tests.faults.world import narrow_dialer
from tests.soak.ledger import Ledger
from tests.soak.witness import Witness
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Msg
    from natsync.events import Event
    from tests.soak.stage import Stage

SUBJECTS = ("callback.0", "other.1", "read.2", "callback.3")  # one for each publisher
BURST = 3  # messages
PAUSE = 0.01  # seconds between two bursts of a publisher
FLUSH_EVERY = 25  # bursts

WAIT = 1.0 * TIME_FACTOR  # seconds: the deadline of requests and flushes
WRITE_TIMEOUT = 2.0 * TIME_FACTOR
PATIENCE = 2.0 * TIME_FACTOR  # seconds beyond a deadline: the soak runs beside other work
LONGEST_STEP = BURST * WRITE_TIMEOUT + WAIT + PATIENCE

BUFFER = 48 * 1024  # bytes, of both buffers: so small that long faults fill it
COMMANDS = 16 * 1024  # bytes: SUB, UNSUB and PING wait in the same queue, and no limit is theirs

RIGHT: dict[str, tuple[type[NatsError], ...]] = {
    "publish": (OutboundBufferLimitError, NatsTimeoutError),
    "flush": (ConnectionReconnectingError, NatsTimeoutError),
    "request": (OutboundBufferLimitError, NatsTimeoutError),
}


class Party:
    """A client of one stage, with its threads."""

    def __init__(self, stage: Stage) -> None:
        self.calls = Calls()
        self.ledgers = [Ledger(publisher) for publisher in range(len(SUBJECTS))]
        self.peak = 0
        self.reported = 0
        """Messages that events reported as dropped."""
        self.half_restored = 0
        """Connections that broke after their handshake, and before they could be used."""
        self._reconnected = 0
        self._settled_half_restored = 0
        self._stage = stage
        self._name = f"soak-{stage.name}"
        self._crew = Crew()
        self._steps: list[threading.Lock] = []
        self._numbers = itertools.count()
        self._settled_epoch = 0
        self.client = natsync.connect(
            stage.urls,
            name=self._name,
            # One of the two parties feels a peer that does not read at once: partial sends, and publishers that wait.
            dialer=narrow_dialer if len(stage.servers) == 1 else None,
            reconnect_time_wait=0.02,
            reconnect_jitter=0.02,
            connect_timeout=0.5 * TIME_FACTOR,
            ping_interval=0.2 * TIME_FACTOR,
            write_timeout=WRITE_TIMEOUT,
            reconnect_buffer_size=BUFFER,
            pending_size=BUFFER,
            disconnected_cb=self._note,
            reconnect_error_cb=self._note,
            reconnected_cb=self._note,
            closed_cb=self._note,
        )
        self.witness = Witness(stage, SUBJECTS)
        self._subscriptions = [
            self.client.subscribe("callback.*", cb=self._receive),
            self.client.subscribe("other.>", cb=self._receive),
            # Gets nothing: a server gives some messages of a group to the connection that it does not yet know is dead.
            self.client.subscribe("shared", queue="q", cb=self._receive),
            self.client.subscribe("echo", cb=self._answer),
        ]
        self._read = self.client.subscribe("read.*")
        self._taken = 0
        self.client.flush()

    def start(self) -> None:
        """Start the threads: 4 publishers, a reader, an asker, and one that subscribes and unsubscribes."""
        for ledger in self.ledgers:
            self._loop(partial(self._publish, ledger, itertools.count(1)), PAUSE)
        self._loop(self._ask, 2 * PAUSE)
        self._loop(self._come_and_go, PAUSE)
        self._crew.loop(self._read_one, 0.0)

    def _loop(self, step: Callable[[], None], pause: float) -> None:
        """Run `step` again and again, under a lock of its own, by which `_at_rest` holds it up."""
        lock = threading.Lock()
        self._steps.append(lock)

        def locked() -> bool:
            with lock:
                step()
            return True

        self._crew.loop(locked, pause)

    # The work

    def _publish(self, ledger: Ledger, bursts: Iterator[int]) -> None:
        client = self.client
        for _ in range(BURST):
            was_down, epoch = client.is_reconnecting, client.stats.reconnects
            number = ledger.take_number(epoch)
            send = partial(client.publish, SUBJECTS[ledger.publisher], seal(ledger.publisher, number))
            if self.calls("publish", WRITE_TIMEOUT + PATIENCE, send) is not None:
                ledger.refuse(number)
            elif was_down and client.is_reconnecting and client.stats.reconnects == epoch:
                ledger.keep(number)
        self.peak = max(self.peak, client.buffered)
        if next(bursts) % FLUSH_EVERY == 0:
            last = ledger.last
            if self.calls("flush", WAIT + PATIENCE, partial(client.flush, WAIT)) is None:
                ledger.confirm(last, client.stats.reconnects)

    def _receive(self, msg: Msg) -> None:
        publisher, number = unseal(msg.data)
        self.ledgers[publisher].receive(number)

    def _answer(self, msg: Msg) -> None:
        with contextlib.suppress(OutboundBufferLimitError):
            msg.respond(msg.data)

    def _read_one(self) -> bool:
        with contextlib.suppress(NatsTimeoutError):
            self._receive(self._read.next_msg(0.2))
            self._taken += 1
        return True

    def _ask(self) -> None:
        data = seal(0, next(self._numbers))

        def ask() -> None:
            answer = self.client.request("echo", data, timeout=WAIT)
            assert answer.data == data, "somebody else's answer"

        self.calls("request", WAIT + PATIENCE, ask)

    def _come_and_go(self) -> None:
        with self.client.subscribe(f"brief.{next(self._numbers)}"):
            pass

    def _note(self, event: Event) -> None:
        self.reported += event.dropped_msgs
        self._reconnected += isinstance(event, Reconnected)
        # What fails in dialling or in the handshake has an error of its own kind.
        self.half_restored += isinstance(event, ReconnectFailed) and type(event.error) is NatsConnectionError

    # The end of a round

    def settle(self) -> None:
        """Have all threads rest, wait until every message is where it belongs, and check the round."""
        with self._at_rest():
            epoch = self._flush()
            eventually(self._is_quiet, 10.0, "messages stay pending")
            connections = 1 + epoch - self._settled_epoch
            self._settled_epoch = epoch
            restored = self.half_restored == self._settled_half_restored
            self._settled_half_restored = self.half_restored
            for ledger in self.ledgers:
                ledger.settle(epoch, connections, restored=restored)
            self.witness.settle(connections)
            held = [INBOX, "read.*", *(subscription.subject for subscription in self._subscriptions)]
            check_subscriptions(self._stage.servers, self._name, held)

    @contextlib.contextmanager
    def _at_rest(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            for lock in self._steps:
                assert lock.acquire(timeout=LONGEST_STEP), "a call hangs"
                held.callback(lock.release)
            yield

    def _flush(self) -> int:
        """Flush on a connection that stays, and return its epoch."""
        epoch = 0

        def is_calm() -> bool:
            nonlocal epoch
            epoch = self.client.stats.reconnects
            try:
                self.client.flush(WAIT)
            except NatsError:
                return False
            return epoch == self.client.stats.reconnects

        eventually(is_calm, 30.0, "no connection stays")
        return epoch

    def _is_quiet(self) -> bool:
        if self._reconnected != self.client.stats.reconnects:
            return False  # there are events still to be seen
        pending = sum(subscription.pending_msgs for subscription in self._subscriptions)
        return pending == 0 and self._taken == self._read.delivered and self._read.pending_msgs == 0

    # The end

    def close(self) -> None:
        self._crew.stop(LONGEST_STEP)
        self.client.close()
        self.witness.client.close()

    def wrong(self) -> list[str]:
        """Return all that must not be."""
        lines = [line for ledger in self.ledgers for line in ledger.wrong]
        try:
            self.calls.check(RIGHT)
        except AssertionError as error:
            lines.append(str(error))
        if self.peak > BUFFER + COMMANDS:
            lines.append(f"{self.peak} bytes were buffered, the limit is {BUFFER}")
        return lines

    def wrong_drops(self) -> list[str]:
        """Compare what events reported as dropped with what the client counted; when it is closed."""
        dropped = self.client.stats.dropped
        return [] if dropped == self.reported else [f"{dropped} were dropped, and {self.reported} reported"]
