"""`natsync request`: ask, and show the reply."""

from __future__ import annotations

import argparse
import time
from typing import Any

from natsync.cli.arguments import add_connection_arguments, add_data_arguments, count, headers_of, payload_of
from natsync.cli.connection import connect, raise_refusal, say
from natsync.cli.show import Display
from natsync.errors import NatsTimeoutError

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Enter the command into the parser."""
    parser = commands.add_parser(
        "request", aliases=["req"], help="ask, and show the reply", description="Ask, and show the reply."
    )
    parser.add_argument("subject", metavar="SUBJECT")
    add_data_arguments(parser)
    parser.add_argument("--replies", type=count, default=1, metavar="N", help="wait for up to N replies")
    parser.add_argument("--raw", action="store_true", help="write the data alone, and a line break after each")
    add_connection_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and show what comes within the time-out; returns the exit status."""
    data, headers = payload_of(args, may_be_empty=True), headers_of(args)
    display = Display(raw=args.raw)
    with connect(args) as nc:
        began = time.monotonic()
        answers = 0
        for reply in nc.request_many(args.subject, data, headers=headers, max_msgs=args.replies):
            answers += 1
            if not args.raw:
                say(f"a reply after {(time.monotonic() - began) * 1000:.1f} ms")
            display.show(reply)
        if not answers:
            raise_refusal(nc)
            raise NatsTimeoutError(
                f"somebody listens on {args.subject!r}, but no reply came in time; --timeout gives more"
            )
    return 0
