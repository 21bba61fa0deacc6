"""What the documentation has you type at a terminal must do what it shows.

The blocks of a page are one story, in one folder, which is empty but for the examples::

    .. code-block:: python
        :caption: hello.py

        any block with a caption that names a file is written there; `at the end of hello.py` is added to it

    .. code-block:: console

        $ python hello.py
        what it prints; `...` stands for anything

    .. code-block:: console
        :caption: Second terminal

        $ python worker.py
        a command under a caption goes on running: this is what it prints by and by

    .. code-block:: console
        :caption: Second terminal

        what it has printed since then
        ^C

A command whose output is not shown must succeed; `^C` ends a command, by SIGINT. Where the page starts `nats-server`,
it gets a free port; else the test's server is there. Web servers get free ports in place of 5000 and 8000. Commands
that install something are not run, but the names of extras in them are checked.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from natsync.testing import NatsServer
from natsync.testing.binary import find_server
from tests.support.pages import PAGES, ROOT, Block, blocks_of, with_url
from tests.support.waiting import TIME_FACTOR, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the terminals of the documentation are POSIX shells")

INSTALLS = re.compile(r"(pip|python -m venv|source|git|cd|make)\b|\. ")


FILE = re.compile(r"(at the end of )?([\w/.-]+\.\w+|Dockerfile|Procfile)")
# Files that frameworks find by themselves.
FOUND = {"models", "nats_handlers", "settings", "tests", "urls"}
WEB = re.compile(r"\b(?:5000|8000)\b")


def is_file(block: Block) -> bool:
    return block.language != "console" and bool(FILE.fullmatch(block.caption))


STORIES = {
    str(page.relative_to(ROOT)): story
    for page in PAGES
    if (story := [block for block in blocks_of(page) if block.language == "console" or is_file(block)])
}


class Terminal:
    """A shell's window: runs one command after the other, and knows what has been read of the output."""

    def __init__(self, folder: Path, environment: dict[str, str], number: int) -> None:
        self._folder = folder
        self._environment = environment
        self._screen = folder.parent / f"terminal-{number}"
        self._screen.touch()
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: str) -> None:
        assert not self.is_busy, f"the command before {command!r} still runs"
        self._read = len(self.output)
        with self._screen.open("ab") as screen:
            self._process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )

    @property
    def is_busy(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        return self._screen.read_text("utf-8", "replace")

    def expect(self, shown: str, where: str) -> None:
        """Wait until the output that was not read yet is what the page shows."""
        pattern = as_pattern(shown)
        try:
            found = eventually(lambda: pattern.match(self.output, self._read), 10.0)
        except AssertionError:
            pytest.fail(f"{where}: {self.output[self._read :]!r} is not {shown!r}")
        assert found is not None
        self._read = found.end()

    def wait(self, shown: str, where: str) -> None:
        """Wait for the command's end; its whole output is what the page shows, if it shows any."""
        assert self._process is not None
        status = self._process.wait(30.0 * TIME_FACTOR)
        printed = self.output[self._read :]
        if shown.strip():
            assert as_pattern(shown).fullmatch(printed), f"{where}: {printed!r} is not {shown!r}"
        else:
            assert status == 0, f"{where}: {printed}"
        self._read = len(self.output)

    def interrupt(self) -> None:
        if self._process is not None and self.is_busy:
            os.killpg(self._process.pid, signal.SIGINT)
            self._process.wait(10.0 * TIME_FACTOR)

    def close(self) -> None:
        try:
            self.interrupt()
        finally:
            if self._process is not None and self.is_busy:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def as_pattern(shown: str) -> re.Pattern[str]:
    """Make a regular expression of output in which `...` stands for anything, and alone in a line for no line, too."""
    shown = re.sub(r"^\.\.\.\n", "...", shown.strip() + "\n", flags=re.MULTILINE)
    pieces = map(re.escape, shown.rstrip("\n").split("..."))
    return re.compile(r"\s*" + ".*?".join(pieces) + r"[ \n]*", re.DOTALL)


class Story:
    """The terminals of one page, and the folder that they work in."""

    def __init__(self, folder: Path, url: str, environment: dict[str, str]) -> None:
        self.folder = folder
        self.url = url
        self._environment = environment
        self._terminals: dict[str, Terminal] = {}
        self._ports = {port: str(free) for port, free in zip(("5000", "8000"), free_ports(2), strict=True)}

    def play(self, block: Block) -> None:
        if is_file(block):
            self._write(block)
            return
        terminal = self._terminals.get(block.caption)
        if terminal is None:
            terminal = Terminal(self.folder, self._environment, len(self._terminals))
            self._terminals[block.caption] = terminal
        for typed, shown in steps_of(block):
            if typed == "^C":
                terminal.interrupt()
            elif typed and INSTALLS.match(typed):
                continue
            elif typed:
                terminal.start(self._here(typed))
            if block.caption:
                terminal.expect(self._here(shown), str(block))
            else:
                terminal.wait(self._here(shown), str(block))

    def _here(self, text: str) -> str:
        """Put the test's addresses in place of those of the page."""
        return WEB.sub(lambda port: self._ports[port[0]], with_url(text, self.url))

    def _write(self, block: Block) -> None:
        added, name = FILE.fullmatch(block.caption).groups()  # type: ignore[union-attr]
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if added else "w", encoding="utf-8") as file:
            file.write("\n" * bool(added) + with_url(block.code.text, self.url).strip() + "\n")

    def close(self) -> None:
        for terminal in reversed(self._terminals.values()):
            terminal.close()


def steps_of(block: Block) -> Iterator[tuple[str, str]]:
    """Return what is typed, and what is shown until something else is typed."""
    typed, shown = "", ""
    for line in block.code.text.strip().splitlines():
        if line.startswith("$ ") or line == "^C":
            if typed or shown:
                yield typed, shown
            typed, shown = line.removeprefix("$ "), ""
        elif typed.endswith("\\"):
            typed = typed[:-1] + line.strip()
        else:
            shown += line + "\n"
    yield typed, shown


def commands_of(story: list[Block]) -> list[str]:
    return [typed for block in story if block.language == "console" for typed, _ in steps_of(block)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", STORIES)
def test_a_page(nats_server: NatsServer, page: str, tmp_path: Path) -> None:
    story = STORIES[page]
    folder, programs = tmp_path / "work", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    url = nats_server.url
    if any(command.startswith("nats-server") for command in commands_of(story)):
        with NatsServer() as server:
            url = server.url  # free again in a moment
        wrapper = programs / "nats-server"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(find_server())} -a 127.0.0.1 -p {server.port} "$@"\n')
        wrapper.chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PATH": path, "NATS_URL": url, "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"}
    stage = Story(folder, url, environment)
    try:
        for block in story:
            stage.play(block)
    finally:
        stage.close()


@pytest.mark.parametrize("page", STORIES)
def test_every_file_of_a_page_is_used(page: str) -> None:
    story = STORIES[page]
    texts = [*commands_of(story), *(block.code.text for block in story if is_file(block))]
    for block in filter(is_file, story):
        stem = Path(block.caption.split()[-1]).stem
        assert stem in FOUND or any(
            re.search(rf"\b{re.escape(stem)}\b", text) for text in texts if text != block.code.text
        ), str(block)


def test_the_extras_that_are_named_exist() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    known = set(config["options.extras_require"])
    for page in PAGES:
        named = re.findall(r"(?:natsync|\.)\[([\w,]+)\]", page.read_text("utf-8"))
        assert {extra for names in named for extra in names.split(",")} <= known, page.name


def test_what_is_shown_is_compared_with_what_is_printed() -> None:
    assert as_pattern("a (b)\n...d\n").fullmatch("a (b)\nc\nd\n")
    assert not as_pattern("a (b)\n...d\n").fullmatch("a (b)\nc\n")
    assert not as_pattern("a").fullmatch("a\nb\n")
    assert as_pattern("...\na\n...\n").fullmatch("a\n")
    assert as_pattern("...\na\n...\n").fullmatch("b\na\nc\n")


def test_a_command_that_prints_something_else_fails(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    story = Story(tmp_path / "work", "nats://unused", dict(os.environ))
    page = tmp_path / "page.rst"
    page.write_text(".. code-block:: console\n\n    $ echo a \\\n        b\n    a b\n    $ echo c\n    d\n")
    (block,) = blocks_of(page)
    assert list(steps_of(block)) == [("echo a b", "a b\n"), ("echo c", "d\n")]
    block.page = PAGES[0]
    with pytest.raises(AssertionError, match="'c\\\\n' is not 'd\\\\n'"):
        story.play(block)
