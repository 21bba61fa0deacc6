"""`natsync rtt` and `natsync bench`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from natsync.testing import NatsServer

if TYPE_CHECKING:
    from tests.cli.command import Natsync


@pytest.fixture(autouse=True)
def server_is_known(natsync_command: Natsync, nats_server: NatsServer) -> None:
    natsync_command.environ["NATS_URL"] = nats_server.url


def test_the_round_trip_time(natsync_command: Natsync, nats_server: NatsServer) -> None:
    done = natsync_command("rtt", "--count", "3")
    assert (done.code, done.err) == (0, "")
    where, connect, *times, summary = done.out.splitlines()
    assert where == f"{nats_server.url}, nats-server {nats_server.varz()['version']}"
    assert re.fullmatch(r"connect [\d.]+ ms", connect)
    fastest, _, slowest = sorted(float(each.removeprefix("rtt ").removesuffix(" ms")) for each in times)
    assert f"fastest {fastest:.3f} ms" in summary
    assert f"slowest {slowest:.3f} ms" in summary


def test_the_name_of_a_server_that_has_one(natsync_command: Natsync) -> None:
    with NatsServer("server_name: paris") as server:
        assert natsync_command("rtt", "-s", server.url).out.splitlines()[0].endswith(", paris")


def test_the_benchmark(natsync_command: Natsync) -> None:
    done = natsync_command("bench", "--msgs", "5000", "--size", "100")
    assert (done.code, done.err) == (0, "")
    number = r"[\d,]+(?:\.\d+)?"
    pub, sub, request = done.out.splitlines()
    rates = rf" of 100 bytes in {number} s, {number}/s, {number} MB/s"
    assert re.fullmatch("pub: 5,000" + rates, pub)
    assert re.fullmatch("sub: 5,000" + rates, sub)
    assert re.fullmatch(rf"request: 500{rates}, median {number} ms, 99 % below {number} ms", request)


def test_a_part_of_the_benchmark(natsync_command: Natsync) -> None:
    done = natsync_command("bench", "request", "--msgs", "10", "--subject", "cli.bench")
    assert done.out.startswith("request: 1 of 16 bytes")
    assert done.out.count("\n") == 1
    assert natsync_command("bench", "everything").failed() == "natsync: bench knows pub, sub, request, not 'everything'"


def test_a_benchmark_that_may_not_publish(natsync_command: Natsync) -> None:
    config = 'authorization { users: [ { user: joe, password: x, permissions: { publish: "a" } } ] }'
    with NatsServer(config) as server:
        words = ["bench", "pub", "--msgs", "1", "--subject", "b", "-s", server.url, "--user", "joe", "--password", "x"]
        assert 'Permissions Violation for Publish to "b"' in natsync_command(*words).failed()


@pytest.mark.skipif(os.name != "posix", reason="pty is POSIX only")
def test_a_bar_on_a_terminal(natsync_command: Natsync) -> None:
    shown = natsync_command.on_terminal("bench", "pub", "--msgs", "200000")
    assert re.search(r"\rpub \[#* *\] +\d+% [\d,]+/s\x1b\[K", shown)
    assert re.search(r"\r\x1b\[Kpub: 200,000 of 16 bytes in .*\n$", shown)
