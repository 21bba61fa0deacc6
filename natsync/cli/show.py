"""Messages for people, in colours where there is a terminal; or their bare data for programs."""

from __future__ import annotations

import os
import sys

import natsync

__all__ = ["Display", "wants_colours"]

# What a stranger sends must not reach the terminal as a command: control characters are shown, not obeyed.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_BOLD, _DIM, _PLAIN = "\033[1m", "\033[2m", "\033[0m"


def wants_colours() -> bool:
    """Say whether stdout is a terminal that shows colours, whose user has not asked for none (`NO_COLOR`)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return os.name == "posix" or "WT_SESSION" in os.environ


class Display:
    """Writes messages to stdout, each at once.

    Args:
        raw: Write the data alone, byte for byte, with a line break after each.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._coloured = wants_colours()
        self._shown = 0

    def show(self, msg: natsync.Msg) -> None:
        """Write a message."""
        self._shown += 1
        if self._raw:
            sys.stdout.buffer.write(msg.data + b"\n")
            sys.stdout.buffer.flush()
            return
        title = self._style(_BOLD, f"[{self._shown}] {_visible(msg.subject)}")
        if msg.reply:
            title += self._style(_DIM, f" reply to {_visible(msg.reply)}")
        lines = [title]
        if msg.headers is not None:
            lines += [self._style(_DIM, f"{_visible(name)}: {_visible(value)}") for name, value in msg.headers.items()]
            lines += [""] if msg.data else []
        if msg.data:
            lines.append(_visible(msg.data.decode("utf-8", "backslashreplace")))
        print("\n".join(lines), end="\n\n", flush=True)

    def _style(self, code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._coloured else text


def _visible(text: str) -> str:
    return text.translate(_VISIBLE)
