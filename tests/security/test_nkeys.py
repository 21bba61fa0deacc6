"""NKeys: a seed from a file or from a text, or a callback that signs the server's nonce."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from natsync import AuthorizationError, ConfigError
from natsync.events import Disconnected, Reconnected, ReconnectFailed
from natsync.testing import NatsCluster, NatsServer
from tests.support.operator import Key
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.security.conftest import Login

KEY = Key("user")


def config(*keys: Key) -> str:
    users = ", ".join(f"{{ nkey: {key.public} }}" for key in keys)
    return f"authorization {{ users: [ {users} ] }}\n"


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer(config(KEY)) as server:
        yield server


@pytest.fixture
def seed_file(tmp_path: Path) -> Path:
    file = tmp_path / "user.nk"
    file.write_text(KEY.seed)
    return file


# Seeds


def test_a_seed_file(server: NatsServer, seed_file: Path, login: Login) -> None:
    login(server.url, nkeys_seed=str(seed_file)).flush()


def test_a_seed_file_by_pathlib(server: NatsServer, seed_file: Path, login: Login) -> None:
    login(server.url, nkeys_seed=seed_file).flush()


def test_a_seed_file_below_home(
    server: NatsServer, seed_file: Path, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(seed_file.parent))
    monkeypatch.setenv("KEYS", str(seed_file.parent))
    login(server.url, nkeys_seed="~/user.nk").flush()
    login(server.url, nkeys_seed="$KEYS/user.nk").flush()
    login(server.url, nkeys_seed="${KEYS}/user.nk").flush()


def test_a_seed_as_text(server: NatsServer, login: Login) -> None:
    login(server.url, nkeys_seed_str=KEY.seed).flush()
    login(server.url, nkeys_seed_str=f"  {KEY.seed}\r\n").flush()


TEXTS = {
    "newline": "{seed}\n",
    "crlf": "{seed}\r\n",
    "blank lines": "\n\n  \n{seed}\n\n",
    "blanks": "  {seed}\t \n",
    "comments": "# of the web workers\n# rotated in May\n{seed}\n# end\n",
    "armour": "-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n",
    "armour, crlf, blank lines": "\r\n---BEGIN USER NKEY SEED---\r\n\r\n{seed}\r\n\r\n--END USER NKEY SEED--\r\n",
    "words": "*** IMPORTANT ***\nSUPER secret: treat it so.\n\n{seed}\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_of_seed_files(text: str, server: NatsServer, seed_file: Path, login: Login) -> None:
    seed_file.write_bytes(text.format(seed=KEY.seed).encode())
    login(server.url, nkeys_seed=seed_file).flush()


def test_the_users_public_key_is_said(server: NatsServer, seed_file: Path, login: Login) -> None:
    login(server.url, nkeys_seed=seed_file).flush()
    page = server.monitor("connz?auth=1")
    assert [connection["authorized_user"] for connection in page["connections"]] == [KEY.public]


# Callbacks


def test_a_signing_callback(server: NatsServer, login: Login) -> None:
    nonces: list[bytes] = []

    def sign(nonce: bytes) -> bytes:
        nonces.append(nonce)
        return KEY.sign(nonce)

    client = login(server.url, nkey=KEY.public, signature_cb=sign)
    client.flush()
    assert client.server_info is not None
    (nonce,) = nonces
    assert type(nonce) is bytes
    assert nonce
    server.restart()
    login.wait_event(Reconnected)
    client.flush()
    assert len(set(nonces)) == 2


def test_any_bytes_will_do_as_a_signature(server: NatsServer, login: Login) -> None:
    login(server.url, nkey=KEY.public, signature_cb=lambda nonce: bytearray(KEY.sign(nonce))).flush()


NO_PUBLIC_KEYS = {
    "words": "joe",
    "a seed": KEY.seed,
    "an account's": Key("account").public,
    "cut": KEY.public[:-1],
    "mistyped": KEY.public[:9] + ("A" if KEY.public[9] != "A" else "B") + KEY.public[10:],
    "lower case": KEY.public.lower(),
    "no ASCII": KEY.public[:-1] + "ä",
}


@pytest.mark.parametrize("nkey", NO_PUBLIC_KEYS.values(), ids=NO_PUBLIC_KEYS)
def test_a_public_key_that_is_none(nkey: str, login: Login, undialled: Callable[..., object]) -> None:
    login.searcher.add_secret(KEY.seed)
    error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, nkey=nkey, signature_cb=KEY.sign)
    assert error.option == "nkey"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda signature: base64.urlsafe_b64encode(signature).decode(), id="base64 as str"),
        pytest.param(lambda signature: base64.urlsafe_b64encode(signature), id="base64 as bytes"),
        pytest.param(lambda signature: signature.hex(), id="hex"),
        pytest.param(lambda signature: signature[:-1], id="63 bytes"),
        pytest.param(lambda signature: signature + b"\0", id="65 bytes"),
        pytest.param(lambda signature: b"", id="nothing"),
        pytest.param(lambda signature: None, id="None"),
        pytest.param(lambda signature: list(signature), id="a list"),
    ],
)
def test_something_else_than_a_signature(answer: Callable[[bytes], Any], server: NatsServer, login: Login) -> None:
    error = login.refused(ConfigError, server.url, nkey=KEY.public, signature_cb=lambda nonce: answer(KEY.sign(nonce)))
    assert error.option == "signature_cb"
    assert "signature_cb" in str(error)
    assert "64" in str(error)


def test_a_callback_that_raises(server: NatsServer, login: Login) -> None:
    failure = OSError("the hardware key is not plugged in")

    def sign(nonce: bytes) -> bytes:
        raise failure

    error = login.refused(ConfigError, server.url, nkey=KEY.public, signature_cb=sign)
    assert error.option == "signature_cb"
    assert error.__cause__ is failure


def test_a_callback_that_raises_while_reconnecting(server: NatsServer, login: Login) -> None:
    failure = OSError("the hardware key is not plugged in")
    failing: list[bool] = []

    def sign(nonce: bytes) -> bytes:
        if failing:
            raise failure
        return KEY.sign(nonce)

    client = login(server.url, nkey=KEY.public, signature_cb=sign)
    failing.append(True)
    server.restart()

    def failed() -> list[BaseException | None]:
        errors = [event.error for event in login.events.items if type(event) is ReconnectFailed]
        return [error for error in errors if error is not None and error.__cause__ is failure]

    assert type(eventually(failed)[0]) is ConfigError
    failing.clear()
    login.wait_event(Reconnected)
    client.flush()


def test_the_nonce_of_another_does_not_do(server: NatsServer, login: Login) -> None:
    error = login.refused(
        AuthorizationError, server.url, nkey=KEY.public, signature_cb=lambda nonce: KEY.sign(b"another" + nonce)
    )
    assert error.text == "Authorization Violation"


# Rotation


def test_the_file_is_read_at_each_connect(server: NatsServer, seed_file: Path, login: Login) -> None:
    client = login(server.url, nkeys_seed=seed_file)
    new = Key("user")
    seed_file.write_text(new.seed)
    client.flush()
    server.reload(config(new))
    login.wait_event(Reconnected)
    client.flush()
    login.searcher.add_secret(KEY.seed, new.seed)


def test_a_file_that_is_away_while_reconnecting_is_missed_until_it_is_back(
    server: NatsServer, seed_file: Path, login: Login
) -> None:
    client = login(server.url, nkeys_seed=seed_file)
    seed_file.unlink()
    server.restart()
    failed = login.wait_event(ReconnectFailed)
    assert isinstance(failed.error, ConfigError)
    assert failed.error.option == "nkeys_seed"
    assert str(seed_file) in str(failed.error)
    assert failed.server == server.url
    seed_file.write_text(KEY.seed)
    login.wait_event(Reconnected)
    client.flush()


def test_a_seed_that_the_server_no_longer_knows(server: NatsServer, seed_file: Path, login: Login) -> None:
    client = login(server.url, nkeys_seed=seed_file)
    server.reload(config(Key("user")))
    login.wait_event(Disconnected)
    assert client.wait_closed(5.0)
    assert type(client.last_error) is AuthorizationError


# Refusals


@pytest.mark.parametrize("way", ["nkeys_seed", "nkeys_seed_str", "signature_cb"])
def test_another_users_seed(way: str, server: NatsServer, tmp_path: Path, login: Login) -> None:
    wrong = Key("user")
    (tmp_path / "wrong.nk").write_text(wrong.seed)
    options: dict[str, dict[str, Any]] = {
        "nkeys_seed": {"nkeys_seed": tmp_path / "wrong.nk"},
        "nkeys_seed_str": {"nkeys_seed_str": wrong.seed},
        "signature_cb": {"nkey": wrong.public, "signature_cb": wrong.sign},
    }
    error = login.refused(AuthorizationError, server.url, **options[way])
    assert error.server == server.url
    assert error.text == "Authorization Violation"


def test_the_signature_of_another_user(server: NatsServer, login: Login) -> None:
    login.refused(AuthorizationError, server.url, nkey=KEY.public, signature_cb=Key("user").sign)


@pytest.mark.parametrize("way", ["nkeys_seed", "nkeys_seed_str", "signature_cb"])
def test_a_server_that_sends_no_nonce(way: str, nats_server: NatsServer, seed_file: Path, login: Login) -> None:
    options: dict[str, dict[str, Any]] = {
        "nkeys_seed": {"nkeys_seed": seed_file},
        "nkeys_seed_str": {"nkeys_seed_str": KEY.seed},
        "signature_cb": {"nkey": KEY.public, "signature_cb": KEY.sign},
    }
    error = login.refused(AuthorizationError, nats_server.url, **options[way])
    assert "nonce" in str(error)
    assert error.server == nats_server.url
    assert list(error.errors) == [nats_server.url]


def test_passwords_do_not_open_a_server_of_keys(server: NatsServer, login: Login) -> None:
    login.refused(AuthorizationError, server.url, user=KEY.public, password="no-key-but-a-word")


def test_a_url_wins_over_a_seed(seed_file: Path, login: Login) -> None:
    with NatsServer("authorization { user: joe, password: from-the-url }\n") as server:
        login(f"nats://joe:from-the-url@127.0.0.1:{server.port}", nkeys_seed=seed_file).flush()
        login.finish()


# Bad seeds are told before any I/O


def flipped(text: str, at: int) -> str:
    other = "A" if text[at] != "A" else "B"
    return text[:at] + other + text[at + 1 :]


GARBLED: dict[str, str] = {
    "a letter changed": flipped(KEY.seed, 20),
    "the last letter changed": flipped(KEY.seed, -1),
    "cut": KEY.seed[:-1],
    "cut in half": KEY.seed[: len(KEY.seed) // 2],
    "too long": KEY.seed + "A",
    "twice": KEY.seed + KEY.seed,
    "lower case": KEY.seed.lower(),
    "no base32": KEY.seed[:-2] + "18",
    "a public key": KEY.public,
    "an account's seed": Key("account").seed,
    "an operator's seed": Key("operator").seed,
    "words": "hush hush, this is no seed at all",
    "not ASCII": KEY.seed[:-1] + "\u00c4",
    "nul": KEY.seed[:10] + "\0" + KEY.seed[10:],
    "comments only": "# to be filled in\n",
    "armour only": "-----BEGIN USER NKEY SEED-----\n------END USER NKEY SEED------\n",
}


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("text", GARBLED.values(), ids=GARBLED)
@pytest.mark.parametrize("option", ["nkeys_seed", "nkeys_seed_str"])
def test_a_garbled_seed(
    option: str, text: str, retry: bool, tmp_path: Path, login: Login, undialled: Callable[..., object]
) -> None:
    file = tmp_path / "garbled.nk"
    file.write_text(text, "utf-8")
    login.searcher.add_secret(text)
    value: Any = file if option == "nkeys_seed" else text
    with NatsServer() as nobody:
        pass
    error = login.refused(ConfigError, nobody.url, dialer=undialled, retry_on_failed_connect=retry, **{option: value})
    assert error.option == option
    assert option in str(error)
    assert not login.events.items


BINARY: dict[str, bytes] = {
    "a few bytes": b"\xff\xfe\x00",
    "noise": os.urandom(4096),
    "UTF-16": KEY.seed.encode("utf-16"),
    "zeros": b"\0" * 100,
    "a seed and noise": KEY.seed[:30].encode() + b"\xff" + KEY.seed[30:].encode(),
}


@pytest.mark.parametrize("content", BINARY.values(), ids=BINARY)
def test_a_file_that_is_no_text(content: bytes, tmp_path: Path, login: Login, undialled: Callable[..., object]) -> None:
    file = tmp_path / "garbled.nk"
    file.write_bytes(content)
    error = login.refused(ConfigError, "127.0.0.1", dialer=undialled, nkeys_seed=file)
    assert error.option == "nkeys_seed"


@pytest.mark.cluster
def test_discovered_servers_get_a_signature_too(seed_file: Path, login: Login) -> None:
    with NatsCluster(2, config=config(KEY)) as cluster:
        first, second = cluster.servers
        client = login(first.url, nkeys_seed=seed_file)
        eventually(lambda: client.discovered_servers == (second.url,))
        first.kill()
        login.wait_event(Reconnected)
        assert client.connected_url == second.url
        client.flush()
        login.finish()
