"""Calls that cannot be understood, and the help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from natsync import __version__
from natsync.cli.arguments import duration

if TYPE_CHECKING:
    from tests.cli.command import Natsync

COMMANDS = ["pub", "sub", "request", "reply", "rtt", "bench", "server", "demo"]


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "natsync: the following arguments are required: COMMAND; see natsync --help"),
        (["pub"], "natsync pub: the following arguments are required: SUBJECT; see natsync pub --help"),
        (["pub", "a", "x", "y"], "natsync: too many arguments; see natsync --help"),
        (["pub", "a", "x", "--passwort=hush"], "natsync: unknown option --passwort; see natsync --help"),
        (["pub", "a", "x", "--cou", "3"], "natsync: unknown option --cou; see natsync --help"),
        (["pub", "a", "x", "--count", "0"], "argument --count: '0' is no whole number above 0"),
        (
            ["pub", "a", "x", "--sleep", "soon"],
            "argument --sleep: 'soon' is no time; write it as 0.5, 500ms, 5s or 1m30s",
        ),
        (["pub", "a", "x", "-H", "no-colon"], "a header is written as NAME:VALUE"),
        (["pub", "a", "x", "-H", "a b:c"], "argument -H/--header: "),
        (["publish", "a"], "natsync: argument COMMAND: invalid choice: 'publish'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call(natsync_command: Natsync, words: list[str], says: str) -> None:
    assert says in natsync_command(*words).failed(2)


def test_help(natsync_command: Natsync) -> None:
    done = natsync_command("--help")
    assert (done.code, done.err) == (0, "")
    assert [command for command in COMMANDS if f"\n    {command} " not in done.out] == []
    for command in COMMANDS:
        done = natsync_command(command, "--help")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"usage: natsync {command} ")


def test_version(natsync_command: Natsync) -> None:
    assert natsync_command("--version").out == f"natsync {__version__}\n"


@pytest.mark.parametrize(
    "text, seconds", [("2", 2), (".5", 0.5), ("1.5s", 1.5), ("250ms", 0.25), ("1m30s", 90), ("2h", 7200)]
)
def test_times(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)
