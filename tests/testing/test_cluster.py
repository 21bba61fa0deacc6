"""`NatsCluster`, driven with plain sockets."""

from __future__ import annotations

import re
import socket
from contextlib import closing

import pytest

from natsync.errors import ConfigError, NatsTimeoutError
from natsync.testing import NatsCluster, NatsServer, cluster
from tests.support.waiting import eventually
from tests.support.wire import Wire

pytestmark = pytest.mark.cluster


def peers_told(port: int) -> set[int]:
    """The ports of the servers that one server tells its clients of."""
    with Wire(port) as wire:
        urls = wire.handshake().get("connect_urls", [])
    return {int(url.rsplit(":", 1)[1]) for url in urls}


def test_every_server_has_a_route_to_every_other() -> None:
    with NatsCluster() as own:
        assert len(own.servers) == 3
        assert own.urls == [server.url for server in own.servers]
        names = {server.varz()["server_name"] for server in own.servers}
        for server in own.servers:
            others = {route["remote_name"] for route in server.monitor("routez")["routes"]}
            assert others == names - {server.varz()["server_name"]}
        assert repr(own).count("running") == 3
    assert not any(server.is_running for server in own.servers)


def test_a_message_crosses_the_cluster() -> None:
    with NatsCluster(2) as own, Wire(own.servers[0].port) as one, Wire(own.servers[1].port) as two:
        one.handshake()
        two.handshake()
        one.send(b"SUB orders 1\r\n")
        one.ping()
        eventually(lambda: "orders" in str(own.servers[1].monitor("routez?subs=1")))
        two.send(b"PUB orders 5\r\nhello\r\n")
        assert one.line() == b"MSG orders 1 5\r\n"
        assert one.line() == b"hello\r\n"


def test_clients_are_told_of_the_other_servers() -> None:
    with NatsCluster() as own:
        ports = {server.port for server in own.servers}
        for port in ports:
            eventually(lambda port=port: peers_told(port) == ports)  # type: ignore[misc]


def test_no_advertise_keeps_the_other_servers_secret() -> None:
    with NatsCluster(2, no_advertise=True) as own:
        assert peers_told(own.servers[0].port) <= {own.servers[0].port}


def test_a_killed_server_comes_back_to_its_place() -> None:
    with NatsCluster() as own:
        urls = own.urls
        for server in own.servers:
            server.kill()
            own.wait_until_joined()  # the others among themselves
            server.start()
            own.wait_until_joined()
        assert own.urls == urls


def test_a_stopped_cluster_starts_again_on_the_same_ports() -> None:
    with NatsCluster(2) as own:
        urls = own.urls
        own.stop()
        assert not any(server.is_running for server in own.servers)
        own.start()
        assert own.urls == urls


def test_the_configuration_and_the_arguments_are_for_all() -> None:
    with NatsCluster(2, config="max_payload: 4321", args=["--debug"]) as own:
        assert [server.varz()["max_payload"] for server in own.servers] == [4321, 4321]
        assert all("[DBG]" in server.log for server in own.servers)


def test_a_cluster_with_jetstream_has_a_leader() -> None:
    with NatsCluster(jetstream=True) as own:
        leaders = {server.monitor("jsz")["meta_cluster"]["leader"] for server in own.servers}
        assert len(leaders) == 1


def test_a_bad_configuration_leaves_no_server_behind() -> None:
    own = NatsCluster(2, config="unknown_thing: 1")
    with pytest.raises(ConfigError, match="unknown_thing"):
        own.start()
    assert not any(server.is_running for server in own.servers)


def test_a_cluster_has_a_size() -> None:
    with pytest.raises(ConfigError, match="size is 0") as caught:
        NatsCluster(0)
    assert caught.value.option == "size"


def test_a_cluster_port_that_was_taken_meanwhile_is_replaced() -> None:
    own = NatsCluster(2)
    port = re.search(r"--cluster', 'nats://127\.0\.0\.1:(\d+)", str(own.servers[1]._args))
    assert port is not None
    with closing(socket.create_server(("127.0.0.1", int(port[1])))), own:
        assert len({server.port for server in own.servers}) == 2


def test_a_cluster_that_does_not_join_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_peers", lambda page: {"somebody else"})
    own = NatsCluster(2)
    for server in own.servers:
        server.start()
    with pytest.raises(NatsTimeoutError, match=r"(?s)not joined in 0 s.*Route connection created"):
        own.wait_until_joined(timeout=0)
    monkeypatch.setattr(cluster, "_DEADLINE", 0)
    with pytest.raises(NatsTimeoutError, match="not joined"):
        own.start()
    assert not any(server.is_running for server in own.servers)


def test_a_server_that_ends_while_it_is_asked_has_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    def monitor(server: NatsServer, path: str) -> dict[str, object]:
        monkeypatch.undo()
        raise ConnectionRefusedError(path)

    with NatsCluster(2) as own:
        monkeypatch.setattr(NatsServer, "monitor", monitor)
        assert not own._is_joined()
        assert own._is_joined()
