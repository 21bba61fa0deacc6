"""From a message to a user's callback: what runs around it, in which context, and what happens when it raises."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Iterable

from natsync.core.crash import log_crash
from natsync.core.message import Msg, new_msg
from natsync.core.parts import Parts
from natsync.core.sink import Turn
from natsync.core.subscription import Subscription
from natsync.protocol.operations import MsgOp

__all__ = ["Handler", "Wrapper", "make_handler", "wrapped"]

Handler = Callable[[Msg], object]
Wrapper = Callable[[Msg, Handler], object]

_log = logging.getLogger("natsync.dispatcher")


def wrapped(cb: Handler, wrappers: Iterable[Wrapper]) -> Handler:
    """Return a callback with the wrappers around it, the first of them outermost."""
    for wrapper in reversed(tuple(wrappers)):
        cb = _wrap(wrapper, cb)
    return cb


def _wrap(wrapper: Wrapper, call: Handler) -> Handler:
    return lambda msg: wrapper(msg, call)


def make_handler(parts: Parts, subscription: Subscription, cb: Handler) -> Callable[[Iterable[MsgOp], Turn], None]:
    """Return what a worker calls with messages of a turn; errors are logged and reported, never raised.

    Every message gets a copy of its own of the present context variables: several workers cannot share one, and what a
    callback sets is not for the next message. A copy takes some 30 ns, whatever is in it.
    """
    fresh_context = contextvars.copy_context().copy

    def handle(operations: Iterable[MsgOp], turn: Turn) -> None:
        for operation in operations:
            # `from_operation`, without a call: this is the loop in which a busy subscriber spends its time
            msg = new_msg(Msg)
            _, msg.subject, msg.reply, msg._headers, msg.data = operation
            msg.subscription = subscription
            try:
                fresh_context().run(cb, msg)
            except BaseException as exc:  # SystemExit too: it would end one worker in silence, and nothing else
                reported = parts.options.error_cb is not None
                log_crash(_log, "the callback of %r raised an exception", subscription.subject, reported=reported)
                parts.report(exc, subscription)
            turn.done += 1

    return handle
