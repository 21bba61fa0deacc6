"""The server pool: which servers there are, and which is next.

A pure data structure, changed under the engine's `pool_lock`. Every change puts a new list in place of the old one, so
that `snapshot` is right from any thread without it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence

from natsync.errors import ConfigError
from natsync.policy.urls import ServerUrl, parse_url

__all__ = ["Server", "ServerPool"]


@dataclasses.dataclass(eq=False)
class Server:
    """One entry of the pool."""

    url: ServerUrl
    discovered: bool = False
    """It came from a server's INFO, and goes when the cluster no longer names it."""
    tls_name: str | None = None
    """For a bare IP address that a named server told us of: the name its certificate is checked against."""
    attempts: int = 0
    """Tries since the last success, counted before dialling."""
    auth_error: str | None = None
    """The last credentials error since the last success; the same one twice ends the client."""

    @property
    def address(self) -> tuple[str, int]:
        return (self.url.host, self.url.port)


class ServerPool:
    """The servers in the order in which they will be tried.

    Args:
        urls: The configured servers.
        randomize: Shuffle, but keep the first URL first for the first connect.
        rng: Source of chance; tests pass a seeded one.
    """

    def __init__(self, urls: Sequence[ServerUrl], *, randomize: bool, rng: random.Random | None = None) -> None:
        self._randomize = randomize
        self._rng = rng or random.Random()
        self._servers = [Server(url) for url in urls]
        self._seen = {server.address for server in self._servers}
        self._shuffle_tail()

    def __len__(self) -> int:
        return len(self._servers)

    def snapshot(self) -> tuple[Server, ...]:
        """Return the entries in their present order."""
        return tuple(self._servers)

    def next_server(self, current: Server | None, max_attempts: int | None) -> Server | None:
        """Move the current server to the tail, or drop it when its attempts are used up, and return the new head.

        With `max_attempts` 0 the server just lost is dropped at once and every other one gets one try [nats.go
        selectNextServer].
        """
        known = None if current is None else self._entry_of(current)
        if known is not None:
            servers = [server for server in self._servers if server is not known]
            if max_attempts is None or known.attempts < max_attempts:
                servers.append(known)
            self._servers = servers
        return self._servers[0] if self._servers else None

    def _entry_of(self, server: Server) -> Server | None:
        # One that was taken out and named again, while we were connected to it, has a new entry.
        same = (entry for entry in self._servers if entry.url == server.url)
        return server if server in self._servers else next(same, None)

    def find(self, url: ServerUrl) -> Server | None:
        """Return the entry of an address, or None."""
        return next((server for server in self._servers if server.address == (url.host, url.port)), None)

    def drop_exhausted(self, current: Server | None, max_attempts: int | None) -> None:
        """Remove every server whose attempts are used up; with `max_attempts` 0 all but the current one have one."""
        if max_attempts is not None:
            known = None if current is None else self._entry_of(current)
            self._servers = [
                server
                for server in self._servers
                if server.attempts < (max_attempts if server is known else max(1, max_attempts))
            ]

    def replace(self, urls: Sequence[ServerUrl]) -> None:
        """Take these servers in place of all; those that stay keep their attempts [nats.go SetServerPool]."""
        known = {server.url: server for server in self._servers}
        servers = [known.get(url) or Server(url) for url in urls]
        for server in servers:
            server.discovered = False
        self._seen |= {server.address for server in servers}
        self._servers = servers
        self._shuffle_tail()

    def merge(self, connect_urls: Iterable[str], current: Server) -> list[Server]:
        """Take over what a server's INFO says of the cluster; return the servers never seen before.

        Discovered servers that are not named any more go, except the current one; configured ones stay. New ones get
        the scheme and credentials of the current server's URL, and, for a bare IP, its name for TLS [nats.go
        processInfo]. An empty list says nothing. URLs that cannot be read are ignored: one bad advertisement must not
        cost a working connection.
        """
        named: dict[tuple[str, int], ServerUrl] = {}
        for text in connect_urls:
            try:
                url = parse_url(text, default_scheme=current.url.scheme)
            except ConfigError:
                continue
            named.setdefault((url.host, url.port), url)
        if not named:
            return []
        self._servers = [
            server for server in self._servers if not server.discovered or server is current or server.address in named
        ]
        known = {server.address for server in self._servers}
        added = [self._discovered(url, current) for address, url in named.items() if address not in known]
        self._servers = self._servers + added
        fresh = [server for server in added if server.address not in self._seen]
        self._seen |= named.keys()
        if fresh:
            self._shuffle_tail()
        return fresh

    def _discovered(self, url: ServerUrl, current: Server) -> Server:
        origin = current.url
        inherited = dataclasses.replace(
            url, scheme=origin.scheme, user=origin.user, password=origin.password, token=origin.token
        )
        name = current.tls_name if origin.is_ip else origin.host
        return Server(inherited, discovered=True, tls_name=name if url.is_ip else None)

    def _shuffle_tail(self) -> None:
        if self._randomize:
            tail = self._servers[1:]
            self._rng.shuffle(tail)
            self._servers = self._servers[:1] + tail
