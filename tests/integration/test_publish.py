"""Publishing: what is sent, byte by byte, and what is refused before anything is sent."""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Headers, Msg
from natsync.errors import BadSubjectError, ConnectionClosedError, MaxPayloadError, NatsTimeoutError
from natsync.testing import NatsServer
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from tests.support.scripted import Conn

Connect = Callable[..., Client]
Scripted = Callable[..., Any]

PATIENCE = 5.0 * TIME_FACTOR


# Payloads


@pytest.mark.parametrize("size", [0, 1, 2, 127, 128, 4095, 65_535, 65_536, 65_537, 1_048_575, 1_048_576])
def test_a_payload_of_any_size_arrives_unchanged(nats_client: Client, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    with nats_client.subscribe("pub.size") as sub:
        nats_client.publish("pub.size", data[:size])
        assert sub.next_msg(PATIENCE).data == data[:size]


@pytest.mark.parametrize("data", [b"\r\n", b"MSG x 1 1\r\n", b"PING\r\n", b"\0" * 9, b"\r\nPUB pub.other 0\r\n\r\n"])
def test_payloads_that_look_like_the_protocol_are_data(nats_client: Client, data: bytes) -> None:
    with nats_client.subscribe("pub.>") as sub:
        nats_client.publish("pub.data", data)
        nats_client.flush()
        assert sub.pending_msgs == 1
        assert sub.next_msg(PATIENCE).data == data


@pytest.mark.parametrize(
    "data",
    [bytearray(b"abcd"), memoryview(b"abcd"), memoryview(bytearray(b"xabcdx"))[1:5], array.array("B", b"abcd")],
    ids=lambda data: type(data).__name__,
)
def test_any_bytes_like_object_can_be_published(nats_client: Client, data: Any) -> None:
    with nats_client.subscribe("pub.like") as sub:
        nats_client.publish("pub.like", data)
        received = sub.next_msg(PATIENCE).data
        assert received == b"abcd"
        assert type(received) is bytes


def test_other_memory_is_published_as_its_bytes(nats_client: Client) -> None:
    numbers = array.array("i", [1, 2, 3])
    memories: list[Any] = [numbers, memoryview(b"abcdef")[::2]]
    with nats_client.subscribe("pub.ints") as sub:
        for data in memories:
            nats_client.publish("pub.ints", data)
        assert sub.next_msg(PATIENCE).data == numbers.tobytes()
        assert sub.next_msg(PATIENCE).data == b"ace"


@pytest.mark.parametrize("name", ["publish", "publish_msg", "respond", "request"])
def test_data_is_copied(nats_client: Client, name: str) -> None:
    data: Any = bytearray(b"before")
    sub = nats_client.subscribe("pub.copy")
    asked = nats_client.subscribe("pub.asked")
    for _ in range(100):
        data[:] = b"before"
        if name == "publish":
            nats_client.publish("pub.copy", data)
        elif name == "publish_msg":
            nats_client.publish_msg(Msg("pub.copy", data))
        elif name == "respond":
            nats_client.publish("pub.asked", reply="pub.copy")
            asked.next_msg(PATIENCE).respond(data)
        else:
            nats_client.request_future("pub.copy", data)
        data[:] = b"after!"
        assert sub.next_msg(PATIENCE).data == b"before"


@pytest.mark.parametrize("data", ["text", None, 1, ["list"], {"a": 1}], ids=repr)
def test_anything_else_is_refused(nats_client: Client, data: Any) -> None:
    asked = nats_client.subscribe("pub.asked")
    nats_client.publish("pub.asked", reply="pub.answer")
    msg = asked.next_msg(PATIENCE)
    sent = nats_client.stats.out_msgs
    for call in (
        lambda: nats_client.publish("pub.type", data),
        lambda: nats_client.request("pub.type", data),
        lambda: msg.respond(data),
        lambda: Msg("pub.type", data),
    ):
        with pytest.raises(TypeError):
            call()
    assert nats_client.stats.out_msgs == sent


# The largest


@pytest.fixture(scope="module")
def small_server() -> Any:
    with NatsServer("max_payload: 100") as server:
        yield server


@pytest.mark.parametrize("headers", [None, {"a": "b"}])
def test_one_byte_too_much_is_refused_and_nothing_is_sent(
    connect: Connect, small_server: NatsServer, headers: dict[str, str] | None
) -> None:
    client = connect(small_server.url)
    room = client.max_payload - (len(b"NATS/1.0\r\na: b\r\n\r\n") if headers else 0)
    assert client.max_payload == 100
    sub = client.subscribe("pub.max")
    client.publish("pub.max", bytes(room), headers=headers)
    client.flush()
    sent = client.stats
    for call in (client.publish, client.request, client.request_future, client.request_many):
        with pytest.raises(MaxPayloadError) as caught:
            call("pub.max", bytes(room + 1), headers=headers)
        assert (caught.value.size, caught.value.max_payload) == (101, 100)
    with pytest.raises(MaxPayloadError):
        client.publish_msg(Msg("pub.max", bytes(room + 1), headers=headers))
    assert client.stats == sent
    client.flush()
    assert sub.pending_msgs == 1
    assert client.is_connected
    assert client.last_error is None


# Subjects


@pytest.mark.parametrize(
    "subject", ["a", "a.b.c", "$SYS.x", "_INBOX.x", "a-b_c", "gr\u00fc\u00dfe.\u4e16\u754c", "x" * 1000]
)
def test_subjects_arrive_as_they_were_written(nats_client: Client, subject: str) -> None:
    with nats_client.subscribe(subject) as sub:
        nats_client.publish(subject, b"1", reply=f"{subject}.reply")
        msg = sub.next_msg(PATIENCE)
        assert (msg.subject, msg.reply) == (subject, f"{subject}.reply")


BAD_SUBJECTS = [
    "",
    " ",
    "a b",
    "a\tb",
    "a\rb",
    "a\nb",
    "a\0b",
    ".a",
    "a.",
    "a..b",
    "a 1\r\nx\r\nPUB pub.injected",
    "a\r\n",
    "a\x7f",
]


@pytest.mark.parametrize("subject", BAD_SUBJECTS, ids=repr)
def test_bad_subjects_and_replies_are_refused_and_nothing_is_sent(nats_client: Client, subject: str) -> None:
    sub = nats_client.subscribe(">")
    sent = nats_client.stats.out_msgs
    msg = Msg("pub.good")
    msg.subject = subject
    for call in (
        lambda: nats_client.publish(subject, b"data"),
        lambda: nats_client.publish("pub.good", b"data", reply=subject),
        lambda: nats_client.publish(subject, b"data", headers={"a": "b"}),
        lambda: nats_client.request(subject, b"data"),
        lambda: nats_client.publish_msg(msg),
    ):
        with pytest.raises(BadSubjectError) as caught:
            call()
        assert isinstance(caught.value, ValueError)
    nats_client.flush()
    assert sub.pending_msgs == 0
    assert nats_client.stats.out_msgs == sent
    assert nats_client.last_error is None


@pytest.mark.parametrize("subject", [None, 1, b"bytes"], ids=repr)
def test_a_subject_is_text(nats_client: Client, subject: Any) -> None:
    with pytest.raises(TypeError):
        nats_client.publish(subject)
    with pytest.raises(TypeError):
        nats_client.subscribe(subject)


def test_more_subjects_than_are_remembered(nats_client: Client) -> None:
    with nats_client.subscribe("pub.many.*") as sub:
        for round_ in range(2):
            for number in range(3000):
                nats_client.publish(f"pub.many.{number}", b"%d" % round_)
        nats_client.flush()
        got = [(msg.subject, msg.data) for msg in (sub.next_msg(PATIENCE) for _ in range(6000))]
    assert got == [(f"pub.many.{number}", b"%d" % round_) for round_ in range(2) for number in range(3000)]


# On the wire


def test_the_bytes_on_the_wire(connect: Connect, scripted: Scripted) -> None:
    read: list[bytes] = []

    def script(conn: Conn) -> None:
        conn.handshake()
        read.append(conn.read_until(b"PING\r\n"))
        conn.send(b"PONG\r\n")
        conn.serve()

    client = connect(scripted(script).url)
    client.publish("a.b", b"data")
    client.publish("a.b", b"", reply="c.d")
    client.publish("a.b", b"xyz", headers=Headers([("K", "v"), ("k", "w"), ("K", "x")]))
    client.publish("a.b", b"1", reply="c", headers={"K": ["v"]})
    client.flush()
    assert read == [
        b"PUB a.b 4\r\ndata\r\n"
        b"PUB a.b c.d 0\r\n\r\n"
        b"HPUB a.b 30 33\r\nNATS/1.0\r\nK: v\r\nK: x\r\nk: w\r\n\r\nxyz\r\n"
        b"HPUB a.b c 18 19\r\nNATS/1.0\r\nK: v\r\n\r\n1\r\n"
        b"PING\r\n"
    ]


# Messages


def test_a_message_object_is_published(nats_client: Client) -> None:
    with nats_client.subscribe("pub.msg") as sub:
        nats_client.publish_msg(Msg("pub.msg", b"data", reply="pub.reply", headers={"a": ["1", "2"]}))
        msg = sub.next_msg(PATIENCE)
    assert (msg.subject, msg.data, msg.reply) == ("pub.msg", b"data", "pub.reply")
    assert msg.headers == {"a": ["1", "2"]}


def test_a_received_message_can_be_passed_on(nats_client: Client) -> None:
    first, second = nats_client.subscribe("pub.first"), nats_client.subscribe("pub.second")
    nats_client.publish("pub.first", b"data", reply="pub.reply", headers={"a": "b"})
    msg = first.next_msg(PATIENCE)
    msg.subject = "pub.second"
    nats_client.publish_msg(msg)
    passed = second.next_msg(PATIENCE)
    assert (passed.data, passed.reply) == (b"data", "pub.reply")
    assert passed.headers == {"a": "b"}


# Order, and many threads


def test_each_publisher_keeps_its_order(nats_client: Client) -> None:
    sub = nats_client.subscribe("pub.order")
    barrier = threading.Barrier(16)

    def publish(thread: int) -> None:
        barrier.wait(PATIENCE)
        for number in range(500):
            nats_client.publish(
                "pub.order", b"%d %d" % (thread, number), headers={"a": "b"} if number % 5 == 0 else None
            )

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(publish, thread) for thread in range(16)]:
            future.result(PATIENCE)
    nats_client.flush()
    received: dict[int, list[int]] = {thread: [] for thread in range(16)}
    for _ in range(16 * 500):
        thread, number = map(int, sub.next_msg(PATIENCE).data.split())
        received[thread].append(number)
    assert all(numbers == list(range(500)) for numbers in received.values())


def test_order_holds_over_publishes_requests_and_flushes(nats_client: Client) -> None:
    sub = nats_client.subscribe("pub.mixed")
    for number in range(600):
        if number % 3 == 0:
            nats_client.publish("pub.mixed", b"%d" % number)
        elif number % 3 == 1:
            nats_client.request_future("pub.mixed", b"%d" % number)
        else:
            nats_client.publish("pub.mixed", b"%d" % number, headers={"a": "b"})
            nats_client.flush()
    assert [int(sub.next_msg(PATIENCE).data) for _ in range(600)] == list(range(600))


def test_messages_go_out_without_a_flush(nats_client: Client, connect: Connect, nats_server: NatsServer) -> None:
    other = connect(nats_server.url)
    sub = other.subscribe("pub.soon")
    other.flush()
    for number in range(20):
        nats_client.publish("pub.soon", b"%d" % number)
        assert sub.next_msg(PATIENCE).data == b"%d" % number


def test_a_flood_to_oneself_does_not_lock_up(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, pending_size=65_536)
    seen = client.subscribe("pub.flood", cb=lambda msg: client.publish("pub.echo"), pending_msgs_limit=100)
    echo = client.subscribe("pub.echo", pending_msgs_limit=-1)

    def publish() -> None:
        for _ in range(500):
            client.publish("pub.flood", bytes(20_000))

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(publish) for _ in range(4)]:
            future.result(PATIENCE * 2)
    client.flush()
    eventually(lambda: seen.pending_msgs == 0)
    assert seen.delivered + seen.dropped == 2000
    client.flush()
    assert echo.pending_msgs == seen.delivered


# When the server does not take it


def test_a_publisher_that_finds_the_buffer_full_waits_for_room(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url, pending_size=65_536)
    fresh_server.pause()
    published = Recorder()

    def publish() -> None:
        for _ in range(20_000):
            client.publish("pub.room", bytes(1000))
        published("all")

    threading.Thread(target=publish, daemon=True).start()
    counts: list[int] = []

    def stands_still() -> bool:
        assert client.buffered <= 65_536
        counts.append(client.stats.out_msgs)
        return client.buffered > 0 and counts[-20:] == [counts[-1]] * 20

    eventually(stands_still)
    assert not published.items
    fresh_server.resume()
    published.wait_for(1)
    client.flush()
    eventually(lambda: fresh_server.varz()["in_msgs"] == 20_000)


def test_a_publisher_does_not_wait_for_room_for_ever(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url, pending_size=65_536, write_timeout=0.3, allow_reconnect=False)
    fresh_server.pause()
    began = time.monotonic()
    # Whatever is noticed first: that there is no room, or that the connection takes nothing.
    with pytest.raises((NatsTimeoutError, ConnectionClosedError)):
        while True:
            client.publish("pub.full", bytes(1000))
    assert 0.3 <= time.monotonic() - began < 2.0 * TIME_FACTOR


def test_one_message_larger_than_the_buffer_is_sent(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, pending_size=1000)
    with client.subscribe("pub.large") as sub:
        for _ in range(20):
            client.publish("pub.large", bytes(100_000))
        client.flush()
        assert sub.pending_bytes == 20 * 100_000
