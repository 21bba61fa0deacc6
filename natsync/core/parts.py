"""The parts of one client in one process, and what they share: the ground that supervisor, walk and drain stand on.

Knows every part of core below it, what the reader hears, and which subscriptions there are; starts and ends nothing.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from typing import Any, Protocol

from natsync.core.connector import Connector
from natsync.core.dispatcher import Dispatcher
from natsync.core.event_lane import EventLane
from natsync.core.lifecycle import Lifecycle
from natsync.core.link import Link, PingWaiter, ReadsFor
from natsync.core.mux import ExpectedReply, Mux
from natsync.core.outbound import Outbound
from natsync.core.read_sink import ReadSink
from natsync.core.reader import Traffic
from natsync.core.registry import Registry
from natsync.core.reply import ReplyWaiter
from natsync.core.request_future import FutureTimer, RequestFuture
from natsync.core.sink import Sink
from natsync.deadline import Deadline
from natsync.errors import ConnectionClosedError, NatsError, PermissionsError, SlowConsumerError
from natsync.events import AsyncError, DiscoveredServers
from natsync.locks import Milestone, Wakeup
from natsync.policy.options import Options
from natsync.policy.pool import Server, ServerPool
from natsync.policy.status import Status
from natsync.protocol.info import ServerInfo
from natsync.protocol.server_errors import Reaction, reaction

__all__ = ["Draining", "Parts"]

_numbers = itertools.count(1)
# A thread that waits for an answer looks after so many seconds whether the others are at work.
_LOOK_AFTER = 1.0


class Draining(Protocol):
    """A drain under way, as far as the others care."""

    deadline: Deadline
    error: NatsError | None

    @property
    def done(self) -> bool: ...

    def step(self) -> None: ...


class Parts:
    """See the module.

    Args:
        client: The user's object, for events; held weakly, so that one that the user has forgotten is noticed.
        options: What it was asked for.
    """

    def __init__(self, client: object, options: Options) -> None:
        self._client = weakref.ref(client)
        self.options = options
        self.label = options.name or str(next(_numbers))
        self.wakeup = Wakeup()
        self.lane = EventLane(self, self.label, options)
        self.lifecycle = Lifecycle(self.lane)
        self.outbound = Outbound(
            live_limit=options.pending_size,
            buffer_limit=options.reconnect_buffer_size,
            write_timeout=options.write_timeout,
            wakeup=self.wakeup,
        )
        self.registry = Registry(self.outbound)
        self.dispatcher = Dispatcher(self, self.label, options.callback_workers)
        self.mux = Mux(self.registry, options.inbox_prefix)
        self.timer = FutureTimer(self, self.label, self.mux)
        self.pool_lock = threading.Lock()
        self.pool = ServerPool(options.servers, randomize=not options.dont_randomize)
        self.connector = Connector(options, self.wakeup.set)
        self.traffic = Traffic()
        self.news: deque[tuple[Link, ServerInfo]] = deque()
        """INFOs that the reader heard, for the supervisor."""
        self.link: Link | None = None
        self.info: ServerInfo | None = None
        self.max_payload = 0
        """The present server's; 0 before the first connection, when it is not known."""
        self.dropped_msgs = 0
        """Publishes given up."""
        self.close_wanted = False
        self.goodbye = 2.0
        """Seconds that the end of the client grants the last bytes."""
        self.force_wanted = False
        self.drain: Draining | None = None
        self.closed = Milestone()
        self.is_forked = False

    @property
    def client(self) -> Any:
        """The user's object, or None when it has been forgotten."""
        return self._client()

    # Waiting.

    def push_and_read_for(self, waiter: PingWaiter | ReplyWaiter | RequestFuture, patience: float) -> None:
        """Send what waits to be sent, and receive on the calling thread if the answer comes within a moment."""
        reader = self._reader_of_caller()
        if reader is not None:
            reader.push_and_read_for(waiter, patience)
        else:
            self.outbound.push()
            self.about_to_wait()

    def read_for(self, waiter: ReplyWaiter, patience: float, expected: ExpectedReply) -> None:
        """As `push_and_read_for`, when the question is sent already."""
        reader = self._reader_of_caller()
        if reader is not None:
            reader.read_for(waiter, patience, expected)
        else:
            self.about_to_wait()

    def _reader_of_caller(self) -> ReadsFor | None:
        """Return the present link's reader, if the calling thread may do its work."""
        link = self.link
        if link is None or link.reader is None:
            return None
        may_read = self._is_safe_in_main(link) or threading.get_ident() != threading.main_thread().ident
        return link.reader if may_read else None

    def _is_safe_in_main(self, link: Link) -> bool:
        """Whether the link brings nothing but replies.

        The main thread, which Ctrl-C may strike between any two steps, reads for itself only then: a subscription that
        was told of a message by half would stay so. A reply that it has in hand at that moment is lost like one that
        was under way when a connection broke, and its request times out.
        """
        return not link.pongs and not self.registry.has_subscriptions

    def wait_for(self, waiter: PingWaiter | ReplyWaiter, deadline: Deadline) -> bool:
        """Wait for an answer, and say whether it came in time.

        Looks after those who are to send the question and to read the answer: either may have been struck by Ctrl-C, or
        be held up in a signal handler.
        """
        while not waiter.wait(min(deadline.remaining(), _LOOK_AFTER)):
            if deadline.expired:
                return False
            self.wakeup.set()  # the supervisor sends what is left, and finds out who has lost the sending token
            self._let_go(None)
        return True

    def about_to_wait(self) -> None:
        """Note that the caller waits for what the reader brings: in a signal handler, it may be reading itself."""
        self._let_go(threading.get_ident())

    def _let_go(self, thread: int | None) -> None:
        link = self.link  # once: the supervisor may take it away at any moment
        if link is not None and link.reader is not None:
            link.reader.let_go(thread)

    # Subscriptions.

    def enter(self, sink: Sink, subscription: Any) -> None:
        """Bring a new sink to life.

        Raises:
            ConnectionClosedError: The client was closed in the meantime.
        """
        sink.subscription = subscription
        sink.on_wait = self.about_to_wait
        sink.on_slow = lambda: self._report_slow(sink)
        sink.on_last = lambda server_knows: self._retire(sink, tell=not server_knows)
        if not self.registry.add(sink):
            raise self.closed_error()

    def _retire(self, sink: Sink, *, tell: bool) -> None:
        self.registry.stop(sink.sid, tell=tell)

    def _report_slow(self, sink: Sink) -> None:
        error = SlowConsumerError(
            f"messages on {sink.subject!r} are dropped: {sink.pending_msgs} are pending, and a limit is reached; make "
            "the handler faster, use workers, or raise pending_msgs_limit and pending_bytes_limit",
            subject=sink.subject,
            sid=sink.sid,
            dropped=sink.dropped,
        )
        self.report(error, sink.subscription)

    # Ending.

    def end_soon(self) -> None:
        """Refuse further use at once, and have the supervisor end the client."""
        self.outbound.refuse(self.closed_error)
        self.wish_end()

    def wish_end(self) -> None:
        """Have the supervisor end the client; takes no lock, so that signal handlers and finalizers may call it."""
        self.close_wanted = True
        self.connector.abort()
        self.wakeup.set()

    def closed_error(self) -> NatsError:
        """Make the error of calls on a closed client."""
        cause = self.lifecycle.cause
        why = f" ({cause})" if cause is not None else ""
        error = ConnectionClosedError(f"the client is closed{why}; connect() makes a new one")
        error.__cause__ = cause
        return error

    @property
    def ended_by_wish(self) -> bool:
        """Whether the user has closed or drained the client, or is at it; not if it ended because of an error."""
        return self.close_wanted and self.lifecycle.cause is None

    def check_open(self) -> None:
        """Raise what a call on a client that is closed, or is about to be, gets."""
        if self.close_wanted or self.lifecycle.status is Status.CLOSED:
            raise self.closed_error()

    # What the reader hears.

    def heard_info(self, link: Link, info: ServerInfo) -> None:
        link.info = info
        self.info = info
        self.max_payload = info.max_payload
        self.news.append((link, info))
        self.wakeup.set()

    def heard_error(self, link: Link, error: NatsError) -> None:
        answer = reaction(error)
        if answer is Reaction.STAY:
            self._refused(link, error)
            return
        link.server_error = error
        if answer is Reaction.AUTH:
            # The server closes the connection itself; what it said is the cause then.
            self.lifecycle.report(AsyncError(self.client, error, link.url))
        else:
            link.lose(error, final=answer is Reaction.CLOSE)

    def _refused(self, link: Link, error: NatsError) -> None:
        sinks: list[Sink] = []
        if isinstance(error, PermissionsError) and error.operation == "subscription":
            sinks = self.registry.matching(error.subject, error.queue)
        for sink in sinks:
            if isinstance(sink, ReadSink):
                sink.refuse(error)
        subscription = sinks[0].subscription if sinks else None
        self.lifecycle.report(AsyncError(self.client, error, link.url, subscription))

    def report(self, error: BaseException, subscription: Any = None) -> None:
        """Report an error that no call waits for."""
        link = self.link
        self.lifecycle.report(AsyncError(self.client, error, link.url if link is not None else None, subscription))

    def take_info(self, server: Server, info: ServerInfo) -> list[Server]:
        """Take over what a server says of its cluster, and return the servers never seen before."""
        if self.options.ignore_discovered_servers:
            return []
        with self.pool_lock:
            return self.pool.merge(info.connect_urls, server)

    def report_discovered(self, link: Link, fresh: list[Server]) -> None:
        """Report servers never seen before, if there are any."""
        if fresh:
            urls = tuple(server.url.redacted for server in fresh)
            self.lifecycle.report(DiscoveredServers(self.client, server=link.url, urls=urls))
