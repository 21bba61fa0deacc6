"""Request and reply: one question, one answer, and nothing left of a question that got none."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Client, Headers, Msg
from natsync.errors import (
    BadSubjectError,
    ConfigError,
    ConnectionClosedError,
    MaxPayloadError,
    NatsTimeoutError,
    NoRespondersError,
)
from tests.support.waiting import TIME_FACTOR, Recorder, never

if TYPE_CHECKING:
    from natsync.testing import NatsServer

Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR


@pytest.fixture
def service(connect: Connect, nats_server: NatsServer) -> Client:
    """A client that echoes on "echo" and hears "mute" without a word."""
    client = connect(nats_server.url)
    client.subscribe("echo", cb=lambda msg: msg.respond(msg.data, headers=msg.headers), workers=4)
    client.subscribe("mute", pending_msgs_limit=1)
    client.flush()
    return client


# Answers


@pytest.mark.parametrize("data", [b"", b"x", b"\r\nPUB x 0\r\n", bytes(100_000)], ids=len)
def test_the_reply_is_returned(nats_client: Client, service: Client, data: bytes) -> None:
    reply = nats_client.request("echo", data)
    assert isinstance(reply, Msg)
    assert (reply.data, reply.headers, reply.reply, reply.subscription) == (data, None, None, None)
    assert reply.subject.startswith("_INBOX.")


def test_headers_go_both_ways(nats_client: Client, service: Client) -> None:
    headers = Headers([("A", "1"), ("a", "2"), ("A", "3")])
    reply = nats_client.request("echo", b"data", headers=headers)
    assert reply.headers == headers
    assert nats_client.request("echo", headers={"list": ["x", "y"]}).headers == {"list": ["x", "y"]}


def test_one_client_may_answer_its_own_requests(nats_client: Client) -> None:
    nats_client.subscribe("self", cb=lambda msg: msg.respond(b"me"))
    assert nats_client.request("self").data == b"me"


def test_a_reader_may_answer(nats_client: Client, service: Client) -> None:
    sub = service.subscribe("read")
    service.flush()
    answer = nats_client.request_future("read", b"?")
    sub.next_msg(PATIENCE).respond(b"!", headers={"a": "b"})
    assert answer.result(PATIENCE).data == b"!"


def test_a_responder_may_answer_after_it_has_unsubscribed(nats_client: Client, service: Client) -> None:
    sub = service.subscribe("once", max_msgs=1)
    service.flush()
    answer = nats_client.request_future("once")
    msg = sub.next_msg(PATIENCE)
    assert not sub.is_valid
    msg.respond(b"still here")
    assert answer.result(PATIENCE).data == b"still here"


def test_only_the_first_reply_counts(nats_client: Client, service: Client) -> None:
    def answer_twice(msg: Msg) -> None:
        msg.respond(msg.data + b" first")
        msg.respond(msg.data + b" second")

    service.subscribe("twice", cb=answer_twice)
    service.flush()
    for number in range(20):
        assert nats_client.request("twice", b"%d" % number).data == b"%d first" % number


def test_each_of_many_threads_gets_its_own_answers(nats_client: Client, service: Client) -> None:
    def ask(thread: int) -> bool:
        return all(
            nats_client.request("echo", b"%d %d" % (thread, number)).data == b"%d %d" % (thread, number)
            for number in range(100)
        )

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(32)))


@pytest.mark.parametrize("callback_workers", [1, 8])
def test_requests_inside_message_callbacks(
    connect: Connect, nats_server: NatsServer, service: Client, callback_workers: int
) -> None:
    client = connect(nats_server.url, callback_workers=callback_workers)
    answers = Recorder()
    for number in range(3):
        client.subscribe(f"ask.{number}", cb=lambda msg: answers(client.request("echo", msg.data).data))
    for number in range(60):
        client.publish(f"ask.{number % 3}", b"%d" % number)
    assert sorted(map(int, answers.wait_for(60))) == list(range(60))


def test_requests_inside_other_callbacks(connect: Connect, nats_server: NatsServer, service: Client) -> None:
    answers = Recorder()
    client = connect(nats_server.url, connected_cb=lambda event: answers(event.client.request("echo", b"event").data))
    answers.wait_for(1)
    client.request_future("echo").add_done_callback(lambda future: answers(client.request("echo", b"future").data))
    assert answers.wait_for(2) == [b"event", b"future"]


def test_a_chain_of_services_answers_through_one_worker_each(connect: Connect, nats_server: NatsServer) -> None:
    def make_link(depth: int) -> None:
        link = connect(nats_server.url, callback_workers=1)

        def answer(msg: Msg) -> None:
            msg.respond(link.request(f"chain.{depth - 1}").data + b"!" if depth else b"end")

        link.subscribe(f"chain.{depth}", cb=answer)
        link.flush()

    for depth in range(5):
        make_link(depth)
    assert connect(nats_server.url).request("chain.4").data == b"end!!!!"


# No answer


@pytest.mark.parametrize("timeout", [0.02, 0.1, 0.5])
def test_a_timeout_is_kept(nats_client: Client, service: Client, timeout: float) -> None:
    began = time.monotonic()
    with pytest.raises(NatsTimeoutError) as caught:
        nats_client.request("mute", timeout=timeout)
    assert timeout <= time.monotonic() - began < timeout + 1.1 * TIME_FACTOR
    assert caught.value.timeout == timeout
    assert isinstance(caught.value, TimeoutError)


def test_the_option_is_the_default_timeout(connect: Connect, nats_server: NatsServer, service: Client) -> None:
    client = connect(nats_server.url, request_timeout=0.1)
    began = time.monotonic()
    with pytest.raises(NatsTimeoutError):
        client.request("mute")
    assert 0.1 <= time.monotonic() - began < 1.3 * TIME_FACTOR


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1", True], ids=repr)
def test_impossible_timeouts_are_refused(nats_client: Client, service: Client, timeout: Any) -> None:
    with pytest.raises(ConfigError):
        nats_client.request("echo", timeout=timeout)


def test_nobody_there_is_known_at_once(nats_client: Client) -> None:
    nats_client.rtt()
    began = time.monotonic()
    with pytest.raises(NoRespondersError) as caught:
        nats_client.request("nobody.there", timeout=10)
    assert time.monotonic() - began < 1.2 * TIME_FACTOR
    assert caught.value.subject == "nobody.there"


def test_a_late_reply_is_ignored(nats_client: Client, service: Client) -> None:
    asked = Recorder()
    service.subscribe("late", cb=asked)
    service.flush()
    for number in range(10):
        with pytest.raises(NatsTimeoutError):
            nats_client.request("late", timeout=0.01)
        asked.wait_for(number + 1)[-1].respond(b"too late")
        service.flush()
        assert nats_client.request("echo", b"%d" % number).data == b"%d" % number


def test_a_closed_client_asks_nobody(nats_client: Client) -> None:
    nats_client.close()
    with pytest.raises(ConnectionClosedError):
        nats_client.request("echo")


@pytest.mark.parametrize(
    "subject, data, error",
    [
        ("", b"", BadSubjectError),
        ("a b", b"", BadSubjectError),
        ("echo", "text", TypeError),
        ("echo", bytes(2_000_000), MaxPayloadError),
    ],
    ids=["empty", "blank", "text", "too much"],
)
def test_what_cannot_be_asked_is_refused(
    nats_client: Client, service: Client, subject: str, data: Any, error: type[Exception]
) -> None:
    sent = nats_client.stats.out_msgs
    for ask in (nats_client.request, nats_client.request_future, nats_client.request_many):
        with pytest.raises(error):
            ask(subject, data)
    assert nats_client.stats.out_msgs == sent
    assert nats_client.request("echo", b"works").data == b"works"


# Inboxes


@pytest.mark.parametrize("prefix", ["_INBOX", "mine", "a.b.c"])
def test_inboxes_begin_with_the_prefix(connect: Connect, nats_server: NatsServer, service: Client, prefix: str) -> None:
    client = connect(nats_server.url, inbox_prefix=prefix)
    assert client.request("echo").subject.startswith(prefix + ".")
    inboxes = [client.new_inbox() for _ in range(100)]
    assert len(set(inboxes)) == 100
    assert all(inbox.startswith(prefix + ".") and len(inbox) > len(prefix) + 20 for inbox in inboxes)


@pytest.mark.parametrize("prefix", ["", "a b", "a.", ".a", "a..b", "a.*", ">", "a\r\n", 1, None], ids=repr)
def test_bad_prefixes_are_refused(nats_server: NatsServer, connect: Connect, prefix: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(nats_server.url, inbox_prefix=prefix)
    assert caught.value.option == "inbox_prefix"


def test_a_new_inbox_gets_the_answers_to_a_publish(nats_client: Client, service: Client) -> None:
    inbox = nats_client.new_inbox()
    with nats_client.subscribe(inbox) as sub:
        nats_client.publish("echo", b"by hand", reply=inbox)
        assert sub.next_msg(PATIENCE).data == b"by hand"


# Nothing is left


def ask_in_vain(client: Client, count: int) -> None:
    done, not_done = wait([client.request_future("mute", timeout=0.05) for _ in range(count)], PATIENCE)
    assert len(done) == count
    assert not not_done
    assert all(isinstance(future.exception(), NatsTimeoutError) for future in done)


def test_requests_without_an_answer_leave_nothing(nats_client: Client, service: Client) -> None:
    tracemalloc.start()
    try:
        ask_in_vain(nats_client, 1000)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            ask_in_vain(nats_client, 1000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000  # what readers hold for the next recv comes and goes; a leak of 100 bytes is 1 MB


def test_waiting_requests_without_an_answer_leave_nothing(nats_client: Client, service: Client) -> None:
    def ask() -> None:
        for _ in range(50):
            with pytest.raises(NatsTimeoutError):
                nats_client.request("mute", timeout=0.001)

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(ask) for _ in range(16)]:
            future.result()
    assert nats_client._engine.mux.waiters() == []
    assert nats_client.request("echo", b"works").data == b"works"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_million_requests_that_time_out_leave_nothing(nats_client: Client, service: Client) -> None:
    def abandon(thousands: int) -> None:
        for _ in range(thousands):
            futures = [nats_client.request_future("mute", timeout=0.001) for _ in range(1000)]
            assert all(isinstance(future.exception(PATIENCE), NatsTimeoutError) for future in futures)

    abandon(10)
    gc.collect()
    before = resident_bytes()
    abandon(1000)
    gc.collect()
    assert resident_bytes() - before < 20_000_000
    assert nats_client._engine.mux.waiters() == []
    assert nats_client.request("echo", b"works").data == b"works"


def test_threads_are_not_made_for_requests(nats_client: Client, service: Client) -> None:
    nats_client.request("echo")
    before = threading.active_count()
    for _ in range(50):
        nats_client.request("echo")
    never(lambda: threading.active_count() > before, 0.02)
