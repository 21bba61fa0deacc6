"""A `concurrent.futures.Future` that costs little when it is done before anybody waits for it.

The standard one makes a condition for each future, and locks it to set the result and to read it. Most replies are
there before anybody waits, so here the condition, and the lists that it guards, are made at the first need. Knows
nothing of NATS.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["LeanFuture"]

_Result = TypeVar("_Result")


class _Settled:
    """The condition of a future that was done before it had one: there is nothing to guard any more."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass


_SETTLED = _Settled()
_MADE_WHEN_NEEDED = {"_condition": threading.Condition, "_waiters": list, "_done_callbacks": list}


class LeanFuture(Future[_Result]):
    """See the module.

    The names are those of the standard class, whose methods, and `concurrent.futures.wait`, go on with them. Who comes
    first decides, in one step: a waiter, who enters a condition, or the result, which enters `_SETTLED` in its place.
    """

    _result: _Result | None = None
    _exception: BaseException | None = None
    _unsettled_state = "PENDING"

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        make = _MADE_WHEN_NEEDED.get(name)
        if make is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.__dict__.setdefault(name, make())

    @property
    def _state(self) -> str:
        return "FINISHED" if self.__dict__.get("_condition") is _SETTLED else self._unsettled_state

    @_state.setter
    def _state(self, state: str) -> None:
        self._unsettled_state = state

    def set_result(self, result: _Result) -> None:
        """Complete it; as the standard class, but for that it must not have been completed before."""
        self._result = result
        if self.__dict__.setdefault("_condition", _SETTLED) is not _SETTLED:
            super().set_result(result)
