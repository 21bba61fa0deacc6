"""`-ERR`: for every text that the client knows, whether it stays, connects anew, or ends."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from natsync import (
    AuthExpiredError,
    AuthorizationError,
    AuthRevokedError,
    ConnectionClosedError,
    MaxConnectionsError,
    MaxSubscriptionsError,
    NatsError,
    PermissionsError,
    ServerError,
    StaleConnectionError,
)
from natsync.events import AsyncError, Closed, Disconnected, Reconnected, ReconnectFailed
from natsync.testing import NatsServer
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

AUTH: list[tuple[str, type[AuthorizationError]]] = [
    ("Authorization Violation", AuthorizationError),
    ("User Authentication Expired", AuthExpiredError),
    ("User Authentication Revoked", AuthRevokedError),
    ("Account Authentication Expired", AuthExpiredError),
]


def watched(events: Recorder) -> dict[str, Any]:
    """Options that make a client quick, and have all events but the first in one list."""
    names = ("disconnected_cb", "reconnected_cb", "reconnect_error_cb", "closed_cb", "error_cb")
    fast = {"reconnect_time_wait": 0.02, "reconnect_jitter": 0.0}
    return dict.fromkeys(names, events) | fast


def kinds(events: Recorder) -> list[type]:
    return [type(event) for event in events.items]


def good(conn: Conn) -> None:
    conn.handshake()
    conn.serve()


def says(text: str) -> Callable[[Conn], None]:
    """A server that complains after a good handshake, and goes on."""

    def script(conn: Conn) -> None:
        conn.handshake()
        conn.send(b"-ERR '%b'\r\n" % text.encode())
        conn.serve()

    return script


def says_and_closes(text: str) -> Callable[[Conn], None]:
    def script(conn: Conn) -> None:
        conn.handshake()
        conn.send(b"-ERR '%b'\r\n" % text.encode())

    return script


def refuses(text: str) -> Callable[[Conn], None]:
    """A server that does not let the client in."""

    def script(conn: Conn) -> None:
        conn.send_info(auth_required=True)
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(b"-ERR '%b'\r\n" % text.encode())

    return script


# Connects anew


@pytest.mark.parametrize(
    "text, kind",
    [
        ("Stale Connection", StaleConnectionError),
        ("maximum connections exceeded", MaxConnectionsError),
        ("maximum account active connections exceeded", MaxConnectionsError),
    ],
)
@pytest.mark.parametrize("closes", [False, True])
def test_connects_anew(closes: bool, text: str, kind: type[NatsError], scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted([says_and_closes(text) if closes else says(text), good])
    client = connect(server.url, **watched(events))
    lost, found = events.wait_for(2)
    assert (type(lost), type(found)) == (Disconnected, Reconnected)
    assert type(lost.error) is kind
    assert lost.server == found.server == server.url
    client.flush()
    assert len(events) == 2
    assert client.stats.reconnects == 1


# Stays


@pytest.mark.parametrize(
    "text, kind",
    [
        ('Permissions Violation for Publish to "Secret.Plans"', PermissionsError),
        ('Permissions Violation for Subscription to "nobody.has.it"', PermissionsError),
        ("Permissions Violation", PermissionsError),
        ("maximum subscriptions exceeded", MaxSubscriptionsError),
    ],
)
def test_stays_connected(text: str, kind: type[NatsError], scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted(says(text))
    client = connect(server.url, **watched(events))
    (event,) = events.wait_for(1)
    assert type(event) is AsyncError
    assert type(event.error) is kind
    assert isinstance(event.error, ServerError)
    assert event.error.text == text
    assert (event.server, event.subscription) == (server.url, None)
    client.flush()
    assert client.last_error is event.error
    assert (client.stats.errors, client.stats.reconnects, server.accepted) == (1, 0, 1)


def test_a_refused_subscription_is_named_and_its_reader_is_told(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()

    def script(conn: Conn) -> None:
        conn.handshake()
        *_, sid = [conn.expect(b"SUB ").split()[-1].decode() for _ in range(4)]
        conn.send(b'-ERR \'Permissions Violation for Subscription to "Mine" using queue "q"\'\r\n')
        conn.send_msg("other", sid, b"fine")
        conn.serve()

    client = connect(scripted(script).url, **watched(events))
    refused = client.subscribe("Mine", queue="q")
    spared = [client.subscribe("Mine"), client.subscribe("mine", queue="q")]
    other = client.subscribe("other")
    (event,) = events.wait_for(1)
    assert event.subscription is refused
    assert isinstance(event.error, PermissionsError)
    assert (event.error.operation, event.error.subject, event.error.queue) == ("subscription", "Mine", "q")
    for _ in range(2):
        with pytest.raises(PermissionsError):
            refused.next_msg(timeout=1.0)
    assert other.next_msg(timeout=5.0 * TIME_FACTOR).data == b"fine"
    assert all(sub.is_valid for sub in spared)


def test_a_refusal_is_forgotten_at_the_next_connection(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()

    def first(conn: Conn) -> None:
        conn.handshake()
        conn.expect(b"SUB ")
        conn.send(b"-ERR 'Permissions Violation for Subscription to \"mine\"'\r\n")
        conn.expect(b"PUB done ")

    def second(conn: Conn) -> None:
        conn.handshake()
        sid = conn.expect(b"SUB mine ").split()[-1].decode()
        conn.send_msg("mine", sid, b"now")
        conn.serve()

    client = connect(scripted([first, second]).url, **watched(events))
    sub = client.subscribe("mine")
    events.wait_for(1)
    with pytest.raises(PermissionsError):
        sub.next_msg()
    client.publish("done")
    eventually(lambda: client.stats.reconnects == 1)
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"now"


def test_a_waiting_reader_of_a_refused_subscription_is_woken(scripted: Scripted, connect: Connect) -> None:
    refuse = threading.Event()

    def script(conn: Conn) -> None:
        conn.handshake()
        conn.expect(b"SUB ")
        refuse.wait(5.0 * TIME_FACTOR)
        conn.send(b"-ERR 'Permissions Violation for Subscription to \"mine\"'\r\n")
        conn.serve()

    sub = connect(scripted(script).url).subscribe("mine")
    got = Recorder()

    def read() -> None:
        try:
            sub.next_msg()
        except NatsError as error:
            got(error)

    reader = threading.Thread(target=read)
    reader.start()
    never(lambda: got.items, 0.05)
    refuse.set()
    (error,) = got.wait_for(1)
    reader.join()
    assert type(error) is PermissionsError


# Credentials


@pytest.mark.parametrize("text, kind", AUTH)
def test_a_credentials_error_is_reported_and_the_server_ends_the_connection(
    text: str, kind: type[NatsError], scripted: Scripted, connect: Connect
) -> None:
    events = Recorder()
    client = connect(scripted([says_and_closes(text), good]).url, **watched(events))
    events.wait_for(3)
    assert kinds(events) == [AsyncError, Disconnected, Reconnected]
    assert [type(event.error) for event in events.items] == [kind, kind, type(None)]
    client.flush()


def test_the_server_may_take_its_time_to_end_the_connection(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    client = connect(scripted([says("User Authentication Expired"), good]).url, **watched(events))
    events.wait_for(1)
    client.flush()
    never(lambda: len(events) > 1, 0.1)


@pytest.mark.parametrize("text, kind", AUTH)
def test_the_same_credentials_error_twice_in_a_row_is_the_end(
    text: str, kind: type[NatsError], scripted: Scripted, connect: Connect
) -> None:
    events = Recorder()
    server = scripted([says_and_closes(text), refuses(text), good])
    client = connect(server.url, **watched(events))
    assert client.wait_closed(5.0 * TIME_FACTOR)
    events.wait_for(4)
    assert kinds(events) == [AsyncError, Disconnected, ReconnectFailed, Closed]
    assert all(type(event.error) is kind for event in events.items)
    assert server.accepted == 2
    with pytest.raises(ConnectionClosedError) as caught:
        client.publish("late")
    assert type(caught.value.__cause__) is kind


def test_a_refusal_at_two_attempts_is_the_end(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    text = "Authorization Violation"
    server = scripted([lambda conn: conn.handshake(), refuses(text), refuses(text), good])
    client = connect(server.url, **watched(events))
    assert client.wait_closed(5.0 * TIME_FACTOR)
    events.wait_for(4)
    assert kinds(events) == [Disconnected, ReconnectFailed, ReconnectFailed, Closed]
    assert server.accepted == 3


def test_a_success_in_between_starts_the_count_anew(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    text = "User Authentication Expired"
    server = scripted([says_and_closes(text)] * 4 + [good])
    client = connect(server.url, **watched(events))
    eventually(lambda: client.stats.reconnects == 4)
    client.flush()
    eventually(lambda: kinds(events).count(Disconnected) == 4)
    assert not client.is_closed


def test_two_different_credentials_errors_are_not_the_end(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted([says_and_closes(AUTH[1][0]), refuses(AUTH[0][0]), refuses(AUTH[2][0]), good])
    client = connect(server.url, **watched(events))
    eventually(lambda: client.stats.reconnects == 1)
    assert [type(event.error) for event in events.wait_for(5)] == [
        AuthExpiredError,
        AuthExpiredError,
        AuthorizationError,
        AuthRevokedError,
        type(None),
    ]


def test_the_same_error_from_two_servers_is_not_the_end(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    text = "Authorization Violation"
    one, two = scripted([says_and_closes(text), good]), scripted([refuses(text)])
    client = connect([one.url, two.url], **watched(events))
    eventually(lambda: client.stats.reconnects == 1)
    assert client.connected_url == one.url
    events.wait_for(4)
    assert kinds(events) == [AsyncError, Disconnected, ReconnectFailed, Reconnected]


def test_ignore_auth_error_abort_goes_on(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    text = "Authorization Violation"
    server = scripted([says_and_closes(text), *[refuses(text)] * 5, good])
    client = connect(server.url, ignore_auth_error_abort=True, **watched(events))
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()
    events.wait_for(8)
    assert kinds(events) == [AsyncError, Disconnected, *[ReconnectFailed] * 5, Reconnected]


def test_a_credentials_error_without_reconnecting_is_the_end(scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    client = connect(scripted(says_and_closes(AUTH[1][0])).url, allow_reconnect=False, **watched(events))
    assert client.wait_closed(5.0 * TIME_FACTOR)
    events.wait_for(3)
    assert kinds(events) == [AsyncError, Disconnected, Closed]
    assert all(type(event.error) is AuthExpiredError for event in events.items)


# Ends


@pytest.mark.parametrize(
    "text",
    [
        "Unknown Protocol Operation",
        "Invalid Publish Subject",
        "Maximum Payload Violation",
        "Something That Nobody Knows",
        "",
    ],
)
@pytest.mark.parametrize("closes", [False, True])
def test_any_other_error_is_the_end(closes: bool, text: str, scripted: Scripted, connect: Connect) -> None:
    events = Recorder()
    server = scripted([says_and_closes(text) if closes else says(text), good])
    client = connect(server.url, **watched(events))
    assert client.wait_closed(5.0 * TIME_FACTOR)
    lost, closed = events.wait_for(2)
    assert (type(lost), type(closed)) == (Disconnected, Closed)
    for event in (lost, closed):
        assert type(event.error) is ServerError
        assert event.error.text == text
    assert client.last_error is closed.error
    assert server.accepted == 1
    with pytest.raises(ConnectionClosedError) as caught:
        client.publish("late")
    assert caught.value.__cause__ is closed.error
    never(lambda: server.accepted > 1, 0.1)


def test_the_end_wakes_everybody_with_the_cause(scripted: Scripted, connect: Connect) -> None:
    end = threading.Event()
    raised = Recorder()

    def script(conn: Conn) -> None:
        conn.handshake()
        conn.read_until(b"PING\r\n")
        end.wait(5.0 * TIME_FACTOR)
        conn.send(b"-ERR 'Over'\r\n")

    client = connect(scripted(script).url)
    sub = client.subscribe("a")

    def waits(name: str, call: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                raised((name, call()))
            except NatsError as error:
                raised((name, error))

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [
        waits("next_msg", sub.next_msg),
        waits("loop", lambda: list(sub)),
        waits("request", lambda: client.request("x", timeout=30.0)),
        waits("request_future", lambda: client.request_future("x", timeout=30.0).result()),
        waits("request_many", lambda: list(client.request_many("x", timeout=30.0))),
    ]
    eventually(lambda: client.stats.out_msgs == 3)
    threads.append(waits("flush", client.flush))
    never(lambda: raised.items, 0.1)
    end.set()
    outcomes = dict(raised.wait_for(6))
    for thread in threads:
        thread.join()
    assert outcomes.pop("loop") == []
    # The flush may have been told of the loss, or of the end that followed.
    assert type(outcomes["flush"].__cause__) is ServerError
    del outcomes["flush"]
    for name, outcome in outcomes.items():
        assert type(outcome) is ConnectionClosedError, name
        assert type(outcome.__cause__) is ServerError, name


# Last words


def closes_in_order(conn: Conn) -> None:
    conn.close()


def closes_with_bytes_unread(conn: Conn) -> None:
    conn._socket.close()


def resets(conn: Conn) -> None:
    conn.reset()


@pytest.mark.parametrize("close", [closes_in_order, closes_with_bytes_unread, resets])
@pytest.mark.parametrize(
    "text, kind", [("Over And Out", ServerError), ("maximum connections exceeded", MaxConnectionsError)]
)
def test_last_words_are_heard_while_we_publish_heavily(
    close: Callable[[Conn], None], text: str, kind: type[NatsError], scripted: Scripted, connect: Connect
) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        conn.read_exactly(200_000)
        conn.send(b"-ERR '%b'\r\n" % text.encode())
        close(conn)

    for _ in range(8):
        lost = Recorder()
        client = connect(scripted([script]).url, disconnected_cb=lost, max_reconnect_attempts=0)
        stop = threading.Event()

        def publish(client: Client = client, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                try:
                    client.publish("heavy", bytes(500))
                except NatsError:
                    return

        threads = [threading.Thread(target=publish) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            (event,) = lost.wait_for(1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert type(event.error) is kind, "the failed write hid what the server said"


# Real servers

PERMISSIONS = """
authorization {
  users = [
    {user: a, password: a, permissions: {publish: {deny: "Deny.Pub"}, subscribe: {deny: ["Deny.Sub", "q.sub bad"]}}}
  ]
}
"""


@pytest.fixture
def strict_server() -> Iterator[NatsServer]:
    with NatsServer(PERMISSIONS) as server:
        yield server


def test_permissions_of_a_real_server(strict_server: NatsServer, connect: Connect) -> None:
    events = Recorder()
    client = connect(f"nats://a:a@127.0.0.1:{strict_server.port}", **watched(events))
    client.publish("Deny.Pub")
    denied = client.subscribe("Deny.Sub")
    in_queue = client.subscribe("q.sub", queue="bad")
    client.flush()
    publish, subscribe, queue = (event.error for event in events.wait_for(3))
    assert (publish.operation, publish.subject, publish.queue) == ("publish", "Deny.Pub", None)
    assert (subscribe.operation, subscribe.subject, subscribe.queue) == ("subscription", "Deny.Sub", None)
    assert (queue.operation, queue.subject, queue.queue) == ("subscription", "q.sub", "bad")
    assert [event.subscription for event in events.items] == [None, denied, in_queue]
    for sub in (denied, in_queue):
        with pytest.raises(PermissionsError):
            sub.next_msg(timeout=1.0)
    assert client.stats.reconnects == 0


def test_max_subscriptions_of_a_real_server(connect: Connect) -> None:
    events = Recorder()
    with NatsServer("max_subs: 2\n") as server:
        client = connect(server.url, **watched(events))
        subs = [client.subscribe(f"s.{number}") for number in range(3)]
        client.flush()
        (event,) = events.wait_for(1)
        assert type(event.error) is MaxSubscriptionsError
        client.publish("s.1", b"fine")
        assert subs[1].next_msg(timeout=5.0 * TIME_FACTOR).data == b"fine"
        client.close()


def test_max_connections_of_a_real_server(fresh_server: NatsServer, connect: Connect) -> None:
    events = Recorder()
    clients = [connect(fresh_server.url, **watched(events)) for _ in range(2)]
    fresh_server.reload("max_connections: 1\n")
    lost = events.wait_for(1)[0]
    assert type(lost) is Disconnected
    assert type(lost.error) is MaxConnectionsError
    fresh_server.reload("max_connections: 10\n")
    for client in clients:
        eventually(lambda client=client: client.is_connected)  # type: ignore[misc]
        client.flush()


def test_credentials_changed_on_a_real_server(connect: Connect) -> None:
    events = Recorder()
    config = "authorization {{ user: u, password: {} }}\n"
    with NatsServer(config.format("old")) as server:
        client = connect(server.url, user="u", password="old", **watched(events))
        server.reload(config.format("new"))
        assert client.wait_closed(5.0 * TIME_FACTOR)
        closed = eventually(lambda: [event for event in events.items if type(event) is Closed])[0]
        assert type(closed.error) is AuthorizationError
        # A reload ends the connection in silence; the two attempts afterwards are refused in words.
        assert kinds(events) == [Disconnected, ReconnectFailed, ReconnectFailed, Closed]


def test_user_info_cb_gives_new_credentials_after_a_change(connect: Connect) -> None:
    events = Recorder()
    config = "authorization {{ user: u, password: {} }}\n"
    passwords = ["old"]
    with NatsServer(config.format("old")) as server:
        client = connect(server.url, user_info_cb=lambda: ("u", passwords[-1]), **watched(events))
        passwords.append("new")
        server.reload(config.format("new"))
        eventually(lambda: client.stats.reconnects == 1)
        client.flush()
        eventually(lambda: kinds(events)[-1:] == [Reconnected])
        client.close()
