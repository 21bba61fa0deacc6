"""Runs `python -m natsync`: to its end, beside the test, or on a terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0 * TIME_FACTOR


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command has printed, and its exit status."""

    code: int
    out: str
    err: str

    def failed(self, code: int = 1) -> str:
        """Return the one line of the error, which is all that was said."""
        assert (self.code, self.out) == (code, "")
        return self.line

    @property
    def line(self) -> str:
        assert self.err.startswith("natsync")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.strip()


class Running:
    """A command that goes on; its output is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._out, self._err = bytearray(), bytearray()
        self._readers = [
            threading.Thread(target=self._read, args=(process.stdout, self._out), name="stdout"),
            threading.Thread(target=self._read, args=(process.stderr, self._err), name="stderr"),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe: object, into: bytearray) -> None:
        with contextlib.closing(pipe) as stream:  # type: ignore[type-var]
            while some := os.read(stream.fileno(), 65536):  # type: ignore[attr-defined]
                into += some

    @property
    def out(self) -> str:
        return bytes(self._out).decode()

    @property
    def err(self) -> str:
        return bytes(self._err).decode()

    def until(self, words: str) -> None:
        """Wait until words have been printed, on either stream."""
        eventually(lambda: words in self.out + self.err or self.process.poll() is not None, PATIENCE)
        assert words in self.out + self.err, self.err

    def end(self, number: int | None = signal.SIGINT) -> Ended:
        """Send a signal, if any, and wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return Ended(code, self.out, self.err)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end(None)


class Natsync:
    """The command `natsync` in a given environment.

    Attributes:
        environ: The environment; a test may change it.
    """

    def __init__(self, environ: dict[str, str], stack: contextlib.ExitStack) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), environ.get("PYTHONPATH")]))
        self.environ = {**environ, "PYTHONPATH": path}
        self._stack = stack

    def __call__(self, *words: str, environ: Mapping[str, str] = {}, stdin: bytes = b"") -> Ended:
        """Run a command to its end, with more variables in its environment."""
        done = subprocess.run(
            self._command(words),
            env={**self.environ, **environ},
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *words: str) -> Running:
        """Start a command and let it run."""
        process = subprocess.Popen(
            self._command(words),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running = Running(process)
        self._stack.callback(running.kill)
        return running

    def on_terminal(self, *words: str, environ: Mapping[str, str] = {}, typed: bytes = b"") -> str:
        """Run a command at a terminal on which something is typed, and return what is shown there."""
        import pty

        ours, theirs = pty.openpty()
        with contextlib.closing(os.fdopen(ours, "r+b", 0)) as screen:
            try:
                process = subprocess.Popen(
                    self._command(words),
                    env={**self.environ, "TERM": "xterm", **environ},
                    stdin=theirs,
                    stdout=theirs,
                    stderr=theirs,
                )
            finally:
                os.close(theirs)
            self._stack.callback(process.kill)
            screen.write(typed)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: the last one who had it open has gone
                while some := screen.read(65536):
                    shown += some
            assert process.wait(PATIENCE) == 0, shown
        return shown.decode()

    @staticmethod
    def _command(words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "natsync", *words]
