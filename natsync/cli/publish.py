"""`natsync pub`: publish a message."""

from __future__ import annotations

import argparse
import time
from typing import Any

from natsync.cli.arguments import (
    add_connection_arguments,
    add_data_arguments,
    count,
    duration,
    headers_of,
    payload_of,
)
from natsync.cli.connection import connect, raise_refusal

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Enter the command into the parser."""
    parser = commands.add_parser("pub", help="publish a message", description="Publish a message.")
    parser.add_argument("subject", metavar="SUBJECT")
    add_data_arguments(parser)
    parser.add_argument("--reply", metavar="SUBJECT", help="where answers should go")
    parser.add_argument("--count", type=count, default=1, metavar="N", help="publish it N times")
    parser.add_argument("--sleep", type=duration, default=0.0, metavar="TIME", help="pause between them: 1s, 100ms")
    add_connection_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Publish, and wait until the server has it; returns the exit status."""
    data, headers = payload_of(args), headers_of(args)
    with connect(args) as nc:
        for number in range(args.count):
            if number and args.sleep:
                time.sleep(args.sleep)
            nc.publish(args.subject, data, reply=args.reply, headers=headers)
        nc.flush()
        raise_refusal(nc)
    what = "a message" if args.count == 1 else f"{args.count} messages"
    print(f"Published {what} of {len(data)} bytes on {args.subject}")
    return 0
