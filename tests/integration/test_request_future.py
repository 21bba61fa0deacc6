"""Requests as futures: many questions in flight from one thread, with the tools of `concurrent.futures`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, as_completed, wait
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Msg
from natsync.errors import ConfigError, ConnectionClosedError, NatsTimeoutError, NoRespondersError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from natsync.testing import NatsServer

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR


@pytest.fixture
def opened() -> Iterator[threading.Event]:
    """What the service "held" waits for before it answers; open at the end in any case."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def service(connect: Connect, nats_server: NatsServer, opened: threading.Event) -> Client:
    """A client that echoes on "echo", answers "held" when told, and hears "mute" without a word."""
    client = connect(nats_server.url)

    def answer_later(msg: Msg) -> None:
        opened.wait(PATIENCE)
        msg.respond(b"held")

    client.subscribe("echo", cb=lambda msg: msg.respond(msg.data))
    client.subscribe("held", cb=answer_later, workers=4)
    client.subscribe("mute")
    client.flush()
    return client


# Answers


def test_it_is_a_future_of_the_standard_library(nats_client: Client, service: Client) -> None:
    future = nats_client.request_future("echo", b"data", headers={"a": "b"})
    assert isinstance(future, concurrent.futures.Future)
    reply = future.result(PATIENCE)
    assert isinstance(reply, Msg)
    assert reply.data == b"data"
    assert future.done()
    assert not future.cancelled()
    assert future.exception() is None


def test_many_in_flight_from_one_thread(nats_client: Client, service: Client) -> None:
    futures = [nats_client.request_future("echo", b"%d" % number) for number in range(32)]
    assert [future.result(PATIENCE).data for future in futures] == [b"%d" % number for number in range(32)]


def test_wait_and_as_completed(nats_client: Client, service: Client, opened: threading.Event) -> None:
    quick = [nats_client.request_future("echo", b"%d" % number) for number in range(10)]
    held = nats_client.request_future("held")
    done, not_done = wait([*quick, held], timeout=0.3)
    assert done == set(quick)
    assert not_done == {held}
    order = as_completed([*quick, held], timeout=PATIENCE)
    assert {next(order) for _ in range(10)} == set(quick)
    opened.set()
    assert next(order) is held
    assert wait([held], return_when=concurrent.futures.FIRST_COMPLETED).not_done == set()


def test_asyncio_can_wait_for_it(nats_client: Client, service: Client) -> None:
    async def ask() -> list[bytes]:
        futures = [asyncio.wrap_future(nats_client.request_future("echo", b"%d" % number)) for number in range(5)]
        return [reply.data for reply in await asyncio.wait_for(asyncio.gather(*futures), PATIENCE)]

    assert asyncio.run(ask()) == [b"0", b"1", b"2", b"3", b"4"]


def test_it_returns_at_once(nats_client: Client, service: Client) -> None:
    began = time.monotonic()
    futures = [nats_client.request_future("held", timeout=PATIENCE) for _ in range(10)]
    assert time.monotonic() - began < 1.2 * TIME_FACTOR
    assert not any(future.done() for future in futures)


def test_those_that_nobody_waits_for_are_sent_all_the_same(nats_client: Client, service: Client) -> None:
    """While a thread reads its answers for itself, natsync leaves the sending to it; but not for ever."""
    heard = service.subscribe("heard")
    service.flush()
    held = nats_client.request_future("held", timeout=PATIENCE)
    nats_client.request("echo")  # received by this thread
    futures = [nats_client.request_future("heard", timeout=PATIENCE) for _ in range(5)]
    assert [heard.next_msg(PATIENCE).subject for _ in futures] == ["heard"] * 5
    assert not held.done()


# No answer


def test_each_future_has_its_own_timeout(nats_client: Client, service: Client) -> None:
    began = time.monotonic()
    late, early = nats_client.request_future("mute", timeout=1.5), nats_client.request_future("mute", timeout=0.1)
    for future, timeout in ((early, 0.1), (late, 1.5)):
        with pytest.raises(NatsTimeoutError) as caught:
            future.result(PATIENCE)
        assert timeout <= time.monotonic() - began < timeout + 1.15 * TIME_FACTOR
        assert caught.value.timeout == timeout


def test_the_option_is_the_default_timeout(connect: Connect, nats_server: NatsServer, service: Client) -> None:
    client = connect(nats_server.url, request_timeout=0.1)
    assert isinstance(client.request_future("mute").exception(PATIENCE), NatsTimeoutError)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), "1"], ids=repr)
def test_impossible_timeouts_are_refused(nats_client: Client, timeout: Any) -> None:
    with pytest.raises(ConfigError):
        nats_client.request_future("echo", timeout=timeout)


def test_nobody_there_is_known_at_once(nats_client: Client) -> None:
    began = time.monotonic()
    futures = [nats_client.request_future("nobody", timeout=10) for _ in range(10)]
    for future in futures:
        assert isinstance(future.exception(PATIENCE), NoRespondersError)
    assert time.monotonic() - began < 1.3 * TIME_FACTOR


@pytest.mark.parametrize("when", ["before", "after"])
def test_close_fails_what_is_in_flight(nats_client: Client, service: Client, when: str) -> None:
    futures = [nats_client.request_future("mute", timeout=60) for _ in range(10)]
    failed = Recorder()
    if when == "before":
        for future in futures:
            future.add_done_callback(failed)
    nats_client.close()
    if when == "after":
        for future in futures:
            future.add_done_callback(failed)
    for future in futures:
        assert isinstance(future.exception(PATIENCE), ConnectionClosedError)
    assert set(failed.wait_for(10, 1.0)) == set(futures)


# Giving up


def test_a_cancelled_request_is_forgotten(nats_client: Client, service: Client, opened: threading.Event) -> None:
    future = nats_client.request_future("held", timeout=0.2)
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    opened.set()
    never(lambda: not future.cancelled(), 0.25)  # neither the reply nor the timer revives it
    with pytest.raises(CancelledError):
        future.result(0)
    assert nats_client._engine.mux.waiters() == []


def test_a_request_that_was_answered_cannot_be_cancelled(nats_client: Client, service: Client) -> None:
    future = nats_client.request_future("echo", b"here")
    future.result(PATIENCE)
    assert not future.cancel()
    assert future.result().data == b"here"


def test_wait_and_as_completed_know_cancelled_requests(nats_client: Client, service: Client) -> None:
    future = nats_client.request_future("mute", timeout=60)
    waiting = threading.Timer(0.05, future.cancel)
    waiting.start()
    assert wait([future], timeout=1.0).done == {future}
    assert list(as_completed([future], timeout=1.0)) == [future]
    waiting.join()


def test_cancelling_and_answering_at_once_agree(nats_client: Client, service: Client) -> None:
    for number in range(500):
        future = nats_client.request_future("echo", b"%d" % number)
        if number % 3:
            nats_client.flush() if number % 2 else nats_client.publish("nothing")
        if future.cancel():
            assert future.cancelled()
        else:
            assert future.result(PATIENCE).data == b"%d" % number
    assert nats_client._engine.mux.waiters() == []


# Callbacks


@pytest.mark.parametrize("outcome", ["echo", "nobody", "mute", "cancelled"])
def test_callbacks_run_on_a_worker(nats_client: Client, service: Client, outcome: str) -> None:
    seen = Recorder()
    subject = "mute" if outcome == "cancelled" else outcome
    future = nats_client.request_future(subject, timeout=0.1 if outcome == "mute" else PATIENCE)
    future.add_done_callback(lambda done: seen((done, threading.current_thread().name)))
    if outcome == "cancelled":
        future.cancel()
    ((done, name),) = seen.wait_for(1)
    assert done is future
    assert name.startswith("natsync-")
    assert "reader" not in name


def test_a_callback_added_when_it_is_done_is_called(nats_client: Client, service: Client) -> None:
    seen = Recorder()
    future = nats_client.request_future("echo")
    future.result(PATIENCE)
    future.add_done_callback(seen)
    assert seen.wait_for(1) == [future]


def test_a_callback_added_after_close_is_called(nats_client: Client, service: Client) -> None:
    seen = Recorder()
    future = nats_client.request_future("echo")
    future.result(PATIENCE)
    nats_client.close()
    future.add_done_callback(seen)
    assert seen.wait_for(1, 1.0) == [future]


def test_callbacks_may_block_and_ask_again(nats_client: Client, service: Client) -> None:
    answers = Recorder()
    for number in range(20):
        nats_client.request_future("echo", b"%d" % number).add_done_callback(
            lambda future: answers(nats_client.request("echo", future.result().data + b"!").data)
        )
    assert sorted(answers.wait_for(20)) == sorted(b"%d!" % number for number in range(20))


def test_a_blocked_subscription_does_not_hold_callbacks_of_futures_up(nats_client: Client, service: Client) -> None:
    outcomes = Recorder()

    def handle(msg: Msg) -> None:
        done = threading.Event()
        nats_client.request_future("echo").add_done_callback(lambda future: done.set())
        outcomes(done.wait(1.0))

    nats_client.subscribe("blocked", cb=handle)
    nats_client.publish("blocked")
    assert outcomes.wait_for(1) == [True]


def test_a_callback_that_raises_is_logged_and_the_next_ones_follow(
    nats_client: Client, service: Client, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Recorder()
    future = nats_client.request_future("mute", timeout=PATIENCE)
    future.add_done_callback(lambda done: [][1])
    future.add_done_callback(seen)
    future.cancel()
    assert seen.wait_for(1) == [future]
    (record,) = eventually(lambda: [each for each in caplog.records if each.exc_info])
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], IndexError)
    assert "please report" not in record.getMessage(), "it is the user's error, not natsync's"
