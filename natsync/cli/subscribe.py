"""`natsync sub`: show what is published."""

from __future__ import annotations

import argparse
from typing import Any

from natsync.cli.arguments import add_connection_arguments, count
from natsync.cli.connection import connect, say, until_told
from natsync.cli.show import Display

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Enter the command into the parser."""
    parser = commands.add_parser(
        "sub", help="show what is published", description="Show what is published, until Ctrl-C."
    )
    parser.add_argument("subject", metavar="SUBJECT", help="with * for one token, and > for the rest")
    parser.add_argument("--queue", metavar="NAME", help="share the messages with the other members of this group")
    parser.add_argument("--count", type=count, metavar="N", help="end after N messages")
    parser.add_argument("--raw", action="store_true", help="write the data alone, and a line break after each")
    add_connection_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show messages until there were enough or Ctrl-C; returns the exit status."""
    display = Display(raw=args.raw)
    with connect(args) as nc, until_told():
        subscription = nc.subscribe(args.subject, queue=args.queue, max_msgs=args.count)
        nc.flush()
        say(f"listening on {args.subject}; Ctrl-C ends it")
        for msg in subscription:
            display.show(msg)
    return 0
