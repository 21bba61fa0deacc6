"""Values in, bytes out: everything a client says, as whole frames.

Sans-IO. Checks nothing: subjects, queue names and headers come in checked (`natsync.subjects`, `natsync.headers`)
and, where a frame is built for every message, already encoded. Sizes are in bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from natsync.subjects import encode_subject

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PING_COMMAND",
    "PONG_COMMAND",
    "PUB_FORMAT",
    "PUB_REPLY_FORMAT",
    "encode_connect",
    "encode_hpub",
    "encode_pub",
    "encode_sub",
    "encode_unsub",
]

PUB_FORMAT = b"PUB %b %d\r\n%b\r\n"
"""Of (subject, size of the data, data); for those who publish so much that a call to `encode_pub` counts."""
PUB_REPLY_FORMAT = b"PUB %b %b %d\r\n%b\r\n"
"""Of (subject, reply subject, size of the data, data)."""

PING_COMMAND = b"PING\r\n"
PONG_COMMAND = b"PONG\r\n"


def encode_connect(fields: Mapping[str, object]) -> bytes:
    r"""`CONNECT {"verbose":false,"lang":"python"}\r\n`; a field that is None is left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    # ASCII only, with every control character escaped: no value can end the line.
    return b"CONNECT " + json.dumps(given, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\r\n"


def encode_pub(subject: bytes, reply: bytes | None, data: bytes) -> bytes:
    r"""`PUB foo 5\r\nhello\r\n`, or with a reply subject `PUB foo _INBOX.1 5\r\nhello\r\n`."""
    if reply is None:
        return PUB_FORMAT % (subject, len(data), data)
    return PUB_REPLY_FORMAT % (subject, reply, len(data), data)


def encode_hpub(subject: bytes, reply: bytes | None, header_block: bytes, data: bytes) -> bytes:
    r"""`HPUB foo 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n`: size of the header block, then of both together."""
    header_size = len(header_block)
    size = header_size + len(data)
    if reply is None:
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, header_size, size, header_block, data)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, header_size, size, header_block, data)


def encode_sub(subject: str, queue: str | None, sid: int) -> bytes:
    r"""`SUB foo 1\r\n`, or in a queue group `SUB foo workers 1\r\n`."""
    if queue is None:
        return b"SUB %b %d\r\n" % (encode_subject(subject), sid)
    return b"SUB %b %b %d\r\n" % (encode_subject(subject), encode_subject(queue), sid)


def encode_unsub(sid: int, max_msgs: int | None = None) -> bytes:
    r"""`UNSUB 1\r\n`, or to end after as many messages in all `UNSUB 1 10\r\n`."""
    if max_msgs is None:
        return b"UNSUB %d\r\n" % sid
    return b"UNSUB %d %d\r\n" % (sid, max_msgs)
