"""What the TLS options take and refuse before a byte is sent: contradictions, files, passwords, contexts."""

from __future__ import annotations

import logging
import os
import select
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from natsync import ConfigError, TLSError
from natsync.testing import NatsServer
from tests.support.certificates import (
    EXPIRED,
    Authority,
    Certificate,
    self_signed,
    server_context,
    start_tls,
    tls_config,
)
from tests.support.nobody import as_nobody
from tests.support.waiting import TIME_FACTOR, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from natsync import Client
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

pytestmark = pytest.mark.tls

FAST: dict[str, Any] = {"reconnect_time_wait": 0.05, "reconnect_jitter_tls": 0.0, "reconnect_jitter": 0.0}


@pytest.fixture
def made(authority: Authority) -> Certificate:
    return authority.server()


@pytest.fixture
def untouched(scripted: Scripted) -> Iterator[ScriptedServer]:
    """A server that nobody may dial."""
    server = scripted(lambda conn: conn.wait_eof())
    yield server
    assert server.accepted == 0, "somebody dialled before the options were checked"


def refused(connect: Connect, servers: str | list[str], **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        connect(servers, **options)
    text = str(caught.value)
    assert "\n" not in text
    return caught.value


# Contradictions


@pytest.mark.parametrize(
    "option",
    [
        {"tls_ca": "ca.pem"},
        {"tls_cert": "cert.pem"},
        {"tls_cert": "cert.pem", "tls_key": "key.pem"},
        {"tls_hostname": "localhost"},
        {"tls_handshake_first": True},
        {"tls_verify": False},
    ],
    ids=lambda option: "+".join(option),
)
def test_no_tls_contradicts_every_other_option(
    option: dict[str, Any], connect: Connect, untouched: ScriptedServer
) -> None:
    error = refused(connect, untouched.url, tls=False, **option)
    assert error.option in {"tls", *option}
    assert "tls=False" in str(error)


def test_no_tls_contradicts_a_tls_url(connect: Connect, untouched: ScriptedServer) -> None:
    error = refused(connect, ["nats://unused.example", untouched.url.replace("nats://", "tls://")], tls=False)
    assert error.option in {"tls", "servers"}
    assert "tls://" in str(error)


@pytest.mark.parametrize("option", ["tls_ca", "tls_cert"])
def test_a_context_contradicts_files(
    option: str, connect: Connect, untouched: ScriptedServer, made: Certificate
) -> None:
    error = refused(connect, untouched.url, tls=ssl.create_default_context(), **{option: made.combined()})
    assert error.option in {"tls", option}
    assert option in str(error)


def test_a_context_contradicts_tls_verify(connect: Connect, untouched: ScriptedServer) -> None:
    error = refused(connect, untouched.url, tls=ssl.create_default_context(), tls_verify=False)
    assert error.option in {"tls", "tls_verify"}
    assert "tls_verify" in str(error)


def test_a_factory_contradicts_files(connect: Connect, untouched: ScriptedServer, authority: Authority) -> None:
    error = refused(connect, untouched.url, tls=ssl.create_default_context, tls_ca=authority.file)
    assert error.option in {"tls", "tls_ca"}


def test_a_key_without_a_certificate(connect: Connect, untouched: ScriptedServer, made: Certificate) -> None:
    error = refused(connect, untouched.url, tls_key=made.key)
    assert error.option in {"tls_key", "tls_cert"}
    assert "tls_cert" in str(error)


def test_a_password_without_a_certificate(connect: Connect, untouched: ScriptedServer) -> None:
    error = refused(connect, untouched.url, tls_key_password="s3cret")
    assert error.option in {"tls_key_password", "tls_cert"}
    assert "s3cret" not in str(error)


def test_a_servers_context(connect: Connect, untouched: ScriptedServer, made: Certificate) -> None:
    error = refused(connect, untouched.url, tls=server_context(made))
    assert error.option == "tls"
    assert "for servers" in str(error)


@pytest.mark.parametrize(
    "option, value",
    [
        ("tls", "yes"),
        ("tls", 1),
        ("tls_ca", 7),
        ("tls_ca", ""),
        ("tls_ca", b"ca.pem"),
        ("tls_cert", ["cert.pem", "key.pem"]),
        ("tls_key_password", 1),
        ("tls_key_password", lambda: "s3cret"),
        ("tls_hostname", ""),
        ("tls_hostname", True),
        ("tls_handshake_first", "auto"),
        ("tls_handshake_first", 1),
        ("tls_verify", None),
        ("tls_verify", "no"),
    ],
)
def test_ill_typed(option: str, value: object, connect: Connect, untouched: ScriptedServer) -> None:
    assert refused(connect, untouched.url, **{option: value}).option == option


# Files


@pytest.mark.parametrize("option", ["tls_ca", "tls_cert", "tls_key"])
@pytest.mark.parametrize("damage", ["missing", "garbled", "empty", "a folder", "cut off"])
def test_a_file_that_cannot_be_used(
    damage: str, option: str, connect: Connect, untouched: ScriptedServer, made: Certificate, tmp_path: Path
) -> None:
    if damage == "a folder" and option == "tls_ca":
        damage = "missing"  # a folder of authorities, as OpenSSL makes them, may be given
    bad = tmp_path / f"bad-{option}.pem"
    whole = made.key.read_bytes() if option == "tls_key" else made.cert.read_bytes()
    content = {"garbled": b"-----BEGIN NOTHING-----\n\xff\xfe\n", "empty": b"", "cut off": whole[:100]}
    if damage == "a folder":
        bad.mkdir()
    elif damage != "missing":
        bad.write_bytes(content.get(damage, whole))
    files: dict[str, Any] = {} if option == "tls_ca" else {"tls_cert": made.cert, "tls_key": made.key}
    error = refused(connect, untouched.url, **files | {option: bad})
    assert error.option == option
    assert str(bad) in str(error)
    if damage in {"missing", "a folder"}:
        assert isinstance(error.__cause__, OSError)


@pytest.mark.skipif(os.name != "posix", reason="files have other permissions there")
@pytest.mark.parametrize("option", ["tls_ca", "tls_cert", "tls_key"])
def test_a_file_that_is_not_ours(
    option: str,
    connect: Connect,
    untouched: ScriptedServer,
    made: Certificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.pem"
    bad.write_bytes(made.combined().read_bytes())
    bad.chmod(0)
    files: dict[str, Any] = {} if option == "tls_ca" else {"tls_cert": made.cert.name, "tls_key": made.key.name}
    with as_nobody(tmp_path):
        error = refused(connect, untouched.url, **files | {option: "bad.pem"})
    assert error.option == option
    assert "bad.pem" in str(error)
    assert isinstance(error.__cause__, PermissionError)


def test_a_path_may_be_text_or_a_path(
    connect: Connect, authority: Authority, made: Certificate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NATSYNC_CERTS", str(tmp_path))
    with NatsServer(tls_config(made)) as server:
        name = authority.file.name
        for path in (authority.file, str(authority.file), f"~/{name}", f"$NATSYNC_CERTS/{name}"):
            connect(server.url, tls_ca=path).flush()


def test_a_key_of_another_certificate(
    connect: Connect, untouched: ScriptedServer, authority: Authority, made: Certificate
) -> None:
    other = authority.client()
    error = refused(connect, untouched.url, tls_cert=made.cert, tls_key=other.key)
    assert error.option in {"tls_key", "tls_cert"}
    assert str(other.key) in str(error)
    assert "match" in str(error) or "belong" in str(error)


def test_a_certificates_file_without_the_key(connect: Connect, untouched: ScriptedServer, made: Certificate) -> None:
    error = refused(connect, untouched.url, tls_cert=made.cert)
    assert error.option in {"tls_cert", "tls_key"}
    assert str(made.cert) in str(error)
    assert "tls_key" in str(error)


@pytest.mark.parametrize(
    "password",
    [None, "wrong-one", "w" * 2000, "wrong\ud800one"],
    ids=["none", "wrong", "too long", "half a character"],
)
def test_an_encrypted_key_without_its_password(
    password: str | None, connect: Connect, untouched: ScriptedServer, made: Certificate
) -> None:
    key = made.encrypt_key("s3cret")
    error = refused(connect, untouched.url, tls_cert=made.cert, tls_key=key, tls_key_password=password)
    assert error.option == "tls_key_password"
    assert str(key) in str(error)
    assert password is None or (error.__cause__, error.__context__) == (None, None)


AT_A_TERMINAL = """
import fcntl, os, sys, termios
terminal, url, cert, key = int(sys.argv[1]), *sys.argv[2:]
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
os.close(os.open("/dev/tty", os.O_RDWR))  # this is what OpenSSL asks
import natsync
try:
    natsync.connect(url, tls_cert=cert, tls_key=key)
except natsync.ConfigError as error:
    print(error.option)
"""


@pytest.mark.skipif(os.name != "posix", reason="no such terminals on this system")
def test_nobody_is_asked_for_a_password(made: Certificate, untouched: ScriptedServer) -> None:
    """A service that waits at a terminal which nobody watches would never start, nor reconnect."""
    import pty

    ours, theirs = pty.openpty()
    try:
        answer = subprocess.run(
            [sys.executable, "-c", AT_A_TERMINAL, str(theirs), untouched.url, made.cert, made.encrypt_key("s3cret")],
            pass_fds=[theirs],
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=20 * TIME_FACTOR,
        )
        assert (answer.stdout, answer.stderr) == ("tls_key_password\n", "")
        assert not select.select([ours], [], [], 0)[0], os.read(ours, 1000)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_password_is_in_no_text(connect: Connect, made: Certificate, authority: Authority) -> None:
    key = made.encrypt_key("0pen-sesame")
    with NatsServer(tls_config(made)) as server:
        client = connect(
            server.url, tls_ca=authority.file, tls_cert=made.cert, tls_key=key, tls_key_password="0pen-sesame"
        )
        assert "0pen-sesame" not in repr(client)
        assert "0pen-sesame" not in repr(client._options)


# Contexts and factories


def test_a_context_of_the_users(connect: Connect, authority: Authority, made: Certificate) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    with NatsServer(tls_config(made)) as server:
        connect(server.url, tls=context).flush()
        with pytest.raises(TLSError):
            connect(server.url, tls=ssl.create_default_context())


def test_a_context_is_left_as_it_was(connect: Connect, authority: Authority, made: Certificate) -> None:
    context = ssl.create_default_context(cafile=authority.file)

    def state() -> tuple[object, ...]:
        return context.check_hostname, context.verify_mode, context.minimum_version, context.maximum_version

    before = state()
    with NatsServer(tls_config(made)) as server:
        connect(server.url, tls=context, tls_hostname="localhost").flush()
    assert state() == before


def test_a_context_that_does_not_verify_is_the_users_wish(connect: Connect, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with NatsServer(tls_config(self_signed(tmp_path, "elsewhere"))) as server:
        connect(server.url, tls=context).flush()


def test_a_factory_is_asked_at_each_connect(connect: Connect, authority: Authority, made: Certificate) -> None:
    asked = Recorder()

    def factory() -> ssl.SSLContext:
        asked("asked")
        return ssl.create_default_context(cafile=authority.file)

    with NatsServer(tls_config(made)) as server:
        client = connect(server.url, tls=factory, **FAST)
        first = len(asked)
        assert first >= 1
        for number in range(1, 4):
            server.restart()
            eventually(lambda number=number: client.stats.reconnects == number)  # type: ignore[misc]
            assert len(asked) >= first + number


def raises() -> ssl.SSLContext:
    raise OSError("the vault is sealed")


def of_a_server() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


@pytest.mark.parametrize("factory", [raises, of_a_server, lambda: None, lambda: "context", lambda: ssl.SSLContext])
def test_a_factory_that_makes_nonsense(
    factory: Callable[[], Any], connect: Connect, made: Certificate, nats_server: NatsServer
) -> None:
    with NatsServer(tls_config(made)) as server:
        error = refused(connect, server.url, tls=factory)
        assert error.option == "tls"
        if factory is raises:
            assert isinstance(error.__cause__, OSError)


def test_a_factory_that_fails_at_a_reconnect_is_asked_again(
    connect: Connect, authority: Authority, made: Certificate
) -> None:
    failed, good = Recorder(), Recorder()
    is_sealed = False

    def factory() -> ssl.SSLContext:
        if is_sealed:
            raise OSError("the vault is sealed")
        good("asked")
        return ssl.create_default_context(cafile=authority.file)

    with NatsServer(tls_config(made)) as server:
        client = connect(server.url, tls=factory, reconnect_error_cb=failed, **FAST)
        is_sealed = True
        server.restart()
        failed.wait_for(2)
        assert isinstance(failed.items[-1].error, ConfigError)
        is_sealed = False
        eventually(lambda: client.is_connected)
        client.flush()


# tls_verify=False


@pytest.mark.parametrize("kind", ["unknown authority", "wrong name", "expired", "self-signed"])
def test_unverified_takes_anything_and_says_so(
    kind: str, connect: Connect, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = {
        "unknown authority": authority.server(),
        "wrong name": authority.server("elsewhere"),
        "expired": authority.server(days=EXPIRED),
        "self-signed": self_signed(tmp_path),
    }[kind]
    with NatsServer(tls_config(made)) as server, caplog.at_level(logging.WARNING, "natsync"):
        client = connect(server.url, tls_verify=False)
        client.subscribe("a", cb=lambda msg: msg.respond(msg.data))
        assert client.request("a", b"checked by nobody").data == b"checked by nobody"
        assert "tls_verify=False" in repr(client) or "unverified" in repr(client)
        client.close()
    (record,) = caplog.records
    assert record.name.startswith("natsync")
    assert record.levelno == logging.WARNING
    assert "tls_verify" in record.getMessage()


def test_verified_says_nothing(
    connect: Connect, authority: Authority, made: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsServer(tls_config(made)) as server, caplog.at_level(logging.WARNING, "natsync"):
        client = connect(server.url, tls_ca=authority.file)
        assert "tls_verify=False" not in repr(client)
        assert "unverified" not in repr(client)
        client.close()
    assert caplog.records == []


def test_unverified_shows_the_clients_certificate_all_the_same(connect: Connect, authority: Authority) -> None:
    mine = authority.client()
    with NatsServer(tls_config(authority.server("elsewhere"), ca=authority.file, verify=True)) as server:
        connect(server.url, tls_verify=False, tls_cert=mine.cert, tls_key=mine.key).flush()


# Each of the options means TLS


@pytest.mark.parametrize(
    "option", ["url", "tls=True", "context", "factory", "tls_ca", "tls_cert", "tls_hostname", "first", "unverified"]
)
def test_each_option_means_tls_for_the_whole_pool(
    option: str, connect: Connect, scripted: Scripted, authority: Authority
) -> None:
    """The server offers none: nothing is sent to it in plain, not even CONNECT."""
    heard = Recorder()

    def plain(conn: Conn) -> None:
        conn.send_info()
        heard(conn.wait_eof())

    mine = authority.client()
    server = scripted(plain)
    options: dict[str, dict[str, Any]] = {
        "url": {},
        "tls=True": {"tls": True},
        "context": {"tls": ssl.create_default_context()},
        "factory": {"tls": ssl.create_default_context},
        "tls_ca": {"tls_ca": authority.file},
        "tls_cert": {"tls_cert": mine.cert, "tls_key": mine.key},
        "tls_hostname": {"tls_hostname": "localhost"},
        "first": {"tls_handshake_first": True},
        "unverified": {"tls_verify": False},
    }
    servers = [f"nats://user:pa55@127.0.0.1:{server.port}"]
    if option == "url":
        servers.append(scripted([]).url.replace("nats://", "tls://"))
    with pytest.raises(TLSError) as caught:
        connect(servers, dont_randomize=True, connect_timeout=2.0 * TIME_FACTOR, **options[option])
    assert "pa55" not in str(caught.value)
    (said,) = heard.wait_for(1)
    assert b"CONNECT" not in said
    assert b"pa55" not in said
    if option == "first":
        assert said[:1] == b"\x16", "a ClientHello"
    else:
        assert said == b""
        assert "offers none" in str(caught.value)


@pytest.mark.parametrize("schemes", [("nats", "tls"), ("tls", "nats"), ("", "tls")])
def test_one_server_by_two_urls_is_encrypted(schemes: tuple[str, str], connect: Connect, scripted: Scripted) -> None:
    """Equal addresses are kept once; that one of them asks for TLS is not forgotten with the other."""
    heard = Recorder()

    def plain(conn: Conn) -> None:
        conn.send_info()
        heard(conn.wait_eof())

    address = f"127.0.0.1:{scripted(plain).port}"
    with pytest.raises(TLSError):
        connect([f"{scheme}://{address}" if scheme else address for scheme in schemes])
    assert heard.wait_for(1) == [b""]


def test_a_new_pool_may_bring_tls(
    connect: Connect, authority: Authority, made: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with NatsServer(tls_config(made, top="allow_non_tls: true")) as server:
        client = connect(server.url, **FAST)
        assert "tls_version" not in server.connz()["connections"][0]
        client.set_server_pool([f"tls://localhost:{server.port}"])
        client.force_reconnect()
        eventually(lambda: client.stats.reconnects == 1)
        client.flush()
        (connection,) = server.connz()["connections"]
        assert connection["tls_version"] == "1.3"


def test_a_new_pool_may_not_bring_tls_to_who_wants_none(connect: Connect, nats_server: NatsServer) -> None:
    client = connect(nats_server.url, tls=False)
    with pytest.raises(ConfigError, match="tls://"):
        client.set_server_pool([f"tls://localhost:{nats_server.port}"])
    client.flush()


def test_connect_says_that_tls_is_required(connect: Connect, scripted: Scripted, authority: Authority) -> None:
    context = server_context(authority.server())

    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True)
        start_tls(conn, context)
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(b"PONG\r\n")
        conn.serve()

    server = scripted(script)
    connect(server.url, tls_ca=authority.file).close()
    assert server.connects[0]["tls_required"] is True
