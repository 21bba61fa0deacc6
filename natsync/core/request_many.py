"""`request_many`: several replies to one request [ADR-47]."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from natsync.core.message import Msg
from natsync.core.mux import Mux
from natsync.core.read_sink import ReadSink
from natsync.core.reply import read_reply
from natsync.core.sink import size_of
from natsync.deadline import Deadline
from natsync.errors import BadSubscriptionError, NatsError, NatsTimeoutError
from natsync.protocol.operations import MsgOp

__all__ = ["Replies"]


class _Inbox:
    """What the mux holds of a request: not the user's `Replies`, so that a forgotten one can be collected."""

    lasting = True

    def __init__(self, subject: str, deadline: Deadline) -> None:
        self.token = ""
        self.answered = False
        self.deadline = deadline
        self.reader: int | None = None
        """The thread that is in a loop over the replies."""
        self.sink = ReadSink(0, subject, None, msgs_limit=-1, bytes_limit=-1, max_msgs=None)
        self.error: NatsError | None = None

    def is_awaited(self, thread: int) -> bool:
        return self.reader not in (None, thread) and not self.deadline.expired

    def reply(self, operation: MsgOp) -> None:
        self.sink.deliver([operation], size_of(operation))

    def fail(self, error: NatsError) -> None:
        self.error = error
        self.sink.finish(lambda: error)


class Replies(Iterator[Msg]):
    """The replies to one request, as they come.

    Ends at the timeout, after `max_msgs`, when nothing came for `stall` seconds after a reply, or at the message for
    which `sentinel` is true. Ending, `close()`, leaving the `with` block and being forgotten forget the request; later
    replies are ignored. For one thread at a time.
    """

    def __init__(
        self,
        mux: Mux,
        subject: str,
        *,
        deadline: Deadline,
        max_msgs: int | None,
        stall: float | None,
        sentinel: Callable[[Msg], bool] | None,
        client: object,
    ) -> None:
        self._client = client  # which must not be forgotten before the last answer is there
        self._mux = mux
        self._subject = subject
        self._deadline = deadline
        self._left = max_msgs
        self._stall = stall
        self._sentinel = sentinel
        self._first = True
        self._closed = False
        self._inbox = _Inbox(subject, deadline)
        self.inbox = mux.enter(self._inbox)

    def __next__(self) -> Msg:
        self._inbox.reader = threading.get_ident()
        try:
            return self._next()
        except BaseException:
            self.close()
            raise

    def _next(self) -> Msg:
        operation = self._next_operation()
        if operation is None:
            raise StopIteration
        msg = read_reply(operation, self._subject)
        if self._sentinel is not None and self._sentinel(msg):
            raise StopIteration
        self._first = False
        if self._left is not None:
            self._left -= 1
        return msg

    def _next_operation(self) -> MsgOp | None:
        sink = self._inbox.sink
        if self._left == 0 or self._closed:
            return None
        deadline = self._deadline
        if self._stall is not None and not self._first and self._stall < deadline.remaining():
            deadline = Deadline(self._stall)
        try:
            return sink.next(deadline.remaining())
        except NatsTimeoutError:
            return None
        except NatsError:
            if self._inbox.error is not None:
                raise
            return None  # closed by another thread

    def close(self) -> None:
        """Forget the request; any number of times, from any thread."""
        self._closed = True
        self._mux.leave(self._inbox.token)
        self._inbox.sink.end(_ended)

    def __enter__(self) -> Replies:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop that was left early; takes no lock.
        inbox = getattr(self, "_inbox", None)
        if inbox is not None:
            self._mux.forget(inbox.token)


def _ended() -> NatsError:
    return BadSubscriptionError("these replies have ended")
