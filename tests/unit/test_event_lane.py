"""Lifecycle callbacks: in order, one at a time, on one thread, whatever they do; and the states that they report."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from natsync import events
from natsync.core.event_lane import EventLane
from natsync.core.lifecycle import Lifecycle
from natsync.core.threads import on_thread_of
from natsync.errors import NatsConnectionError, SlowConsumerError
from natsync.events import (
    AsyncError,
    Closed,
    Connected,
    Disconnected,
    DiscoveredServers,
    Event,
    LameDuck,
    Reconnected,
    ReconnectFailed,
)
from natsync.policy.options import make_options
from natsync.policy.status import TRANSITIONS, Status
from tests.support.waiting import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.unit.conftest import Pool

OPTION_OF: dict[type[Event], str] = {
    Connected: "connected_cb",
    Disconnected: "disconnected_cb",
    Reconnected: "reconnected_cb",
    ReconnectFailed: "reconnect_error_cb",
    Closed: "closed_cb",
    DiscoveredServers: "discovered_server_cb",
    LameDuck: "lame_duck_mode_cb",
    AsyncError: "error_cb",
}
CLIENT = object()
LOST = NatsConnectionError("lost")


class Lane(EventLane):
    """An event lane whose end can be waited for."""

    def end(self) -> None:
        self.emit(Closed(CLIENT))
        self.join()

    def join(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def start() -> Iterator[Callable[..., Lane]]:
    """Start lanes with callbacks."""
    lanes: list[Lane] = []

    def start(**callbacks: Any) -> Lane:
        lanes.append(Lane(CLIENT, "test", make_options(None, callbacks)))
        lanes[-1].thread.start()
        return lanes[-1]

    yield start
    for lane in lanes:
        lane.end()


def test_every_event_has_an_option():
    assert {getattr(events, name) for name in events.__all__} - {Event} == set(OPTION_OF)


@pytest.mark.parametrize("kind", OPTION_OF)
def test_each_event_goes_to_its_own_callback(start: Callable[..., Lane], kind: type[Event]):
    recorders = {option: Recorder() for option in OPTION_OF.values()}
    lane = start(**recorders)
    event = kind(CLIENT)
    lane.emit(event)
    lane.end()
    assert recorders[OPTION_OF[kind]].items[0] is event
    for option, recorder in recorders.items():
        expected = (option == OPTION_OF[kind]) + (option == "closed_cb" and kind is not Closed)
        assert len(recorder) == expected


def test_events_without_a_callback_are_passed_over(start: Callable[..., Lane]):
    closed = Recorder()
    lane = start(closed_cb=closed)
    for kind in OPTION_OF:
        if kind is not Closed:
            lane.emit(kind(CLIENT))
    lane.end()
    assert len(closed) == 1


def test_events_come_in_order_and_one_at_a_time_on_one_thread(pool: Pool, start: Callable[..., Lane], switching: None):
    seen: list[tuple[int, str | None, bool]] = []
    busy = threading.Lock()

    def callback(event: Event) -> None:
        alone = busy.acquire(blocking=False)
        seen.append((threading.get_ident(), event.server, alone and on_thread_of(CLIENT, "events")))
        busy.release()

    lane = start(error_cb=callback, reconnected_cb=callback)
    others = []
    for number in range(200):
        kind = AsyncError if number % 2 else Reconnected
        others.append(pool.submit(lane.emit, kind(CLIENT, server=f"other {number}")))
        lane.emit(kind(CLIENT, server=str(number)))
    for other in others:
        other.result(10)
    lane.end()
    assert len(seen) == 400
    assert len({thread for thread, _, _ in seen}) == 1
    assert all(good for _, _, good in seen)
    mine = [server for _, server, _ in seen if server is not None and not server.startswith("other")]
    assert mine == [str(number) for number in range(200)]


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(2), KeyboardInterrupt()])
def test_a_callback_that_raises_is_logged_and_the_next_event_follows(
    start: Callable[..., Lane], caplog: pytest.LogCaptureFixture, error: BaseException
):
    closed = Recorder()

    def fail(event: Event) -> None:
        raise error

    lane = start(connected_cb=fail, closed_cb=closed)
    with caplog.at_level(logging.ERROR, "natsync.events"):
        lane.emit(Connected(CLIENT))
        lane.end()
    assert "the callback for Connected raised an exception" in caplog.text
    assert "Traceback" in caplog.text
    assert len(closed) == 1


@pytest.mark.parametrize("listens", [True, False])
def test_a_program_without_logging_hears_of_its_bug_all_the_same(
    start: Callable[..., Lane],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    listens: bool,
):
    """A callback's error has no other way to the user."""
    monkeypatch.setattr(logging.getLogger("natsync"), "propagate", listens)  # pytest listens at the root

    def fail(event: Event) -> None:
        raise ValueError("oops")

    lane = start(connected_cb=fail)
    lane.emit(Connected(CLIENT))
    lane.end()
    assert ("ValueError: oops" in capsys.readouterr().err) is not listens


def test_closed_is_the_last_one(start: Callable[..., Lane]):
    seen = Recorder()
    lane = start(closed_cb=seen, error_cb=seen)
    lane.end()
    lane.emit(AsyncError(CLIENT, LOST))
    assert [type(event) for event in seen.items] == [Closed]


def test_a_muted_lane_logs_only(start: Callable[..., Lane], caplog: pytest.LogCaptureFixture):
    """`no_callbacks_after_close`."""
    seen = Recorder()
    lane = start(closed_cb=seen, disconnected_cb=seen)
    lane.muted = True
    with caplog.at_level(logging.DEBUG, "natsync.events"):
        lane.emit(Disconnected(CLIENT))
        lane.end()
    assert seen.items == []
    assert [record.message for record in caplog.records] == ["Disconnected", "Closed"]


def test_a_forked_lane_ends_after_its_callback(start: Callable[..., Lane]):
    seen = Recorder()

    def fork(event: Event) -> None:
        lane.abandon()
        seen(event)

    lane = start(connected_cb=fork, error_cb=seen)
    connected = Connected(CLIENT)
    lane.emit(connected)
    lane.emit(AsyncError(CLIENT))
    lane.join()
    assert seen.items == [connected]


@pytest.mark.parametrize(
    "event, level, message",
    [
        (Connected(CLIENT, server="nats://a:1"), logging.DEBUG, "Connected nats://a:1"),
        (Disconnected(CLIENT, LOST, "nats://a:1"), logging.WARNING, "Disconnected nats://a:1: lost"),
        (Disconnected(CLIENT, server="nats://a:1"), logging.DEBUG, "Disconnected nats://a:1"),
        (Reconnected(CLIENT), logging.INFO, "Reconnected"),
        (ReconnectFailed(CLIENT, LOST, "nats://a:1"), logging.INFO, "ReconnectFailed nats://a:1: lost"),
        (Closed(CLIENT), logging.DEBUG, "Closed"),
        (Closed(CLIENT, LOST), logging.ERROR, "Closed: lost"),
        (DiscoveredServers(CLIENT, urls=("nats://b:1",)), logging.INFO, "DiscoveredServers"),
        (LameDuck(CLIENT, server="nats://a:1"), logging.WARNING, "LameDuck nats://a:1"),
        (AsyncError(CLIENT, SlowConsumerError("slow")), logging.WARNING, "AsyncError: slow"),
    ],
)
def test_events_are_logged_by_their_weight(
    start: Callable[..., Lane], caplog: pytest.LogCaptureFixture, event: Event, level: int, message: str
):
    lane = start()
    with caplog.at_level(logging.DEBUG, "natsync.events"):
        lane.emit(event)
        lane.end()
    assert (caplog.records[0].levelno, caplog.records[0].message) == (level, message)


def test_what_is_not_logged_costs_nothing(start: Callable[..., Lane], caplog: pytest.LogCaptureFixture):
    class Unprintable(NatsConnectionError):
        def __str__(self) -> str:
            raise AssertionError("nobody reads it")

    with caplog.at_level(logging.CRITICAL, "natsync.events"):
        lane = start()
        lane.emit(AsyncError(CLIENT, Unprintable()))
        lane.end()
    assert not caplog.records


# The states that they report.


@pytest.fixture
def seen() -> Recorder:
    return Recorder()


@pytest.fixture
def lifecycle(start: Callable[..., Lane], seen: Recorder) -> Lifecycle:
    return Lifecycle(start(**dict.fromkeys(OPTION_OF.values(), seen)))


def in_status(lifecycle: Lifecycle, status: Status) -> Lifecycle:
    """Bring it there, whatever the ways are."""
    lifecycle._status = status
    return lifecycle


@pytest.mark.parametrize("to", Status)
@pytest.mark.parametrize("start_status", Status)
def test_only_the_ways_of_the_table_are_gone(lifecycle: Lifecycle, seen: Recorder, start_status: Status, to: Status):
    in_status(lifecycle, start_status)
    done = Recorder()
    allowed = to in TRANSITIONS[start_status]
    assert lifecycle.move(to, Connected(CLIENT, LOST), also=lambda: done(lifecycle.status)) is allowed
    assert lifecycle.status is (to if allowed else start_status)
    assert done.items == ([to] if allowed else [])
    assert lifecycle.last_error is (LOST if allowed else None)
    lifecycle._lane.end()  # type: ignore[attr-defined]
    assert len(seen) == 1 + allowed


def test_a_move_may_be_bound_to_one_status(lifecycle: Lifecycle):
    in_status(lifecycle, Status.RECONNECTING)
    assert not lifecycle.move(Status.CLOSED, only_from=Status.CONNECTED)
    assert lifecycle.move(Status.CLOSED, only_from=Status.RECONNECTING)


def test_reports_change_no_status_and_end_with_the_client(lifecycle: Lifecycle, seen: Recorder):
    in_status(lifecycle, Status.CONNECTED)
    error = SlowConsumerError("slow")
    lifecycle.report(AsyncError(CLIENT, error))
    lifecycle.report(LameDuck(CLIENT))
    assert (lifecycle.status, lifecycle.last_error, lifecycle.counts()) == (Status.CONNECTED, error, (0, 1))
    assert lifecycle.move(Status.CLOSED, Closed(CLIENT))
    lifecycle.report(AsyncError(CLIENT, LOST))
    assert (lifecycle.last_error, lifecycle.counts()) == (error, (0, 1))
    lifecycle._lane.join()  # type: ignore[attr-defined]
    assert [type(event) for event in seen.items] == [AsyncError, LameDuck, Closed]


def test_a_reconnect_counts_from_the_moment_on_at_which_it_is_there(lifecycle: Lifecycle):
    in_status(lifecycle, Status.RECONNECTING)
    seen: list[tuple[Status, object]] = []
    assert lifecycle.move(
        Status.CONNECTED, Reconnected(CLIENT), also=lambda: seen.append((lifecycle.status, lifecycle._reconnects))
    )
    assert seen == [(Status.CONNECTED, 0)]
    assert lifecycle.counts() == (1, 0)


def test_events_come_in_the_order_of_states(pool: Pool, start: Callable[..., Lane], switching: None):
    """Several threads move at once; nobody hears of a state before the one that it came from."""
    for _ in range(50):
        order: list[type[Event]] = []
        lane = start(**dict.fromkeys(OPTION_OF.values(), lambda event, order=order: order.append(type(event))))
        lifecycle = in_status(Lifecycle(lane), Status.CONNECTED)
        moves = [
            (Status.RECONNECTING, Disconnected(CLIENT, LOST)),
            (Status.CONNECTED, Reconnected(CLIENT)),
            (Status.CLOSED, Closed(CLIENT)),
        ]
        moved = list(pool.map(lifecycle.move, *zip(*moves, strict=True)))
        lane.end()
        assert moved[2]
        assert order[-1] is Closed
        assert order[:-1] == [Disconnected, Reconnected][: sum(moved) - 1]
