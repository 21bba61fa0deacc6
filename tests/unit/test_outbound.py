"""The outbound buffer, over real sockets: what it takes, keeps, sends and gives up, and in which order."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from natsync.core.link import Link, PingWaiter, PongCallback
from natsync.core.outbound import Mode, Outbound, Pumped
from natsync.core.transport import TcpTransport
from natsync.deadline import Deadline
from natsync.errors import (
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    NatsConnectionError,
    NatsError,
    NatsTimeoutError,
    OutboundBufferLimitError,
)
from natsync.locks import Wakeup
from natsync.policy.pool import Server
from natsync.policy.urls import parse_url
from natsync.protocol.commands import PING_COMMAND, PONG_COMMAND, encode_pub, encode_sub
from natsync.protocol.info import ServerInfo
from natsync.protocol.parser import Parser
from tests.support.waiting import eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.conftest import Pool

NO_WAIT = Deadline(0)
PAUSE = 0.05
"""How long a test watches that a blocked thread stays blocked."""


class Wire:
    """A link over one end of a socket pair, and the other end, which plays the server."""

    def __init__(self, generation: int, *, max_payload: int = 1 << 20, transport: type[TcpTransport] = TcpTransport):
        ours, self.peer = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.transport = transport(ours)
        self.lost = 0
        server = Server(parse_url("127.0.0.1"))
        info = ServerInfo(max_payload=max_payload)
        self.link = Link(generation, self.transport, server, info, Parser(), [], self._on_lost)

    def _on_lost(self) -> None:
        self.lost += 1

    def received(self) -> bytes:
        """Return what has come to the server so far."""
        data = b""
        while True:
            try:
                more = self.peer.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return data
            if not more:
                return data
            data += more

    def received_until_end(self) -> bytes:
        data = b""
        while more := self.peer.recv(65536):
            data += more
        return data

    def close(self) -> None:
        self.transport.close()
        self.peer.close()


class GatedTransport(TcpTransport):
    """A TCP transport whose sends can be held up, to see what others do meanwhile."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sending = threading.Event()
        self.passing = threading.Event()

    def send(self, data: bytes | memoryview) -> int:
        self.sending.set()
        assert self.passing.wait(10)
        return super().send(data)


class RationedTransport(TcpTransport):
    """A TCP transport over a socket that takes so many bytes, and then no more."""

    room = 0

    def send(self, data: bytes | memoryview) -> int:
        sent = super().send(memoryview(data)[: self.room]) if self.room else 0
        self.room -= sent
        return sent


class InterruptedTransport(TcpTransport):
    """A TCP transport whose first send is struck by Ctrl-C right after the socket took the bytes."""

    struck = False

    def send(self, data: bytes | memoryview) -> int:
        sent = super().send(data)
        if not self.struck:
            self.struck = True
            raise KeyboardInterrupt
        return sent


class Pumper:
    """A thread that does with the buffer what the supervisor does, but sleeps for ever: a lost wake-up fails a test."""

    def __init__(self, outbound: Outbound, wakeup: Wakeup, link: Link) -> None:
        self._outbound = outbound
        self._wakeup = wakeup
        self._link = link
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Pumper:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped = True
        self._wakeup.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped and not self._link.is_lost:
            pumped = self._outbound.pump()
            if pumped is Pumped.FULL:
                self._link.transport.wait_writable(0.05)
            elif pumped is not Pumped.SENT and self._outbound.sleep():
                self._wakeup.wait(600)
                self._outbound.awake()


@pytest.fixture
def wires() -> Iterator[Callable[..., Wire]]:
    made: list[Wire] = []

    def make(*args: int, **kwargs: object) -> Wire:
        generation = args[0] if args else 1
        made.append(Wire(generation, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for wire in made:
        wire.close()


@pytest.fixture
def wire(wires: Callable[..., Wire]) -> Wire:
    made: Wire = wires()
    return made


def make_outbound(
    *, live: int = 1000, buffer: int = 1000, write_timeout: float = 10.0, wakeup: Wakeup | None = None
) -> Outbound:
    return Outbound(live_limit=live, buffer_limit=buffer, write_timeout=write_timeout, wakeup=wakeup or Wakeup())


def pub(number: int, size: int = 40) -> bytes:
    """Make a publish of exactly `size` bytes that tells its number."""
    payload = b"%08d" % number
    frame = encode_pub(b"s", None, payload)
    while len(frame) < size:
        payload += b"." * (size - len(frame))
        frame = encode_pub(b"s", None, payload)
        if len(frame) > size:  # the length field grew by a digit
            payload = payload[: -(len(frame) - size)]
            frame = encode_pub(b"s", None, payload)
            if len(frame) < size:
                return encode_pub(b"ss", None, payload)
    return frame


def numbers(stream: bytes) -> list[int]:
    """Read the numbers of the publishes that came whole."""
    return [int(number) for number in re.findall(rb"PUB ss? \d+\r\n(\d{8})\.*\r\n", stream)]


def closed() -> NatsError:
    return ConnectionClosedError("closed")


def put(outbound: Outbound, frame: bytes, deadline: Deadline | None = NO_WAIT) -> bool:
    return outbound.put(frame, 1, deadline=deadline)


def put_and_push(outbound: Outbound, frame: bytes, deadline: Deadline | None = NO_WAIT) -> bool:
    """Do as a caller that is about to wait for the answer."""
    taken = outbound.put(frame, 1, wake=False, deadline=deadline)
    outbound.push()
    return taken


def go_live(outbound: Outbound, wire: Wire) -> None:
    outbound.begin(wire.link)
    outbound.live()


def pump_all(outbound: Outbound) -> None:
    """Send until nothing goes any more."""
    while outbound.pump() is Pumped.SENT:
        pass


def counters(outbound: Outbound) -> tuple[int, int, int]:
    return outbound.size, outbound.out_msgs, outbound.out_bytes


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Start a call on a thread; its result or exception gets into the list."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def blocked_put(
    outbound: Outbound, frame: bytes, deadline: Deadline | None = None
) -> tuple[threading.Thread, list[object]]:
    """Start a put that finds no room, and return when it waits."""
    waiting = len(outbound._room)
    thread, outcome = in_thread(lambda: outbound.put(frame, 1, deadline=deadline))
    eventually(lambda: len(outbound._room) > waiting or outcome)
    assert not outcome
    return thread, outcome


def finish(thread: threading.Thread) -> None:
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("size", [24, 25, 40, 99, 120, 1000, 1001, 1002, 1003, 1010, 5000])
def test_publishes_of_these_tests_have_the_size_asked_for(size: int):
    frame = pub(7, size)
    assert len(frame) == size
    assert numbers(frame) == [7]


# Modes and what they take.


def test_a_client_that_found_no_server_is_dormant_again(wire: Wire):
    outbound = make_outbound()
    outbound.begin(wire.link)
    outbound.down()
    outbound.rest()
    assert outbound.mode is Mode.DORMANT
    assert put(outbound, pub(1)) is False
    go_live(outbound, wire)
    assert put(outbound, pub(2))


def test_dormant_takes_nothing():
    outbound = make_outbound()
    assert outbound.mode is Mode.DORMANT
    assert put(outbound, pub(1)) is False
    outbound.put_control(b"SUB a 1\r\n", 0)
    with pytest.raises(ConnectionReconnectingError):
        outbound.put_ping(PingWaiter())
    assert counters(outbound) == (0, 0, 0)
    assert outbound.pump() is Pumped.IDLE


@pytest.mark.parametrize("size", [24, 40, 100])
@pytest.mark.parametrize("limit", [0, 1, 39, 40, 99, 100, 120, 500])
@pytest.mark.parametrize("mode", [Mode.BUFFERING, Mode.FLUSHING])
def test_the_reconnect_buffer_is_filled_to_the_byte_and_never_over(mode: Mode, limit: int, size: int, wire: Wire):
    outbound = make_outbound(buffer=limit)
    outbound.buffer()
    if mode is Mode.FLUSHING:
        outbound.begin(wire.link)
    assert outbound.mode is mode
    fitting = limit // size
    for number in range(fitting):
        assert outbound.put(pub(number, size), 10)
    before = counters(outbound)
    assert before == (fitting * size, fitting, fitting * 10)
    with pytest.raises(OutboundBufferLimitError, match=r"reconnect_buffer_size") as caught:
        outbound.put(pub(99, size), 10)
    assert (caught.value.size, caught.value.limit) == (size, limit)
    assert counters(outbound) == before, "something of the refused message was kept"
    rest = limit - fitting * size
    if rest >= 24:
        assert outbound.put(pub(77, rest), 10)
        assert outbound.size == limit


def test_the_buffer_takes_again_what_fits_after_a_refusal():
    outbound = make_outbound(buffer=100)
    outbound.buffer()
    put(outbound, pub(1, 60))
    with pytest.raises(OutboundBufferLimitError):
        put(outbound, pub(2, 60))
    assert put(outbound, pub(3, 40))
    assert outbound.size == 100


def test_refused_messages_are_not_sent_later(wire: Wire):
    outbound = make_outbound(buffer=80)
    outbound.buffer()
    put(outbound, pub(1))
    put(outbound, pub(2))
    with pytest.raises(OutboundBufferLimitError):
        put(outbound, pub(3))
    go_live(outbound, wire)
    pump_all(outbound)
    assert numbers(wire.received()) == [1, 2]


def test_live_takes_up_to_pending_size_to_the_byte(wire: Wire):
    outbound = make_outbound(live=100)
    go_live(outbound, wire)
    assert put(outbound, pub(1, 60))
    assert put(outbound, pub(2, 40))
    before = counters(outbound)
    with pytest.raises(NatsTimeoutError, match="no room for more within 0 s") as caught:
        put(outbound, pub(3, 24))
    assert caught.value.timeout == 0
    assert counters(outbound) == before == (100, 2, 2)
    pump_all(outbound)
    assert outbound.size == 0
    assert numbers(wire.received()) == [1, 2]


def test_a_frame_larger_than_pending_size_goes_alone(wire: Wire):
    outbound = make_outbound(live=100)
    go_live(outbound, wire)
    assert put(outbound, pub(1, 500))
    with pytest.raises(NatsTimeoutError):
        put(outbound, pub(2, 24))
    pump_all(outbound)
    assert put(outbound, pub(3, 24))
    with pytest.raises(NatsTimeoutError):
        put(outbound, pub(4, 500))


def test_without_a_deadline_the_wait_for_room_is_write_timeout(wire: Wire):
    outbound = make_outbound(live=40, write_timeout=0.02)
    go_live(outbound, wire)
    put(outbound, pub(1))
    with pytest.raises(NatsTimeoutError, match=r"within 0\.02 s") as caught:
        put(outbound, pub(2), None)
    assert caught.value.timeout == 0.02


def test_one_deadline_is_spent_over_all_the_waits_of_a_put(wire: Wire):
    """Others take the room again and again; the waiter must not start its time anew."""
    outbound = make_outbound(live=100)
    go_live(outbound, wire)
    put(outbound, pub(0, 100))
    start = time.monotonic()
    thread, outcome = blocked_put(outbound, pub(1, 100), Deadline(0.2))
    while thread.is_alive() and time.monotonic() < start + 5:
        with outbound._lock:
            outbound._make_room_locked()  # as if another had been faster
    finish(thread)
    assert isinstance(outcome[0], NatsTimeoutError)
    assert outcome[0].timeout == 0.2
    assert 0.2 <= time.monotonic() - start < 2


# Back-pressure.


def test_who_waits_for_room_goes_on_when_half_is_sent(wires: Callable[..., Wire]):
    """Not at every byte, or each would wake everybody for nothing."""
    wire = wires(1, transport=RationedTransport)
    assert isinstance(wire.transport, RationedTransport)
    outbound = make_outbound(live=100)
    go_live(outbound, wire)
    put(outbound, pub(1, 100))
    thread, outcome = blocked_put(outbound, pub(2, 50))
    wire.transport.room = 49
    pump_all(outbound)
    never(lambda: outcome, PAUSE)
    wire.transport.room = 1
    pump_all(outbound)
    finish(thread)
    assert outcome == [True]
    wire.transport.room = 1000
    pump_all(outbound)
    assert numbers(wire.received()) == [1, 2]


def test_who_waits_for_room_asks_the_sleeping_supervisor_for_it(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(live=40, wakeup=wakeup)
    go_live(outbound, wire)
    outbound.put(pub(1), 1)
    with outbound._lock:
        outbound._asleep = True  # it slept while another had the token, who is gone by now
    thread, outcome = blocked_put(outbound, pub(2))
    assert wakeup.wait(5)
    pump_all(outbound)
    finish(thread)
    assert outcome == [True]


def test_who_gave_up_waiting_for_room_leaves_no_trace(wire: Wire):
    outbound = make_outbound(live=40)
    go_live(outbound, wire)
    put(outbound, pub(1))
    with pytest.raises(NatsTimeoutError):
        put(outbound, pub(2), Deadline(0.01))
    assert not outbound._room


@pytest.mark.parametrize("fits", [True, False])
def test_a_loss_sends_who_waits_for_room_to_the_reconnect_buffer(wire: Wire, fits: bool):
    outbound = make_outbound(live=40, buffer=80 if fits else 79)
    go_live(outbound, wire)
    put(outbound, pub(1))
    thread, outcome = blocked_put(outbound, pub(2))
    outbound.down()
    finish(thread)
    assert outcome == [True] if fits else isinstance(outcome[0], OutboundBufferLimitError)
    assert outbound.size == (80 if fits else 40)


@pytest.mark.parametrize("end", [Outbound.refuse, Outbound.shut])
def test_the_end_wakes_everybody_who_waits_for_room(wire: Wire, end: Callable[..., object]):
    outbound = make_outbound(live=40)
    go_live(outbound, wire)
    put(outbound, pub(1))
    waiting = [blocked_put(outbound, pub(number)) for number in range(5)]
    end(outbound, closed)
    for thread, outcome in waiting:
        finish(thread)
        assert isinstance(outcome[0], ConnectionClosedError)
    assert outbound.out_msgs == 1


def test_a_full_socket_holds_publishers_back_and_loses_nothing(pool: Pool, wires: Callable[..., Wire], switching: None):
    """Many publishers, some of whom send for themselves, a small buffer, a small socket, and a server that reads."""
    publishers, each = 6, 150
    wakeup = Wakeup()
    outbound = make_outbound(live=500, wakeup=wakeup)
    wire = wires()
    go_live(outbound, wire)
    largest = 0

    def publish(publisher: int) -> None:
        nonlocal largest
        for number in range(each):
            frame = pub(publisher * 1000 + number, 24 + (number * 37) % 400)
            send = put_and_push if number % 3 == 0 else put
            assert send(outbound, frame, Deadline(20))
            largest = max(largest, outbound.size)

    with Pumper(outbound, wakeup, wire.link):
        stream = pool.submit(wire.received_until_end)
        for done in [pool.submit(publish, publisher) for publisher in range(publishers)]:
            done.result(30)
        eventually(lambda: outbound.size == 0)
        wire.link.lose(None)
        got = numbers(stream.result(30))
    assert largest <= 500
    assert outbound.out_msgs == len(got) == publishers * each
    for publisher in range(publishers):
        assert [n % 1000 for n in got if n // 1000 == publisher] == list(range(each)), "out of order"


# Sending.


def test_push_sends_at_once_and_wakes_nobody(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    assert put_and_push(outbound, pub(1))
    assert numbers(wire.received()) == [1]
    assert not wakeup.wait(0)
    assert outbound.size == 0


def test_a_put_wakes_the_sleeping_supervisor_once(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    put(outbound, pub(1))
    assert wakeup.wait(0)
    put(outbound, pub(2))
    assert not wakeup.wait(0)


def test_an_awake_supervisor_is_not_woken(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    outbound.awake()
    put(outbound, pub(1))
    assert not wakeup.wait(0)


def test_the_supervisor_does_not_sleep_when_there_is_something_to_send(wire: Wire):
    outbound = make_outbound()
    outbound.buffer()
    put(outbound, pub(1))
    assert outbound.sleep(), "without a connection there is nothing to send"
    go_live(outbound, wire)
    assert not outbound.sleep()
    pump_all(outbound)
    assert outbound.sleep()


def test_who_will_send_himself_wakes_the_supervisor_softly_and_once(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    wakeup.wait(0)
    assert outbound.put_soon(pub(1), 7)
    assert wakeup.wait(0)
    assert outbound.is_in_no_hurry()
    assert outbound.put_soon(pub(2), 7)
    assert not wakeup.wait(0), "he knows already"
    put(outbound, pub(3))
    assert wakeup.wait(0), "a publish is in a hurry all the same"
    assert not outbound.is_in_no_hurry()
    outbound.awake()
    pump_all(outbound)
    assert numbers(wire.received()) == [1, 2, 3]
    assert counters(outbound)[:2] == (0, 3)


def test_a_supervisor_that_runs_is_in_a_hurry_again(wire: Wire):
    outbound = make_outbound()
    go_live(outbound, wire)
    assert outbound.sleep()
    assert outbound.put_soon(pub(1), 7)
    outbound.awake()
    assert not outbound.is_in_no_hurry()
    assert outbound.put_soon(pub(2), 7)
    assert not outbound.is_in_no_hurry()


def test_push_sends_nothing_before_the_buffer_is_flushed(wire: Wire):
    outbound = make_outbound()
    outbound.buffer()
    outbound.begin(wire.link)
    assert put_and_push(outbound, pub(1))
    outbound.push()
    assert wire.received() == b""
    assert outbound.pump() is Pumped.SENT
    assert outbound.pump() is Pumped.IDLE
    assert numbers(wire.received()) == [1]


@pytest.mark.parametrize("begin", [put_and_push, lambda outbound, frame: outbound.send_alone(frame, 7)])
def test_one_sends_at_a_time_for_all(wires: Callable[..., Wire], begin: Callable[[Outbound, bytes], bool]):
    wire = wires(transport=GatedTransport)
    assert isinstance(wire.transport, GatedTransport)
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    wakeup.wait(0)
    thread, _ = in_thread(lambda: begin(outbound, pub(1)))
    assert wire.transport.sending.wait(5)
    assert put_and_push(outbound, pub(2))
    assert outbound.pump() is Pumped.BUSY
    assert outbound.sleep(), "the supervisor sleeps while another sends"
    wire.transport.passing.set()
    finish(thread)
    assert numbers(wire.received()) == [1, 2]
    assert not wakeup.wait(0), "nothing is left for the supervisor"


class BusyTransport(TcpTransport):
    """A TCP transport during each of whose sends something is published."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.publish: Callable[[int], object] = id
        self.sends = 0

    def send(self, data: bytes | memoryview) -> int:
        self.sends += 1
        self.publish(self.sends)
        return super().send(data)


@pytest.mark.parametrize("begin", [put_and_push, lambda outbound, frame: outbound.send_alone(frame, 7)])
def test_nobody_sends_for_the_others_for_ever(wires: Callable[..., Wire], begin: Callable[[Outbound, bytes], bool]):
    wire = wires(transport=BusyTransport)
    assert isinstance(wire.transport, BusyTransport)
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    wakeup.wait(0)
    wire.transport.publish = lambda number: put(outbound, pub(number))
    assert begin(outbound, pub(0))
    assert wire.transport.sends == 4
    assert outbound.size == 40
    assert not outbound.sleep(), "the supervisor has the rest to send"
    wire.transport.publish = id
    pump_all(outbound)
    assert numbers(wire.received()) == [0, 1, 2, 3, 4]


def test_what_is_left_by_a_sender_wakes_the_sleeping_supervisor(wires: Callable[..., Wire]):
    wire = wires(transport=BusyTransport)
    assert isinstance(wire.transport, BusyTransport)
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    wakeup.wait(0)
    wire.transport.publish = lambda number: outbound.put(pub(number), 7, wake=False)
    put_and_push(outbound, pub(0))
    assert wakeup.wait(0)


def test_what_the_socket_does_not_take_is_left_to_the_supervisor(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(live=1 << 20, wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    assert put_and_push(outbound, pub(1, 500_000))
    assert wakeup.wait(0)
    assert 0 < outbound.sent_bytes < 500_000
    assert outbound.size == 500_000 - outbound.sent_bytes
    assert not outbound.sleep()
    assert outbound.pump() is Pumped.FULL
    stream = b""
    while outbound.size:
        stream += wire.received()
        outbound.pump()
    stream += wire.received()
    assert stream == pub(1, 500_000)
    assert outbound.pump() is Pumped.IDLE


def test_a_broken_socket_loses_the_link_with_its_reason(wire: Wire):
    outbound = make_outbound()
    go_live(outbound, wire)
    wire.peer.close()
    assert put_and_push(outbound, pub(1)), "the publisher is not to blame"
    assert wire.link.is_lost
    assert isinstance(wire.link.loss.error, NatsConnectionError)
    assert wire.lost == 1
    dropped = outbound.down()
    assert (dropped.msgs, outbound.size) == (0, 40), "none of it was sent"


# A publish whose sender waits for the answer goes past the queue, if there is none.


def test_alone_a_publish_is_sent_at_once_and_counted(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    wakeup.wait(0)
    assert outbound.send_alone(pub(1), 7)
    assert numbers(wire.received()) == [1]
    assert counters(outbound) == (0, 1, 7)
    assert outbound.sent_bytes == 40
    assert not wakeup.wait(0), "nobody has anything to do"
    assert outbound.send_alone(pub(2), 7)


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.LIVE])
def test_without_a_connection_no_publish_is_sent_alone(mode: Mode, wire: Wire):
    outbound = make_outbound()
    if mode is not Mode.DORMANT:
        outbound.buffer()
    if mode is Mode.FLUSHING:
        outbound.begin(wire.link)
    if mode is Mode.SHUT:
        outbound.shut(closed)
    assert not outbound.send_alone(pub(1), 7)
    assert counters(outbound) == (0, 0, 0)
    assert wire.received() == b""


def test_a_publish_does_not_overtake_what_waits(wires: Callable[..., Wire]):
    wire = wires(transport=RationedTransport)
    assert isinstance(wire.transport, RationedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    put(outbound, pub(1))
    assert not outbound.send_alone(pub(2), 7)
    outbound.pump()
    assert not outbound.send_alone(pub(2), 7), "a batch is under way"
    wire.transport.room = 1000
    pump_all(outbound)
    assert outbound.send_alone(pub(2), 7)
    assert numbers(wire.received()) == [1, 2]


def test_a_publish_is_not_sent_alone_while_another_thread_sends(wires: Callable[..., Wire]):
    wire = wires(transport=GatedTransport)
    assert isinstance(wire.transport, GatedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    thread, _ = in_thread(lambda: outbound.send_alone(pub(1), 7))
    assert wire.transport.sending.wait(5)
    assert not outbound.send_alone(pub(2), 7)
    assert outbound.pump() is Pumped.BUSY
    wire.transport.passing.set()
    finish(thread)
    assert outbound.send_alone(pub(2), 7)
    assert numbers(wire.received()) == [1, 2]


@pytest.mark.parametrize("end", [Outbound.refuse, Outbound.shut])
def test_a_client_that_ends_sends_nothing_alone(end: Callable[..., object], wire: Wire):
    outbound = make_outbound()
    go_live(outbound, wire)
    end(outbound, closed)
    assert not outbound.send_alone(pub(1), 7)
    assert wire.received() == b""


def test_what_the_socket_does_not_take_of_a_publish_sent_alone_is_left_to_the_supervisor(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(live=1 << 20, wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    wakeup.wait(0)
    assert outbound.send_alone(pub(1, 500_000), 7)
    assert wakeup.wait(0)
    assert 0 < outbound.sent_bytes < 500_000
    assert outbound.size == 500_000 - outbound.sent_bytes
    stream = b""
    while outbound.size:
        stream += wire.received()
        outbound.pump()
    assert stream + wire.received() == pub(1, 500_000)
    assert outbound.sent_bytes == 500_000


@pytest.mark.parametrize("size", [40, 500_000])
def test_a_loss_gives_up_what_was_sent_alone_in_part_and_keeps_what_was_not_sent(wires: Callable[..., Wire], size: int):
    wire = wires(1, transport=RationedTransport)
    assert isinstance(wire.transport, RationedTransport)
    outbound = make_outbound(live=1 << 20, buffer=1 << 20)
    go_live(outbound, wire)
    wire.transport.room = 10 if size > 40 else 0
    assert outbound.send_alone(pub(1, size), 7)
    put(outbound, pub(2))
    dropped = outbound.down()
    assert (dropped.msgs, dropped.bytes) == ((1, size) if size > 40 else (0, 0))
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert numbers(second.received()) == ([2] if size > 40 else [1, 2])


def test_a_socket_that_breaks_under_a_publish_sent_alone_loses_the_link_and_not_the_publish(wires: Callable[..., Wire]):
    wire = wires(1)
    outbound = make_outbound()
    go_live(outbound, wire)
    wire.peer.close()
    assert outbound.send_alone(pub(1), 7), "the publisher is not to blame"
    assert wire.link.is_lost
    assert outbound.down().msgs == 0
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert numbers(second.received()) == [1]


def test_ctrl_c_in_a_publish_sent_alone_costs_the_connection_and_sends_nothing_twice(wires: Callable[..., Wire]):
    wire = wires(1, transport=InterruptedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    with pytest.raises(KeyboardInterrupt):
        outbound.send_alone(pub(1), 7)
    assert wire.link.is_lost
    assert "interrupted" in str(wire.link.loss.error)
    put(outbound, pub(2))
    outbound.down()
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert numbers(second.received()) == [2]


@pytest.mark.parametrize("room", [10, 0])
def test_ctrl_c_before_the_rest_of_a_publish_sent_alone_is_kept_costs_the_connection(
    wires: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch, room: int
):
    """Otherwise the next frame would be taken for the rest of this one."""
    wire = wires(1, transport=RationedTransport)
    assert isinstance(wire.transport, RationedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    wire.transport.room = room
    monkeypatch.setattr(outbound, "_keep_rest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        outbound.send_alone(pub(1), 7)
    assert wire.link.is_lost


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("begin", [Outbound.push, lambda outbound: outbound.send_alone(pub(7), 7)])
def test_ctrl_c_between_taking_pings_and_noting_them_costs_the_connection(
    wires: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch, begin: Callable[[Outbound], object]
):
    """Otherwise each PONG would be taken for that of the next PING, and a flush would return too early."""
    wire = wires(transport=BusyTransport)
    assert isinstance(wire.transport, BusyTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    monkeypatch.setattr(wire.link, "expect_pongs", interrupt)
    wire.transport.publish = lambda _: outbound.put_ping(PingWaiter(), wake=False)
    if begin is Outbound.push:
        outbound.put_ping(PingWaiter(), wake=False)
    with pytest.raises(KeyboardInterrupt):
        begin(outbound)
    assert wire.link.is_lost


class HurriedWakeup(Wakeup):
    """The supervisor's signal; he runs between its giving and the next step of whoever gave it."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        super().__init__()
        self.runs: Callable[[], object] = dict

    def set(self) -> None:
        super().set()
        self.runs()


def test_a_supervisor_that_is_faster_than_who_woke_him_softly_is_woken_again(wire: Wire):
    wakeup = HurriedWakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    assert outbound.sleep()
    wakeup.wait(0)
    wakeup.runs = outbound.awake
    assert outbound.put_soon(pub(1), 7)
    assert wakeup.wait(0)
    wakeup.runs = dict
    pump_all(outbound)
    assert outbound.sleep()
    assert outbound.put_soon(pub(2), 7)
    assert wakeup.wait(0), "otherwise nobody would send it"


# A loss.


def test_a_frame_sent_in_part_is_given_up_and_never_sent_again(wires: Callable[..., Wire]):
    wire = wires(1)
    outbound = make_outbound(live=1 << 20, buffer=1 << 20)
    go_live(outbound, wire)
    put(outbound, pub(1))
    put(outbound, pub(2, 500_000))
    put(outbound, pub(3))
    put(outbound, pub(4))
    pump_all(outbound)
    assert 40 < outbound.sent_bytes < 500_000
    put(outbound, pub(5))
    dropped = outbound.down()
    assert (dropped.msgs, dropped.bytes) == (1, 500_000)
    assert outbound.size == 120
    assert numbers(wire.received()) == [1]
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert numbers(second.received()) == [3, 4, 5]


def test_a_loss_keeps_the_oldest_publishes_that_fit_the_reconnect_buffer(wires: Callable[..., Wire]):
    outbound = make_outbound(live=1000, buffer=100)
    go_live(outbound, wires(1))
    for number in range(5):
        put(outbound, pub(number))
    dropped = outbound.down()
    assert outbound.mode is Mode.BUFFERING
    assert (dropped.msgs, dropped.bytes) == (3, 120)
    assert outbound.size == 80
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert numbers(second.received()) == [0, 1]


def test_commands_of_a_connection_die_with_it(wires: Callable[..., Wire]):
    outbound = make_outbound()
    go_live(outbound, wires(1))
    outbound.put_control(encode_sub("a", None, 1), 1)
    put(outbound, pub(1))
    outbound.put_control(PONG_COMMAND, 1)
    dropped = outbound.down()
    assert (dropped.msgs, dropped.bytes) == (0, 0), "commands are no messages"
    assert outbound.size == 40
    outbound.put_control(PONG_COMMAND, 1)
    assert outbound.size == 40, "a late reader's PONG has no connection to go to"
    second = wires(2)
    go_live(outbound, second)
    outbound.put_control(PONG_COMMAND, 1)
    outbound.put_control(encode_sub("b", None, 2), 2)
    pump_all(outbound)
    assert second.received() == pub(1) + b"SUB b 2\r\n"


def test_commands_are_taken_while_flushing_and_when_the_buffer_is_full(wire: Wire):
    outbound = make_outbound(buffer=40)
    outbound.buffer()
    put(outbound, pub(1))
    outbound.begin(wire.link)
    outbound.put_control(PONG_COMMAND, 1)
    outbound.live()
    pump_all(outbound)
    assert wire.received() == pub(1) + PONG_COMMAND


def test_a_loss_waits_for_a_send_under_way(wires: Callable[..., Wire]):
    """What that send still gets out must be known before it is decided what to keep."""
    wire = wires(1, transport=GatedTransport)
    assert isinstance(wire.transport, GatedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    sender, _ = in_thread(lambda: put_and_push(outbound, pub(1)))
    assert wire.transport.sending.wait(5)
    put(outbound, pub(2))
    loser, outcome = in_thread(outbound.down)
    never(lambda: outcome, PAUSE)
    wire.transport.passing.set()
    finish(sender)
    finish(loser)
    assert numbers(wire.received()) == [1]
    assert outbound.size == 40
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert numbers(second.received()) == [2]


def test_a_publish_during_a_loss_is_kept_behind_the_others(wires: Callable[..., Wire]):
    wire = wires(1, transport=GatedTransport)
    assert isinstance(wire.transport, GatedTransport)
    outbound = make_outbound(live=1000, buffer=120)
    go_live(outbound, wire)
    put(outbound, pub(1))
    sender, _ = in_thread(outbound.push)
    assert wire.transport.sending.wait(5)
    put(outbound, pub(2))
    loser, _ = in_thread(outbound.down)
    eventually(lambda: outbound.mode is Mode.BUFFERING)
    put(outbound, pub(3))
    wire.transport.passing.set()
    finish(sender)
    finish(loser)
    assert outbound.size == 80
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert numbers(second.received()) == [2, 3]


def test_ctrl_c_in_a_send_costs_the_connection_and_sends_nothing_twice(wires: Callable[..., Wire]):
    """The socket may have taken the bytes or not, so none of them may be sent again."""
    wire = wires(1, transport=InterruptedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    put(outbound, pub(1))
    with pytest.raises(KeyboardInterrupt):
        put_and_push(outbound, pub(2))
    assert wire.link.is_lost
    assert "interrupted" in str(wire.link.loss.error)
    put(outbound, pub(3))
    outbound.down()
    assert numbers(wire.received()) == [1, 2]
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert numbers(second.received()) == [3]


class InterruptedWakeup(Wakeup):
    """A supervisor's signal in whose first giving Ctrl-C strikes."""

    __slots__ = ("struck",)

    def __init__(self) -> None:
        super().__init__()
        self.struck = False

    def set(self) -> None:
        if not self.struck:
            self.struck = True
            raise KeyboardInterrupt
        super().set()


def test_ctrl_c_after_a_send_leaves_the_buffer_usable(wire: Wire):
    """The bytes are out; what is left is the book-keeping, which is done all the same."""
    wakeup = InterruptedWakeup()
    outbound = make_outbound(live=1 << 20, wakeup=wakeup)
    go_live(outbound, wire)
    outbound.sleep()
    with pytest.raises(KeyboardInterrupt):
        put_and_push(outbound, pub(1, 500_000))  # too much for one send, so the supervisor is to go on
    assert not wire.link.is_lost
    assert outbound.size == 500_000 - outbound.sent_bytes
    assert wakeup.wait(0)
    stream = b""
    while outbound.size:
        stream += wire.received()
        assert outbound.pump() in (Pumped.SENT, Pumped.FULL)
    assert stream + wire.received() == pub(1, 500_000)


@pytest.fixture
def stuck(wires: Callable[..., Wire]) -> Iterator[tuple[Outbound, Wire, threading.Thread]]:
    """A buffer whose sender does not come back from its send, as when an exception of a signal handler struck it."""
    wire = wires(1, transport=GatedTransport)
    assert isinstance(wire.transport, GatedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    sender, _ = in_thread(lambda: put_and_push(outbound, pub(1)))
    assert wire.transport.sending.wait(5)
    yield outbound, wire, sender
    wire.transport.passing.set()
    finish(sender)


def look(outbound: Outbound, link: Link) -> bool:
    """Do as the supervisor does while somebody else sends, and say whether that gave the link up."""
    outbound.check_token()
    return link.is_lost


def test_what_the_server_has_answered_is_not_called_unsent(stuck: tuple[Outbound, Wire, threading.Thread]):
    """The answer may be here before the sender has come back from the system call to say that it was sent."""
    outbound, wire, sender = stuck
    settling, settled = in_thread(outbound.settle)
    never(lambda: settled, PAUSE)
    assert isinstance(wire.transport, GatedTransport)
    wire.transport.passing.set()
    finish(sender)
    finish(settling)
    assert outbound.size == 0
    outbound.settle()


def test_a_sender_that_does_not_come_back_is_not_waited_for(
    stuck: tuple[Outbound, Wire, threading.Thread], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("natsync.core.sending._TOKEN_LOST", 0.05)
    outbound, _, _ = stuck
    outbound.settle()
    settling, _ = in_thread(outbound.settle)
    outbound.down()
    finish(settling)


def test_a_sender_that_does_not_come_back_costs_the_link(
    stuck: tuple[Outbound, Wire, threading.Thread], wires: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("natsync.core.sending._TOKEN_LOST", 0.05)
    outbound, wire, sender = stuck
    start = time.monotonic()
    eventually(lambda: look(outbound, wire.link))
    assert time.monotonic() - start > 0.05
    assert "interrupted" in str(wire.link.loss.error)
    outbound.down()
    second = wires(2)
    go_live(outbound, second)
    put(outbound, pub(2))
    assert isinstance(wire.transport, GatedTransport)
    wire.transport.passing.set()  # it comes back all the same, and must not disturb the new connection
    finish(sender)
    pump_all(outbound)
    assert numbers(second.received()) == [2], "what it may have sent is not sent again"
    assert outbound.size == 0


def test_nobody_sends_on_a_link_whose_sender_did_not_come_back(
    wires: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
):
    """The link is lost before the token is free: the frame may have been sent in part."""
    monkeypatch.setattr("natsync.core.sending._TOKEN_LOST", 0.05)
    wire = wires(1, transport=GatedTransport)
    assert isinstance(wire.transport, GatedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    sender, _ = in_thread(lambda: outbound.send_alone(pub(1), 7))
    assert wire.transport.sending.wait(5)
    sent: list[bool] = []
    monkeypatch.setattr(wire.link, "_wake", lambda: sent.append(outbound.send_alone(pub(9), 7)))
    eventually(lambda: look(outbound, wire.link))
    assert sent == [False]
    wire.transport.passing.set()
    finish(sender)


@pytest.mark.parametrize("step", ["down", "shut"])
def test_what_a_sender_that_is_late_may_have_sent_is_not_sent_again(
    stuck: tuple[Outbound, Wire, threading.Thread],
    wires: Callable[..., Wire],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
):
    """On a busy machine it may come back from the socket long after the connection has been given up."""
    monkeypatch.setattr("natsync.core.sending._TOKEN_LOST", 0.05)
    outbound, wire, sender = stuck
    put(outbound, pub(2))  # behind what is being sent
    if step == "shut":
        assert outbound.shut(closed).msgs == 1, "what may have been sent is not called dropped"
    else:
        outbound.down()
        second = wires(2)
        go_live(outbound, second)
        pump_all(outbound)
        assert numbers(second.received()) == [2]
    assert isinstance(wire.transport, GatedTransport)
    wire.transport.passing.set()
    finish(sender)
    assert outbound.size == 0


def test_a_process_that_was_stopped_for_a_while_does_not_accuse_its_sender(
    stuck: tuple[Outbound, Wire, threading.Thread], monkeypatch: pytest.MonkeyPatch
):
    """Much time may pass between two looks without anybody having had a chance to go on."""
    monkeypatch.setattr("natsync.core.sending._TOKEN_LOST", -1.0)
    outbound, wire, _ = stuck
    assert [look(outbound, wire.link) for _ in range(3)] == [False, False, True]


def test_every_sender_has_its_own_time(wires: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("natsync.core.sending._TOKEN_LOST", -1.0)
    wire = wires(1, transport=GatedTransport)
    assert isinstance(wire.transport, GatedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    for number in range(5):
        assert not any(look(outbound, wire.link) for _ in range(5)), "nobody sends"
        wire.transport.sending.clear()
        wire.transport.passing.clear()
        sender, _ = in_thread(lambda number=number: put_and_push(outbound, pub(number)))  # type: ignore[misc]
        assert wire.transport.sending.wait(5)
        assert not any(look(outbound, wire.link) for _ in range(2))
        wire.transport.passing.set()
        finish(sender)


# PINGs.


@pytest.mark.parametrize("mode", [Mode.BUFFERING, Mode.FLUSHING])
def test_a_ping_without_a_connection_raises_at_once(mode: Mode, wire: Wire):
    outbound = make_outbound()
    outbound.buffer()
    if mode is Mode.FLUSHING:
        outbound.begin(wire.link)
    with pytest.raises(ConnectionReconnectingError):
        outbound.put_ping(PingWaiter())
    with pytest.raises(ConnectionReconnectingError):
        outbound.put_ping(None, park=True)
    assert outbound.size == 0


def test_pings_wait_in_the_order_in_which_they_go_out(wire: Wire):
    outbound = make_outbound()
    go_live(outbound, wire)
    waiters = [PingWaiter() for _ in range(3)]
    outbound.put_ping(waiters[0])
    put(outbound, pub(1))
    outbound.put_ping(None)
    outbound.put_ping(waiters[1])
    assert not wire.link.pongs, "a PING that is not sent yet expects no PONG"
    outbound.put_ping(waiters[2], wake=False)
    outbound.push()
    assert list(wire.link.pongs) == [waiters[0], None, *waiters[1:]]
    assert wire.received() == PING_COMMAND + pub(1) + PING_COMMAND * 3
    assert all(waiter.sent_at > 0 for waiter in waiters)
    assert outbound.size == 0


def test_a_ping_is_taken_when_there_is_no_room_for_publishes(wire: Wire):
    """A flush must not wait for room behind the publishes that it is to push out."""
    outbound = make_outbound(live=40)
    go_live(outbound, wire)
    put(outbound, pub(1))
    outbound.put_ping(PingWaiter())
    assert outbound.size == 46


def test_a_ping_wakes_the_supervisor_unless_it_is_pushed(wire: Wire):
    wakeup = Wakeup()
    outbound = make_outbound(wakeup=wakeup)
    go_live(outbound, wire)
    outbound.sleep()
    outbound.put_ping(PingWaiter())
    assert wakeup.wait(0)


def test_concurrent_pings_and_their_waiters_are_in_one_order(pool: Pool, wires: Callable[..., Wire], switching: None):
    """Each PONG that comes back must meet the waiter of the very PING that it answers."""
    threads, each = 6, 60
    wakeup = Wakeup()
    outbound = make_outbound(live=400, wakeup=wakeup)
    wire = wires()
    go_live(outbound, wire)

    def ping(index: int) -> list[PingWaiter]:
        waiters = []
        for number in range(each):
            outbound.put(pub(index * 1000 + number), 1, deadline=Deadline(20))
            waiters.append(PingWaiter())
            if number % 2:
                outbound.put_ping(waiters[-1])
            else:
                outbound.put_ping(waiters[-1], wake=False)
                outbound.push()
        return waiters

    with Pumper(outbound, wakeup, wire.link):
        stream = pool.submit(wire.received_until_end)
        futures = [pool.submit(ping, index) for index in range(threads)]
        waiters = [future.result(30) for future in futures]
        eventually(lambda: outbound.size == 0)
        wire.link.lose(None)
        sent = stream.result(30)
    owner = {id(waiter): index for index, mine in enumerate(waiters) for waiter in mine}
    pongs = list(wire.link.pongs)
    assert len(pongs) == threads * each == sent.count(PING_COMMAND)
    # Of any thread, the n-th PING went out behind its n-th publish.
    behind: dict[int, int] = dict.fromkeys(range(threads), 0)
    published: dict[int, int] = dict.fromkeys(range(threads), 0)
    position = 0
    for token in re.findall(rb"PUB s \d+\r\n(\d{8})\.*\r\n|(PING)\r\n", sent):
        if token[1]:
            waiter = pongs[position]
            assert waiter is not None
            position += 1
            behind[owner[id(waiter)]] += 1
            assert published[owner[id(waiter)]] >= behind[owner[id(waiter)]]
        else:
            published[int(token[0]) // 1000] += 1
    for index in range(threads):
        assert [waiter for waiter in pongs if waiter is not None and owner[id(waiter)] == index] == waiters[index]


def test_pings_without_a_connection_are_parked_and_go_out_behind_the_buffer(wire: Wire):
    outbound = make_outbound()
    outbound.buffer()
    first, gone, second = PingWaiter(), PingWaiter(), PingWaiter()
    outbound.put_ping(first, park=True)
    put(outbound, pub(1))
    outbound.put_ping(gone, park=True)
    outbound.begin(wire.link)
    outbound.put_ping(second, park=True, wake=False)
    outbound.push()
    outbound.unpark(gone)
    outbound.unpark(gone)
    assert outbound.size == 40
    outbound.live()
    pump_all(outbound)
    assert wire.received() == pub(1) + PING_COMMAND * 2
    assert list(wire.link.pongs) == [first, second]


def test_a_parked_ping_outlives_several_failed_connections(wires: Callable[..., Wire]):
    outbound = make_outbound()
    outbound.buffer()
    waiter = PingWaiter()
    outbound.put_ping(waiter, park=True)
    for generation in range(1, 4):
        outbound.begin(wires(generation).link)
        outbound.down()
    assert not waiter.wait(0)
    last = wires(4)
    go_live(outbound, last)
    pump_all(outbound)
    assert list(last.link.pongs) == [waiter]


def test_a_loss_tells_the_waiters_of_pings_that_were_not_sent(wire: Wire):
    outbound = make_outbound()
    go_live(outbound, wire)
    waiter = PingWaiter()
    outbound.put_ping(waiter)
    outbound.put_ping(None)
    outbound.down()
    wire.link.fail_waiters(ConnectionReconnectingError("lost"))
    assert waiter.wait(0)
    assert isinstance(waiter.error, ConnectionReconnectingError)


def test_the_end_tells_the_waiters_of_all_pings(wire: Wire):
    outbound = make_outbound()
    outbound.buffer()
    parked, queued = PingWaiter(), PingWaiter()
    outbound.put_ping(parked, park=True)
    outbound.shut(closed)
    go_live(fresh := make_outbound(), wire)
    fresh.put_ping(queued)
    fresh.put_ping(None)
    fresh.shut(closed)
    for waiter in (parked, queued):
        assert waiter.wait(0)
        assert isinstance(waiter.error, ConnectionClosedError)


@pytest.mark.parametrize("end", ["down", "shut"])
def test_a_waiter_is_told_of_the_loss_once(wire: Wire, end: str):
    """A PING was taken for sending, and so expects a PONG, but the socket did not get to it."""
    told: list[None] = []
    outbound = make_outbound(live=1 << 20)
    go_live(outbound, wire)
    put(outbound, pub(1, 500_000))
    outbound.put_ping(PongCallback(lambda: told.append(None)))
    pump_all(outbound)
    assert outbound.size > 0
    if end == "down":
        outbound.down()
    else:
        outbound.shut(closed)
    wire.link.fail_waiters(ConnectionReconnectingError("lost"))
    assert len(told) == 1


# Refusing and shutting.


def test_refusing_stops_publishes_but_neither_commands_nor_what_was_taken(wire: Wire):
    outbound = make_outbound()
    go_live(outbound, wire)
    put(outbound, pub(1))
    outbound.refuse(lambda: ConnectionDrainingError("draining"))
    with pytest.raises(ConnectionDrainingError):
        put(outbound, pub(2))
    outbound.put_control(PONG_COMMAND, 1)
    outbound.put_ping(PingWaiter())
    pump_all(outbound)
    assert wire.received() == pub(1) + PONG_COMMAND + PING_COMMAND
    with pytest.raises(ConnectionDrainingError):
        put(outbound, pub(3))


def test_a_dormant_buffer_refuses_too():
    outbound = make_outbound()
    outbound.refuse(closed)
    with pytest.raises(ConnectionClosedError):
        put(outbound, pub(1))


@pytest.mark.parametrize("steps", [["down"], ["buffer"], ["buffer", "begin"], ["buffer", "begin", "live"], ["begin"]])
def test_a_refusal_outlasts_every_change_of_mode(wire: Wire, steps: list[str]):
    """close() may come from another thread while the supervisor is just bringing a connection to life."""
    outbound = make_outbound()
    if steps == ["down"]:
        go_live(outbound, wire)
    outbound.refuse(closed)
    for step in steps:
        if step == "begin":
            outbound.begin(wire.link)
        else:
            getattr(outbound, step)()
        with pytest.raises(ConnectionClosedError):
            put(outbound, pub(1))
    assert outbound.size == 0


def test_shut_refuses_everything_and_counts_what_still_waited(wire: Wire):
    outbound = make_outbound()
    go_live(outbound, wire)
    put(outbound, pub(1))
    outbound.put_control(PONG_COMMAND, 1)
    put(outbound, pub(2))
    dropped = outbound.shut(closed)
    assert (dropped.msgs, dropped.bytes) == (2, 80)
    assert (outbound.mode, outbound.size) == (Mode.SHUT, 0)
    with pytest.raises(ConnectionClosedError):
        put(outbound, pub(3))
    with pytest.raises(ConnectionClosedError):
        outbound.put_ping(PingWaiter(), park=True)
    outbound.put_control(PONG_COMMAND, 1)
    assert outbound.size == 0
    assert outbound.pump() is Pumped.IDLE
    assert wire.received() == b""


def test_shut_counts_a_frame_sent_in_part(wire: Wire):
    outbound = make_outbound(live=1 << 20)
    go_live(outbound, wire)
    put(outbound, pub(1, 500_000))
    put(outbound, pub(2))
    pump_all(outbound)
    assert outbound.sent_bytes
    dropped = outbound.shut(closed)
    assert (dropped.msgs, dropped.bytes) == (2, 500_040)


def test_shut_waits_for_a_send_under_way(wires: Callable[..., Wire]):
    wire = wires(1, transport=GatedTransport)
    assert isinstance(wire.transport, GatedTransport)
    outbound = make_outbound()
    go_live(outbound, wire)
    sender, _ = in_thread(lambda: put_and_push(outbound, pub(1)))
    assert wire.transport.sending.wait(5)
    shutter, outcome = in_thread(lambda: outbound.shut(closed))
    never(lambda: outcome, PAUSE)
    wire.transport.passing.set()
    finish(sender)
    finish(shutter)
    assert outcome
    assert getattr(outcome[0], "msgs") == 0  # noqa: B009 - an object, to mypy


def test_a_ping_on_a_link_that_is_just_lost(wires: Callable[..., Wire]):
    """The supervisor's own goes the way of the link; one that can wait waits for the next one at once."""
    wire, outbound = wires(1), make_outbound()
    go_live(outbound, wire)
    wire.link.lose(None)
    patient, hasty = PingWaiter(), PingWaiter()
    outbound.put_ping(None)
    outbound.put_ping(hasty)
    outbound.put_ping(patient, park=True)
    outbound.down()
    wire.link.fail_waiters(ConnectionReconnectingError("lost"))
    assert hasty.wait(0)
    assert not patient.wait(0)
    second = wires(2)
    go_live(outbound, second)
    pump_all(outbound)
    assert second.received() == PING_COMMAND


@pytest.mark.parametrize("step", ["buffer", "begin", "live", "down", "rest"])
def test_shut_is_for_good(wire: Wire, step: str):
    """A client may be closed by one thread while another is still opening it."""
    outbound = make_outbound()
    outbound.buffer()
    outbound.shut(closed)
    if step == "begin":
        outbound.begin(wire.link)
    else:
        getattr(outbound, step)()
    assert outbound.mode is Mode.SHUT
    with pytest.raises(ConnectionClosedError):
        put(outbound, pub(1))
    with pytest.raises(ConnectionClosedError):
        outbound.put_ping(PingWaiter(), park=True)


# Beginning.


def test_a_server_that_takes_less_gets_what_it_takes(wires: Callable[..., Wire]):
    outbound = make_outbound()
    outbound.buffer()
    for number, size in enumerate([100, 24, 101, 40]):
        put(outbound, encode_pub(b"s", None, b"%08d" % number + b"." * (size - 8)))
    wire = wires(1, max_payload=100)
    dropped = outbound.begin(wire.link)
    assert dropped.msgs == 1
    outbound.live()
    pump_all(outbound)
    assert numbers(wire.received()) == [0, 1, 3]
    assert outbound.size == 0


def test_sent_bytes_tell_of_progress_over_all_connections(wires: Callable[..., Wire]):
    outbound = make_outbound()
    for generation in (1, 2):
        go_live(outbound, wires(generation))
        put(outbound, pub(generation))
        pump_all(outbound)
        outbound.down()
    assert outbound.sent_bytes == 80


def test_reconnects_under_load_send_everything_once_and_in_order(
    pool: Pool, wires: Callable[..., Wire], switching: None
):
    """Publishers, some of whom push, while connections come and go; only what `down` owned up to may be missing."""
    publishers, connections = 4, 8
    wakeup = Wakeup()
    outbound = make_outbound(live=600, buffer=600, wakeup=wakeup)
    outbound.buffer()
    stopped = threading.Event()
    accepted: dict[int, list[int]] = {}

    def publish(publisher: int) -> None:
        mine = accepted[publisher] = []
        for number in itertools.count():
            if stopped.is_set():
                return
            try:
                send = put_and_push if number % 3 == 0 else put
                send(outbound, pub(publisher * 100_000 + number, 30 + number % 50), None)
            except OutboundBufferLimitError:
                continue
            mine.append(publisher * 100_000 + number)

    streams: list[bytes] = []
    given_up = 0
    tasks = [pool.submit(publish, publisher) for publisher in range(publishers)]
    reads = []
    for generation in range(1, connections + 1):
        wire = wires(generation)
        reads.append(pool.submit(wire.received_until_end))
        outbound.begin(wire.link)
        outbound.pump()
        outbound.live()
        with Pumper(outbound, wakeup, wire.link):
            goal = outbound.sent_bytes + 5000
            eventually(lambda goal=goal: outbound.sent_bytes > goal)  # type: ignore[misc]
            if generation == connections:
                stopped.set()
                for task in tasks:
                    task.result(20)
                eventually(lambda: outbound.size == 0)
        wire.link.lose(None)
        given_up += outbound.down().msgs
    streams = [read.result(20) for read in reads]
    sent = [number for stream in streams for number in numbers(stream)]
    assert len(sent) == len(set(sent)), "sent twice"
    everything = {number for mine in accepted.values() for number in mine}
    assert set(sent) <= everything, "refused, and sent all the same"
    assert len(everything) - len(sent) == given_up
    for publisher in range(publishers):
        mine = [number for number in sent if number // 100_000 == publisher]
        assert mine == sorted(mine), "out of order"
    assert outbound.out_msgs == len(everything)


# Against a model.

LIVE_LIMIT, BUFFER_LIMIT, SMALL_PAYLOAD = 300, 200, 60
# Few sizes, so that limits and ends of frames are often met to the byte.
SIZES = st.sampled_from([24, 40, 60, 100, 140, 201, 350])
ROOMS = st.sampled_from([0, 3, 24, 40, 64, 100, 140, 1000])


class Entry:
    """A frame in the model's queue."""

    def __init__(self, frame: bytes, *, number: int | None = None, waiter: PingWaiter | None = None) -> None:
        self.frame = frame
        self.number = number
        self.waiter = waiter
        self.left = len(frame)

    @property
    def payload(self) -> int:
        return len(self.frame.split(b"\r\n")[1])


class OutboundMachine(RuleBasedStateMachine):
    """One thread, every mode but DORMANT; the socket takes as many bytes at a time as hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        self.outbound = make_outbound(live=LIVE_LIMIT, buffer=BUFFER_LIMIT)
        self.outbound.buffer()
        self.mode = Mode.BUFFERING
        self.refused = False
        self.queue: list[Entry] = []
        self.parked: list[PingWaiter] = []
        self.pongs: list[PingWaiter] = []
        self.told: list[PingWaiter] = []
        self.numbers = itertools.count()
        self.accepted = 0
        self.taken = 0
        self.wire: Wire | None = None
        self.streams: list[bytes] = []
        self.stream = b""

    def teardown(self) -> None:
        lost = [entry for entry in self.queue if entry.number is not None]
        told = [entry.waiter for entry in self.queue if entry.waiter is not None] + self.parked
        dropped = self.outbound.shut(closed)
        if self.wire is not None:
            self.wire.link.fail_waiters(closed())
            self.wire.close()
        assert (dropped.msgs, dropped.bytes) == (len(lost), sum(len(entry.frame) for entry in lost))
        assert all(waiter.error is not None for waiter in told)
        assert self.outbound.size == 0
        # Over all connections no publish was sent twice, none overtook another, none was cut but at a stream's end.
        sent = [number for stream in [*self.streams, self.stream] for number in numbers(stream)]
        assert sent == sorted(set(sent))

    @property
    def size(self) -> int:
        return sum(entry.left for entry in self.queue)

    def give_room(self, room: int) -> None:
        """Let the socket take so many bytes from now on."""
        if self.wire is not None:
            assert isinstance(self.wire.transport, RationedTransport)
            self.wire.transport.room = room

    @property
    def limit(self) -> int:
        return LIVE_LIMIT if self.mode is Mode.LIVE else BUFFER_LIMIT

    @rule(size=SIZES, push=st.booleans(), room=ROOMS)
    def publish_one(self, size: int, push: bool, room: int) -> None:
        self.publish(size, push, room)

    def publish(self, size: int, push: bool, room: int) -> None:
        number = next(self.numbers)
        frame = pub(number, size)
        alone = self.mode is Mode.LIVE and self.size == 0
        error: type[NatsError] | None = None
        if self.refused:
            error = ConnectionClosedError
        elif not alone and self.size + len(frame) > self.limit:
            error = NatsTimeoutError if self.mode is Mode.LIVE else OutboundBufferLimitError
        self.give_room(room)
        if error is not None:
            with pytest.raises(error):
                self.outbound.put(frame, 7, wake=not push, deadline=NO_WAIT)
            return
        self.queue.append(Entry(frame, number=number))
        self.accepted += 1
        assert self.outbound.put(frame, 7, wake=not push, deadline=NO_WAIT)
        if push:
            self.outbound.push()
        self.take_note_of_sending()

    @rule(size=SIZES)
    def publish_soon(self, size: int) -> None:
        number = next(self.numbers)
        frame = pub(number, size)
        fits = not self.refused and self.size + len(frame) <= self.limit
        if fits:
            self.queue.append(Entry(frame, number=number))
            self.accepted += 1
        assert self.outbound.put_soon(frame, 7) is fits

    @rule(size=SIZES, room=ROOMS)
    def publish_alone(self, size: int, room: int) -> None:
        number = next(self.numbers)
        frame = pub(number, size)
        self.give_room(room)
        goes = self.mode is Mode.LIVE and not self.refused and not self.queue and len(frame) <= LIVE_LIMIT
        if goes:
            self.queue.append(Entry(frame, number=number))
            self.accepted += 1
        assert self.outbound.send_alone(frame, 7) is goes
        self.take_note_of_sending()

    @rule(size=SIZES, count=st.integers(2, 5))
    def publish_many(self, size: int, count: int) -> None:
        for _ in range(count):
            self.publish(size, False, 0)

    @rule(generation=st.integers(-1, 0))
    def command(self, generation: int) -> None:
        """Put a command of the present link, or of the one before."""
        current = len(self.streams)
        self.outbound.put_control(PONG_COMMAND, current + generation)
        if self.wire is not None and generation == 0:
            self.queue.append(Entry(PONG_COMMAND))

    @rule(park=st.booleans())
    def ping(self, park: bool) -> None:
        waiter = PingWaiter()
        if self.mode is Mode.LIVE:
            self.outbound.put_ping(waiter, park=park)
            self.queue.append(Entry(PING_COMMAND, waiter=waiter))
        elif park:
            self.outbound.put_ping(waiter, park=True)
            self.parked.append(waiter)
        else:
            with pytest.raises(ConnectionReconnectingError):
                self.outbound.put_ping(waiter, park=park)

    @precondition(lambda self: self.parked)
    @rule(data=st.data())
    def give_up_a_parked_ping(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.parked))
        self.parked.remove(waiter)
        self.outbound.unpark(waiter)

    @rule(room=ROOMS)
    def pump(self, room: int) -> None:
        self.give_room(room)
        nothing = self.wire is None or not self.queue
        pumped = self.outbound.pump()
        sent = self.take_note_of_sending()
        assert pumped is (Pumped.IDLE if nothing else Pumped.SENT if sent else Pumped.FULL)

    def take_note_of_sending(self) -> int:
        """Move the model on by what the socket took: a piece from the head of the queue."""
        if self.wire is None:
            return 0
        piece = self.wire.received()
        self.stream += piece
        self.taken += len(piece)
        self.pongs = [waiter for waiter in self.wire.link.pongs if waiter is not None]
        head = b"".join(entry.frame[-entry.left :] for entry in self.queue)
        assert head.startswith(piece)
        left = len(piece)
        while left:
            step = min(left, self.queue[0].left)
            self.queue[0].left -= step
            left -= step
            if not self.queue[0].left:
                done = self.queue.pop(0)
                assert done.waiter is None or done.waiter in self.pongs
        return len(piece)

    @precondition(lambda self: self.mode is Mode.BUFFERING and not self.refused)
    @rule(small=st.sampled_from([False, False, True]))
    def begin(self, small: bool) -> None:
        self.streams.append(self.stream)
        self.stream = b""
        limit = SMALL_PAYLOAD if small else 1 << 20
        self.wire = Wire(len(self.streams), max_payload=limit, transport=RationedTransport)
        kept = [entry for entry in self.queue if entry.payload <= limit]
        dropped = self.outbound.begin(self.wire.link)
        assert dropped.msgs == len(self.queue) - len(kept)
        self.queue = kept
        self.mode = Mode.FLUSHING

    @precondition(lambda self: self.mode is Mode.FLUSHING)
    @rule()
    def live(self) -> None:
        self.outbound.live()
        self.mode = Mode.LIVE
        self.queue += [Entry(PING_COMMAND, waiter=waiter) for waiter in self.parked]
        self.parked = []

    # Losing is only interesting with something in the queue, and ends what could become interesting.
    @precondition(lambda self: self.wire is not None and (len(self.queue) >= 3 or self.accepted % 5 == 0))
    @rule()
    def lose(self) -> None:
        assert self.wire is not None
        self.told += [entry.waiter for entry in self.queue if entry.waiter is not None]
        whole = [entry for entry in self.queue if entry.left == len(entry.frame)]
        cut = [entry for entry in self.queue if entry not in whole and entry.number is not None]
        publishes = [entry for entry in whole if entry.number is not None]
        kept: list[Entry] = []
        for entry in publishes:
            if sum(len(each.frame) for each in kept) + len(entry.frame) > BUFFER_LIMIT:
                break
            kept.append(entry)
        lost = cut + publishes[len(kept) :]
        dropped = self.outbound.down()
        assert (dropped.msgs, dropped.bytes) == (len(lost), sum(len(entry.frame) for entry in lost))
        self.wire.link.fail_waiters(ConnectionReconnectingError("lost"))
        self.wire.close()
        self.wire = None
        self.mode = Mode.BUFFERING
        self.queue = kept

    @precondition(lambda self: self.mode is Mode.LIVE and self.accepted > 12)
    @rule()
    def refuse(self) -> None:
        self.outbound.refuse(closed)
        self.refused = True

    @invariant()
    def facts_agree(self) -> None:
        assert self.outbound.mode is self.mode
        assert self.outbound.size == self.size
        assert self.outbound.sent_bytes == self.taken
        assert (self.outbound.out_msgs, self.outbound.out_bytes) == (self.accepted, self.accepted * 7)
        if self.mode is Mode.BUFFERING:
            assert self.outbound.size <= BUFFER_LIMIT
        for waiter in self.told:
            assert waiter.error is not None
        for waiter in self.parked + [entry.waiter for entry in self.queue if entry.waiter is not None]:
            assert waiter.error is None


TestOutboundMachine = OutboundMachine.TestCase
TestOutboundMachine.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
