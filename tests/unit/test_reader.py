"""The reader, over a real socket: who reads, its thread or a caller, and what happens when either is disturbed."""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from natsync.core.gate import Gate
from natsync.core.link import Link, PingWaiter
from natsync.core.outbound import Outbound
from natsync.core.read_sink import ReadSink
from natsync.core.reader import Reader, Traffic
from natsync.core.registry import Registry
from natsync.core.threads import ClientThread
from natsync.core.transport import TcpTransport
from natsync.errors import NatsConnectionError, ProtocolError
from natsync.locks import Wakeup
from natsync.policy.pool import Server
from natsync.policy.urls import parse_url
from natsync.protocol.commands import PING_COMMAND, PONG_COMMAND
from natsync.protocol.info import ServerInfo
from natsync.protocol.parser import Parser
from tests.support.waiting import Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from natsync.errors import NatsError
    from natsync.protocol.operations import MsgOp, Operation
    from tests.unit.conftest import Pool

needs_gate = pytest.mark.skipif(not hasattr(select, "epoll"), reason="without a gate only the reader reads")
LONG = 600.0


class PickySink(ReadSink):
    """A sink that tells on which thread its messages were delivered, and can hold the deliverer up."""

    def __init__(self) -> None:
        super().__init__(1, "s", None, msgs_limit=-1, bytes_limit=-1, max_msgs=None)
        self.by = Recorder()
        self.passing = threading.Event()
        self.passing.set()
        self.interrupt: BaseException | None = None

    def deliver(self, batch: list[MsgOp], size: int) -> None:
        self.by(threading.get_ident())
        assert self.passing.wait(30)
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            raise interrupt
        super().deliver(batch, size)


class Bench:
    """A link over one end of a socket pair with its reader, and the other end, which plays the server."""

    def __init__(
        self,
        early: Sequence[Operation] = (),
        gate: type[Gate] | None = Gate,
        transport: type[TcpTransport] = TcpTransport,
        *,
        held_up: bool = False,
    ) -> None:
        ours, self.peer = socket.socketpair()
        self.transport = transport(ours)
        if gate is not Gate and self.transport.gate is not None:
            self.transport.gate.close()
            self.transport.gate = None if gate is None else gate(select.epoll(), ours.fileno())
        self.link = Link(
            1, self.transport, Server(parse_url("127.0.0.1")), ServerInfo(), Parser(), early, self._note_loss
        )
        self.losses = 0
        self.outbound = Outbound(live_limit=1 << 20, buffer_limit=0, write_timeout=10.0, wakeup=Wakeup())
        self.outbound.begin(self.link)
        registry = Registry(self.outbound)
        self.sink = PickySink()
        if held_up:
            self.sink.passing.clear()
        registry.add(self.sink)
        self.infos = Recorder()
        self.errors = Recorder()
        self.traffic = Traffic()
        self.reader = Reader(self.link, registry=registry, outbound=self.outbound, listener=self, traffic=self.traffic)
        self.outbound.live()
        self.link.reader = self.reader
        self.link.thread = ClientThread(self, "test", "reader", self.reader.run)
        self.link.thread.start()

    def _note_loss(self) -> None:
        self.losses += 1

    def heard_info(self, link: Link, info: ServerInfo) -> None:
        self.infos(info.server_id)

    def heard_error(self, link: Link, error: NatsError) -> None:
        self.errors(error)

    @property
    def reading(self) -> int | None:
        """The thread's number that reads, for callers that compare."""
        assert self.link.thread is not None
        return self.link.thread.ident

    @property
    def is_over(self) -> bool:
        """Whether the reader's thread has ended."""
        return self.link.thread is not None and not self.link.thread.is_alive()

    def is_asleep(self) -> bool:
        return self.reader._token.holder is None

    def send(self, *numbers: int) -> None:
        """Send messages whose data are these numbers."""
        self.peer.sendall(b"".join(b"MSG s 1 %d\r\n%d\r\n" % (len(str(number)), number) for number in numbers))

    def ask(self) -> PingWaiter:
        waiter = PingWaiter()
        self.outbound.put_ping(waiter, wake=False)
        return waiter

    def next(self, timeout: float = 10.0) -> int:
        return int(self.sink.next(timeout)[4])

    def check_reader(self) -> None:
        """Its own thread reads."""
        before = len(self.sink.by)
        self.send(77)
        assert self.next() == 77
        assert self.sink.by.items[before:] == [self.reading]

    def close(self) -> None:
        self.sink.passing.set()
        self.link.lose(None)
        self.link.end()
        assert self.is_over
        self.peer.close()


@pytest.fixture
def benches() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**kwargs: Any) -> Bench:
        made.append(Bench(**kwargs))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def bench(benches: Callable[..., Bench]) -> Bench:
    made = benches()
    eventually(made.is_asleep)
    return made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have callers read for themselves as long as a test needs, on however slow a machine."""
    monkeypatch.setattr("natsync.core.reader._MOMENT", 30.0)


class Answering:
    """The server's side of one question, on a thread: it waits for a PING, sends some bytes, and tells when it did."""

    def __init__(self, bench: Bench, pool: Pool, answer: bytes) -> None:
        self._bench = bench
        self._answer = answer
        self.done = pool.submit(self._run)

    def _run(self) -> None:
        got = b""
        while PING_COMMAND not in got:
            got += self._bench.peer.recv(1000)
        self._bench.peer.sendall(self._answer)


MESSAGE = b"MSG s 1 1\r\n5\r\n"


# The reader's thread.


@pytest.mark.parametrize("gate", [Gate, None])
def test_the_readers_thread_routes_what_comes(benches: Callable[..., Bench], gate: type[Gate] | None):
    if gate is not None and not hasattr(select, "epoll"):
        pytest.skip("there is no gate here")
    bench = benches(gate=gate, early=[(1, "s", None, None, b"0")])
    bench.send(1, 2, 3)
    assert [bench.next() for _ in range(4)] == [0, 1, 2, 3]
    bench.peer.sendall(b'INFO {"server_id":"x"}\r\nPING\r\n-ERR \'Invalid Subject\'\r\n+OK\r\nHMSG s 1 2 3\r\nab4\r\n')
    assert bench.next() == 4
    assert set(bench.sink.by.items) == {bench.reading}
    assert bench.infos.items == ["x"]
    assert len(bench.errors) == 1
    bench.outbound.push()
    assert bench.peer.recv(1000).endswith(PONG_COMMAND)
    assert (bench.traffic.msgs, bench.traffic.bytes) == (5, 7)


@pytest.mark.parametrize("gate", [Gate, None])
def test_the_end_of_the_stream_ends_the_link_and_its_reader(benches: Callable[..., Bench], gate: type[Gate] | None):
    bench = benches(gate=gate)
    bench.send(1)
    bench.peer.close()
    eventually(lambda: bench.is_over)
    assert bench.next() == 1
    assert "closed the connection" in str(bench.link.loss.error)


def test_what_is_not_the_protocol_ends_the_link(bench: Bench):
    bench.peer.sendall(MESSAGE + b"HTTP/1.1 400 Bad Request\r\n")
    eventually(lambda: bench.is_over)
    assert bench.next() == 5
    assert isinstance(bench.link.loss.error, ProtocolError)


def test_an_error_of_natsyncs_own_ends_the_link_and_is_told(bench: Bench, caplog: pytest.LogCaptureFixture):
    bench.sink.interrupt = ZeroDivisionError("oops")
    bench.send(1)
    eventually(lambda: bench.is_over)
    assert "the reader failed" in str(bench.link.loss.error)
    assert isinstance(bench.link.loss.error, NatsConnectionError)
    assert isinstance(bench.link.loss.error.__cause__, ZeroDivisionError)
    assert "please report it" in caplog.text


# A caller that reads for itself.


@needs_gate
@pytest.mark.usefixtures("patient")
def test_a_caller_reads_its_answer_and_what_comes_before_it(bench: Bench, pool: Pool):
    waiter = bench.ask()
    Answering(bench, pool, MESSAGE + PONG_COMMAND)
    bench.reader.push_and_read_for(waiter, LONG)
    assert waiter.wait(0)
    assert bench.next() == 5
    assert bench.sink.by.items == [threading.get_ident()]
    assert bench.is_asleep()
    bench.check_reader()


@needs_gate
@pytest.mark.usefixtures("patient")
def test_a_caller_reads_an_answer_that_comes_in_pieces_among_others(bench: Bench, pool: Pool):
    waiter = bench.ask()

    def answer() -> None:
        bench.peer.recv(100)  # the PING: from here on the reader sleeps
        for piece in (b"MSG s 1", b" 1\r\n5", b"\r\nPO", b"NG\r\n"):
            bench.peer.sendall(piece)
            threading.Event().wait(0.02)

    pool.submit(answer)
    bench.reader.push_and_read_for(waiter, LONG)
    assert waiter.answered
    assert bench.sink.by.items == [threading.get_ident()]


@needs_gate
@pytest.mark.usefixtures("patient")
def test_a_caller_struck_as_it_gives_the_token_back_does_not_keep_the_reader(
    bench: Bench, pool: Pool, monkeypatch: pytest.MonkeyPatch
):
    """The connection has ended just before, so nobody else would ever ask for the token."""

    def struck(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.reader, "_surely_give_back", struck)
    waiter = bench.ask()

    def end() -> None:
        eventually(lambda: not bench.is_asleep())
        bench.peer.close()

    pool.submit(end)
    with pytest.raises(KeyboardInterrupt):
        bench.reader.push_and_read_for(waiter, LONG)
    assert bench.reader._token.busy
    bench.link.lose(None)
    bench.link.end()
    assert bench.is_over


class ExpectedMessage(PingWaiter):
    """An answer that is a message with a line that is known."""

    __slots__ = ("beginning", "payload")

    def __init__(self, beginning: bytes) -> None:
        super().__init__()
        self.beginning = beginning
        self.payload: bytes | None = None

    def take(self, payload: bytes) -> None:
        self.payload = payload
        self.pong()


@needs_gate
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("before", [b"", MESSAGE])
def test_an_expected_answer_alone_goes_past_the_routing(bench: Bench, pool: Pool, before: bytes):
    """Among others it does not, and is delivered as they are."""
    bench.ask()
    waiter = ExpectedMessage(b"MSG s 1 ")
    bench.outbound.push()

    def answer() -> None:
        bench.peer.recv(100)
        eventually(lambda: bench.reader._token.holder is not None)
        bench.peer.sendall(b"MSG t 9 1\r\nx\r\n" + MESSAGE if before else MESSAGE)
        if before:
            eventually(lambda: len(bench.sink.by) == 1)
            bench.peer.sendall(MESSAGE)

    pool.submit(answer)
    bench.reader.read_for(waiter, LONG, waiter)
    assert waiter.payload == b"5"
    assert [bench.next() for _ in bench.sink.by.items] == ([5] if before else [])
    assert bench.traffic.msgs == (3 if before else 1)
    assert bench.traffic.bytes == bench.traffic.msgs
    assert bench.is_asleep()
    bench.check_reader()


@needs_gate
def test_an_answer_that_does_not_come_holds_nobody_up(bench: Bench):
    """Others' messages flow again after a moment."""
    waiter = bench.ask()
    bench.reader.push_and_read_for(waiter, LONG)
    assert not waiter.answered
    assert bench.is_asleep()
    bench.check_reader()


@needs_gate
@pytest.mark.parametrize("patience", [0.0, 0.2, LONG])
def test_a_stream_of_others_messages_does_not_keep_a_caller(bench: Bench, pool: Pool, patience: float):
    """There is always something to read, but never the answer."""
    count = 500_000
    waiter = bench.ask()
    sending = pool.submit(bench.peer.sendall, MESSAGE * count)
    bench.reader.push_and_read_for(waiter, patience)
    assert bench.traffic.msgs < count, "the caller has read until nothing came any more"
    sending.result(60)
    eventually(lambda: bench.traffic.msgs == count, 60)


@needs_gate
@pytest.mark.usefixtures("patient")
def test_who_has_its_answer_already_does_not_wait(bench: Bench):
    """Another thread has sent the question, and the reader was faster than its asker."""
    waiter = bench.ask()
    waiter.pong()
    start = time.monotonic()
    bench.reader.push_and_read_for(waiter, LONG)
    assert time.monotonic() - start < 10
    assert bench.peer.recv(100) == PING_COMMAND, "what waited to be sent is sent all the same"


@needs_gate
@pytest.mark.usefixtures("patient")
def test_who_finds_another_at_work_leaves_it_to_that_one(bench: Bench, pool: Pool):
    first = bench.ask()
    reading = pool.submit(bench.reader.push_and_read_for, first, LONG)
    assert bench.peer.recv(100) == PING_COMMAND
    eventually(lambda: bench.outbound.size == 0)
    second = bench.ask()
    bench.reader.push_and_read_for(second, LONG)
    assert bench.peer.recv(100) == PING_COMMAND
    assert not second.answered
    bench.peer.sendall(PONG_COMMAND * 2)
    reading.result(10)
    assert second.wait(10)
    bench.check_reader()


@pytest.mark.usefixtures("patient")
def test_without_a_gate_a_caller_only_sends(benches: Callable[..., Bench]):
    bench = benches(gate=None)
    waiter = bench.ask()
    bench.reader.push_and_read_for(waiter, LONG)
    bench.reader.let_go()
    assert bench.peer.recv(100) == PING_COMMAND
    bench.peer.sendall(PONG_COMMAND)
    assert waiter.wait(10)
    bench.check_reader()


@needs_gate
@pytest.mark.usefixtures("patient")
def test_nobody_reads_before_the_early_operations_are_routed(benches: Callable[..., Bench], pool: Pool):
    """The thread that connected may ask before the reader has run at all."""
    bench = benches(early=[(1, "s", None, None, b"0")], held_up=True)
    bench.send(1)
    bench.reader.let_go(threading.get_ident())
    bench.reader.let_go()
    reading = pool.submit(bench.reader.push_and_read_for, bench.ask(), LONG)
    reading.result(10)
    never(lambda: bench.traffic.msgs > 1, 0.05, "two threads read")
    bench.sink.passing.set()
    assert [bench.next(), bench.next()] == [0, 1]
    assert set(bench.sink.by.items) == {bench.reading}
    bench.check_reader()


# A loss.


@needs_gate
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("how", ["lost here", "closed there", "reset", "rubbish"])
def test_a_link_lost_under_a_caller_is_lost_for_the_reader_too(bench: Bench, pool: Pool, how: str):
    reading = pool.submit(bench.reader.push_and_read_for, bench.ask(), LONG)
    if how == "reset":  # the PING is left unread
        eventually(lambda: select.select([bench.peer], [], [], 0)[0])
    else:
        assert bench.peer.recv(100) == PING_COMMAND
    if how == "lost here":
        bench.link.lose(NatsConnectionError("mine"))
    elif how == "rubbish":
        bench.peer.sendall(b"rubbish\r\n")
    else:
        bench.peer.close()
    reading.result(10)
    eventually(lambda: bench.is_over)
    expected = {"lost here": "mine", "rubbish": "not the NATS protocol"}.get(how, "connection")
    assert expected in str(bench.link.loss.error)
    bench.link.end()
    bench.reader.push_and_read_for(PingWaiter(), LONG)  # who comes too late neither hangs nor raises


@needs_gate
@pytest.mark.usefixtures("patient")
def test_the_end_of_a_link_does_not_wait_for_a_caller_that_waits(bench: Bench, pool: Pool):
    reading = pool.submit(bench.reader.push_and_read_for, bench.ask(), LONG)
    assert bench.peer.recv(100) == PING_COMMAND
    bench.link.lose(None)
    bench.link.end()
    assert bench.is_over
    reading.result(10)


# Disturbances.


@needs_gate
@pytest.mark.usefixtures("patient")
def test_a_signal_handler_under_which_a_caller_reads_gets_its_own_answer(
    bench: Bench, strike: Callable[[Callable[[], object]], None]
):
    """It runs on top of the thread that reads, which cannot go on before it returns."""
    waiter = bench.ask()
    inner: list[bool] = []

    def handle() -> None:
        mine = bench.ask()
        bench.peer.sendall(PONG_COMMAND * 2)  # the first is for the other one
        bench.reader.push_and_read_for(mine, LONG)
        inner.append(mine.wait(20))
        bench.reader.push_and_read_for(bench.ask(), 0.0)

    strike(handle)
    bench.reader.push_and_read_for(waiter, 1.0)
    assert inner == [True]
    assert waiter.wait(10)
    bench.check_reader()


@needs_gate
@pytest.mark.usefixtures("patient")
def test_ctrl_c_in_waiting_costs_nothing(bench: Bench, strike: Callable[[Callable[[], object]], None]):
    def press() -> None:
        raise KeyboardInterrupt

    strike(press)
    with pytest.raises(KeyboardInterrupt):
        bench.reader.push_and_read_for(bench.ask(), LONG)
    assert not bench.link.is_lost
    bench.check_reader()


@needs_gate
@pytest.mark.usefixtures("patient")
def test_ctrl_c_in_routing_costs_the_link(bench: Bench, pool: Pool):
    """Nobody knows what has reached its sink."""
    bench.sink.interrupt = KeyboardInterrupt()
    waiter = bench.ask()
    Answering(bench, pool, MESSAGE + PONG_COMMAND)
    with pytest.raises(KeyboardInterrupt):
        bench.reader.push_and_read_for(waiter, LONG)
    assert "interrupted while it was reading" in str(bench.link.loss.error)
    eventually(lambda: bench.is_over)


class StruckTransport(TcpTransport):
    """A transport in which Ctrl-C strikes once, right after the socket has given its bytes, and more have come."""

    strike: Callable[[], object] | None = None

    def recv_now(self) -> bytes | None:
        data = super().recv_now()
        if self.strike is not None:
            self.strike()
            self.strike = None
            raise KeyboardInterrupt
        return data


@needs_gate
@pytest.mark.usefixtures("patient")
def test_what_ctrl_c_has_torn_is_not_read_on(benches: Callable[..., Bench], pool: Pool):
    """The reader goes on to the end of the stream; but what comes there may be the rest of somebody's payload."""
    bench = benches(transport=StruckTransport)
    eventually(bench.is_asleep)
    assert isinstance(bench.transport, StruckTransport)
    bench.transport.strike = lambda: bench.peer.sendall(MESSAGE)
    waiter = bench.ask()
    Answering(bench, pool, b"MSG s 1 100\r\nthe beginning of a payload, which goes on with: ")
    with pytest.raises(KeyboardInterrupt):
        bench.reader.push_and_read_for(waiter, LONG)
    eventually(lambda: bench.is_over)
    assert "interrupted while it was reading" in str(bench.link.loss.error)
    assert bench.traffic.msgs == 0


@needs_gate
def test_a_gate_that_ctrl_c_has_left_shut_is_opened_at_the_next_look(bench: Bench):
    assert bench.transport.gate is not None
    bench.transport.gate.shut()  # as between the taking away of a token and the opening
    bench.reader.let_go()
    bench.check_reader()


class StruckGate(Gate):
    """A gate in whose first opening, or shutting, Ctrl-C strikes."""

    struck_in = ""

    def open(self) -> None:
        self._strike("open")
        super().open()

    def shut(self) -> None:
        super().shut()
        self._strike("shut")

    def _strike(self, where: str) -> None:
        if self.struck_in == where:
            self.struck_in = ""
            raise KeyboardInterrupt


@needs_gate
@pytest.mark.parametrize("where", ["open", "shut"])
def test_ctrl_c_at_the_gate_leaves_it_open_and_the_token_free(benches: Callable[..., Bench], where: str):
    bench = benches(gate=StruckGate)
    eventually(bench.is_asleep)
    assert isinstance(bench.transport.gate, StruckGate)
    bench.transport.gate.struck_in = where
    with pytest.raises(KeyboardInterrupt):
        bench.reader.push_and_read_for(bench.ask(), 0.001)
    assert not bench.link.is_lost
    bench.check_reader()


class RevokedGate(Gate):
    """A gate whose shutting comes late: somebody takes the token away just before."""

    revoke: Callable[[], None] | None = None

    def shut(self) -> None:
        if self.revoke is not None:
            self.revoke()
        super().shut()


@needs_gate
def test_a_token_taken_away_before_the_gate_is_shut_does_not_leave_it_shut(benches: Callable[..., Bench]):
    bench = benches(gate=RevokedGate)
    eventually(bench.is_asleep)
    assert isinstance(bench.transport.gate, RevokedGate)
    bench.transport.gate.revoke = bench.reader.let_go
    bench.reader.push_and_read_for(bench.ask(), LONG)
    bench.transport.gate.revoke = None
    bench.check_reader()


@needs_gate
@pytest.mark.usefixtures("patient")
def test_only_its_own_thread_takes_the_token_from_a_caller_that_waits(bench: Bench, pool: Pool):
    reading = pool.submit(bench.reader.push_and_read_for, bench.ask(), LONG)
    assert bench.peer.recv(100) == PING_COMMAND
    bench.reader.let_go(threading.get_ident())
    assert not bench.is_asleep()
    bench.reader.let_go()
    bench.check_reader()
    bench.link.lose(None)  # it may still wait for bytes, but takes none
    reading.result(10)
    assert bench.sink.by.items == [bench.reading]
