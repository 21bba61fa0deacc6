"""`NatsServer`, driven with plain sockets."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from natsync.errors import ConfigError, NatsConnectionError, NatsTimeoutError
from natsync.testing import NatsServer, server
from tests.support.waiting import eventually, never
from tests.support.wire import Wire, is_refused

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Start and end


def test_a_started_server_accepts_clients(nats_server: NatsServer) -> None:
    with Wire(nats_server.port) as wire:
        assert wire.handshake()["host"] == "127.0.0.1"
    assert nats_server.url == f"nats://127.0.0.1:{nats_server.port}"
    assert nats_server.is_running
    assert is_alive(nats_server.pid)


def test_construction_starts_nothing() -> None:
    idle = NatsServer()
    assert not idle.is_running
    assert idle.log == ""
    assert "on a free port, not running" in repr(idle)
    with pytest.raises(NatsConnectionError, match="before its first start"):
        _ = idle.port
    with pytest.raises(NatsConnectionError, match="does not run"):
        _ = idle.pid
    idle.stop()
    idle.kill()
    idle.close()


def test_leaving_the_context_leaves_nothing_behind() -> None:
    with NatsServer() as own:
        pid, home = own.pid, own._home
        assert home is not None
        assert home.is_dir()
        assert f"{own.port}, running" in repr(own)
    assert not is_alive(pid)
    assert not home.exists()
    assert "Server Exiting" in own.log


def test_start_of_a_running_server_does_nothing(fresh_server: NatsServer) -> None:
    pid = fresh_server.pid
    fresh_server.start()
    assert fresh_server.pid == pid


def test_restart_keeps_the_port(fresh_server: NatsServer) -> None:
    pid, port = fresh_server.pid, fresh_server.port
    fresh_server.restart()
    assert fresh_server.pid != pid
    assert fresh_server.port == port
    with Wire(port) as wire:
        wire.handshake()


def test_start_after_kill_keeps_the_port(fresh_server: NatsServer) -> None:
    pid, port = fresh_server.pid, fresh_server.port
    with Wire(port) as wire:
        wire.handshake()
        fresh_server.kill()
        assert wire.line() == b""
    assert not is_alive(pid)
    assert not fresh_server.is_running
    assert is_refused(port)
    fresh_server.start()
    with Wire(port) as wire:
        wire.handshake()


def test_stop_is_graceful(fresh_server: NatsServer) -> None:
    port = fresh_server.port
    fresh_server.stop()
    assert is_refused(port)
    assert "Server Exiting" in fresh_server.log
    assert "Server is ready" in fresh_server.log


def test_a_server_that_ended_by_itself_can_be_started_again(fresh_server: NatsServer) -> None:
    port = fresh_server.port
    os.kill(fresh_server.pid, signal.SIGTERM)
    eventually(lambda: not fresh_server.is_running)
    with pytest.raises(NatsConnectionError, match="does not run"):
        fresh_server.varz()
    fresh_server.start()
    assert fresh_server.port == port


def test_a_given_port_is_taken(fresh_server: NatsServer) -> None:
    port = fresh_server.port
    fresh_server.stop()
    with NatsServer(port=port) as own, Wire(port) as wire:
        assert own.port == port
        wire.handshake()


def test_a_taken_port_is_a_clear_error(nats_server: NatsServer) -> None:
    own = NatsServer(port=nats_server.port)
    with pytest.raises(ConfigError, match="taken by another program") as caught:
        own.start()
    assert caught.value.option == "port"
    assert not own.is_running


def test_a_server_without_an_owner_is_ended() -> None:
    own = NatsServer()
    own.start()
    pid, home = own.pid, own._home
    assert home is not None
    del own
    gc.collect()
    assert not is_alive(pid)
    assert not home.exists()


def test_a_server_ends_with_its_interpreter() -> None:
    code = "from natsync.testing import NatsServer; s = NatsServer(); s.start(); print(s.pid, s._home)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    pid, home = answer.stdout.split()
    assert not is_alive(int(pid))
    assert not Path(home).exists()


@pytest.mark.fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_end_its_parents_server() -> None:
    code = (
        "import os, sys; from natsync.testing import NatsServer; s = NatsServer(); s.start()\n"
        "child = os.fork()\n"
        "if not child: sys.exit(0)\n"
        "os.waitpid(child, 0); print(s.is_running and s._home.is_dir())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout == "True\n"


# Configuration


def test_a_configuration_text_is_used_on_the_own_port() -> None:
    with NatsServer("# long\n" * 1000 + 'max_payload: 4321\nlisten: "0.0.0.0:4222"\nlog_file: "elsewhere.log"') as own:
        assert own.varz()["max_payload"] == 4321
        assert own.varz()["host"] == "127.0.0.1"
        assert "Server is ready" in own.log
        with Wire(own.port) as wire:
            assert wire.handshake()["max_payload"] == 4321


@pytest.mark.parametrize("kind", [Path, str])
def test_a_configuration_file_is_used_where_it_is(tmp_path: Path, kind: type[Path | str]) -> None:
    (tmp_path / "limits.conf").write_text("max_payload: 4321\n", "utf-8")
    config = tmp_path / "main.conf"
    config.write_text("include limits.conf\n", "utf-8")
    with NatsServer(kind(config)) as own:
        assert own.varz()["max_payload"] == 4321
        with pytest.raises(ConfigError, match="a file of yours"):
            own.reload("max_payload: 1234")
    assert config.exists()


@pytest.mark.parametrize("config", ["unknown_thing: 1", "max_payload: {", 'lame_duck_duration: "1s"'])
def test_a_bad_configuration_is_one_clear_error(config: str) -> None:
    own = NatsServer(config)
    with pytest.raises(ConfigError, match="nats-server ended by itself: nats-server: ") as caught:
        own.start()
    assert caught.value.option == "config"
    assert "\n" not in str(caught.value)
    assert not own.is_running


def test_an_empty_configuration_is_none() -> None:
    with NatsServer(" \n") as own:
        assert "no values" not in own.log


def test_more_arguments_reach_the_server() -> None:
    with NatsServer(args=["--name", "mine"]) as own:
        assert own.varz()["server_name"] == "mine"


def test_a_server_that_does_not_come_up_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NatsServer, "_read_ports", lambda self, process: False)
    monkeypatch.setattr(server, "_DEADLINE", 0.5)
    own = NatsServer()
    with pytest.raises(NatsTimeoutError, match=r"(?s)did not come up in 0.5 s.*Server is ready"):
        own.start()
    assert not own.is_running


# JetStream


def test_jetstream_is_off_by_default(nats_server: NatsServer) -> None:
    assert not nats_server.varz()["jetstream"]


def test_jetstream_keeps_its_store_over_a_restart() -> None:
    with NatsServer(jetstream=True) as own:
        store = Path(own.varz()["jetstream"]["config"]["store_dir"])
        assert own._home in store.parents
        (store / "kept").touch()
        own.restart()
        assert Path(own.varz()["jetstream"]["config"]["store_dir"]) == store
        assert (store / "kept").exists()
    assert not store.exists()


def test_jetstream_from_the_configuration_has_its_store_in_the_own_directory() -> None:
    with NatsServer("jetstream: enabled") as own:
        assert own._home in Path(own.varz()["jetstream"]["config"]["store_dir"]).parents


def test_a_store_of_the_configuration_is_taken(tmp_path: Path) -> None:
    with NatsServer(f'jetstream {{ store_dir: "{tmp_path}" }}') as own:
        assert tmp_path in Path(own.varz()["jetstream"]["config"]["store_dir"]).parents


# Monitoring


def test_monitoring_shows_connections_and_subscriptions(fresh_server: NatsServer) -> None:
    with Wire(fresh_server.port) as wire:
        wire.handshake()
        wire.send(b"SUB orders.* 1\r\n")
        wire.ping()
        assert fresh_server.connz()["num_connections"] == 1
        (connection,) = fresh_server.connz(subs=True)["connections"]
        assert connection["subscriptions_list"] == ["orders.*"]
    assert fresh_server.monitor("healthz") == {"status": "ok"}


def test_monitoring_ignores_a_proxy_of_the_environment() -> None:
    code = "from natsync.testing import NatsServer\nwith NatsServer() as s: print(s.varz()['port'] == s.port)"
    environ = {**os.environ, "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    assert answer.stdout == "True\n"


def test_the_ports_of_other_protocols_are_known() -> None:
    with NatsServer('websocket { listen: "127.0.0.1:-1", no_tls: true }') as own:
        assert own.ports["websocket"][0].startswith("ws://127.0.0.1:")


# What can happen to a server


@posix_only
def test_a_paused_server_says_nothing_until_it_resumes(fresh_server: NatsServer) -> None:
    with Wire(fresh_server.port) as wire:
        wire.handshake()
        fresh_server.pause()
        assert fresh_server.is_running
        wire.send(b"PING\r\n")
        wire.socket.setblocking(False)
        never(lambda: readable(wire))
        fresh_server.resume()
        wire.socket.settimeout(5)
        assert wire.line_after(b"PING") == b"PONG\r\n"
        fresh_server.pause()
        fresh_server.resume()
        wire.ping()


def readable(wire: Wire) -> bool:
    try:
        return bool(wire.socket.recv(1))
    except BlockingIOError:
        return False


@posix_only
def test_a_paused_server_stops_at_once(fresh_server: NatsServer) -> None:
    fresh_server.pause()
    fresh_server.stop()
    assert "Server Exiting" in fresh_server.log


@posix_only
def test_a_paused_server_can_be_killed(fresh_server: NatsServer) -> None:
    pid = fresh_server.pid
    fresh_server.pause()
    fresh_server.kill()
    assert not is_alive(pid)


@posix_only
def test_a_server_that_ignores_the_request_is_ended_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = tmp_path / "nats-server"
    deaf.write_text(
        "#!/bin/sh\ntrap '' INT TERM\nfor word; do [ \"$last\" = --ports_file_dir ] && dir=$word; last=$word; done\n"
        'echo \'{"nats":["nats://127.0.0.1:4"]}\' > "$dir/x_$$.ports"\nwhile :; do sleep 0.1; done\n',
        "utf-8",
    )
    deaf.chmod(0o755)
    monkeypatch.setenv("NATS_SERVER_BIN", str(deaf))
    monkeypatch.setattr(server, "_GRACE", 0.2)
    own = NatsServer()
    own.start()
    pid = own.pid
    own.close()
    assert not is_alive(pid)


@posix_only
def test_reload_takes_a_new_configuration_and_keeps_it(fresh_server: NatsServer) -> None:
    port = fresh_server.port
    fresh_server.reload()
    fresh_server.reload("max_payload: 4321\nport: 4222")
    assert fresh_server.varz()["max_payload"] == 4321
    with Wire(port) as wire:
        wire.handshake()
    fresh_server.restart()
    assert fresh_server.varz()["max_payload"] == 4321


@posix_only
def test_a_refused_reload_is_an_error_and_the_server_goes_on(fresh_server: NatsServer) -> None:
    with pytest.raises(ConfigError, match="unknown_thing") as caught:
        fresh_server.reload("unknown_thing: 1")
    assert caught.value.option == "config"
    with Wire(fresh_server.port) as wire:
        wire.handshake()
    fresh_server.reload("max_payload: 4321")


@posix_only
def test_a_server_in_lame_duck_mode_tells_its_clients(fresh_server: NatsServer) -> None:
    port = fresh_server.port
    with Wire(port) as wire:
        wire.handshake(protocol=1)  # only such clients are told anything after the handshake
        fresh_server.lame_duck()
        while (line := wire.line_after(b"PING")) and b'"ldm":true' not in line:
            assert line.startswith(b"INFO")
        assert line
        assert is_refused(port)
        assert fresh_server.is_running


@posix_only
def test_a_server_in_lame_duck_mode_stops_at_once(fresh_server: NatsServer) -> None:
    with Wire(fresh_server.port) as wire:
        wire.handshake()
        fresh_server.lame_duck()
        fresh_server.stop()
        assert "Server Exiting" in fresh_server.log


@posix_only
def test_a_server_in_lame_duck_mode_without_clients_ends(fresh_server: NatsServer) -> None:
    fresh_server.lame_duck()
    eventually(lambda: not fresh_server.is_running)
    with pytest.raises(NatsConnectionError, match="does not run"):
        fresh_server.lame_duck()


def test_a_signal_that_the_system_lacks_is_a_clear_error(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(signal, "SIGSTOP")
    with pytest.raises(ConfigError, match="no SIGSTOP"):
        nats_server.pause()
