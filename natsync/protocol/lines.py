"""One line of a server: its text in, its fields out.

Sans-IO. Knows no limits and keeps nothing; when a line is whole, and whether it may be so long, is the parser's.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from natsync.errors import ProtocolError
from natsync.protocol.operations import OK, PING, PONG, ErrOp, InfoOp, OkOp, PingOp, PongOp

__all__ = [
    "Args",
    "Rare",
    "begins_plainly",
    "excerpt",
    "parse_line",
    "parse_message_line",
    "parse_plain_line",
    "unknown",
]

# (sid, subject, reply, size of the header block or None, size of header block and data together)
Args: TypeAlias = "tuple[int, str, str | None, int | None, int]"

# The operations without a payload.
Rare: TypeAlias = "InfoOp | ErrOp | PingOp | PongOp | OkOp"

_RARE_WORDS: dict[bytes, Rare] = {b"PING": PING, b"PONG": PONG, b"+OK": OK}

# A number with more digits than this cannot be meant, and reading it would cost more than its bytes.
_MAX_DIGITS = 18

_PLAIN_LINE = rb"MSG ([!-~]+) ([1-9][0-9]{0,17})(?: ([!-~]+))? ([0-9]{1,18})\r?"
_is_plain_line = re.compile(_PLAIN_LINE).fullmatch
begins_plainly = re.compile(_PLAIN_LINE + rb"\n").match

# How many bytes of a bad line an error shows.
_EXCERPT = 48


def parse_line(line: bytes) -> Args | Rare:
    """Read a line, without its LF: the fields of a message, or a whole operation of another kind."""
    args = parse_plain_line(line)
    if args is not None:
        return args
    # Servers end a line with CRLF; the LF alone is taken too, as nats.go does.
    text = line.removesuffix(b"\r")
    word = text[:4].upper()
    if word in (b"MSG ", b"HMSG", b"MSG\t"):
        return parse_message_line(text, has_header=word == b"HMSG")
    # What follows these words on their line has no meaning, and is let pass [nats.go parser.go: `+OKay`].
    rare = _RARE_WORDS.get(word) or _RARE_WORDS.get(word[:3])
    if rare is not None:
        return rare
    if text[4:5] in (b" ", b"\t"):
        if word == b"INFO":
            return InfoOp(text[5:])
        if word == b"-ERR":
            return ErrOp(text[5:].strip(b" \t").decode("utf-8", "backslashreplace"))
    raise unknown(line)


def parse_plain_line(line: bytes) -> Args | None:
    """Read a line of MSG as servers write it; None for whatever else, which is read with more care."""
    found = _is_plain_line(line)
    if found is None:
        return None
    subject, sid, reply, size = found.groups()
    return (int(sid), subject.decode(), None if reply is None else reply.decode(), None, int(size))


def parse_message_line(text: bytes, *, has_header: bool) -> Args:
    """Read `MSG subject sid [reply] size` or `HMSG subject sid [reply] header-size size`."""
    # Only these blanks part fields: other white space is part of a subject, and must not shift the sid.
    words = text.replace(b"\t", b" ").split(b" ")
    if b"" in words:
        words = [word for word in words if word]
    header_size = None
    if has_header:
        # `HMSGx` is no HMSG.
        if len(words) < 5 or len(words[0]) != 4:
            raise unknown(text)
        header_size = _number(words.pop(-2))
    if len(words) not in (4, 5):
        raise unknown(text)
    sid, size = _number(words[2]), _number(words[-1])
    if sid < 1 or size < 0 or (header_size is not None and not 0 <= header_size <= size):
        raise ProtocolError(f"the server sent a message line with a wrong number: {excerpt(text)}")
    reply = words[3].decode("utf-8", "surrogateescape") if len(words) == 5 else None
    return (sid, words[1].decode("utf-8", "surrogateescape"), reply, header_size, size)


def _number(word: bytes) -> int:
    """Read a decimal number; anything else is -1."""
    return int(word) if word.isdigit() and len(word) <= _MAX_DIGITS else -1


def excerpt(line: bytes | bytearray) -> str:
    """Show the beginning of bytes from a server, for an error."""
    return repr(bytes(line[:_EXCERPT]))[1:] + ("..." if len(line) > _EXCERPT else "")


def unknown(line: bytes | bytearray) -> ProtocolError:
    """Make the error of a line that no server would send."""
    return ProtocolError(f"the server sent a line that is not the NATS protocol: {excerpt(line)}")
