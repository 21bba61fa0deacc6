"""The message object, made by hand and received."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from natsync import Client, Headers, Msg
from natsync.errors import BadHeaderError, BadSubjectError, BadSubscriptionError, NatsError
from tests.support.waiting import TIME_FACTOR, Recorder

PATIENCE = 5.0 * TIME_FACTOR


# Made by hand


def test_a_message_of_ones_own() -> None:
    msg = Msg("subject", b"data", reply="reply", headers={"a": "b"})
    assert (msg.subject, msg.data, msg.reply, msg.subscription) == ("subject", b"data", "reply", None)
    assert isinstance(msg.headers, Headers)
    assert msg.headers == {"a": "b"}


def test_defaults() -> None:
    msg = Msg("subject")
    assert (msg.data, msg.reply, msg.headers, msg.subscription) == (b"", None, None, None)


@pytest.mark.parametrize("data", [bytearray(b"data"), memoryview(b"data")], ids=lambda data: type(data).__name__)
def test_data_becomes_bytes(data: Any) -> None:
    msg = Msg("subject", data)
    assert type(msg.data) is bytes
    assert msg.data == b"data"


def test_data_is_copied() -> None:
    data: Any = bytearray(b"before")
    msg = Msg("subject", data)
    data[:] = b"after!"
    assert msg.data == b"before"


@pytest.mark.parametrize("data", ["text", None, 1], ids=repr)
def test_data_is_bytes_like(data: Any) -> None:
    with pytest.raises(TypeError):
        Msg("subject", data)


def test_reply_and_headers_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        Msg("subject", b"data", "reply")  # type: ignore[call-arg]


def test_bad_headers_are_refused() -> None:
    with pytest.raises(BadHeaderError):
        Msg("subject", headers={"a": "b\r\n"})


def test_everything_can_be_set() -> None:
    msg = Msg("subject")
    msg.subject, msg.data, msg.reply = "other", b"data", "reply"
    msg.headers = {"a": "b"}
    assert isinstance(msg.headers, Headers)
    assert msg.headers["a"] == "b"
    msg.headers = None
    assert msg.headers is None


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_its_representation_is_short(size: int) -> None:
    shown = repr(Msg("subject", b"x" * size, reply="reply", headers={"a": "b"}))
    assert "subject" in shown
    assert "reply" in shown
    assert len(shown) < 300


# Received


def test_a_received_message_knows_where_it_came_by(nats_client: Client) -> None:
    sub = nats_client.subscribe("msg.*")
    nats_client.publish("msg.x", b"data")
    msg = sub.next_msg(PATIENCE)
    assert msg.subscription is sub
    assert (msg.subject, msg.data, msg.reply, msg.headers) == ("msg.x", b"data", None, None)
    assert type(msg.subject) is str
    assert type(msg.data) is bytes


def test_headers_are_the_same_at_every_look(nats_client: Client) -> None:
    sub = nats_client.subscribe("msg.look")
    nats_client.publish("msg.look", headers={"a": "b"})
    msg = sub.next_msg(PATIENCE)
    assert msg.headers is msg.headers
    assert isinstance(msg.headers, Headers)


@pytest.fixture
def hasty_switching() -> Iterator[None]:
    """Have threads switched as often as can be."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty_switching")
def test_threads_may_look_at_headers_at_once(nats_client: Client) -> None:
    sub = nats_client.subscribe("msg.threads")
    for _ in range(100):
        nats_client.publish("msg.threads", headers={"a": "b"})
        msg = sub.next_msg(PATIENCE)
        barrier, seen = threading.Barrier(4), Recorder()

        def look(msg: Msg = msg, barrier: threading.Barrier = barrier, seen: Recorder = seen) -> None:
            barrier.wait(PATIENCE)
            seen(msg.headers)

        threads = [threading.Thread(target=look, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert [headers == {"a": "b"} for headers in seen.wait_for(4)] == [True] * 4


# Answering


def test_respond_goes_to_the_reply_subject(nats_client: Client) -> None:
    asked, answers = nats_client.subscribe("msg.ask"), nats_client.subscribe("msg.answer")
    nats_client.publish("msg.ask", b"?", reply="msg.answer")
    msg = asked.next_msg(PATIENCE)
    msg.respond()
    msg.respond(b"data")
    more: Any = bytearray(b"more")
    msg.respond(more, headers={"a": ["1", "2"]})
    empty, plain, full = (answers.next_msg(PATIENCE) for _ in range(3))
    assert (empty.data, empty.headers, empty.reply) == (b"", None, None)
    assert (plain.data, plain.headers) == (b"data", None)
    assert full.data == b"more"
    assert full.headers == {"a": ["1", "2"]}


def test_a_message_that_asks_for_no_answer_cannot_be_answered(nats_client: Client) -> None:
    sub = nats_client.subscribe("msg.mute")
    nats_client.publish("msg.mute")
    msg = sub.next_msg(PATIENCE)
    with pytest.raises(BadSubjectError):
        msg.respond(b"data")


def test_a_message_of_ones_own_cannot_be_answered() -> None:
    with pytest.raises(NatsError) as caught:
        Msg("subject", reply="reply").respond(b"data")
    assert isinstance(caught.value, BadSubscriptionError)


@pytest.mark.parametrize("end", ["unsubscribe", "drain"])
def test_respond_works_after_the_subscription_has_ended(nats_client: Client, end: str) -> None:
    asked, answers = nats_client.subscribe("msg.ask"), nats_client.subscribe("msg.answer")
    nats_client.publish("msg.ask", reply="msg.answer")
    msg = asked.next_msg(PATIENCE)
    getattr(asked, end)()
    msg.respond(b"late")
    assert answers.next_msg(PATIENCE).data == b"late"


def test_respond_in_a_callback_of_another_thread(nats_client: Client) -> None:
    asked = Recorder()
    nats_client.subscribe("msg.passed-on", cb=asked)
    answer = nats_client.request_future("msg.passed-on")
    (msg,) = asked.wait_for(1)
    threading.Thread(target=msg.respond, args=(b"from a thread",), daemon=True).start()
    assert answer.result(PATIENCE).data == b"from a thread"
