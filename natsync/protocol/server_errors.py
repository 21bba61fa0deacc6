"""`-ERR`: what a server complains about, as typed errors, and what it means for the connection.

Sans-IO. Servers send words, not numbers, so this table of words is the one place that depends on them [nats.go
processErr, nats-server client.go]. Texts are compared without regard to case; messages keep the server's own words.
"""

from __future__ import annotations

import enum
import re

from natsync.errors import (
    AuthExpiredError,
    AuthorizationError,
    AuthRevokedError,
    MaxConnectionsError,
    MaxSubscriptionsError,
    NatsError,
    PermissionsError,
    ServerError,
    StaleConnectionError,
)

__all__ = ["Reaction", "parse_error", "reaction"]

# How much of a server's words an error shows, and how much of them is searched for a subject, in characters.
_MAX_TEXT = 1024
_MAX_SEARCHED = 8192


class Reaction(enum.Enum):
    """What an `-ERR` means for the connection it came on."""

    RECONNECT = "reconnect"
    """The server is about to drop the connection; try again, here or elsewhere."""
    STAY = "stay"
    """One operation was refused; the connection goes on."""
    AUTH = "auth"
    """The credentials were refused; the same answer twice from one server is final."""
    CLOSE = "close"
    """The client broke a rule, and would break it again: give up."""


_CHECK_CREDENTIALS = "check the credentials, and who may log in on the server"
_RENEW_CREDENTIALS = "get new credentials"

# How a text starts, in lower case; what kind of error it is; and what to do about it.
_KINDS: tuple[tuple[str, type[ServerError], str], ...] = (
    ("permissions violation", PermissionsError, "see the user's permissions on the server"),
    ("authorization violation", AuthorizationError, _CHECK_CREDENTIALS),
    ("authentication timeout", AuthorizationError, "log in faster, or raise the server's authorization timeout"),
    ("user authentication expired", AuthExpiredError, _RENEW_CREDENTIALS),
    ("account authentication expired", AuthExpiredError, "renew the account's JWT"),
    ("user authentication revoked", AuthRevokedError, _RENEW_CREDENTIALS),
    ("maximum connections exceeded", MaxConnectionsError, "raise the server's max_connections, or use fewer clients"),
    ("maximum account active connections exceeded", MaxConnectionsError, "raise the account's limit of connections"),
    ("maximum subscriptions exceeded", MaxSubscriptionsError, "raise max_subscriptions, or subscribe to wildcards"),
)

_REACTIONS: tuple[tuple[type[NatsError], Reaction], ...] = (
    (StaleConnectionError, Reaction.RECONNECT),
    (MaxConnectionsError, Reaction.RECONNECT),
    (PermissionsError, Reaction.STAY),
    (MaxSubscriptionsError, Reaction.STAY),
    (AuthorizationError, Reaction.AUTH),
)

# `Publish to "x"`, `Publish with Reply of "x"`, `Subscription to "x" using queue "q"`; names are quoted by Go's %q.
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_find_subject = re.compile(rf"\b(publish|subscription)(?: to| with reply of) {_QUOTED}", re.IGNORECASE).search
_find_queue = re.compile(rf"using queue {_QUOTED}", re.IGNORECASE).search
_replace_escapes = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))").sub


def parse_error(text: str, *, server: str | None) -> NatsError:
    """Return the error for the text of an `-ERR`; `server` is the server's redacted URL."""
    words = text[:_MAX_SEARCHED].strip(" \t'")
    shown = words[:_MAX_TEXT]
    message = f"the server says: {shown}"
    lower = shown.lower()
    if lower.startswith("stale connection"):
        return StaleConnectionError(message, server=server)
    for start, kind, advice in _KINDS:
        if lower.startswith(start):
            message += f" ({advice})"
            if kind is PermissionsError:
                return _permissions_error(message, shown, server, words)
            return kind(message, text=shown, server=server)
    return ServerError(message, text=shown, server=server)


def reaction(error: NatsError) -> Reaction:
    """Return what the client has to do about an error of `parse_error`."""
    for kind, answer in _REACTIONS:
        if isinstance(error, kind):
            return answer
    return Reaction.CLOSE


def _permissions_error(message: str, shown: str, server: str | None, words: str) -> PermissionsError:
    found = _find_subject(words)
    queue = _find_queue(words, found.end()) if found else None
    return PermissionsError(
        message,
        text=shown,
        server=server,
        operation=found[1].lower() if found else None,
        subject=_unquote(found[2]) if found else None,
        queue=_unquote(queue[1]) if queue else None,
    )


def _unquote(quoted: str) -> str:
    return _replace_escapes(_unescape, quoted)


def _unescape(match: re.Match[str]) -> str:
    byte, short, long, plain = match.groups()
    if byte:
        code = int(byte, 16)
        # Go spells a byte that is no UTF-8 so; here it is a lone surrogate, as in every received subject.
        return chr(code) if code < 0x80 else chr(0xDC00 + code)
    if short or long:
        code = int(short or long, 16)
        return chr(code) if code <= 0x10FFFF else "\ufffd"
    return str(plain)
