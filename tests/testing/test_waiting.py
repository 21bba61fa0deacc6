"""Waiting, recording, and the search for leaks."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import leaks, waiting
from tests.support.waiting import Recorder, eventually, never

if TYPE_CHECKING:
    from pathlib import Path


def test_eventually_returns_what_became_true() -> None:
    answers = iter([None, 0, "yes"])
    assert eventually(lambda: next(answers)) == "yes"


def test_eventually_says_what_stayed_false() -> None:
    def is_ready() -> bool:
        return False

    with pytest.raises(AssertionError, match=r"is_ready stays false; the last result after 0(\.\d+)? s is False"):
        eventually(is_ready, 0.01)
    with pytest.raises(AssertionError, match="no dawn; the last result"):
        eventually(is_ready, 0, "no dawn")


def test_the_time_factor_stretches_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TIME_FACTOR", 0)
    with pytest.raises(AssertionError, match="after 0 s"):
        eventually(lambda: False, 1000)
    with pytest.raises(AssertionError, match="0 items of 1 after 0 s"):
        Recorder().wait_for(1, 1000)


def test_never_fails_at_once() -> None:
    never(lambda: False, 0.01)
    with pytest.raises(AssertionError, match="too early: 'it'"):
        never(lambda: "it", 1000, "too early")


def test_a_recorder_keeps_what_it_is_called_with() -> None:
    recorder = Recorder()
    assert recorder  # a callback, though an empty one
    recorder(1)
    recorder(2, 3)
    recorder()
    assert recorder.items == [1, (2, 3), ()]
    assert len(recorder) == 3


def test_a_recorder_waits_for_other_threads() -> None:
    recorder = Recorder()
    threads = [threading.Thread(target=recorder, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    assert sorted(recorder.wait_for(10)) == list(range(10))
    for thread in threads:
        thread.join()


def test_threads_are_found_by_their_names() -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="natsync-test-nothing")
    before = set(leaks.natsync_threads())
    thread.start()
    assert leaks.describe_leaks(before, leaks.open_sockets()) == "thread natsync-test-nothing"
    go_on.set()
    thread.join()
    assert leaks.describe_leaks(before, leaks.open_sockets()) == ""


@pytest.mark.skipif(not leaks._DESCRIPTORS.is_dir(), reason="needs /proc")
def test_open_sockets_are_found() -> None:
    before = leaks.open_sockets()
    with socket.socket():
        assert len(leaks.open_sockets() - before) == 1
        assert leaks.describe_leaks(set(leaks.natsync_threads()), before).startswith("socket:[")
    assert leaks.open_sockets() == before


def test_without_proc_no_socket_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(leaks, "_DESCRIPTORS", tmp_path / "nothing")
    assert leaks.open_sockets() == set()
