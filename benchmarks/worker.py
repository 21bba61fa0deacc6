"""A process of a contender or a feeder, seen from the harness; see `peers/lines.py` for what is said."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 60.0


class WorkerError(Exception):
    """A process failed, or said nothing in time."""


class Worker:
    """One process and its lines; a context manager that ends it.

    Args:
        python: The interpreter.
        module: What it runs.
        arguments: More words of its command line.
        environment: More variables of its environment.
    """

    def __init__(self, python: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - kill() closes it
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have the process do something and return its answer."""
        self.tell(do, **arguments)
        return self.hear()

    def tell(self, do: str, **arguments: Any) -> None:
        """Have the process begin something."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerError(f"{self._module} has ended: {self._tail()}") from error

    def hear(self) -> dict[str, Any]:
        """Wait for the next line.

        Raises:
            WorkerError: The process says that it failed, ends, or says nothing for a minute.
        """
        try:
            line = self._lines.get(timeout=DEADLINE)
        except queue.Empty:
            raise WorkerError(f"{self._module} said nothing for {DEADLINE:g} s") from None
        if not line:
            raise WorkerError(f"{self._module} has ended: {self._tail()}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise WorkerError(f"{self._module}: {message['error']}")
        return message

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._pump.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass  # what was not written to a process that had ended

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _tail(self) -> str:
        self._log.seek(0)
        return " / ".join(self._log.read().splitlines()[-3:])
