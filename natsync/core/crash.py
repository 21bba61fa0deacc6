"""What happens when a user's callback raises: it is logged with its traceback, and never lost."""

from __future__ import annotations

import logging
import traceback

__all__ = ["log_crash"]


def log_crash(log: logging.Logger, text: str, *args: object, reported: bool = False) -> None:
    """Log the exception being handled.

    A program without any logging and without `error_cb` would never hear of its own bug: then it goes to stderr too.

    Args:
        log: Where to.
        text: What happened, with `args` as in logging.
        args: Its arguments.
        reported: A callback of the user's is told as well.
    """
    log.exception(text, *args)  # noqa: LOG004 - called while an exception is handled
    if not reported and not _has_listener(log):
        traceback.print_exc()


def _has_listener(log: logging.Logger | None) -> bool:
    while log is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in log.handlers):
            return True
        log = log.parent if log.propagate else None
    return False
