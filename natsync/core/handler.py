"""The guard around a user's message callback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from natsync.core.crash import log_crash
from natsync.core.message import Msg, new_msg
from natsync.core.parts import Parts
from natsync.core.sink import Turn
from natsync.core.subscription import Subscription
from natsync.protocol.operations import MsgOp

__all__ = ["make_handler"]

_log = logging.getLogger("natsync.dispatcher")


def make_handler(
    parts: Parts, subscription: Subscription, cb: Callable[[Msg], object]
) -> Callable[[Iterable[MsgOp], Turn], None]:
    """Return what a worker calls with messages of a turn; errors are logged and reported, never raised."""

    def handle(operations: Iterable[MsgOp], turn: Turn) -> None:
        for operation in operations:
            # `from_operation`, without a call: this is the loop in which a busy subscriber spends its time
            msg = new_msg(Msg)
            _, msg.subject, msg.reply, msg._headers, msg.data = operation
            msg.subscription = subscription
            try:
                cb(msg)
            except BaseException as exc:  # SystemExit too: it would end one worker in silence, and nothing else
                reported = parts.options.error_cb is not None
                log_crash(_log, "the callback of %r raised an exception", subscription.subject, reported=reported)
                parts.report(exc, subscription)
            turn.done += 1

    return handle
