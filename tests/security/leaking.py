"""The search for secrets in all that a client shows: logs, errors with their whole chains, events, `repr`, stderr."""

from __future__ import annotations

import json
import logging
import pickle
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from natsync import NatsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from natsync import Client

_SHORT = 6  # a text of fewer characters is found anywhere by chance
_PIECE = 16  # of a long secret even a part must not be shown
_MOST = 10_000  # bytes of a file that may be secrets; what is larger is a test of that
_SECRET_OPTIONS = ("password", "token", "nkeys_seed_str", "user_credentials_str", "tls_key_password")
_SECRET_FILES = ("nkeys_seed", "user_credentials")


class Searcher(logging.Handler):
    """Knows the secrets of a test and collects what is shown; put it on a logger to have what that logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._secrets: set[str] = set()
        self._public: set[str] = set()
        self._shown: list[tuple[str, str]] = []

    # Secrets

    def add_secret(self, *texts: str | bytes) -> None:
        """Search for these too; of a text with several long words, for each of them."""
        for text in texts:
            text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
            long_words = [word for word in re.split(r"[\s.]+", text) if len(word) > 24 and word[0] not in "-*"]
            for word in long_words or [text.strip()]:
                self._secrets.update(_pieces(word))

    def add_options(self, servers: str | Iterable[str] | None, options: dict[str, Any]) -> None:
        """Search for what these arguments of `connect()` hold, and the files that they name."""
        for name in _SECRET_OPTIONS:
            if isinstance(options.get(name), (str, bytes)):
                self.add_secret(options[name])
        for name in _SECRET_FILES:
            paths = options.get(name)
            for path in paths if isinstance(paths, (tuple, list)) else [paths]:
                self._add_file(path)
        for url in [servers] if isinstance(servers, str) else servers or []:
            self._add_url(url)
        if isinstance(options.get("user"), str):
            self._public.update(_pieces(options["user"]))  # an option that says who, not how

    def _add_file(self, path: Any) -> None:
        try:
            with Path(path).expanduser().open("rb") as file:
                self.add_secret(file.read(_MOST))
        except (OSError, TypeError, ValueError):
            pass  # no such file, or no path at all: that is what the test is about

    def _add_url(self, urls: str) -> None:
        for url in urls.split(","):
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            for text in (parts.username, parts.password):
                if text:
                    self.add_secret(text, unquote(text))

    # What is shown

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record, its arguments, and its exception."""
        self.show("log", self.format(record), repr(record.args))
        if record.exc_info and record.exc_info[1]:
            self.show_error(record.exc_info[1])

    def show(self, where: str, *texts: str) -> None:
        """Take texts that a user, or whoever reads the logs, can see."""
        self._shown.extend((where, text) for text in texts)

    def show_error(self, error: BaseException | None) -> None:
        """Take an error with its attributes, all that led to it, and what is left of it after pickling."""
        if error is None:
            return
        for each in _chain(error):
            where = type(each).__name__
            self.show(where, str(each), repr(each), repr(each.args), repr(vars(each)))
            if isinstance(each, NatsError):
                pickled = pickle.dumps(each)
                again = pickle.loads(pickled)
                assert (type(again), str(again)) == (type(each), str(each))
                self.show(f"pickled {where}", pickled.decode("utf-8", "replace"), repr(again.__cause__))
        self.show("traceback", "".join(traceback.format_exception(type(error), error, error.__traceback__)))

    def show_event(self, event: Any) -> None:
        self.show("event", str(event), repr(event))
        self.show_error(event.error)

    def show_client(self, client: Client) -> None:
        """Take what a client tells about itself, and its options."""
        facts = ("servers", "discovered_servers", "connected_url", "server_info", "stats", "status")
        self.show("client", str(client), repr(client), *(repr(getattr(client, fact)) for fact in facts))
        self.show("options", str(client._options), repr(client._options))
        self.show_error(client.last_error)

    # The search

    @property
    def shown(self) -> str:
        """All that was shown, for tests that want to see something in it."""
        return "\n".join(text for _, text in self._shown)

    def leaks(self) -> list[str]:
        """Return what was shown and holds a secret."""
        found = []
        wanted = self._secrets - self._public
        for where, text in self._shown:
            secrets = sorted(secret for secret in wanted if secret in text)
            if secrets:
                found.append(f"{where} shows {secrets[0]!r}: {text}")
        return found


def _pieces(secret: str) -> Iterator[str]:
    if len(secret) < _SHORT:
        return
    if len(secret) <= 2 * _PIECE:
        yield from {secret, quote(secret, safe="", errors="replace"), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
        return
    for begin in range(0, len(secret) - _PIECE + 1, _PIECE):
        yield secret[begin : begin + _PIECE]


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        each = queue.pop()
        if each is None or any(each is known for known in found):
            continue
        found.append(each)
        queue += [each.__cause__, each.__context__]
        if isinstance(each, NatsError):
            queue += each.errors.values()
    return found
