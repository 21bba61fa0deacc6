"""Connecting: what a client says of itself, and what is raised when no server can be used."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import natsync
from natsync import Client, Status
from natsync.errors import (
    AuthorizationError,
    ConfigError,
    MaxConnectionsError,
    NatsError,
    NatsTimeoutError,
    NoServersError,
    ProtocolError,
    TLSError,
)
from natsync.testing import NatsServer
from tests.support.leaks import describe_leaks, natsync_threads, open_sockets
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn

Connect = Callable[..., Client]
Scripted = Callable[..., Any]

PATIENCE = 5.0 * TIME_FACTOR


# A good server


@pytest.mark.parametrize("form", ["nats://{}", "{}", " nats://{}/ ", "{},", ["nats://{}"], ("{}",)], ids=str)
def test_the_forms_of_servers(connect: Connect, nats_server: NatsServer, form: Any) -> None:
    address = f"127.0.0.1:{nats_server.port}"
    servers = form.format(address) if isinstance(form, str) else [each.format(address) for each in form]
    client = connect(servers)
    assert client.connected_url == nats_server.url
    assert client.status is Status.CONNECTED
    assert client.is_connected


def test_localhost_is_looked_up(connect: Connect, nats_server: NatsServer) -> None:
    assert connect(f"localhost:{nats_server.port}").connected_url == f"nats://localhost:{nats_server.port}"


def test_an_ipv6_address_stands_in_brackets(connect: Connect) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with NatsServer(args=("-a", "::1")) as server:
        client = connect(f"nats://[::1]:{server.port}")
        assert client.connected_url == f"nats://[::1]:{server.port}"
        client.flush()
        client.close()


def test_the_first_server_that_works_is_used(
    connect: Connect, nats_server: NatsServer, fresh_server: NatsServer
) -> None:
    fresh_server.stop()
    client = connect(f"{fresh_server.url},{nats_server.url}", dont_randomize=True)
    assert client.connected_url == nats_server.url
    assert set(client.servers) == {nats_server.url, fresh_server.url}


def test_the_first_server_given_is_tried_first(connect: Connect, nats_server: NatsServer) -> None:
    with NatsServer() as second, NatsServer() as third:
        for _ in range(5):
            client = connect([nats_server.url, second.url, third.url])
            assert client.connected_url == nats_server.url
            client.close()


def test_the_server_is_told_who_connects(connect: Connect, fresh_server: NatsServer) -> None:
    connect(fresh_server.url, name="its name")
    (shown,) = fresh_server.connz()["connections"]
    assert shown["name"] == "its name"
    assert shown["lang"].startswith("python")
    assert shown["version"] == natsync.__version__


@pytest.mark.parametrize(
    "options", [{}, {"verbose": True}, {"pedantic": True}, {"verbose": True, "pedantic": True}], ids=str
)
def test_verbose_and_pedantic_clients_work_alike(
    connect: Connect, nats_server: NatsServer, options: dict[str, Any]
) -> None:
    client = connect(nats_server.url, **options)
    with client.subscribe("connect.*") as sub:
        for _ in range(100):
            client.publish("connect.x", b"data", headers={"a": "b"})
        client.flush()
        assert sub.pending_msgs == 100
    client.subscribe("connect.echo", cb=lambda msg: msg.respond(msg.data))
    assert client.request("connect.echo", b"echo").data == b"echo"
    assert client.last_error is None


@pytest.mark.parametrize("no_echo, own", [(False, 1), (True, 0)])
def test_a_client_hears_itself_unless_told_not_to(
    connect: Connect, nats_server: NatsServer, no_echo: bool, own: int
) -> None:
    client, other = connect(nats_server.url, no_echo=no_echo), connect(nats_server.url)
    sub = client.subscribe("connect.echo")
    client.publish("connect.echo")
    client.flush()
    assert sub.pending_msgs == own
    other.publish("connect.echo")
    other.flush()
    client.flush()
    assert sub.pending_msgs == own + 1


def test_what_connect_says_on_the_wire(connect: Connect, scripted: Scripted) -> None:
    def script(conn: Conn) -> None:
        conn.handshake()
        conn.serve()

    server = scripted(script)
    connect(server.url, name="n", verbose=False, pedantic=True, no_echo=True)
    (said,) = server.connects
    expected = {"name": "n", "verbose": False, "pedantic": True, "echo": False, "headers": True, "no_responders": True}
    assert {key: said[key] for key in expected} == expected
    assert (said["protocol"], said["tls_required"]) == (1, False)
    assert {"lang", "version"} <= set(said)
    assert not {"user", "pass", "auth_token", "jwt", "nkey", "sig"} & set(said)


# The dialer


def test_a_dialer_is_used_in_place_of_the_built_in_one(connect: Connect, proxy: FaultProxy) -> None:
    asked = Recorder()

    def dial(host: str, port: int, timeout: float) -> socket.socket:
        asked(host, port, timeout)
        return socket.create_connection(("127.0.0.1", proxy.port), timeout)

    client = connect("nats://elsewhere.invalid:1234", dialer=dial, connect_timeout=1.5)
    client.flush()
    ((host, port, timeout),) = asked.items
    assert (host, port) == ("elsewhere.invalid", 1234)
    assert 0 < timeout <= 1.5
    assert proxy.accepted == 1


@pytest.mark.parametrize("error", [OSError("no way"), ConnectionRefusedError(), ValueError("mine")], ids=repr)
def test_a_dialer_that_fails_is_a_server_that_cannot_be_reached(connect: Connect, error: Exception) -> None:
    def dial(host: str, port: int, timeout: float) -> socket.socket:
        raise error

    with pytest.raises(NoServersError) as caught:
        connect("nats://elsewhere.invalid", dialer=dial)
    assert caught.value.errors["nats://elsewhere.invalid:4222"].__cause__ is error


def test_the_default_is_the_local_server() -> None:
    asked = Recorder()

    def dial(host: str, port: int, timeout: float) -> socket.socket:
        asked(host, port)
        raise ConnectionRefusedError

    with pytest.raises(NoServersError) as caught:
        natsync.connect(dialer=dial)
    assert asked.items == [("127.0.0.1", 4222)]
    assert set(caught.value.errors) == {"nats://127.0.0.1:4222"}


# Servers that cannot be used


def refuse(conn: Conn) -> None:
    conn.send_info(auth_required=True)
    conn.expect(b"CONNECT")
    conn.send(b"-ERR 'Authorization Violation'\r\n")


def want_tls(conn: Conn) -> None:
    conn.send_info(tls_required=True)
    with contextlib.suppress(AssertionError, OSError):  # what the client says is not the matter here
        conn.read_exactly(5)
        conn.send(b"this is no TLS")
    conn.wait_eof()


def talk_nonsense(conn: Conn) -> None:
    conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    conn.wait_eof()


def stay_silent(conn: Conn) -> None:
    conn.wait_eof()


def stay_silent_after_info(conn: Conn) -> None:
    conn.send_info()
    conn.wait_eof()


def hang_up(conn: Conn) -> None:
    conn.close()


def hang_up_after_info(conn: Conn) -> None:
    conn.send_info()
    conn.expect(b"CONNECT")
    conn.close()


def is_full(conn: Conn) -> None:
    conn.send_info()
    conn.send(b"-ERR 'maximum connections exceeded'\r\n")


REFUSED = "refused"
BEHAVIOURS: dict[Any, type[NatsError]] = {
    refuse: AuthorizationError,
    want_tls: TLSError,
    talk_nonsense: ProtocolError,
    stay_silent: NatsTimeoutError,
    stay_silent_after_info: NatsTimeoutError,
    hang_up: NoServersError,
    hang_up_after_info: NoServersError,
    is_full: MaxConnectionsError,
}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, kept from others by a socket that is bound and does not listen."""
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda each: each.__name__)
def test_what_one_server_does_is_raised(connect: Connect, scripted: Scripted, behaviour: Any) -> None:
    threads, sockets = set(natsync_threads()), open_sockets()
    server = scripted(behaviour)
    before = open_sockets() - sockets
    with pytest.raises(BEHAVIOURS[behaviour]) as caught:
        connect(server.url, connect_timeout=0.5 * TIME_FACTOR)
    assert type(caught.value) is BEHAVIOURS[behaviour]
    assert set(caught.value.errors) == {server.url}
    assert type(caught.value.errors[server.url]) is BEHAVIOURS[behaviour]
    server.is_over = True
    eventually(lambda: describe_leaks(threads, sockets | before) == "")


def test_a_refused_connection_is_raised(connect: Connect, closed_port: int) -> None:
    url = f"nats://127.0.0.1:{closed_port}"
    began = time.monotonic()
    with pytest.raises(NoServersError) as caught:
        connect(url)
    assert time.monotonic() - began < 1.5 * TIME_FACTOR
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value.errors[url], NoServersError)
    assert url in str(caught.value)


def test_an_unknown_name_is_raised(connect: Connect) -> None:
    with pytest.raises(NoServersError) as caught:
        connect("nats://no-such-host.invalid:4222", connect_timeout=PATIENCE)
    assert set(caught.value.errors) == {"nats://no-such-host.invalid:4222"}
    eventually(lambda: not natsync_threads())


ORDER: list[Any] = [refuse, want_tls, talk_nonsense, stay_silent, REFUSED]


@pytest.mark.parametrize("direction", [1, -1], ids=["the telling one first", "the telling one last"])
@pytest.mark.parametrize("most_telling", range(len(ORDER)), ids=lambda at: getattr(ORDER[at], "__name__", ORDER[at]))
def test_the_most_telling_error_is_raised(
    connect: Connect, scripted: Scripted, closed_port: int, most_telling: int, direction: int
) -> None:
    expected: dict[str, type[NatsError]] = {}
    for behaviour in ORDER[most_telling:][::direction]:
        if behaviour is REFUSED:
            expected[f"nats://127.0.0.1:{closed_port}"] = NoServersError
        else:
            expected[scripted(behaviour).url] = BEHAVIOURS[behaviour]
    with pytest.raises(NatsError) as caught:
        connect(list(expected), dont_randomize=True, connect_timeout=0.7 * TIME_FACTOR)
    assert type(caught.value) is BEHAVIOURS.get(ORDER[most_telling], NoServersError)
    assert {url: type(error) for url, error in caught.value.errors.items()} == expected


def test_a_refusing_server_is_passed_over(connect: Connect, scripted: Scripted, nats_server: NatsServer) -> None:
    servers = [scripted(each).url for each in (refuse, want_tls, talk_nonsense, stay_silent, hang_up)]
    client = connect([*servers, nats_server.url], dont_randomize=True, connect_timeout=0.7 * TIME_FACTOR)
    assert client.connected_url == nats_server.url
    client.flush()


# Time


@pytest.mark.parametrize("timeout", [0.1, 0.4])
@pytest.mark.parametrize("behaviour", [stay_silent, stay_silent_after_info])
def test_the_timeout_is_for_each_server(connect: Connect, scripted: Scripted, behaviour: Any, timeout: float) -> None:
    servers = [scripted(behaviour).url for _ in range(2)]
    began = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        connect(servers, connect_timeout=timeout)
    assert 2 * timeout <= time.monotonic() - began < 2 * timeout + 1.3 * TIME_FACTOR


def test_the_timeout_is_for_dialling_and_handshake_together(connect: Connect, scripted: Scripted) -> None:
    over = threading.Event()

    def drip(conn: Conn) -> None:
        for byte in b"INFO" + b" " * 100:
            if over.wait(0.05):
                return
            conn.send(bytes([byte]))

    began = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        connect(scripted(drip).url, connect_timeout=0.3)
    over.set()
    assert 0.3 <= time.monotonic() - began < 1.6 * TIME_FACTOR


def test_a_frozen_server_is_not_waited_for_longer(connect: Connect, fresh_server: NatsServer) -> None:
    fresh_server.pause()
    began = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        connect(fresh_server.url, connect_timeout=0.2)
    assert time.monotonic() - began < 1.5 * TIME_FACTOR


# Credentials

PASSWORD = "p@ss:/w%rd \u00fc#?"
ENCODED = "p%40ss%3A%2Fw%25rd%20%C3%BC%23%3F"


@pytest.fixture(scope="module")
def user_server() -> Iterator[NatsServer]:
    with NatsServer(f'authorization {{ user: "d\u00e9rek", password: "{PASSWORD}" }}') as server:
        yield server


@pytest.fixture(scope="module")
def token_server() -> Iterator[NatsServer]:
    with NatsServer(f'authorization {{ token: "{PASSWORD}" }}') as server:
        yield server


GOOD_USER: list[tuple[str, dict[str, Any]]] = [
    ("", {"user": "d\u00e9rek", "password": PASSWORD}),
    ("", {"user_info_cb": lambda: ("d\u00e9rek", PASSWORD)}),
    (f"d%C3%A9rek:{ENCODED}@", {}),
    (f"d%C3%A9rek:{ENCODED}@", {"user": "other", "password": "wrong"}),
    (f"d%C3%A9rek:{ENCODED}@", {"token": "wrong"}),
]
BAD_USER: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("", {"user": "d\u00e9rek", "password": "wrong"}),
    ("", {"user_info_cb": lambda: ("d\u00e9rek", "wrong")}),
    ("d%C3%A9rek:wrong@", {"user": "d\u00e9rek", "password": PASSWORD}),
    ("", {"token": PASSWORD}),
]
GOOD_TOKEN: list[tuple[str, dict[str, Any]]] = [
    ("", {"token": PASSWORD}),
    ("", {"token_cb": lambda: PASSWORD}),
    (f"{ENCODED}@", {}),
    (f"{ENCODED}@", {"token": "wrong"}),
]
BAD_TOKEN: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("", {"token": "wrong"}),
    ("wrong@", {"token": PASSWORD}),
    ("", {"user": "a", "password": "b"}),
]


def with_user_info(server: NatsServer, user_info: str) -> str:
    return server.url.replace("//", f"//{user_info}")


@pytest.mark.parametrize("user_info, options", GOOD_USER)
def test_a_good_user_is_let_in(
    connect: Connect, user_server: NatsServer, user_info: str, options: dict[str, Any]
) -> None:
    client = connect(with_user_info(user_server, user_info), **options)
    client.flush()
    assert client.connected_url == user_server.url


@pytest.mark.parametrize("user_info, options", GOOD_TOKEN)
def test_a_good_token_is_let_in(
    connect: Connect, token_server: NatsServer, user_info: str, options: dict[str, Any]
) -> None:
    client = connect(with_user_info(token_server, user_info), **options)
    client.flush()
    assert client.connected_url == token_server.url


@pytest.mark.parametrize(
    "kind, user_info, options",
    [("user", *each) for each in BAD_USER] + [("token", *each) for each in BAD_TOKEN],
)
def test_bad_credentials_are_refused_and_not_shown(
    connect: Connect,
    user_server: NatsServer,
    token_server: NatsServer,
    kind: str,
    user_info: str,
    options: dict[str, Any],
) -> None:
    server = user_server if kind == "user" else token_server
    with pytest.raises(AuthorizationError) as caught:
        connect(with_user_info(server, user_info), **options)
    assert set(caught.value.errors) == {server.url}
    assert "authorization violation" in caught.value.text.lower()
    assert caught.value.server == server.url
    shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert PASSWORD not in shown
    assert "wrong" not in shown


def test_the_next_server_with_the_right_credentials_is_used(
    connect: Connect, user_server: NatsServer, token_server: NatsServer
) -> None:
    client = connect([user_server.url, with_user_info(token_server, f"{ENCODED}@")], dont_randomize=True)
    assert client.connected_url == token_server.url


@pytest.mark.parametrize(
    "name, answer", [("token_cb", None), ("token_cb", 1), ("user_info_cb", "text"), ("user_info_cb", ("a",))]
)
def test_a_callback_that_returns_no_credentials_is_a_mistake(
    connect: Connect, token_server: NatsServer, name: str, answer: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(token_server.url, **{name: lambda: answer})
    assert caught.value.option == name


def test_a_callback_that_raises_is_the_cause(connect: Connect, token_server: NatsServer) -> None:
    def fail() -> str:
        raise LookupError("vault")

    with pytest.raises(NatsError) as caught:
        connect(token_server.url, token_cb=fail)
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_full_server_says_so(connect: Connect) -> None:
    with NatsServer("max_connections: 1") as server:
        first = connect(server.url)
        with pytest.raises(MaxConnectionsError) as caught:
            connect(server.url)
        assert set(caught.value.errors) == {server.url}
        first.close()


# Mistakes, found before anything is opened


@pytest.mark.parametrize(
    "servers, options, option",
    [
        ("http://127.0.0.1", {}, "servers"),
        ("nats://127.0.0.1:0", {}, "servers"),
        ("nats://127.0.0.1:99999", {}, "servers"),
        ("nats://127.0.0.1:port", {}, "servers"),
        ("nats://127.0.0.1/path", {}, "servers"),
        ("nats://127.0.0.1?tls=1", {}, "servers"),
        ("nats://", {}, "servers"),
        ("nats://[::1", {}, "servers"),
        ("nats://a b", {}, "servers"),
        ("", {}, "servers"),
        ([], {}, "servers"),
        ([1], {}, "servers"),
        (7, {}, "servers"),
        (None, {"title": "x"}, "title"),
        (None, {"name": 1}, "name"),
        (None, {"verbose": 1}, "verbose"),
        (None, {"connect_timeout": 0}, "connect_timeout"),
        (None, {"connect_timeout": -1}, "connect_timeout"),
        (None, {"connect_timeout": "2"}, "connect_timeout"),
        (None, {"connect_timeout": float("nan")}, "connect_timeout"),
        (None, {"connect_timeout": True}, "connect_timeout"),
        (None, {"connect_timeout": None}, "connect_timeout"),
        (None, {"max_reconnect_attempts": -2}, "max_reconnect_attempts"),
        (None, {"reconnect_buffer_size": -1}, "reconnect_buffer_size"),
        (None, {"pending_msgs_limit": 0}, "pending_msgs_limit"),
        (None, {"callback_workers": 0}, "callback_workers"),
        (None, {"closed_cb": "text"}, "closed_cb"),
        (None, {"dialer": 1}, "dialer"),
        (None, {"token": b"bytes"}, "token"),
        (None, {"token": "a", "token_cb": str}, "token_cb"),
        (None, {"token": "a", "user": "b", "password": "c"}, "token"),
        (None, {"user": "b", "password": "c", "user_info_cb": tuple}, "user_info_cb"),
        (None, {"password": "c"}, "password"),
        (None, {"tls": False, "tls_ca": "ca.pem"}, "tls"),
    ],
    ids=str,
)
def test_mistakes_are_found_before_any_io(servers: Any, options: dict[str, Any], option: str) -> None:
    asked = Recorder()
    with pytest.raises(ConfigError) as caught:
        natsync.connect(servers, **{"dialer": asked, **options})
    assert isinstance(caught.value, ValueError)
    assert caught.value.option is not None
    assert caught.value.option.startswith(option)
    assert option in str(caught.value)
    never(lambda: asked.items or natsync_threads(), 0.01)


@pytest.mark.parametrize("url", ["nats://user:s3cret@host:port", "http://user:s3cret@host", "nats://s3cret@host/x"])
def test_a_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        natsync.connect(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.__context__)
