"""Where the soak takes place: one server or a cluster, each server behind a wire of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from natsync.testing import NatsCluster, NatsServer
from tests.support.proxy import FaultProxy

if TYPE_CHECKING:
    from typing_extensions import Self


class Stage:
    """Servers and their wires, kept over the whole soak; a context manager.

    Args:
        name: For the table of figures.
        size: How many servers; from two on they are a cluster.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self._size = size
        self._open = contextlib.ExitStack()
        self._cluster: NatsCluster | None = None
        self.servers: list[NatsServer] = []
        self.proxies: list[FaultProxy] = []

    def __enter__(self) -> Self:
        if self._size > 1:
            # Clients must not be told of ways past the wires.
            self._cluster = self._open.enter_context(NatsCluster(self._size, no_advertise=True))
            self.servers = self._cluster.servers
        else:
            self.servers = [self._open.enter_context(NatsServer())]
        self.proxies = [self._open.enter_context(FaultProxy("127.0.0.1", server.port)) for server in self.servers]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open.close()

    @property
    def urls(self) -> list[str]:
        return [proxy.url for proxy in self.proxies]

    def mend(self) -> None:
        """Have every server run and every wire work, whatever was done to them."""
        for server in self.servers:
            if server.is_running:
                server.resume()
            server.start()
        for proxy in self.proxies:
            proxy.latency = proxy.rate = 0.0
            proxy.fragment = 0
            proxy.heal()
            if proxy._unanswered:
                proxy.cut()  # the wire would hold them to its end
            proxy.accept()
        if self._cluster is not None:
            self._cluster.wait_until_joined(60.0)
