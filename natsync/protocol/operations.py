"""What a server can say, as values.

Knows nothing of bytes on the wire. A message is a plain tuple, because hundreds of thousands a second are made and
taken apart; everything else is rare, and has a small class of its own. So a reader asks `type(op) is tuple` first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "OK",
    "PING",
    "PONG",
    "ErrOp",
    "InfoOp",
    "MsgOp",
    "OkOp",
    "Operation",
    "PingOp",
    "PongOp",
]

# (sid, subject, reply or None, header block or None, data): `MSG`, and `HMSG` with its header block unread.
MsgOp: TypeAlias = "tuple[int, str, str | None, bytes | None, bytes]"


@dataclass(frozen=True, slots=True)
class InfoOp:
    """`INFO`, with its JSON unread. It may hold a nonce, so it is not shown."""

    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ErrOp:
    """`-ERR`, with the text as the server sent it, quotes included."""

    text: str


@dataclass(frozen=True, slots=True)
class PingOp:
    """`PING`: to be answered with `PONG`."""


@dataclass(frozen=True, slots=True)
class PongOp:
    """`PONG`: the answer to the oldest `PING` not answered yet."""


@dataclass(frozen=True, slots=True)
class OkOp:
    """`+OK`: the answer to any command, if CONNECT asked for verbose."""


PING = PingOp()
PONG = PongOp()
OK = OkOp()

Operation: TypeAlias = "MsgOp | InfoOp | ErrOp | PingOp | PongOp | OkOp"
