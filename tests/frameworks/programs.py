"""Programs under test: started as a user starts them, their output read while they run, ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]

# The world outside has no business on loopback, whatever the environment says.
_loopback = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Program:
    """A process in a session of its own; as a context manager it is gone at the end, with all that it has started."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        try:
            if self._process.poll() is None:
                self.end()
        finally:
            self.kill()
            self._log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def wait_for(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """Wait until the output has the pattern, or fail with the output."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.output)
            assert match or self._process.poll() is None, f"it ended without {pattern!r}:\n{self.output}"
            return match

        try:
            match = eventually(found, timeout)
        except AssertionError as error:
            raise AssertionError(f"no {pattern!r}: {error}\n{self.output}") from None
        assert match is not None
        return match

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the end, and return the status."""
        try:
            return self._process.wait(timeout * TIME_FACTOR)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.output}") from None

    def kill(self) -> None:
        """End it and all that it has started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end, wait for that, and return the status."""
        self.send_signal(number)
        return self.wait()


def http(url: str, data: bytes | None = None, timeout: float = 30.0) -> tuple[int, Any]:
    """GET, or POST of data; return the status and the JSON of the answer."""
    request = urllib.request.Request(url, data, {"Content-Type": "text/plain"})
    try:
        with _loopback.open(request, timeout=timeout * TIME_FACTOR) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else text


ADDRESS = r"(?:Listening at:|Running on|development server at) (http://127\.0\.0\.1:[1-9]\d*)"
"""What gunicorn, Flask's and Django's own server say when they listen."""
