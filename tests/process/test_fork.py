"""`os.fork()`: the child's client is a new one that connects at its first use, and the parent notices nothing."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import natsync
from natsync import (
    ConnectionClosedError,
    ForkedConnectionError,
    Msg,
    NoRespondersError,
    NoServersError,
    Status,
    nuid,
)
from natsync.core.process import _after_fork_in_child
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client
    from natsync.testing import NatsServer
    from tests.support.proxy import FaultProxy

    Connect = Callable[..., Client]

pytestmark = [
    pytest.mark.fork,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    # Newer Pythons warn of a fork in a process with threads, which is the very thing that is tested.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

FAST: dict[str, Any] = {"reconnect_time_wait": 0.05, "reconnect_jitter": 0.0}


class Child:
    """A forked process that runs one function, reports what it returned or raised as JSON, and ends by `os._exit`."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._read)
                os.write(write, report(action))
            finally:
                os._exit(0)
        os.close(write)

    def result(self, timeout: float = 10.0) -> Any:
        """What the function returned; what it raised is raised as an AssertionError."""
        outcome, value = json.loads(self._collect(timeout))
        assert outcome == "returned", f"the child raised {value}"
        return value

    def _collect(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout * TIME_FACTOR
        data = b""
        try:
            while select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                piece = os.read(self._read, 65536)
                if not piece:
                    return data
                data += piece
            raise AssertionError("the child hangs")
        finally:
            os.close(self._read)
            self.end()

    def end(self) -> int:
        """Make sure that it has ended, and return its exit code."""
        with contextlib.suppress(AssertionError):
            return exit_code(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitpid(self.pid, 0)[1]


def exit_code(pid: int) -> int:
    """Wait for the end of a child."""
    codes: list[int] = []

    def has_ended() -> bool:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            codes.append(os.waitstatus_to_exitcode(status))
        return bool(ended)

    eventually(has_ended, 2.0)
    return codes[0]


def report(action: Callable[[], object]) -> bytes:
    try:
        return json.dumps(["returned", action()]).encode()
    except BaseException as error:
        return json.dumps(["raised", f"{type(error).__name__}: {error}"]).encode()


def name_of_error(call: Callable[[], object]) -> str:
    """The class of what a call raises; for children, which report by words."""
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"


# The child


def test_the_childs_client_connects_anew_at_its_first_use(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("fork.first")
    client.flush()

    def in_child() -> list[object]:
        before = client.status.name, client.is_connected, client.connected_url, client.buffered
        client.publish("fork.first", b"from the child")
        client.flush()
        return [before, client.status.name, client.client_id]

    before, after, client_id = Child(in_child).result()
    assert before == ["DISCONNECTED", False, None, 0]
    assert after == "CONNECTED"
    assert client_id not in (None, client.client_id)
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"from the child"
    assert client.status is Status.CONNECTED


FIRST_USES: dict[str, Callable[[Client], object]] = {
    "publish": lambda client: client.publish("fork.use"),
    "publish_msg": lambda client: client.publish_msg(Msg("fork.use", headers={"a": "b"})),
    "subscribe": lambda client: client.subscribe("fork.use").sid,
    "request": lambda client: client.request("fork.echo", b"").subject,
    "request_future": lambda client: client.request_future("fork.echo").result().subject,
    "request_many": lambda client: len(list(client.request_many("fork.echo", max_msgs=1))),
    "flush": lambda client: client.flush(),
    "rtt": lambda client: client.rtt(),
}


@pytest.mark.parametrize("use", FIRST_USES)
def test_any_first_use_connects(use: str, nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    client.subscribe("fork.echo", cb=lambda msg: msg.respond(msg.data))
    client.flush()

    def in_child() -> list[object]:
        FIRST_USES[use](client)
        client.flush()
        return [client.status.name, client.client_id]

    status, client_id = Child(in_child).result()
    assert status == "CONNECTED"
    assert client_id != client.client_id


def test_looking_connects_nothing(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url)

    def in_child() -> list[object]:
        facts = [client.status.name, client.is_closed, client.stats.out_msgs, client.new_inbox()[:7], repr(client)]
        client.close()
        return [*facts, client.status.name]

    client.publish("fork.look")
    client.flush()
    status, is_closed, out_msgs, inbox, _, at_last = Child(in_child).result()
    assert (status, is_closed, out_msgs, inbox, at_last) == ("DISCONNECTED", False, 0, "_INBOX.", "CLOSED")
    assert proxy.accepted == 1


def test_the_child_has_no_subscriptions(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    who = client.subscribe("fork.who")
    client.subscribe("fork.called", cb=Recorder())
    with pytest.raises(NoRespondersError):
        client.request("fork.nobody")
    go_on, let_go = os.pipe()

    def in_child() -> object:
        client.flush()
        client.publish("fork.who", b"%d" % (client.client_id or 0))
        client.flush()
        return len(os.read(go_on, 1))

    child = Child(in_child)
    cid = int(who.next_msg(timeout=5.0 * TIME_FACTOR).data)
    connections = nats_server.connz(subs=True)["connections"]
    os.write(let_go, b"!")
    assert child.result() == 1
    os.close(go_on)
    os.close(let_go)
    assert [each.get("subscriptions_list", []) for each in connections if each["cid"] == cid] == [[]]


def test_an_inherited_subscription_raises(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("fork.inherited")
    called = client.subscribe("fork.inherited.cb", cb=lambda msg: None)
    client.publish("fork.inherited", b"for the parent")
    client.flush()
    calls: list[Callable[[], object]] = [
        sub.next_msg,
        lambda: sub.next_msg(timeout=0.1),
        lambda: list(sub),
        lambda: sub.auto_unsubscribe(1),
        lambda: sub.set_pending_limits(1, 1),
        sub.drain,
        sub.unsubscribe,
        called.drain,
        called.unsubscribe,
    ]

    def in_child() -> object:
        raised = [name_of_error(call) for call in calls]
        client.flush()  # a connection of its own makes no difference
        return [raised, [name_of_error(call) for call in calls], sub.is_valid, sub.subject]

    raised, raised_again, is_valid, subject = Child(in_child).result()
    assert set(raised) == set(raised_again) == {ForkedConnectionError.__name__}
    assert (is_valid, subject) == (False, "fork.inherited")
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"for the parent"


def test_a_loop_over_messages_ends_in_the_child_with_an_error(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("fork.loop", max_msgs=2)
    client.publish("fork.loop", b"1")
    client.publish("fork.loop", b"2")
    client.flush()
    seen = []
    for msg in sub:
        seen.append(msg.data)
        if len(seen) == 1:
            child = Child(lambda: name_of_error(lambda: next(iter(sub))))
            assert child.result() == ForkedConnectionError.__name__
    assert seen == [b"1", b"2"]


def test_the_child_may_subscribe_and_answer(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)

    def in_child() -> object:
        done = threading.Event()

        def answer(msg: Msg) -> None:
            msg.respond(b"child " + msg.data)
            done.set()

        client.subscribe("fork.service", cb=answer)
        client.flush()
        client.publish("fork.ready")
        assert done.wait(5.0 * TIME_FACTOR)
        client.drain()
        return client.is_closed

    ready = client.subscribe("fork.ready")
    client.flush()
    child = Child(in_child)
    ready.next_msg(timeout=5.0 * TIME_FACTOR)
    assert client.request("fork.service", b"hello").data == b"child hello"
    assert child.result() is True
    assert client.is_connected


def test_lifecycle_callbacks_work_in_the_child(nats_server: NatsServer, connect: Connect) -> None:
    events = Recorder()
    client = connect(nats_server.url, connected_cb=events, disconnected_cb=events, closed_cb=events)
    events.wait_for(1)

    def in_child() -> object:
        client.flush()
        client.close()
        return [type(event).__name__ for event in events.wait_for(4)]

    assert Child(in_child).result() == ["Connected", "Connected", "Disconnected", "Closed"]
    assert len(events) == 1


def test_many_threads_of_a_child_make_one_connection(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url)

    def in_child() -> object:
        start = threading.Barrier(8)

        def use(number: int) -> None:
            start.wait()
            for _ in range(50):
                client.publish(f"fork.many.{number}")
            client.flush()

        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return client.stats.out_msgs

    assert Child(in_child).result() == 400
    assert proxy.accepted == 2


def test_parent_and_child_draw_different_inboxes(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    client.new_inbox()
    child = Child(lambda: [client.new_inbox() for _ in range(100)])
    mine = {client.new_inbox() for _ in range(100)}
    assert not mine & set(child.result())


def test_a_closed_client_stays_closed(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    client.close()

    def in_child() -> object:
        calls: list[Callable[[], object]] = [client.flush, lambda: client.publish("a"), lambda: client.subscribe("a")]
        return [client.is_closed, client.status.name, [name_of_error(call) for call in calls]]

    assert Child(in_child).result() == [True, "CLOSED", [ConnectionClosedError.__name__] * 3]


def test_a_closed_client_in_the_child_leaves_the_parents_alone(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url)
    sub = client.subscribe("fork.leave")
    client.flush()

    def in_child() -> object:
        client.close()
        return client.is_closed

    assert Child(in_child).result() is True
    client.publish("fork.leave")
    sub.next_msg(timeout=5.0 * TIME_FACTOR)
    assert (client.stats.reconnects, proxy.accepted) == (0, 1)


def test_leaving_the_context_of_an_unused_client_is_quiet(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url)

    def in_child() -> object:
        client.__exit__(None, None, None)
        return client.is_closed

    assert Child(in_child).result() is True
    assert proxy.accepted == 1
    client.flush()


def test_a_child_that_finds_no_server_may_try_again(fresh_server: NatsServer, connect: Connect) -> None:
    client = connect(fresh_server.url, max_reconnect_attempts=None, **FAST)
    fresh_server.kill()
    eventually(lambda: client.is_reconnecting)
    started, start = os.pipe()

    def in_child() -> object:
        first = name_of_error(lambda: client.publish("fork.none"))
        os.write(start, b"?")
        deadline = time.monotonic() + 5.0 * TIME_FACTOR
        while time.monotonic() < deadline:
            if name_of_error(client.flush) == "nothing":
                return [first, client.status.name]
        return "no server"

    child = Child(in_child)
    os.read(started, 1)
    os.close(started)
    os.close(start)
    fresh_server.start()
    assert child.result() == [NoServersError.__name__, "CONNECTED"]
    client.flush()


# The parent


def test_the_parent_notices_nothing(proxy: FaultProxy, connect: Connect) -> None:
    events = Recorder()
    client = connect(proxy.url, disconnected_cb=events, error_cb=events, closed_cb=events)
    sub = client.subscribe("fork.parent")
    client.publish("fork.parent", b"before")
    client.flush()
    client_id, up = client.client_id, proxy.bytes_up
    for _ in range(5):
        assert Child(lambda: None).result() is None
    assert proxy.bytes_up == up
    assert (proxy.accepted, proxy.connections) == (1, 1)
    client.publish("fork.parent", b"after")
    client.flush()
    assert [sub.next_msg(timeout=1.0).data for _ in range(2)] == [b"before", b"after"]
    assert (client.client_id, client.stats.reconnects, events.items) == (client_id, 0, [])


def test_a_child_sends_nothing_of_what_the_parent_had_waiting(
    nats_server: NatsServer, proxy: FaultProxy, connect: Connect
) -> None:
    received = Recorder()
    witness = connect(nats_server.url)
    witness.subscribe("fork.backlog", cb=received)
    witness.flush()
    client = connect(proxy.url, **FAST)
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.is_reconnecting)
    for number in range(100):
        client.publish("fork.backlog", b"%d" % number)
    proxy.accept()

    def in_child() -> object:
        buffered = client.buffered
        client.publish("fork.backlog", b"100")
        client.flush()
        client.close()
        return buffered

    assert Child(in_child).result() == 0
    client.flush()
    received.wait_for(101)
    witness.flush()
    assert sorted(int(msg.data) for msg in received.items) == list(range(101))


def test_a_fork_while_the_connection_is_down(proxy: FaultProxy, connect: Connect) -> None:
    client = connect(proxy.url, **FAST)
    proxy.refuse()
    proxy.cut()
    eventually(lambda: client.is_reconnecting)
    before = Child(lambda: name_of_error(client.flush)).result()
    proxy.accept()
    after = Child(lambda: name_of_error(client.flush)).result()
    assert (before, after) == (NoServersError.__name__, "nothing")
    client.flush()
    assert client.stats.reconnects == 1


def test_a_request_of_another_thread_is_answered_to_the_parent(nats_server: NatsServer, connect: Connect) -> None:
    asked = Recorder()
    service = connect(nats_server.url)
    service.subscribe("fork.slow", cb=asked)
    service.flush()
    client = connect(nats_server.url)
    future = client.request_future("fork.slow", timeout=10.0 * TIME_FACTOR)
    (question,) = asked.wait_for(1)
    assert Child(lambda: name_of_error(client.flush)).result() == "nothing"
    question.respond(b"to the parent")
    assert future.result(5.0 * TIME_FACTOR).data == b"to the parent"


class Publishers:
    """Eight threads that publish numbers until they are stopped."""

    def __init__(self, client: Client) -> None:
        self.last: dict[int, int] = {}
        self._client = client
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._publish, args=(number,)) for number in range(8)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _publish(self, number: int) -> None:
        for count in itertools.count():
            self._client.publish(f"fork.busy.{number}", b"%d" % count)
            self.last[number] = count
            if self._stop.is_set():
                return
            if count % 50 == 0:
                self._client.flush()


def test_forks_while_eight_threads_publish(nats_server: NatsServer, connect: Connect) -> None:
    received: dict[str, list[int]] = {}

    def keep(msg: Msg) -> None:
        received.setdefault(msg.subject, []).append(int(msg.data))

    witness = connect(nats_server.url)
    witness.subscribe("fork.busy.*", cb=keep)
    witness.subscribe("fork.busy", cb=lambda msg: msg.respond(msg.data))
    witness.flush()
    client = connect(nats_server.url)

    def in_child() -> object:
        client.publish("fork.child")
        sub = client.subscribe("fork.mine")
        answer = client.request("fork.busy", b"%d" % os.getpid()).data == b"%d" % os.getpid()
        client.flush()
        sub.unsubscribe()
        client.close()
        return answer

    publishers = Publishers(client)
    with publishers:
        for _ in range(25):
            assert Child(in_child).result() is True
    client.flush()
    witness.flush()
    for number, last in publishers.last.items():
        subject = f"fork.busy.{number}"
        eventually(lambda subject=subject, last=last: received[subject][-1] == last)  # type: ignore[misc]
        assert received[subject] == list(range(last + 1))
    assert client.stats.reconnects == 0


# Forks at odd places


def test_a_fork_inside_a_callback(nats_server: NatsServer, connect: Connect) -> None:
    results = Recorder()
    client = connect(nats_server.url)

    def in_child() -> object:
        client.publish("fork.result", b"from the child of a callback")
        client.flush()
        return client.status.name

    def fork(msg: Msg) -> None:
        results((msg.data, Child(in_child).result()))

    heard = client.subscribe("fork.result")
    client.subscribe("fork.callback", cb=fork)
    for number in range(3):
        client.publish("fork.callback", b"%d" % number)
    assert results.wait_for(3, 10.0) == [(b"%d" % number, "CONNECTED") for number in range(3)]
    for _ in range(3):
        assert heard.next_msg(timeout=5.0 * TIME_FACTOR).data == b"from the child of a callback"


def test_a_callback_that_returns_in_the_child_is_the_childs_last(nats_server: NatsServer, connect: Connect) -> None:
    parent = os.getpid()
    read, write = os.pipe()
    children = Recorder()
    release = threading.Event()
    client = connect(nats_server.url)

    def fork(msg: Msg) -> None:
        release.wait(5.0 * TIME_FACTOR)  # until more messages are pending
        if os.getpid() != parent:
            os.write(write, b"the child handles " + msg.data)
            os._exit(1)
        if msg.data == b"0":
            pid = os.fork()
            if pid != 0:
                children(pid)

    client.subscribe("fork.return", cb=fork)
    for number in range(300):
        client.publish("fork.return", b"%d" % number)
    client.flush()
    release.set()
    (pid,) = children.wait_for(1)
    os.close(write)
    code = exit_code(pid)
    said = os.read(read, 1000)
    os.close(read)
    assert (code, said) == (0, b"")


def test_a_fork_inside_a_lifecycle_callback(fresh_server: NatsServer, connect: Connect) -> None:
    results = Recorder()

    def fork(event: natsync.events.Reconnected) -> None:
        client = event.client
        results(Child(lambda: [name_of_error(client.flush), client.status.name]).result())

    client = connect(fresh_server.url, reconnected_cb=fork, **FAST)
    client.flush()
    fresh_server.restart()
    assert results.wait_for(1, 10.0) == [["nothing", "CONNECTED"]]
    client.flush()


def test_a_nested_fork(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("fork.nested")
    client.flush()

    def use(name: bytes) -> int | None:
        client.publish("fork.nested", name)
        client.flush()
        return client.client_id

    def in_child() -> object:
        before = Child(lambda: use(b"grandchild of an unused child")).result()
        mine = use(b"child")
        after = Child(lambda: use(b"grandchild")).result()
        again = use(b"child again")
        return [before, mine, after, again]

    before, mine, after, again = Child(in_child).result()
    assert mine == again
    assert len({before, mine, after, client.client_id}) == 4
    said = [sub.next_msg(timeout=5.0 * TIME_FACTOR).data for _ in range(4)]
    assert said == [b"grandchild of an unused child", b"child", b"grandchild", b"child again"]


def test_several_clients_at_once(nats_server: NatsServer, connect: Connect) -> None:
    clients = [connect(nats_server.url) for _ in range(3)]
    clients[1].close()

    def in_child() -> object:
        return [name_of_error(client.flush) for client in clients]

    assert Child(in_child).result() == ["nothing", ConnectionClosedError.__name__, "nothing"]
    clients[0].flush()
    clients[2].flush()


LOCKS: dict[str, Callable[[Client], Any]] = {
    "the outbound buffer's": lambda client: client._engine.outbound._lock,
    "the status's": lambda client: client._engine.lifecycle._lock,
    "the table's": lambda client: client._engine.registry._lock,
    "the first use's": lambda client: client._engine._awake_lock,
    "the inbox's": lambda client: client._engine.mux._set_up,
    "the workers'": lambda client: client._engine.dispatcher._lock,
    "the timer's": lambda client: client._engine.timer._lock,
    "the pool's": lambda client: client._engine.pool_lock,
    "a subscription's": lambda client: client._engine.registry.all()[0]._lock,
    "the names'": lambda client: nuid._generator._lock,
}


@pytest.mark.parametrize("which", LOCKS)
def test_a_fork_while_another_thread_holds_a_lock(which: str, nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    sub = client.subscribe("fork.locked")
    client.subscribe("fork.locked.echo", cb=lambda msg: msg.respond(msg.data))
    client.flush()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with LOCKS[which](client):
            held.set()
            release.wait(10.0 * TIME_FACTOR)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5.0 * TIME_FACTOR)

    def in_child() -> object:
        client.publish("fork.locked")
        mine = client.subscribe("fork.locked.mine", cb=lambda msg: msg.respond(msg.data))
        answers = [client.request_future("fork.locked.mine").result().subject, str(client.new_inbox())]
        mine.drain()
        client.drain()
        return [name_of_error(lambda: sub.next_msg(0.1)), len(answers), client.status.name]

    child = Child(in_child)
    release.set()
    holder.join()
    assert child.result() == [ForkedConnectionError.__name__, 2, "CLOSED"]
    client.flush()
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).subject == "fork.locked"


def test_forks_in_the_middle_of_reconnects(fresh_server: NatsServer, connect: Connect) -> None:
    client = connect(fresh_server.url, reconnect_time_wait=0.01, reconnect_jitter=0.0)
    sub = client.subscribe("fork.reconnect")
    children: list[Child] = []

    def in_child() -> object:
        eventually(lambda: name_of_error(client.flush) == "nothing", 10.0)  # the server may be down when it is asked
        client.publish("fork.reconnect", b"from a child")
        client.close()
        return client.status.name

    for _ in range(4):
        fresh_server.kill()
        children += [Child(in_child) for _ in range(2)]
        fresh_server.start()
        children += [Child(in_child) for _ in range(2)]
    assert [child.result(20.0) for child in children] == ["CLOSED"] * len(children)
    client.flush()
    client.publish("fork.reconnect", b"from the parent")
    while sub.next_msg(timeout=5.0 * TIME_FACTOR).data != b"from the parent":
        pass


def test_hooks_are_there_in_the_child(nats_server: NatsServer, connect: Connect) -> None:
    client = connect(nats_server.url)
    seen: list[str] = []

    def around(msg: Msg, call: Callable[[Msg], object]) -> None:
        seen.append("around")
        call(msg)

    client.with_handler(around)
    client.with_publish(lambda msg: Msg(msg.subject, msg.data + b"!", reply=msg.reply))

    def in_child() -> object:
        client.subscribe("fork.hooks", cb=lambda msg: msg.respond(msg.data))
        return [client.request("fork.hooks", b"mine").data.decode(), seen]

    assert Child(in_child).result() == ["mine!!", ["around"]]
    assert seen == []


def test_a_second_call_of_the_hook_harms_nothing(nats_server: NatsServer, connect: Connect) -> None:
    """uWSGI may call it by itself, beside Python."""
    client = connect(nats_server.url)

    def in_child() -> object:
        client.flush()
        mine = client.client_id
        _after_fork_in_child()
        client.flush()
        return mine == client.client_id

    assert Child(in_child).result() is True
    client.flush()


# multiprocessing

shared: Client | None = None


@pytest.fixture
def global_client(nats_server: NatsServer, connect: Connect) -> Iterator[Client]:
    """A client in a global variable, as programs have it."""
    global shared
    shared = connect(nats_server.url)
    yield shared
    shared = None


def publish_from_a_process(number: int) -> None:
    assert shared is not None
    shared.publish("fork.mp", b"%d" % number)


def use_in_a_process(url: str) -> None:
    with natsync.connect(url) as client:
        client.publish("fork.mp", b"spawned")


def wait_for(process: Any) -> int | None:
    process.join(20.0 * TIME_FACTOR)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError("the process hangs")
    code: int = process.exitcode
    process.close()
    return code


def test_multiprocessing_by_fork(global_client: Client) -> None:
    sub = global_client.subscribe("fork.mp")
    global_client.flush()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=publish_from_a_process, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    assert [wait_for(process) for process in processes] == [0] * 4
    # They end without close() and without flush(): what they published is not lost all the same.
    assert sorted(sub.next_msg(timeout=5.0 * TIME_FACTOR).data for _ in range(4)) == [b"0", b"1", b"2", b"3"]
    assert global_client.stats.reconnects == 0


def test_a_pool_by_fork(global_client: Client) -> None:
    sub = global_client.subscribe("fork.mp")
    global_client.flush()
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.map(publish_from_a_process, range(30), chunksize=1)
        pool.close()
        pool.join()
    assert sorted(int(sub.next_msg(timeout=5.0 * TIME_FACTOR).data) for _ in range(30)) == list(range(30))
    never(lambda: sub.pending_msgs, 0.05)


def test_multiprocessing_by_spawn(nats_server: NatsServer, global_client: Client) -> None:
    sub = global_client.subscribe("fork.mp")
    global_client.flush()
    process = multiprocessing.get_context("spawn").Process(target=use_in_a_process, args=(nats_server.url,))
    process.start()
    assert wait_for(process) == 0
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"spawned"


def test_a_client_cannot_be_sent_to_another_process(global_client: Client) -> None:
    context = multiprocessing.get_context("spawn")
    with pytest.raises(TypeError, match="pickle"):
        context.Process(target=print, args=(global_client,)).start()
    global_client.flush()


# Import


def test_importing_starts_no_thread_and_opens_no_socket() -> None:
    script = """
import os, threading
before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
import natsync
from natsync.policy.options import make_options
make_options("nats://127.0.0.1:4222", {"name": "n", "ping_interval": 1.0})
after = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
assert threading.active_count() == 1, threading.enumerate()
assert before == after
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20 * TIME_FACTOR)
