"""Connecting over TLS to real servers: who is trusted, by what name, and what a refusal says."""

from __future__ import annotations

import os
import pickle
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from natsync import NatsConnectionError, NatsError, NatsTimeoutError, NoServersError, TLSError
from natsync.testing import NatsCluster, NatsServer
from tests.support.certificates import (
    EXPIRED,
    NOT_YET_VALID,
    Authority,
    self_signed,
    server_context,
    start_tls,
    tls_config,
)
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from natsync import Client
    from tests.support.scripted import Conn, ScriptedServer

    Connect = Callable[..., Client]
    Scripted = Callable[..., ScriptedServer]

pytestmark = pytest.mark.tls

FAST: dict[str, Any] = {"reconnect_time_wait": 0.05, "reconnect_jitter_tls": 0.0, "reconnect_jitter": 0.0}


def by_name(server: NatsServer, scheme: str = "tls") -> str:
    return f"{scheme}://localhost:{server.port}"


def use(client: Client) -> None:
    sub = client.subscribe("used")
    client.publish("used", b"over TLS", headers={"h": "v"})
    assert sub.next_msg(timeout=5.0 * TIME_FACTOR).data == b"over TLS"


def refused(connect: Connect, servers: str | list[str], **options: Any) -> TLSError:
    """Connect in vain, and check what every TLSError has: one sentence, the server, the cause; it can be pickled."""
    with pytest.raises(TLSError) as caught:
        connect(servers, **options)
    error = caught.value
    assert "\n" not in str(error)
    assert error.server is not None
    assert error.server in str(error)
    assert error.server in error.errors
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return error


# Trust


@pytest.mark.parametrize("scheme", ["tls", "nats", ""])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_of_a_known_authority(scheme: str, host: str, authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server())) as server:
        url = f"{scheme}://{host}:{server.port}" if scheme else f"{host}:{server.port}"
        client = connect(url, tls_ca=authority.file)
        use(client)
        assert client.connected_url == (url if scheme else f"nats://{url}")
        assert client.server_info is not None
        assert client.server_info.tls_required


@pytest.mark.parametrize("depth", [1, 2])
def test_a_chain_of_authorities(depth: int, authority: Authority, tmp_path: Path, connect: Connect) -> None:
    issuer = authority
    for number in range(depth):
        issuer = Authority(tmp_path, f"intermediate {number}", issuer)
    with NatsServer(tls_config(issuer.server())) as server:
        use(connect(server.url, tls_ca=authority.file))


def test_several_authorities_in_one_file(authority: Authority, tmp_path: Path, connect: Connect) -> None:
    other = Authority(tmp_path, "other")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# two of them\n" + other.file.read_bytes() + authority.file.read_bytes())
    with NatsServer(tls_config(authority.server())) as server:
        use(connect(server.url, tls_ca=bundle))


def test_tls_ca_replaces_the_systems_authorities(
    authority: Authority, tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with NatsServer(tls_config(authority.server())) as server:
        refused(connect, server.url, tls_ca=Authority(tmp_path, "other").file)


def test_an_unknown_authority(authority: Authority, tmp_path: Path, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server())) as server:
        error = refused(connect, by_name(server), tls_ca=Authority(tmp_path, "other").file)
        assert "tls_ca" in str(error)
        assert "authority" in str(error)
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        refused(connect, by_name(server))
        refused(connect, server.url, tls=True)


def test_a_missing_intermediate(authority: Authority, tmp_path: Path, connect: Connect) -> None:
    made = Authority(tmp_path, "intermediate", authority).server()
    leaf_only = made.cert.read_bytes().split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
    made.cert.write_bytes(leaf_only)
    with NatsServer(tls_config(made)) as server:
        assert "authority" in str(refused(connect, server.url, tls_ca=authority.file))


def test_a_self_signed_server(tmp_path: Path, authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(self_signed(tmp_path))) as server:
        error = refused(connect, by_name(server), tls_ca=authority.file)
        assert "self-signed" in str(error)
        assert "tls_ca" in str(error)


def test_a_self_signed_server_that_is_trusted(tmp_path: Path, connect: Connect) -> None:
    made = self_signed(tmp_path)
    with NatsServer(tls_config(made)) as server:
        use(connect(by_name(server), tls_ca=made.cert))


def test_an_unknown_root_at_the_end_of_the_servers_chain(
    authority: Authority, tmp_path: Path, connect: Connect
) -> None:
    made = authority.server()
    made.cert.write_bytes(made.cert.read_bytes() + authority.file.read_bytes())
    with NatsServer(tls_config(made)) as server:
        error = refused(connect, by_name(server), tls_ca=Authority(tmp_path, "other").file)
        assert "tls_ca" in str(error)


def test_an_expired_certificate(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(days=EXPIRED))) as server:
        assert "expired" in str(refused(connect, by_name(server), tls_ca=authority.file))


def test_a_certificate_that_is_not_yet_valid(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(days=NOT_YET_VALID))) as server:
        error = refused(connect, by_name(server), tls_ca=authority.file)
        assert "not yet valid" in str(error)
        assert "clock" in str(error)


def test_a_clients_certificate_is_no_servers(authority: Authority, connect: Connect) -> None:
    made = authority.server(purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
    with NatsServer(tls_config(made)) as server:
        assert "purpose" in str(refused(connect, by_name(server), tls_ca=authority.file))


# The system's trust


USE_SYSTEM_TRUST = """
import sys, natsync
with natsync.connect(sys.argv[1]) as client:
    sub = client.subscribe("a")
    client.publish("a", b"works")
    print(sub.next_msg(timeout=5).data.decode())
"""


@pytest.mark.parametrize("scheme", ["nats", "tls"])
def test_the_systems_trust_store(scheme: str, authority: Authority, tmp_path: Path) -> None:
    """With no option at all, a server that requires TLS gets it, verified by what the system trusts."""
    with NatsServer(tls_config(authority.server())) as server:

        def run(trusted: Path) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", USE_SYSTEM_TRUST, by_name(server, scheme)]
            environ = os.environ | {"SSL_CERT_FILE": str(trusted), "SSL_CERT_DIR": str(tmp_path / "none")}
            return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20 * TIME_FACTOR)

        good, bad = run(authority.file), run(Authority(tmp_path, "other").file)
    assert (good.returncode, good.stdout) == (0, "works\n"), good.stderr
    assert bad.returncode == 1
    assert "TLSError" in bad.stderr.splitlines()[-1]


def test_an_upgrade_that_nobody_asked_for_is_verified(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server())) as server:
        error = refused(connect, server.url)
        assert "tls_ca" in str(error)


# Names


def test_a_wrong_host_name(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server("nats.example", "127.0.0.1"))) as server:
        error = refused(connect, by_name(server), tls_ca=authority.file)
        assert "localhost" in str(error)
        assert "tls_hostname" in str(error)


def test_a_wrong_address(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server("localhost", "10.0.0.1"))) as server:
        error = refused(connect, server.url, tls_ca=authority.file)
        assert "127.0.0.1" in str(error)
        assert "tls_hostname" in str(error)


def test_a_name_that_looks_like_the_address(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server("localhost"))) as server:
        refused(connect, server.url, tls_ca=authority.file, tls_hostname="127.0.0.1")


def test_tls_hostname_stands_in_for_the_urls(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server("nats.example"))) as server:
        for url in (server.url, by_name(server)):
            use(connect(url, tls_ca=authority.file, tls_hostname="nats.example"))
            error = refused(connect, url, tls_ca=authority.file, tls_hostname="other.example")
            assert "other.example" in str(error)


def test_tls_hostname_may_be_an_address(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server("10.0.0.7"))) as server:
        use(connect(server.url, tls_ca=authority.file, tls_hostname="10.0.0.7"))


def test_tls_hostname_applies_to_a_context_too(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server("nats.example"))) as server:
        context = ssl.create_default_context(cafile=authority.file)
        use(connect(server.url, tls=context, tls_hostname="nats.example"))
        refused(connect, server.url, tls=context)


@pytest.mark.parametrize(
    "pattern, matches",
    [("*.nats.example", True), ("*.example", False), ("*.other.example", False), ("on*.nats.example", False)],
)
def test_wildcards(pattern: str, matches: bool, authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(pattern))) as server:
        options: dict[str, Any] = {"tls_ca": authority.file, "tls_hostname": "one.nats.example"}
        if matches:
            use(connect(server.url, **options))
        else:
            refused(connect, server.url, **options)


@pytest.mark.parametrize(
    "host, hostname, sent",
    [("localhost", None, "localhost"), ("127.0.0.1", "nats.example", "nats.example"), ("127.0.0.1", None, None)],
)
def test_the_name_in_the_hello(
    host: str, hostname: str | None, sent: str | None, authority: Authority, connect: Connect, scripted: Scripted
) -> None:
    named = Recorder()
    context = server_context(authority.server("localhost", "127.0.0.1", "nats.example"))
    context.sni_callback = lambda _sock, name, _context: named([name])

    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True)
        start_tls(conn, context)
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(b"PONG\r\n")
        conn.serve()

    options: dict[str, Any] = {} if hostname is None else {"tls_hostname": hostname}
    connect(f"tls://{host}:{scripted(script).port}", tls_ca=authority.file, **options).close()
    assert named.items == [[sent]]


# Who wants TLS, and who offers it


def test_a_server_that_offers_tls_is_plain_unless_asked(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(), top="allow_non_tls: true")) as server:
        plain = connect(server.url)
        encrypted = connect(server.url, tls_ca=authority.file)
        use(plain)
        use(encrypted)
        versions = {each["cid"]: each.get("tls_version", "") for each in server.connz()["connections"]}
        assert versions == {plain.client_id: "", encrypted.client_id: "1.3"}
        refused(connect, by_name(server))


def test_a_server_that_offers_none(nats_server: NatsServer, connect: Connect) -> None:
    error = refused(connect, f"tls://127.0.0.1:{nats_server.port}")
    assert "offers none" in str(error)


def test_a_walk_goes_on_after_a_server_that_fails(authority: Authority, tmp_path: Path, connect: Connect) -> None:
    bad, good = Authority(tmp_path, "other").server(), authority.server()
    with NatsServer(tls_config(bad)) as one, NatsServer(tls_config(good)) as two:
        client = connect([one.url, two.url], dont_randomize=True, tls_ca=authority.file)
        assert client.connected_url == two.url
        use(client)


def test_tls_is_the_cause_that_a_walk_reports(
    authority: Authority, tmp_path: Path, connect: Connect, scripted: Scripted
) -> None:
    bad = Authority(tmp_path, "other").server()
    nobody = scripted([]).url
    with NatsServer(tls_config(bad)) as one:
        error = refused(connect, [one.url, nobody], dont_randomize=True, tls_ca=authority.file)
        assert list(error.errors) == [one.url, nobody]
        assert isinstance(error.errors[nobody], NoServersError)


# Handshake first


@pytest.mark.parametrize("setting", [True, "300ms", "auto"])
def test_handshake_first(setting: object, authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(), handshake_first=setting)) as server:
        client = connect(server.url, tls_ca=authority.file, tls_handshake_first=True, **FAST)
        use(client)
        server.restart()
        eventually(lambda: client.stats.reconnects == 1)
        use(client)


@pytest.mark.parametrize("setting", ["300ms", "auto"])
def test_a_client_that_waits_for_info_is_served_too(setting: str, authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(), handshake_first=setting)) as server:
        use(connect(server.url, tls_ca=authority.file))


def test_a_client_that_waits_for_info_in_vain(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(), handshake_first=True)) as server:
        with pytest.raises(NatsError) as caught:
            connect(server.url, tls_ca=authority.file, connect_timeout=0.5)
        assert isinstance(caught.value, (NatsTimeoutError, TLSError, NatsConnectionError))
        assert "tls_handshake_first" in str(caught.value)


@pytest.mark.parametrize("requires", [True, False])
def test_a_server_that_speaks_first(requires: bool, authority: Authority, connect: Connect) -> None:
    config = tls_config(authority.server()) if requires else ""
    with NatsServer(config) as server:
        error = refused(connect, server.url, tls_ca=authority.file, tls_handshake_first=True)
        assert "tls_handshake_first" in str(error)


def test_handshake_first_is_verified(authority: Authority, tmp_path: Path, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(), handshake_first=True)) as server:
        error = refused(connect, server.url, tls_ca=Authority(tmp_path).file, tls_handshake_first=True)
        assert "authority" in str(error)


# Versions


def tls_version(server: NatsServer) -> str:
    (connection,) = server.connz()["connections"]
    return str(connection["tls_version"])


def test_1_3_by_default(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server())) as server:
        use(connect(server.url, tls_ca=authority.file))
        assert tls_version(server) == "1.3"


def test_a_server_of_1_3_only(authority: Authority, connect: Connect) -> None:
    with NatsServer(tls_config(authority.server(), min_version="1.3")) as server:
        use(connect(server.url, tls_ca=authority.file))
        context = ssl.create_default_context(cafile=authority.file)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        error = refused(connect, server.url, tls=context)
        assert "version" in str(error)


def test_a_client_of_1_2_only(authority: Authority, connect: Connect) -> None:
    context = ssl.create_default_context(cafile=authority.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with NatsServer(tls_config(authority.server())) as server:
        use(connect(server.url, tls=context))
        assert tls_version(server) == "1.2"


def test_a_server_of_1_2_only(authority: Authority, connect: Connect, scripted: Scripted) -> None:
    context = server_context(authority.server())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    versions = Recorder()

    def script(conn: Conn) -> None:
        conn.send_info(tls_required=True)
        versions(start_tls(conn, context).version())
        conn.expect(b"CONNECT ")
        conn.expect(b"PING")
        conn.send(b"PONG\r\n")
        conn.serve()

    client = connect(scripted(script).url, tls_ca=authority.file)
    client.flush()
    assert versions.items == ["TLSv1.2"]


# A cluster


def is_known(client: Client, server: NatsServer) -> bool:
    """Whether the cluster has told the client of that server."""
    return any(url.endswith(f":{server.port}") for url in client.discovered_servers)


@pytest.mark.cluster
def test_members_told_by_address_are_verified_by_the_configured_name(authority: Authority, connect: Connect) -> None:
    failed = Recorder()
    with NatsCluster(3, config=tls_config(authority.server("localhost"))) as cluster:
        first = cluster.servers[0]
        client = connect(by_name(first), tls_ca=authority.file, reconnect_error_cb=failed, **FAST)
        others = {f"127.0.0.1:{server.port}" for server in cluster.servers[1:]}
        eventually(lambda: all(is_known(client, server) for server in cluster.servers[1:]))
        first.kill()
        eventually(lambda: client.stats.reconnects == 1, 10.0)
        use(client)
        assert client.connected_url is not None
        assert client.connected_url.split("://")[1] in others
        # One more, from a server that is known by its address only: the name is handed on.
        second = next(server for server in cluster.servers if client.connected_url.endswith(f":{server.port}"))
        second.kill()
        eventually(lambda: client.stats.reconnects == 2, 10.0)
        use(client)
    assert not [event for event in failed.items if isinstance(event.error, TLSError)]


@pytest.mark.cluster
def test_members_are_verified_by_tls_hostname(authority: Authority, connect: Connect) -> None:
    with NatsCluster(2, config=tls_config(authority.server("nats.example"))) as cluster:
        first, second = cluster.servers
        client = connect(first.url, tls_ca=authority.file, tls_hostname="nats.example", **FAST)
        eventually(lambda: is_known(client, second))
        first.kill()
        eventually(lambda: client.stats.reconnects == 1, 10.0)
        use(client)


@pytest.mark.cluster
def test_members_told_by_address_that_have_another_certificate(
    authority: Authority, tmp_path: Path, connect: Connect
) -> None:
    """Whoever answers at a discovered address must be the configured name all the same."""
    failed = Recorder()
    made = authority.server("localhost")
    with NatsCluster(2, config=tls_config(made)) as cluster:
        first, second = cluster.servers
        client = connect(by_name(first), tls_ca=authority.file, reconnect_error_cb=failed, **FAST)
        eventually(lambda: is_known(client, second))
        made.replace_with(authority.server("impostor.example", "127.0.0.1"))
        second.kill()
        eventually(lambda: not is_known(client, second))
        second.start()
        eventually(lambda: is_known(client, second), 10.0)
        first.kill()
        eventually(lambda: any(isinstance(event.error, TLSError) for event in failed.items))
        never(lambda: client.is_connected, 0.3)
        client.close()
