"""The handshake's state machine, fed with a server's words as the parser makes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from natsync.errors import (
    AuthorizationError,
    MaxConnectionsError,
    NatsError,
    ProtocolError,
    StaleConnectionError,
    TLSError,
)
from natsync.protocol.handshake import Handshake, HandshakeState
from natsync.protocol.parser import Parser

if TYPE_CHECKING:
    from natsync.protocol.info import ServerInfo

SERVER = "nats://127.0.0.1:4222"


def info(**fields: object) -> bytes:
    return b"INFO " + json.dumps({"server_id": "x", "proto": 1, **fields}).encode() + b"\r\n"


def connect_fields(info: ServerInfo) -> dict[str, object]:
    return {"sig": info.nonce}


def start(**options: Any) -> Handshake:
    return Handshake(connect_fields=connect_fields, server=SERVER, **options)


def state(handshake: Handshake) -> HandshakeState:
    """Return the state; read through a call, because mypy takes an attribute for unchanged."""
    return handshake.state


def say(handshake: Handshake, data: bytes) -> None:
    """Let the server say something."""
    parser = Parser()
    for operation in parser.feed(data):
        handshake.receive(operation)
    assert parser.is_idle


CONNECT = b'CONNECT {"sig":"n"}\r\nPING\r\n'


def test_plain():
    handshake = start()
    assert (handshake.state, handshake.info, handshake.data_to_send()) == (HandshakeState.AWAIT_INFO, None, b"")
    say(handshake, info(nonce="n"))
    assert state(handshake) is HandshakeState.AWAIT_PONG
    assert handshake.info is not None
    assert handshake.info.server_id == "x"
    assert handshake.data_to_send() == CONNECT
    assert handshake.data_to_send() == b""
    say(handshake, b"PONG\r\n")
    assert state(handshake) is HandshakeState.DONE
    assert handshake.data_to_send() == b""


@pytest.mark.parametrize(
    "said",
    [
        b"+OK\r\nPONG\r\n",
        b"+OK\r\n+OK\r\nPONG\r\n",
        b"PONG\r\n",
        b"PING\r\nPONG\r\n",
        b"+OK\r\nPING\r\n+OK\r\nPONG\r\n",
    ],
)
def test_what_may_come_before_pong(said: bytes):
    handshake = start()
    say(handshake, info(nonce="n"))
    handshake.data_to_send()
    say(handshake, said)
    assert state(handshake) is HandshakeState.DONE
    assert handshake.data_to_send() == b"PONG\r\n" * said.count(b"PING")


def test_ping_in_the_same_read_as_info_is_answered_after_connect():
    handshake = start()
    say(handshake, info(nonce="n") + b"PING\r\n")
    assert handshake.data_to_send() == CONNECT + b"PONG\r\n"


def test_a_later_info_replaces_the_first():
    handshake = start()
    say(handshake, info(nonce="n") + info(server_id="y", tls_required=True) + b"PONG\r\n")
    assert handshake.info is not None
    assert handshake.info.server_id == "y"
    assert state(handshake) is HandshakeState.DONE


@pytest.mark.parametrize("want_tls", [False, True])
@pytest.mark.parametrize("offer", [{"tls_required": True}, {"tls_required": True, "tls_available": True}])
def test_tls_required(want_tls: bool, offer: dict[str, bool]):
    handshake = start(want_tls=want_tls)
    say(handshake, info(nonce="n", **offer))
    assert state(handshake) is HandshakeState.NEED_TLS
    assert handshake.data_to_send() == b""
    handshake.tls_started()
    assert state(handshake) is HandshakeState.AWAIT_PONG
    assert handshake.data_to_send() == CONNECT
    say(handshake, b"PONG\r\n")
    assert state(handshake) is HandshakeState.DONE


def test_tls_available_is_used_only_if_wanted():
    for want_tls, expected in ((True, HandshakeState.NEED_TLS), (False, HandshakeState.AWAIT_PONG)):
        handshake = start(want_tls=want_tls)
        say(handshake, info(tls_available=True))
        assert state(handshake) is expected


def test_tls_wanted_but_not_offered():
    with pytest.raises(TLSError, match="offers none") as caught:
        say(start(want_tls=True), info())
    assert caught.value.server == SERVER


@pytest.mark.parametrize("offer", [{}, {"tls_required": True}, {"tls_available": True}])
def test_tls_before_info(offer: dict[str, bool]):
    handshake = start(want_tls=True, tls_done=True)
    say(handshake, info(nonce="n", **offer))
    assert state(handshake) is HandshakeState.AWAIT_PONG
    assert handshake.data_to_send() == CONNECT


@pytest.mark.parametrize("said", [b"PONG\r\n", b"PING\r\n", b"+OK\r\n", b"INFO {}\r\n", b"MSG a 1 0\r\n\r\n"])
def test_nothing_may_be_said_between_info_and_tls(said: bytes):
    """Plain bytes there could be an attacker's, to be taken for the server's encrypted words."""
    handshake = start()
    say(handshake, info(tls_required=True))
    with pytest.raises(ProtocolError, match="need TLS"):
        say(handshake, said)


def test_tls_started_out_of_order():
    handshake = start()
    with pytest.raises(ProtocolError):
        handshake.tls_started()
    say(handshake, info())
    with pytest.raises(ProtocolError):
        handshake.tls_started()


@pytest.mark.parametrize(
    "said, text",
    [(b"PONG\r\n", "PONG"), (b"PING\r\n", "PING"), (b"+OK\r\n", "OK"), (b"MSG a 1 0\r\n\r\n", "a message")],
)
def test_info_comes_first(said: bytes, text: str):
    with pytest.raises(ProtocolError, match=f"sent {text} in the state 'await INFO'"):
        say(start(), said)


def test_no_message_before_pong():
    handshake = start()
    with pytest.raises(ProtocolError, match="a message"):
        say(handshake, info() + b"MSG a 1 0\r\n\r\nPONG\r\n")
    assert state(handshake) is HandshakeState.AWAIT_PONG


def test_done_takes_no_more():
    handshake = start()
    say(handshake, info() + b"PONG\r\n")
    with pytest.raises(ProtocolError, match="done"):
        say(handshake, b"PING\r\n")


@pytest.mark.parametrize("before", [b"", info(), info(tls_required=True), info() + b"+OK\r\n"])
@pytest.mark.parametrize(
    "text, kind",
    [
        (b"'Authorization Violation'", AuthorizationError),
        (b"'maximum connections exceeded'", MaxConnectionsError),
        (b"'Stale Connection'", StaleConnectionError),
    ],
)
def test_err_is_raised_typed(before: bytes, text: bytes, kind: type[NatsError]):
    with pytest.raises(kind) as caught:
        say(start(), before + b"-ERR " + text + b"\r\n")
    assert caught.value.__dict__["server"] == SERVER


@pytest.mark.parametrize("said", [b"INFO []\r\n", b'INFO {"port":"x"}\r\n', info() + b"INFO {\r\n"])
def test_bad_info(said: bytes):
    with pytest.raises(ProtocolError):
        say(start(), said)


def test_no_echo_needs_protocol_1():
    with pytest.raises(ProtocolError, match="no_echo"):
        say(start(no_echo=True), info(proto=0, version="1.0.0"))
    for options, proto in (({"no_echo": True}, 1), ({"no_echo": False}, 0)):
        handshake = start(**options)
        say(handshake, info(proto=proto))
        assert state(handshake) is HandshakeState.AWAIT_PONG


@pytest.mark.parametrize("tls", [False, True])
def test_what_connect_fields_raises_comes_out(tls: bool):
    def fail(info: ServerInfo) -> dict[str, object]:
        raise LookupError("no credentials")

    handshake = Handshake(connect_fields=fail)
    if tls:
        say(handshake, info(tls_required=True))
        with pytest.raises(LookupError):
            handshake.tls_started()
    else:
        with pytest.raises(LookupError):
            say(handshake, info())
    assert handshake.data_to_send() == b""
    assert state(handshake) is not HandshakeState.AWAIT_PONG
