"""Several real servers that know each other: a cluster on loopback, for tests of discovery and of failing over.

Adds to `NatsServer` only what makes a cluster of it: the cluster ports, the routes, and waiting until every server
has a route to every other. One thread at a time drives it.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from natsync.errors import ConfigError, NatsTimeoutError
from natsync.testing.server import NatsServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["NatsCluster"]

_HOST = "127.0.0.1"
_DEADLINE = 20.0  # seconds; a lost race for a route is tried again by the servers after one second
_TICK = 0.01
_TRIES = 3


class NatsCluster:
    """A cluster of real NATS servers on free ports of 127.0.0.1.

    The servers exist from construction on and start with `start()` or with the context. Each keeps its ports, so any
    one may be killed and started again; `wait_until_joined()` then waits for its routes.

    Args:
        size: How many servers.
        config: The text of a configuration that every server gets.
        jetstream: Switch JetStream on; `start()` then also waits for the cluster's leader.
        no_advertise: Do not tell clients of the other servers.
        args: More command line arguments for every `nats-server`.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        config: str = "",
        jetstream: bool = False,
        no_advertise: bool = False,
        args: Sequence[str] = (),
    ) -> None:
        if size < 1:
            raise ConfigError(f"size is {size}, a cluster has at least one server", option="size")
        self._size = size
        self._config = config
        self._jetstream = jetstream
        self._args = [*args, f"--no_advertise={str(no_advertise).lower()}"]
        self.servers: list[NatsServer] = self._make_servers()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<NatsCluster {self.servers}>"

    @property
    def urls(self) -> list[str]:
        """The servers' URLs; known from the first start on."""
        return [server.url for server in self.servers]

    def start(self) -> None:
        """Start the servers that do not run, and wait until each has a route to each.

        Raises:
            ConfigError: There is no server program, or the configuration is bad.
            NatsTimeoutError: A server does not come up, or the routes are not there in time.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                for server in self.servers:
                    server.start()
                break
            except ConfigError as error:
                self.close()
                # A cluster port was free when it was picked and is somebody's now; other ports are as good until one
                # is known.
                if error.option != "port" or tries_left == 0:
                    raise
                self.servers[:] = self._make_servers()
        try:
            self.wait_until_joined()
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """End all servers gracefully."""
        for server in self.servers:
            server.stop()

    def close(self) -> None:
        """End all servers and remove their files. Leaving the context does this."""
        for server in self.servers:
            server.close()

    def wait_until_joined(self, timeout: float | None = None) -> None:
        """Wait until every running server has a route to every other running one, and JetStream, if on, has its leader.

        Raises:
            NatsTimeoutError: That takes longer than `timeout` seconds (default 20).
        """
        timeout = _DEADLINE if timeout is None else timeout
        deadline = time.monotonic() + timeout
        while not self._is_joined():
            if time.monotonic() > deadline:
                logs = "\n".join(server.log[-1000:] for server in self.servers)
                raise NatsTimeoutError(f"the cluster has not joined in {timeout:g} s:\n{logs}", timeout=timeout)
            time.sleep(_TICK)

    def _is_joined(self) -> bool:
        running = [server for server in self.servers if server.is_running]
        with contextlib.suppress(OSError):  # a server that has just ended answers no more
            pages = [server.monitor("routez") for server in running]
            names = {page["server_id"] for page in pages}
            meshed = all(names == {page["server_id"], *_peers(page)} for page in pages)
            return meshed and (not self._jetstream or all(_has_leader(server) for server in running))
        return False

    def _make_servers(self) -> list[NatsServer]:
        ports = _free_ports(self._size)
        routes = ",".join(f"nats://{_HOST}:{port}" for port in ports)
        servers = []
        for number, port in enumerate(ports):
            args = ["--cluster_name", "natsync", "--server_name", f"n{number}", "--routes", routes]
            args += ["--cluster", f"nats://{_HOST}:{port}", *self._args]
            servers.append(NatsServer(self._config, jetstream=self._jetstream, args=args))
        return servers


def _peers(page: dict[str, object]) -> set[str]:
    routes = page["routes"]
    assert isinstance(routes, list)
    return {route["remote_id"] for route in routes}


def _has_leader(server: NatsServer) -> bool:
    return bool(server.monitor("jsz").get("meta_cluster", {}).get("leader"))


def _free_ports(count: int) -> list[int]:
    # All are held at once, so that no two are the same. The servers must know each other's before any of them runs.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_HOST, 0))
        return [each.getsockname()[1] for each in sockets]
