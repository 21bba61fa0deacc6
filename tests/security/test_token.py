"""A token: as an option, in a URL, from a callback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import bcrypt
import pytest

from natsync import AuthorizationError, ConfigError
from natsync.events import Reconnected
from natsync.testing import NatsCluster, NatsServer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.security.conftest import Login

TOKEN = "open-sesame-4711"
WRONG = "open-barley-0815"


def config(token: str = TOKEN) -> str:
    return f"authorization {{ token: {json.dumps(token, ensure_ascii=False)} }}\n"


def url(server: NatsServer, token: str) -> str:
    return f"nats://{quote(token, safe='')}@127.0.0.1:{server.port}"


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer(config()) as server:
        yield server


def test_an_option(server: NatsServer, login: Login) -> None:
    login(server.url, token=TOKEN).flush()


def test_a_url(server: NatsServer, login: Login) -> None:
    client = login(url(server, TOKEN))
    client.flush()
    assert client.connected_url == server.url


def test_a_url_without_scheme(server: NatsServer, login: Login) -> None:
    login(url(server, TOKEN).removeprefix("nats://")).flush()


def test_a_callback(server: NatsServer, login: Login) -> None:
    login.searcher.add_secret(TOKEN)
    login(server.url, token_cb=lambda: TOKEN).flush()


@pytest.mark.parametrize("token", ["s3cr3t:@/#%? \u00e4\u00f6\u00fc", "Bearer abc+def/ghi=="])
def test_special_characters(token: str, login: Login) -> None:
    with NatsServer(config(token)) as server:
        login(server.url, token=token).flush()
        login(url(server, token)).flush()
        login.finish()


def test_a_token_that_the_server_keeps_hashed(login: Login) -> None:
    with NatsServer(config(bcrypt.hashpw(TOKEN.encode(), bcrypt.gensalt(4, b"2a")).decode())) as server:
        login(server.url, token=TOKEN).flush()
        login.refused(AuthorizationError, server.url, token=WRONG)
        login.finish()


@pytest.mark.parametrize("way", ["option", "url", "callback"])
def test_a_wrong_token_is_refused_at_once(way: str, server: NatsServer, login: Login) -> None:
    if way == "option":
        error = login.refused(AuthorizationError, server.url, token=WRONG)
    elif way == "url":
        error = login.refused(AuthorizationError, url(server, WRONG))
    else:
        login.searcher.add_secret(WRONG)
        error = login.refused(AuthorizationError, server.url, token_cb=lambda: WRONG)
    assert error.server == server.url


def test_a_token_is_no_user(server: NatsServer, login: Login) -> None:
    login.refused(AuthorizationError, server.url, user=TOKEN, password=TOKEN)


# Which one counts


def test_a_urls_own_wins_over_the_option(server: NatsServer, login: Login) -> None:
    login(url(server, TOKEN), token=WRONG).flush()
    login.refused(AuthorizationError, url(server, WRONG), token=TOKEN)


def test_a_urls_own_wins_over_the_callback(server: NatsServer, login: Login) -> None:
    def ask() -> str:
        raise AssertionError("asked, although the URL has a token")

    login(url(server, TOKEN), token_cb=ask).flush()


# The callback is asked at every connect


def test_the_callback_is_asked_at_every_connect(server: NatsServer, login: Login) -> None:
    asked: list[str] = []

    def ask() -> str:
        asked.append("again")
        return TOKEN

    client = login(server.url, token_cb=ask)
    assert len(asked) == 1
    for times in (2, 3):
        server.restart()
        login.wait_event(Reconnected, times - 1)
        assert len(asked) == times
    client.flush()


def test_a_changed_token_comes_from_the_callback(server: NatsServer, login: Login) -> None:
    tokens = [TOKEN]
    login.searcher.add_secret(TOKEN, WRONG)
    client = login(server.url, token_cb=lambda: tokens[-1])
    tokens.append(WRONG)
    server.reload(config(WRONG))
    login.wait_event(Reconnected)
    client.flush()


def test_a_callback_that_fails_is_a_bad_option(server: NatsServer, login: Login) -> None:
    failure = KeyError("NATS_TOKEN")

    def ask() -> str:
        raise failure

    error = login.refused(ConfigError, server.url, token_cb=ask)
    assert error.option == "token_cb"
    assert error.__cause__ is failure


@pytest.mark.parametrize("answer", [None, TOKEN.encode(), (TOKEN, TOKEN), 4711])
def test_a_callback_that_returns_something_else_is_a_bad_option(
    answer: object, server: NatsServer, login: Login
) -> None:
    login.searcher.add_secret(TOKEN)
    error = login.refused(ConfigError, server.url, token_cb=lambda: answer)
    assert error.option == "token_cb"


@pytest.mark.cluster
@pytest.mark.parametrize("way", ["option", "url"])
def test_discovered_servers_get_the_token(way: str, login: Login) -> None:
    with NatsCluster(2, config=config()) as cluster:
        first, second = cluster.servers
        client = login(first.url, token=TOKEN) if way == "option" else login(url(first, TOKEN))
        eventually(lambda: client.discovered_servers == (second.url,))
        first.kill()
        login.wait_event(Reconnected)
        assert client.connected_url == second.url
        client.flush()
        login.finish()
