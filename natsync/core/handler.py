"""The guard around a user's message callback."""

from __future__ import annotations

import logging
from collections.abc import Callable

from natsync.core.crash import log_crash
from natsync.core.message import Msg, from_operation
from natsync.core.parts import Parts
from natsync.core.subscription import Subscription
from natsync.protocol.operations import MsgOp

__all__ = ["make_handler"]

_log = logging.getLogger("natsync.dispatcher")


def make_handler(parts: Parts, subscription: Subscription, cb: Callable[[Msg], object]) -> Callable[[MsgOp], None]:
    """Return what a worker calls for each message; errors are logged and reported, never raised."""

    def handle(operation: MsgOp) -> None:
        try:
            cb(from_operation(operation, subscription))
        except BaseException as exc:  # SystemExit too: it would end one worker in silence, and nothing else
            reported = parts.options.error_cb is not None
            log_crash(_log, "the callback of %r raised an exception", subscription.subject, reported=reported)
            parts.report(exc, subscription)

    return handle
