"""What is published while there is no connection: how much is kept, in which order it goes out, what is given up."""

from __future__ import annotations

import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Msg, OutboundBufferLimitError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from natsync.testing import NatsServer
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

FAST: dict[str, Any] = {"reconnect_time_wait": 0.05, "reconnect_jitter": 0.0}
FRAME = len(b"PUB b 10\r\n0123456789\r\n")


def go_down(proxy: FaultProxy, client: Client) -> None:
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.is_reconnecting)


def publish_one(client: Client) -> None:
    client.publish("b", b"0123456789")


def received_numbers(recorder: Recorder) -> list[int]:
    return [int(msg.data) for msg in recorder.items]


# How much


@pytest.mark.parametrize("limit", [5 * FRAME, 6 * FRAME - 1])
def test_the_bound_is_exact(limit: int, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_buffer_size=limit, **FAST)
    go_down(proxy, client)
    for number in range(1, 6):
        publish_one(client)
        assert client.buffered == number * FRAME
    with pytest.raises(OutboundBufferLimitError) as caught:
        publish_one(client)
    assert (caught.value.size, caught.value.limit) == (FRAME, limit)
    assert client.buffered == 5 * FRAME


def test_a_smaller_message_fits_into_what_is_left_to_the_last_byte(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_buffer_size=2 * FRAME - 1, **FAST)
    go_down(proxy, client)
    publish_one(client)
    with pytest.raises(OutboundBufferLimitError):
        publish_one(client)
    client.publish("bb", b"123456789"[:9])
    assert client.buffered == 2 * FRAME - 1
    with pytest.raises(OutboundBufferLimitError):
        client.publish("b")


def test_headers_and_reply_subjects_count(proxy: FaultProxy, connect: Connect) -> None:
    frame = b"HPUB b answer 18 20\r\nNATS/1.0\r\nk: v\r\n\r\nhi\r\n"
    client = connect(proxy.url, reconnect_buffer_size=len(frame), **FAST)
    go_down(proxy, client)
    client.publish_msg(Msg("b", b"hi", reply="answer", headers={"k": "v"}))
    assert client.buffered == len(frame)


def test_a_message_larger_than_the_whole_buffer_is_refused(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_buffer_size=FRAME - 1, **FAST)
    go_down(proxy, client)
    with pytest.raises(OutboundBufferLimitError):
        publish_one(client)
    assert client.buffered == 0


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_no_buffer_keeps_nothing(payload: bytes, nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    received = Recorder()
    witness = connect(nats_server.url)
    witness.subscribe("none", cb=received)
    witness.flush()
    client = connect(proxy.url, reconnect_buffer_size=0, **FAST)
    go_down(proxy, client)
    for _ in range(3):
        with pytest.raises(OutboundBufferLimitError):
            client.publish("none", payload)
    assert client.buffered == 0
    proxy.accept()
    client.flush()
    client.publish("none", b"after")
    received.wait_for(1)
    witness.flush()
    assert [msg.data for msg in received.items] == [b"after"]


def test_subscriptions_need_no_room(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_buffer_size=0, **FAST)
    go_down(proxy, client)
    subs = [client.subscribe(f"needs.no.room.{number}") for number in range(100)]
    subs.pop().unsubscribe()
    assert client.buffered == 0
    proxy.accept()
    client.flush()
    client.publish("needs.no.room.7", b"here")
    assert subs[7].next_msg(timeout=5.0 * TIME_FACTOR).data == b"here"


def test_a_request_that_does_not_fit_is_refused(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_buffer_size=20, **FAST)
    go_down(proxy, client)
    with pytest.raises(OutboundBufferLimitError):
        client.request("b", b"0123456789", timeout=1.0)
    with pytest.raises(OutboundBufferLimitError):
        client.request_future("b", b"0123456789", timeout=1.0)
    assert client.buffered == 0


def test_nothing_of_a_refused_message_is_sent(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_buffer_size=2 * FRAME, **FAST)
    sub = client.subscribe(">")
    client.flush()
    go_down(proxy, client)
    publish_one(client)
    for size in (11, 100, 100_000):
        with pytest.raises(OutboundBufferLimitError):
            client.publish("large", bytes(size + FRAME))
    publish_one(client)
    proxy.accept()
    client.flush()
    client.publish("after")
    subjects = [sub.next_msg(timeout=5.0 * TIME_FACTOR).subject for _ in range(3)]
    assert subjects == ["b", "b", "after"]


def test_after_an_outage_there_is_room_again(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_buffer_size=3 * FRAME, **FAST)
    for _ in range(3):
        go_down(proxy, client)
        for _ in range(3):
            publish_one(client)
        with pytest.raises(OutboundBufferLimitError):
            publish_one(client)
        proxy.accept()
        client.flush()
        eventually(lambda: client.buffered == 0)
        for _ in range(100):
            publish_one(client)
        client.flush()
    assert client.stats.out_msgs == 3 * 103
    assert client.stats.dropped == 0


def test_the_bound_holds_for_many_threads(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_buffer_size=1000 * FRAME + FRAME // 2, **FAST)
    go_down(proxy, client)

    def fill() -> int:
        accepted = 0
        for _ in range(300):
            try:
                publish_one(client)
            except OutboundBufferLimitError:
                continue
            accepted += 1
        return accepted

    with ThreadPoolExecutor(8) as pool:
        accepted = [pool.submit(fill) for _ in range(8)]
        assert sum(each.result() for each in accepted) == 1000
    assert client.buffered == 1000 * FRAME


# What `buffered` says


def test_buffered_is_what_waits_for_the_connection(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    publish_one(client)
    client.flush()
    eventually(lambda: client.buffered == 0)  # the PONG may overtake the sender's own arithmetic
    go_down(proxy, client)
    assert client.buffered == 0
    client.publish("b", b"0123456789")
    client.publish("b", b"0123456789")
    assert client.buffered == 2 * FRAME
    proxy.accept()
    client.flush()
    eventually(lambda: client.buffered == 0)
    client.close()
    assert client.buffered == 0


# In which order


def test_subscriptions_come_before_what_was_published(scripted: Scripted, connect: Connect) -> None:
    lines = []

    def first(conn: Conn) -> None:
        conn.handshake()
        conn.expect(b"SUB a ")

    def second(conn: Conn) -> None:
        conn.handshake()
        lines.extend(conn.serve())

    client = connect(scripted([first, second]).url, **FAST)
    client.subscribe("a")
    eventually(lambda: client.stats.reconnects == 1 or client.is_reconnecting)
    client.publish("x", b"")
    client.subscribe("b", queue="q")
    client.publish("y", b"")
    client.flush()
    client.close()
    eventually(lambda: lines)
    commands = [line for line in lines if line.startswith((b"SUB", b"PUB"))]
    assert [line.split()[1] for line in commands if line.startswith(b"PUB")] == [b"x", b"y"]
    assert commands[0].startswith(b"SUB a ")
    assert sum(line.startswith(b"SUB b q ") for line in commands) == 1


def test_eight_threads_keep_their_order_over_a_restart(fresh_server: NatsServer, connect: Connect) -> None:
    received = [Recorder() for _ in range(8)]
    client = connect(fresh_server.url, reconnect_buffer_size=64 << 20, **FAST)
    for number, recorder in enumerate(received):
        client.subscribe(f"order.{number}", cb=recorder)
    client.flush()
    fresh_server.kill()
    eventually(lambda: client.is_reconnecting)
    half = threading.Barrier(9)

    def publish(number: int) -> None:
        for count in range(2000):
            if count == 1000:
                half.wait(10.0 * TIME_FACTOR)
            client.publish(f"order.{number}", b"%d" % count)

    with ThreadPoolExecutor(8) as pool:
        publishers = [pool.submit(publish, number) for number in range(8)]
        half.wait(10.0 * TIME_FACTOR)  # from here on they go on while the connection comes back
        fresh_server.start()
        for publisher in publishers:
            publisher.result(20.0 * TIME_FACTOR)
    client.flush()
    for recorder in received:
        recorder.wait_for(2000)
        assert received_numbers(recorder) == list(range(2000))
    assert client.stats.dropped == 0


class Losing:
    """A script for a server that takes what is published and breaks the connection again and again, at odd bytes."""

    def __init__(self, sizes: list[int], *, reset: bool) -> None:
        self.sizes = sizes
        self.reset = reset
        self.streams: list[bytes] = []
        self.done = threading.Event()

    def __call__(self, conn: Conn) -> None:
        conn.handshake()
        if conn.number < len(self.sizes):
            self.streams.append(conn.read_exactly(self.sizes[conn.number]))
            if self.reset:
                conn.reset()
            return
        self.done.set()
        self.streams.append(conn.read_until(b"PING\r\n"))
        conn.send(b"PONG\r\n")
        conn.serve()

    def numbers(self, subject: str) -> list[list[int]]:
        """What one publisher's messages were, by connection; one that was cut does not count."""
        pattern = re.compile(rb"PUB %b \d+\r\n(\d+)-*\r\n" % subject.encode())
        return [[int(number) for number in pattern.findall(stream)] for stream in self.streams]


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_only_what_was_under_way_is_lost_and_nothing_comes_twice(
    reset: bool, scripted: Scripted, connect: Connect
) -> None:
    chance = random.Random(4711)
    script = Losing([chance.randrange(1, 300_000) for _ in range(12)], reset=reset)
    lost = Recorder()
    client = connect(scripted(script).url, disconnected_cb=lost, pending_size=65536, **FAST)

    def publish(number: int) -> int:
        count = 0
        while not script.done.is_set():
            try:
                client.publish(f"p.{number}", b"%d" % count + b"-" * 1000)
                count += 1
            except OutboundBufferLimitError:
                eventually(lambda: client.is_connected)
        client.publish(f"p.{number}", b"%d" % count)
        return count

    with ThreadPoolExecutor(8) as pool:
        publishers = [pool.submit(publish, number) for number in range(8)]
        last = [publisher.result(30.0 * TIME_FACTOR) for publisher in publishers]
    client.flush()
    client.close()
    for number in range(8):
        connections = script.numbers(f"p.{number}")
        flat = [count for counts in connections for count in counts]
        assert flat == sorted(set(flat)), "out of order, or twice"
        for counts in connections:
            assert counts == list(range(counts[0], counts[0] + len(counts))) if counts else True, "lost in the middle"
        assert flat[-1] == last[number], "the last one is lost, although the connection stayed"
    assert all(event.dropped_msgs <= 1 for event in lost.items), "only a message sent in part is given up"
    assert client.stats.dropped <= len(script.sizes)


# What is given up


def test_a_message_sent_in_part_is_given_up_and_counted(scripted: Scripted, connect: Connect) -> None:
    lost = Recorder()
    after = []

    def first(conn: Conn) -> None:
        conn.handshake(max_payload=64 << 20)
        conn.read_exactly(100)
        conn.reset()

    def second(conn: Conn) -> None:
        conn.handshake(max_payload=64 << 20)
        after.extend([conn.expect_pub(), conn.expect_pub()])
        conn.serve()

    client = connect(scripted([first, second]).url, disconnected_cb=lost, pending_size=64 << 20, **FAST)
    data = bytes(32 << 20)  # more than the system takes for a socket whose peer does not read
    client.publish("huge", data)
    client.publish("small", b"1")
    client.publish("small", b"2")
    (event,) = lost.wait_for(1)
    client.flush()
    assert (event.dropped_msgs, event.dropped_bytes) == (1, len(b"PUB huge 33554432\r\n") + len(data) + 2)
    assert after == [("small", b"1"), ("small", b"2")]
    assert client.stats.dropped == 1


def test_what_a_broken_flush_of_the_buffer_gives_up_is_counted_and_reported(
    scripted: Scripted, connect: Connect
) -> None:
    events = Recorder()
    after = []

    def first(conn: Conn) -> None:
        conn.handshake(max_payload=64 << 20)

    def second(conn: Conn) -> None:
        conn.handshake(max_payload=64 << 20)
        conn.read_exactly(100)
        conn.reset()

    def third(conn: Conn) -> None:
        conn.handshake(max_payload=64 << 20)
        after.append(conn.expect_pub())
        conn.serve()

    client = connect(
        scripted([first, second, third]).url,
        disconnected_cb=events,
        reconnect_error_cb=events,
        reconnected_cb=events,
        closed_cb=events,
        reconnect_buffer_size=64 << 20,
        reconnect_time_wait=0.2,
        reconnect_jitter=0.0,
    )
    eventually(lambda: client.is_reconnecting)
    client.publish("huge", bytes(32 << 20))
    client.publish("small", b"1")
    client.flush()
    client.close()
    assert after == [("small", b"1")]
    assert client.stats.dropped == 1
    assert sum(getattr(event, "dropped_msgs", 0) for event in events.items) == 1


def test_what_waited_for_the_socket_is_kept_up_to_the_limit(scripted: Scripted, connect: Connect) -> None:
    lost = Recorder()
    enough = threading.Event()
    sent: list[int] = []

    def first(conn: Conn) -> None:
        conn.handshake()
        assert enough.wait(10.0 * TIME_FACTOR)
        conn.reset()

    def second(conn: Conn) -> None:
        conn.handshake()
        sent.extend(int(line.split()[1]) for line in conn.serve() if line.startswith(b"PUB "))

    limit = 300_000
    client = connect(
        scripted([first, second]).url,
        disconnected_cb=lost,
        pending_size=64 << 20,
        reconnect_buffer_size=limit,
        **FAST,
    )
    count = 3000
    for number in range(count):  # more than the system takes for a socket whose peer does not read
        client.publish(str(number), bytes(10_000))
    eventually(lambda: client._engine.outbound.sent_bytes)
    enough.set()
    (event,) = lost.wait_for(1)
    client.flush()
    client.close()
    eventually(lambda: sent)
    assert sent == list(range(sent[0], sent[0] + len(sent)))  # the oldest ones, without a gap
    assert limit - 11_000 < 10_000 * len(sent) < limit
    waited = count - sent[0]
    assert waited <= event.dropped_msgs + len(sent) <= waited + 1  # one more if it was sent in part
    assert client.stats.dropped == event.dropped_msgs


def test_what_the_next_server_would_refuse_is_given_up(scripted: Scripted, connect: Connect) -> None:
    after = []

    def first(conn: Conn) -> None:
        conn.handshake(max_payload=1000)

    def second(conn: Conn) -> None:
        conn.handshake(max_payload=100)
        after.extend([conn.expect_pub(), conn.expect_pub()])
        conn.serve()

    client = connect(scripted([first, second]).url, reconnect_time_wait=0.2, reconnect_jitter=0.0)
    eventually(lambda: client.is_reconnecting)
    client.publish("fits", bytes(100))
    client.publish("large", bytes(101))
    client.publish("fits", b"")
    client.flush()
    assert after == [("fits", bytes(100)), ("fits", b"")]
    assert client.stats.dropped == 1


def test_closing_while_down_counts_what_is_given_up(proxy: FaultProxy, connect: Connect) -> None:
    closed = Recorder()
    client = connect(proxy.url, closed_cb=closed, **FAST)
    go_down(proxy, client)
    for _ in range(7):
        publish_one(client)
    client.close()
    (event,) = closed.wait_for(1)
    assert (event.dropped_msgs, event.dropped_bytes) == (7, 7 * FRAME)
    assert client.stats.dropped == 7
    assert client.buffered == 0


def test_using_up_all_attempts_counts_what_is_given_up(proxy: FaultProxy, connect: Connect) -> None:
    closed, lost = Recorder(), Recorder()
    client = connect(
        proxy.url,
        closed_cb=closed,
        disconnected_cb=lost,
        max_reconnect_attempts=3,
        **FAST | {"reconnect_time_wait": 0.1},
    )
    go_down(proxy, client)
    for _ in range(7):
        publish_one(client)
    (event,) = closed.wait_for(1)
    assert (event.dropped_msgs, event.dropped_bytes) == (7, 7 * FRAME)
    assert [event.dropped_msgs for event in lost.items] == [0]
    assert client.stats.dropped == 7
