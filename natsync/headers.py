"""Message headers: an ordered multi-map of text, as users see it.

Floor 0: imports only `natsync.errors` and the standard library. Knows which names and values may be written, but not
how a header block looks on the wire; that is `natsync.protocol.header_block`.

Names are case-sensitive and keep their case; one name may have several values [ADR-4]. What a user puts in is checked
and refused, never repaired: a value with a line break would let whoever chose the value add headers of his own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from natsync.errors import BadHeaderError

__all__ = ["HeaderInput", "Headers"]

HeaderInput = Mapping[str, "str | Sequence[str]"]

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_line_breaker = re.compile(r"[\r\n\0]").search


class Headers:
    """The headers of one message: names in order, each with one or more values.

    Args:
        headers: A mapping of `str` to `str` or to a sequence of `str`, or an iterable of (name, value) pairs.
        status: The inline status, three digits, which servers send (`503` is "no responders").
        description: The words after the status.

    Indexing, `get` and `in` go by name and see the first value; `items`, `values` and `len` count every value.
    Iteration is over the distinct names. Two `Headers` are equal when status, description and each name's values are;
    the order of different names does not count.

    Raises:
        TypeError: A name or value is not text.
        BadHeaderError: A name is no RFC 7230 token, or a value has a line break or NUL.
    """

    __slots__ = ("_description", "_status", "_values")

    # Mutable, so not hashable.
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        headers: Headers | HeaderInput | Iterable[tuple[str, str]] | None = None,
        *,
        status: int | None = None,
        description: str | None = None,
    ) -> None:
        self._values: dict[str, list[str]] = {}
        self._status = _checked_status(status)
        self._description = None if description is None else _checked_value("description", description)
        if isinstance(headers, Mapping):
            for name, value in headers.items():
                self[name] = value
        elif headers is not None:
            for name, value in _checked_pairs(headers):
                self.add(name, value)

    @classmethod
    def unchecked(cls, pairs: Iterable[tuple[str, str]], status: int | None, description: str | None) -> Headers:
        """Make headers of what a server sent: whatever other clients may have written there is kept as it is."""
        self = cls.__new__(cls)
        self.__setstate__((pairs, status, description))
        return self

    @property
    def status(self) -> int | None:
        """The inline status, or None."""
        return self._status

    @property
    def description(self) -> str | None:
        """The words after the status, or None."""
        return self._description

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def __setitem__(self, name: str, value: str | Sequence[str]) -> None:
        """Replace all values of a name, which keeps its place; a sequence of no values removes the name."""
        values = [value] if isinstance(value, str) else _checked_sequence(name, value)
        checked = [_checked_value(name, each) for each in values]
        if checked:
            self._values[_checked_name(name)] = checked
        else:
            self._values.pop(name, None)

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return sum(map(len, self._values.values()))

    def __bool__(self) -> bool:
        # A block of nothing but a status is not nothing.
        return bool(self._values) or self._status is not None

    def add(self, name: str, value: str) -> None:
        """Append one more value to a name.

        Raises:
            BadHeaderError: The name or the value cannot be written.
        """
        checked = _checked_value(name, value)
        self._values.setdefault(_checked_name(name), []).append(checked)

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of a name, or `default`."""
        values = self._values.get(name)
        return values[0] if values else default

    def get_all(self, name: str) -> list[str]:
        """Return all values of a name, in order; none is an empty list."""
        return list(self._values.get(name, ()))

    def keys(self) -> list[str]:
        """Return the distinct names, in order of their first appearance."""
        return list(self._values)

    def values(self) -> list[str]:
        """Return every value, in the order of `items`."""
        return [value for values in self._values.values() for value in values]

    def items(self) -> list[tuple[str, str]]:
        """Return a (name, value) pair for every value; the values of one name stand together."""
        return [(name, value) for name, values in self._values.items() for value in values]

    def copy(self) -> Headers:
        """Return an independent copy."""
        return Headers.unchecked(*self.__getstate__())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            mine, theirs = (self._status, self._description), (other._status, other._description)
            return mine == theirs and self._values == other._values
        if isinstance(other, Mapping):
            return self._status is None and self._values == {name: _as_list(value) for name, value in other.items()}
        return NotImplemented

    def __repr__(self) -> str:
        parts = [repr(self.items())]
        if self._status is not None:
            parts.append(f"status={self._status}")
        if self._description is not None:
            parts.append(f"description={self._description!r}")
        return f"Headers({', '.join(parts)})"

    def __getstate__(self) -> tuple[list[tuple[str, str]], int | None, str | None]:
        return (self.items(), self._status, self._description)

    def __setstate__(self, state: tuple[Iterable[tuple[str, str]], int | None, str | None]) -> None:
        pairs, self._status, self._description = state
        self._values = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)


def _as_list(value: object) -> object:
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, Sequence) else value


def _checked_pairs(headers: Any) -> Iterable[tuple[str, str]]:
    if isinstance(headers, Headers):
        return headers.items()
    # A string is an iterable too, and would fail later with a riddle.
    if isinstance(headers, Iterable) and not isinstance(headers, (str, bytes)):
        return headers
    raise TypeError(f"headers is {type(headers).__name__}; it takes a mapping, or (name, value) pairs")


def _checked_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a header's name is {type(name).__name__}; it takes str")
    if not _is_token(name):
        raise BadHeaderError(
            f"header name {name!r}: it takes letters, digits and any of !#$%&'*+-.^_`|~", option="headers"
        )
    return name


def _checked_value(name: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the value of header {name!r} is {type(value).__name__}; it takes str, or a sequence of str")
    breaker = _line_breaker(value)
    if breaker:
        raise BadHeaderError(
            f"the value of header {name!r} has {breaker.group()!r} at {breaker.start()}: CR, LF and NUL cannot be sent",
            option="headers",
        )
    return value


def _checked_sequence(name: Any, values: Any) -> Sequence[Any]:
    # bytes are a sequence, of numbers: never what was meant.
    if isinstance(values, Sequence) and not isinstance(values, (bytes, bytearray, memoryview)):
        return values
    raise TypeError(f"the value of header {name!r} is {type(values).__name__}; it takes str, or a sequence of str")


def _checked_status(status: Any) -> int | None:
    if status is None:
        return None
    if not isinstance(status, int) or isinstance(status, bool):
        raise TypeError(f"status is {type(status).__name__}; it takes int or None")
    if not 100 <= status <= 999:
        raise BadHeaderError(f"status {status}: it takes three digits", option="status")
    return status
