"""`natsync pub` and `natsync sub`, each with the other and with a client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from natsync import Client, Msg
    from natsync.testing import NatsServer
    from tests.cli.command import Natsync, Running


@pytest.fixture(autouse=True)
def server_is_known(natsync_command: Natsync, nats_server: NatsServer) -> None:
    natsync_command.environ["NATS_URL"] = nats_server.url


def published(natsync_command: Natsync, nats_client: Client, *words: str, stdin: bytes = b"") -> Msg:
    """Run `natsync pub` and return what it has published."""
    with nats_client.subscribe("cli.pub") as subscription:
        nats_client.flush()
        done = natsync_command("pub", "cli.pub", *words, stdin=stdin)
        msg = subscription.next_msg(timeout=5)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"Published a message of {len(msg.data)} bytes on cli.pub\n"
    return msg


def listening(natsync_command: Natsync, *words: str) -> Running:
    running = natsync_command.start("sub", *words)
    running.until("listening on")
    return running


def test_the_data_is_an_argument(natsync_command: Natsync, nats_client: Client) -> None:
    msg = published(natsync_command, nats_client, "grüß dich")
    assert (msg.data, msg.headers, msg.reply) == ("grüß dich".encode(), None, None)


@pytest.mark.parametrize("words", [(), ("-",)])
def test_the_data_comes_from_stdin_byte_for_byte(
    natsync_command: Natsync, nats_client: Client, words: tuple[str, ...]
) -> None:
    data = bytes(range(256)) + b"\n"
    assert published(natsync_command, nats_client, *words, stdin=data).data == data


def test_data_that_begins_with_a_dash(natsync_command: Natsync, nats_client: Client) -> None:
    assert published(natsync_command, nats_client, "--", "--count").data == b"--count"


def test_headers_and_a_reply_subject(natsync_command: Natsync, nats_client: Client) -> None:
    words = ["x", "-H", "Tag: a", "-H", "Tag:b:c", "--header", "Empty:", "--reply", "cli.answers"]
    msg = published(natsync_command, nats_client, *words)
    assert msg.headers is not None
    assert list(msg.headers.items()) == [("Tag", "a"), ("Tag", "b:c"), ("Empty", "")]
    assert msg.reply == "cli.answers"


def test_many_with_pauses(natsync_command: Natsync, nats_client: Client) -> None:
    with nats_client.subscribe("cli.pub") as subscription:
        nats_client.flush()
        done = natsync_command("pub", "cli.pub", "x", "--count", "3", "--sleep", "10ms")
        assert [subscription.next_msg(timeout=5).data for _ in range(3)] == [b"x"] * 3
    assert done.out == "Published 3 messages of 1 bytes on cli.pub\n"


def test_messages_are_shown_with_all_that_they_have(natsync_command: Natsync, nats_client: Client) -> None:
    running = listening(natsync_command, "cli.>", "--count", "3")
    nats_client.publish("cli.a", "grüß dich\nund mich".encode())
    nats_client.publish("cli.b", b"\xff\x1b[31m", reply="cli.answers", headers={"Tag": ["a", "b"]})
    nats_client.publish("cli.c")
    ended = running.end(None)
    assert ended.code == 0
    assert ended.out == (
        "[1] cli.a\ngrüß dich\nund mich\n\n"
        "[2] cli.b reply to cli.answers\nTag: a\nTag: b\n\n\\xff\\x1b[31m\n\n"
        "[3] cli.c\n\n"
    )
    assert ended.line == "natsync: listening on cli.>; Ctrl-C ends it"


def test_raw_is_the_data_alone(natsync_command: Natsync, nats_client: Client) -> None:
    running = listening(natsync_command, "cli.a", "--raw", "--count", "2")
    nats_client.publish("cli.a", b"\x1b[31m", headers={"Tag": "a"})
    nats_client.publish("cli.a", b"two\nlines")
    assert running.end(None).out == "\x1b[31m\ntwo\nlines\n"


def test_each_message_is_shown_at_once(natsync_command: Natsync, nats_client: Client) -> None:
    running = listening(natsync_command, "cli.a", "--raw")
    for number in range(3):
        nats_client.publish("cli.a", b"%d" % number)
        running.until(f"{number}\n")


def test_a_queue_group(natsync_command: Natsync, nats_client: Client) -> None:
    members = [listening(natsync_command, "cli.a", "--queue", "q", "--raw") for _ in range(2)]
    for number in range(100):
        nats_client.publish("cli.a", b"%d" % number)
    eventually(lambda: sum(member.out.count("\n") for member in members) >= 100)
    lines = [line for member in members for line in member.out.splitlines()]
    assert sorted(map(int, lines)) == list(range(100))


def test_the_server_goes_and_comes_back(natsync_command: Natsync, fresh_server: NatsServer) -> None:
    import natsync

    running = listening(natsync_command, "cli.a", "--raw", "--server", fresh_server.url)
    fresh_server.restart()
    running.until("connected again")
    with natsync.connect(fresh_server.url) as nc:
        nc.publish("cli.a", b"after")
    running.until("after\n")
    assert "the connection to" in running.err
    assert "is lost" in running.err


needs_terminal = pytest.mark.skipif(os.name != "posix", reason="pty is POSIX only")


@needs_terminal
def test_colours_on_a_terminal(natsync_command: Natsync, nats_client: Client) -> None:
    nats_client.subscribe("cli.ask", cb=lambda msg: msg.respond(b"\x1b[31mno"))
    nats_client.flush()
    coloured = natsync_command.on_terminal("request", "cli.ask", "x")
    assert "\x1b[1m[1] _INBOX." in coloured
    assert "\\x1b[31mno" in coloured
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in natsync_command.on_terminal("request", "cli.ask", "x", environ=plain)


@needs_terminal
def test_data_that_is_typed(natsync_command: Natsync, nats_client: Client) -> None:
    ctrl_d = b"\x04"
    with nats_client.subscribe("cli.pub") as subscription:
        nats_client.flush()
        shown = natsync_command.on_terminal("pub", "cli.pub", typed=b"one pizza\n" + ctrl_d)
        assert subscription.next_msg(timeout=5).data == b"one pizza\n"
    assert "natsync: reading the data from the terminal until Ctrl-D" in shown


@needs_terminal
def test_a_request_needs_no_data(natsync_command: Natsync, nats_client: Client) -> None:
    nats_client.subscribe("cli.ask", cb=lambda msg: msg.respond(b"%d bytes" % len(msg.data)))
    nats_client.flush()
    assert "0 bytes" in natsync_command.on_terminal("request", "cli.ask")
