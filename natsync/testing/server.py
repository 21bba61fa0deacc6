"""One real `nats-server` process that a test can start, stop, kill, freeze, reload and send into lame duck mode.

Knows processes, signals and the server's own files (ports file, log, monitoring); knows nothing of the client. A
`NatsServer` is driven by one thread at a time; its properties may be read by others. It owns a temporary directory
with the configuration, the log and the JetStream store, which lives from the first start to `close()`, so a restart
finds its data.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natsync.errors import ConfigError, NatsConnectionError, NatsTimeoutError
from natsync.testing.binary import find_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

__all__ = ["NatsServer"]

_HOST = "127.0.0.1"
_DEADLINE = 10.0  # seconds for a start, a reload, a change of mode; a server needs a hundredth of one
_GRACE = 5.0  # seconds between asking the server to end and SIGKILL
_TICK = 0.002  # seconds between two looks at a file; a start takes about 8 ms
_LOG_TAIL = 15  # lines of the log that go into an error

# The server takes no reload without a configuration file and warns of an empty one; the command line overrides the
# port.
_EMPTY_CONFIG = "port: -1\n"

# Monitoring is on loopback; a proxy that the environment names for the outside world has no business there.
_loopback = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NatsServer:
    """A real NATS server on a free port of 127.0.0.1.

    Constructing one starts nothing; `start()` or entering the context does. Leaving the context stops the server and
    removes its files. The port is chosen at the first start and kept by every later one, so clients find a restarted
    server.

    Args:
        config: The text of a server configuration, or the path of a file with one.
        port: The port to listen on; None takes a free one.
        jetstream: Switch JetStream on, with the store in the server's temporary directory.
        args: More command line arguments for `nats-server`.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | None = None,
        *,
        port: int | None = None,
        jetstream: bool = False,
        args: Sequence[str] = (),
    ) -> None:
        # No configuration is the name of a file that is there. (`Path.is_file` raises for what is too long for a name.)
        is_path = isinstance(config, str) and os.path.isfile(config)  # noqa: PTH113
        self._config = Path(config) if is_path and config is not None else config
        self._port = port
        self._jetstream = jetstream
        self._args = tuple(args)
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, list[str]] = {}
        self._last_log = ""
        self._remove_home: Callable[[], object] = lambda: None
        self._forget_process: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "not running"
        return f"<NatsServer {self._port or 'on a free port'}, {state}>"

    # What it is

    @property
    def port(self) -> int:
        """The port for clients; known from the first start on."""
        if self._port is None:
            raise NatsConnectionError("the server has no port before its first start")
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect to: `nats://127.0.0.1:PORT`."""
        return f"nats://{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that the server has logged, over all its starts."""
        if self._home is None:
            return self._last_log
        with contextlib.suppress(FileNotFoundError):
            return self._log_file.read_text("utf-8", "replace")
        return ""

    @property
    def ports(self) -> dict[str, list[str]]:
        """The server's own list of its addresses by kind: "nats", "monitoring", "cluster", "websocket" and so on."""
        return dict(self._ports)

    @property
    def monitor_url(self) -> str:
        """Where the monitoring answers; another port at every start."""
        self._running()
        return f"http://{_HOST}:{_port_of(self._ports['monitoring'][0])}"

    def monitor(self, path: str) -> dict[str, Any]:
        """Return the JSON of a monitoring page such as "routez" or "jsz?accounts=1" (`path`); blocks at most 10 s."""
        with _loopback.open(f"{self.monitor_url}/{path}", timeout=_DEADLINE) as answer:
            page: dict[str, Any] = json.load(answer)
        return page

    def connz(self, subs: bool = False) -> dict[str, Any]:
        """Return the monitoring's view of the connections, with their subscriptions if `subs`."""
        return self.monitor("connz?subs=1" if subs else "connz")

    def varz(self) -> dict[str, Any]:
        """Return the monitoring's view of the server itself."""
        return self.monitor("varz")

    # Start and end

    def start(self) -> None:
        """Start the server and wait until it accepts connections, at most 10 s; does nothing when it runs.

        Raises:
            ConfigError: There is no server program, the configuration is bad, or the port is taken.
            NatsTimeoutError: The server does not come up in time.
        """
        if self.is_running:
            return
        self.stop()  # reaps what ended by itself
        program = find_server()
        self._make_home()
        shutil.rmtree(self._ports_dir, ignore_errors=True)
        self._ports_dir.mkdir()
        log_begin = len(self.log)
        process = self._spawn([program, *self._arguments()])
        try:
            self._wait(lambda: self._read_ports(process), "did not come up", log_begin)
        except BaseException:
            self.kill()
            raise
        self._port = _port_of(self._ports["nats"][0])

    def stop(self) -> None:
        """End the server gracefully, or after 5 s by force; does nothing when it does not run."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            if os.name == "posix":
                process.send_signal(signal.SIGCONT)  # a frozen process would see the next one only when it thaws
                process.send_signal(signal.SIGINT)  # SIGTERM does the same, but is ignored in lame duck mode
            else:
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash would (SIGKILL); does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._forget_process()

    def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port with the same store."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its files; `log` can still be read. Leaving the context does this."""
        self.stop()
        self._last_log = self.log
        self._home = None
        self._remove_home()

    # What can happen to it

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): its sockets stay open and nothing answers. Not on Windows."""
        self._signal("SIGSTOP")
        if hasattr(os, "waitid"):
            # The signal stops the threads some moments after kill() returns; WNOWAIT leaves the reaping to subprocess.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen server go on (SIGCONT). Not on Windows."""
        self._signal("SIGCONT")

    def reload(self, config: str | None = None) -> None:
        """Let the server read its configuration again (SIGHUP), and wait until it has. Not on Windows.

        Args:
            config: A new text to put in place of the old one first; it stays for later starts.

        Raises:
            ConfigError: The server refuses the configuration and goes on with the old one.
        """
        self._running()
        if config is not None:
            self._replace_config(config)
        log_begin = len(self.log)
        self._signal("SIGHUP")

        def is_done() -> bool:
            news = self.log[log_begin:]
            if "Failed to reload server configuration" in news:
                raise ConfigError(f"nats-server refuses the configuration: {_tail(news)}", option="config")
            return "Reloaded server configuration" in news

        self._wait(is_done, "did not reload", log_begin)

    def lame_duck(self) -> None:
        """Send the server into lame duck mode: it tells its clients, takes no new ones, ends by itself. Not on Windows.

        Clients are told at once. Connections are closed after `lame_duck_grace_period` (default 10 s), spread over
        `lame_duck_duration` (default 2 minutes, the server takes no less than 30 s); without clients it ends
        immediately.
        """
        log_begin = len(self.log)
        self._signal("SIGUSR2")
        self._wait(lambda: "Entering lame duck mode" in self.log[log_begin:], "did not enter lame duck mode", log_begin)

    # The process

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise NatsConnectionError("the server does not run")
        return self._process

    def _signal(self, name: str) -> None:
        number = getattr(signal, name, None)
        if number is None:
            raise ConfigError(f"this system has no {name}")
        self._running().send_signal(number)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        # A group of its own: Ctrl-C at the terminal is for the test or the script, which then ends the server in its
        # order.
        group: dict[str, Any] = {"start_new_session": True}
        if os.name == "nt":
            group = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        with self._log_file.open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **group)
        self._process = process
        self._forget_process = weakref.finalize(self, _end_process, process, os.getpid()).detach
        return process

    def _arguments(self) -> list[str]:
        arguments = ["-c", str(self._write_config()), "-a", _HOST, "-p", str(self._port or -1), "-m", "-1"]
        arguments += ["-l", str(self._log_file), "--ports_file_dir", str(self._ports_dir)]
        if self._jetstream:
            arguments.append("-js")
        if "store_dir" not in self._config_text():
            # The server refuses the setting in both places; without it the store would be a directory shared by all.
            arguments += ["-sd", str(self._home_dir / "store")]
        return [*arguments, *self._args]

    def _read_ports(self, process: subprocess.Popen[bytes]) -> bool:
        for file in self._ports_dir.glob(f"*_{process.pid}.ports"):
            with contextlib.suppress(ValueError):  # the file is there before its content
                self._ports = json.loads(file.read_text("utf-8"))
                return True
        return False

    def _wait(self, is_done: Callable[[], bool], what: str, log_begin: int) -> None:
        deadline = time.monotonic() + _DEADLINE
        while not is_done():
            if not self.is_running:
                if is_done():  # its last deed
                    return
                raise self._death(log_begin)
            if time.monotonic() > deadline:
                tail = _tail(self.log[log_begin:])
                raise NatsTimeoutError(f"nats-server {what} in {_DEADLINE:g} s: {tail}", timeout=_DEADLINE)
            time.sleep(_TICK)

    def _death(self, log_begin: int) -> ConfigError:
        tail = _tail(self.log[log_begin:])
        if "address already in use" in tail or "Only one usage of each socket address" in tail:
            return ConfigError(f"a port that nats-server wants is taken by another program: {tail}", option="port")
        return ConfigError(f"nats-server ended by itself: {tail}", option="config")

    # The files

    @property
    def _home_dir(self) -> Path:
        assert self._home is not None
        return self._home

    @property
    def _ports_dir(self) -> Path:
        return self._home_dir / "ports"

    @property
    def _log_file(self) -> Path:
        return self._home_dir / "server.log"

    def _make_home(self) -> None:
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="natsync-server-"))
            self._remove_home = weakref.finalize(self, _remove_tree, self._home, os.getpid())

    def _config_text(self) -> str:
        if self._config is None:
            return _EMPTY_CONFIG
        if isinstance(self._config, str):
            return self._config if self._config.strip() else _EMPTY_CONFIG
        return Path(self._config).read_text("utf-8")

    def _write_config(self) -> Path:
        if self._config is not None and not isinstance(self._config, str):
            return Path(self._config)  # used where it is: an `include` in it is relative to its place
        path = self._home_dir / "server.conf"
        path.write_text(self._config_text(), "utf-8")
        return path

    def _replace_config(self, config: str) -> None:
        if self._config is not None and not isinstance(self._config, str):
            raise ConfigError("the configuration is a file of yours: change it there, then reload()", option="config")
        self._config = config
        self._write_config()


def _port_of(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def _tail(log: str) -> str:
    lines = log.strip().splitlines()
    # Where the server names its reason, the lines around it only hide it.
    reasons = [line for line in lines if line.startswith("nats-server: ") or "[FTL]" in line or "[ERR] Failed" in line]
    return "\n".join(reasons or lines[-_LOG_TAIL:]) or "it logged nothing"


def _end_process(process: subprocess.Popen[bytes], owner: int) -> None:
    # A forked child inherits the object and its finalizer, but the server is its parent's.
    if os.getpid() == owner and process.poll() is None:
        process.kill()
        process.wait()


def _remove_tree(home: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(home, ignore_errors=True)
