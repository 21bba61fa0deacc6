"""Where a cell of the matrix takes place: a real server or cluster, the wire to it, and a stand-in for it."""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING

from natsync.testing import NatsServer
from tests.support.proxy import FaultProxy
from tests.support.scripted import Script, ScriptedServer
from tests.support.waiting import eventually
from tests.support.wire import Wire

if TYPE_CHECKING:
    from typing_extensions import Self

    from natsync import Client
    from natsync.testing import NatsCluster


class World:
    """One server and a faulty wire to it, or a cluster; a context manager.

    Args:
        config: The server's configuration.
        cluster: What the client connects to instead of a server.
    """

    def __init__(self, config: str, cluster: NatsCluster | None) -> None:
        self.cluster = cluster
        self._open = contextlib.ExitStack()
        self._config = config

    def __enter__(self) -> Self:
        if self.cluster is None:
            self.server = self._open.enter_context(NatsServer(self._config))
            self.proxy = self._open.enter_context(FaultProxy("127.0.0.1", self.server.port))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open.close()

    @property
    def servers(self) -> list[NatsServer]:
        return [self.server] if self.cluster is None else self.cluster.servers

    def server_of(self, client: Client) -> NatsServer:
        """The server that the client is connected to, by the name that its INFO gives."""
        info = client.server_info
        assert info is not None
        if self.cluster is None:
            return self.server
        return self.cluster.servers[int(info.server_name.removeprefix("n"))]

    @property
    def urls(self) -> list[str]:
        """The servers themselves, past the wire."""
        return [self.server.url] if self.cluster is None else self.cluster.urls

    # What the faults are made of

    def play(self, script: Script) -> None:
        """Put a scripted server in the server's place behind the wire, until `play_no_more()`, and cut the wire."""
        stand_in = self._open.enter_context(ScriptedServer(script))
        self.proxy.target = ("127.0.0.1", stand_in.port)
        self.proxy.cut()

    def play_no_more(self) -> None:
        """Put the real server back."""
        self.proxy.target = ("127.0.0.1", self.server.port)

    def occupy(self) -> None:
        """Take the client's place on a server that has no other free, and keep it."""
        self.proxy.refuse()
        self.proxy.cut()
        wire = eventually(partial(_log_in, self.server.port), message="the server has no place for the occupant")
        assert wire is not None
        self.occupant = self._open.enter_context(wire)
        self.proxy.accept()

    def vacate(self) -> None:
        self.occupant.close()

    def lose_node(self, client: Client) -> None:
        """Kill the node that the client is connected to."""
        self.server_of(client).kill()

    def lose_all(self) -> None:
        for server in self.servers:
            server.kill()

    def rise(self, *order: int) -> None:
        """Start the nodes in this order, and have the cluster whole again."""
        assert self.cluster is not None
        for number in order:
            self.cluster.servers[number].start()
        self.cluster.wait_until_joined()


def _log_in(port: int) -> Wire | None:
    wire = Wire(port)
    with contextlib.suppress(AssertionError, OSError):
        wire.handshake()
        return wire
    wire.close()
    return None


def narrow_dialer(host: str, port: int, timeout: float) -> socket.socket:
    """Dial with a small send buffer, so that a peer that does not read is felt soon."""
    narrow = socket.socket()
    try:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        narrow.settimeout(timeout)
        narrow.connect((host, port))
    except BaseException:
        narrow.close()
        raise
    return narrow
