"""Credentials that cannot be: told by name, before anything is dialled, and without a word of them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from natsync import AuthorizationError, ConfigError
from natsync.testing import NatsServer
from tests.support.nobody import as_nobody
from tests.support.operator import Key, Operator, make_creds
from tests.support.proxy import FaultProxy
from tests.support.waiting import never

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.security.conftest import Login

    Undialled = Callable[..., object]

USER = Operator().account().user()
# One working value for each way to log in; files are named only.
WAYS: dict[str, dict[str, Any]] = {
    "user": {"user": "friedrich", "password": "correct-horse-battery"},
    "token": {"token": "open-sesame-4711"},
    "user_info_cb": {"user_info_cb": lambda: ("friedrich", "correct-horse-battery")},
    "token_cb": {"token_cb": lambda: "open-sesame-4711"},
    "nkeys_seed": {"nkeys_seed": "user.nk"},
    "nkeys_seed_str": {"nkeys_seed_str": USER.seed},
    "user_credentials": {"user_credentials": "user.creds"},
    "user_credentials_str": {"user_credentials_str": USER.creds},
    "user_jwt_cb": {"user_jwt_cb": lambda: USER.jwt, "signature_cb": USER.key.sign},
    "nkey": {"nkey": USER.key.public, "signature_cb": USER.key.sign},
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Good files in the present directory, so that only what a test breaks is broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user.nk").write_text(USER.seed)
    (tmp_path / "user.jwt").write_text(USER.jwt)
    (tmp_path / "user.creds").write_text(USER.creds)
    return tmp_path


# Options that contradict each other


@pytest.mark.parametrize("one, two", list(itertools.combinations(WAYS, 2)))
def test_two_ways_at_once(one: str, two: str, login: Login, undialled: Undialled) -> None:
    error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, **{**WAYS[one], **WAYS[two]})
    assert error.option in (one, two)
    assert one in str(error)
    assert two in str(error)


def test_all_ways_at_once(login: Login, undialled: Undialled) -> None:
    every = {name: value for way in WAYS.values() for name, value in way.items()}
    login.refused(ConfigError, "127.0.0.1", dialer=undialled, **every)


@pytest.mark.parametrize("way", ["user", "token", "user_info_cb", "token_cb", "nkeys_seed", "user_credentials"])
def test_a_signature_beside_a_way_without_one(way: str, login: Login, undialled: Undialled) -> None:
    error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, **WAYS[way], signature_cb=USER.key.sign)
    assert error.option is not None
    assert "signature_cb" in str(error)


@pytest.mark.parametrize(
    "options, option, words",
    [
        ({"user": "friedrich"}, "user", "password"),
        ({"password": "correct-horse-battery"}, "password", "user"),
        ({"nkey": USER.key.public}, "nkey", "signature_cb"),
        ({"signature_cb": USER.key.sign}, "signature_cb", "nkey"),
        ({"token": "open-sesame-4711", "password": "correct-horse-battery"}, "password", "user"),
    ],
    ids=["user alone", "password alone", "nkey alone", "signature_cb alone", "token and password"],
)
def test_half_a_way(options: dict[str, Any], option: str, words: str, login: Login, undialled: Undialled) -> None:
    error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, **options)
    assert error.option == option
    assert words in str(error)


ILL_TYPED: dict[str, tuple[str, Any]] = {
    "user, bytes": ("user", b"friedrich"),
    "token, bytes": ("token", b"open-sesame-4711"),
    "token, empty": ("token", ""),
    "token, a callable": ("token", lambda: "open-sesame-4711"),
    "token_cb, a str": ("token_cb", "open-sesame-4711"),
    "user_info_cb, a pair": ("user_info_cb", ("friedrich", "correct-horse-battery")),
    "nkeys_seed, bytes": ("nkeys_seed", b"user.nk"),
    "nkeys_seed, empty": ("nkeys_seed", ""),
    "nkeys_seed, a key": ("nkeys_seed", USER.key),
    "nkeys_seed_str, bytes": ("nkeys_seed_str", USER.seed.encode()),
    "nkeys_seed_str, empty": ("nkeys_seed_str", ""),
    "user_credentials, empty": ("user_credentials", ""),
    "user_credentials, bytes": ("user_credentials", b"user.creds"),
    "user_credentials, one of a pair": ("user_credentials", ("user.jwt",)),
    "user_credentials, three": ("user_credentials", ("user.jwt", "user.nk", "user.creds")),
    "user_credentials, a pair with None": ("user_credentials", ("user.jwt", None)),
    "user_credentials, a pair with empty": ("user_credentials", ("user.jwt", "")),
    "user_credentials, a number": ("user_credentials", 3),
    "user_credentials_str, bytes": ("user_credentials_str", USER.creds.encode()),
    "user_credentials_str, a path": ("user_credentials_str", Path("user.creds")),
    "user_jwt_cb, a str": ("user_jwt_cb", USER.jwt),
    "signature_cb, bytes": ("signature_cb", USER.seed.encode()),
    "nkey, bytes": ("nkey", USER.key.public.encode()),
    "nkey, empty": ("nkey", ""),
}


@pytest.mark.parametrize("name", ILL_TYPED)
def test_ill_typed_options(name: str, login: Login, undialled: Undialled) -> None:
    login.searcher.add_secret("open-sesame-4711", "correct-horse-battery", USER.creds)
    option, value = ILL_TYPED[name]
    error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, **{option: value})
    assert error.option == option
    assert str(error).startswith(option)


# Files

PATH_OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "nkeys_seed": lambda bad: {"nkeys_seed": bad},
    "nkeys_seed, str": lambda bad: {"nkeys_seed": str(bad)},
    "user_credentials": lambda bad: {"user_credentials": bad},
    "user_credentials, str": lambda bad: {"user_credentials": str(bad)},
    "user_credentials, JWT": lambda bad: {"user_credentials": (bad, "user.nk")},
    "user_credentials, seed": lambda bad: {"user_credentials": ("user.jwt", str(bad))},
}


def make_missing(path: Path) -> None:
    pass


def make_directory(path: Path) -> None:
    path.mkdir()


def make_dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_empty(path: Path) -> None:
    path.write_text("")


def make_blank(path: Path) -> None:
    path.write_text("\r\n  \n\t\n")


def make_foreign(path: Path) -> None:
    path.write_text("{'what': 'not credentials at all'}\n")


def make_noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3_000_000_000)  # a sparse file, which must not be read whole


BROKEN = [
    *(make_missing, make_directory, make_dangling, make_loop),
    *(make_empty, make_blank, make_foreign, make_noise, make_huge),
]


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("break_it", BROKEN)
@pytest.mark.parametrize("way", PATH_OPTIONS)
def test_a_bad_file(
    way: str, break_it: Callable[[Path], None], retry: bool, files: Path, login: Login, undialled: Undialled
) -> None:
    login.searcher.add_secret(USER.creds)
    bad = files / "the-bad-one"
    break_it(bad)
    error = login.refused(
        ConfigError, "127.0.0.1", dialer=undialled, retry_on_failed_connect=retry, **PATH_OPTIONS[way](bad)
    )
    assert error.option == way.partition(",")[0]
    assert error.option in str(error)
    assert not login.events.items
    if break_it in (make_missing, make_directory, make_dangling, make_loop):
        assert str(bad) in str(error)
        assert isinstance(error.__cause__, OSError)


@pytest.mark.skipif(os.name != "posix", reason="files have other permissions there")
@pytest.mark.parametrize("way", PATH_OPTIONS)
def test_a_file_that_is_not_ours(way: str, files: Path, login: Login, undialled: Undialled) -> None:
    bad = Path("the-bad-one")
    bad.write_text(USER.creds)
    bad.chmod(0)
    login.searcher.add_secret(USER.creds)
    with as_nobody(files):
        error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, **PATH_OPTIONS[way](bad))
    assert error.option == way.partition(",")[0]
    assert "the-bad-one" in str(error)
    assert isinstance(error.__cause__, PermissionError)


@pytest.mark.parametrize("way", PATH_OPTIONS)
def test_a_missing_file_is_told_before_a_server_is_asked(
    way: str, files: Path, nats_server: NatsServer, login: Login
) -> None:
    with FaultProxy("127.0.0.1", nats_server.port) as wire:
        login.refused(ConfigError, wire.url, retry_on_failed_connect=True, **PATH_OPTIONS[way](files / "nowhere"))
        never(lambda: wire.accepted, 0.05)


def test_a_missing_file_is_told_although_a_server_is_away_too(files: Path, login: Login) -> None:
    with NatsServer() as away:
        pass
    error = login.refused(ConfigError, [away.url, "nats://no-such-host.invalid"], user_credentials=files / "nowhere")
    assert error.option == "user_credentials"


GARBLED: dict[str, str] = {
    "no JWT": USER.creds.replace(USER.jwt, ""),
    "no seed": USER.creds.replace(USER.seed, ""),
    "cut in the JWT": USER.creds[:200],
    "cut in the seed": USER.creds[: USER.creds.index(USER.seed) + 30],
    "an account's seed": make_creds(USER.jwt, Key("account").seed),
    "an operator's seed": make_creds(USER.jwt, Key("operator").seed),
    "a mistyped seed": make_creds(USER.jwt, USER.seed[:-5] + USER.seed[-4:]),
    "the public key": make_creds(USER.jwt, USER.key.public),
    "a JWT of two parts": make_creds(USER.jwt.rpartition(".")[0], USER.seed),
    "only armour": make_creds("", ""),
    "only a JWT": USER.jwt,
    "only a seed": USER.seed,
    "one line": USER.creds.replace("\n", " "),
}


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("name", GARBLED)
def test_garbled_credentials(name: str, retry: bool, files: Path, login: Login, undialled: Undialled) -> None:
    text = GARBLED[name]
    login.searcher.add_secret(USER.creds, text)
    path = files / "garbled.creds"
    path.write_text(text)
    both: dict[str, Any] = {"dialer": undialled, "retry_on_failed_connect": retry}
    error = login.refused(ConfigError, "127.0.0.1", user_credentials=path, **both)
    assert error.option == "user_credentials"
    error = login.refused(ConfigError, "127.0.0.1", user_credentials_str=text, **both)
    assert error.option == "user_credentials_str"


def test_a_pair_in_the_wrong_order(login: Login, undialled: Undialled) -> None:
    login.searcher.add_secret(USER.creds)
    error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, user_credentials=("user.nk", "user.jwt"))
    assert error.option == "user_credentials"


def test_a_path_with_a_nul(login: Login, undialled: Undialled) -> None:
    for option in ("nkeys_seed", "user_credentials", "tls_ca", "tls_cert"):
        wrong: dict[str, Any] = {option: "user\0.nk"}
        error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, **wrong)
        assert error.option == option


def test_the_path_in_place_of_the_content(login: Login, undialled: Undialled) -> None:
    wrong: dict[str, Any] = {"nkeys_seed_str": "user.nk", "user_credentials_str": "user.creds"}
    for option, value in wrong.items():
        error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, **{option: value})
        assert error.option == option


@pytest.mark.parametrize("option", ["nkeys_seed", "user_credentials", "tls_ca", "tls_cert"])
@pytest.mark.parametrize("content", [USER.creds, USER.seed, USER.jwt], ids=["creds", "seed", "JWT"])
def test_the_content_in_place_of_the_path(content: str, option: str, login: Login, undialled: Undialled) -> None:
    """The path is named in the error, so what is no path must not be."""
    login.searcher.add_secret(content)
    wrong: dict[str, Any] = {option: content}
    error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, **wrong)
    assert error.option == option
    if option == "user_credentials":
        login.refused(ConfigError, "127.0.0.1", dialer=undialled, user_credentials=("user.jwt", content))


def test_good_files_are_no_reason_not_to_wait_for_a_server(login: Login) -> None:
    with NatsServer() as away:
        pass
    client = login(away.url, user_credentials="user.creds", retry_on_failed_connect=True)
    assert client.is_reconnecting


# Refused by all of them


def test_every_servers_refusal_is_kept(login: Login) -> None:
    config = "authorization {{ user: friedrich, password: {} }}\n"
    with NatsServer(config.format("first-one")) as one, NatsServer(config.format("second-one")) as two:
        servers = [one.url, two.url]
        error = login.refused(AuthorizationError, servers, user="friedrich", password="neither-of-both")
        assert set(error.errors) == set(servers)
        for url, each in error.errors.items():
            assert type(each) is AuthorizationError
            assert each.server == url
        assert error in error.errors.values()


def test_refusals_with_retry_on_failed_connect_end_the_client(login: Login) -> None:
    with NatsServer("authorization { user: friedrich, password: another-one }\n") as server:
        client = login(server.url, user="friedrich", password="the-wrong-one", retry_on_failed_connect=True)
        assert client.wait_closed(5.0)
        assert type(client.last_error) is AuthorizationError
        login.finish()
