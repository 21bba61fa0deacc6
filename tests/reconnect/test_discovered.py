"""Servers that the cluster tells of in INFO: merged, pruned, tried, and given the credentials of the one that told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.waiting import Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

FAST: dict[str, Any] = {"reconnect_time_wait": 0.02, "reconnect_jitter": 0.0, "dont_randomize": True}


def good(conn: Conn) -> None:
    conn.handshake()
    conn.serve()


def tells(*lists: list[str] | None, first: list[str] | None = None) -> Callable[[Conn], None]:
    """A server that names these others in its first INFO, and then in one more INFO for each list."""

    def script(conn: Conn) -> None:
        conn.handshake(connect_urls=first)
        for number, urls in enumerate(lists):
            conn.send_info(connect_urls=urls, client_id=100 + number)
        conn.serve()

    return script


def connected(connect: Connect, url: str | list[str], told: int, **options: Any) -> Client:
    """A client that has heard all that its server had to tell."""
    client = connect(url, **FAST | options)
    eventually(lambda: client.client_id == 100 + told - 1)
    client.flush()
    client.flush()  # the supervisor has looked at the news by now
    return client


def addresses(*numbers: int) -> list[str]:
    return [f"10.0.0.{number}:4222" for number in numbers]


def urls(*numbers: int) -> set[str]:
    return {f"nats://{address}" for address in addresses(*numbers)}


# What is known


def test_the_first_info_counts_and_is_no_event(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted(tells(first=addresses(1, 2)))
    client = connect(server.url, discovered_server_cb=events, **FAST)
    assert set(client.discovered_servers) == urls(1, 2)
    assert set(client.servers) == {server.url} | urls(1, 2)
    never(lambda: events.items, 0.05)


def test_new_servers_are_added_and_reported(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted(tells(addresses(1, 2), addresses(1, 2, 3)))
    client = connected(connect, server.url, 2, discovered_server_cb=events)
    events.wait_for(2)
    assert [set(event.urls) for event in events.items] == [urls(1, 2), urls(3)]
    assert {event.server for event in events.items} == {server.url}
    eventually(lambda: set(client.discovered_servers) == urls(1, 2, 3))
    assert client.servers[0] == server.url


def test_servers_that_are_not_named_any_more_go(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted(tells(addresses(1, 2, 3), addresses(2), addresses(2, 3)))
    client = connected(connect, server.url, 3, discovered_server_cb=events)
    eventually(lambda: set(client.discovered_servers) == urls(2, 3))
    never(lambda: len(events) > 1, 0.05, "a server that was known before is not new")


def test_an_empty_list_says_nothing(scripted: Scripted, connect: Connect) -> None:
    server = scripted(tells(addresses(1, 2), [], None))
    client = connected(connect, server.url, 3)
    eventually(lambda: set(client.discovered_servers) == urls(1, 2))


def test_configured_servers_stay(scripted: Scripted, connect: Connect) -> None:
    one, two = scripted(tells(addresses(1), addresses(2))), scripted(good)
    client = connected(connect, [one.url, two.url], 2)
    eventually(lambda: set(client.servers) == {one.url, two.url} | urls(2))
    assert set(client.discovered_servers) == urls(2)


def test_a_configured_server_that_is_named_is_not_there_twice(scripted: Scripted, connect: Connect) -> None:
    server = scripted(good)
    teller = scripted(tells([f"127.0.0.1:{server.port}"]))
    client = connected(connect, [teller.url, server.url], 1)
    assert sorted(client.servers) == sorted([teller.url, server.url])
    assert not client.discovered_servers


def test_ignore_discovered_servers(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted(tells(addresses(1, 2), first=addresses(3)))
    client = connected(connect, server.url, 1, discovered_server_cb=events, ignore_discovered_servers=True)
    assert client.servers == (server.url,)
    never(lambda: events.items or client.discovered_servers, 0.05)


def test_addresses_that_cannot_be_read_are_passed_over(scripted: Scripted, connect: Connect) -> None:
    bad = ["", "host:notaport", "a b:4222", "http://10.0.0.9:1", "10.0.0.8:99999", *addresses(1)]
    client = connected(connect, scripted(tells(bad)).url, 1)
    eventually(lambda: set(client.discovered_servers) == urls(1))


# What is tried


def test_a_discovered_server_is_used_after_a_loss(scripted: Scripted, connect: Connect) -> None:
    other = scripted(good)

    def teller(conn: Conn) -> None:
        conn.handshake(connect_urls=[f"127.0.0.1:{other.port}"])

    first = scripted([teller])
    client = connect(first.url, **FAST)
    eventually(lambda: client.stats.reconnects == 1)
    assert client.connected_url == other.url
    assert client.discovered_servers == (other.url,)


def test_the_present_server_stays_even_if_it_is_not_named(scripted: Scripted, connect: Connect) -> None:
    def joins(conn: Conn) -> None:
        conn.handshake()
        conn.send_info(connect_urls=addresses(5), client_id=100)
        conn.serve()

    other = scripted(joins)

    def teller(conn: Conn) -> None:
        conn.handshake(connect_urls=[f"127.0.0.1:{other.port}"])

    client = connect(scripted([teller]).url, **FAST)
    eventually(lambda: client.client_id == 100)
    eventually(lambda: set(client.discovered_servers) == {other.url} | urls(5))


def test_credentials_are_carried_over(scripted: Scripted, connect: Connect) -> None:
    other = scripted(good)

    def teller(conn: Conn) -> None:
        conn.handshake(connect_urls=[f"127.0.0.1:{other.port}"])

    first = scripted([teller])
    client = connect(f"nats://me:s3cret@127.0.0.1:{first.port}", **FAST)
    eventually(lambda: client.stats.reconnects == 1)
    assert [(fields["user"], fields["pass"]) for fields in other.connects] == [("me", "s3cret")]
    assert client.connected_url == other.url
    assert "s3cret" not in repr((client.servers, client.discovered_servers, client))


def test_a_token_is_carried_over(scripted: Scripted, connect: Connect) -> None:
    other = scripted(good)

    def teller(conn: Conn) -> None:
        conn.handshake(connect_urls=[f"127.0.0.1:{other.port}"])

    first = scripted([teller])
    client = connect(f"nats://s3cret@127.0.0.1:{first.port}", **FAST)
    eventually(lambda: client.stats.reconnects == 1)
    assert [fields["auth_token"] for fields in other.connects] == ["s3cret"]


def test_the_attempts_of_a_server_survive_info(scripted: Scripted, connect: Connect) -> None:
    """Told of again, a server that has used up its attempts is not new."""
    closed = Recorder()
    dead = scripted([])  # refuses
    named = [f"127.0.0.1:{dead.port}"]

    def teller(conn: Conn) -> None:
        conn.handshake(connect_urls=named)
        conn.send_info(connect_urls=named)

    def shuts(conn: Conn) -> None:
        conn.send_info(connect_urls=named)

    failed = Recorder()
    first = scripted([teller, shuts, shuts, shuts])
    client = connect(first.url, max_reconnect_attempts=3, reconnect_error_cb=failed, closed_cb=closed, **FAST)
    closed.wait_for(1)
    assert client.is_closed
    assert [event.server for event in failed.items].count(dead.url) == 3


def test_a_server_first_named_by_the_info_of_a_reconnect_is_reported(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted([lambda conn: conn.handshake(), tells(first=addresses(7))])
    client = connect(server.url, discovered_server_cb=events, **FAST)
    eventually(lambda: client.stats.reconnects == 1)
    assert set(client.discovered_servers) == urls(7)
    (event,) = events.wait_for(1)
    assert set(event.urls) == urls(7)
