"""What arguments look like on the command line: their names and types, and errors in one line."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Any, NoReturn

from natsync import BadHeaderError, Headers

__all__ = [
    "Parser",
    "add_connection_arguments",
    "add_data_arguments",
    "count",
    "duration",
    "headers_of",
    "payload_of",
]

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_amount = re.compile(r"(\d+\.?\d*|\.\d+)(ms|s|m|h|)")


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a call, and takes no abbreviations, which scripts would come to rely on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says where to connect and as whom; what is not given is not in the namespace.

    That lets them stand before the command and behind it. Most destinations are the names of options of `connect()`.
    """
    server = parser.add_argument_group("connection")
    login = parser.add_argument_group("login")
    tls = parser.add_argument_group("TLS")

    def add(group: Any, *names: str, **kwargs: Any) -> None:
        group.add_argument(*names, default=argparse.SUPPRESS, **kwargs)

    add(server, "-s", "--server", dest="servers", metavar="URL", help="comma-separated servers [NATS_URL]")
    add(server, "--context", metavar="NAME", help="context of the nats command line [NATS_CONTEXT]")
    add(server, "--no-context", action="store_true", help="do not use the context that is selected")
    add(
        server, "--timeout", type=duration, metavar="TIME", help="to connect, and for replies: 5s, 500ms [NATS_TIMEOUT]"
    )
    add(server, "--inbox-prefix", metavar="SUBJECT", help="subject of replies instead of _INBOX")
    add(server, "-v", "--verbose", action="store_true", help="tell on stderr what happens")
    add(login, "--user", help="user name [NATS_USER]")
    add(login, "--password", help="password [NATS_PASSWORD, which other users of this machine cannot see]")
    add(login, "--token", help="token [NATS_TOKEN]")
    add(login, "--creds", dest="user_credentials", metavar="FILE", help="credentials file [NATS_CREDS]")
    add(login, "--nkey", dest="nkeys_seed", metavar="FILE", help="file with the seed of an NKey [NATS_NKEY]")
    add(tls, "--tls", action="store_true", help="require TLS; each of the following does that, too")
    add(tls, "--tls-ca", metavar="FILE", help="certificates to trust [NATS_CA]")
    add(tls, "--tls-cert", metavar="FILE", help="certificate of this client [NATS_CERT]")
    add(tls, "--tls-key", metavar="FILE", help="its key [NATS_KEY]")
    add(tls, "--tls-hostname", metavar="NAME", help="name to verify instead of the URL's")
    add(tls, "--tls-first", dest="tls_handshake_first", action="store_true", help="TLS before the server's greeting")
    add(tls, "--tls-no-verify", dest="tls_verify", action="store_false", help="accept any certificate")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data of a message, and its headers."""
    parser.add_argument("data", nargs="?", metavar="DATA", help="without, or as -, it is read from stdin")
    parser.add_argument(
        "-H",
        "--header",
        type=_header,
        action="append",
        default=[],
        dest="headers",
        metavar="NAME:VALUE",
        help="a header; may be given several times",
    )


def payload_of(args: argparse.Namespace, *, may_be_empty: bool = False) -> bytes:
    """Return the data; blocks until the end of stdin when that is where it comes from.

    Args:
        args: With the arguments of `add_data_arguments`.
        may_be_empty: Do not ask somebody at a terminal for data that was not given: there is none.
    """
    if args.data not in (None, "-"):
        return os.fsencode(args.data)
    if sys.stdin.isatty():
        if may_be_empty and args.data is None:
            return b""
        print("natsync: reading the data from the terminal until Ctrl-D", file=sys.stderr)
    return sys.stdin.buffer.read()


def headers_of(args: argparse.Namespace) -> Headers | None:
    """Return the headers, or None when there are none."""
    return Headers(args.headers) if args.headers else None


def duration(text: str) -> float:
    """Read seconds, also as `500ms`, `5s`, `1m30s` or `2h`."""
    parts = _amount.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it as 0.5, 500ms, 5s or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def count(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError("a header is written as NAME:VALUE")
    value = value.removeprefix(" ")
    try:
        Headers([(name, value)])
    except BadHeaderError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return name, value
