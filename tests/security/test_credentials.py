"""JWTs: `.creds` files, pairs of files, texts, callbacks, bearers; rotated, expired and revoked ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from natsync import AuthExpiredError, AuthorizationError, AuthRevokedError, ConfigError
from natsync.events import AsyncError, Closed, Disconnected, Reconnected, ReconnectFailed
from natsync.testing import NatsCluster, NatsServer
from tests.support.operator import PUSH_SUBJECT, Account, Key, Operator, User, make_creds
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.security.conftest import Login

OPERATOR = Operator()
ACCOUNT = OPERATOR.account()


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """One operator's server for this file; what is done to it here, a restart, harms nobody."""
    with NatsServer(OPERATOR.config()) as server:
        yield server


@pytest.fixture
def user() -> User:
    return ACCOUNT.user()


@pytest.fixture
def file(user: User, tmp_path: Path) -> Path:
    return user.write_creds(tmp_path / "user.creds")


def logged_in(server: NatsServer) -> list[str]:
    """The users that are connected now, by their public keys."""
    return [connection.get("authorized_user", "") for connection in server.monitor("connz?auth=1")["connections"]]


# Ways


def test_a_creds_file(server: NatsServer, file: Path, user: User, login: Login) -> None:
    login(server.url, user_credentials=str(file)).flush()
    assert user.key.public in logged_in(server)


def test_a_creds_file_by_pathlib(server: NatsServer, file: Path, login: Login) -> None:
    login(server.url, user_credentials=file).flush()


@pytest.mark.parametrize("make", [str, Path])
@pytest.mark.parametrize("pair", [tuple, list])
def test_a_pair_of_files(
    pair: Callable[..., Any], make: Callable[..., Any], server: NatsServer, user: User, tmp_path: Path, login: Login
) -> None:
    jwt, seed = tmp_path / "user.jwt", tmp_path / "user.nk"
    jwt.write_text(user.jwt)
    seed.write_text(user.seed + "\n")
    login(server.url, user_credentials=pair([make(jwt), make(seed)])).flush()


def test_a_pair_whose_files_have_armour(server: NatsServer, user: User, tmp_path: Path, login: Login) -> None:
    jwt, seed = tmp_path / "user.jwt", tmp_path / "user.nk"
    jwt.write_bytes(f"-----BEGIN NATS USER JWT-----\r\n{user.jwt}\r\n------END NATS USER JWT------\r\n".encode())
    seed.write_bytes(
        f"# seed\r\n-----BEGIN USER NKEY SEED-----\r\n{user.seed}\r\n------END USER NKEY SEED------".encode()
    )
    login(server.url, user_credentials=(jwt, seed)).flush()


def test_a_pair_may_be_one_file_twice(server: NatsServer, file: Path, login: Login) -> None:
    login(server.url, user_credentials=(file, file)).flush()


def test_paths_with_home_and_variables(
    server: NatsServer, file: Path, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.setenv("NATS_CREDS_DIR", str(file.parent))
    paths: list[Any] = ["~/user.creds", "$NATS_CREDS_DIR/user.creds", "${NATS_CREDS_DIR}/user.creds"]
    paths += [Path("~/user.creds"), Path("$NATS_CREDS_DIR/user.creds"), ("~/user.creds", "$NATS_CREDS_DIR/user.creds")]
    for path in paths:
        login(server.url, user_credentials=path).flush()


def test_variables_are_looked_up_at_each_connect(
    server: NatsServer, file: Path, tmp_path: Path, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_CREDS", str(file))
    login.searcher.add_secret(file.read_text())
    client = login(server.url, user_credentials="$NATS_CREDS")
    other = ACCOUNT.user()
    monkeypatch.setenv("NATS_CREDS", str(other.write_creds(tmp_path / "other.creds")))
    client.force_reconnect()
    login.wait_event(Reconnected)
    client.flush()
    assert other.key.public in logged_in(server)


def test_the_content_of_a_creds_file(server: NatsServer, user: User, login: Login) -> None:
    login(server.url, user_credentials_str=user.creds).flush()


def test_callbacks(server: NatsServer, user: User, login: Login) -> None:
    login.searcher.add_secret(user.creds)
    login(server.url, user_jwt_cb=lambda: user.jwt, signature_cb=user.key.sign).flush()


def test_callbacks_are_asked_at_every_connect(server: NatsServer, login: Login) -> None:
    users = [ACCOUNT.user() for _ in range(2)]
    login.searcher.add_secret(*(user.creds for user in users))
    asked: list[str] = []

    def jwt() -> str:
        asked.append("jwt")
        return users[0].jwt

    def sign(nonce: bytes) -> bytes:
        asked.append("signature")
        return users[0].key.sign(nonce)

    client = login(server.url, user_jwt_cb=jwt, signature_cb=sign)
    assert asked == ["jwt", "signature"]
    del users[0]
    server.restart()
    login.wait_event(Reconnected)
    client.flush()
    assert asked[:2] * (len(asked) // 2) == asked
    assert users[0].key.public in logged_in(server)


def test_a_bearer_needs_no_signature(server: NatsServer, login: Login) -> None:
    bearer = ACCOUNT.user(bearer=True)
    login.searcher.add_secret(bearer.jwt)
    login(server.url, user_jwt_cb=lambda: bearer.jwt).flush()
    assert bearer.key.public in logged_in(server)


def test_a_bearer_may_have_a_signature(server: NatsServer, tmp_path: Path, login: Login) -> None:
    bearer = ACCOUNT.user(bearer=True)
    login(server.url, user_credentials=bearer.write_creds(tmp_path / "bearer.creds")).flush()


def test_who_is_no_bearer_needs_a_signature(server: NatsServer, user: User, login: Login) -> None:
    login.searcher.add_secret(user.jwt)
    login.refused(AuthorizationError, server.url, user_jwt_cb=lambda: user.jwt)


def test_an_account_may_sign_with_another_key(login: Login) -> None:
    operator = Operator()
    account = operator.account()
    account.signing_key = Key("account")
    with NatsServer(operator.config()) as server:
        login(server.url, user_credentials_str=account.user().creds).flush()
        login.finish()


# Texts of .creds files


TEXTS: dict[str, Callable[[User], str]] = {
    "as it is": lambda user: user.creds,
    "crlf": lambda user: user.creds.replace("\n", "\r\n"),
    "no line end": lambda user: user.creds.rstrip("*\n"),
    "blank lines": lambda user: user.creds.replace("\n", "\n\n\n"),
    "blank lines with blanks": lambda user: user.creds.replace("\n", "\n \t\n"),
    "comments": lambda user: f"# for the web workers\n#\n{user.creds}# end\n",
    "indented": lambda user: "".join(f"  {line}  \n" for line in user.creds.splitlines()),
    "three dashes": lambda user: user.creds.replace("------", "---").replace("-----", "---"),
    "ten dashes": lambda user: user.creds.replace("------", "-" * 10).replace("-----", "-" * 10),
    "nothing around": lambda user: f"{user.jwt}\n{user.seed}\n",
    "seed first": lambda user: "\n".join(reversed(user.creds.split("\n\n"))),
    "byte order mark": lambda user: "\ufeff" + user.creds,
    "another script": lambda user: f"# f\u00fcr die Gr\u00fc\u00dfe\n{user.creds}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_creds(name: str, server: NatsServer, user: User, tmp_path: Path, login: Login) -> None:
    text = TEXTS[name](user)
    path = tmp_path / "user.creds"
    path.write_bytes(text.encode())
    login(server.url, user_credentials=path).flush()
    login(server.url, user_credentials_str=text).flush()


# Rotation and expiry


def test_the_file_is_read_at_each_connect(server: NatsServer, file: Path, login: Login) -> None:
    client = login(server.url, user_credentials=file)
    new = ACCOUNT.user()
    new.write_creds(file)
    client.flush()
    server.restart()
    login.wait_event(Reconnected)
    client.flush()
    assert logged_in(server) == [new.key.public]


def test_each_file_of_a_pair_is_read_at_each_connect(server: NatsServer, tmp_path: Path, login: Login) -> None:
    jwt, seed = tmp_path / "user.jwt", tmp_path / "user.nk"
    old, new = ACCOUNT.user(), ACCOUNT.user()
    login.searcher.add_secret(old.creds, new.creds)
    for file, text in ((jwt, old.jwt), (seed, old.seed)):
        file.write_text(text)
    client = login(server.url, user_credentials=(jwt, seed))
    for file, text in ((jwt, new.jwt), (seed, new.seed)):
        file.write_text(text)
    client.force_reconnect()
    login.wait_event(Reconnected)
    client.flush()
    assert new.key.public in logged_in(server)


def test_a_file_that_is_away_while_reconnecting_is_missed_until_it_is_back(
    server: NatsServer, user: User, file: Path, login: Login
) -> None:
    client = login(server.url, user_credentials=file)
    file.unlink()
    server.restart()
    failed = login.wait_event(ReconnectFailed)
    assert isinstance(failed.error, ConfigError)
    assert failed.error.option == "user_credentials"
    assert str(file) in str(failed.error)
    assert isinstance(failed.error.__cause__, FileNotFoundError)
    user.write_creds(file)
    login.wait_event(Reconnected)
    client.flush()


def test_expiry_and_new_credentials(server: NatsServer, tmp_path: Path, login: Login) -> None:
    path = tmp_path / "user.creds"
    old, new = ACCOUNT.user(expires=2.0), ACCOUNT.user()
    login.searcher.add_secret(old.creds, new.creds)
    old.write_creds(path)
    client = login(server.url, user_credentials=path)
    received = client.subscribe("greetings")
    client.flush()
    new.write_creds(path)
    lost = login.wait_event(Disconnected)
    assert type(lost.error) is AuthExpiredError
    assert lost.error.text == "User Authentication Expired"
    assert lost.error.server == server.url
    reported = login.wait_event(AsyncError)
    assert type(reported.error) is AuthExpiredError
    login.wait_event(Reconnected)
    client.publish("greetings", b"from the new one")
    assert received.next_msg(timeout=5.0 * TIME_FACTOR).data == b"from the new one"
    assert new.key.public in logged_in(server)


def test_expiry_without_new_credentials_is_the_end(server: NatsServer, tmp_path: Path, login: Login) -> None:
    path = ACCOUNT.user(expires=2.0).write_creds(tmp_path / "user.creds")
    client = login(server.url, user_credentials=path)
    lost = login.wait_event(Disconnected)
    assert type(lost.error) is AuthExpiredError
    assert client.wait_closed(5.0 * TIME_FACTOR)
    closed = login.wait_event(Closed)
    # In the second in which it expires the server says to newcomers that it has, or lets them in and then says so;
    # later it says that they are not authorized. The same answer twice is the end.
    assert isinstance(closed.error, AuthorizationError)
    losses = [event.error for event in login.events.items if type(event) in (Disconnected, ReconnectFailed)]
    assert [str(error) for error in losses[-2:]] == [str(closed.error)] * 2


def test_new_credentials_may_come_late(server: NatsServer, tmp_path: Path, login: Login) -> None:
    path = tmp_path / "user.creds"
    old, new = ACCOUNT.user(expires=2.0), ACCOUNT.user()
    login.searcher.add_secret(old.creds, new.creds)
    client = login(server.url, user_credentials=old.write_creds(path), ignore_auth_error_abort=True)
    login.wait_event(ReconnectFailed, 3)
    assert client.is_reconnecting
    new.write_creds(path)
    login.wait_event(Reconnected)
    client.flush()


def test_a_jwt_callback_after_expiry(server: NatsServer, login: Login) -> None:
    users = [ACCOUNT.user(expires=2.0), ACCOUNT.user()]
    login.searcher.add_secret(*(user.creds for user in users))
    client = login(server.url, user_jwt_cb=lambda: users[0].jwt, signature_cb=lambda nonce: users[0].key.sign(nonce))
    del users[0]
    login.wait_event(Reconnected)
    client.flush()


@pytest.mark.parametrize("way", ["file", "text", "callbacks", "bearer"])
def test_expired_credentials_are_refused_at_once(way: str, server: NatsServer, tmp_path: Path, login: Login) -> None:
    user = ACCOUNT.user(expires=-10.0, bearer=way == "bearer")
    login.searcher.add_secret(user.creds)
    options: dict[str, dict[str, Any]] = {
        "file": {"user_credentials": user.write_creds(tmp_path / "user.creds")},
        "text": {"user_credentials_str": user.creds},
        "callbacks": {"user_jwt_cb": lambda: user.jwt, "signature_cb": user.key.sign},
        "bearer": {"user_jwt_cb": lambda: user.jwt},
    }
    error = login.refused(AuthorizationError, server.url, **options[way])
    assert error.server == server.url
    assert error.text == "Authorization Violation"
    assert not login.events.items


# Revocation


@pytest.fixture
def pushable(tmp_path: Path) -> Iterator[tuple[NatsServer, Operator, Account]]:
    operator = Operator()
    account = operator.account()
    with NatsServer(operator.push_config(tmp_path / "jwt")) as server:
        yield server, operator, account


def push(server: NatsServer, operator: Operator, account: Account, login: Login) -> None:
    system = login(server.url, user_credentials_str=operator.system.user("system").creds)
    answer = system.request(PUSH_SUBJECT, account.jwt.encode())
    assert b'"code":200' in answer.data
    system.close()
    login.searcher.add_secret(account.jwt)


def test_a_revoked_user_is_told_and_shut_out(
    pushable: tuple[NatsServer, Operator, Account], tmp_path: Path, login: Login
) -> None:
    server, operator, account = pushable
    user = account.user()
    client = login(server.url, user_credentials=user.write_creds(tmp_path / "user.creds"))
    account.revoke(user)
    push(server, operator, account, login)
    revoked = [
        eventually(lambda kind=kind: [each for each in login.events.items if type(each) is kind and each.error])  # type: ignore[misc]
        for kind in (AsyncError, Disconnected)
    ]
    for event, *_ in revoked:
        assert event.client is client
        assert type(event.error) is AuthRevokedError
        assert event.error.text == "User Authentication Revoked"
        assert event.error.server == server.url
    assert client.wait_closed(5.0 * TIME_FACTOR)
    assert type(client.last_error) is AuthorizationError
    login.finish()


def test_a_revoked_user_comes_back_with_new_credentials(
    pushable: tuple[NatsServer, Operator, Account], tmp_path: Path, login: Login
) -> None:
    server, operator, account = pushable
    path = tmp_path / "user.creds"
    old, new = account.user(), account.user()
    login.searcher.add_secret(old.creds, new.creds)
    client = login(server.url, user_credentials=old.write_creds(path))
    new.write_creds(path)
    account.revoke(old)
    push(server, operator, account, login)
    login.wait_event(Reconnected)
    client.flush()
    assert new.key.public in logged_in(server)
    assert [event for event in login.events.items if type(event.error) is AuthRevokedError]
    login.finish()


# Refusals


def test_an_unknown_account(server: NatsServer, login: Login) -> None:
    login.refused(AuthorizationError, server.url, user_credentials_str=Operator().account().user().creds)


def test_the_seed_of_another_user(server: NatsServer, user: User, tmp_path: Path, login: Login) -> None:
    wrong = ACCOUNT.user()
    mixed = make_creds(user.jwt, wrong.seed)
    login.refused(AuthorizationError, server.url, user_credentials_str=mixed)
    path = tmp_path / "mixed.creds"
    path.write_text(mixed)
    login.refused(AuthorizationError, server.url, user_credentials=path)


def test_a_jwt_with_a_letter_changed(server: NatsServer, user: User, login: Login) -> None:
    at = len(user.jwt) - 20
    jwt = user.jwt[:at] + ("A" if user.jwt[at] != "A" else "B") + user.jwt[at + 1 :]
    login.refused(AuthorizationError, server.url, user_credentials_str=make_creds(jwt, user.seed))


def test_the_jwt_of_an_account(server: NatsServer, login: Login) -> None:
    creds = make_creds(ACCOUNT.jwt, ACCOUNT.user().seed)
    login.refused(AuthorizationError, server.url, user_credentials_str=creds)


def test_the_next_server_may_know_us(server: NatsServer, file: Path, login: Login) -> None:
    other = Operator()
    with NatsServer(other.config()) as stranger:
        client = login([stranger.url, server.url], user_credentials=file, dont_randomize=True)
        assert client.connected_url == server.url
        login.finish()


def test_a_jwt_callback_that_raises(server: NatsServer, user: User, login: Login) -> None:
    failure = TimeoutError("the vault does not answer")

    def jwt() -> str:
        raise failure

    error = login.refused(ConfigError, server.url, user_jwt_cb=jwt, signature_cb=user.key.sign)
    assert error.option == "user_jwt_cb"
    assert error.__cause__ is failure


@pytest.mark.parametrize("answer", ["None", "bytes", "tuple"])
def test_a_jwt_callback_that_returns_something_else(answer: str, server: NatsServer, user: User, login: Login) -> None:
    login.searcher.add_secret(user.jwt)
    answers = {"None": None, "bytes": user.jwt.encode(), "tuple": (user.jwt, user.seed)}
    error = login.refused(ConfigError, server.url, user_jwt_cb=lambda: answers[answer], signature_cb=user.key.sign)
    assert error.option == "user_jwt_cb"


def test_a_signature_callback_beside_a_jwt_that_raises(server: NatsServer, user: User, login: Login) -> None:
    failure = OSError("no hardware key")
    login.searcher.add_secret(user.jwt)

    def sign(nonce: bytes) -> bytes:
        raise failure

    error = login.refused(ConfigError, server.url, user_jwt_cb=lambda: user.jwt, signature_cb=sign)
    assert error.option == "signature_cb"
    assert error.__cause__ is failure


def test_other_ways_do_not_open_an_operators_server(server: NatsServer, login: Login) -> None:
    login.refused(AuthorizationError, server.url, user="friedrich", password="battery-staple")
    login.refused(AuthorizationError, server.url, token="battery-staple")
    login.refused(AuthorizationError, server.url, nkeys_seed_str=ACCOUNT.user().seed)
    login.refused(AuthorizationError, server.url)


# What is left behind


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")
def test_files_are_closed(server: NatsServer, file: Path, login: Login) -> None:
    client = login(server.url, user_credentials=file)
    client.force_reconnect()
    login.wait_event(Reconnected)
    open_files = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            open_files.append(os.readlink(entry))  # noqa: PTH115
    assert str(file) not in open_files


@pytest.mark.cluster
def test_discovered_servers_get_the_credentials(tmp_path: Path, login: Login) -> None:
    operator = Operator()
    user = operator.account().user()
    with NatsCluster(2, config=operator.config()) as cluster:
        first, second = cluster.servers
        client = login(first.url, user_credentials=user.write_creds(tmp_path / "user.creds"))
        eventually(lambda: client.discovered_servers == (second.url,))
        first.kill()
        login.wait_event(Reconnected)
        assert client.connected_url == second.url
        client.flush()
        login.finish()
