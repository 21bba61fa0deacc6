"""Subjects, queue groups and inbox prefixes: what may be written, and what matches what.

Floor 0: imports only `natsync.errors` and the standard library. Knows no connection and no permission.

A subject is tokens joined by dots. ASCII white space and control characters would break the line on which a subject
travels, so everything that takes a subject from a user must pass it through here; any other Unicode text is allowed,
as servers do. A received subject that is not UTF-8 carries its odd bytes as lone surrogates, and `encode_subject`
gives those bytes back.
"""

from __future__ import annotations

import re
from typing import Any

from natsync.errors import BadQueueError, BadSubjectError

__all__ = [
    "check_inbox_prefix",
    "check_publish_subject",
    "check_queue",
    "check_subscribe_subject",
    "encode_subject",
    "subject_matches",
]

# One fullmatch passes a good subject, as this runs for every message published; reasons are looked for afterwards.
_is_subject = re.compile(r"[^\x00-\x20\x7f.]+(?:\.[^\x00-\x20\x7f.]+)*").fullmatch
_is_word = re.compile(r"[^\x00-\x20\x7f]+").fullmatch
_breaker = re.compile(r"[\x00-\x20\x7f]").search


def check_publish_subject(subject: str, option: str = "subject") -> None:
    """Raise unless a message can be published to `subject`.

    Wildcards are not refused, because a server takes them there as plain text.

    Raises:
        TypeError: It is not a `str`.
        BadSubjectError: It is empty, has an empty token, ASCII white space or a control character.
    """
    if not isinstance(subject, str):
        raise _not_text(subject, option)
    if not _is_subject(subject):
        raise BadSubjectError(f"{option} {_reason(subject)}", option=option)


def check_subscribe_subject(subject: str) -> None:
    """Raise unless `subject` can be subscribed to: as for publishing, and the wildcard `>` may only be the last token.

    Raises:
        TypeError: It is not a `str`.
        BadSubjectError: It is none.
    """
    check_publish_subject(subject)
    # `*` and `>` are wildcards only as a whole token; in `a*b` they are letters [nats-server IsValidSubject].
    if subject.startswith(">.") or ".>." in subject:
        raise BadSubjectError(f"subject {subject!r} has the wildcard '>' before its last token", option="subject")


def check_queue(queue: str) -> None:
    """Raise unless `queue` can name a queue group.

    Raises:
        TypeError: It is not a `str`.
        BadQueueError: It is empty, or has ASCII white space or a control character.
    """
    if not isinstance(queue, str):
        raise _not_text(queue, "queue")
    if not _is_word(queue):
        raise BadQueueError(f"queue {_reason(queue)}", option="queue")


def check_inbox_prefix(prefix: str) -> None:
    """Raise unless inboxes can start with `prefix`: a subject without wildcards, with no dot at its end.

    Raises:
        TypeError: It is not a `str`.
        BadSubjectError: It is none.
    """
    check_publish_subject(prefix, "inbox_prefix")
    if "*" in prefix or ">" in prefix:
        raise BadSubjectError(f"inbox_prefix {prefix!r} has a wildcard", option="inbox_prefix")


def encode_subject(subject: str) -> bytes:
    """Return the bytes of a subject that was checked before, or that a server sent.

    Raises:
        BadSubjectError: It has a lone surrogate that stands for no byte.
    """
    try:
        return subject.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadSubjectError(
            f"subject {subject!r} has a lone surrogate at {error.start}: it is not Unicode text", option="subject"
        ) from None


def subject_matches(pattern: str, subject: str) -> bool:
    """Return whether a message on `subject` reaches a subscription to `pattern`.

    `*` stands for one token, `>` for one or more at the end; both only as whole tokens.
    """
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False))


def _not_text(value: Any, option: str) -> TypeError:
    return TypeError(f"{option} is {type(value).__name__}; it takes str")


def _reason(text: str) -> str:
    if not text:
        return "is empty"
    breaker = _breaker(text)
    if breaker:
        return f"{text!r} has {breaker.group()!r} at {breaker.start()}: no white space, no control characters"
    return f"{text!r} has an empty token: a dot stands between two tokens"
