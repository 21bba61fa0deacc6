"""Which of several failures tells the user most."""

from __future__ import annotations

from collections.abc import Mapping

from natsync.errors import (
    AuthorizationError,
    ConfigError,
    NatsError,
    NatsTimeoutError,
    NoServersError,
    ProtocolError,
    ServerError,
    TLSError,
)

__all__ = ["most_telling"]

# A wrong password beside a dead server must not come out as "no servers"; the first match wins.
_RANKS: tuple[type[NatsError], ...] = (
    ConfigError,
    AuthorizationError,
    TLSError,
    ProtocolError,
    ServerError,
    NatsTimeoutError,
    NoServersError,
)


def most_telling(failures: Mapping[str, NatsError]) -> NatsError:
    """Return the failure to raise after a walk over the servers, with `errors` set to all of them.

    Args:
        failures: What each server answered, by redacted URL; at least one.
    """
    for kind in _RANKS:
        for error in failures.values():
            if isinstance(error, kind):
                return _with_all(error, failures)
    return _with_all(next(iter(failures.values())), failures)


def _with_all(error: NatsError, failures: Mapping[str, NatsError]) -> NatsError:
    if isinstance(error, NoServersError) and len(failures) > 1:
        every = "; ".join(str(failure) for failure in failures.values())
        summary = NoServersError(f"none of {len(failures)} servers could be reached: {every}")
        summary.__cause__ = error
        error = summary
    error.errors = dict(failures)
    return error
