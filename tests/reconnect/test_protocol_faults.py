"""A server, or a wire, that does not keep to the protocol: the connection goes, the client stays and says why."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import natsync
from natsync import NatsConnectionError, NatsTimeoutError, NoServersError, ProtocolError
from tests.support.scripted import INFO
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from natsync.testing import NatsServer
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

FAST: dict[str, Any] = {"reconnect_time_wait": 0.02, "reconnect_jitter": 0.0}


def good(conn: Conn) -> None:
    conn.handshake()
    conn.serve()


def sends(data: bytes) -> Callable[[Conn], None]:
    """A server that waits for a subscription, and then sends this in place of a message."""

    def script(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB ").split()[-1]
        conn.send(data.replace(b"SID", sid))
        conn.wait_eof()

    return script


# Bytes that are not the protocol

GARBAGE = {
    "noise": b"\x00\xff\xfe\x80garbage\r\n",
    "another protocol": b"HTTP/1.1 200 OK\r\n\r\n",
    "unknown word": b"POO\r\n",
    "leading blank": b" PING\r\n",
    "empty line": b"\r\n",
    "no arguments": b"MSG\r\n",
    "too few arguments": b"MSG a SID\r\n\r\n",
    "too many arguments": b"MSG a SID b c 1\r\nx\r\n",
    "size is no number": b"MSG a SID x\r\nx\r\n",
    "negative size": b"MSG a SID -1\r\nx\r\n",
    "huge size": b"MSG a SID 99999999999999999999\r\n",
    "more than anybody sends": b"MSG a SID 4000000000\r\n",
    "sid is no number": b"MSG a b 1\r\nx\r\n",
    "size too small": b"MSG a SID 1\r\nxyz\r\n",
    "size too large": b"MSG a SID 5\r\nxyz\r\nPING\r\n",
    "headers longer than all": b"HMSG a SID 20 10\r\n",
    "no end of line": b"MSG " + b"a" * 100_000,
    "huge control line": b"MSG " + b"a" * 100_000 + b" SID 1\r\nx\r\n",
    "INFO that is no JSON": b"INFO {broken\r\n",
    "INFO with a wrong type": b'INFO {"max_payload": "many"}\r\n',
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_costs_the_connection_only(data: bytes, scripted: Scripted, connect: Connect) -> None:
    lost = Recorder()
    server = scripted([sends(data), good])
    client = connect(server.url, disconnected_cb=lost, **FAST)
    sub = client.subscribe("a")
    (event,) = lost.wait_for(1)
    assert type(event.error) is ProtocolError
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()
    assert sub.pending_msgs == 0
    assert len(lost) == 1


def test_what_came_before_the_garbage_is_delivered(scripted: Scripted, connect: Connect) -> None:
    server = scripted([sends(b"MSG a SID 1\r\n1\r\nMSG a SID 1\r\n2\r\nPOO\r\nMSG a SID 1\r\n3\r\n"), good])
    client = connect(server.url, **FAST)
    sub = client.subscribe("a")
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()
    assert [sub.next_msg(timeout=1.0).data for _ in range(2)] == [b"1", b"2"]
    assert sub.pending_msgs == 0


def test_without_reconnecting_garbage_is_the_end(scripted: Scripted, connect: Connect) -> None:
    closed = Recorder()
    client = connect(scripted(sends(b"POO\r\n")).url, allow_reconnect=False, closed_cb=closed)
    client.subscribe("a")
    (event,) = closed.wait_for(1)
    assert type(event.error) is ProtocolError
    assert client.is_closed


# Bytes that are


TOLERATED = {
    "small letters": b"msg a SID 2\r\nok\r\n",
    "tabs": b"MSG\ta\tSID\t2\r\nok\r\n",
    "line feeds": b"MSG a SID 2\nok\r\n",
    "OK although not verbose": b"+OK\r\nMSG a SID 2\r\nok\r\n",
    "more behind a word": b"PONG and more\r\nPING too\r\nMSG a SID 2\r\nok\r\n",
    "headers": b"HMSG a SID 12 14\r\nNATS/1.0\r\n\r\nok\r\n",
    "headers that cannot be read": b"HMSG a SID 22 24\r\nNATS/1.0\r\nno colon\r\n\r\nok\r\n",
    "unknown fields in INFO": b'INFO {"max_payload": 1048576, "headers": true, "later": [1]}\r\nMSG a SID 2\r\nok\r\n',
    "a message for nobody": b"MSG a 999999 4\r\nlost\r\nMSG a SID 2\r\nok\r\n",
}


@pytest.mark.parametrize("data", TOLERATED.values(), ids=TOLERATED)
def test_what_may_be_let_pass(data: bytes, scripted: Scripted, connect: Connect) -> None:
    client = connect(scripted(sends(data)).url, **FAST)
    sub = client.subscribe("a")
    msg = sub.next_msg(timeout=5.0 * TIME_FACTOR)
    assert msg.data == b"ok"
    assert client.stats.reconnects == 0


def test_byte_by_byte(nats_server: NatsServer, proxy: FaultProxy, connect: Connect) -> None:
    proxy.fragment = 1
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("bytes.>")
    client.subscribe("echo.bytes", cb=lambda msg: msg.respond(msg.data, headers={"size": str(len(msg.data))}))
    for size in (0, 1, 2, 77, 1000):
        client.publish(f"bytes.{size}", bytes(size), headers={"k": "v"})
        answer = client.request("echo.bytes", b"x" * size, timeout=10.0 * TIME_FACTOR)
        assert answer.data == b"x" * size
        assert answer.headers is not None
        assert answer.headers["size"] == str(size)
        msg = sub.next_msg(timeout=5.0 * TIME_FACTOR)
        assert (msg.subject, msg.data) == (f"bytes.{size}", bytes(size))
    assert client.stats.reconnects == 0


@pytest.mark.parametrize("fragment", [2, 3, 7, 100])
def test_odd_pieces(fragment: int, proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("pieces")
    client.flush()
    proxy.fragment = fragment
    for number in range(100):
        client.publish("pieces", b"%d\r\nMSG pieces 2 1\r\n" % number)
    client.flush()
    received = [sub.next_msg(timeout=5.0 * TIME_FACTOR).data for _ in range(100)]
    assert received == [b"%d\r\nMSG pieces 2 1\r\n" % number for number in range(100)]


# Cut off


@pytest.mark.parametrize("cut_at", [1, 5, 12, 15, 18, 20, 40, 63])
def test_cut_in_the_middle_of_a_message(
    cut_at: int, nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    publisher = connect(nats_server.url)
    client = connect(proxy.url, **FAST)
    sub = client.subscribe("cut.here")
    client.flush()
    proxy.cut_after(cut_at, "down")
    publisher.publish("cut.here", b"0123456789" * 5)
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()
    publisher.publish("cut.here", b"whole")
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"whole"
    assert sub.pending_msgs == 0


def steps_of_a_handshake() -> list[bytes]:
    info = b"INFO " + json.dumps(INFO).encode() + b"\r\n"
    return [b"", b"I", b"INFO", info[:20], info[:-2], info[:-1], info]


@pytest.mark.parametrize("said", steps_of_a_handshake())
@pytest.mark.parametrize("reset", [False, True])
def test_a_handshake_cut_while_the_server_speaks(
    reset: bool, said: bytes, scripted: Scripted, connect: Connect
) -> None:
    failed = Recorder()

    def cut(conn: Conn) -> None:
        conn.send(said)
        if reset:
            conn.reset()

    server = scripted([lambda conn: conn.handshake(), cut, cut, good])
    client = connect(server.url, reconnect_error_cb=failed, **FAST)
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()
    assert [type(event.error) for event in failed.wait_for(2)] == [NoServersError] * 2


@pytest.mark.parametrize("said", [b"P", b"PON", b"PONG", b"PONG\r", b"+OK\r\n", b"PING\r\n"])
def test_a_handshake_cut_before_the_pong_is_there(said: bytes, scripted: Scripted, connect: Connect) -> None:
    failed = Recorder()

    def cut(conn: Conn) -> None:
        conn.send_info()
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(said)

    client = connect(scripted([lambda conn: conn.handshake(), cut, good]).url, reconnect_error_cb=failed, **FAST)
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()
    assert [type(event.error) for event in failed.wait_for(1)] == [NoServersError]


@pytest.mark.parametrize("direction, size", [("up", 1), ("up", 50), ("up", 150), ("down", 1), ("down", 100)])
def test_a_handshake_with_a_real_server_cut_by_the_wire(
    direction: Any, size: int, proxy: FaultProxy, connect: Connect
) -> None:
    client = connect(proxy.url, **FAST)
    proxy.cut_after(size, direction)
    proxy.cut()
    eventually(lambda: proxy.accepted == 3 and client.is_connected)
    client.flush()
    assert client.stats.reconnects == 1


SILENCES: dict[str, tuple[bytes, bytes]] = {
    "from the start": (b"", b""),
    "in the middle of INFO": (b'INFO {"server_id"', b""),
    "after INFO": (b"INFO {}\r\n", b""),
    "after PING": (b"INFO {}\r\n", b"PING"),
    "but for PINGs": (b"INFO {}\r\n" + b"PING\r\n" * 10, b""),
    "in the middle of PONG": (b"INFO {}\r\nPON", b"PING"),
}


@pytest.mark.parametrize("says, reads", SILENCES.values(), ids=SILENCES)
def test_a_silent_handshake_ends_in_time(says: bytes, reads: bytes, scripted: Scripted, connect: Connect) -> None:
    failed = Recorder()

    def silent(conn: Conn) -> None:
        conn.send(says)
        if reads:
            conn.read_until(reads)
        conn.wait_eof()

    server = scripted([lambda conn: conn.handshake(), silent, good])
    client = connect(server.url, connect_timeout=0.4 * TIME_FACTOR, reconnect_error_cb=failed, **FAST)
    eventually(lambda: server.accepted >= 2)
    begin = time.monotonic()
    eventually(lambda: client.stats.reconnects == 1)
    assert time.monotonic() - begin < 2.0 * TIME_FACTOR
    assert [type(event.error) for event in failed.wait_for(1)] == [NatsTimeoutError]


def test_a_trickle_does_not_stretch_the_handshake(scripted: Scripted) -> None:
    over = threading.Event()

    def trickle(conn: Conn) -> None:
        conn.send(b"INFO ")
        while not over.wait(0.02):
            conn.send(b" ")

    server = scripted(trickle)
    begin = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        natsync.connect(server.url, connect_timeout=0.3)
    over.set()
    assert 0.3 <= time.monotonic() - begin < 0.3 + 1.5 * TIME_FACTOR


WRONG_HANDSHAKES: dict[str, bytes] = {
    "PING before INFO": b"PING\r\n",
    "PONG before INFO": b"PONG\r\n",
    "INFO without JSON": b"INFO \r\n",
    "INFO that is a list": b"INFO []\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an endless line": b"INFO " + b" " * 2_000_000,
}


@pytest.mark.parametrize("data", WRONG_HANDSHAKES.values(), ids=WRONG_HANDSHAKES)
def test_a_wrong_handshake_is_a_failed_attempt(data: bytes, scripted: Scripted, connect: Connect) -> None:
    failed = Recorder()

    def wrong(conn: Conn) -> None:
        try:
            conn.send(data)
            conn.wait_eof()
        except OSError:
            pass  # the client has heard enough

    server = scripted([lambda conn: conn.handshake(), wrong, good])
    client = connect(server.url, reconnect_error_cb=failed, **FAST)
    eventually(lambda: client.stats.reconnects == 1)
    assert [type(event.error) for event in failed.wait_for(1)] == [ProtocolError]


# Right behind the handshake


def behind_the_pong(data: bytes) -> Callable[[Conn], None]:
    def script(conn: Conn) -> None:
        conn.send_info()
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(b"PONG\r\n" + data)
        conn.serve()

    return script


def test_a_ping_right_behind_the_handshake_is_answered(scripted: Scripted, connect: Connect) -> None:
    answered = threading.Event()

    def script(conn: Conn) -> None:
        conn.send_info()
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(b"PONG\r\nPING\r\n")
        conn.expect(b"PONG")
        answered.set()
        conn.serve()

    connect(scripted(script).url, **FAST)
    assert answered.wait(5.0 * TIME_FACTOR)


def test_an_info_right_behind_the_handshake_counts(scripted: Scripted, connect: Connect) -> None:
    client = connect(scripted(behind_the_pong(b'INFO {"client_id": 99, "max_payload": 10}\r\n')).url, **FAST)
    eventually(lambda: client.client_id == 99)
    assert client.max_payload == 10


def test_garbage_right_behind_the_handshake(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted([lambda conn: conn.handshake(), behind_the_pong(b"POO\r\n"), good])
    client = connect(server.url, disconnected_cb=events, reconnect_error_cb=events, **FAST)
    eventually(lambda: server.accepted == 3 and client.is_connected)
    client.flush()
    # Whether it still belongs to the handshake depends on how the bytes come.
    assert [type(event.error) for event in events.wait_for(2)[1:]] == [ProtocolError]


# Storms


def test_a_storm_of_pongs_that_nobody_asked_for(scripted: Scripted, connect: Connect) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        conn.expect(b"PUB ready ")
        conn.read_line()
        conn.send(b"PONG\r\n" * 50_000)
        conn.serve()

    client = connect(scripted(script).url, **FAST)
    client.publish("ready")
    client.flush()
    assert client.rtt() > 0
    assert client.stats.reconnects == 0


def test_a_storm_of_pings_is_answered(scripted: Scripted, connect: Connect) -> None:
    answers: list[int] = []

    def script(conn: Conn) -> None:
        conn.handshake()
        conn.send(b"PING\r\n" * 20_000)
        answers.append(conn.read_exactly(20_000 * 6).count(b"PONG\r\n"))
        conn.serve()

    client = connect(scripted(script).url, **FAST)
    eventually(lambda: answers == [20_000], 10.0)
    client.flush()


def test_a_storm_of_infos(scripted: Scripted, connect: Connect) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        for number in range(3000):
            conn.send_info(client_id=number, connect_urls=[f"10.0.0.{number % 250}:4222"])
        conn.serve()

    discovered = Recorder()
    server = scripted(script)
    client = connect(server.url, discovered_server_cb=discovered, **FAST)
    eventually(lambda: client.client_id == 2999, 10.0)
    eventually(lambda: client.discovered_servers == ("nats://10.0.0.249:4222",), 10.0)
    client.flush()
    assert len(discovered) == 250
    assert server.accepted == 1


def test_a_flood_of_messages_for_an_ended_subscription(scripted: Scripted, connect: Connect) -> None:
    ready = threading.Event()

    def script(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB ").split()[-1]
        conn.expect(b"UNSUB ")
        conn.send(b"MSG a %b 2\r\nno\r\n" % sid * 10_000)
        ready.set()
        conn.serve()

    client = connect(scripted(script).url, **FAST)
    client.subscribe("a").unsubscribe()
    assert ready.wait(5.0 * TIME_FACTOR)
    client.flush()
    assert client.stats.dropped == 0


# max_payload that changes


def test_max_payload_follows_info(scripted: Scripted, connect: Connect) -> None:
    def script(conn: Conn) -> None:
        conn.handshake(max_payload=100)
        conn.expect_pub()
        conn.send_info(max_payload=10)
        conn.serve()

    client = connect(scripted(script).url, **FAST)
    client.publish("a", bytes(100))
    eventually(lambda: client.max_payload == 10)
    with pytest.raises(natsync.MaxPayloadError):
        client.publish("a", bytes(11))
    client.publish("a", bytes(10))
    client.flush()


def test_nothing_of_an_old_connection_is_heard_on_the_new_one(scripted: Scripted, connect: Connect) -> None:
    def half(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB ").split()[-1]
        conn.send(b"MSG a %b 100\r\nhalf" % sid)

    def whole(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB ").split()[-1].decode()
        conn.send_msg("a", sid, b"whole")
        conn.serve()

    client = connect(scripted([half, whole]).url, **FAST)
    sub = client.subscribe("a")
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"whole"
    never(lambda: sub.pending_msgs, 0.05)
    with pytest.raises((NatsTimeoutError, NatsConnectionError)):
        sub.next_msg(timeout=0.01)
