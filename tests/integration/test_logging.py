"""What a client logs: nothing that anybody sees without asking, and the right level for each matter."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from natsync.testing import NatsServer
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client

    Connect = Callable[..., Client]

QUICK = {"reconnect_time_wait": 0.02, "reconnect_jitter": 0.0}
OUTAGE = """
import natsync
from natsync.testing import NatsServer

with NatsServer() as server:
    back = natsync.connect(server.url, reconnect_time_wait=0.05)
    lost = natsync.connect(server.url, allow_reconnect=False)
    server.kill()
    lost.wait_closed(10)
    server.start()
    back.flush()
    back.publish("x" * 5)
    back.close()
"""
CRASH = """
import sys, threading, natsync

with natsync.connect(sys.argv[1], **({"error_cb": lambda event: None} if len(sys.argv) > 2 else {})) as nc:
    nc.subscribe("logging.crash", cb=lambda msg: 1 // 0)
    nc.publish("logging.crash")
"""


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[str]]:
    """Return what has been logged at a level, each as `logger: message`."""
    caplog.set_level(logging.DEBUG, "natsync")

    def at(level: int) -> list[str]:
        records = [record for record in caplog.records if record.name.split(".")[0] == "natsync"]
        return [f"{record.name}: {record.getMessage()}" for record in records if record.levelno == level]

    return at


def run(script: str, *args: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=30 * TIME_FACTOR, check=True
    )
    return done.stdout, done.stderr


def test_nothing_is_printed_by_default() -> None:
    assert run(OUTAGE) == ("", "")


def test_only_a_crash_that_nobody_else_would_tell_of_is_printed(nats_server: NatsServer) -> None:
    out, err = run(CRASH, nats_server.url)
    assert out == ""
    assert err.startswith("Traceback")
    assert err.rstrip().endswith("ZeroDivisionError: integer division or modulo by zero")
    assert run(CRASH, nats_server.url, "with error_cb") == ("", "")


def test_an_outage(connect: Connect, fresh_server: NatsServer, logged: Callable[[int], list[str]]) -> None:
    client = connect(fresh_server.url, **QUICK)
    assert eventually(lambda: logged(logging.DEBUG)) == [f"natsync.events: Connected {fresh_server.url}"]
    fresh_server.kill()
    (lost,) = eventually(lambda: logged(logging.WARNING))
    assert lost.startswith(f"natsync.events: Disconnected {fresh_server.url}: ")
    failed = eventually(lambda: logged(logging.INFO))[0]
    assert failed.startswith(f"natsync.events: ReconnectFailed {fresh_server.url}: ")
    fresh_server.start()
    client.flush()
    eventually(lambda: logged(logging.INFO)[-1] == f"natsync.events: Reconnected {fresh_server.url}")
    assert len(logged(logging.WARNING)) == 1
    assert logged(logging.ERROR) == []


def test_an_orderly_life_is_no_news(
    connect: Connect, nats_server: NatsServer, logged: Callable[[int], list[str]]
) -> None:
    connect(nats_server.url).close()
    assert [line.split()[1] for line in logged(logging.DEBUG)] == ["Connected", "Disconnected", "Closed"]
    assert [logged(level) for level in (logging.INFO, logging.WARNING, logging.ERROR)] == [[], [], []]


def test_a_client_that_gives_up(connect: Connect, fresh_server: NatsServer, logged: Callable[[int], list[str]]) -> None:
    client = connect(fresh_server.url, max_reconnect_attempts=1, **QUICK)
    fresh_server.kill()
    assert client.wait_closed(10 * TIME_FACTOR)
    (line,) = eventually(lambda: logged(logging.ERROR))
    assert line.startswith("natsync.events: Closed: ")
    assert "attempts are used up" in line


def test_callbacks_that_raise(
    connect: Connect,
    nats_server: NatsServer,
    logged: Callable[[int], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = connect(nats_server.url, connected_cb=lambda event: 1 // 0, error_cb=lambda event: None)
    client.subscribe("logging.crash", cb=lambda msg: 1 // 0)
    client.publish("logging.crash")
    eventually(lambda: len(logged(logging.ERROR)) == 2)
    assert sorted(logged(logging.ERROR)) == [
        "natsync.dispatcher: the callback of 'logging.crash' raised an exception",
        "natsync.events: the callback for Connected raised an exception",
    ]
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True] * 2
    assert logged(logging.WARNING) == []


def test_what_the_server_refuses(connect: Connect, logged: Callable[[int], list[str]]) -> None:
    config = 'authorization { users: [ { user: joe, password: x, permissions: { publish: "open" } } ] }'
    with NatsServer(config) as server:
        client = connect(server.url, user="joe", password="x")
        client.publish("secret")
        client.flush()
        (line,) = eventually(lambda: logged(logging.WARNING))
        client.close()
    assert line.startswith("natsync.events: AsyncError")
    assert 'Permissions Violation for Publish to "secret"' in line
