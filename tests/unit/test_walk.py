"""One outage: which server comes next and after which pause, with real parts and nothing connected."""

from __future__ import annotations

import logging
import math
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from natsync.core.walk import Walk
from natsync.errors import NoServersError
from natsync.policy.options import make_options
from natsync.policy.pool import Server, ServerPool
from natsync.policy.urls import parse_url
from natsync.protocol.info import ServerInfo

if TYPE_CHECKING:
    from collections.abc import Callable

THREE = ["nats://a:1", "nats://b:2", "nats://c:3"]


def make_parts(servers: list[str], *, force: bool = False, **options: Any) -> Any:
    """What a walk needs of a client's parts."""
    reported: list[Any] = []
    made = make_options(servers, {"reconnect_time_wait": 2.0, "reconnect_jitter": 0.0, **options})
    return SimpleNamespace(
        options=made,
        pool=ServerPool(made.servers, randomize=False),
        pool_lock=threading.Lock(),
        connector=SimpleNamespace(secure=False),
        info=ServerInfo(server_id="X"),
        force_wanted=force,
        client=None,
        lifecycle=SimpleNamespace(report=reported.append),
        reported=reported,
    )


def lost_first(parts: Any) -> Walk:
    """The walk after the loss of the first server."""
    return Walk(parts, parts.pool.snapshot()[0])


def steps(walk: Walk, count: int) -> list[tuple[str, float] | None]:
    """Choose so many times; every attempt fails."""
    taken: list[tuple[str, float] | None] = []
    for _ in range(count):
        server, pause = walk.choose()
        if server is None:
            taken.append(None)
        else:
            server.attempts += 1
            taken.append((server.url.host, pause))
    return taken


def test_three_servers_pause_before_the_lost_one_only():
    assert steps(lost_first(make_parts(THREE)), 7) == [
        ("b", 0.0),
        ("c", 0.0),
        ("a", 2.0),
        ("b", 0.0),
        ("c", 0.0),
        ("a", 2.0),
        ("b", 0.0),
    ]


def test_a_single_server_is_paused_for_every_time():
    assert steps(lost_first(make_parts(THREE[:1])), 3) == [("a", 2.0)] * 3


def test_without_a_lost_server_each_has_just_been_tried():
    tried = steps(Walk(make_parts(THREE), None), 4)
    assert tried == [("a", 2.0), ("b", 0.0), ("c", 0.0), ("a", 2.0)]


def test_a_server_that_left_the_pool_in_the_pause_costs_no_second_pause():
    parts = make_parts(THREE[:1])
    walk = lost_first(parts)
    server, pause = walk.choose()
    assert server is not None
    assert (pause, walk.is_still_wanted(server)) == (2.0, True)
    parts.pool.replace([parse_url("nats://b:2")])
    assert not walk.is_still_wanted(server)
    assert steps(walk, 2) == [("b", 0.0), ("b", 2.0)]


def test_a_forced_reconnect_skips_the_first_pause_only():
    parts = make_parts(THREE[:1], force=True)
    walk = lost_first(parts)
    assert parts.force_wanted is False
    assert steps(walk, 3) == [("a", 0.0), ("a", 2.0), ("a", 2.0)]


def test_a_server_that_loses_us_at_once_again_does_not_begin_a_new_walk():
    """One that accepts and drops us would otherwise be tried over and over without a pause."""
    parts = make_parts(THREE)
    walk = lost_first(parts)
    assert steps(walk, 1) == [("b", 0.0)]
    walk = Walk(parts, parts.pool.find(parse_url("b:2")), walk)
    assert steps(walk, 2) == [("c", 0.0), ("a", 2.0)]


def test_the_pause_has_its_jitter():
    walk = lost_first(make_parts(THREE[:1], reconnect_jitter=0.5))
    pauses = [step[1] for step in steps(walk, 50) if step is not None]
    assert all(2.0 <= pause <= 2.5 for pause in pauses)
    assert len(set(pauses)) > 1


@pytest.mark.parametrize(
    "limit, tried",
    [(0, ["b", "c"]), (1, ["b", "c", "a"]), (2, ["b", "c", "a"] * 2)],
)
def test_used_up_servers_are_tried_no_more(limit: int, tried: list[str]):
    walk = lost_first(make_parts(THREE, max_reconnect_attempts=limit))
    taken = steps(walk, len(tried) + 2)
    assert [step[0] for step in taken if step is not None] == tried
    assert taken[len(tried) :] == [None, None]


def test_the_end_of_a_walk_tells_what_every_server_said():
    walk = lost_first(make_parts(THREE[:1], max_reconnect_attempts=0))
    assert steps(walk, 1) == [None]
    failure = NoServersError("refused")
    walk.failures["nats://a:1"] = failure
    error = walk.exhausted()
    assert isinstance(error, NoServersError)
    assert "max_reconnect_attempts" in str(error)
    assert error.errors == {"nats://a:1": failure}


# The user's pause.


def test_the_users_pause_gets_the_number_of_passes_and_replaces_wait_and_jitter():
    asked: list[int] = []

    def delay(passes: int) -> float:
        asked.append(passes)
        return passes * 10.0

    walk = lost_first(make_parts(THREE, reconnect_delay_cb=delay, reconnect_jitter=5.0))
    assert [step[1] for step in steps(walk, 6) if step is not None] == [0.0, 0.0, 10.0, 0.0, 0.0, 20.0]
    assert asked == [1, 2]


@pytest.mark.parametrize(
    "answer, pause",
    [(0, 0.0), (-1, 0.0), (0.5, 0.5), ("3", 3.0), (None, 2.0), ("soon", 2.0), (ValueError("oops"), 2.0)],
)
def test_a_bad_pause_is_replaced_by_the_usual_one(answer: Any, pause: float, caplog: pytest.LogCaptureFixture):
    def delay(passes: int) -> float:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    walk = lost_first(make_parts(THREE[:1], reconnect_delay_cb=delay))
    with caplog.at_level(logging.ERROR, "natsync.supervisor"):
        assert steps(walk, 1) == [("a", pause)]
    assert bool(caplog.records) is (pause == 2.0)


def test_a_pause_that_is_no_number_is_replaced_by_the_usual_one():
    """Or a slip in the user's arithmetic becomes a loop that never rests."""
    walk = lost_first(make_parts(THREE[:1], reconnect_delay_cb=lambda passes: math.nan))
    assert steps(walk, 1) == [("a", 2.0)]


# The user's choice.


def chooser(answers: list[Any]) -> tuple[Callable[..., Any], list[tuple[tuple[str, ...], ServerInfo]]]:
    asked: list[tuple[tuple[str, ...], ServerInfo]] = []

    def choose(servers: tuple[str, ...], info: ServerInfo) -> Any:
        asked.append((servers, info))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return choose, asked


def test_the_user_chooses_the_server_and_the_pause():
    choose, asked = chooser([("nats://c:3", 0), ("b:2", 1.5), ("nats://user:pw@a:1", -1)])
    parts = make_parts(["nats://user:secret@a:1", *THREE[1:]], reconnect_to_server_cb=choose)
    assert steps(lost_first(parts), 3) == [("c", 0.0), ("b", 1.5), ("a", 0.0)]
    assert asked[0] == (tuple(THREE), parts.info), "redacted"


def test_none_leaves_the_choice_to_natsync():
    choose, _ = chooser([None, None, None, ("nats://b:2", 0)])
    parts = make_parts(THREE, reconnect_to_server_cb=choose)
    assert steps(lost_first(parts), 4) == [("b", 0.0), ("c", 0.0), ("a", 2.0), ("b", 0.0)]


@pytest.mark.parametrize(
    "answer",
    [
        ("nats://unknown:9", 0),
        "nats://a:1",
        ("nats://a:1", "soon"),
        ("http://a:1", 0),
        (7, 0),
        RuntimeError("oops"),
    ],
)
def test_a_bad_choice_is_told_and_the_next_one_is_tried(answer: Any, caplog: pytest.LogCaptureFixture):
    choose, _ = chooser([answer])
    parts = make_parts(THREE, reconnect_to_server_cb=choose)
    with caplog.at_level(logging.WARNING, "natsync.supervisor"):
        assert steps(lost_first(parts), 1) == [("b", 0.0)]
    assert "reconnect_to_server_cb" in caplog.text + "".join(str(event.error) for event in parts.reported)


def test_the_user_cannot_choose_what_is_used_up():
    choose, asked = chooser([("nats://c:3", 0), ("nats://b:2", 0), ("nats://a:1", 0)])
    parts = make_parts(THREE, reconnect_to_server_cb=choose, max_reconnect_attempts=1)
    assert steps(lost_first(parts), 4) == [("c", 0.0), ("b", 0.0), ("a", 0.0), None]
    assert [servers for servers, _ in asked] == [tuple(THREE), tuple(THREE[:2]), ("nats://a:1",)]


def test_without_attempts_the_user_may_choose_any_but_the_lost_server():
    choose, asked = chooser([("nats://c:3", 0), None, None])
    parts = make_parts(THREE, reconnect_to_server_cb=choose, max_reconnect_attempts=0)
    assert steps(lost_first(parts), 3) == [("c", 0.0), ("b", 2.0), None]
    assert [servers for servers, _ in asked] == [tuple(THREE[1:]), ("nats://b:2",)]


def test_a_server_that_is_gone_from_the_pool_is_no_trouble():
    """The cluster took it off its list while we were connected to it."""
    parts = make_parts(THREE)
    gone = Server(parse_url("nats://gone:1"))
    assert steps(Walk(parts, gone), 2) == [("a", 0.0), ("b", 0.0)]
