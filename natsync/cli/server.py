"""`natsync server`: the server that came with the extra `natsync[server]`, or another one that is found."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

from natsync.cli.connection import say
from natsync.testing.binary import find_server

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Enter the command into the parser."""
    parser = commands.add_parser(
        "server",
        help="run a NATS server",
        description="Run a NATS server, until Ctrl-C. It is the program nats-server, which gets all further arguments: "
        "natsync server -- -c my.conf",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1); 0.0.0.0 is every one")
    parser.add_argument("--port", type=int, default=4222, help="port to listen on (4222); -1 is a free one")
    parser.add_argument("--jetstream", action="store_true", help="switch JetStream on")
    parser.add_argument("--store-dir", metavar="FOLDER", help="where JetStream keeps its data")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="more, for nats-server; after --")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Become the server; where that cannot be, run it and return its exit status.

    Raises:
        ConfigError: There is no program; the text says how to get it.
    """
    program = find_server()
    command = [program, "-a", args.host, "-p", str(args.port)]
    command += ["-js"] if args.jetstream or args.store_dir else []
    command += ["-sd", args.store_dir] if args.store_dir else []
    command += args.arguments
    say(f"starting {program}; Ctrl-C ends it")
    sys.stdout.flush()
    if os.name == "posix":
        # The same process: signals reach the server itself, and it cannot be left behind.
        os.execv(program, command)  # noqa: S606 - no shell is wanted
    return subprocess.call(command)
