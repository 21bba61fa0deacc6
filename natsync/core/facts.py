"""What a client tells about itself: read-only properties, none of which blocks; all are safe from any thread."""

from __future__ import annotations

from natsync.core.engine import Engine
from natsync.policy.options import Options
from natsync.policy.stats import Stats
from natsync.policy.status import Status
from natsync.protocol.info import ServerInfo

__all__ = ["Facts"]


class Facts:
    """Base of `Connection`."""

    _engine: Engine
    _options: Options

    @property
    def status(self) -> Status:
        """What the client is doing."""
        return self._engine.lifecycle.status

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, draining or not."""
        return self.status in (Status.CONNECTED, Status.DRAINING_SUBS, Status.DRAINING_PUBS)

    @property
    def is_reconnecting(self) -> bool:
        """Whether the connection is lost and natsync on its way back."""
        return self.status is Status.RECONNECTING

    @property
    def is_draining(self) -> bool:
        """Whether `drain()` is under way."""
        return self.status in (Status.DRAINING_SUBS, Status.DRAINING_PUBS)

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed for good."""
        return self.status is Status.CLOSED

    @property
    def connected_url(self) -> str | None:
        """The present server's URL without credentials; None when there is no connection."""
        link = self._engine.link
        return link.url if link is not None and self.is_connected else None

    @property
    def server_info(self) -> ServerInfo | None:
        """The latest INFO of the present (or, when the connection is lost, last) server; None before the first."""
        return self._engine.info

    @property
    def client_id(self) -> int | None:
        """The number that the server gave this connection; a new one for each connection."""
        info = self._engine.info
        return info.client_id if info is not None else None

    @property
    def max_payload(self) -> int:
        """The most bytes of headers and data that the server takes in a message; 0 before the first connection."""
        return self._engine.max_payload

    @property
    def servers(self) -> tuple[str, ...]:
        """All servers, configured and discovered, without credentials, in the order in which they will be tried."""
        return tuple(server.url.redacted for server in self._engine.pool.snapshot())

    @property
    def discovered_servers(self) -> tuple[str, ...]:
        """The servers that the cluster told us of, without credentials."""
        return tuple(server.url.redacted for server in self._engine.pool.snapshot() if server.discovered)

    @property
    def last_error(self) -> BaseException | None:
        """The error of the latest event that had one; None when there was none."""
        return self._engine.lifecycle.last_error

    @property
    def buffered(self) -> int:
        """Bytes of commands that are not yet sent: of the reconnect buffer while the connection is lost."""
        return self._engine.outbound.size

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters, since the client was made."""
        engine = self._engine
        reconnects, errors = engine.lifecycle.counts()
        return Stats(
            in_msgs=engine.traffic.msgs,
            out_msgs=engine.outbound.out_msgs,
            in_bytes=engine.traffic.bytes,
            out_bytes=engine.outbound.out_bytes,
            reconnects=reconnects,
            errors=errors,
            dropped=engine.dropped_msgs + engine.registry.dropped,
        )

    def __repr__(self) -> str:
        where = self.connected_url or "no server"
        name = f" {self._options.name!r}" if self._options.name else ""
        trust = "" if self._options.tls_verify else ", tls_verify=False"
        return f"<natsync.Client{name} {self.status.value}, {where}{trust}>"
