"""What the pages of the documentation show: their blocks, each with its hidden companions.

A block may have hidden companions in the source of its page, as comments of reStructuredText; `tests/docs` says what
they are for::

    .. prelude:
        what runs before it

    .. code-block:: python
        :caption: hello.py

        the block

    .. afterwards:
        what runs after it
"""

from __future__ import annotations

import dataclasses
import itertools
import linecache
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
# Where nothing of ours is, and a page that starts servers of its own: tests/docs/test_security_page.py.
ELSEWHERE = {ROOT / "docs" / "security.rst", *(ROOT / "docs" / "_build").rglob("*.rst")}
PAGES = [ROOT / "README.rst", *sorted(set((ROOT / "docs").rglob("*.rst")) - ELSEWHERE)]
URLS = ("nats://127.0.0.1:4222", "nats://a:4222")

_headline = re.compile(r"\s*\.\. (?:code-block|code|sourcecode):: *(\w+)$")
_option = re.compile(r":([\w-]+): *(.*)")


def with_url(text: str, url: str) -> str:
    """Put the test's server in place of those that the documentation names."""
    for placeholder in URLS:
        text = text.replace(placeholder, url)
    return text


@dataclasses.dataclass(frozen=True)
class Part:
    """Some lines, and the number of the first one."""

    line: int
    text: str

    def compile(self, page: Path, url: str = "") -> Any:
        """Compile the part so that tracebacks name its page and show its lines."""
        text = with_url(self.text, url)
        name = f"{page.relative_to(ROOT)}:{self.line}"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        return compile(text, name, "exec")


NOTHING = Part(1, "")


@dataclasses.dataclass
class Block:
    page: Path
    language: str
    code: Part
    caption: str = ""
    prelude: Part = NOTHING
    afterwards: Part = NOTHING
    own_process: bool = False

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.code.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Find the blocks of a page, each with its companions."""
    lines = page.read_text("utf-8").splitlines()
    prelude, own_process = NOTHING, False
    block: Block | None = None
    for number, line in enumerate(lines):
        text = line.strip()
        headline = _headline.match(line)
        if text == ".. prelude:":
            prelude = _part_after(lines, number)
        elif text == ".. own process":
            own_process = True
        elif text == ".. afterwards:":
            assert block is not None, f"{page.name}:{number + 1}: there is no block before this"
            block.afterwards = _part_after(lines, number)
        elif headline:
            if block is not None:
                yield block
            caption, code = _without_options(_part_after(lines, number))
            block = Block(page, headline[1], code, caption, prelude, own_process=own_process)
            prelude, own_process = NOTHING, False
        else:
            assert not re.match(r"\.\. (prelude|afterwards|own)", text), f"{page.name}:{number + 1}: misspelt"
    if block is not None:
        yield block


def _part_after(lines: list[str], number: int) -> Part:
    """Return what is indented more than the line of that number, which is the part's headline."""
    margin = _indentation(lines[number])
    body = itertools.takewhile(lambda line: not line.strip() or _indentation(line) > margin, lines[number + 1 :])
    return Part(number + 2, textwrap.dedent("\n".join(body)))


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_options(part: Part) -> tuple[str, Part]:
    """Return the caption, and the part without the options of its directive."""
    lines = part.text.split("\n")
    options = {match[1]: match[2] for match in itertools.takewhile(bool, map(_option.match, lines)) if match}
    text = "\n".join(lines[len(options) :])
    return options.get("caption", ""), Part(part.line + len(options), text)


def rows_of(page: str) -> list[list[str]]:
    """Return the rows of the list-tables in a page's text, without the headlines, each as the text of its cells."""
    rows: list[list[str]] = []
    in_row = False
    for line in page.splitlines():
        cell = re.match(r"    (\* |  )-(?: (.*))?$", line)
        if cell:
            if cell[1] == "* ":
                rows.append([])
            rows[-1].append(cell[2] or "")
            in_row = True
        elif in_row and line.startswith(" " * 8):
            rows[-1][-1] += " " + line.strip()
        else:
            in_row = False
    return [row for row in rows if row[0].startswith("``")]


def code_in(cell: str) -> list[str]:
    return re.findall(r"``(.*?)``", cell)
