"""Servers that misbehave before, in and after the TLS handshake."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from natsync import NatsConnectionError, NatsError, NatsTimeoutError, ProtocolError, TLSError
from tests.support.certificates import Authority, server_context, start_tls
from tests.support.scripted import ScriptError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

pytestmark = pytest.mark.tls

FAST: dict[str, Any] = {"reconnect_time_wait": 0.05, "reconnect_jitter_tls": 0.0, "reconnect_jitter": 0.0}

# Records of TLS, by hand. Type, version, length; then an alert's level and reason, or a ServerHello.
CLIENT_HELLO = b"\x16\x03"
ALERT_PROTOCOL_VERSION = b"\x15\x03\x01\x00\x02\x02\x46"
ALERT_HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"
ALERT_UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"
_HELLO_1_1 = b"\x03\x02" + bytes(range(32)) + b"\x00" + b"\xc0\x13" + b"\x00"
SERVER_HELLO_1_1 = b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26" + _HELLO_1_1


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    return server_context(authority.server())


def go_on(conn: Conn) -> None:
    """Play the server's part of what follows TLS."""
    conn.expect(b"CONNECT ")
    conn.expect(b"PING")
    conn.send(b"PONG\r\n")


def greet(conn: Conn, context: ssl.SSLContext) -> None:
    conn.send_info(tls_required=True)
    start_tls(conn, context)
    go_on(conn)


def sid_of(conn: Conn) -> str:
    """Read the subscription to `a`, and return its number."""
    return conn.expect(b"SUB a ").split()[-1].decode()


def good(context: ssl.SSLContext) -> Callable[[Conn], None]:
    def script(conn: Conn) -> None:
        greet(conn, context)
        conn.serve()

    return script


# In the handshake


def breaks_off(conn: Conn) -> None:
    conn.send_info(tls_required=True)
    conn.read_exactly(5)


def breaks_off_at_once(conn: Conn) -> None:
    conn.send_info(tls_required=True)


def resets(conn: Conn) -> None:
    breaks_off(conn)
    conn.reset()


def breaks_off_in_the_answer(conn: Conn) -> None:
    breaks_off(conn)
    conn.send(SERVER_HELLO_1_1[:20])


def answers(data: bytes) -> Callable[[Conn], None]:
    def script(conn: Conn) -> None:
        breaks_off(conn)
        conn.send(data)
        conn.wait_eof()

    return script


@pytest.mark.parametrize(
    "script, word",
    [
        (breaks_off, "closed"),
        (breaks_off_at_once, "closed"),
        (breaks_off_in_the_answer, "closed"),
        (resets, ""),
        (answers(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), ""),
        (answers(b"-ERR 'Secure Connection - TLS Required'\r\n"), ""),
        (answers(bytes(4000)), ""),
        (answers(b"\x16\x03\x03\xff\xff" + bytes(70000)), ""),
        (answers(b"\x16\x03\x03\x00\x10\x63" + bytes(15)), ""),
        (answers(SERVER_HELLO_1_1), "version"),
        (answers(ALERT_PROTOCOL_VERSION), "version"),
        (answers(ALERT_HANDSHAKE_FAILURE), ""),
        (answers(ALERT_UNRECOGNIZED_NAME), ""),
    ],
    ids=[
        *("close", "close-at-once", "close-in-the-answer", "reset", "http", "nats-error", "zeros", "too-long-a-record"),
        *("no-such-handshake", "server-of-1.1", "alert-version", "alert-failure", "alert-name"),
    ],
)
def test_a_handshake_that_fails(
    script: Callable[[Conn], None], word: str, authority: Authority, connect: Connect, scripted: Scripted
) -> None:
    server = scripted(script)
    with pytest.raises(TLSError) as caught:
        connect(server.url, tls_ca=authority.file)
    assert word in str(caught.value)
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.connects == []


@pytest.mark.parametrize("script", [breaks_off, resets], ids=["close", "reset"])
def test_a_handshake_that_fails_at_a_reconnect_is_tried_again(
    script: Callable[[Conn], None],
    authority: Authority,
    context: ssl.SSLContext,
    connect: Connect,
    scripted: Scripted,
) -> None:
    failed = Recorder()
    server = scripted([lambda conn: greet(conn, context), script, script, good(context)])
    client = connect(server.url, tls_ca=authority.file, reconnect_error_cb=failed, **FAST)
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()
    assert [type(event.error) for event in failed.items] == [TLSError, TLSError]


def silent(conn: Conn) -> None:
    conn.send_info(tls_required=True)
    conn.wait_eof()


def silent_in_the_answer(conn: Conn) -> None:
    breaks_off(conn)
    conn.send(SERVER_HELLO_1_1[:20])
    conn.wait_eof()


def slow(conn: Conn) -> None:
    """Each step in time, all of them together not."""
    gap = threading.Event()
    gap.wait(0.2)
    conn.send_info(tls_required=True)
    with contextlib.suppress(ScriptError, OSError):
        for byte in SERVER_HELLO_1_1[:40]:
            gap.wait(0.1)
            conn.send(bytes([byte]))
    conn.wait_eof()


@pytest.mark.parametrize("script", [silent, silent_in_the_answer, slow])
def test_silence_ends_with_connect_timeout(
    script: Callable[[Conn], None], authority: Authority, connect: Connect, scripted: Scripted
) -> None:
    server = scripted(script)
    begin = time.monotonic()
    with pytest.raises(NatsTimeoutError) as caught:
        connect(server.url, tls_ca=authority.file, connect_timeout=0.5)
    assert 0.5 <= time.monotonic() - begin <= 0.5 + 2.0 * TIME_FACTOR
    assert caught.value.timeout == 0.5
    assert server.url in str(caught.value)
    assert "TLS" in str(caught.value)


def test_silence_after_the_handshake(
    authority: Authority, context: ssl.SSLContext, connect: Connect, scripted: Scripted
) -> None:
    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True)
        start_tls(conn, context)
        conn.wait_eof()

    begin = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        connect(scripted(script).url, tls_ca=authority.file, connect_timeout=0.5)
    assert 0.5 <= time.monotonic() - begin <= 0.5 + 2.0 * TIME_FACTOR


@pytest.mark.parametrize("at", ["in the handshake", "after the handshake"])
@pytest.mark.parametrize("first", [False, True], ids=["after INFO", "handshake first"])
def test_close_ends_an_attempt_at_once(
    at: str, first: bool, authority: Authority, context: ssl.SSLContext, connect: Connect, scripted: Scripted
) -> None:
    reached = Recorder()

    def begin(conn: Conn) -> None:
        if not first:
            conn.send_info(tls_required=True)

    def ends(conn: Conn) -> None:
        begin(conn)
        start_tls(conn, context)
        if first:
            conn.send_info(tls_required=True)
        go_on(conn)

    def hangs(conn: Conn) -> None:
        begin(conn)
        if at == "after the handshake":
            start_tls(conn, context)
        else:
            conn.read_exactly(5)
        reached("reached")
        conn.wait_eof()

    client = connect(
        scripted([ends, hangs]).url,
        tls_ca=authority.file,
        tls_handshake_first=first,
        connect_timeout=20.0 * TIME_FACTOR,
        **FAST,
    )
    reached.wait_for(1)
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 2.0 * TIME_FACTOR


# Smuggling: what comes before TLS must not count as if it had come through it


@pytest.mark.parametrize(
    "smuggled",
    [
        b"PING\r\n",
        b"PONG\r\n",
        b"+OK\r\n",
        b'INFO {"connect_urls":["10.0.0.66:4222"]}\r\n',
        b"MSG a 1 5\r\nfalse\r\n",
        b"PI",
        b" ",
        b"\r\n",
    ],
)
def test_smuggled_bytes(
    smuggled: bytes, authority: Authority, context: ssl.SSLContext, connect: Connect, scripted: Scripted
) -> None:
    heard = Recorder()

    def script(conn: Conn) -> None:
        conn.send(b'INFO {"server_id":"X","version":"2.11.0","proto":1,"tls_required":true}\r\n' + smuggled)
        try:
            start_tls(conn, context)
        except (OSError, ssl.SSLError):
            heard(b"")
        else:
            heard(conn.wait_eof())  # TLS was begun; now nothing may be said in it

    with pytest.raises((ProtocolError, TLSError)):
        connect(scripted(script).url, tls_ca=authority.file)
    assert heard.wait_for(1) == [b""]


@pytest.mark.parametrize("smuggled", [b"PING\r\n", b"MSG a 1 5\r\nfalse\r\n"])
def test_smuggled_bytes_that_come_later(
    smuggled: bytes, authority: Authority, context: ssl.SSLContext, connect: Connect, scripted: Scripted
) -> None:
    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True)
        conn.read_exactly(5)  # the ClientHello has begun
        conn.send(smuggled)
        conn.wait_eof()

    server = scripted(script)
    with pytest.raises((ProtocolError, TLSError)):
        connect(server.url, tls_ca=authority.file)
    assert server.connects == []


def test_a_second_info_in_plain_does_not_undo_tls(
    authority: Authority, context: ssl.SSLContext, connect: Connect, scripted: Scripted
) -> None:
    """What INFO said in plain is no promise; INFO through TLS may replace it."""

    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True, max_payload=10, server_name="plain")
        start_tls(conn, context)
        conn.expect(b"CONNECT ")
        conn.send_info(tls_required=True, max_payload=1000, server_name="encrypted")
        conn.expect(b"PING")
        conn.send(b"PONG\r\n")
        conn.serve()

    client = connect(scripted(script).url, tls_ca=authority.file)
    client.flush()
    assert client.max_payload == 1000
    assert client.server_info is not None
    assert client.server_info.server_name == "encrypted"


# After the handshake


def ends_in_good_order(conn: Conn, raw: socket.socket) -> None:
    encrypted = conn._socket
    assert isinstance(encrypted, ssl.SSLSocket)
    with contextlib.suppress(OSError, ssl.SSLError):
        encrypted.unwrap()  # close_notify


def ends_without_a_word(conn: Conn, raw: socket.socket) -> None:
    raw.shutdown(socket.SHUT_WR)


def breaks(conn: Conn, raw: socket.socket) -> None:
    conn.reset()


def sends_garbage(conn: Conn, raw: socket.socket) -> None:
    raw.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))


def sends_plain_text(conn: Conn, raw: socket.socket) -> None:
    raw.sendall(b"PING\r\nMSG a 1 5\r\nfalse\r\n")


def sends_half_a_record(conn: Conn, raw: socket.socket) -> None:
    raw.sendall(b"\x17\x03\x03\x40\x00" + bytes(100))
    raw.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "fault",
    [ends_in_good_order, ends_without_a_word, breaks, sends_garbage, sends_plain_text, sends_half_a_record],
)
def test_a_connection_that_breaks_is_made_anew(
    fault: Callable[[Conn, socket.socket], None],
    authority: Authority,
    context: ssl.SSLContext,
    connect: Connect,
    scripted: Scripted,
) -> None:
    lost, found, received = Recorder(), Recorder(), Recorder()
    release = threading.Event()

    def faulty(conn: Conn) -> None:
        with conn._socket.dup() as raw:
            greet(conn, context)
            conn.send_msg("a", sid_of(conn), b"before")
            release.wait(5.0 * TIME_FACTOR)
            fault(conn, raw)
            with contextlib.suppress(ScriptError, OSError):
                conn.wait_eof()

    def fine(conn: Conn) -> None:
        greet(conn, context)
        conn.send_msg("a", sid_of(conn), b"after")
        conn.serve()

    client = connect(
        scripted([faulty, fine]).url, tls_ca=authority.file, disconnected_cb=lost, reconnected_cb=found, **FAST
    )
    client.subscribe("a", cb=received)
    received.wait_for(1)
    release.set()
    found.wait_for(1)
    received.wait_for(2)
    assert [msg.data for msg in received.items] == [b"before", b"after"]
    (event,) = lost.items
    assert isinstance(event.error, NatsConnectionError)
    assert "\n" not in str(event.error)
    client.flush()


def test_a_message_that_comes_at_once_behind_the_pong(
    authority: Authority, context: ssl.SSLContext, connect: Connect, scripted: Scripted
) -> None:
    """What the handshake has read too much, and what OpenSSL still holds then, belongs to the reader."""

    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True)
        start_tls(conn, context)
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(b"PONG\r\n" + b"MSG a 1 4\r\nearl\r\n" * 500 + b"PING\r\n")
        conn.expect(b"PONG")
        conn.serve()

    client = connect(scripted(script).url, tls_ca=authority.file)
    client.flush()
    assert client.stats.reconnects == 0


@pytest.mark.parametrize("size", [1, 100, 16384, 100_000])
def test_many_messages_in_a_record_and_many_records_for_a_message(
    size: int, authority: Authority, context: ssl.SSLContext, connect: Connect, scripted: Scripted
) -> None:
    """After the last write nothing more comes: what is decrypted already must not wait for the socket."""
    received = Recorder()
    count = 2000 if size < 10_000 else 50

    def script(conn: Conn) -> None:
        greet(conn, context)
        one = f"MSG a {sid_of(conn)} {size}\r\n".encode() + bytes(size) + b"\r\n"
        conn.send(one * count)
        conn.serve()

    client = connect(scripted(script).url, tls_ca=authority.file)
    client.subscribe("a", cb=lambda msg: received(len(msg.data)))
    received.wait_for(count)
    assert received.items == [size] * count


def test_an_error_of_the_server_in_the_encrypted_handshake(
    authority: Authority, context: ssl.SSLContext, connect: Connect, scripted: Scripted
) -> None:
    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True)
        start_tls(conn, context)
        conn.expect(b"CONNECT ")
        conn.send(b"-ERR 'Authorization Violation'\r\n")

    with pytest.raises(NatsError, match=r"(?i)authorization") as caught:
        connect(scripted(script).url, tls_ca=authority.file)
    assert type(caught.value).__name__ == "AuthorizationError"
