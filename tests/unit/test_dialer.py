"""From a host and a port to a connected socket: in time, or not at all, or until somebody ends it."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from natsync.core.dialer import Abort, dial
from natsync.deadline import Deadline
from natsync.errors import NoServersError
from natsync.policy.urls import ServerUrl, parse_url
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.conftest import Pool

SOON = 1.0 * TIME_FACTOR
"""Much less than the deadlines that these tests give."""


def url_of(sock: socket.socket, host: str = "127.0.0.1") -> ServerUrl:
    return parse_url(f"{host}:{sock.getsockname()[1]}")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def silent() -> Iterator[ServerUrl]:
    """An address that answers nothing: a listener whose backlog is full, so that the kernel drops what comes."""
    queued = []
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(0)
        for _ in range(8):
            queued.append(socket.socket())
            queued[-1].setblocking(False)
            queued[-1].connect_ex(made.getsockname())
        probe = socket.socket()
        probe.settimeout(0.2)
        is_silent = probe.connect_ex(made.getsockname()) != 0
        probe.close()
        if not is_silent:  # pragma: no cover - other systems refuse, or take everybody
            pytest.skip("this system has another way with a full backlog")
        yield url_of(made)
        for each in queued:
            each.close()


@pytest.fixture
def closed_port() -> Iterator[ServerUrl]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but not listening: nobody else gets the port meanwhile
        yield url_of(unused)


# Connecting.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("randomize", [True, False])
def test_a_server_is_reached(listener: socket.socket, host: str, randomize: bool):
    sock = dial(url_of(listener, host), Deadline(5), Abort(), randomize=randomize)
    assert sock.getpeername() == listener.getsockname()
    sock.close()


@pytest.mark.parametrize("timeout", [3e6, 1e9, 1e11])
def test_a_timeout_of_years_is_no_error(listener: socket.socket, timeout: float):
    """`connect_timeout` may be any number of seconds; some write a huge one for "never"."""
    with dial(url_of(listener), Deadline(timeout), Abort()) as sock:
        assert sock.getpeername() == listener.getsockname()


def test_a_refused_connection_says_so_at_once(closed_port: ServerUrl):
    start = time.monotonic()
    with pytest.raises(NoServersError, match="refused the connection; is a server running there") as caught:
        dial(closed_port, Deadline(30), Abort())
    assert time.monotonic() - start < SOON
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.server == closed_port.redacted


@pytest.mark.parametrize(
    "host, text",
    [
        ("no-such-host.invalid", "the host of .* is unknown"),
        ("x" * 64 + ".invalid", "cannot be reached: not a host name|is unknown"),
    ],
)
def test_an_unknown_name_says_so(host: str, text: str):
    url = ServerUrl("nats", host, 4222)
    with pytest.raises(NoServersError, match=text) as caught:
        dial(url, Deadline(30), Abort())
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.server == url.redacted


def test_a_silent_address_takes_no_longer_than_the_deadline(silent: ServerUrl):
    start = time.monotonic()
    with pytest.raises(NoServersError, match="did not answer in time; check the address and firewalls") as caught:
        dial(silent, Deadline(0.2), Abort())
    assert 0.2 <= time.monotonic() - start < 0.2 + SOON
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_no_secret_is_told(closed_port: ServerUrl):
    url = ServerUrl("nats", closed_port.host, closed_port.port, user="joe", password="s3cr3t")
    with pytest.raises(NoServersError) as caught:
        dial(url, Deadline(5), Abort())
    assert "s3cr3t" not in repr(caught.value) + str(caught.value.server)


def fake_addresses(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Have any name resolve to these ports of the loopback: the name service is not natsync's."""
    found: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)


def test_every_address_of_a_name_is_tried(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, closed_port: ServerUrl
):
    fake_addresses(monkeypatch, closed_port.port, closed_port.port, listener.getsockname()[1])
    sock = dial(parse_url("some.name"), Deadline(5), Abort(), randomize=False)
    assert sock.getpeername() == listener.getsockname()
    sock.close()


def test_a_silent_address_leaves_time_for_the_others(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, silent: ServerUrl
):
    """Each address has an equal share of what is left of the time."""
    fake_addresses(monkeypatch, silent.port, listener.getsockname()[1])
    start = time.monotonic()
    sock = dial(parse_url("some.name"), Deadline(0.4), Abort(), randomize=False)
    assert 0.2 <= time.monotonic() - start < 0.4 + SOON
    sock.close()


def test_addresses_are_tried_in_a_random_order_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
):
    with socket.create_server(("127.0.0.1", 0)) as second:
        ports = listener.getsockname()[1], second.getsockname()[1]
        fake_addresses(monkeypatch, *ports)
        for randomize, reached in ((False, {ports[0]}), (True, set(ports))):
            seen = set()
            for _ in range(40):
                with dial(parse_url("some.name"), Deadline(5), Abort(), randomize=randomize) as sock:
                    seen.add(sock.getpeername()[1])
            assert seen == reached


def test_a_name_with_no_address_is_given_up(monkeypatch: pytest.MonkeyPatch):
    fake_addresses(monkeypatch)
    with pytest.raises(NoServersError, match="given up"):
        dial(parse_url("some.name"), Deadline(5), Abort())


def test_an_address_named_twice_is_tried_once(monkeypatch: pytest.MonkeyPatch, silent: ServerUrl):
    fake_addresses(monkeypatch, silent.port, silent.port)
    start = time.monotonic()
    with pytest.raises(NoServersError, match="in time"):
        dial(parse_url("some.name"), Deadline(0.3), Abort())
    assert 0.3 <= time.monotonic() - start < 0.3 + SOON


@pytest.fixture
def stuck_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A name service that does not answer before the test's end; the event tells that it was asked."""
    asked, answer = threading.Event(), threading.Event()

    def getaddrinfo(*args: object, **kwargs: object) -> list[Any]:
        asked.set()
        answer.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    answer.set()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "natsync-resolver"])


def test_a_name_server_that_is_away_takes_no_longer_than_the_deadline(stuck_resolver: threading.Event):
    start = time.monotonic()
    with pytest.raises(NoServersError, match=r"was not resolved within 0\.1 s; check the name server"):
        dial(parse_url("some.name"), Deadline(0.1), Abort())
    assert 0.1 <= time.monotonic() - start < 0.1 + SOON


# Ending an attempt.


def seconds_to_end(attempt: Callable[[], socket.socket]) -> float:
    """Make an attempt that somebody ends; it fails, or what it returns is at its end. Returns how long it took."""
    start = time.monotonic()
    try:
        sock = attempt()
    except NoServersError:
        return time.monotonic() - start
    with sock:
        assert sock.recv(1) == b""
    return time.monotonic() - start


def aborted_after(pool: Pool, attempt: Callable[[Abort], socket.socket], when: Callable[[Abort], object]) -> float:
    """Start an attempt, end it when `when` says so, and return how long its end took."""
    abort = Abort()
    running = pool.submit(seconds_to_end, lambda: attempt(abort))
    eventually(lambda: when(abort))
    start = time.monotonic()
    abort.fire()
    running.result(20)
    return time.monotonic() - start


def test_an_attempt_can_be_ended_from_another_thread(pool: Pool, silent: ServerUrl):
    took = aborted_after(pool, lambda abort: dial(silent, Deadline(15), abort), lambda abort: abort._sock)
    assert took < SOON


def test_no_further_address_is_tried_after_that(pool: Pool, monkeypatch: pytest.MonkeyPatch, silent: ServerUrl):
    fake_addresses(monkeypatch, silent.port)
    found = socket.getaddrinfo("some.name", silent.port)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args, **kwargs: [*found, (*found[0][:4], ("127.0.0.2", silent.port))]
    )
    took = aborted_after(
        pool, lambda abort: dial(parse_url("some.name"), Deadline(15), abort), lambda abort: abort._sock
    )
    assert took < SOON


def test_an_attempt_can_be_ended_while_the_name_is_looked_up(pool: Pool, stuck_resolver: threading.Event):
    """close() must not wait for a name server."""
    took = aborted_after(
        pool, lambda abort: dial(parse_url("some.name"), Deadline(5), abort), lambda abort: stuck_resolver.is_set()
    )
    assert took < SOON


def test_an_attempt_that_was_ended_before_it_began_opens_nothing(listener: socket.socket):
    abort = Abort()
    abort.fire()
    with pytest.raises(NoServersError, match="given up"):
        dial(url_of(listener), Deadline(5), abort)
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()


class EagerAbort(Abort):
    """Fires in the moment between the making of the socket and its connecting."""

    def guard(self, sock: socket.socket | None) -> None:
        super().guard(sock)
        if sock is not None and not self.fired:
            self.fire()


def test_an_end_just_before_connecting_is_not_missed(silent: ServerUrl):
    assert seconds_to_end(lambda: dial(silent, Deadline(15), EagerAbort())) < SOON


def test_a_guarded_socket_is_shut_down_by_the_end(pool: Pool):
    """The handshake's wait for the server ends too."""
    abort = Abort()
    ours, theirs = socket.socketpair()
    abort.guard(ours)
    receiving = pool.submit(ours.recv, 1)
    abort.fire()
    assert receiving.result(10) == b""
    late, late_peer = socket.socketpair()
    abort.guard(late)
    assert late.recv(1) == b"", "one that comes later, too"
    abort.guard(None)
    abort.fire()
    for each in (ours, theirs, late, late_peer):
        each.close()


def test_a_socket_that_is_no_longer_guarded_lives_on():
    abort = Abort()
    ours, theirs = socket.socketpair()
    abort.guard(ours)
    abort.guard(None)
    abort.fire()
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"
    ours.close()
    theirs.close()


def test_a_forked_child_drops_the_socket_and_ends_nothing():
    abort = Abort()
    abort.abandon()
    ours, theirs = socket.socketpair()
    copy = ours.dup()
    abort.guard(ours)
    abort.abandon()
    assert ours.fileno() == -1
    copy.sendall(b"x")
    assert theirs.recv(1) == b"x"
    copy.close()
    theirs.close()


# The user's own dialer.


def test_a_dialer_takes_the_place_of_all_this():
    ours, theirs = socket.socketpair()
    asked: list[tuple[str, int, float]] = []

    def dialer(host: str, port: int, timeout: float) -> socket.socket:
        asked.append((host, port, timeout))
        return ours

    assert dial(parse_url("some.name.invalid:1234"), Deadline(5), Abort(), dialer=dialer) is ours
    (host, port, timeout) = asked[0]
    assert (host, port) == ("some.name.invalid", 1234)
    assert 4 < timeout <= 5
    ours.close()
    theirs.close()


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("oops")])
def test_whatever_a_dialer_raises_is_that_servers_failure(error: Exception):
    def dialer(host: str, port: int, timeout: float) -> socket.socket:
        raise error

    with pytest.raises(NoServersError, match=f"the dialer could not reach nats://some.name:4222: {error}") as caught:
        dial(parse_url("some.name"), Deadline(5), Abort(), dialer=dialer)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("answer", [None, "localhost", ("127.0.0.1", 4222)])
def test_a_dialer_that_returns_no_socket_is_told_so(answer: Any):
    with pytest.raises(NoServersError, match=f"returned {type(answer).__name__} for nats://some.name:4222"):
        dial(parse_url("some.name"), Deadline(5), Abort(), dialer=lambda host, port, timeout: answer)
