"""`Client.set_server_pool()`: other servers at run time, while the client is connected and while it is not."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from natsync import ConfigError, ConnectionClosedError, NoServersError
from natsync.events import ReconnectFailed
from tests.support.proxy import FaultProxy
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from natsync import Client
    from natsync.testing import NatsServer
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

FAST: dict[str, Any] = {"reconnect_time_wait": 0.02, "reconnect_jitter": 0.0, "dont_randomize": True}
LONG: dict[str, Any] = FAST | {"reconnect_time_wait": 60.0}


class Ways:
    """Two ways to the same server, each of which can be cut: for the client they are two servers."""

    def __init__(self, one: FaultProxy, two: FaultProxy) -> None:
        self.one, self.two = one, two

    @property
    def urls(self) -> list[str]:
        return [self.one.url, self.two.url]

    def lose(self, client: Client, *, refuse: bool = True) -> None:
        """Cut the client off from the first way, where it must be."""
        if refuse:
            self.one.refuse()
        self.one.cut()
        eventually(lambda: client.is_reconnecting or client.stats.reconnects)


@pytest.fixture
def ways(nats_server: NatsServer) -> Iterator[Ways]:
    with contextlib.ExitStack() as stack:
        yield Ways(*(stack.enter_context(FaultProxy("127.0.0.1", nats_server.port)) for _ in range(2)))


def tried(events: Recorder) -> list[str]:
    return [str(event.server) for event in events.items if isinstance(event, ReconnectFailed)]


# What it takes


@pytest.mark.parametrize(
    "servers",
    [
        "nats://a:1,nats://b:2,nats://a:1",
        ["a:1", "b:2"],
        ("nats://joe:s3cret@a:1", "nats://b:2"),
        (name for name in ("a:1", "b:2")),
    ],
    ids=["string", "list", "tuple", "generator"],
)
def test_it_takes_what_connect_takes(servers: str | Iterable[str], ways: Ways, connect: Connect) -> None:
    client = connect(ways.urls, **FAST)
    client.set_server_pool(servers)
    assert client.servers == ("nats://a:1", "nats://b:2")


def test_the_first_one_stays_first_and_the_others_are_shuffled(ways: Ways, connect: Connect) -> None:
    client = connect(ways.urls)
    servers = [f"nats://a:{number}" for number in range(1, 11)]
    orders = set()
    for _ in range(20):
        client.set_server_pool(servers)
        orders.add(client.servers)
    assert {order[0] for order in orders} == {servers[0]}
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(servers))}
    assert len(orders) > 1


BAD: list[Any] = [
    "",
    [],
    7,
    [7],
    "http://a:1",
    "nats://a:0",
    "nats://a:1/path",
    ["nats://a:1", "nats://a b:2"],
]


@pytest.mark.parametrize("servers", BAD, ids=str)
def test_a_bad_url_changes_nothing(servers: Any, ways: Ways, connect: Connect) -> None:
    client = connect(ways.urls, **FAST)
    with pytest.raises(ConfigError) as caught:
        client.set_server_pool(servers)
    assert caught.value.option == "servers"
    assert client.servers == tuple(ways.urls)
    ways.lose(client)
    eventually(lambda: client.connected_url == ways.two.url)


def test_a_closed_client_takes_no_servers(ways: Ways, connect: Connect) -> None:
    client = connect(ways.one.url, **FAST)
    client.close()
    with pytest.raises(ConnectionClosedError):
        client.set_server_pool(ways.urls)
    assert client.servers == (ways.one.url,)


def test_a_client_that_has_given_up_takes_no_servers_and_says_why(ways: Ways, connect: Connect) -> None:
    client = connect(ways.one.url, max_reconnect_attempts=0, **FAST)
    ways.one.cut()
    assert client.wait_closed(5.0 * TIME_FACTOR)
    with pytest.raises(ConnectionClosedError) as caught:
        client.set_server_pool(ways.urls)
    assert isinstance(caught.value.__cause__, NoServersError)


# Connected


@pytest.mark.parametrize("named", [True, False], ids=["named", "not-named"])
def test_the_present_connection_stays(named: bool, ways: Ways, connect: Connect) -> None:
    events = Recorder()
    client = connect(ways.one.url, disconnected_cb=events, **FAST)
    before = client.client_id
    client.set_server_pool([ways.two.url, *([ways.one.url] if named else [])])
    client.flush()
    never(lambda: events.items, 0.05)
    assert (client.connected_url, client.client_id) == (ways.one.url, before)
    assert ways.two.accepted == 0


def test_a_loss_then_uses_the_new_servers(ways: Ways, connect: Connect) -> None:
    events = Recorder()
    client = connect(ways.one.url, reconnect_error_cb=events, **FAST)
    client.set_server_pool(ways.two.url)
    ways.lose(client, refuse=False)
    eventually(lambda: client.connected_url == ways.two.url)
    assert (ways.one.accepted, ways.two.accepted) == (1, 1)
    assert client.servers == (ways.two.url,)
    assert not events.items


def test_a_lost_server_that_is_still_named_is_the_last_one_to_be_tried(ways: Ways, connect: Connect) -> None:
    client = connect(ways.one.url, **LONG)
    client.set_server_pool(ways.urls)
    ways.lose(client, refuse=False)
    eventually(lambda: client.connected_url == ways.two.url)
    assert (ways.one.accepted, ways.two.accepted) == (1, 1)
    assert client.servers == (ways.two.url, ways.one.url)


def test_force_reconnect_moves_at_once(ways: Ways, connect: Connect) -> None:
    client = connect(ways.one.url, **LONG)
    sub = client.subscribe("moved")
    client.set_server_pool(ways.two.url)
    client.force_reconnect()
    eventually(lambda: client.connected_url == ways.two.url)
    client.publish("moved", b"over there")
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"over there"
    assert ways.one.accepted == 1


def test_a_lost_server_that_was_away_and_is_named_again_is_the_lost_one(ways: Ways, connect: Connect) -> None:
    client = connect(ways.one.url, max_reconnect_attempts=0, **FAST)
    client.set_server_pool(ways.two.url)
    client.set_server_pool(ways.urls)
    ways.lose(client, refuse=False)
    eventually(lambda: client.stats.reconnects == 1 and client.is_connected)
    assert client.connected_url == ways.two.url


# Reconnecting


def test_the_next_step_uses_the_new_servers(ways: Ways, connect: Connect) -> None:
    events = Recorder()
    client = connect(ways.one.url, reconnect_error_cb=events, **FAST)
    ways.lose(client)
    events.wait_for(2)
    client.set_server_pool(ways.two.url)
    eventually(lambda: client.connected_url == ways.two.url)
    assert set(tried(events)) == {ways.one.url}
    assert client.servers == (ways.two.url,)


def test_old_servers_are_not_tried_any_more(ways: Ways, connect: Connect) -> None:
    events = Recorder()
    client = connect(ways.one.url, reconnect_error_cb=events, **FAST)
    ways.two.refuse()
    ways.lose(client)
    events.wait_for(2)
    client.set_server_pool(ways.two.url)
    eventually(lambda: ways.two.url in tried(events))  # what was under way has come to its end
    ways.one.accept()
    before = len(events)
    eventually(lambda: len(events) > before + 3)
    assert set(tried(events)[before:]) == {ways.two.url}
    assert ways.one.accepted == 1
    assert client.is_reconnecting


def test_a_pause_under_way_goes_on(ways: Ways, connect: Connect) -> None:
    client = connect(ways.one.url, **LONG)
    ways.lose(client)
    client.set_server_pool(ways.two.url)
    never(lambda: client.is_connected or ways.two.accepted, 0.1)


def test_a_pause_that_is_cut_short_is_followed_by_a_new_server(ways: Ways, connect: Connect) -> None:
    asked = Recorder()

    def delay(passes: int) -> float:
        asked(passes)
        return 60.0

    client = connect(ways.one.url, reconnect_delay_cb=delay, **FAST)
    ways.lose(client)
    asked.wait_for(1)  # a server is chosen, and the pause before it has begun
    ways.one.accept()
    client.set_server_pool(ways.two.url)
    client.force_reconnect()
    eventually(lambda: client.stats.reconnects == 1 and client.is_connected)
    assert client.connected_url == ways.two.url
    assert ways.one.accepted == 1


def test_a_pause_that_comes_to_its_end_is_followed_by_a_new_server(ways: Ways, connect: Connect) -> None:
    def delay(passes: int) -> float:
        client.set_server_pool(ways.two.url)  # a server is chosen, and the pause before it is about to begin
        return 0.05

    client = connect(ways.one.url, reconnect_delay_cb=delay, **FAST)
    ways.lose(client, refuse=False)
    eventually(lambda: client.stats.reconnects == 1 and client.is_connected)
    assert client.connected_url == ways.two.url
    assert ways.one.accepted == 1


# Attempts


def test_servers_that_stay_keep_their_attempts(ways: Ways, connect: Connect) -> None:
    failed, closed = Recorder(), Recorder()
    client = connect(
        ways.one.url,
        max_reconnect_attempts=3,
        reconnect_delay_cb=lambda passes: 60.0 if passes <= 3 else 0.0,
        reconnect_error_cb=failed,
        closed_cb=closed,
        **FAST,
    )
    ways.two.refuse()
    ways.lose(client)
    for number in (1, 2):
        client.force_reconnect()
        failed.wait_for(number)
    client.set_server_pool(ways.urls)
    client.force_reconnect()
    (event,) = closed.wait_for(1)
    assert [tried(failed).count(url) for url in ways.urls] == [3, 3]
    assert isinstance(event.error, NoServersError)
    assert set(event.error.errors) == set(ways.urls)


def test_a_server_that_had_used_up_its_attempts_gets_new_ones(ways: Ways, connect: Connect) -> None:
    failed, closed = Recorder(), Recorder()
    client = connect(
        ways.urls,
        max_reconnect_attempts=1,
        reconnect_delay_cb=lambda passes: 60.0 if passes == 1 else 0.0,
        reconnect_error_cb=failed,
        closed_cb=closed,
        **FAST,
    )
    ways.two.refuse()
    ways.lose(client)
    eventually(lambda: client.servers == (ways.one.url,))
    failed.wait_for(1)
    assert tried(failed) == [ways.two.url]
    client.set_server_pool([ways.two.url, ways.one.url])
    client.force_reconnect()
    closed.wait_for(1)
    assert tried(failed) == [ways.two.url, ways.one.url, ways.two.url]


# Discovered servers


def tells_when_asked(ask: threading.Event, before: list[str], after: list[str]) -> Callable[[Conn], None]:
    def script(conn: Conn) -> None:
        conn.handshake(connect_urls=before)
        assert ask.wait(5.0 * TIME_FACTOR)
        conn.send_info(connect_urls=after, client_id=100)
        conn.serve()

    return script


@pytest.mark.parametrize("ignored", [False, True])
def test_what_the_cluster_tells_later_is_added_again(ignored: bool, scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    ask = threading.Event()
    server = scripted(tells_when_asked(ask, ["10.0.0.1:4222"], ["10.0.0.1:4222", "10.0.0.2:4222"]))
    client = connect(server.url, discovered_server_cb=events, ignore_discovered_servers=ignored, **FAST)
    assert client.discovered_servers == (() if ignored else ("nats://10.0.0.1:4222",))
    client.set_server_pool(["nats://10.0.0.9:4222", server.url])
    assert client.servers == ("nats://10.0.0.9:4222", server.url)
    assert client.discovered_servers == ()
    ask.set()
    eventually(lambda: client.client_id == 100)
    client.flush()
    if ignored:
        never(lambda: client.discovered_servers or events.items, 0.05)
        return
    eventually(lambda: set(client.discovered_servers) == {"nats://10.0.0.1:4222", "nats://10.0.0.2:4222"})
    (event,) = events.wait_for(1)
    assert event.urls == ("nats://10.0.0.2:4222",)  # the other one has been reported by its time


def test_a_discovered_server_that_is_given_now_stays(scripted: Scripted, connect: Connect) -> None:
    ask = threading.Event()
    server = scripted(tells_when_asked(ask, ["10.0.0.1:4222"], ["10.0.0.2:4222"]))
    client = connect(server.url, **FAST)
    client.set_server_pool([server.url, "10.0.0.1:4222"])
    ask.set()
    eventually(lambda: client.discovered_servers == ("nats://10.0.0.2:4222",))
    assert set(client.servers) == {server.url, "nats://10.0.0.1:4222", "nats://10.0.0.2:4222"}


def test_a_server_that_is_not_in_the_pool_may_tell_of_others(scripted: Scripted, connect: Connect) -> None:
    ask = threading.Event()
    server = scripted(tells_when_asked(ask, [], ["10.0.0.2:4222"]))
    client = connect(server.url, **FAST)
    client.set_server_pool("10.0.0.1:4222")
    ask.set()
    eventually(lambda: set(client.servers) == {"nats://10.0.0.1:4222", "nats://10.0.0.2:4222"})
    client.flush()
    assert client.connected_url == server.url


# Where it is called


@pytest.mark.parametrize("name", ["disconnected_cb", "reconnect_error_cb"])
def test_an_event_callback_may_call_it(name: str, ways: Ways, connect: Connect) -> None:
    client = connect(ways.one.url, **{name: lambda event: event.client.set_server_pool(ways.two.url)}, **FAST)
    ways.lose(client)
    eventually(lambda: client.connected_url == ways.two.url)
    client.flush()


def test_reconnect_to_server_cb_may_call_it_and_choose_a_new_one(ways: Ways, connect: Connect) -> None:
    asked = Recorder()

    def choose(servers: tuple[str, ...], info: object) -> tuple[str, float]:
        asked(servers)
        client.set_server_pool(ways.two.url)
        return ways.two.url, 0.0

    client = connect(ways.one.url, reconnect_to_server_cb=choose, **LONG)
    ways.lose(client, refuse=False)
    eventually(lambda: client.connected_url == ways.two.url)
    assert asked.items == [(ways.one.url,)]
    assert ways.one.accepted == 1


def test_a_message_callback_may_call_it(ways: Ways, connect: Connect) -> None:
    client = connect(ways.one.url, **LONG)

    def move(msg: Any) -> None:
        client.set_server_pool(msg.data.decode())
        client.force_reconnect()

    client.subscribe("move", cb=move)
    client.publish("move", ways.two.url.encode())
    eventually(lambda: client.connected_url == ways.two.url)


def test_closed_cb_is_too_late(ways: Ways, connect: Connect) -> None:
    raised = Recorder()

    def try_it(event: Any) -> None:
        try:
            event.client.set_server_pool(ways.two.url)
        except ConnectionClosedError as error:
            raised(error)

    client = connect(ways.one.url, allow_reconnect=False, closed_cb=try_it, **FAST)
    ways.one.cut()
    raised.wait_for(1)
    assert client.is_closed


def test_many_threads_change_the_pool_while_the_client_is_lost_again_and_again(ways: Ways, connect: Connect) -> None:
    client = connect(ways.urls, **FAST | {"reconnect_time_wait": 0.0})
    over = threading.Event()

    def change(servers: list[str]) -> None:
        while not over.is_set():
            client.set_server_pool(servers)

    choices = [ways.urls, [ways.one.url], [ways.two.url], ways.urls[::-1]]
    threads = [threading.Thread(target=change, args=(servers,)) for servers in choices]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            before = client.stats.reconnects
            ways.one.cut()
            ways.two.cut()
            eventually(lambda before=before: client.stats.reconnects > before)  # type: ignore[misc]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    client.set_server_pool(ways.two.url)
    client.flush()
    assert client.servers == (ways.two.url,)
