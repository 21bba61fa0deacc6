"""Where the commands connect and as whom: options, variables and contexts, against servers that ask for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from natsync.testing import NatsServer
from tests.support.certificates import Authority, tls_config
from tests.support.operator import Key, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.cli.command import Ended, Natsync

SECRET = "hush-hush"


@pytest.fixture(scope="module")
def guarded() -> Iterator[NatsServer]:
    """A server that asks for a user and a password."""
    with NatsServer(f"authorization {{ user: joe, password: {SECRET} }}") as server:
        yield server


def is_connected(done: Ended, server: NatsServer) -> None:
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{server.url.replace('nats:', done.out[:4] + ':')}, nats-server ")


def save_context(natsync_command: Natsync, name: str = "work", *, selected: bool = False, **settings: Any) -> Path:
    home = Path(natsync_command.environ["XDG_CONFIG_HOME"]) / "nats"
    (home / "context").mkdir(parents=True, exist_ok=True)
    file = home / "context" / f"{name}.json"
    file.write_text(json.dumps({"description": "", **settings}), "utf-8")
    if selected:
        (home / "context.txt").write_text(name + "\n", "utf-8")
    return file


# Logging in


def test_user_and_password(natsync_command: Natsync, guarded: NatsServer) -> None:
    is_connected(natsync_command("rtt", "--server", guarded.url, "--user", "joe", "--password", SECRET), guarded)


def test_options_may_stand_before_the_command(natsync_command: Natsync, guarded: NatsServer) -> None:
    is_connected(natsync_command("-s", guarded.url, "--user", "joe", "rtt", "--password", SECRET), guarded)


def test_a_url_with_a_password(natsync_command: Natsync, guarded: NatsServer) -> None:
    done = natsync_command("rtt", "-s", guarded.url.replace("//", f"//joe:{SECRET}@"))
    is_connected(done, guarded)
    assert SECRET not in done.out


def test_variables(natsync_command: Natsync, guarded: NatsServer) -> None:
    where = {"NATS_URL": guarded.url}
    is_connected(natsync_command("rtt", environ={**where, "NATS_USER": "joe", "NATS_PASSWORD": SECRET}), guarded)
    is_connected(natsync_command("rtt", "--user", "joe", environ={**where, "NATS_PASSWORD": SECRET}), guarded)
    is_connected(
        natsync_command("rtt", "--user", "joe", "--password", SECRET, environ={**where, "NATS_TOKEN": "other"}), guarded
    )


@pytest.mark.parametrize("with_option", [True, False])
def test_a_token(natsync_command: Natsync, with_option: bool) -> None:
    words = ["--token", SECRET] if with_option else []
    environ = {} if with_option else {"NATS_TOKEN": SECRET}
    with NatsServer(f"authorization {{ token: {SECRET} }}") as server:
        is_connected(natsync_command("rtt", "-s", server.url, *words, environ=environ), server)


@pytest.mark.parametrize("with_option", [True, False])
def test_a_seed_of_an_nkey(natsync_command: Natsync, tmp_path: Path, with_option: bool) -> None:
    key = Key("user")
    file = tmp_path / "user.nk"
    file.write_text(key.seed, "utf-8")
    words = ["--nkey", str(file)] if with_option else []
    environ = {} if with_option else {"NATS_NKEY": str(file)}
    with NatsServer(f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}") as server:
        is_connected(natsync_command("rtt", "-s", server.url, *words, environ=environ), server)


def test_credentials_and_a_jwt(natsync_command: Natsync, tmp_path: Path) -> None:
    operator = Operator()
    account = operator.account()
    creds = account.user().write_creds(tmp_path / "user.creds")
    with NatsServer(operator.config()) as server:
        is_connected(natsync_command("rtt", "-s", server.url, "--creds", str(creds)), server)
        is_connected(natsync_command("rtt", environ={"NATS_URL": server.url, "NATS_CREDS": str(creds)}), server)
        save_context(natsync_command, "file", url=server.url, creds="$HERE/user.creds")
        is_connected(natsync_command("rtt", "--context", "file", environ={"HERE": str(tmp_path)}), server)
        save_context(natsync_command, "jwt", url=server.url, user_jwt=account.user(bearer=True).jwt)
        is_connected(natsync_command("rtt", "--context", "jwt"), server)


@pytest.mark.tls
def test_tls(natsync_command: Natsync, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.client()
    config = tls_config(authority.server(), ca=authority.file, verify=True)
    files = [str(path) for path in (authority.file, client.cert, client.key)]
    words = [word for pair in zip(("--tls-ca", "--tls-cert", "--tls-key"), files, strict=True) for word in pair]
    with NatsServer(config) as server:
        is_connected(natsync_command("rtt", "-s", server.url, *words), server)
        environ = {"NATS_URL": server.url, **dict(zip(("NATS_CA", "NATS_CERT", "NATS_KEY"), files, strict=True))}
        is_connected(natsync_command("rtt", environ=environ), server)
        is_connected(natsync_command("rtt", "-s", server.url, *words, "--tls-hostname", "localhost"), server)
        done = natsync_command("rtt", "-s", server.url, *words[2:], "--tls-no-verify")
        is_connected(done, server)
        save_context(natsync_command, url=server.url, ca=files[0], cert=files[1], key=files[2])
        is_connected(natsync_command("rtt", "--context", "work"), server)
        assert "certificate" in natsync_command("rtt", "-s", server.url).failed()
        assert "certificate" in natsync_command("rtt", "-s", server.url, "--tls").failed()


@pytest.mark.tls
def test_tls_before_the_greeting(natsync_command: Natsync, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with NatsServer(tls_config(authority.server(), handshake_first=True)) as server:
        is_connected(natsync_command("rtt", "-s", server.url, "--tls-ca", str(authority.file), "--tls-first"), server)
        save_context(natsync_command, url=server.url, ca=str(authority.file), tls_first=True)
        is_connected(natsync_command("rtt", "--context", "work"), server)


# Contexts


def test_a_context(natsync_command: Natsync, guarded: NatsServer) -> None:
    save_context(natsync_command, url=guarded.url, user="joe", password=SECRET)
    is_connected(natsync_command("rtt", "--context", "work"), guarded)
    is_connected(natsync_command("rtt", environ={"NATS_CONTEXT": "work"}), guarded)
    assert "refused the connection" in natsync_command("rtt", environ={"NATS_URL": "nats://127.0.0.1:1"}).failed()


def test_the_selected_context(natsync_command: Natsync, guarded: NatsServer) -> None:
    save_context(natsync_command, selected=True, url=guarded.url, user="joe", password=SECRET)
    is_connected(natsync_command("rtt"), guarded)
    # Its password is for its own server.
    assert "Authorization Violation" in natsync_command("rtt", "-s", guarded.url).failed()
    assert "Authorization Violation" in natsync_command("rtt", environ={"NATS_URL": guarded.url}).failed()
    assert "Authorization Violation" in natsync_command("rtt", "--no-context", "-s", guarded.url).failed()


def test_contexts_are_looked_for_at_home(natsync_command: Natsync, guarded: NatsServer, tmp_path: Path) -> None:
    natsync_command.environ["XDG_CONFIG_HOME"] = str(tmp_path / ".config")
    save_context(natsync_command, url=guarded.url, user="joe", password=SECRET)
    del natsync_command.environ["XDG_CONFIG_HOME"]
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    is_connected(natsync_command("rtt", "--context", "work", environ=home), guarded)


def test_an_inbox_prefix(natsync_command: Natsync) -> None:
    config = 'authorization { users: [ { user: joe, password: x, permissions: { subscribe: ["mine.>"] } } ] }'
    with NatsServer(config) as server:
        words = ["request", "nobody", "x", "--context", "work"]
        save_context(natsync_command, url=server.url, user="joe", password="x", inbox_prefix="mine")
        assert "nobody listens" in natsync_command(*words).failed()
        words += ["--inbox-prefix", "_INBOX", "--timeout", "0.3"]
        assert "Permissions Violation for Subscription" in natsync_command(*words).failed()


# What goes wrong


@pytest.mark.parametrize(
    "words, says",
    [
        (["-s", "http://x"], "natsync knows nats and tls"),
        (["-s", "nats://joe:hush-hush:4222"], "cannot be read"),
        (
            ["-s", "nats://127.0.0.1:1"],
            "is a server running there? `natsync server` starts one; --server names another.",
        ),
        (["--creds", "/no/such.creds"], "/no/such.creds of user_credentials cannot be read: No such file"),
        (["--nkey", "/no/such.nk"], "/no/such.nk of nkeys_seed cannot be read: No such file"),
        (["--tls-ca", "/no/such.pem"], "/no/such.pem of tls_ca cannot be read: No such file"),
        (["--user", "joe"], "user is given without password"),
        (["--user", "joe", "--password", SECRET, "--token", SECRET], "two ways to authenticate"),
        (["--context", "nowhere"], "there is no context 'nowhere' in "),
        (["--context", "../work"], "there is no context '../work' in "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_call(natsync_command: Natsync, words: list[str], says: str) -> None:
    line = natsync_command("pub", "cli.a", "x", *words).failed()
    assert says in line
    assert SECRET not in line


def test_a_wrong_password(natsync_command: Natsync, guarded: NatsServer) -> None:
    for words in (["sub", "a"], ["pub", "a", "x"], ["request", "a", "x"], ["reply", "a", "x"], ["rtt"], ["bench"]):
        line = natsync_command(*words, "-s", guarded.url, "--user", "joe", "--password", "guessed").failed()
        assert "Authorization Violation (check the credentials" in line
        assert "guessed" not in line


def test_a_secret_in_place_of_its_file_is_not_shown(natsync_command: Natsync) -> None:
    seed = Key("user").seed
    creds = Operator().account().user().creds
    for words in (["--nkey", seed], ["--creds", creds], ["--creds", seed]):
        line = natsync_command("rtt", *words).failed()
        assert seed not in line
        assert creds.splitlines()[1] not in line


def test_no_login_is_shown_in_a_verbose_run(natsync_command: Natsync, guarded: NatsServer) -> None:
    done = natsync_command("-v", "rtt", "-s", guarded.url.replace("//", f"//joe:{SECRET}@"))
    assert "natsync.events DEBUG: Connected" in done.err
    assert SECRET not in done.err


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"nsc": "nsc://operator/account/user"}, "'nsc', which natsync does not know"),
        ({"url": 5}, "a 'url' that is no text"),
        ({"creds": "~/no/such.creds"}, "no/such.creds of user_credentials cannot be read"),
    ],
)
def test_a_bad_context(natsync_command: Natsync, settings: dict[str, Any], says: str) -> None:
    save_context(natsync_command, selected=True, **settings)
    assert says in natsync_command("rtt").failed()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_context_that_is_no_json(natsync_command: Natsync, content: bytes) -> None:
    file = save_context(natsync_command)
    file.write_bytes(content)
    assert f"the file {file} of a context holds no JSON object" in natsync_command("rtt", "--context", "work").failed()


def test_a_selected_context_that_is_missing(natsync_command: Natsync) -> None:
    save_context(natsync_command, selected=True).unlink()
    save_context(natsync_command, "other")
    assert "there is no context 'work' in" in (line := natsync_command("rtt").failed())
    assert line.endswith("known are: other")


def test_a_bad_variable(natsync_command: Natsync) -> None:
    line = natsync_command("rtt", environ={"NATS_TIMEOUT": "soon"}).failed()
    assert line == "natsync: NATS_TIMEOUT: 'soon' is no time; write it as 0.5, 500ms, 5s or 1m30s"


def test_what_the_user_may_not_do(natsync_command: Natsync) -> None:
    config = 'authorization { users: [ { user: joe, password: x, permissions: { publish: "a", subscribe: "a" } } ] }'
    with NatsServer(config) as server:
        login = ["-s", server.url, "--user", "joe", "--password", "x"]
        assert 'Permissions Violation for Publish to "b"' in natsync_command("pub", "b", "x", *login).failed()
        for command in ("sub", "reply"):
            done = natsync_command(command, "b", *login)
            assert (done.code, done.out) == (1, "")
            assert 'Permissions Violation for Subscription to "b"' in done.err


def test_the_server_refuses_the_user_later(natsync_command: Natsync) -> None:
    config = "authorization {{ users: [ {{ user: {}, password: x }} ] }}"
    with NatsServer(config.format("joe")) as server:
        running = natsync_command.start("sub", "a", "-s", server.url, "--user", "joe", "--password", "x")
        running.until("listening")
        server.reload(config.format("ann"))
        ended = running.end(None)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert "Authorization Violation" in ended.err.splitlines()[-1]
