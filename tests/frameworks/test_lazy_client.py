"""The client that is made at its first use: once, by whoever comes first, in every process."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import natsync
from natsync import Client, ConnectionClosedError, Msg, NatsConnectionError, NoServersError
from natsync.contrib.lazy_client import LazyClient
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync.testing import NatsServer

    Connect = Callable[..., Client]

DEADLINE = 10.0 * TIME_FACTOR


@pytest.fixture
def lazy(nats_server: NatsServer, connect: Connect) -> LazyClient:
    return LazyClient(lambda: connect(nats_server.url))


class Maker:
    """Makes clients when it is told to, and counts."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self.calls = 0
        self.may_go_on = threading.Event()

    def __call__(self) -> Client:
        self.calls += 1
        assert self.may_go_on.wait(DEADLINE)
        return self._make()


def refuse() -> Client:
    raise NoServersError("nobody is there")


def together(count: int, call: Callable[[], object], when_all_wait: Callable[[], None]) -> list[object]:
    """Call from many threads at once; return what each got, an exception included."""
    ready = threading.Barrier(count + 1)

    def run() -> object:
        ready.wait(DEADLINE)
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run) for _ in range(count)]
        ready.wait(DEADLINE)
        when_all_wait()
        return [future.result(DEADLINE) for future in futures]


def waiters(lazy: LazyClient) -> int:
    """How many threads wait for another one that is connecting."""
    attempt = lazy._attempt
    return len(attempt._condition._waiters) if attempt is not None else 0  # type: ignore[attr-defined]


def test_the_first_use_connects(nats_server: NatsServer, lazy: LazyClient) -> None:
    before = nats_server.varz()["total_connections"]
    assert repr(lazy) == "<LazyClient, not connected yet>"
    with pytest.raises(AttributeError, match="no attribute 'publishh'"):
        lazy.publishh  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(lazy, "__wrapped__")
    assert {"publish", "request", "is_connected", "health"} <= set(dir(lazy))
    assert nats_server.varz()["total_connections"] == before
    lazy.publish("lazy", b"x")
    lazy.flush()
    assert nats_server.varz()["total_connections"] == before + 1
    assert repr(lazy) == "<LazyClient, CONNECTED>"


def test_it_does_what_a_client_does(lazy: LazyClient) -> None:
    lazy.subscribe("lazy.double", cb=lambda msg: msg.respond(2 * msg.data))
    assert lazy.request("lazy.double", b"ab").data == b"abab"
    assert lazy.is_connected
    assert lazy.connect() is lazy.connect()


def test_threads_that_come_at_once_share_one_client(nats_server: NatsServer, connect: Connect) -> None:
    maker = Maker(lambda: connect(nats_server.url))
    lazy = LazyClient(maker)
    clients = together(16, lazy.connect, maker.may_go_on.set)
    assert maker.calls == 1
    assert len(set(map(id, clients))) == 1


def test_threads_that_wait_share_a_failure_and_do_not_queue_up() -> None:
    maker = Maker(refuse)
    lazy = LazyClient(maker)

    def release() -> None:
        eventually(lambda: waiters(lazy) == 7)
        maker.may_go_on.set()

    errors = together(8, lambda: lazy.publish("x"), release)
    assert all(isinstance(error, NoServersError) for error in errors)
    assert maker.calls == 1


def test_a_failure_is_followed_by_a_new_attempt(nats_server: NatsServer, connect: Connect) -> None:
    answers: list[Callable[[], Client]] = [refuse, lambda: connect(nats_server.url)]
    lazy = LazyClient(lambda: answers.pop(0)())
    with pytest.raises(NoServersError):
        lazy.publish("lazy")
    lazy.publish("lazy")
    assert lazy.is_connected


def test_ctrl_c_while_connecting_is_for_that_thread_alone() -> None:
    waiting = threading.Event()
    go_on = threading.Event()

    def interrupted() -> Client:
        waiting.set()
        assert go_on.wait(DEADLINE)
        raise KeyboardInterrupt

    lazy = LazyClient(interrupted)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lazy.connect)
        assert waiting.wait(DEADLINE)
        second = pool.submit(lazy.connect)
        eventually(lambda: waiters(lazy))
        go_on.set()
        assert isinstance(first.exception(DEADLINE), KeyboardInterrupt)
        assert isinstance(second.exception(DEADLINE), NatsConnectionError)


@pytest.mark.parametrize("end", ["close", "drain"])
def test_after_its_end_the_next_use_makes_a_new_one(lazy: LazyClient, end: str) -> None:
    getattr(lazy, end)()  # there is none yet
    assert repr(lazy) == "<LazyClient, not connected yet>"
    first = lazy.connect()
    getattr(lazy, end)()
    assert first.is_closed
    getattr(lazy, end)()
    second = lazy.connect()
    assert second is not first
    lazy.flush()


def test_a_client_that_has_given_up_is_replaced(fresh_server: NatsServer, connect: Connect) -> None:
    lazy = LazyClient(lambda: connect(fresh_server.url, allow_reconnect=False))
    first = lazy.connect()
    fresh_server.stop()
    assert first.wait_closed(DEADLINE)
    with pytest.raises(NoServersError):
        lazy.publish("lazy")
    fresh_server.start()
    lazy.publish("lazy")
    assert lazy.is_connected
    with pytest.raises(ConnectionClosedError):
        first.publish("lazy")


def test_hooks_stay_when_the_client_is_replaced(lazy: LazyClient) -> None:
    seen = Recorder()

    def around(msg: Msg, call: Callable[[Msg], object]) -> None:
        seen(("around", msg.data))
        call(msg)

    lazy.with_handler(around)
    lazy.with_publish(lambda msg: Msg(msg.subject, msg.data.upper()))
    assert repr(lazy) == "<LazyClient, not connected yet>"
    for number, word in enumerate((b"a", b"b"), 1):
        lazy.subscribe("lazy.hooks", cb=lambda msg: seen(("in", msg.data)))
        lazy.publish("lazy.hooks", word)
        seen.wait_for(2 * number)
        lazy.close()
    assert seen.items == [("around", b"A"), ("in", b"A"), ("around", b"B"), ("in", b"B")]


def test_a_hook_counts_for_the_present_client_too(lazy: LazyClient) -> None:
    seen = Recorder()
    lazy.connect()
    lazy.with_publish(lambda msg: seen(msg.subject))
    lazy.publish("lazy.hook")
    assert seen.items == ["lazy.hook"]


@pytest.mark.parametrize("method", ["with_handler", "with_publish"])
def test_a_hook_is_callable(lazy: LazyClient, method: str) -> None:
    with pytest.raises(TypeError, match=f"{method} takes a callable, not int"):
        getattr(lazy, method)(1)


def test_health(fresh_server: NatsServer, connect: Connect) -> None:
    lazy = LazyClient(lambda: connect(fresh_server.url, connect_timeout=0.5))
    body, status = lazy.health()
    assert (status, body["status"], body["server"]) == (200, "CONNECTED", fresh_server.url)
    assert 0 < body["rtt"] < 60
    fresh_server.pause()
    body, status = lazy.health(timeout=0.05)
    assert (status, body["status"]) == (503, "CONNECTED")
    assert "0.05" in body["error"]
    fresh_server.resume()
    fresh_server.stop()
    eventually(lambda: lazy.health()[0]["status"] == "RECONNECTING")
    body, status = lazy.health()
    assert status == 503
    json.dumps(body)


def test_health_without_a_client() -> None:
    assert LazyClient(refuse).health() == ({"status": "DISCONNECTED", "error": "nobody is there"}, 503)


# Forks


def in_child(action: Callable[[], Any]) -> str:
    """Run it in a forked child, and return the text of its result."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = str(action())
        except BaseException as error:
            text = repr(error)
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def use(lazy: LazyClient) -> int | None:
    """What a child does; returns the number that the server has given it."""
    lazy.publish("lazy.child")
    lazy.flush()
    number = lazy.client_id
    lazy.close()
    return number


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_connects(nats_server: NatsServer) -> None:
    parent = os.getpid()
    waiting, go_on = threading.Event(), threading.Event()

    def make() -> Client:
        if os.getpid() == parent:
            waiting.set()
            assert go_on.wait(DEADLINE)
        return natsync.connect(nats_server.url)

    lazy = LazyClient(make)
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(lazy.connect)
        assert waiting.wait(DEADLINE)
        lazy._lock.acquire()  # as another thread may at that moment
        assert in_child(lambda: use(lazy)).isdigit()
        lazy._lock.release()
        go_on.set()
        connecting.result(DEADLINE).flush()
    lazy.close()


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_connects_by_itself(lazy: LazyClient) -> None:
    mine = lazy.client_id
    lazy.with_publish(lambda msg: Msg(msg.subject, b"hooked"))
    with lazy.subscribe("lazy.child") as sub:
        lazy.flush()
        other = in_child(lambda: use(lazy))
        assert sub.next_msg(DEADLINE).data == b"hooked"
    assert int(other) != mine
    lazy.flush()
