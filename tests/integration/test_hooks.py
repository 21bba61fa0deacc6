"""What runs around callbacks and before publishes: `with_handler`, `with_publish`, context variables."""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from natsync import Headers, Msg
from natsync.events import AsyncError
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from natsync import Client
    from natsync.core.handler import Handler, Wrapper
    from natsync.testing import NatsServer

    Connect = Callable[..., Client]

PATIENCE = 5.0 * TIME_FACTOR
WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


# Around callbacks


def test_wrappers_run_around_the_callback_the_first_one_outermost(nats_client: Client) -> None:
    recorder = Recorder()

    def wrapper(name: str) -> Wrapper:
        def wrap(msg: Msg, call: Handler) -> None:
            recorder(f"{name} before")
            call(msg)
            recorder(f"{name} after")

        return wrap

    nats_client.with_handler(wrapper("outer"))
    nats_client.with_handler(wrapper("inner"))
    nats_client.subscribe("hooks.around", cb=lambda msg: recorder(msg.data))
    nats_client.publish("hooks.around", b"1")
    assert recorder.wait_for(5) == ["outer before", "inner before", b"1", "inner after", "outer after"]


def test_a_wrapper_is_for_subscriptions_made_afterwards(nats_client: Client) -> None:
    recorder = Recorder()
    nats_client.subscribe("hooks.later", cb=lambda _: recorder("early"))

    def wrap(msg: Msg, call: Handler) -> None:
        recorder("wrapped")
        call(msg)

    nats_client.with_handler(wrap)
    nats_client.subscribe("hooks.latest", cb=lambda _: recorder("late"))
    nats_client.publish("hooks.later")
    assert recorder.wait_for(1) == ["early"]
    nats_client.publish("hooks.latest")
    assert recorder.wait_for(3) == ["early", "wrapped", "late"]


def test_a_wrapper_may_pass_another_message_on_or_none(nats_client: Client) -> None:
    recorder = Recorder()

    def wrap(msg: Msg, call: Handler) -> None:
        if msg.data != b"skip":
            call(Msg(msg.subject, msg.data.upper()))

    nats_client.with_handler(wrap)
    nats_client.subscribe("hooks.other", cb=recorder)
    for data in (b"a", b"skip", b"b"):
        nats_client.publish("hooks.other", data)
    assert [msg.data for msg in recorder.wait_for(2)] == [b"A", b"B"]


def test_what_a_wrapper_raises_is_reported_and_the_next_message_follows(
    nats_server: NatsServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    errors, recorder = Recorder(), Recorder()
    client = connect(nats_server.url, error_cb=errors)

    def wrap(msg: Msg, call: Handler) -> None:
        if msg.data == b"bad":
            raise ValueError("by the wrapper")
        call(msg)

    client.with_handler(wrap)
    sub = client.subscribe("hooks.bad", cb=recorder)
    with caplog.at_level(logging.ERROR, "natsync"):
        for data in (b"bad", b"good"):
            client.publish("hooks.bad", data)
        assert [msg.data for msg in recorder.wait_for(1)] == [b"good"]
        (event,) = errors.wait_for(1)
    assert isinstance(event, AsyncError)
    assert (str(event.error), event.subscription) == ("by the wrapper", sub)
    assert "the callback of 'hooks.bad' raised" in caplog.text


def test_a_wrapper_sees_what_the_callback_raises(nats_client: Client, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()

    def wrap(msg: Msg, call: Handler) -> None:
        try:
            call(msg)
        except ZeroDivisionError as exc:
            recorder(exc)

    nats_client.with_handler(wrap)
    nats_client.subscribe("hooks.caught", cb=lambda _: 1 / 0)
    nats_client.publish("hooks.caught")
    recorder.wait_for(1)
    assert "raised" not in caplog.text


def test_read_subscriptions_have_no_wrapper(nats_client: Client) -> None:
    nats_client.with_handler(lambda msg, call: pytest.fail("called"))
    sub = nats_client.subscribe("hooks.read")
    nats_client.publish("hooks.read", b"1")
    assert sub.next_msg(timeout=PATIENCE).data == b"1"


# Context variables


def test_a_callback_runs_in_the_context_of_its_subscribe(nats_client: Client) -> None:
    recorder = Recorder()
    token = WHO.set("at subscribe")
    nats_client.subscribe("hooks.context", cb=lambda _: recorder(WHO.get()))
    WHO.reset(token)
    nats_client.subscribe("hooks.context", cb=lambda _: recorder(WHO.get()))
    nats_client.publish("hooks.context")
    assert sorted(recorder.wait_for(2)) == ["at subscribe", "nobody"]


@pytest.mark.parametrize("workers", [1, 4])
def test_what_a_callback_sets_is_gone_at_the_next_message(nats_client: Client, workers: int) -> None:
    recorder = Recorder()

    def callback(_: Msg) -> None:
        recorder(WHO.get())
        WHO.set("the message before")

    nats_client.subscribe("hooks.leak", cb=callback, workers=workers)
    for _ in range(500):
        nats_client.publish("hooks.leak")
    assert set(recorder.wait_for(500)) == {"nobody"}
    assert WHO.get() == "nobody"


def test_workers_run_in_contexts_of_their_own(nats_client: Client) -> None:
    recorder = Recorder()
    together = threading.Barrier(4)

    def callback(msg: Msg) -> None:
        WHO.set(msg.data.decode())
        together.wait(PATIENCE)
        recorder((WHO.get(), msg.data.decode()))

    nats_client.subscribe("hooks.workers", cb=callback, workers=4)
    for number in range(4):
        nats_client.publish("hooks.workers", b"%d" % number)
    assert sorted(recorder.wait_for(4)) == [(str(number), str(number)) for number in range(4)]


def test_wrappers_share_the_context_of_the_callback(nats_client: Client) -> None:
    recorder = Recorder()

    def wrap(msg: Msg, call: Handler) -> None:
        token = WHO.set("the wrapper")
        call(msg)
        WHO.reset(token)
        recorder(WHO.get())

    nats_client.with_handler(wrap)
    nats_client.subscribe("hooks.shared", cb=lambda _: recorder(WHO.get()))
    nats_client.publish("hooks.shared")
    assert recorder.wait_for(2) == ["the wrapper", "nobody"]


# Before publishes

SENDERS: dict[str, Callable[[Client, str], object]] = {
    "publish": lambda client, subject: client.publish(subject, b"data"),
    "publish_msg": lambda client, subject: client.publish_msg(Msg(subject, b"data")),
    "request": lambda client, subject: client.request(subject, b"data", timeout=PATIENCE),
    "request_future": lambda client, subject: client.request_future(subject, b"data").result(PATIENCE),
    "request_many": lambda client, subject: list(client.request_many(subject, b"data", max_msgs=1)),
}


def add_header(msg: Msg) -> Msg:
    """Return a new message, which knows nothing of the reply subject."""
    return Msg(msg.subject, msg.data, headers={"trace": "1"})


def change_header(msg: Msg) -> None:
    msg.headers = Headers({"trace": "1"})


@pytest.mark.parametrize("hook", [add_header, change_header])
@pytest.mark.parametrize("send", SENDERS)
def test_a_hook_changes_whatever_is_sent(
    nats_server: NatsServer, connect: Connect, send: str, hook: Callable[[Msg], Msg | None]
) -> None:
    service = connect(nats_server.url)
    seen = Recorder()

    def serve(msg: Msg) -> None:
        seen(msg)
        if msg.reply:
            msg.respond()

    service.subscribe("hooks.sent", cb=serve)
    service.flush()
    client = connect(nats_server.url)
    client.with_publish(hook)
    SENDERS[send](client, "hooks.sent")
    (msg,) = seen.wait_for(1)
    assert (msg.data, msg.headers) == (b"data", {"trace": "1"})


def test_a_hook_is_asked_about_responses(nats_client: Client) -> None:
    nats_client.with_publish(lambda msg: add_header(msg) if msg.subject.startswith("_INBOX") else None)
    nats_client.subscribe("hooks.respond", cb=lambda msg: msg.respond(b"answer"))
    assert nats_client.request("hooks.respond", timeout=PATIENCE).headers == {"trace": "1"}


def test_hooks_are_asked_in_order_on_the_thread_that_publishes(nats_client: Client) -> None:
    asked: list[Any] = []

    def first(msg: Msg) -> Msg:
        asked.append((msg.subject, msg.data, msg.reply, msg.headers, threading.get_ident()))
        return Msg("hooks.second", b"2", reply="reply.2")

    sub = nats_client.subscribe("hooks.>")
    nats_client.with_publish(first)
    nats_client.with_publish(lambda msg: asked.append((msg.subject, msg.data, msg.reply)))
    nats_client.publish("hooks.first", bytearray(b"1"), reply="reply.1", headers={"a": "b"})
    assert asked == [
        ("hooks.first", b"1", "reply.1", Headers({"a": "b"}), threading.get_ident()),
        ("hooks.second", b"2", "reply.2"),
    ]
    msg = sub.next_msg(timeout=PATIENCE)
    assert (msg.subject, msg.data, msg.reply, msg.headers) == ("hooks.second", b"2", "reply.2", None)


def test_a_hook_does_not_change_what_the_caller_holds(nats_client: Client) -> None:
    def change(msg: Msg) -> None:
        assert msg.headers is not None
        msg.headers.add("more", "1")
        msg.data = b"changed"

    sub = nats_client.subscribe("hooks.mine")
    nats_client.with_publish(change)
    mine = Msg("hooks.mine", b"mine", headers=Headers({"a": "b"}))
    nats_client.publish_msg(mine)
    got = sub.next_msg(timeout=PATIENCE)
    assert (got.data, got.headers) == (b"changed", Headers({"a": "b", "more": "1"}))
    assert (mine.data, mine.headers) == (b"mine", Headers({"a": "b"}))


@pytest.mark.parametrize("send", SENDERS)
def test_what_a_hook_raises_goes_to_the_caller_and_nothing_is_sent(nats_client: Client, send: str) -> None:
    def refuse(msg: Msg) -> None:
        raise PermissionError("not now")

    sub = nats_client.subscribe("hooks.refused")
    nats_client.with_publish(refuse)
    with pytest.raises(PermissionError, match="not now"):
        SENDERS[send](nats_client, "hooks.refused")
    nats_client.flush()
    assert sub.pending_msgs == 0
    assert nats_client.stats.out_msgs == 0
    nats_client.drain()  # no request is under way


def test_a_hook_that_returns_something_else(nats_client: Client) -> None:
    nats_client.with_publish(lambda msg: b"data")  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="returns a Msg or None, not bytes"):
        nats_client.publish("hooks.wrong")


def test_hooks_are_callables(nats_client: Client) -> None:
    with pytest.raises(TypeError, match="with_handler takes a callable, not int"):
        nats_client.with_handler(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="with_publish takes a callable, not int"):
        nats_client.with_publish(1)  # type: ignore[arg-type]


def test_what_is_published_is_checked_after_the_hooks(nats_client: Client) -> None:
    sub = nats_client.subscribe("hooks.mended")
    nats_client.with_publish(lambda msg: Msg(msg.subject.replace(" ", "."), msg.data))
    nats_client.publish("hooks mended", b"1")
    assert sub.next_msg(timeout=PATIENCE).data == b"1"
    eventually(lambda: nats_client.stats.out_msgs == 1)
