"""`natsync bench`: how many messages a second go through this client, this machine and this server."""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import natsync
from natsync.cli.arguments import add_connection_arguments, count
from natsync.cli.connection import connect, raise_refusal
from natsync.cli.progress import Progress
from natsync.errors import NatsTimeoutError

__all__ = ["add_to", "run"]

_ROUND = 1000  # messages between two looks at the clock
_PATIENCE = 10.0  # seconds without a message after which the rest is lost
_REQUESTS_SHARE = 10


def add_to(commands: Any) -> None:
    """Enter the command into the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure messages a second",
        description="Measure messages a second: published by one client; published by one and read by another; and "
        "requests answered by another, one after the other. All clients are in this process.",
    )
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(_SCENARIOS)}; all by default")
    parser.add_argument(
        "--msgs", type=count, default=100_000, metavar="N", help="messages (100000); a tenth as requests"
    )
    parser.add_argument("--size", type=int, default=16, metavar="BYTES", help="size of each (16)")
    parser.add_argument("--subject", metavar="SUBJECT", help="where to; one that nobody else uses, by default")
    add_connection_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and print a line for each; returns the exit status."""
    for what in args.what:
        if what not in _SCENARIOS:
            raise natsync.ConfigError(f"bench knows {', '.join(_SCENARIOS)}, not {what!r}")
    data = bytes(args.size)
    for what in args.what or _SCENARIOS:
        with connect(args) as nc, connect(args) as other:
            subject = args.subject or "natsync.bench." + nc.new_inbox().rpartition(".")[2]
            print(_SCENARIOS[what](nc, other, subject, data, args.msgs), flush=True)
    return 0


def _publish(nc: natsync.Client, _: natsync.Client, subject: str, data: bytes, msgs: int) -> str:
    with Progress("pub", msgs) as progress:
        began = time.perf_counter()
        for number in range(msgs):
            nc.publish(subject, data)
            if number % _ROUND == 0:
                progress.show(number)
        nc.flush()
        took = time.perf_counter() - began
    raise_refusal(nc)
    return _rates("pub", msgs, len(data), took)


def _subscribe(nc: natsync.Client, other: natsync.Client, subject: str, data: bytes, msgs: int) -> str:
    complete = threading.Event()
    received = 0

    def receive(_: natsync.Msg) -> None:
        nonlocal received
        received += 1
        if received == msgs:
            complete.set()

    other.subscribe(subject, cb=receive, pending_msgs_limit=-1, pending_bytes_limit=-1)
    other.flush()
    with Progress("sub", msgs) as progress:
        began = time.perf_counter()
        for number in range(msgs):
            nc.publish(subject, data)
            if number % _ROUND == 0:
                progress.show(received)
        nc.flush()
        _wait(complete, lambda: received, progress, (nc, other), msgs)
        took = time.perf_counter() - began
    return _rates("sub", msgs, len(data), took)


def _wait(
    complete: threading.Event,
    received: Callable[[], int],
    progress: Progress,
    clients: tuple[natsync.Client, ...],
    msgs: int,
) -> None:
    """Wait as long as messages come."""
    so_far, patient_until = -1, 0.0
    while not complete.wait(0.1):
        progress.show(received())
        if received() > so_far:
            so_far, patient_until = received(), time.monotonic() + _PATIENCE
        elif time.monotonic() > patient_until:
            for client in clients:
                raise_refusal(client)
            raise NatsTimeoutError(f"{so_far} of {msgs} messages have arrived, and no more for {_PATIENCE:g} s")


def _request(nc: natsync.Client, other: natsync.Client, subject: str, data: bytes, msgs: int) -> str:
    requests = max(msgs // _REQUESTS_SHARE, 1)
    other.subscribe(subject, cb=lambda msg: msg.respond(msg.data))
    other.flush()
    times = []
    with Progress("request", requests) as progress:
        for number in range(requests):
            began = time.perf_counter()
            nc.request(subject, data)
            times.append(time.perf_counter() - began)
            progress.show(number)
    times.sort()
    slow = times[min(int(len(times) * 0.99), len(times) - 1)]
    return (
        f"{_rates('request', requests, len(data), sum(times))}, "
        f"median {statistics.median(times) * 1000:.3f} ms, 99 % below {slow * 1000:.3f} ms"
    )


_SCENARIOS: dict[str, Callable[[natsync.Client, natsync.Client, str, bytes, int], str]] = {
    "pub": _publish,
    "sub": _subscribe,
    "request": _request,
}


def _rates(what: str, msgs: int, size: int, took: float) -> str:
    rate = msgs / took
    return f"{what}: {msgs:,} of {size} bytes in {took:.2f} s, {rate:,.0f}/s, {rate * size / 1e6:,.1f} MB/s"
