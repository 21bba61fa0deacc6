"""`natsync request` and `natsync reply`, each with the other and with a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from natsync import Client
    from natsync.testing import NatsServer
    from tests.cli.command import Natsync, Running


@pytest.fixture(autouse=True)
def server_is_known(natsync_command: Natsync, nats_server: NatsServer) -> None:
    natsync_command.environ["NATS_URL"] = nats_server.url


def answering(natsync_command: Natsync, *words: str) -> Running:
    running = natsync_command.start("reply", "cli.ask", *words)
    running.until("answering requests on")
    return running


def test_both_together(natsync_command: Natsync) -> None:
    running = answering(natsync_command, "an answer", "--count", "1", "-H", "Tag:a")
    done = natsync_command("request", "cli.ask", "a question", "-H", "Name:b")
    subject, *rest = done.out.splitlines()
    assert subject.startswith("[1] _INBOX.")
    assert rest == ["Tag: a", "", "an answer", ""]
    assert "natsync: a reply after" in done.line
    ended = running.end(None)
    assert ended.code == 0
    assert ended.out.startswith("[1] cli.ask reply to _INBOX.")
    assert ended.out.endswith("\nName: b\n\na question\n\n")


def test_raw_is_the_data_alone(natsync_command: Natsync) -> None:
    running = answering(natsync_command, "--echo", "--raw", "--count", "1")
    done = natsync_command("request", "cli.ask", "--raw", stdin=b"\x00\xc3\xa9")
    assert (done.code, done.out, done.err) == (0, "\x00é\n", "")
    assert running.end(None).out == "\x00é\n"


def test_many_replies(natsync_command: Natsync, nats_client: Client) -> None:
    for _ in range(3):
        nats_client.subscribe("cli.ask", cb=lambda msg: msg.respond(b"here"))
    nats_client.flush()
    assert natsync_command("request", "cli.ask", "--replies", "2", "--raw").out == "here\n" * 2
    # Nobody knows whether more will come: the time-out ends it, and is no failure.
    done = natsync_command("request", "cli.ask", "--replies", "9", "--raw", "--timeout", "300ms")
    assert (done.code, done.out) == (0, "here\n" * 3)


def test_requests_share_a_queue_group(natsync_command: Natsync, nats_client: Client) -> None:
    members = [answering(natsync_command, "--echo", "--queue", "q", "--raw") for _ in range(2)]
    assert {nats_client.request("cli.ask", b"%d" % n, timeout=5).data for n in range(20)} == {
        b"%d" % n for n in range(20)
    }
    lines = [line for member in members for line in member.end().out.splitlines()]
    assert sorted(map(int, lines)) == list(range(20))


def test_a_message_that_is_no_request(natsync_command: Natsync, nats_client: Client) -> None:
    running = answering(natsync_command, "x", "--count", "2", "--raw")
    nats_client.publish("cli.ask", b"no request")
    assert nats_client.request("cli.ask", b"one", timeout=5).data == b"x"
    ended = running.end(None)
    assert (ended.code, ended.out) == (0, "no request\none\n")


def test_nobody_listens(natsync_command: Natsync) -> None:
    assert natsync_command("request", "cli.nobody", "x").failed() == (
        "natsync: nobody listens on 'cli.nobody'; check the subject, and start whoever answers on it"
    )


def test_somebody_listens_and_says_nothing(natsync_command: Natsync, nats_client: Client) -> None:
    with nats_client.subscribe("cli.silent"):
        nats_client.flush()
        line = natsync_command("request", "cli.silent", "x", "--timeout", "0.2").failed()
    assert line == "natsync: somebody listens on 'cli.silent', but no reply came in time; --timeout gives more"
