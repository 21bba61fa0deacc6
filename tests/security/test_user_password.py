"""A user and a password: as options, in URLs, from a callback; with real servers that keep them plain or hashed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import bcrypt
import pytest

from natsync import AuthorizationError, ConfigError
from natsync.events import DiscoveredServers, Reconnected
from natsync.testing import NatsCluster, NatsServer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.security.conftest import Login

USER = "friedrich"
PASSWORD = "correct-horse-battery"
WRONG = "wrong-horse-no-battery"
SPECIAL = [
    ":colon:and:colon",
    "at@the@sign",
    "a/slash/and/?query=1&x",
    "#hash#and#more",
    "100%percent%41",
    " blanks around it ",
    "Bräunlichgrüße-ß",
    "plus+and+comma,semi;",
    "quote\"back\\slash'tick",
    "$VARIABLE-{brace}[bracket]",
    "\u65e5\u672c\u8a9e\u306e\u9375-\U0001f511",
    ":@/#%? \u00e4\u00f6\u00fc\u20ac",
]


def config(password: str = PASSWORD, user: str = USER) -> str:
    # Go reads no \u escapes, but UTF-8.
    quoted = (json.dumps(text, ensure_ascii=False) for text in (user, password))
    return "authorization {{ user: {}, password: {} }}\n".format(*quoted)


def url(server: NatsServer, user: str, password: str) -> str:
    return f"nats://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{server.port}"


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer(config()) as server:
        yield server


def test_options(server: NatsServer, login: Login) -> None:
    client = login(server.url, user=USER, password=PASSWORD)
    client.flush()
    assert server.connz()["num_connections"] == 1


def test_a_url(server: NatsServer, login: Login) -> None:
    client = login(url(server, USER, PASSWORD))
    client.flush()
    assert client.connected_url == server.url


def test_a_callback(server: NatsServer, login: Login) -> None:
    login(server.url, user_info_cb=lambda: (USER, PASSWORD)).flush()


def test_a_url_that_cannot_be_read_is_not_quoted(login: Login, undialled: Callable[..., object]) -> None:
    login.searcher.add_secret("correct/horse#battery", "correct", "battery")
    error = login.refused(ConfigError, f"nats://{USER}:correct/horse#battery@127.0.0.1", dialer=undialled)
    assert error.option == "servers"


def test_nothing_at_all_is_refused(server: NatsServer, login: Login) -> None:
    error = login.refused(AuthorizationError, server.url)
    assert error.server == server.url
    assert list(error.errors) == [server.url]
    assert not login.events.items


@pytest.mark.parametrize("way", ["options", "url", "callback"])
def test_a_wrong_password_is_refused_at_once(way: str, server: NatsServer, login: Login) -> None:
    if way == "options":
        error = login.refused(AuthorizationError, server.url, user=USER, password=WRONG)
    elif way == "url":
        error = login.refused(AuthorizationError, url(server, USER, WRONG))
    else:
        login.searcher.add_secret(WRONG)
        error = login.refused(AuthorizationError, server.url, user_info_cb=lambda: (USER, WRONG))
    assert error.text == "Authorization Violation"
    assert error.server == server.url


@pytest.mark.parametrize("password", SPECIAL)
def test_special_characters(password: str, login: Login) -> None:
    login.searcher.add_secret(password)
    with NatsServer(config(password)) as server:
        login(server.url, user=USER, password=password).flush()
        login(url(server, USER, password)).flush()
        login(server.url, user_info_cb=lambda: (USER, password)).flush()
        login.refused(AuthorizationError, server.url, user=USER, password=password.swapcase() + "x")
        login.finish()


def test_special_characters_in_the_users_name(login: Login) -> None:
    user = "fritz:@/#%? \u00e4\u00f6"
    with NatsServer(config(user=user)) as server:
        login(url(server, user, PASSWORD)).flush()
        login(server.url, user=user, password=PASSWORD).flush()
        login.finish()


@pytest.mark.parametrize("case", ["%3a%40%2f", "%3A%40%2F"])
def test_percent_signs_take_digits_of_both_cases(case: str, login: Login) -> None:
    password = "Slash-:@/-Slash"
    with NatsServer(config(password)) as server:
        login(f"nats://{USER}:Slash-{case}-Slash@127.0.0.1:{server.port}").flush()
        login.finish()


def test_an_empty_password(login: Login) -> None:
    # Only a callout accepts one on a real server; a plain server must have been asked, and say no.
    with NatsServer(config()) as server:
        login.refused(AuthorizationError, server.url, user=USER, password="")
        login.refused(AuthorizationError, f"nats://{USER}:@127.0.0.1:{server.port}")


# Hashed passwords


@pytest.mark.parametrize("password", [PASSWORD, "gr\u00fc\u00df @/#:%"])
def test_a_password_that_the_server_keeps_hashed(password: str, login: Login) -> None:
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4, b"2a")).decode()
    with NatsServer(config(hashed)) as server:
        login(server.url, user=USER, password=password).flush()
        login(url(server, USER, password)).flush()
        login.refused(AuthorizationError, server.url, user=USER, password=WRONG)
        login.refused(AuthorizationError, server.url, user=USER, password=hashed)
        login.finish()


# Which one counts


def test_a_urls_own_win_over_options(server: NatsServer, login: Login) -> None:
    login(url(server, USER, PASSWORD), user="nobody", password=WRONG).flush()
    login.refused(AuthorizationError, url(server, USER, WRONG), user=USER, password=PASSWORD)


def test_a_urls_own_win_over_the_callback(server: NatsServer, login: Login) -> None:
    def ask() -> tuple[str, str]:
        raise AssertionError("asked, although the URL has credentials")

    login(url(server, USER, PASSWORD), user_info_cb=ask).flush()


def test_options_are_for_the_servers_whose_urls_have_none(server: NatsServer, login: Login) -> None:
    with NatsServer(config(user="other")) as other:
        servers = [url(other, "other", PASSWORD), server.url]
        login(servers[::-1], user=USER, password=PASSWORD, dont_randomize=True).flush()
        client = login(servers, user=USER, password=PASSWORD, dont_randomize=True)
        assert client.connected_url == other.url
        other.stop()
        login.wait_event(Reconnected)
        assert client.connected_url == server.url
        client.flush()


def test_the_next_server_may_know_us(server: NatsServer, login: Login) -> None:
    with NatsServer(config(WRONG)) as other:
        client = login([other.url, server.url], user=USER, password=PASSWORD, dont_randomize=True)
        assert client.connected_url == server.url


def test_servers_that_refuse_and_servers_that_are_away(server: NatsServer, login: Login) -> None:
    with NatsServer() as away:
        pass
    with NatsServer(config(WRONG)) as other:
        servers = [away.url, url(server, USER, WRONG), other.url]
        error = login.refused(AuthorizationError, servers, user="nobody", password=PASSWORD, dont_randomize=True)
        assert list(error.errors) == [away.url, server.url, other.url]
        kinds = [type(each) is AuthorizationError for each in error.errors.values()]
        assert kinds == [False, True, True]
        assert error is error.errors[server.url]


# The callback is asked at every connect


def test_the_callback_is_asked_at_every_connect(server: NatsServer, login: Login) -> None:
    asked: list[str] = []

    def ask() -> tuple[str, str]:
        asked.append("again")
        return USER, PASSWORD

    client = login(server.url, user_info_cb=ask)
    assert len(asked) == 1
    client.flush()
    assert len(asked) == 1
    for times in (2, 3):
        server.restart()
        login.wait_event(Reconnected, times - 1)
        assert len(asked) == times
    client.force_reconnect()
    login.wait_event(Reconnected, 3)
    assert len(asked) == 4
    client.flush()


def test_the_callback_is_asked_for_each_server(server: NatsServer, login: Login) -> None:
    answers = [(USER, WRONG), (USER, PASSWORD)]
    login.searcher.add_secret(WRONG, PASSWORD)
    with NatsServer(config()) as other:
        client = login([server.url, other.url], user_info_cb=lambda: answers.pop(0), dont_randomize=True)
        assert client.connected_url == other.url
        assert not answers
        client.close()


def test_a_changed_password_comes_from_the_callback(server: NatsServer, login: Login) -> None:
    passwords = [PASSWORD]
    login.searcher.add_secret(PASSWORD, WRONG)
    client = login(server.url, user_info_cb=lambda: (USER, passwords[-1]))
    passwords.append(WRONG)
    server.reload(config(WRONG))
    login.wait_event(Reconnected)
    client.flush()


def test_the_callback_may_use_other_clients(server: NatsServer, nats_server: NatsServer, login: Login) -> None:
    vault = login(nats_server.url)
    vault.subscribe("password", cb=lambda msg: msg.respond(PASSWORD.encode()))
    vault.flush()
    login.searcher.add_secret(PASSWORD)
    login(server.url, user_info_cb=lambda: (USER, vault.request("password").data.decode())).flush()


def test_a_callback_that_fails_is_a_bad_option(server: NatsServer, login: Login) -> None:
    failure = OSError("the vault is closed")

    def ask() -> tuple[str, str]:
        raise failure

    error = login.refused(ConfigError, server.url, user_info_cb=ask)
    assert error.option == "user_info_cb"
    assert error.__cause__ is failure


@pytest.mark.parametrize("answer", [None, PASSWORD, (USER,), (USER, None), (USER, PASSWORD.encode()), (1, 2), {}])
def test_a_callback_that_returns_something_else_is_a_bad_option(
    answer: object, server: NatsServer, login: Login
) -> None:
    login.searcher.add_secret(PASSWORD)
    error = login.refused(ConfigError, server.url, user_info_cb=lambda: answer)
    assert error.option == "user_info_cb"


def test_a_callback_that_fails_while_reconnecting_is_asked_again(server: NatsServer, login: Login) -> None:
    asked: list[str] = []

    def ask() -> tuple[str, str]:
        asked.append("again")
        if len(asked) in (2, 3):
            raise OSError("the vault is closed")
        return USER, PASSWORD

    client = login(server.url, user_info_cb=ask)
    server.restart()
    login.wait_event(Reconnected)
    client.flush()
    assert len(asked) == 4


# Clusters


@pytest.mark.cluster
@pytest.mark.parametrize("way", ["options", "url", "callback"])
def test_discovered_servers_get_the_credentials(way: str, login: Login) -> None:
    login.searcher.add_secret(PASSWORD)
    with NatsCluster(3, config=config()) as cluster:
        first = cluster.servers[0]
        if way == "options":
            client = login(first.url, user=USER, password=PASSWORD)
        elif way == "url":
            client = login(url(first, USER, PASSWORD))
        else:
            client = login(first.url, user_info_cb=lambda: (USER, PASSWORD))
        eventually(lambda: sorted(client.servers) == sorted(cluster.urls))
        assert sorted(client.discovered_servers) == sorted(cluster.urls[1:])
        first.kill()
        login.wait_event(Reconnected)
        assert client.connected_url in cluster.urls[1:]
        client.flush()
        assert not [event for event in login.events.items if type(event) is DiscoveredServers and not event.urls]
        login.finish()
