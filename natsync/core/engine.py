"""How a client comes to life, and how it ends: in this process, and in a forked child.

Knows the order of both. A forked child makes a new engine in place of the inherited one, so nothing here is ever reset.
"""

from __future__ import annotations

import os
import threading

from natsync.core.link import Link
from natsync.core.outbound import Mode
from natsync.core.parts import Parts
from natsync.core.restore import restore
from natsync.core.supervisor import Supervisor
from natsync.core.threads import on_thread_of
from natsync.deadline import Deadline
from natsync.errors import ConnectionReconnectingError, ForkedConnectionError, NatsError
from natsync.events import Connected, ReconnectFailed
from natsync.policy.options import Options
from natsync.policy.status import Status
from natsync.policy.verdict import most_telling

__all__ = ["Engine"]

# How long the end of a client waits for threads: they end at once, unless user code on them goes on.
_JOIN_TIMEOUT = 1.0
_WORKER_TIMEOUT = 0.25


class Engine(Parts):
    """The parts of a client, and the supervisor that makes them work.

    Args:
        client: The user's object, for events.
        options: What it was asked for.
    """

    def __init__(self, client: object, options: Options) -> None:
        super().__init__(client, options)
        self.pid = os.getpid()
        """The process that it works in."""
        self._made_with = threading.Lock
        self.supervisor = Supervisor(self)
        self._awake_lock = threading.Lock()
        self._awakener: int | None = None

    # Opening.

    def open(self) -> None:
        """Walk over the servers once, on the calling thread, and start the threads.

        Raises:
            ConfigError: A file that the options name cannot be used; also with `retry_on_failed_connect`.
            NatsError: The most telling failure, with `errors`; nothing stays open, and `open` may be called again.
        """
        self.lifecycle.move(Status.CONNECTING)
        try:
            self.connector.check_files()
            self._first_walk()
        except BaseException:
            self.lifecycle.move(Status.DISCONNECTED, also=self.outbound.rest)
            raise

    def _first_walk(self) -> None:
        failures: dict[str, NatsError] = {}
        for server in self.pool.snapshot():
            try:
                self._start(self.connector.connect(server))
            except NatsError as exc:
                failures[server.url.redacted] = exc
            else:
                return
        if not self.options.retry_on_failed_connect:
            raise most_telling(failures)
        self.lifecycle.move(Status.RECONNECTING, also=self.outbound.buffer)
        for url, failure in failures.items():
            self.lifecycle.report(ReconnectFailed(self.client, failure, url))
        self._start_threads(None)

    def _start(self, link: Link) -> None:
        try:
            restore(self, link, Connected)
            self._start_threads(link)
        except BaseException:
            link.lose(None)
            self.outbound.down()
            link.end()
            if self.lifecycle.status is Status.CONNECTED:
                self.supervisor.finish_unstarted()  # no more threads, or Ctrl-C: nobody would look after this client
            raise

    def _start_threads(self, link: Link | None) -> None:
        # In this order: a callback that closes the client must find a supervisor to do it.
        self.supervisor.start(link)
        self.lane.thread.start()

    @property
    def is_outdated(self) -> bool:
        """Whether gevent has replaced the locks since: gunicorn's worker for it does so after the fork."""
        return self._made_with is not threading.Lock

    def awake(self) -> None:
        """Connect a forked child's client at its first use; whoever comes second waits for the first."""
        if self.outbound.mode is not Mode.DORMANT:
            return
        if self._awakener == threading.get_ident():
            raise ConnectionReconnectingError("a credentials or dialer callback uses the client that is connecting")
        with self._awake_lock:
            self._awakener = threading.get_ident()
            try:
                if self.lifecycle.status is Status.DISCONNECTED:
                    self.open()
            finally:
                self._awakener = None

    # Ending.

    @property
    def is_unattended(self) -> bool:
        """Whether there is a connection, or the search for one, and nobody has asked for its end."""
        return self.supervisor.is_started and not self.close_wanted and self.drain is None

    def request_close(self, *, muted: bool = False) -> None:
        """Refuse further use at once, and have the supervisor end the client."""
        self.lane.muted = self.lane.muted or muted
        self.end_soon()
        if not self.supervisor.is_started:
            self.supervisor.finish_unstarted()

    def wait_ended(self, timeout: float) -> bool:
        """Wait until the client is closed and its threads are gone, as far as they can be."""
        if on_thread_of(self):
            return False
        self.about_to_wait()
        ended = self.closed.wait(timeout)
        for threads, patience in (
            ((self.supervisor.thread, self.timer.thread, self.lane.thread), _JOIN_TIMEOUT),
            (self.dispatcher.threads, _WORKER_TIMEOUT),
        ):
            deadline = Deadline(patience)
            for thread in threads:
                thread.wait_ended(deadline.remaining())
        return ended

    def abandon(self) -> None:
        """In a forked child, where no other thread is left: let go of everything, without a byte to the server."""
        self.is_forked = True
        if self.link is not None:
            self.link.transport.abandon()
        self.connector.abandon()
        self.dispatcher.abandon()
        self.lane.abandon()
        for sink in list(self.registry.clear_after_fork()):
            sink.reset_after_fork(_forked)


def _forked() -> NatsError:
    return ForkedConnectionError("this subscription belongs to the parent process; subscribe anew in the child")
