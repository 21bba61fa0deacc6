"""The table of subscriptions: which sink a sid belongs to, and what the server is told of it.

Knows sinks and the commands SUB and UNSUB; nothing of threads that consume.
Owner: any thread adds and removes; the reader looks up without the lock (a dict's `get` is atomic).
Guarded by: `_lock`; the outbound buffer's lock is taken under it, so that the commands of one sid go out in the order
in which the table changed, and a snapshot and its generation are one step.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable

from natsync.core.outbound import Outbound
from natsync.core.sink import Sink
from natsync.protocol.commands import encode_sub, encode_unsub

__all__ = ["Registry"]


class Registry:
    """See the module."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._lock = threading.Lock()
        self._sinks: dict[int, Sink] = {}
        self._sids = itertools.count(1)
        self._stopped: weakref.WeakSet[Sink] = weakref.WeakSet()
        self.own: set[int] = set()
        """The sids of natsync's own subscriptions, which stay for good."""
        self._generation = 0
        self._cleared = False
        self._dropped_by_ended = 0
        self.find: Callable[[int], Sink | None] = self._sinks.get
        """Return the sink of a sid, or None; lock-free, for the reader."""

    def next_sid(self) -> int:
        """Return a sid that was never used by this client; the server keeps no memory of it across connections."""
        return next(self._sids)

    def add(self, sink: Sink) -> bool:
        """Enter a sink, and tell the server, now or with the next connection's replay. False after `clear`."""
        with self._lock:
            if self._cleared:
                return False
            self._sinks[sink.sid] = sink
            if sink.subscription is None:
                self.own.add(sink.sid)
            self._outbound.put_control(encode_sub(sink.subject, sink.queue, sink.sid), self._generation)
            if sink.max_msgs is not None:
                self._outbound.put_control(encode_unsub(sink.sid, sink.max_msgs), self._generation)
            return True

    @property
    def has_subscriptions(self) -> bool:
        """Whether there is a sink beside natsync's own, which stay for good."""
        return len(self._sinks) > len(self.own)

    def drain(self, sid: int) -> bool:
        """Tell the server to send no more, but keep the sink for what is under way; say whether it was there."""
        with self._lock:
            sink = self._sinks.get(sid)
            if sink is None:
                return False
            if not sink.draining:
                sink.draining = True
                self._outbound.put_control(encode_unsub(sid), self._generation)
            return True

    def stop(self, sid: int, *, tell: bool) -> bool:
        """Take out a sink that takes nothing more in; `tell` the server unless it was told; say whether it was there.

        It may still have messages to be consumed; it is remembered, weakly, for those who drain.
        """
        with self._lock:
            sink = self._sinks.pop(sid, None)
            if sink is None:
                return False
            if tell and not sink.draining:
                self._outbound.put_control(encode_unsub(sid), self._generation)
            self._stopped.add(sink)
            self._dropped_by_ended += sink.dropped
            return True

    def limit(self, sink: Sink, max_msgs: int) -> None:
        """Have the server end a subscription after `max_msgs` messages in all."""
        # The sink knows the number already: a replay that comes first takes it from there.
        with self._lock:
            if sink.sid in self._sinks:
                # The server counts from the SUB that it knows.
                still = max(0, max_msgs - sink.received_before)
                self._outbound.put_control(encode_unsub(sink.sid, still or None), self._generation)

    def replay(self, generation: int) -> bytes:
        """Return the commands that bring a new connection up to date; from here on commands go to that connection.

        A subscription made meanwhile is either in these commands or sends its own, never both. Draining ones are not
        revived. The server counts from zero again, so that auto-unsubscribe gets what is still to come.
        """
        commands: list[bytes] = []
        with self._lock:
            self._generation = generation
            for sink in self._sinks.values():
                to_come = sink.begin_anew()
                if sink.draining or to_come == 0:
                    continue
                commands.append(encode_sub(sink.subject, sink.queue, sink.sid))
                if to_come is not None:
                    commands.append(encode_unsub(sink.sid, to_come))
        return b"".join(commands)

    def all(self) -> list[Sink]:
        """Return the sinks that take messages in."""
        with self._lock:
            return list(self._sinks.values())

    def stopped(self) -> list[Sink]:
        """Return those that take nothing more in, as far as they are still in use."""
        with self._lock:
            return list(self._stopped)

    def matching(self, subject: str | None, queue: str | None) -> list[Sink]:
        """Return the sinks of exactly this subject and queue group."""
        return [sink for sink in self.all() if sink.subject == subject and sink.queue == queue]

    @property
    def dropped(self) -> int:
        """Messages that subscriptions have dropped, ended ones included."""
        with self._lock:
            return self._dropped_by_ended + sum(sink.dropped for sink in self._sinks.values())

    def clear(self) -> list[Sink]:
        """Drop every sid for good, and return the sinks."""
        with self._lock:
            sinks = list(self._sinks.values())
            self._sinks.clear()
            self._cleared = True
            self._dropped_by_ended += sum(sink.dropped for sink in sinks)
            return sinks

    def clear_after_fork(self) -> list[Sink]:
        """In a forked child, where the lock may be held for ever: return the inherited sinks."""
        sinks = [*self._sinks.values(), *self._stopped]
        self._sinks.clear()
        return sinks
