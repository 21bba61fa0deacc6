"""Headers: what one client writes and another one reads, through a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Headers, Msg
from natsync.errors import BadHeaderError, NoRespondersError
from tests.support.waiting import TIME_FACTOR, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted import Conn

PATIENCE = 5.0 * TIME_FACTOR


def there_and_back(client: Client, headers: Any, data: bytes = b"data") -> Headers | None:
    with client.subscribe("headers.there") as sub:
        client.publish("headers.there", data, headers=headers)
        msg = sub.next_msg(PATIENCE)
    assert msg.data == data
    return msg.headers


@pytest.mark.parametrize(
    "headers, items",
    [
        ({"a": "b"}, [("a", "b")]),
        ({"a": ["1", "2"]}, [("a", "1"), ("a", "2")]),
        ({"a": ("1", "2"), "b": "3"}, [("a", "1"), ("a", "2"), ("b", "3")]),
        (Headers([("z", "1"), ("a", "2")]), [("z", "1"), ("a", "2")]),
        (Headers({"Key": "1", "key": "2", "KEY": "3"}), [("Key", "1"), ("key", "2"), ("KEY", "3")]),
        ({"empty": ""}, [("empty", "")]),
        ({"colon": "a: b:c"}, [("colon", "a: b:c")]),
        ({"inner": "a  b\tc"}, [("inner", "a  b\tc")]),
        (
            {"unicode": "gr\u00fc\u00dfe \u4e16\u754c \U0001f600"},
            [("unicode", "gr\u00fc\u00dfe \u4e16\u754c \U0001f600")],
        ),
        ({"!#$%&'*+-.^_`|~09azAZ": "token"}, [("!#$%&'*+-.^_`|~09azAZ", "token")]),
        ({"long": "x" * 10_000}, [("long", "x" * 10_000)]),
        ({f"n{number}": str(number) for number in range(500)}, [(f"n{number}", str(number)) for number in range(500)]),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("data", [b"", b"data", b"\r\n\r\n"])
def test_they_arrive_in_order_and_case(nats_client: Client, headers: Any, items: Any, data: bytes) -> None:
    received = there_and_back(nats_client, headers, data)
    assert received is not None
    assert received.items() == items
    assert (received.status, received.description) == (None, None)
    for name, _ in items:
        assert received[name] == received.get(name) == received.get_all(name)[0]
        assert received.get_all(name) == [value for each, value in items if each == name]
    assert received.get("missing") is None
    assert received.get_all("missing") == []


def test_a_message_without_headers_has_none(nats_client: Client) -> None:
    assert there_and_back(nats_client, None) is None


def test_headers_without_a_value_are_no_headers_worth_mentioning(nats_client: Client) -> None:
    assert not there_and_back(nats_client, {})


def test_received_headers_can_be_changed_and_sent_on(nats_client: Client) -> None:
    headers = there_and_back(nats_client, {"a": ["1", "2"], "b": "3"})
    assert headers is not None
    headers.add("a", "4")
    headers["b"] = "5"
    headers["c"] = ["6", "7"]
    again = there_and_back(nats_client, headers)
    assert again is not None
    assert again.items() == [("a", "1"), ("a", "2"), ("a", "4"), ("b", "5"), ("c", "6"), ("c", "7")]


def test_what_a_user_does_with_headers_afterwards_changes_nothing(nats_client: Client) -> None:
    headers = Headers({"a": "before"})
    with nats_client.subscribe("headers.copy") as sub:
        nats_client.publish("headers.copy", headers=headers)
        headers["a"] = "after"
        received = sub.next_msg(PATIENCE).headers
    assert received == {"a": "before"}


@pytest.mark.parametrize(
    "headers, error",
    [
        ({"": "x"}, BadHeaderError),
        ({"a b": "x"}, BadHeaderError),
        ({"a:b": "x"}, BadHeaderError),
        ({"a\r\nb": "x"}, BadHeaderError),
        ({"\u00fc": "x"}, BadHeaderError),
        ({"a": "x\r\nInjected: y"}, BadHeaderError),
        ({"a": "x\ny"}, BadHeaderError),
        ({"a": "x\ry"}, BadHeaderError),
        ({"a": "x\0y"}, BadHeaderError),
        ({"a": "\ud800"}, BadHeaderError),
        ({"a": ["good", "bad\n"]}, BadHeaderError),
        ({"a": 1}, TypeError),
        ({"a": b"bytes"}, TypeError),
        ({"a": None}, TypeError),
        ({"a": [1]}, TypeError),
        ({1: "x"}, TypeError),
        ("text", TypeError),
        (1, TypeError),
    ],
    ids=repr,
)
def test_what_cannot_be_written_is_refused_and_nothing_is_sent(
    nats_client: Client, headers: Any, error: type[Exception]
) -> None:
    sub = nats_client.subscribe("headers.bad")
    sent = nats_client.stats.out_msgs
    for call in (
        lambda: nats_client.publish("headers.bad", headers=headers),
        lambda: nats_client.request("headers.bad", headers=headers),
        lambda: nats_client.request_future("headers.bad", headers=headers),
        lambda: nats_client.request_many("headers.bad", headers=headers),
        lambda: nats_client.publish_msg(Msg("headers.bad", headers=headers)),
    ):
        with pytest.raises(error):
            call()
    nats_client.flush()
    assert sub.pending_msgs == 0
    assert nats_client.stats.out_msgs == sent


# Status lines


def test_the_servers_word_that_nobody_listens(nats_client: Client) -> None:
    inbox = nats_client.new_inbox()
    with nats_client.subscribe(inbox) as sub:
        nats_client.publish("headers.nobody", reply=inbox)
        msg = sub.next_msg(PATIENCE)
    assert msg.data == b""
    assert msg.headers is not None
    assert msg.headers.status == 503
    assert msg.headers.items() == [("Nats-Subject", "headers.nobody")] or not msg.headers.items()
    with pytest.raises(NoRespondersError):
        nats_client.request("headers.nobody")


@pytest.mark.parametrize(
    "block, status, description, items",
    [
        (b"NATS/1.0 503\r\n\r\n", 503, None, []),
        (b"NATS/1.0 100 Idle Heartbeat\r\nA: b\r\n\r\n", 100, "Idle Heartbeat", [("A", "b")]),
        (b"NATS/1.0   404  No Messages\r\n\r\n", 404, "No Messages", []),
        (b"NATS/1.0\r\nA:b\r\nA:   c\r\n\r\n", None, None, [("A", "b"), ("A", "c")]),
    ],
)
def test_status_and_description(
    connect: Callable[..., Client],
    scripted: Callable[..., Any],
    block: bytes,
    status: int | None,
    description: str | None,
    items: list[tuple[str, str]],
) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB").split()[-1]
        conn.send(b"HMSG headers.status %s %d %d\r\n%s\r\n" % (sid, len(block), len(block), block))
        conn.serve()

    client = connect(scripted(script).url)
    headers = client.subscribe("headers.status").next_msg(PATIENCE).headers
    assert headers is not None
    assert (headers.status, headers.description, headers.items()) == (status, description, items)


def test_an_answer_with_a_status_of_a_users_own_is_an_answer(nats_client: Client) -> None:
    nats_client.subscribe(
        "headers.own", cb=lambda msg: msg.respond(b"x", headers=Headers(status=503, description="busy"))
    )
    reply = nats_client.request("headers.own")
    assert reply.headers is not None
    assert (reply.headers.status, reply.headers.description, reply.data) == (503, "busy", b"x")


def test_a_block_that_cannot_be_read_costs_the_headers_only(
    connect: Callable[..., Client], scripted: Callable[..., Any]
) -> None:
    block = b"NATS/1.0\r\nno colon\r\n\r\n"

    def script(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB").split()[-1]
        conn.send(b"HMSG headers.broken %s %d %d\r\n%sdata\r\n" % (sid, len(block), len(block) + 4, block))
        conn.serve()

    errors = Recorder()
    client = connect(scripted(script).url, error_cb=errors)
    msg = client.subscribe("headers.broken").next_msg(PATIENCE)
    assert msg.data == b"data"
    assert msg.headers is None
    (event,) = errors.wait_for(1)
    assert isinstance(event.error, BadHeaderError)
    client.flush()
    assert client.is_connected


def test_a_server_without_headers_is_not_sent_any(connect: Callable[..., Client], scripted: Callable[..., Any]) -> None:
    def script(conn: Conn) -> None:
        said = conn.handshake(headers=False)
        assert not said["headers"]
        assert not said["no_responders"]
        conn.serve()

    client = connect(scripted(script).url)
    with pytest.raises(BadHeaderError):
        client.publish("headers.none", headers={"a": "b"})
    client.publish("headers.none")
    client.flush()
