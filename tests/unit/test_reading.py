"""The reading token: who may take it, take bytes, give it back, and lose it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from natsync.core.reading import ReadingToken, Turn
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.unit.conftest import Pool

ME = threading.get_ident()
NOBODY = 0


def held() -> tuple[ReadingToken, Turn]:
    token, turn = ReadingToken(None), Turn()
    assert token.take(turn)
    return token, turn


def test_a_turn_knows_its_thread(pool: Pool):
    assert Turn().thread == threading.get_ident()
    assert pool.submit(lambda: Turn().thread == threading.get_ident()).result(10)


def test_one_at_a_time():
    token, turn = held()
    assert token.holder is turn
    assert not token.take(Turn())
    assert not token.take(turn), "not even twice"
    token.give_back(turn)
    assert token.take(Turn())


def test_only_its_holder_gives_it_back():
    token, turn = held()
    token.give_back(Turn())
    assert token.holder is turn
    assert not token.take(Turn())


def test_the_first_holder_has_begun_and_nobody_takes_it_away():
    """Operations that came with the handshake are routed before anything is read."""
    first = Turn()
    token = ReadingToken(first)
    assert not token.revoke(None)
    assert not token.take(Turn())
    token.give_back(first)
    second = Turn()
    assert token.take(second)
    assert token.revoke(second.thread)


def test_who_only_waits_can_be_interrupted():
    token, turn = held()
    assert token.revoke(None)
    assert token.holder is None
    assert not token.begin(turn), "it sees that it has lost the token before it takes a byte"
    assert not token.busy
    other = Turn()
    assert token.take(other)
    token.give_back(turn)
    assert token.holder is other


def test_who_takes_bytes_cannot_be_interrupted():
    token, turn = held()
    assert token.begin(turn)
    assert token.busy
    assert not token.revoke(None)
    assert not token.revoke(turn.thread)
    token.busy = False
    assert token.revoke(None)


def test_giving_back_ends_the_taking_of_bytes():
    token, turn = held()
    token.begin(turn)
    token.give_back(turn)
    assert not token.busy
    assert token.holder is None


@pytest.mark.parametrize(
    "thread, taken", [(None, True), (ME, True), (NOBODY, False)], ids=["any", "its own", "another"]
)
def test_it_can_be_taken_away_from_a_certain_thread(thread: int | None, taken: bool):
    token, turn = held()
    assert token.revoke(thread) is taken
    assert token.begin(turn) is not taken


def test_there_is_nothing_to_take_away_from_nobody():
    assert not ReadingToken(None).revoke(None)


@pytest.mark.parametrize("how", ["give_back", "revoke"])
def test_who_waits_for_it_is_woken(how: str, pool: Pool):
    token, turn = held()
    waiting = pool.submit(token.wait_returned, 600)
    eventually(lambda: token._awaited)
    if how == "give_back":
        token.give_back(turn)
    else:
        token.revoke(None)
    waiting.result(10)
    assert token.take(Turn())


def test_a_wait_for_what_nobody_holds_is_none():
    start = time.monotonic()
    ReadingToken(None).wait_returned(600)
    assert time.monotonic() - start < 60


def test_a_wait_ends_in_time():
    token, _ = held()
    start = time.monotonic()
    token.wait_returned(0.05)
    assert 0.05 <= time.monotonic() - start < 60


def test_a_return_that_came_too_late_for_one_wait_does_not_spoil_the_next(pool: Pool):
    token, turn = held()
    token.wait_returned(0.001)
    token.give_back(turn)
    token.take(turn)
    start = time.monotonic()
    token.wait_returned(0.05)
    assert time.monotonic() - start >= 0.05, "the token had not come back"


class Contest:
    """Threads that take the token in the ways of a caller, the reader and the supervisor, until they are stopped."""

    def __init__(self) -> None:
        self.token = ReadingToken(None)
        self.stop = threading.Event()
        self.readers: set[int] = set()
        self._inside: list[Turn] = []

    def _read(self, turn: Turn) -> int:
        self._inside.append(turn)
        assert self._inside == [turn], "two take bytes"
        self._inside.pop()
        self.readers.add(turn.thread)
        return 1

    def call(self) -> int:
        done = 0
        while not self.stop.is_set():
            turn = Turn()
            if self.token.take(turn):
                if self.token.begin(turn):
                    done += self._read(turn)
                    self.token.busy = False
                self.token.give_back(turn)
        return done

    def read(self) -> int:
        done, turn = 0, Turn()
        while not self.stop.is_set():
            while not (self.token.take(turn) and self.token.begin(turn)):
                self.token.wait_returned(0.05)
            done += self._read(turn)
            self.token.give_back(turn)
        return done

    def revoke(self) -> int:
        while not self.stop.is_set():
            self.token.revoke(None)
        return 1


def test_never_two_take_bytes_and_who_waits_for_the_token_goes_on(pool: Pool, switching: None):
    contest = Contest()
    tasks = [pool.submit(each) for each in (contest.call, contest.call, contest.read, contest.revoke)]
    contest.stop.wait(0.3)
    eventually(lambda: len(contest.readers) == 3, 20)
    contest.stop.set()
    assert all(task.result(20) for task in tasks)
    assert contest.token.holder is None
    assert not contest.token.busy
