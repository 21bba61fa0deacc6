"""The search for secrets finds them: else every other test here would prove nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from natsync import AuthorizationError, ConfigError
from natsync.events import AsyncError
from tests.security.leaking import Searcher
from tests.support.operator import Operator

SECRET = "Hush:hush/42"


def searcher_for(secret: str = SECRET) -> Searcher:
    searcher = Searcher()
    searcher.add_secret(secret)
    return searcher


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("shown", [SECRET, f"-{SECRET}-", "Hush%3Ahush%2F42", repr([SECRET])])
def test_a_text(shown: str) -> None:
    searcher = searcher_for()
    searcher.show("here", "harmless")
    assert not searcher.leaks()
    searcher.show("here", shown)
    assert len(searcher.leaks()) == 1


def test_an_error_and_its_attributes() -> None:
    searcher = searcher_for()
    searcher.show_error(ConfigError("harmless", option=SECRET))
    assert searcher.leaks()


def test_what_led_to_an_error() -> None:
    searcher = searcher_for()
    searcher.show_error(raised(ConfigError("harmless"), ValueError(SECRET)))
    assert searcher.leaks()


def test_what_is_hidden_from_the_traceback_only() -> None:
    searcher = searcher_for()
    try:
        try:
            (SECRET.encode() + b"\xff").decode()
        except UnicodeDecodeError:  # which knows the bytes
            raise ConfigError("harmless") from None
    except ConfigError as error:
        searcher.show_error(error)
    assert searcher.leaks()


def test_what_each_server_said() -> None:
    searcher = searcher_for()
    error = AuthorizationError("harmless")
    error.errors = {"nats://a:1": AuthorizationError("harmless", text=SECRET)}
    searcher.show_error(error)
    assert searcher.leaks()


def test_an_event() -> None:
    searcher = searcher_for()
    searcher.show_event(AsyncError(None, server=SECRET))
    assert searcher.leaks()


def test_a_log_record_and_its_arguments() -> None:
    for text, argument in (("harmless %s", SECRET), ("harmless %.2s", SECRET), (SECRET + "%s", "harmless")):
        searcher = searcher_for()
        searcher.emit(logging.LogRecord("natsync", logging.DEBUG, "", 0, text, (argument,), None))
        assert searcher.leaks()


@pytest.mark.parametrize("begin", [0, 40, 400])
def test_a_part_of_a_jwt(begin: int) -> None:
    user = Operator().account().user()
    searcher = searcher_for(user.creds)
    searcher.show("here", user.key.public)
    assert not searcher.leaks()
    searcher.show("here", user.jwt[begin : begin + 40])
    assert searcher.leaks()


def test_a_part_of_a_seed() -> None:
    user = Operator().account().user()
    searcher = searcher_for(user.creds)
    searcher.show("here", user.seed[7:40])
    assert searcher.leaks()


def test_the_secrets_of_options(tmp_path: Path) -> None:
    user = Operator().account().user()
    file = tmp_path / "user.creds"
    user.write_creds(file)
    searcher = Searcher()
    searcher.add_options(
        ["nats://nobody:url-pass%20word@a,url-token@b"],
        {"password": "option-password", "token": "option-token", "user_credentials": str(file)},
    )
    shown = ["nobody", "url-pass word", "url-pass%20word", "url-token", "option-password", "option-token"]
    shown += [user.jwt, user.seed]
    for text in shown:
        searcher.show("here", text)
    assert len(searcher.leaks()) == len(shown)
