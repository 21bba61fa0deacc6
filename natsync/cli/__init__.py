"""The command line: which commands there are, and how each ends. Uses public names of natsync only."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from natsync._version import __version__
from natsync.cli import bench, demo, publish, reply, request, rtt, server, subscribe
from natsync.cli.arguments import Parser, add_connection_arguments
from natsync.cli.connection import say_once
from natsync.errors import NatsError, NoRespondersError, NoServersError

__all__ = ["main"]

_BROKEN_PIPE = 141  # as of a program that SIGPIPE has ended
_CTRL_C = 130
_HINTS: dict[type[NatsError], str] = {
    NoServersError: " `natsync server` starts one; --server names another.",
    NoRespondersError: "; check the subject, and start whoever answers on it",
}
"""What a user at the keyboard can do, beside what the error itself says."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The words of the command line; None for those of this process.

    Returns:
        The exit status: 0 for success, 1 for failure, 2 for a wrong call, 130 for Ctrl-C where it is not the usual end.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character is no reason to fail
    parser = _make_parser()
    try:
        args, unknown = parser.parse_known_args(argv)
        if unknown:
            # Only names: a value may be a secret behind a misspelt option.
            names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            parser.error(f"unknown option {names[0]}" if names else "too many arguments")
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except NatsError as exc:
        return _fail(exc)
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _CTRL_C


def _make_parser() -> Parser:
    parser = Parser(
        prog="natsync",
        description="The NATS client for synchronous Python.",
        epilog="`natsync COMMAND --help` tells more. Options of the connection may stand before the command, too.",
    )
    parser.add_argument("--version", action="version", version=f"natsync {__version__}")
    add_connection_arguments(parser)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (publish, subscribe, request, reply, rtt, bench, server, demo):
        command.add_to(commands)
    return parser


def _fail(error: NatsError) -> int:
    words = str(error)
    if error.__cause__ is not None and isinstance(error.__cause__, NatsError):
        words += f": {error.__cause__}"
    words += next((hint for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
    say_once(" ".join(words.split()))
    return 1
