"""The table of subscriptions, and what a server is told of it, over real buffers and sockets."""

from __future__ import annotations

import gc
import itertools
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from natsync.core.link import Link
from natsync.core.outbound import Outbound, Pumped
from natsync.core.read_sink import ReadSink
from natsync.core.registry import Registry
from natsync.core.sink import size_of
from natsync.core.transport import TcpTransport
from natsync.errors import BadSubscriptionError, NatsError
from natsync.locks import Wakeup
from natsync.policy.pool import Server
from natsync.policy.urls import parse_url
from natsync.protocol.info import ServerInfo
from natsync.protocol.operations import MsgOp
from natsync.protocol.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.conftest import Pool


def gone() -> NatsError:
    return BadSubscriptionError("gone")


class Bench:
    """A registry over an outbound buffer, and the server's side of its connections."""

    def __init__(self) -> None:
        self.outbound = Outbound(live_limit=1 << 20, buffer_limit=1 << 20, write_timeout=10, wakeup=Wakeup())
        self.outbound.buffer()
        self.registry = Registry(self.outbound)
        self.generation = 0
        self._open: list[tuple[TcpTransport, socket.socket]] = []

    def connect(self, *, replay: bool = True) -> bytes:
        """Do as a new connection does; returns the replay."""
        self.generation += 1
        ours, peer = socket.socketpair()
        transport = TcpTransport(ours)
        self._open.append((transport, peer))
        server = Server(parse_url("127.0.0.1"))
        link = Link(self.generation, transport, server, ServerInfo(), Parser(), [], lambda: None)
        self.outbound.begin(link)
        commands = self.registry.replay(self.generation) if replay else b""
        self.outbound.live()
        return commands

    def lose(self) -> None:
        self.outbound.down()

    def said(self) -> list[bytes]:
        """Return the commands that were sent since the last call, other than the replay."""
        while self.outbound.pump() is Pumped.SENT:
            pass
        try:
            return self._open[-1][1].recv(1 << 20, socket.MSG_DONTWAIT).splitlines()
        except BlockingIOError:
            return []

    def sink(self, subject: str = "foo", queue: str | None = None, *, max_msgs: int | None = None) -> ReadSink:
        sid = self.registry.next_sid()
        return ReadSink(sid, subject, queue, msgs_limit=-1, bytes_limit=-1, max_msgs=max_msgs)

    def add(self, subject: str = "foo", queue: str | None = None, *, max_msgs: int | None = None) -> ReadSink:
        sink = self.sink(subject, queue, max_msgs=max_msgs)
        assert self.registry.add(sink)
        return sink

    def close(self) -> None:
        for transport, peer in self._open:
            transport.close()
            peer.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def deliver(sink: ReadSink, count: int) -> None:
    batch: list[MsgOp] = [(sink.sid, "foo", None, None, b"x") for _ in range(count)]
    sink.deliver(batch, sum(map(size_of, batch)))


def lines(commands: bytes) -> list[bytes]:
    return commands.splitlines()


# With a connection.


def test_sids_are_never_used_again(bench: Bench):
    first = bench.add()
    bench.registry.stop(first.sid, tell=True)
    assert bench.add().sid != first.sid


@pytest.mark.parametrize(
    "queue, max_msgs, said",
    [
        (None, None, [b"SUB foo 1"]),
        ("q", None, [b"SUB foo q 1"]),
        (None, 5, [b"SUB foo 1", b"UNSUB 1 5"]),
        ("q", 5, [b"SUB foo q 1", b"UNSUB 1 5"]),
    ],
)
def test_a_subscription_is_told_at_once(bench: Bench, queue: str | None, max_msgs: int | None, said: list[bytes]):
    assert bench.connect() == b""
    sink = bench.add("foo", queue, max_msgs=max_msgs)
    assert bench.said() == said
    assert bench.registry.find(sink.sid) is sink
    assert bench.registry.find(99) is None
    assert bench.registry.all() == [sink]


def test_a_stopped_subscription_is_told_once(bench: Bench):
    bench.connect()
    sink = bench.add()
    assert bench.registry.stop(sink.sid, tell=True)
    assert not bench.registry.stop(sink.sid, tell=True)
    assert bench.said() == [b"SUB foo 1", b"UNSUB 1"]
    assert bench.registry.find(sink.sid) is None


def test_a_draining_subscription_is_told_once_and_stays_for_what_is_under_way(bench: Bench):
    bench.connect()
    sink = bench.add()
    bench.said()
    assert bench.registry.drain(sink.sid)
    assert bench.registry.drain(sink.sid)
    assert bench.said() == [b"UNSUB 1"]
    assert bench.registry.find(sink.sid) is sink
    assert bench.registry.stop(sink.sid, tell=True)
    assert bench.said() == [], "the server knows"
    assert not bench.registry.drain(sink.sid)


def test_what_the_server_has_ended_by_itself_is_not_told(bench: Bench):
    bench.connect()
    sink = bench.add(max_msgs=1)
    bench.said()
    assert bench.registry.stop(sink.sid, tell=False)
    assert bench.said() == []


def test_a_stopped_sink_is_remembered_as_long_as_somebody_has_it(bench: Bench):
    """Who drains waits for its last callbacks; who has forgotten it has no use for it."""
    sink = bench.add()
    bench.registry.stop(sink.sid, tell=True)
    assert bench.registry.stopped() == [sink]
    assert bench.registry.all() == []
    del sink
    gc.collect()
    assert bench.registry.stopped() == []


def test_a_limit_is_told_for_what_is_there(bench: Bench):
    bench.connect()
    sink = bench.add()
    bench.registry.limit(sink, 7)
    bench.registry.stop(sink.sid, tell=True)
    bench.registry.limit(sink, 8)
    assert bench.said() == [b"SUB foo 1", b"UNSUB 1 7", b"UNSUB 1"]


def test_matching_means_the_very_subject_and_queue(bench: Bench):
    plain, other, in_queue = bench.add("a.*"), bench.add("a.b"), bench.add("a.*", "q")
    twin = bench.add("a.*")
    assert bench.registry.matching("a.*", None) == [plain, twin]
    assert bench.registry.matching("a.*", "q") == [in_queue]
    assert bench.registry.matching("a.b", None) == [other]
    assert bench.registry.matching("a.c", None) == []
    assert bench.registry.matching(None, None) == []


# Without one, and with a new one.


def test_without_a_connection_nothing_is_said_and_the_replay_has_it(bench: Bench):
    kept = bench.add("kept", "q")
    gone = bench.add("gone")
    bench.registry.stop(gone.sid, tell=True)
    assert bench.outbound.size == 0
    assert lines(bench.connect()) == [b"SUB kept q %d" % kept.sid]
    assert bench.said() == []


def test_the_replay_restores_what_is_left(bench: Bench):
    bench.connect()
    plain = bench.add("plain")
    counted = bench.add("counted", max_msgs=10)
    full = bench.add("full", max_msgs=2)
    draining = bench.add("draining")
    deliver(counted, 4)
    deliver(full, 2)
    bench.registry.drain(draining.sid)
    bench.lose()
    assert lines(bench.connect()) == [
        b"SUB plain %d" % plain.sid,
        b"SUB counted %d" % counted.sid,
        b"UNSUB %d 6" % counted.sid,
    ]


@pytest.mark.parametrize("received", [0, 3])
def test_a_limit_after_a_reconnect_counts_as_the_new_server_does(bench: Bench, received: int):
    """It has counted from zero since; with a greater number it would go on taking its share of a queue group."""
    bench.connect()
    sink = bench.add("foo", "q")
    deliver(sink, 5)
    bench.lose()
    bench.connect()
    deliver(sink, received)
    sink.limit(10)
    bench.registry.limit(sink, 10)
    assert bench.said() == [b"UNSUB 1 5"]


def test_a_limit_that_a_replay_overtakes_counts_as_the_new_server_does(bench: Bench):
    """The sink knows its limit, the connection changes, and only then is the server told."""
    bench.connect()
    sink = bench.add("foo")
    deliver(sink, 5)
    bench.lose()
    sink.limit(10)
    assert lines(bench.connect()) == [b"SUB foo 1", b"UNSUB 1 5"]
    bench.registry.limit(sink, 10)
    assert bench.said() in ([], [b"UNSUB 1 5"])


def test_commands_between_the_new_connection_and_its_replay_are_in_the_replay_only(bench: Bench):
    bench.connect()
    first = bench.add("first")
    bench.lose()
    bench.connect(replay=False)
    second = bench.add("second")
    bench.registry.stop(first.sid, tell=True)
    assert bench.said() == []
    assert lines(bench.registry.replay(bench.generation)) == [b"SUB second %d" % second.sid]


def test_a_cleared_registry_takes_nothing_more(bench: Bench):
    bench.connect()
    sinks = [bench.add(), bench.add()]
    bench.said()
    assert bench.registry.clear() == sinks
    assert bench.registry.all() == []
    assert bench.registry.find(sinks[0].sid) is None
    assert not bench.registry.add(bench.sink())
    assert not bench.registry.stop(sinks[0].sid, tell=True)
    assert bench.said() == []


def test_a_forked_child_gets_the_sinks_whoever_held_the_lock(bench: Bench):
    sinks = [bench.add(), bench.add(), bench.add()]
    bench.registry.stop(sinks[2].sid, tell=True)
    bench.registry._lock.acquire()
    assert bench.registry.clear_after_fork() == sinks
    assert bench.registry.find(sinks[0].sid) is None


# Many threads.


def subscriptions_of(commands: list[bytes]) -> set[int]:
    """Follow what one server is told; returns the sids that it ends up with."""
    known: set[int] = set()
    for command in commands:
        words = command.split()
        if words[0] == b"SUB":
            sid = int(words[2])
            assert sid not in known, "told twice"
            known.add(sid)
        else:
            known.remove(int(words[1]))  # or it ended before it began
    return known


def test_over_reconnects_each_connection_hears_of_each_subscription_once(pool: Pool, bench: Bench, switching: None):
    """Subscriptions come and go while connections do: never both in a replay and by themselves, never in neither."""
    threads, connections = 4, 25
    stopped = threading.Event()
    alive: list[set[int]] = [set() for _ in range(threads)]

    def subscribe(index: int) -> None:
        for number in itertools.count():
            if stopped.is_set():
                return
            alive[index].add(bench.add(f"s.{index}.{number}").sid)
            if len(alive[index]) > 5:
                assert bench.registry.stop(alive[index].pop(), tell=True)

    tasks = [pool.submit(subscribe, index) for index in range(threads)]
    try:
        for _ in range(connections):
            heard = lines(bench.connect())
            for _ in range(3):
                heard += bench.said()
            subscriptions_of(heard)
            bench.lose()
        heard = lines(bench.connect())
    finally:
        stopped.set()
    for task in tasks:
        task.result(10)
    heard += bench.said()
    assert subscriptions_of(heard) == set().union(*alive) == {sink.sid for sink in bench.registry.all()}


def test_find_is_safe_while_others_change_the_table(pool: Pool, bench: Bench, switching: None):
    bench.connect()
    steady = bench.add("steady")
    stopped = threading.Event()

    def change() -> None:
        while not stopped.is_set():
            bench.registry.stop(bench.add("passing").sid, tell=True)

    tasks = [pool.submit(change) for _ in range(3)]
    try:
        found = [bench.registry.find(steady.sid) for _ in range(3000)]
    finally:
        stopped.set()
    for task in tasks:
        task.result(10)
    assert set(found) == {steady}


def test_the_last_word_on_a_sid_is_the_last_change_of_the_table(pool: Pool, bench: Bench, switching: None):
    """Two threads end one subscription while a third limits it: whatever happens, UNSUB comes once and SUB first."""
    bench.connect()
    for _ in range(100):
        sink = bench.add("foo")
        stops = [pool.submit(bench.registry.stop, sink.sid, tell=True) for _ in range(2)]
        pool.submit(bench.registry.limit, sink, 5).result(10)
        assert sorted(stop.result(10) for stop in stops) == [False, True]
        said = bench.said()
        assert said[0] == b"SUB foo %d" % sink.sid
        assert said[1:] in (
            [b"UNSUB %d" % sink.sid],
            [b"UNSUB %d 5" % sink.sid, b"UNSUB %d" % sink.sid],
        )
