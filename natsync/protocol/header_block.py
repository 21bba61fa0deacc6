r"""The header block of a message: `NATS/1.0[ status[ description]]\r\n`, a line for every value, an empty line [ADR-4].

Sans-IO. What goes out is what `Headers` let in. What comes in was written by any client in any language and passed on
by the server unread, so it is read leniently as far as its meaning is plain, and refused as a whole otherwise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from natsync.errors import BadHeaderError
from natsync.headers import Headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["encode_header_block", "is_no_responders", "parse_header_block"]

_VERSION = "NATS/1.0"
_BLANKS = " \t"

# The status has three digits; whatever follows describes it, as in nats.go.
_parse_status = re.compile(r"[ \t]*(?:([0-9]{3})[ \t]*(.*))?", re.DOTALL).fullmatch
_are_lines = re.compile(r"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\r\n\0]*\r\n)*").fullmatch
_is_no_responders = re.compile(rb"NATS/1\.0[ \t]*503").match


def encode_header_block(headers: Headers | Mapping[str, str | Sequence[str]]) -> bytes:
    """Return the header block of `headers`; blanks around a value are left out.

    Raises:
        TypeError: A name or value of a mapping is not text.
        BadHeaderError: A name or value of a mapping cannot be written, or has a lone surrogate.
    """
    if type(headers) is dict:
        block = _encode_plain(headers)
        if block is not None:
            return block
    if not isinstance(headers, Headers):
        headers = Headers(headers)
    lines = [_first_line(headers)]
    lines += [f"{name}: {value.strip(_BLANKS)}" for name, value in headers.items()]
    lines += ["", ""]
    try:
        # Bytes that were no UTF-8 when they were received go on as they came.
        return "\r\n".join(lines).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadHeaderError("a header has a lone surrogate: it is not Unicode text", option="headers") from None


def _encode_plain(headers: Mapping[str, str | Sequence[str]]) -> bytes | None:
    """Return the block of a dict with one value a name, checked as a whole; None for whatever needs a closer look."""
    if not set(map(type, headers)) == set(map(type, headers.values())) == {str}:
        return None
    lines = "".join([f"{name}: {value.strip(_BLANKS)}\r\n" for name, value in headers.items()])  # type: ignore[union-attr]
    # A name with a line break in it could pass for two lines.
    if lines.count("\n") != len(headers) or not lines.isascii() or not _are_lines(lines):
        return None
    return f"{_VERSION}\r\n{lines}\r\n".encode("ascii")


def parse_header_block(block: bytes) -> Headers:
    """Read a received header block. Blanks before a value are left out, those after it are kept [nats.go].

    Raises:
        BadHeaderError: It is not a header block.
    """
    lines = block.decode("utf-8", "surrogateescape").split("\n")
    first = lines[0].removesuffix("\r")
    status = _parse_status(first, len(_VERSION)) if first.startswith(_VERSION) else None
    if status is None:
        raise BadHeaderError(f"a received header block starts with {first[:32]!r}, not with {_VERSION}")
    code, description = status.groups()
    # What stands after the last line feed is no line.
    pairs = _parse_lines(lines[1:-1])
    return Headers.unchecked(pairs, int(code) if code else None, (description or "").rstrip(_BLANKS) or None)


def is_no_responders(header_block: bytes | None, data: bytes) -> bool:
    """Return whether a message is a server's word that nobody listens: status 503, no data. Looks at few bytes."""
    return header_block is not None and not data and _is_no_responders(header_block) is not None


def _first_line(headers: Headers) -> str:
    if headers.status is None:
        return _VERSION
    return f"{_VERSION} {headers.status:03} {headers.description or ''}".rstrip(_BLANKS)


def _parse_lines(lines: list[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for line in lines:
        line = line.removesuffix("\r")
        if not line:
            return pairs
        name, colon, value = line.partition(":")
        if not colon:
            raise BadHeaderError(f"a received header line has no colon: {line[:32]!r}")
        # A line without a name is skipped, as nats.go does.
        if name:
            pairs.append((name, value.lstrip(_BLANKS)))
    raise BadHeaderError("a received header block does not end with an empty line")
