"""`natsync reply`: answer requests."""

from __future__ import annotations

import argparse
from typing import Any

import natsync
from natsync.cli.arguments import add_connection_arguments, add_data_arguments, count, headers_of, payload_of
from natsync.cli.connection import connect, raise_refusal, say, until_told
from natsync.cli.show import Display

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Enter the command into the parser."""
    parser = commands.add_parser("reply", help="answer requests", description="Answer requests, until Ctrl-C.")
    parser.add_argument("subject", metavar="SUBJECT", help="with * for one token, and > for the rest")
    add_data_arguments(parser)
    parser.add_argument("--echo", action="store_true", help="answer with the data of the request")
    parser.add_argument("--queue", metavar="NAME", help="share the requests with the other members of this group")
    parser.add_argument("--count", type=count, metavar="N", help="end after N requests")
    parser.add_argument(
        "--raw", action="store_true", help="write the requests' data alone, and a line break after each"
    )
    add_connection_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer until there were enough requests or Ctrl-C, and then those that are there; returns the exit status."""
    data, headers = b"" if args.echo else payload_of(args), headers_of(args)
    display = Display(raw=args.raw)
    answered = 0
    nobody_reads: list[BrokenPipeError] = []

    # A callback, because Ctrl-C strikes the main thread anywhere, also between taking a request and answering it.
    def answer(msg: natsync.Msg) -> None:
        nonlocal answered
        if msg.reply:
            msg.respond(msg.data if args.echo else data, headers=headers)
        try:
            display.show(msg)
        except BrokenPipeError as exc:
            nobody_reads.append(exc)
            nc.close()
        answered += 1
        if answered == args.count:
            nc.drain()

    with connect(args) as nc, until_told():
        nc.subscribe(args.subject, queue=args.queue, max_msgs=args.count, cb=answer)
        nc.flush()
        raise_refusal(nc)
        say(f"answering requests on {args.subject}; Ctrl-C ends it")
        nc.wait_closed()
    if nobody_reads:
        raise nobody_reads[0]
    return 0
