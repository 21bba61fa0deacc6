"""How commands end: by Ctrl-C, by SIGTERM, and when nobody reads their output any more."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from natsync import Client
    from natsync.testing import NatsServer
    from tests.cli.command import Natsync

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are sent to processes")


@pytest.fixture(autouse=True)
def server_is_known(natsync_command: Natsync, nats_server: NatsServer) -> None:
    natsync_command.environ["NATS_URL"] = nats_server.url


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [("sub", "cli.a"), ("reply", "cli.a", "x")], ids=lambda words: words[0])
def test_what_runs_until_it_is_told_to_end_ends_well(
    natsync_command: Natsync, words: tuple[str, ...], number: signal.Signals
) -> None:
    running = natsync_command.start(*words)
    running.until("Ctrl-C ends it")
    ended = running.end(number)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [("pub", "cli.a", "x", "--count", "1000", "--sleep", "1s"), ("request", "cli.silent", "x")]
)
def test_what_is_interrupted_before_its_end_says_so_by_its_status(
    natsync_command: Natsync, nats_client: Client, words: tuple[str, ...]
) -> None:
    with nats_client.subscribe(words[1]) as subscription:
        nats_client.flush()
        running = natsync_command.start(*words, "--timeout", "30s")
        subscription.next_msg(timeout=20)
        ended = running.end()
    assert (ended.code, ended.out, ended.err) == (130, "", "")


def test_requests_that_are_there_are_answered_before_the_end(natsync_command: Natsync, nats_client: Client) -> None:
    running = natsync_command.start("reply", "cli.ask", "--echo", "--raw")
    running.until("answering")
    futures = [nats_client.request_future("cli.ask", b"%d" % n, timeout=20) for n in range(500)]
    nats_client.flush()
    ended = running.end(signal.SIGTERM)
    assert [future.result(20).data for future in futures] == [b"%d" % n for n in range(500)]
    assert (ended.code, ended.out.count("\n")) == (0, 500)


def test_nobody_reads_the_output_any_more(natsync_command: Natsync, nats_client: Client) -> None:
    running = subprocess.Popen(
        [
            "bash",
            "-c",
            'set -o pipefail; "$0" -m natsync sub cli.a --raw | head -n 1',
            *natsync_command._command(())[:1],
        ],
        env=natsync_command.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def publish() -> bool:
        nats_client.publish("cli.a", b"line")
        return running.poll() is not None

    try:
        eventually(publish, 20.0)
        out, err = running.communicate()
    finally:
        running.kill()
    assert (running.returncode, out) == (141, "line\n")
    assert err == "natsync: listening on cli.a; Ctrl-C ends it\n"
