"""Handshakes that go wrong at a chosen step, for connections that a real server would serve well."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support.scripted import Conn, ScriptError

if TYPE_CHECKING:
    from collections.abc import Callable

_STEPS: dict[str, Callable[[Conn], object]] = {
    "info": lambda conn: conn.send_info(),
    "half info": lambda conn: conn.send(b'INFO {"server_id": "SCRIPTED", "vers'),
    "connect": lambda conn: (conn.expect(b"CONNECT "), conn.expect(b"PING")),
    "half pong": lambda conn: conn.send(b"PON"),
    "reset": lambda conn: conn.reset(),
    "wait": lambda conn: conn.wait_eof(),
}


def accept_and(*steps: str) -> Callable[[Conn], None]:
    """Return a script that goes these steps and then ends the connection."""

    def script(conn: Conn) -> None:
        with contextlib.suppress(ScriptError, OSError):  # a client that is being closed leaves in the middle
            for step in steps:
                _STEPS[step](conn)

    return script


def answer_connect_and(*steps: str) -> Callable[[Conn], None]:
    """As `accept_and`, from after CONNECT."""
    return accept_and("info", "connect", *steps)
