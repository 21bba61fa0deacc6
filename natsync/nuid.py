"""Unique names of 22 base-62 characters, as the whole NATS family makes them.

Floor 0: imports only the standard library. Owns one generator for the process, with one lock, which is never held
across a call to anything that can wait.

A name is 12 random characters, drawn anew when the 10 that count are used up, and a counter that starts at random and
moves in random steps: cheap to make, hard to guess, and never the same twice in a process. A forked child must not go
on with its parent's counter, so it draws anew at the fork.
"""

from __future__ import annotations

import os
import secrets
import threading

__all__ = ["Nuid", "next_nuid", "reseed"]

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE = len(_DIGITS)
_PREFIX_LENGTH = 12
_COUNTER_LENGTH = 10
_COUNTER_END = _BASE**_COUNTER_LENGTH
_MIN_STEP, _MAX_STEP = 33, 333


class Nuid:
    """One generator; safe from any thread."""

    __slots__ = ("_counter", "_lock", "_prefix", "_step")

    def __init__(self) -> None:
        # Protects the counter together with the prefix it belongs to.
        self._lock = threading.Lock()
        self._draw_locked()

    def next(self) -> str:
        """Return the next name."""
        with self._lock:
            self._counter += self._step
            if self._counter >= _COUNTER_END:
                self._draw_locked()
            prefix, counter = self._prefix, self._counter
        return prefix + _base62(counter)

    def _draw_locked(self) -> None:
        self._prefix = "".join(secrets.choice(_DIGITS) for _ in range(_PREFIX_LENGTH))
        self._counter = secrets.randbelow(_COUNTER_END)
        self._step = _MIN_STEP + secrets.randbelow(_MAX_STEP - _MIN_STEP)


def _base62(number: int) -> str:
    digits = []
    for _ in range(_COUNTER_LENGTH):
        number, digit = divmod(number, _BASE)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


_generator = Nuid()


def next_nuid() -> str:
    """Return a new unique name of 22 characters; safe from any thread, and in a forked child."""
    return _generator.next()


def reseed() -> None:
    """Draw everything anew, as happens by itself in a forked child."""
    global _generator
    # With a new lock: another thread of the parent may have held the old one at the fork.
    _generator = Nuid()


if hasattr(os, "register_at_fork"):  # pragma: no branch - all but Windows
    os.register_at_fork(after_in_child=reseed)
