"""The client's own certificate: asked for, missing, foreign; as the user's name; its key encrypted; renewed on disk."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from natsync import AuthorizationError, ConfigError, TLSError
from natsync.testing import NatsServer
from tests.support.certificates import EXPIRED, Authority, Certificate, tls_config
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from natsync import Client

    Connect = Callable[..., Client]

pytestmark = pytest.mark.tls

FAST: dict[str, Any] = {"reconnect_time_wait": 0.05, "reconnect_jitter_tls": 0.0, "reconnect_jitter": 0.0}
ROUNDS = 10  # a refusal in TLS 1.3 races with what we send: it may be seen as an alert, as a reset, as an end


@pytest.fixture
def strict(authority: Authority) -> str:
    """The configuration of a server that wants a certificate of its clients."""
    return tls_config(authority.server(), ca=authority.file, verify=True)


def use(client: Client) -> None:
    sub = client.subscribe("used")
    client.publish("used", b"over TLS")
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"over TLS"


def context_1_2(authority: Authority, mine: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if mine is not None:
        context.load_cert_chain(mine.cert, mine.key)
    return context


def refused(connect: Connect, url: str, **options: Any) -> str:
    with pytest.raises(TLSError) as caught:
        connect(url, **options)
    text = str(caught.value)
    assert url in text
    assert "\n" not in text
    return text


# Asked for


def test_a_certificate_of_the_servers_authority(strict: str, authority: Authority, connect: Connect) -> None:
    mine = authority.client()
    with NatsServer(strict) as server:
        use(connect(server.url, tls_ca=authority.file, tls_cert=mine.cert, tls_key=mine.key))
        use(connect(server.url, tls_ca=authority.file, tls_cert=str(mine.cert), tls_key=str(mine.key)))
        use(connect(server.url, tls_ca=authority.file, tls_cert=mine.combined()))
        use(connect(server.url, tls=context_1_2(authority, mine)))


def test_a_chain_of_the_clients(strict: str, authority: Authority, tmp_path: Path, connect: Connect) -> None:
    mine = Authority(tmp_path, "intermediate", authority).client()
    with NatsServer(strict) as server:
        use(connect(server.url, tls_ca=authority.file, tls_cert=mine.cert, tls_key=mine.key))


def test_a_missing_certificate(strict: str, authority: Authority, connect: Connect) -> None:
    with NatsServer(strict) as server:
        for _ in range(ROUNDS):
            text = refused(connect, server.url, tls_ca=authority.file)
            assert "certificate" in text
            assert "tls_cert" in text


def test_a_missing_certificate_in_tls_1_2(strict: str, authority: Authority, connect: Connect) -> None:
    with NatsServer(strict) as server:
        for _ in range(ROUNDS):
            text = refused(connect, server.url, tls=context_1_2(authority))
            assert "certificate" in text


@pytest.mark.parametrize("first", [True, False])
def test_a_certificate_of_a_foreign_authority(
    first: bool, authority: Authority, tmp_path: Path, connect: Connect
) -> None:
    foreign = Authority(tmp_path, "foreign").client()
    config = tls_config(authority.server(), ca=authority.file, verify=True, handshake_first=first)
    options: dict[str, Any] = {"tls_ca": authority.file, "tls_cert": foreign.cert, "tls_key": foreign.key}
    with NatsServer(config) as server:
        for _ in range(ROUNDS):
            text = refused(connect, server.url, tls_handshake_first=first, **options)
            assert "certificate" in text
            assert "tls_cert" in text


def test_a_certificate_of_a_foreign_authority_in_tls_1_2(
    strict: str, authority: Authority, tmp_path: Path, connect: Connect
) -> None:
    context = context_1_2(authority, Authority(tmp_path, "foreign").client())
    with NatsServer(strict) as server:
        for _ in range(ROUNDS):
            assert "certificate" in refused(connect, server.url, tls=context)


def test_an_expired_certificate(strict: str, authority: Authority, connect: Connect) -> None:
    old = authority.client(days=EXPIRED)
    with NatsServer(strict) as server:
        text = refused(connect, server.url, tls_ca=authority.file, tls_cert=old.cert, tls_key=old.key)
        assert "certificate" in text


def test_a_refused_certificate_at_a_reconnect(
    strict: str, authority: Authority, tmp_path: Path, connect: Connect
) -> None:
    mine = authority.client()
    failed = Recorder()
    with NatsServer(strict) as server:
        options: dict[str, Any] = {"tls_ca": authority.file, "tls_cert": mine.cert, "tls_key": mine.key}
        client = connect(server.url, reconnect_error_cb=failed, **options, **FAST)
        stranger = Authority(tmp_path, "stranger")
        server.reload(tls_config(authority.server(), ca=stranger.file, verify=True))
        client.force_reconnect()
        eventually(lambda: any(isinstance(event.error, TLSError) for event in failed.items))
        never(lambda: client.is_connected, 0.2)
        server.reload(strict)
        eventually(lambda: client.is_connected, 10.0)
        use(client)


# As the user's name


def mapped(authority: Authority, *users: str) -> str:
    listed = ", ".join(f'{{user: "{user}", permissions: {{publish: ["mine.>", "_INBOX.>"]}}}}' for user in users)
    top = f"authorization {{ users: [{listed}] }}"
    return tls_config(authority.server(), ca=authority.file, verify_and_map=True, top=top)


@pytest.mark.parametrize(
    "user, subject",
    [
        ("ada@example.org", {"email": "ada@example.org", "CN": "Ada"}),
        ("CN=ada,OU=engines,O=natsync", {"CN": "ada", "OU": "engines", "O": "natsync"}),
    ],
    ids=["email", "dn"],
)
def test_the_user_is_who_the_certificate_says(
    user: str, subject: dict[str, Any], authority: Authority, connect: Connect
) -> None:
    mine = authority.client(**subject)
    denied = Recorder()
    with NatsServer(mapped(authority, "somebody@example.org", user)) as server:
        options: dict[str, Any] = {"tls_ca": authority.file, "tls_cert": mine.cert, "tls_key": mine.key}
        client = connect(server.url, error_cb=denied, **options)
        sub = client.subscribe("mine.own")
        client.publish("mine.own", b"allowed")
        client.publish("yours", b"denied")
        assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"allowed"
        denied.wait_for(1)
        (connection,) = server.monitor("connz?auth=1")["connections"]
        assert connection["authorized_user"] == user


def test_a_certificate_of_nobody(authority: Authority, connect: Connect) -> None:
    mine = authority.client(email="eve@example.org")
    with NatsServer(mapped(authority, "ada@example.org")) as server, pytest.raises(AuthorizationError):
        connect(server.url, tls_ca=authority.file, tls_cert=mine.cert, tls_key=mine.key)


def test_with_password_and_certificate(authority: Authority, connect: Connect) -> None:
    mine = authority.client()
    top = 'authorization { user: "ada", password: "s3cret" }'
    options: dict[str, Any] = {"tls_ca": authority.file, "tls_cert": mine.cert, "tls_key": mine.key}
    with NatsServer(tls_config(authority.server(), ca=authority.file, verify=True, top=top)) as server:
        use(connect(server.url, user="ada", password="s3cret", **options))
        with pytest.raises(AuthorizationError):
            connect(server.url, user="ada", password="guess", **options)


# The key


def test_an_encrypted_key(strict: str, authority: Authority, connect: Connect) -> None:
    mine = authority.client()
    key = mine.encrypt_key("0pen sesäme")
    with NatsServer(strict) as server:
        client = connect(
            server.url,
            tls_ca=authority.file,
            tls_cert=mine.cert,
            tls_key=key,
            tls_key_password="0pen sesäme",
            **FAST,
        )
        use(client)
        server.restart()
        eventually(lambda: client.stats.reconnects == 1)
        use(client)


# Renewed on disk


def test_the_clients_certificate_is_renewed(authority: Authority, tmp_path: Path, connect: Connect) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    mine = old.client(CN="before")
    with NatsServer(tls_config(authority.server(), ca=old.file, verify=True)) as server:
        client = connect(server.url, tls_ca=authority.file, tls_cert=mine.cert, tls_key=mine.key, **FAST)
        mine.replace_with(new.client(CN="after"))
        server.reload(tls_config(authority.server(), ca=new.file, verify=True))
        client.force_reconnect()
        eventually(lambda: client.stats.reconnects == 1)
        use(client)
        (connection,) = server.monitor("connz?auth=1")["connections"]
        assert "after" in str(connection["tls_peer_certs"])


def test_the_servers_authority_is_renewed(tmp_path: Path, connect: Connect) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    made = old.server()
    with NatsServer(tls_config(made)) as server:
        client = connect(server.url, tls_ca=old.file, **FAST)
        old.renew(new)
        made.replace_with(new.server())
        server.restart()
        eventually(lambda: client.stats.reconnects == 1)
        use(client)


def test_the_servers_certificate_is_renewed_by_reload(authority: Authority, connect: Connect) -> None:
    made = authority.server("localhost", "127.0.0.1", "before.example")
    with NatsServer(tls_config(made)) as server:
        options: dict[str, Any] = {"tls_ca": authority.file, **FAST}
        stays = connect(server.url, **options)
        goes = connect(server.url, **options)
        made.replace_with(authority.server("localhost", "127.0.0.1", "after.example"))
        server.reload()
        goes.force_reconnect()
        eventually(lambda: goes.stats.reconnects == 1)
        use(goes)
        use(stays)
        assert stays.stats.reconnects == 0
        use(connect(server.url, tls_hostname="after.example", **options))


def test_a_file_that_is_away_when_it_is_needed(strict: str, authority: Authority, connect: Connect) -> None:
    """Renewing is no single step: what is not there, or does not match, is a failed attempt, and the next one is."""
    mine, other = authority.client(), authority.client()
    failed = Recorder()
    with NatsServer(strict) as server:
        options: dict[str, Any] = {"tls_ca": authority.file, "tls_cert": mine.cert, "tls_key": mine.key}
        client = connect(server.url, reconnect_error_cb=failed, **options, **FAST)
        key = mine.key.read_bytes()
        mine.key.unlink()
        client.force_reconnect()
        failed.wait_for(1)
        assert isinstance(failed.items[0].error, ConfigError)
        assert failed.items[0].error.option == "tls_key"
        mine.key.write_bytes(other.key.read_bytes())
        failed.wait_for(len(failed) + 2)
        assert isinstance(failed.items[-1].error, ConfigError)
        mine.key.write_bytes(key)
        eventually(lambda: client.is_connected)
        use(client)
