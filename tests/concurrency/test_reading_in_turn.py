"""Callers that read for themselves, against a real server: many at once, struck by signals, forked, without a gate."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import random
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from natsync import ConnectionClosedError, ConnectionReconnectingError, NatsError, NatsTimeoutError, NoRespondersError
from natsync.core.callback_sink import CallbackSink
from natsync.core.read_sink import ReadSink
from natsync.core.request_future import RequestFuture
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client, Msg
    from natsync.testing import NatsServer
    from tests.support.proxy import FaultProxy
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
needs_gate = pytest.mark.skipif(not hasattr(select, "epoll"), reason="without a gate only the reader reads")

PATIENCE = 10.0 * TIME_FACTOR
SOON = 1.0 + 1.0 * TIME_FACTOR


@pytest.fixture(params=[None, 1e-6], ids=["usual", "restless"])
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test twice: as usual, and with an interpreter that changes threads as often as it can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(request.param or usual)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have callers read for themselves until their answer comes, so that they are at it when something happens."""
    monkeypatch.setattr("natsync.core.reader._MOMENT", 60.0)


@pytest.fixture
def service(nats_server: NatsServer, connect: Connect) -> Client:
    """Another client, which answers on `turn.echo`, listens on `turn.silent`, and counts what comes there."""
    client = connect(nats_server.url)
    client.subscribe("turn.echo", cb=lambda msg: msg.respond(msg.data))
    client.subscribe("turn.silent", cb=lambda msg: None)
    client.flush()
    return client


class Handler:
    """Has a function called on the main thread by a signal, when another thread says so."""

    def __init__(self) -> None:
        self.outcome: list[object] = []
        self._call: Callable[[], object] = lambda: None
        self._usual = signal.signal(signal.SIGUSR1, self._handle)
        self._timer: threading.Thread | None = None

    def soon(self, call: Callable[[], object], delay: float = 0.1) -> None:
        self._call = call
        main = threading.main_thread().ident
        assert main is not None
        self._timer = threading.Timer(delay, signal.pthread_kill, (main, signal.SIGUSR1))
        self._timer.start()

    def _handle(self, *args: object) -> None:
        try:
            self.outcome.append(self._call())
        except NatsError as exc:
            self.outcome.append(exc)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.join()
        signal.signal(signal.SIGUSR1, self._usual)


@pytest.fixture
def handler() -> Iterator[Handler]:
    made = Handler()
    yield made
    made.close()


def is_read_by_caller(client: Client) -> bool:
    reader: Any = client._engine.link.reader if client._engine.link is not None else None
    holder = reader._token.holder if reader is not None else None
    return holder is not None and holder is not reader._turn


def is_read_by_nobody(client: Client) -> bool:
    """The reader's thread sleeps, so that the next caller may read for itself; on a busy machine that takes a while."""
    reader: Any = client._engine.link.reader if client._engine.link is not None else None
    return reader is not None and reader._token.holder is None


def check_usable(client: Client) -> None:
    sub = client.subscribe("turn.usable")
    client.publish("turn.usable", b"still")
    client.flush()
    assert sub.next_msg(timeout=PATIENCE).data == b"still"
    sub.unsubscribe()
    assert client.request("turn.echo", b"x", timeout=PATIENCE).data == b"x"


# Many at once.


class Askers:
    """Threads that ask with all sorts of time, services that answer or do not, and what each of them saw."""

    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.wrong: list[object] = []
        self.answered = 0
        self.timed_out = 0
        self._seed = seed

    def ask(self, name: int, count: int) -> None:
        chance = random.Random(self._seed + name)
        for number in range(count):
            self.ask_once(b"%d %d" % (name, number), chance)

    def ask_once(self, question: bytes, chance: random.Random) -> None:
        silent = chance.random() < 0.2
        timeout = chance.choice([0.0005, 0.002, 0.01]) if silent or chance.random() < 0.2 else 20.0
        begin = time.monotonic()
        try:
            answer = self.client.request("turn.silent" if silent else "turn.echo", question, timeout=timeout)
            self.answered += 1
            if silent or answer.data != question:
                self.wrong.append((question, answer.data))
        except NatsTimeoutError:
            self.timed_out += 1
            if timeout == 20.0:
                self.wrong.append((question, "lost"))
        if time.monotonic() - begin > timeout + SOON:
            self.wrong.append((question, f"{time.monotonic() - begin} s instead of {timeout} s"))


@pytest.mark.usefixtures("switching", "service")
def test_many_ask_with_all_sorts_of_time(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    askers = Askers(client, 3)
    threads = [threading.Thread(target=askers.ask, args=(name, 40), daemon=True) for name in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0 * TIME_FACTOR)
        assert not thread.is_alive(), "a thread hangs"
    assert not askers.wrong
    assert askers.answered > 500
    assert askers.timed_out > 100
    assert not client._engine.mux.waiters()
    check_usable(client)
    assert client.stats.reconnects == 0


class StruckAskers:
    """Threads that ask all the time, and the main thread, which does so under blows."""

    def __init__(self, client: Client, others: int) -> None:
        self.client = client
        self.slow: list[float] = []
        self.mixed_up: list[bytes] = []
        self.struck = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=(name,), daemon=True) for name in range(others)]

    def ask(self, question: bytes) -> None:
        begin = time.monotonic()
        with contextlib.suppress(NatsTimeoutError, NoRespondersError):
            answer = self.client.request("turn.echo", question, timeout=0.5)
            if answer.data != question:
                self.mixed_up.append(answer.data)
        if time.monotonic() - begin > 0.5 + SOON:
            self.slow.append(time.monotonic() - begin)

    def _repeat(self, name: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            self.ask(b"%d %d" % (name, number))

    def ask_under_blows(self, seconds: float) -> None:
        chance = random.Random(9)
        usual = signal.signal(signal.SIGALRM, self._strike)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 0.003))
                    self.ask(b"main")
                    signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, usual)

    def _strike(self, *args: object) -> None:
        self.struck += 1
        raise KeyboardInterrupt

    def __enter__(self) -> StruckAskers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"


@posix
@pytest.mark.untraced
@pytest.mark.usefixtures("switching", "service")
@pytest.mark.timeout(120, method="thread")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a blow may fall on a weak reference
@pytest.mark.parametrize("others", [0, 1, 6])
def test_many_ask_while_one_of_them_is_struck_again_and_again(
    others: int, nats_server: NatsServer, connect: Connect
) -> None:
    """An exception of a signal handler may cost the connection, and with it answers; it never costs anybody's time."""
    client = connect(nats_server.url, reconnect_time_wait=0.01, reconnect_jitter=0.0)
    with StruckAskers(client, others) as askers:
        askers.ask_under_blows(2.0)
    assert askers.struck
    assert not askers.slow
    assert not askers.mixed_up
    eventually(lambda: is_flushed(client), PATIENCE)
    check_usable(client)


def is_flushed(client: Client) -> bool:
    """Flush; the last blow may still cost the connection."""
    try:
        client.flush()
    except ConnectionReconnectingError:
        return False
    return True


@pytest.mark.usefixtures("service")
def test_a_question_without_an_answer_does_not_keep_others_messages(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("turn.others")
    client.flush()
    asking = threading.Thread(target=ask_in_vain, args=(client,))
    asking.start()
    for _ in range(20):
        begin = time.monotonic()
        client.publish("turn.others")
        sub.next_msg(timeout=PATIENCE)
        assert time.monotonic() - begin < SOON
    asking.join()


def ask_in_vain(client: Client, timeout: float = 0.5) -> None:
    with pytest.raises(NatsTimeoutError):
        client.request("turn.silent", timeout=timeout)


# Futures.


def test_a_future_is_sent_though_nobody_asks_for_its_result(nats_server: NatsServer, connect: Connect) -> None:
    asked = Recorder()
    service = connect(nats_server.url)
    service.subscribe("turn.future", cb=asked)
    service.flush()
    client = connect(nats_server.url)
    first = client.request_future("turn.future", b"alone", timeout=PATIENCE)
    second = client.request_future("turn.future", b"beside another", timeout=PATIENCE)
    begin = time.monotonic()
    assert sorted(msg.data for msg in asked.wait_for(2)) == [b"alone", b"beside another"]
    assert time.monotonic() - begin < SOON
    for msg in asked.items:
        msg.respond(msg.data)
    assert [future.result(PATIENCE).data for future in (second, first)] == [b"beside another", b"alone"]


@pytest.mark.usefixtures("service", "switching")
def test_futures_in_every_way_of_waiting(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    for _ in range(10):
        futures = [client.request_future("turn.echo", b"%d" % number, timeout=PATIENCE) for number in range(20)]
        completed = concurrent.futures.as_completed(futures, PATIENCE)
        assert sorted(int(future.result(0).data) for future in completed) == list(range(20))
        futures = [client.request_future("turn.echo", b"%d" % number, timeout=PATIENCE) for number in range(20)]
        done, not_done = concurrent.futures.wait(futures, PATIENCE)
        assert len(done) == 20
        assert not not_done
        futures = [client.request_future("turn.echo", b"%d" % number, timeout=PATIENCE) for number in range(20)]
        assert [int(future.result().data) for future in reversed(futures)] == list(reversed(range(20)))


@pytest.mark.usefixtures("service")
def test_a_result_that_is_asked_for_again_and_again_without_waiting(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    vain = client.request_future("turn.silent", timeout=PATIENCE)
    begin = time.monotonic()
    for _ in range(20):
        with pytest.raises(concurrent.futures.TimeoutError):
            vain.result(timeout=0)
    assert time.monotonic() - begin < SOON
    future = client.request_future("turn.echo", b"x", timeout=PATIENCE)

    def comes() -> bool:
        with contextlib.suppress(concurrent.futures.TimeoutError):
            return future.result(timeout=0).data == b"x"
        return False

    eventually(comes)
    vain.cancel()


# A loss.


@needs_gate
@pytest.mark.usefixtures("patient", "service")
def test_the_connection_is_lost_while_a_caller_reads(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, reconnect_time_wait=0.01, reconnect_jitter=0.0)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number in range(1, 6):
            eventually(lambda: is_read_by_nobody(client))
            asking = pool.submit(ask_in_vain, client, 1.0)
            eventually(lambda: is_read_by_caller(client))
            proxy.cut()
            eventually(lambda number=number: client.stats.reconnects == number)  # type: ignore[misc]
            client.request("turn.echo", timeout=PATIENCE)
            asking.result(PATIENCE)
        proxy.black_hole("down")
        flushing = pool.submit(client.flush, PATIENCE)
        eventually(lambda: is_read_by_caller(client))
        proxy.cut()
        assert isinstance(flushing.exception(PATIENCE), ConnectionReconnectingError)
    proxy.heal()
    eventually(lambda: client.stats.reconnects == 6)
    check_usable(client)


@needs_gate
@pytest.mark.usefixtures("patient", "service")
def test_the_client_is_closed_while_a_caller_reads(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        eventually(lambda: is_read_by_nobody(client))
        asking = pool.submit(client.request, "turn.silent", timeout=PATIENCE)
        eventually(lambda: is_read_by_caller(client))
        begin = time.monotonic()
        client.close()
        assert time.monotonic() - begin < SOON
        assert isinstance(asking.exception(PATIENCE), ConnectionClosedError)


# Signals. A handler may not use the client, as it may strike under a lock; but where it strikes a thread that waits for
# bytes, which is nearly always, it must not hang.


@posix
@needs_gate
@pytest.mark.usefixtures("patient", "service")
@pytest.mark.parametrize("call", ["flush", "rtt", "request", "future", "many", "next_msg", "close", "drain"])
def test_a_handler_that_strikes_a_thread_that_reads(
    call: str, nats_server: NatsServer, connect: Connect, handler: Handler
) -> None:
    client = connect(nats_server.url)
    client.flush()

    def next_msg() -> bytes:
        sub = client.subscribe("turn.next")
        client.publish("turn.next", b"x")
        return sub.next_msg(timeout=PATIENCE).data

    def many() -> list[bytes]:
        return [msg.data for msg in client.request_many("turn.echo", b"x", timeout=PATIENCE, max_msgs=1)]

    calls: dict[str, tuple[Callable[[], object], Callable[[Any], bool]]] = {
        "flush": (client.flush, lambda result: result is None),
        "rtt": (client.rtt, lambda result: result > 0),
        "request": (lambda: client.request("turn.echo", b"x").data, lambda result: result == b"x"),
        "future": (lambda: client.request_future("turn.echo", b"x").result().data, lambda result: result == b"x"),
        "many": (many, lambda result: result == [b"x"]),
        "next_msg": (next_msg, lambda result: result == b"x"),
        "close": (client.close, lambda result: result is None),
        # It waits for the question that it has interrupted, in vain.
        "drain": (lambda: client.drain(timeout=0.5), lambda result: isinstance(result, NatsTimeoutError)),
    }
    action, is_good = calls[call]
    handler.soon(action)
    begin = time.monotonic()
    with pytest.raises((NatsTimeoutError, ConnectionClosedError)):
        client.request("turn.silent", timeout=1.5)
    assert time.monotonic() - begin < 1.5 + SOON
    assert len(handler.outcome) == 1
    assert is_good(handler.outcome[0]), handler.outcome
    if call in ("close", "drain"):
        assert client.wait_closed(PATIENCE)
    else:
        check_usable(client)
        assert client.stats.reconnects == 0


class Struck:
    """Ctrl-C at the entry of a function, once, on the main thread, which is the only one that it strikes."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self.on_main = 0

    def __get__(self, owner: object, kind: type) -> Callable[..., Any]:
        return functools.partial(self, owner)

    def __call__(self, *args: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            self.on_main += 1
            if self.on_main == 1:
                raise KeyboardInterrupt
        return self._call(*args)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("kind", [CallbackSink, ReadSink])
def test_ctrl_c_in_a_call_costs_no_subscription(
    kind: Any, service: Client, nats_server: NatsServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message taken in and nobody told of it: then its callback, or the thread that waits, would never run again."""
    client = connect(nats_server.url, reconnect_time_wait=0.01, reconnect_jitter=0.0)
    seen = Recorder()
    sub = client.subscribe("turn.sub", cb=seen if kind is CallbackSink else None)
    if kind is ReadSink:
        threading.Thread(target=lambda: deque(map(seen, sub)), daemon=True).start()
    client.flush()
    monkeypatch.setattr(kind, "_serve", Struck(kind._serve))

    def both(msg: Msg) -> None:
        service.publish("turn.sub")
        msg.respond()

    service.subscribe("turn.both", cb=both)
    service.flush()
    with contextlib.suppress(KeyboardInterrupt, ConnectionReconnectingError):
        client.request("turn.both", timeout=PATIENCE)
    client.flush()
    before = len(seen)
    service.publish("turn.sub")
    seen.wait_for(before + 1)


@pytest.mark.usefixtures("patient")
def test_ctrl_c_in_a_call_costs_no_future(
    service: Client, nats_server: NatsServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever completes a future has taken it out of the table first; nobody would ever look at it again."""
    client = connect(nats_server.url, reconnect_time_wait=0.01, reconnect_jitter=0.0)
    client.request("turn.echo")
    monkeypatch.setattr(RequestFuture, "reply", Struck(RequestFuture.reply))
    futures = [client.request_future("turn.echo", timeout=2.0) for _ in range(2)]
    for call in (client.flush, futures[0].result):
        with contextlib.suppress(KeyboardInterrupt, NatsTimeoutError, ConnectionReconnectingError):
            call()
    for future in futures:
        for _ in range(2):  # where the reader was faster than flush(), the blow falls here
            with contextlib.suppress(KeyboardInterrupt, NatsTimeoutError):
                future.result(PATIENCE)
        assert future.done()


@posix
@needs_gate
@pytest.mark.usefixtures("patient", "service")
@pytest.mark.parametrize("call", ["request", "flush"])
def test_a_handler_that_takes_its_time_does_not_hold_other_threads_up(
    call: str, nats_server: NatsServer, connect: Connect, handler: Handler
) -> None:
    """The thread below it holds the reading token, and cannot give it back."""
    client = connect(nats_server.url)
    calls: dict[str, Callable[[], object]] = {
        "request": lambda: client.request("turn.echo", timeout=PATIENCE),
        "flush": lambda: client.flush(PATIENCE),
    }
    done = threading.Event()

    def use() -> None:
        calls[call]()
        done.set()

    def dawdle() -> bool:
        assert is_read_by_caller(client)
        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        return done.wait(PATIENCE)

    eventually(lambda: is_read_by_nobody(client))
    handler.soon(dawdle)
    begin = time.monotonic()
    ask_in_vain(client, 1.0)
    assert handler.outcome == [True]
    assert time.monotonic() - begin < 2.0 + SOON
    check_usable(client)


@pytest.mark.parametrize("call", ["request", "flush", "rtt"])
def test_a_sender_that_does_not_come_back_does_not_hold_those_who_wait_up(
    call: str, scripted: Scripted, connect: Connect
) -> None:
    """An exception of a signal handler has taken it away, with the sending token; nobody publishes, all wait."""

    def script(conn: Conn) -> None:
        conn.handshake()
        conn.serve()  # without a PING of its own, which would wake the supervisor

    client = connect(scripted(script).url, reconnect_time_wait=0.01, reconnect_jitter=0.0)
    client.flush()
    never(lambda: client.stats.reconnects, 0.5)  # the supervisor is really asleep, and does not look after a sender
    client._engine.outbound._token = object()
    begin = time.monotonic()
    if call == "request":
        ask_in_vain(client, 2.0)
    else:
        with pytest.raises(ConnectionReconnectingError):  # nobody knows what has reached the server
            getattr(client, call)(PATIENCE)
    assert time.monotonic() - begin < 2.0 + SOON
    eventually(lambda: client.stats.reconnects == 1)
    client.flush()


# Processes.


def run(script: str, *args: str) -> str:
    flags = ["-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(script), *args],
        capture_output=True,
        text=True,
        timeout=60.0 * TIME_FACTOR,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@needs_gate
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.usefixtures("service")
def test_a_fork_while_a_caller_reads(nats_server: NatsServer) -> None:
    """The kernel's object behind the gate is shared by both processes."""
    script = """
    import contextlib, os, sys, threading
    import natsync, natsync.core.reader

    natsync.core.reader._MOMENT = 60.0
    nc = natsync.connect(sys.argv[1])
    sub = nc.subscribe("turn.parent")
    nc.flush()

    def ask():
        with contextlib.suppress(natsync.NatsTimeoutError):
            nc.request("turn.silent", timeout=1.0)

    for _ in range(5):
        thread = threading.Thread(target=ask)
        thread.start()
        reader = nc._engine.link.reader
        while reader._token.holder in (None, reader._turn):
            pass
        child = os.fork()
        if child == 0:
            assert nc.request("turn.echo", b"child").data == b"child"
            nc.flush()
            nc.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        nc.publish("turn.parent", b"x")
        assert nc.request("turn.echo", b"parent", timeout=10.0).data == b"parent"
        thread.join()
        assert sub.next_msg(timeout=10.0).data == b"x"
        nc.publish("turn.parent", b"y")
        assert sub.next_msg(timeout=10.0).data == b"y"
    assert nc.stats.reconnects == 0
    nc.close()
    print("good")
    """
    assert run(script, nats_server.url) == "good\n"


def test_without_epoll_everything_works(nats_server: NatsServer) -> None:
    """As on macOS and Windows, and under gevent."""
    script = """
    import concurrent.futures, select, sys, time
    if hasattr(select, "epoll"):
        del select.epoll
    import natsync

    nc = natsync.connect(sys.argv[1])
    assert nc._engine.link.transport.gate is None
    nc.subscribe("bare.echo", cb=lambda msg: msg.respond(msg.data))
    sub = nc.subscribe("bare.sub")
    nc.flush()
    assert nc.rtt() > 0
    for number in range(100):
        assert nc.request("bare.echo", b"%d" % number).data == b"%d" % number
    futures = [nc.request_future("bare.echo", b"%d" % number) for number in range(50)]
    assert sorted(int(f.result().data) for f in concurrent.futures.as_completed(futures, 10)) == list(range(50))

    def ask(name):
        return all(nc.request("bare.echo", b"%d" % name).data == b"%d" % name for _ in range(50))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert [msg.data for msg in nc.request_many("bare.echo", b"x", max_msgs=1)] == [b"x"]
    for number in range(1000):
        nc.publish("bare.sub", b"%d" % number)
    assert [int(sub.next_msg(timeout=10).data) for _ in range(1000)] == list(range(1000))
    nc.force_reconnect()
    while not nc.stats.reconnects:
        time.sleep(0.01)
    nc.flush()
    assert nc.request("bare.echo", b"again").data == b"again"
    nc.drain()
    print("good")
    """
    assert run(script, nats_server.url) == "good\n"
