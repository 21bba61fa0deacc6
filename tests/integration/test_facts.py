"""What a client tells about itself."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, ServerInfo, Stats, Status
from natsync.testing import NatsServer
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from tests.support.scripted import Conn

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR

FACTS = (
    *("status", "is_connected", "is_reconnecting", "is_draining", "is_closed", "connected_url", "server_info"),
    *("client_id", "max_payload", "servers", "discovered_servers", "last_error", "buffered", "stats"),
)


def flags(client: Client) -> tuple[Status, bool, bool, bool, bool]:
    return (client.status, client.is_connected, client.is_reconnecting, client.is_draining, client.is_closed)


# The connection


def test_a_connected_client(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    assert flags(client) == (Status.CONNECTED, True, False, False, False)
    assert client.connected_url == fresh_server.url
    assert client.servers == (fresh_server.url,)
    assert client.discovered_servers == ()
    assert client.last_error is None
    assert client.buffered == 0


def test_a_client_that_has_lost_its_connection(connect: Connect, fresh_server: NatsServer) -> None:
    client = connect(fresh_server.url)
    info, client_id = client.server_info, client.client_id
    fresh_server.stop()
    eventually(lambda: client.is_reconnecting)
    assert flags(client) == (Status.RECONNECTING, False, True, False, False)
    assert client.connected_url is None
    assert client.servers == (fresh_server.url,)
    assert isinstance(client.last_error, ConnectionError)
    assert (client.server_info, client.client_id) == (info, client_id)
    client.publish("facts.kept", bytes(100))
    assert client.buffered == len(b"PUB facts.kept 100\r\n") + 100 + len(b"\r\n")


def test_a_closed_client(nats_client: Client) -> None:
    servers = nats_client.servers
    nats_client.close()
    assert flags(nats_client) == (Status.CLOSED, False, False, False, True)
    assert nats_client.connected_url is None
    assert nats_client.servers == servers
    assert nats_client.buffered == 0
    assert isinstance(nats_client.stats, Stats)


def test_facts_cannot_be_set(nats_client: Client) -> None:
    for name in FACTS:
        with pytest.raises(AttributeError):
            setattr(nats_client, name, 1)


def test_every_status_has_the_name_of_the_contract() -> None:
    assert [status.name for status in Status] == [
        *("DISCONNECTED", "CONNECTING", "CONNECTED", "RECONNECTING", "DRAINING_SUBS", "DRAINING_PUBS", "CLOSED"),
    ]


# The server


def test_the_server_says_what_it_is(connect: Connect) -> None:
    with NatsServer('server_name: "named", max_payload: 5000', jetstream=True) as server:
        client = connect(server.url)
        info, varz = client.server_info, server.varz()
        assert isinstance(info, ServerInfo)
        for name, value in {
            "server_id": varz["server_id"],
            "server_name": "named",
            "version": varz["version"],
            "host": "127.0.0.1",
            "port": server.port,
            "max_payload": 5000,
            "client_ip": "127.0.0.1",
            "headers": True,
            "jetstream": True,
            "auth_required": False,
            "tls_required": False,
            "proto": 1,
        }.items():
            assert getattr(info, name) == value, name
        (shown,) = server.connz()["connections"]
        assert client.client_id == info.client_id == shown["cid"]
        assert client.max_payload == 5000
        with pytest.raises(dataclasses.FrozenInstanceError):
            info.port = 1  # type: ignore[misc]
        client.close()


def test_each_connection_has_its_own_id(connect: Connect, nats_server: NatsServer) -> None:
    clients = [connect(nats_server.url) for _ in range(3)]
    assert len({client.client_id for client in clients}) == 3
    assert all(isinstance(client.client_id, int) and client.client_id > 0 for client in clients)


def test_a_later_info_takes_the_place_of_the_first(connect: Connect, scripted: Callable[..., Any]) -> None:
    def script(conn: Conn) -> None:
        conn.handshake(max_payload=1000)
        conn.send_info(max_payload=2000, client_id=7, connect_urls=["127.0.0.1:1", "127.0.0.1:2"], new_field="x")
        conn.serve()

    discovered = Recorder()
    server = scripted(script)
    client = connect(server.url, discovered_server_cb=discovered)
    (event,) = discovered.wait_for(1)
    assert client.max_payload == 2000
    assert client.client_id == 7
    assert set(client.discovered_servers) == {"nats://127.0.0.1:1", "nats://127.0.0.1:2"}
    assert set(client.servers) == {server.url, *client.discovered_servers}
    assert event.client is client


# Statistics


def test_statistics_are_exact(nats_client: Client) -> None:
    zero = nats_client.stats
    assert zero == Stats(in_msgs=0, out_msgs=0, in_bytes=0, out_bytes=0, reconnects=0, errors=0, dropped=0)
    sub, twice = nats_client.subscribe("facts.*"), nats_client.subscribe("facts.counted")
    for number in range(10):
        nats_client.publish("facts.counted", bytes(number))
    nats_client.publish("facts.headers", b"12345", headers={"a": "b"})
    nats_client.flush()
    block = len(b"NATS/1.0\r\na: b\r\n\r\n")
    assert sub.pending_msgs == 11
    assert twice.pending_msgs == 10
    assert nats_client.stats == Stats(
        in_msgs=21,
        out_msgs=11,
        in_bytes=45 + 45 + 5 + block,
        out_bytes=45 + 5 + block,
        reconnects=0,
        errors=0,
        dropped=0,
    )
    assert zero.out_msgs == 0


def test_statistics_count_requests_and_replies(nats_client: Client) -> None:
    nats_client.subscribe("facts.echo", cb=lambda msg: msg.respond(b"12345"))
    nats_client.request("facts.echo", b"123")
    stats = nats_client.stats
    assert (stats.in_msgs, stats.out_msgs, stats.in_bytes, stats.out_bytes) == (2, 2, 8, 8)


def test_statistics_count_errors_and_drops(nats_client: Client) -> None:
    nats_client.subscribe("facts.raise", cb=lambda msg: 1 // 0)
    slow = nats_client.subscribe("facts.raise", pending_msgs_limit=1)
    for _ in range(3):
        nats_client.publish("facts.raise")
    nats_client.flush()
    eventually(lambda: nats_client.stats.errors == 3 + 1)
    assert nats_client.stats.dropped == slow.dropped == 2


def test_statistics_count_reconnects(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, reconnect_time_wait=0.01)
    for count in range(1, 3):
        client.force_reconnect()
        eventually(lambda: client.stats.reconnects == count and client.is_connected)  # noqa: B023  (called at once)


def test_statistics_are_a_frozen_snapshot(nats_client: Client) -> None:
    stats = nats_client.stats
    nats_client.publish("facts.x")
    assert stats.out_msgs == 0
    for field in dataclasses.fields(stats):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(stats, field.name, 1)
    assert pickle.loads(pickle.dumps(stats)) == stats


# Secrets

SECRET = "s3cret-w\u00f6rd"


@pytest.mark.parametrize("way", ["options", "url", "token"])
def test_no_secret_is_shown_anywhere(connect: Connect, caplog: pytest.LogCaptureFixture, way: str) -> None:
    caplog.set_level(logging.DEBUG)
    login = f'token: "{SECRET}"' if way == "token" else f'user: me, password: "{SECRET}"'
    events = Recorder()
    with NatsServer(f"authorization {{ {login} }}") as server:
        if way == "url":
            client = connect(server.url.replace("//", "//me:s3cret-w%C3%B6rd@"), disconnected_cb=events)
        elif way == "token":
            client = connect(server.url, token=SECRET, disconnected_cb=events)
        else:
            client = connect(server.url, user="me", password=SECRET, disconnected_cb=events)
        shown = [repr(client), str(client), *(repr(getattr(client, name)) for name in FACTS), repr(client._options)]
        server.stop()
        (event,) = events.wait_for(1)
        shown += [repr(event), repr(event.error), repr(client), repr(client.last_error), caplog.text]
        client.close()
    for text in shown:
        assert "s3cret" not in text


def test_its_representation_says_what_it_is(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, name="its name")
    for part in ("its name", "connected", nats_server.url):
        assert part in repr(client)
    client.close()
    assert "closed" in repr(client)


def test_a_client_cannot_be_pickled(nats_client: Client) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(nats_client)
