"""A client that nobody holds any more: it says so by a ResourceWarning, and ends by itself."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import re
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import natsync
from natsync import ConnectionClosedError, Msg
from natsync.events import Closed, Disconnected
from tests.support.leaks import natsync_threads
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client
    from natsync.testing import NatsServer

    Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR


@contextlib.contextmanager
def unclosed(which: str) -> Iterator[None]:
    """Expect the warning; an event may hold the client a moment longer than the block does."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
        eventually(lambda: gc.collect() >= 0 and len(warned) > 0)
    (warning,) = warned
    assert warning.category is ResourceWarning
    assert re.match(f"unclosed <natsync.Client {which}.*; call close", str(warning.message))


def forget(url: str, use: Callable[[Client], object] = lambda client: None, **options: Any) -> None:
    client = natsync.connect(url, **options)
    use(client)
    with unclosed("'mine' connected, nats://"):
        del client


def test_a_forgotten_client_warns_and_ends(nats_server: NatsServer) -> None:
    events = Recorder()
    forget(nats_server.url, name="mine", disconnected_cb=events, closed_cb=events)
    disconnected, closed = events.wait_for(2)
    assert isinstance(disconnected, Disconnected)
    assert isinstance(closed, Closed)
    assert closed.error is None
    eventually(lambda: not [thread for thread in natsync_threads() if "-mine-" in thread.name])


def test_nothing_that_it_published_is_lost(nats_server: NatsServer, nats_client: Client) -> None:
    sub = nats_client.subscribe("forgotten")
    nats_client.flush()

    def publish(client: Client) -> None:
        for number in range(1000):
            client.publish("forgotten", b"%d" % number)

    forget(nats_server.url, publish, name="mine")
    assert [int(sub.next_msg(timeout=PATIENCE).data) for _ in range(1000)] == list(range(1000))


def test_one_that_looks_for_its_server(fresh_server: NatsServer) -> None:
    held = [natsync.connect(fresh_server.url)]
    fresh_server.kill()
    eventually(lambda: held[0].is_reconnecting)
    with unclosed("reconnecting"):
        held.clear()


def test_where_finalizers_raise_it_ends_all_the_same(nats_server: NatsServer) -> None:
    script = """
    import sys, threading, natsync
    nc = natsync.connect(sys.argv[1])
    del nc
    for thread in threading.enumerate():
        if thread.name.startswith("natsync"):
            thread.join(5.0)
            assert not thread.is_alive(), thread
    """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script), nats_server.url],
        capture_output=True,
        text=True,
        timeout=20 * TIME_FACTOR,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning: unclosed <natsync.Client" in done.stderr


def test_a_script_that_forgets_its_client_and_ends(nats_server: NatsServer, nats_client: Client) -> None:
    sub = nats_client.subscribe("forgotten")
    nats_client.flush()
    script = "import sys, natsync; natsync.connect(sys.argv[1]).publish('forgotten', b'last words')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, nats_server.url],
        capture_output=True,
        text=True,
        timeout=20 * TIME_FACTOR,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr.count("ResourceWarning: unclosed <natsync.Client") == 1
    assert sub.next_msg(timeout=PATIENCE).data == b"last words"


# What holds a client


@pytest.fixture
def no_warning() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pytest makes a failure of what a finalizer raises
        yield


@pytest.mark.usefixtures("no_warning")
def test_a_subscription_holds_its_client(nats_server: NatsServer, nats_client: Client) -> None:
    sub = natsync.connect(nats_server.url).subscribe("forgotten.sub")
    gc.collect()
    sub._parts.client.flush()
    nats_client.publish("forgotten.sub")
    assert sub.next_msg(timeout=PATIENCE).subject == "forgotten.sub"
    sub._parts.client.close()


@pytest.mark.usefixtures("no_warning")
def test_a_callback_goes_on_though_nobody_holds_anything(nats_server: NatsServer, nats_client: Client) -> None:
    seen: list[weakref.ref[Client]] = []

    def serve(msg: Msg) -> None:
        msg.respond(b"still here")
        if msg.data == b"end":
            msg.subscription._parts.client.close()  # type: ignore[union-attr]

    def start() -> None:
        client = natsync.connect(nats_server.url)
        client.subscribe("forgotten.service", cb=serve)
        client.flush()
        seen.append(weakref.ref(client))

    start()
    gc.collect()
    for data in (b"1", b"2", b"end"):
        assert nats_client.request("forgotten.service", data, timeout=PATIENCE).data == b"still here"
    eventually(lambda: gc.collect() or seen[0]() is None)


REQUESTS: dict[str, Callable[[Client], object]] = {
    "request": lambda client: client.request("forgotten.slow"),
    "request_future": lambda client: client.request_future("forgotten.slow"),
    "request_many": lambda client: client.request_many("forgotten.slow", max_msgs=1),
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
def test_a_request_under_way_holds_its_client(
    nats_server: NatsServer, nats_client: Client, request_of: Callable[[Client], Any]
) -> None:
    clients: list[weakref.ref[Client]] = []

    def serve(msg: Msg) -> None:
        gc.collect()
        assert clients[0]() is not None
        msg.respond(b"answer")

    def ask() -> Any:
        client = natsync.connect(nats_server.url)
        clients.append(weakref.ref(client))
        answer = request_of(client)
        del client
        if isinstance(answer, concurrent.futures.Future):
            return answer.result(PATIENCE)
        return answer if isinstance(answer, Msg) else next(iter(answer))

    nats_client.subscribe("forgotten.slow", cb=serve)
    nats_client.flush()
    with unclosed("connected"):
        assert ask().data == b"answer"


# No warning


@pytest.mark.usefixtures("no_warning")
@pytest.mark.parametrize("end", ["close", "drain"])
def test_a_client_that_has_come_to_its_end_is_forgotten_in_silence(nats_server: NatsServer, end: str) -> None:
    client = natsync.connect(nats_server.url)
    getattr(client, end)()
    gone = weakref.ref(client)
    del client
    eventually(lambda: gc.collect() or gone() is None)


@pytest.mark.usefixtures("no_warning")
def test_a_client_that_never_connected_is_forgotten_in_silence(fresh_server: NatsServer) -> None:
    fresh_server.kill()
    with pytest.raises(natsync.NoServersError):
        natsync.connect(fresh_server.url)
    gc.collect()


@pytest.mark.usefixtures("no_warning")
def test_a_client_that_drains_is_forgotten_in_silence(nats_server: NatsServer, nats_client: Client) -> None:
    drained, closed = threading.Event(), Recorder()

    def drain(msg: Msg) -> None:
        msg.subscription._parts.client.drain()  # type: ignore[union-attr]
        drained.wait(PATIENCE)

    held = [natsync.connect(nats_server.url, closed_cb=closed)]
    held[0].subscribe("forgotten.drain", cb=drain)
    held[0].flush()
    nats_client.publish("forgotten.drain")
    eventually(lambda: held[0].is_draining)
    held.clear()
    gc.collect()
    drained.set()
    closed.wait_for(1)


def test_calls_of_its_subscriptions_after_the_end(nats_server: NatsServer) -> None:
    client = natsync.connect(nats_server.url)
    sub = client.subscribe("forgotten.sub")
    client.close()
    del client
    with pytest.raises(ConnectionClosedError):
        sub.next_msg(timeout=PATIENCE)
