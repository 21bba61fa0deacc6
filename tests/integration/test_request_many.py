"""One question, several answers: `request_many`."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Msg
from natsync.errors import ConfigError, ConnectionClosedError, NoRespondersError
from tests.support.waiting import TIME_FACTOR, eventually, never

if TYPE_CHECKING:
    from natsync.testing import NatsServer

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR


def in_background(call: Callable[[], Any]) -> Future[Any]:
    """Run a blocking call on a thread of its own, which a test that fails may leave behind."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


@pytest.fixture
def service(connect: Connect, nats_server: NatsServer) -> Client:
    """A client that answers "many" with as many messages as the request says, and "slow" one by one when told."""
    client = connect(nats_server.url)

    def answer(msg: Msg) -> None:
        for number in range(int(msg.data)):
            msg.respond(b"%d" % number, headers={"number": str(number)})

    client.subscribe("many", cb=answer)
    client.flush()
    return client


def numbers(replies: Iterator[Msg]) -> list[int]:
    return [int(reply.data) for reply in replies]


def took(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def is_forgotten(client: Client) -> bool:
    return client._engine.mux.waiters() == []


# Where it ends


def test_it_ends_at_the_timeout(nats_client: Client, service: Client) -> None:
    began = time.monotonic()
    assert numbers(nats_client.request_many("many", b"5", timeout=0.2)) == [0, 1, 2, 3, 4]
    assert 0.2 <= time.monotonic() - began < 1.4 * TIME_FACTOR
    assert is_forgotten(nats_client)


def test_the_option_is_the_default_timeout(connect: Connect, nats_server: NatsServer, service: Client) -> None:
    client = connect(nats_server.url, request_timeout=0.2)
    assert 0.2 <= took(lambda: numbers(client.request_many("many", b"5"))) < 1.4 * TIME_FACTOR


def test_a_service_that_does_not_answer_gives_nothing(nats_client: Client, service: Client) -> None:
    assert numbers(nats_client.request_many("many", b"0", timeout=0.05)) == []


@pytest.mark.parametrize("max_msgs, sent, expected", [(3, 10, 3), (1, 10, 1), (10, 10, 10)])
def test_it_ends_after_so_many_messages(
    nats_client: Client, service: Client, max_msgs: int, sent: int, expected: int
) -> None:
    began = time.monotonic()
    replies = nats_client.request_many("many", b"%d" % sent, timeout=PATIENCE, max_msgs=max_msgs)
    assert numbers(replies) == list(range(expected))
    assert time.monotonic() - began < 1.0 * TIME_FACTOR
    assert is_forgotten(nats_client)


def test_fewer_messages_than_the_most_end_at_the_timeout(nats_client: Client, service: Client) -> None:
    assert numbers(nats_client.request_many("many", b"3", timeout=0.1, max_msgs=5)) == [0, 1, 2]


def test_it_ends_when_nothing_comes_any_more(nats_client: Client, service: Client) -> None:
    began = time.monotonic()
    assert numbers(nats_client.request_many("many", b"5", timeout=PATIENCE, stall=0.5)) == [0, 1, 2, 3, 4]
    assert 0.5 <= time.monotonic() - began < 2.0 * TIME_FACTOR
    assert is_forgotten(nats_client)


def test_a_stall_begins_anew_with_every_message(nats_client: Client, service: Client) -> None:
    asked = service.subscribe("drip")
    service.flush()

    def drip() -> None:
        msg = asked.next_msg(PATIENCE)
        for number in range(5):
            msg.respond(b"%d" % number)
            threading.Event().wait(0.4)

    dripping = in_background(drip)
    assert numbers(nats_client.request_many("drip", timeout=PATIENCE, stall=1.4, max_msgs=5)) == [0, 1, 2, 3, 4]
    dripping.result(PATIENCE)


def test_the_timeout_is_for_everything(nats_client: Client, service: Client) -> None:
    asked = service.subscribe("flood")
    service.flush()
    over = threading.Event()

    def flood() -> None:
        msg = asked.next_msg(PATIENCE)
        while not over.is_set():
            msg.respond(b"more")
            over.wait(0.01)

    flooding = in_background(flood)
    began = time.monotonic()
    replies = list(nats_client.request_many("flood", timeout=0.3, stall=5))
    assert 0.3 <= time.monotonic() - began < 1.6 * TIME_FACTOR
    assert len(replies) > 3
    over.set()
    flooding.result(PATIENCE)


def test_it_ends_at_the_sentinel_which_is_not_yielded(nats_client: Client, service: Client) -> None:
    looked_at = []

    def is_last(msg: Msg) -> bool:
        looked_at.append(int(msg.data))
        return msg.data == b"3"

    began = time.monotonic()
    assert numbers(nats_client.request_many("many", b"10", timeout=PATIENCE, sentinel=is_last)) == [0, 1, 2]
    assert time.monotonic() - began < 1.0 * TIME_FACTOR
    assert looked_at == [0, 1, 2, 3]
    assert is_forgotten(nats_client)


def test_an_empty_message_may_be_the_sentinel(nats_client: Client, service: Client) -> None:
    def answer(msg: Msg) -> None:
        msg.respond(b"1")
        msg.respond()

    service.subscribe("ended", cb=answer)
    service.flush()
    replies = nats_client.request_many("ended", timeout=PATIENCE, sentinel=lambda msg: not msg.data)
    assert [reply.data for reply in replies] == [b"1"]


def test_a_sentinel_that_raises_ends_it_with_its_error(nats_client: Client, service: Client) -> None:
    replies = nats_client.request_many("many", b"3", timeout=PATIENCE, sentinel=lambda msg: 1 // int(msg.data) < 0)
    with pytest.raises(ZeroDivisionError):
        next(replies)
    assert list(replies) == []
    assert is_forgotten(nats_client)


def test_an_iterator_that_has_ended_stays_so(nats_client: Client, service: Client) -> None:
    replies = nats_client.request_many("many", b"9", timeout=PATIENCE, max_msgs=2)
    assert numbers(replies) == [0, 1]
    assert numbers(replies) == []
    with pytest.raises(StopIteration):
        next(replies)


# Answers of several services, and of none


def test_every_service_answers(connect: Connect, nats_server: NatsServer, nats_client: Client) -> None:
    def serve(number: int) -> None:
        member = connect(nats_server.url)
        member.subscribe("who", cb=lambda msg: msg.respond(b"%d" % number))
        member.flush()

    for number in range(5):
        serve(number)
    assert sorted(numbers(nats_client.request_many("who", timeout=PATIENCE, max_msgs=5))) == [0, 1, 2, 3, 4]


def test_headers_go_both_ways(nats_client: Client, service: Client) -> None:
    service.subscribe("echo", cb=lambda msg: msg.respond(msg.data, headers=msg.headers))
    service.flush()
    (reply,) = nats_client.request_many("echo", b"x", max_msgs=1, headers={"a": ["1", "2"]})
    assert reply.headers == {"a": ["1", "2"]}


def test_nobody_there_is_known_at_once(nats_client: Client) -> None:
    began = time.monotonic()
    with pytest.raises(NoRespondersError) as caught:
        list(nats_client.request_many("nobody", timeout=10))
    assert time.monotonic() - began < 1.2 * TIME_FACTOR
    assert caught.value.subject == "nobody"
    assert is_forgotten(nats_client)


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0}, {"max_msgs": 0}, {"max_msgs": 1.5}, {"stall": 0}, {"stall": -1}, {"stall": "1"}],
    ids=str,
)
def test_impossible_limits_are_refused(nats_client: Client, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        nats_client.request_many("many", **options)
    assert is_forgotten(nats_client)


# The end of the client


def test_close_fails_a_step_that_waits(nats_client: Client, service: Client) -> None:
    replies = nats_client.request_many("many", b"1", timeout=60)
    assert next(replies).data == b"0"
    waiting = in_background(lambda: next(replies))
    never(waiting.done, 0.05)
    nats_client.close()
    with pytest.raises(ConnectionClosedError):
        waiting.result(PATIENCE)


def test_close_fails_the_next_step(nats_client: Client, service: Client) -> None:
    replies = nats_client.request_many("many", b"1", timeout=60)
    assert next(replies).data == b"0"
    nats_client.close()
    with pytest.raises(ConnectionClosedError):  # the end of a loop would say that these were all replies
        next(replies)
    assert list(replies) == []


@pytest.mark.parametrize("fate", ["held by the caller", "expired", "forgotten meanwhile"])
def test_unfinished_replies_do_not_hold_drain_up(nats_client: Client, service: Client, fate: str) -> None:
    held = [nats_client.request_many("many", b"1", timeout=0.05 if fate == "expired" else 60)]
    next(held[0])
    if fate == "expired":
        over = time.monotonic() + 0.06
        eventually(lambda: time.monotonic() > over)
    if fate == "forgotten meanwhile":
        draining = in_background(lambda: nats_client.drain(PATIENCE))
        eventually(lambda: nats_client.is_draining or draining.done())
        held.clear()
        draining.result(PATIENCE / 2)
    else:
        nats_client.drain(2.0)


def test_drain_waits_for_replies_that_another_thread_waits_for(nats_client: Client, service: Client) -> None:
    asked = service.subscribe("late")
    service.flush()
    waiting = in_background(lambda: [msg.data for msg in nats_client.request_many("late", timeout=60, max_msgs=2)])
    msg = asked.next_msg(PATIENCE)
    msg.respond(b"1")
    draining = in_background(nats_client.drain)
    eventually(lambda: nats_client.is_draining or draining.done())
    never(draining.done, 0.05)
    msg.respond(b"2")
    assert waiting.result(PATIENCE) == [b"1", b"2"]
    draining.result(PATIENCE)


# Leaving early


@pytest.mark.parametrize("leave", ["close", "with", "break", "forget"])
def test_leaving_early_leaves_nothing(nats_client: Client, service: Client, leave: str) -> None:
    replies = nats_client.request_many("many", b"100", timeout=60)
    if leave == "close":
        next(replies)
        replies.close()
        replies.close()
        assert list(replies) == []
    elif leave == "with":
        with replies as entered:
            next(entered)
    elif leave == "break":
        for _ in nats_client.request_many("many", b"100", timeout=60):
            break
        replies.close()
    else:
        next(replies)
    del replies
    gc.collect()
    assert is_forgotten(nats_client)
    assert numbers(nats_client.request_many("many", b"3", timeout=PATIENCE, max_msgs=3)) == [0, 1, 2]


def test_many_abandoned_ones_leave_nothing(nats_client: Client, service: Client) -> None:
    before = len(nats_client._engine.registry.all())
    for _ in range(500):
        next(nats_client.request_many("many", b"2", timeout=60))
    gc.collect()
    assert is_forgotten(nats_client)
    assert len(nats_client._engine.registry.all()) <= before + 1


def test_close_from_another_thread_ends_a_step_that_waits(nats_client: Client, service: Client) -> None:
    replies = nats_client.request_many("many", b"0", timeout=60)
    waiting = in_background(lambda: list(replies))
    never(waiting.done, 0.05)
    replies.close()
    assert waiting.result(PATIENCE) == []


def test_it_works_inside_a_callback(connect: Connect, nats_server: NatsServer, service: Client) -> None:
    client = connect(nats_server.url, callback_workers=1)
    asked: Future[list[int]] = Future()
    client.subscribe("inside", cb=lambda msg: asked.set_result(numbers(client.request_many("many", b"3", max_msgs=3))))
    client.publish("inside")
    assert asked.result(PATIENCE) == [0, 1, 2]
