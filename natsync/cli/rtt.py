"""`natsync rtt`: how far away the server is."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from natsync.cli.arguments import add_connection_arguments, count
from natsync.cli.connection import connect

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Enter the command into the parser."""
    parser = commands.add_parser(
        "rtt",
        help="measure the way to the server and back",
        description="Connect, and measure the way to the server and back.",
    )
    parser.add_argument("--count", type=count, default=5, metavar="N", help="measure N times (5)")
    add_connection_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit status."""
    began = time.perf_counter()
    with connect(args) as nc:
        connected = time.perf_counter() - began
        info = nc.server_info
        assert info is not None
        name = f", {info.server_name}" if info.server_name != info.server_id else ""
        print(f"{nc.connected_url}, nats-server {info.version}{name}")
        print(f"connect {connected * 1000:.2f} ms", flush=True)
        times = []
        for _ in range(args.count):
            times.append(nc.rtt() * 1000)
            print(f"rtt {times[-1]:.3f} ms", flush=True)
    print(f"fastest {min(times):.3f} ms, median {statistics.median(times):.3f} ms, slowest {max(times):.3f} ms")
    return 0
