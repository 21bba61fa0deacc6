"""Many threads, one client, and a connection that breaks all the time: what holds then, and what holds afterwards."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import random
import signal
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from natsync import (
    BadSubscriptionError,
    ConnectionClosedError,
    ConnectionDrainingError,
    ConnectionReconnectingError,
    NatsTimeoutError,
    NoRespondersError,
    OutboundBufferLimitError,
)
from natsync.events import Closed, Connected, Disconnected, Reconnected
from tests.support.leaks import natsync_threads
from tests.support.proxy import FaultProxy
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client, Msg, Subscription
    from natsync.testing import NatsServer
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

FAST: dict[str, Any] = {"reconnect_time_wait": 0.01, "reconnect_jitter": 0.0}
BROKEN = (ConnectionReconnectingError, NatsTimeoutError, OutboundBufferLimitError)


@pytest.fixture(params=[None, 1e-6], ids=["usual", "restless"])
def switching(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test twice: as usual, and with an interpreter that changes threads as often as it can."""
    usual = sys.getswitchinterval()
    if request.param is not None:
        sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(usual)


class Crowd:
    """Threads that each repeat something until they are told to stop; what they raise fails the test."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def repeat(self, action: Callable[[], object], *, ends: tuple[type[Exception], ...] = ()) -> None:
        """Start a thread; an exception of `ends` ends it in peace."""

        def run() -> None:
            try:
                while not self.stop.is_set():
                    action()
            except ends:
                pass
            except BaseException as error:
                self.errors.append(error)
                self.stop.set()

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def join(self, timeout: float = 20.0) -> None:
        self.stop.set()
        deadline = time.monotonic() + timeout * TIME_FACTOR
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not [thread for thread in self._threads if thread.is_alive()], "a thread hangs"
        if self.errors:
            raise self.errors[0]


class Numbers:
    """A callback that keeps the numbers that came, by subject."""

    def __init__(self) -> None:
        self.by_subject: dict[str, list[int]] = defaultdict(list)

    def __call__(self, msg: Msg) -> None:
        self.by_subject[msg.subject].append(int(msg.data))


def sids_on(server: NatsServer, client: Client) -> list[int]:
    for connection in server.monitor("connz?subs=detail")["connections"]:
        if connection["cid"] == client.client_id:
            return sorted(int(sub["sid"]) for sub in connection.get("subscriptions_list_detail", []))
    return []


def break_for(seconds: float, proxy: FaultProxy, client: Client, stop: threading.Event) -> None:
    """Break the connection again and again, in every way there is."""
    chance = random.Random(20260501)
    ways: list[Callable[[], object]] = [
        proxy.cut,
        proxy.reset,
        proxy.half_close,
        client.force_reconnect,
        lambda: proxy.cut_after(chance.randrange(1, 20_000), "up", reset=chance.random() < 0.5),
        lambda: proxy.cut_after(chance.randrange(1, 20_000), "down", reset=chance.random() < 0.5),
    ]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not stop.wait(chance.uniform(0.005, 0.08)):
        chance.choice(ways)()


class Racers:
    """What the threads of one test do with one client, each method in a thread of its own; losses are all in order."""

    def __init__(self, client: Client, stop: threading.Event) -> None:
        self.client = client
        self.stop = stop
        self.live: dict[int, Subscription] = {}

    def publisher(self, subject: str) -> Callable[[], None]:
        numbers = itertools.count()

        def publish() -> None:
            number = next(numbers)
            try:
                self.client.publish(subject, b"%d" % number)
            except BROKEN:
                self.stop.wait(0.01)
            if number % 100 == 99:
                self.stop.wait(0.002)

        return publish

    def subscriber(self, seed: int) -> Callable[[], None]:
        mine: list[Subscription] = []
        dice = random.Random(seed)

        def subscribe_or_unsubscribe() -> None:
            if not mine or dice.random() < 0.52:
                cb = print if dice.random() < 0.5 else None
                sub = self.client.subscribe(f"race.sub.{seed}.*", cb=cb)
                self.live[sub.sid] = sub
                mine.append(sub)
            else:
                sub = mine.pop(dice.randrange(len(mine)))
                del self.live[sub.sid]
                sub.unsubscribe()
            if len(mine) % 8 == 0:
                self.stop.wait(0.001)

        return subscribe_or_unsubscribe

    def request(self) -> None:
        question = b"%d %d" % (threading.get_ident(), time.monotonic_ns())
        with contextlib.suppress(*BROKEN, NoRespondersError):
            assert self.client.request("race.echo", question, timeout=0.3).data == question

    def request_future(self) -> None:
        questions = [b"%d" % number for number in range(10)]
        with contextlib.suppress(*BROKEN):
            futures = [self.client.request_future("race.echo", question, timeout=0.3) for question in questions]
            for question, future in zip(questions, futures, strict=True):
                with contextlib.suppress(NatsTimeoutError, NoRespondersError):
                    assert future.result().data == question

    def flush(self) -> None:
        for call in (self.client.flush, self.client.rtt):
            try:
                call(timeout=0.5)
            except BROKEN:
                self.stop.wait(0.005)


@pytest.mark.usefixtures("switching")
def test_everything_at_once_while_the_connection_breaks(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    numbers = Numbers()
    witness = connect(nats_server.url)
    witness.subscribe("race.number.*", cb=numbers)
    witness.subscribe("race.echo", cb=lambda msg: msg.respond(msg.data))
    witness.flush()
    client = connect(proxy.url, **FAST)
    crowd = Crowd()
    racers = Racers(client, crowd.stop)
    for name in range(3):
        crowd.repeat(racers.publisher(f"race.number.{name}"))
    for seed in range(2):
        crowd.repeat(racers.subscriber(seed))
    for action in (racers.request, racers.request_future, racers.flush):
        crowd.repeat(action)
    break_for(5.0, proxy, client, crowd.stop)
    crowd.join()
    settle(client)
    witness.flush()
    # The order cannot be told here: a server may read its two connections of one client at the same time.
    for received in numbers.by_subject.values():
        assert len(received) == len(set(received)), "something came twice"
    assert client.stats.reconnects > 5
    eventually(lambda: sids_on(nats_server, client) == sorted([*racers.live, client._engine.mux.sid]))
    settle(client, lambda: client.request("race.echo", timeout=1.0))
    client.close()
    assert not [thread for thread in natsync_threads() if thread.name.startswith(f"natsync-{client._engine.label}-")]


def settle(client: Client, call: Callable[[], object] | None = None) -> None:
    """Have a call (a flush) succeed; a fault of the last moment may still be under way."""

    def succeeds() -> bool:
        try:
            (call or client.flush)()
        except (ConnectionReconnectingError, NatsTimeoutError):
            return False
        return True

    eventually(succeeds, 10.0)


class Breaking:
    """A script: a server that keeps what it is told and closes at odd bytes; the last connection stays."""

    def __init__(self, connections: int) -> None:
        self.connections = connections
        self.streams: list[list[bytes]] = []
        self.is_last = threading.Event()
        self._chance = random.Random(7)

    def __call__(self, conn: Conn) -> None:
        conn.handshake()
        if conn.number < self.connections:
            self.streams.append(conn.read_exactly(self._chance.randrange(100, 3000)).split(b"\r\n")[:-1])
        else:
            self.is_last.set()
            self.streams.append(conn.serve())


@pytest.mark.usefixtures("switching")
def test_what_a_thread_publishes_stays_in_order(scripted: Scripted, connect: Connect) -> None:
    script = Breaking(25)
    client = connect(scripted(script).url, **FAST)
    crowd = Crowd()
    racers = Racers(client, crowd.stop)
    for name in range(6):
        crowd.repeat(racers.publisher(f"order.{name}"))
    script.is_last.wait(20.0 * TIME_FACTOR)
    crowd.join()
    settle(client)
    client.close()
    eventually(lambda: len(script.streams) == 26)
    for name in range(6):
        command = b"PUB order.%d " % name
        everything: list[int] = []
        for stream in script.streams:
            lines = itertools.pairwise(stream)
            numbers = [int(data) for line, data in lines if line.startswith(command)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
            everything += numbers
        assert everything == sorted(set(everything))


@pytest.mark.usefixtures("switching")
def test_every_connection_hears_of_a_subscription_at_most_once(scripted: Scripted, connect: Connect) -> None:
    script = Breaking(25)
    client = connect(scripted(script).url, **FAST)
    crowd = Crowd()
    ended: list[int] = []
    live: list[int] = []

    def work() -> None:
        subs = [client.subscribe(f"once.{number}") for number in range(6)]
        for sub in subs[:4]:
            sub.unsubscribe()
        ended.extend(sub.sid for sub in subs[:4])
        live.extend(sub.sid for sub in subs[4:])
        crowd.stop.wait(0.002)

    for _ in range(4):
        crowd.repeat(work)
    script.is_last.wait(20.0 * TIME_FACTOR)
    crowd.join()
    settle(client)
    client.close()
    eventually(lambda: len(script.streams) == 26)
    seen: set[bytes] = set()
    for stream in script.streams:
        sids = [line.split()[-1] for line in stream if line.startswith(b"SUB ")]
        assert len(sids) == len(set(sids)), "subscribed twice on one connection"
        seen = set()
        for line in stream:
            if line.startswith(b"SUB "):
                seen.add(line.split()[-1])
            elif line.startswith(b"UNSUB "):
                assert line.split()[1] in seen, "unsubscribed without having been subscribed"
                seen.remove(line.split()[1])
    assert {int(sid) for sid in seen} == set(live)
    assert not {int(sid) for sid in seen} & set(ended)


# Ending


@pytest.mark.usefixtures("switching")
def test_close_races_with_everything(nats_server: NatsServer, connect: Connect) -> None:
    service = connect(nats_server.url)
    service.subscribe("close.echo", cb=lambda msg: msg.respond(msg.data))
    service.flush()
    for number in range(15):
        events = Recorder()
        names = ("connected_cb", "disconnected_cb", "reconnected_cb", "closed_cb")
        with FaultProxy("127.0.0.1", nats_server.port) as proxy:
            client = connect(proxy.url, **dict.fromkeys(names, events), **FAST)
            close_at_once(client, proxy, number)
        eventually(lambda events=events: events.items and type(events.items[-1]) is Closed)  # type: ignore[misc]
        kinds = [type(event) for event in events.items]
        assert kinds.count(Closed) == 1
        for before, after in itertools.pairwise(kinds):
            if after is Disconnected:
                assert before in (Connected, Reconnected), kinds
            elif after is Reconnected:
                assert before is Disconnected, kinds


def close_at_once(client: Client, proxy: FaultProxy, number: int) -> None:
    crowd = Crowd()
    start = threading.Barrier(12)
    # To unsubscribe what the client's end has just ended is an error of the subscription.
    ends = (ConnectionClosedError, ConnectionDrainingError, BadSubscriptionError)

    def repeat(action: Callable[[], object]) -> None:
        arrived = False

        def wait_first() -> None:
            nonlocal arrived
            if not arrived:
                arrived = True
                start.wait(5.0 * TIME_FACTOR)
            try:
                action()
            except BROKEN:
                pass

        crowd.repeat(wait_first, ends=ends)

    def loop() -> None:
        with client.subscribe("close.loop") as sub:
            client.publish("close.loop")
            for _ in sub:
                client.publish("close.loop")
            client.publish("close.loop")  # raises, when the loop was ended by the client's end

    repeat(lambda: client.publish("close.x", bytes(100)))
    repeat(lambda: client.subscribe("close.y").unsubscribe())
    repeat(lambda: client.subscribe("close.z", cb=lambda msg: None))
    repeat(lambda: client.request("close.echo", timeout=5.0))
    repeat(lambda: client.request_future("close.echo", timeout=5.0).result())
    repeat(lambda: list(client.request_many("close.echo", timeout=5.0, max_msgs=1)))
    repeat(client.flush)
    repeat(client.rtt)
    repeat(loop)
    repeat(client.force_reconnect if number % 3 == 0 else lambda: client.publish("close.z"))
    repeat(proxy.cut if number % 3 == 1 else lambda: client.subscribe("close.w", max_msgs=1))
    start.wait(5.0 * TIME_FACTOR)
    crowd.stop.wait(0.005 * (number % 4))
    with ThreadPoolExecutor(3) as pool:
        ways = [client.close, client.close, client.drain if number % 5 == 4 else client.close]
        for end in [pool.submit(way) for way in ways]:
            try:
                end.result(10.0 * TIME_FACTOR)
            except (ConnectionClosedError, ConnectionReconnectingError):
                pass  # the drain came second
    assert client.is_closed
    crowd.join(10.0)


@pytest.mark.usefixtures("switching")
def test_close_while_threads_are_being_started(nats_server: NatsServer, connect: Connect) -> None:
    for _ in range(60):
        client = connect(nats_server.url)
        start = threading.Barrier(3)

        def use(call: Callable[[], object], start: threading.Barrier = start) -> None:
            start.wait(5.0 * TIME_FACTOR)
            with contextlib.suppress(ConnectionClosedError):
                call()

        with ThreadPoolExecutor(3) as pool:
            uses: list[Callable[[], object]] = [
                lambda client=client: client.subscribe("start.worker", cb=print, workers=4),  # type: ignore[misc]
                lambda client=client: client.request_future("start.timer"),  # type: ignore[misc]
                client.close,
            ]
            for each in [pool.submit(use, call) for call in uses]:
                each.result(10.0 * TIME_FACTOR)
        assert client.is_closed


@pytest.mark.usefixtures("switching")
def test_drain_races_with_the_loss_of_the_connection(nats_server: NatsServer, connect: Connect) -> None:
    chance = random.Random(11)
    for _ in range(25):
        closed = Recorder()
        with FaultProxy("127.0.0.1", nats_server.port) as proxy:
            client = connect(proxy.url, closed_cb=closed, drain_timeout=5.0, **FAST)
            for number in range(4):
                client.subscribe(f"drain.{number}", cb=lambda msg: client.publish("drain.out"))  # noqa: B023
            for number in range(400):
                client.publish(f"drain.{number % 4}", bytes(100))
            with ThreadPoolExecutor(1) as pool:
                drain = pool.submit(client.drain)
                concurrent.futures.wait([drain], chance.uniform(0.0, 0.01))
                proxy.cut()
                error = drain.exception(10.0 * TIME_FACTOR)
            assert error is None or isinstance(error, (ConnectionClosedError, ConnectionReconnectingError)), error
            assert client.is_closed
            closed.wait_for(1)


def test_closing_in_connected_cb_is_an_ordinary_end(proxy: FaultProxy, connect: Connect) -> None:
    usual = sys.getswitchinterval()
    for number in range(40):
        events = Recorder()

        def end(event: Connected, events: Recorder = events) -> None:
            events(event)
            event.client.close()

        sys.setswitchinterval(usual if number % 2 else 1e-6)
        try:
            client = connect(proxy.url, connected_cb=end, disconnected_cb=events, closed_cb=events)
            assert client.wait_closed(5.0 * TIME_FACTOR)
        finally:
            sys.setswitchinterval(usual)
        events.wait_for(3)
        assert [type(event) for event in events.items] == [Connected, Disconnected, Closed]
        eventually(lambda: proxy.connections == 0)


# Ctrl-C


class Strike:
    """Raises KeyboardInterrupt in the main thread, once, after a time that may lie anywhere in the call under test."""

    def __init__(self) -> None:
        self._armed = False
        self._usual = signal.signal(signal.SIGALRM, self._handle)

    def close(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._usual)

    def during(self, call: Callable[[], object], delay: float) -> bool:
        """Say whether the call was interrupted; it may also have been faster."""
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, delay)
            call()
            self._armed = False
        except KeyboardInterrupt:
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False

    def _handle(self, *args: object) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt


@pytest.fixture
def strike() -> Iterator[Strike]:
    each = Strike()
    yield each
    each.close()


@pytest.mark.untraced
@pytest.mark.timeout(60, method="thread")  # the signal of the other method is used here
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
@pytest.mark.usefixtures("switching")
# It may strike in the callback of a weak reference, from where nothing can be raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("call", ["request", "publish", "flush", "rtt"])
def test_ctrl_c_at_any_moment_leaves_the_client_usable(
    call: str, strike: Strike, nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    chance = random.Random(call)
    service = connect(nats_server.url)
    service.subscribe("struck.echo", cb=lambda msg: msg.respond(msg.data))
    service.flush()
    client = connect(proxy.url, **FAST)
    own = client.subscribe("struck.own")

    def publish() -> None:
        for _ in range(20):
            client.publish("struck.own", b"interrupted")

    calls: dict[str, Callable[[], object]] = {
        "request": lambda: client.request("struck.echo", b"interrupted"),
        "publish": publish,
        "flush": client.flush,
        "rtt": client.rtt,
    }
    usual = min(duration(calls[call]) for _ in range(10))
    interrupted = 0
    waits: list[float] = []
    enough = time.monotonic() + 12.0
    for number in range(1000):
        if interrupted > 30 or time.monotonic() > enough:
            break
        interrupted += strike.during(calls[call], chance.uniform(1e-6, usual))
        waits.append(duration(lambda number=number: check_usable(client, own, b"%d" % number)))  # type: ignore[misc]
    assert interrupted  # thirty on a quiet machine
    assert not client._engine.mux.waiters()
    slow = [each for each in waits if each > 1.0 * TIME_FACTOR]
    assert not slow, f"after {len(slow)} of {interrupted} interrupts the client was stuck"


@pytest.mark.untraced
@pytest.mark.timeout(60, method="thread")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_of_waiting_for_the_end(strike: Strike, nats_server: NatsServer, connect: Connect) -> None:
    chance = random.Random(1)
    client = connect(nats_server.url)
    interrupted = 0
    enough = time.monotonic() + 3.0
    while time.monotonic() < enough:
        interrupted += strike.during(lambda: client.wait_closed(0.0002), chance.uniform(1e-6, 1e-4))
    assert interrupted
    threading.Thread(target=client.close, name="test-closer", daemon=True).start()
    assert client.wait_closed(5.0 * TIME_FACTOR)


def duration(call: Callable[[], object]) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def check_usable(client: Client, own: Subscription, number: bytes) -> None:
    while True:
        reconnects = client.stats.reconnects
        try:
            client.publish("struck.own", number)
            client.flush()
            assert client.request("struck.echo", number).data == number
        except ConnectionReconnectingError:
            continue  # an interrupted send may cost the connection
        if client.stats.reconnects == reconnects:
            break
    # The flush has returned: what was published before it has gone to the server, and come back.
    messages = [own.next_msg(timeout=0) for _ in range(own.pending_msgs)]
    assert messages, "the flush returned before its PONG"
    assert messages[-1].data == number
