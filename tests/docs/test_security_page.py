"""The page *Securing a connection*, played from top to bottom in an empty folder, as a reader would.

What a block with a caption holds is written to the file of that name. Blocks of the console are run by bash; a line
that begins with `nats-server` starts a real server with these arguments, which runs until the next one is started.
Other blocks of Python run in this process; the comment `.. afterwards:` has assertions for the block above it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import natsync
from natsync.testing import NatsServer
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.rst"
DIRECTIVE = re.compile(r"\.\. (code-block|literalinclude):: (\S+)|\.\. afterwards:")


class Reader:
    """Does what the page says, in the present directory, which is empty."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.servers: list[list[str]] = []
        self.blocks = 0
        self._monkeypatch = monkeypatch
        self._at_the_end = contextlib.ExitStack()
        self.output = io.StringIO()
        self._names: dict[str, Any] = {"eventually": eventually, "printed": self.output.getvalue}
        connect = natsync.connect

        def connect_and_remember(*args: Any, **options: Any) -> natsync.Client:
            client = connect(*args, **options)
            self._at_the_end.callback(client.close)
            return client

        monkeypatch.setattr(natsync, "connect", connect_and_remember)

    def close(self) -> None:
        self._at_the_end.close()

    def play(self, kind: str, name: str, caption: str, line: int, text: str) -> None:
        """Do what one block says."""
        if kind == "literalinclude":
            shutil.copy(PAGE.with_name(name), name)
        elif kind == "afterwards":
            self._names["out"] = self.output.getvalue()
            self._run(line, text)
        elif caption:
            Path(caption).write_text(text, "utf-8")
        elif name == "console":
            self._console(text)
        elif name == "python":
            self.blocks += 1
            self.output.seek(0)
            self.output.truncate()
            self._run(line, text.replace("4222", str(self._names["port"])))
        else:
            pytest.fail(f"{PAGE.name}:{line}: nobody knows what to do with this block")

    def _run(self, line: int, text: str) -> None:
        exec(compile("\n" * (line - 1) + text, str(PAGE), "exec"), self._names)

    def _console(self, text: str) -> None:
        lines = text.splitlines()
        assert all(line.startswith("$ ") for line in lines)
        commands = [line[2:] for line in lines]
        servers = [command for command in commands if command.startswith("nats-server")]
        assert servers in ([], commands[-1:])
        script = [command for command in commands if command not in servers and not command.startswith("pip ")]
        if script:
            self._bash(script)
        if servers:
            self._start(shlex.split(servers[0])[1:])

    def _bash(self, commands: list[str]) -> None:
        script = "\n".join(["set -eu", *commands, "env -0 > .environment"])
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60 * TIME_FACTOR,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for entry in Path(".environment").read_text("utf-8").split("\0"):
            name, _, value = entry.partition("=")
            if name == "USER_KEY":  # what is exported is for the lines after it
                self._monkeypatch.setenv(name, value)

    def _start(self, args: list[str]) -> None:
        self._at_the_end.close()
        self.servers.append(args)
        config = Path(args[1]) if args[0] == "-c" else None
        server = NatsServer(config, args=[] if config else args)
        self._names["port"] = self._at_the_end.enter_context(server).port


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(Reader(monkeypatch)) as reader:
        yield reader


def blocks() -> Iterator[tuple[str, str, str, int, str]]:
    """Find the page's blocks: kind, argument, caption, number of the first line, text."""
    lines = PAGE.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        found = DIRECTIVE.match(line)
        if found is None:
            continue
        body: list[str] = []
        caption, start = "", 0
        for offset, inner in enumerate(lines[number + 1 :], number + 2):
            if inner and not inner.startswith(" "):
                break
            option = re.match(r"    :(\w+): (.+)", inner)
            if option and not body:
                caption = option[2] if option[1] == "caption" else caption
            elif inner or body:
                start = start or offset
                body.append(inner)
        text = textwrap.dedent("\n".join(body)).strip() + "\n"
        yield found[1] or "afterwards", found[2] or "", caption, start, text


@pytest.mark.slow
@pytest.mark.tls
@pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")
@pytest.mark.skipif(not shutil.which("openssl"), reason="the page makes certificates with openssl")
def test_the_page(reader: Reader) -> None:
    with contextlib.redirect_stdout(reader.output):  # all the time: callbacks print when their block is over
        for block in blocks():
            reader.play(*block)
    assert len(reader.servers) == 8
    assert reader.blocks >= 15
