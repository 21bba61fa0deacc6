"""The command line: which commands there are. Uses public names of natsync only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from natsync._version import __version__
from natsync.cli import demo
from natsync.errors import NatsError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 for success, 1 for failure, 2 for a wrong call, 130 for Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except NatsError as exc:
        print(f"natsync: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="natsync", description="The NATS client for synchronous Python.")
    parser.add_argument("--version", action="version", version=f"natsync {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo.add_to(commands)
    return parser
