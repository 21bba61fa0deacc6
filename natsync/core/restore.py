"""From a fresh link to a connected client: subscriptions back, buffer flushed, then everybody may write.

The order is fixed: commands accepted, reader (the server must never find us not reading), snapshot of the
subscriptions, their SUBs, the buffered publishes, LIVE and CONNECTED in one step. Runs on the opener or the supervisor.
"""

from __future__ import annotations

import time

from natsync.core.link import Link
from natsync.core.outbound import Pumped
from natsync.core.parts import Parts
from natsync.core.read_sink import ReadSink
from natsync.core.reader import Reader
from natsync.core.threads import ClientThread
from natsync.errors import NatsConnectionError, NatsTimeoutError
from natsync.events import Event, Reconnected
from natsync.policy.status import Status

__all__ = ["restore"]

# A full socket is waited for in slices, so that a loss or a wish to close is noticed in between.
_SLICE = 0.05


def restore(parts: Parts, link: Link, kind: type[Event]) -> None:
    """Bring a link to life, and report an event of this kind.

    Raises:
        NatsError: The link was lost meanwhile; its caller ends it.
    """
    outbound = parts.outbound
    parts.info = link.info
    parts.max_payload = link.info.max_payload
    fresh = parts.take_info(link.server, link.info)
    dropped = outbound.begin(link)
    parts.dropped_msgs += dropped.msgs
    reader = Reader(link, registry=parts.registry, outbound=outbound, listener=parts, traffic=parts.traffic)
    link.thread = ClientThread(parts, parts.label, "reader", reader.run)
    link.thread.start()
    _send_commands(parts, link)
    _flush_buffer(parts, link)
    link.reader = reader
    link.server.attempts = 0
    link.server.auth_error = None
    parts.force_wanted = False  # whoever wished for a new connection has it; from here on it is a new wish
    parts.link = link
    event = kind(parts.client, server=link.url, dropped_msgs=dropped.msgs, dropped_bytes=dropped.bytes)
    parts.lifecycle.move(Status.CONNECTED, event, also=outbound.live)
    if kind is Reconnected:  # the first connection discovers nothing: all is new to it
        parts.report_discovered(link, fresh)


def _send_commands(parts: Parts, link: Link) -> None:
    for sink in parts.registry.all():
        if isinstance(sink, ReadSink):
            sink.refuse(None)
    rest = memoryview(parts.registry.replay(link.generation))
    progress_at = time.monotonic()
    while rest:
        sent = link.transport.send(rest)
        rest = rest[sent:]
        progress_at = _watch(parts, link, sent, progress_at)


def _flush_buffer(parts: Parts, link: Link) -> None:
    # What is there now; publishers that go on filling must not keep the client from being connected.
    outbound = parts.outbound
    end = outbound.sent_bytes + outbound.size
    progress_at = time.monotonic()
    while outbound.sent_bytes < end:
        pumped = outbound.pump()
        if pumped is Pumped.IDLE:
            return
        progress_at = _watch(parts, link, pumped is Pumped.SENT, progress_at)


def _watch(parts: Parts, link: Link, progress: int, progress_at: float) -> float:
    """Raise if it is no use going on; wait a little if the socket was full. Returns the time of the last progress."""
    if link.is_lost:
        raise link.loss.error or NatsConnectionError("the connection was given up", server=link.url)
    if parts.close_wanted:
        raise NatsConnectionError("the client is being closed", server=link.url)
    if progress:
        return time.monotonic()
    if time.monotonic() - progress_at > parts.options.write_timeout:
        raise NatsTimeoutError(f"{link.url} took no bytes for {parts.options.write_timeout} s")
    link.transport.wait_writable(_SLICE)
    return progress_at
