"""pytest fixtures: a real server or cluster, and a client. pytest loads them itself where natsync is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from natsync.testing.cluster import NatsCluster
from natsync.testing.server import NatsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from natsync import Client

__all__ = ["nats_client", "nats_cluster", "nats_server"]


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """One plain NATS server for the whole run; tests that harm their server make their own `NatsServer`."""
    with NatsServer() as server:
        yield server


@pytest.fixture
def nats_client(nats_server: NatsServer) -> Iterator[Client]:
    """A client connected to `nats_server`, closed after the test."""
    import natsync  # here, because pytest loads this file in every run, also in those that use no fixture of it

    client = natsync.connect(nats_server.url)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="session")
def nats_cluster() -> Iterator[NatsCluster]:
    """A cluster of three for the whole run, started by the first test that asks for it; do not harm it, either."""
    with NatsCluster() as cluster:
        yield cluster
