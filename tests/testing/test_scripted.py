"""The server that follows a script."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.scripted import Conn, ScriptedServer, ScriptError
from tests.support.waiting import eventually
from tests.support.wire import Wire, is_refused

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_good_handshake() -> None:
    connects = []

    def script(conn: Conn) -> None:
        connects.append(conn.handshake(max_payload=99, nonce="abc", client_ip=None))
        conn.wait_eof()

    with ScriptedServer(script) as server, Wire(server.port) as wire:
        info = wire.handshake(name="me")
        assert (info["port"], info["max_payload"], info["nonce"]) == (server.port, 99, "abc")
        assert "client_ip" not in info
        assert server.url == f"nats://127.0.0.1:{server.port}"
    assert connects == server.connects == [{"verbose": False, "name": "me"}]


def test_messages_both_ways() -> None:
    published = []

    def script(conn: Conn) -> None:
        conn.handshake()
        assert conn.expect(b"SUB ") == b"SUB orders 1"
        conn.send_msg("orders", "1", b"data")
        conn.send_msg("orders", "1", b"", reply="inbox")
        published.extend([conn.expect_pub(), conn.expect_pub()])
        conn.send(b"-ERR 'enough'\r\n")

    with ScriptedServer(script) as server, Wire(server.port) as wire:
        wire.handshake()
        wire.send(b"SUB orders 1\r\n")
        assert [wire.line() for _ in range(4)] == [
            b"MSG orders 1 4\r\n",
            b"data\r\n",
            b"MSG orders 1 inbox 0\r\n",
            b"\r\n",
        ]
        wire.send(b"PUB a 5\r\nhe\r\no\r\nHPUB b reply 12 14\r\nNATS/1.0\r\n\r\nhi\r\n")
        assert wire.line() == b"-ERR 'enough'\r\n"
    assert published == [("a", b"he\r\no"), ("b", b"NATS/1.0\r\n\r\nhi")]


def test_reading_by_marker_and_by_size() -> None:
    pieces = []

    def script(conn: Conn) -> None:
        pieces.extend([conn.read_until(b"--"), conn.read_exactly(3), conn.read_line(), conn.wait_eof()])

    with ScriptedServer(script) as server, Wire(server.port) as wire:
        wire.send(b"one--two")
        wire.send(b"three\r\nfo")
        wire.send(b"ur")
    assert pieces == [b"one--", b"two", b"three", b"four"]


def test_serve_answers_pings_until_the_end() -> None:
    lines = []

    def script(conn: Conn) -> None:
        conn.handshake()
        lines.extend(conn.serve())

    with ScriptedServer(script) as server, Wire(server.port) as wire:
        wire.handshake()
        wire.ping()
        wire.send(b"SUB orders 1\r\n")
        wire.ping()
    assert lines == [b"PING", b"SUB orders 1", b"PING"]


@pytest.mark.parametrize("wait", [Conn.wait_eof, Conn.serve])
def test_waiting_for_the_end_ends_with_the_test(wait: Callable[[Conn], object]) -> None:
    with ScriptedServer(wait) as server:
        wire = Wire(server.port)
        eventually(lambda: server.accepted == 1)
    assert not server.errors
    wire.close()


def test_a_wrong_expectation_fails_the_test() -> None:
    def script(conn: Conn) -> None:
        conn.expect(b"CONNECT")

    with (
        pytest.raises(ScriptError, match=r"expected b'CONNECT', got b'PING'"),
        ScriptedServer(script) as server,
        Wire(server.port) as wire,
    ):
        wire.send(b"PING\r\n")


def test_another_message_than_expected_fails_the_test() -> None:
    with (
        pytest.raises(ScriptError, match="expected PUB or HPUB, got b'PING'"),
        ScriptedServer(Conn.expect_pub) as server,
        Wire(server.port) as wire,
    ):
        wire.send(b"PING\r\n")


def test_waiting_has_a_deadline() -> None:
    def script(conn: Conn) -> None:
        conn.timeout = 0.1
        conn.read_line()

    with (
        pytest.raises(ScriptError, match=r"waited for b'\\r\\n', got b'half'"),
        ScriptedServer(script) as server,
        Wire(server.port) as wire,
    ):
        wire.send(b"half")
        wire.line()  # the end, after the deadline


def test_an_early_end_fails_the_test() -> None:
    with (
        pytest.raises(ScriptError, match=r"got the end after b'half'"),
        ScriptedServer(Conn.read_line) as server,
        Wire(server.port) as wire,
    ):
        wire.send(b"half")


def test_close_is_an_end_and_loses_nothing() -> None:
    def script(conn: Conn) -> None:
        conn.send(b"last words\r\n")
        conn.read_line()
        conn.close()

    with ScriptedServer(script) as server, Wire(server.port) as wire:
        wire.send(b"first\r\nunread\r\n")
        assert wire.line() == b"last words\r\n"
        assert wire.line() == b""


def test_reset_is_a_reset() -> None:
    def script(conn: Conn) -> None:
        conn.read_line()
        conn.reset()

    with ScriptedServer(script) as server, Wire(server.port) as wire, pytest.raises(ConnectionResetError):
        wire.send(b"go\r\n")
        wire.line()


def test_a_reset_by_the_client_fails_a_script_that_reads() -> None:
    with (
        pytest.raises(ScriptError, match="reset"),
        ScriptedServer(Conn.read_line) as server,
        Wire(server.port) as wire,
    ):
        wire.reset()


def test_one_script_serves_every_connection() -> None:
    numbers = []

    def script(conn: Conn) -> None:
        numbers.append(conn.number)
        conn.handshake()

    with ScriptedServer(script) as server:
        for _ in range(3):
            with Wire(server.port) as wire:
                wire.handshake()
                assert wire.line() == b""
    assert numbers == [0, 1, 2]
    assert len(server.connects) == 3


def test_several_scripts_are_for_one_connection_each_and_then_no_more() -> None:
    def first(conn: Conn) -> None:
        conn.send(b"first\r\n")

    def second(conn: Conn) -> None:
        conn.send(b"second\r\n")

    with ScriptedServer([first, second]) as server:
        for expected in (b"first\r\n", b"second\r\n"):
            with Wire(server.port) as wire:
                assert wire.line() == expected
        eventually(lambda: is_refused(server.port))


def test_connections_are_served_side_by_side() -> None:
    both_here = threading.Barrier(2)

    def script(conn: Conn) -> None:
        both_here.wait(5)
        conn.send(b"hello\r\n")

    with ScriptedServer(script) as server, Wire(server.port) as one, Wire(server.port) as two:
        assert one.line() == two.line() == b"hello\r\n"


def test_the_fixture_makes_servers_and_closes_them(
    scripted: Callable[[Callable[[Conn], object]], ScriptedServer],
) -> None:
    server = scripted(Conn.handshake)
    with Wire(server.port) as wire:
        assert json.loads(json.dumps(wire.handshake()))["server_name"] == "scripted"


def test_no_thread_is_left() -> None:
    with ScriptedServer(Conn.wait_eof) as server, Wire(server.port):
        eventually(lambda: server.accepted)
        assert [thread for thread in threading.enumerate() if thread.name.startswith("test-scripted-")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-scripted-")]
