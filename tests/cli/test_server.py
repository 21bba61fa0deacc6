"""`natsync server`: the real server, in the place of the command."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

import natsync
from natsync.testing.binary import find_server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.command import Natsync, Running


def url_of(running: Running) -> str:
    running.until("Server is ready")
    found = re.search(r"Listening for client connections on (127\.0\.0\.1:\d+)", running.err)
    assert found is not None, running.err
    return f"nats://{found[1]}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_told_to_end(natsync_command: Natsync, number: signal.Signals) -> None:
    running = natsync_command.start("server", "--port", "-1")
    with natsync.connect(url_of(running)) as nc:
        assert nc.rtt() > 0
    assert running.err.startswith(f"natsync: starting {find_server()}; Ctrl-C ends it\n")
    if os.name == "posix":
        ended = running.end(number)
        assert "Server Exiting" in ended.err
        assert "Traceback" not in ended.err


def test_jetstream_and_arguments_of_its_own(natsync_command: Natsync, tmp_path: Path) -> None:
    store = tmp_path / "store"
    words = ["server", "--port", "-1", "--store-dir", str(store), "--", "--server_name", "paris"]
    running = natsync_command.start(*words)
    with natsync.connect(url_of(running)) as nc:
        assert nc.server_info is not None
        assert (nc.server_info.jetstream, nc.server_info.server_name) == (True, "paris")
    assert store.is_dir()


def test_a_port_that_is_taken(natsync_command: Natsync) -> None:
    running = natsync_command.start("server", "--port", "-1")
    port = url_of(running).rpartition(":")[2]
    second = natsync_command.start("server", "--port", port).end(None)
    assert second.code == 1
    assert "address already in use" in second.err


def test_there_is_no_server(natsync_command: Natsync) -> None:
    line = natsync_command("server", environ={"NATS_SERVER_BIN": "/no/such/nats-server"}).failed()
    assert "/no/such/nats-server" in line
