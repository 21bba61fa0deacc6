from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from natsync.errors import BadHeaderError, ConfigError
from natsync.headers import Headers


@pytest.fixture
def headers() -> Headers:
    return Headers([("a", "1"), ("B", "2"), ("a", "3")])


@pytest.mark.parametrize(
    "given, pairs",
    [
        (None, []),
        ({}, []),
        ([], []),
        ({"a": "1"}, [("a", "1")]),
        ({"a": ["1", "2"], "b": ("3",)}, [("a", "1"), ("a", "2"), ("b", "3")]),
        ({"a": []}, []),
        ([("a", "1"), ("A", "2"), ("a", "3")], [("a", "1"), ("a", "3"), ("A", "2")]),
        ((pair for pair in [("a", "1")]), [("a", "1")]),
        (Headers({"a": ["1", "2"]}), [("a", "1"), ("a", "2")]),
        ({"!#$%&'*+-.^_`|~09AZaz": ""}, [("!#$%&'*+-.^_`|~09AZaz", "")]),
        ({"a": " \t\x01\x7fü\u2028 "}, [("a", " \t\x01\x7fü\u2028 ")]),
    ],
)
def test_construction(given: Any, pairs: list[tuple[str, str]]):
    assert Headers(given).items() == pairs


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", ":", "a\r\nb", "ä", "a\x00", "a\x7f", "(a)", "a\n"])
def test_bad_name(name: str):
    with pytest.raises(BadHeaderError, match="header name") as caught:
        Headers({name: "x"})
    assert repr(name) in str(caught.value)
    assert caught.value.option == "headers"
    with pytest.raises(BadHeaderError):
        Headers().add(name, "x")


@pytest.mark.parametrize("value", ["\r", "\n", "a\r\nInjected: yes", "a\x00", "x\n"])
def test_bad_value(value: str):
    headers = Headers()
    for attempt in (
        lambda: Headers({"a": value}),
        lambda: Headers({"a": ["good", value]}),
        lambda: Headers([("a", value)]),
        lambda: Headers(status=100, description=value),
        lambda: headers.add("a", value),
        lambda: headers.__setitem__("a", value),
    ):
        with pytest.raises(BadHeaderError, match="CR, LF and NUL") as caught:
            attempt()
        assert isinstance(caught.value, ConfigError)
        assert caught.value.option == "headers"
    assert not headers


@pytest.mark.parametrize(
    "given",
    [
        "a: b",
        b"a: b",
        5,
        {1: "x"},
        {"a": 1},
        {"a": None},
        {"a": b"x"},
        {"a": ["x", b"y"]},
        {"a": bytearray(b"x")},
        {"a": memoryview(b"x")},
        {"a": {"b"}},
        [("a", 1)],
        [(1, "a")],
    ],
)
def test_wrong_type(given: Any):
    with pytest.raises(TypeError):
        Headers(given)


def test_status():
    headers = Headers(status=503, description="No Responders")
    assert (headers.status, headers.description) == (503, "No Responders")
    assert (Headers().status, Headers().description) == (None, None)
    with pytest.raises(AttributeError):
        headers.description = "a\r\nInjected: yes"  # type: ignore[misc]


@pytest.mark.parametrize("status", [0, 99, 1000, -503])
def test_bad_status(status: int):
    with pytest.raises(BadHeaderError, match="three digits"):
        Headers(status=status)


@pytest.mark.parametrize("status", ["503", 503.0, True])
def test_wrong_status(status: Any):
    with pytest.raises(TypeError, match="status"):
        Headers(status=status)


def test_reading(headers: Headers):
    assert headers["a"] == "1"
    assert headers.get("a") == "1"
    assert headers.get("b") is None
    assert headers.get("b", "none") == "none"
    assert headers.get_all("a") == ["1", "3"]
    assert headers.get_all("b") == []
    assert "B" in headers
    assert "b" not in headers
    assert 5 not in headers
    assert len(headers) == 3
    assert list(headers) == headers.keys() == ["a", "B"]
    assert headers.items() == [("a", "1"), ("a", "3"), ("B", "2")]
    assert headers.values() == ["1", "3", "2"]
    with pytest.raises(KeyError, match="b"):
        headers["b"]


def test_what_is_returned_is_a_copy(headers: Headers):
    headers.get_all("a").append("x")
    headers.keys().append("x")
    assert headers == {"a": ["1", "3"], "B": "2"}


def test_writing(headers: Headers):
    headers["a"] = "4"
    assert headers.items() == [("a", "4"), ("B", "2")]
    headers["a"] = ["5", "6"]
    headers["c"] = "7"
    assert headers.items() == [("a", "5"), ("a", "6"), ("B", "2"), ("c", "7")]
    headers["a"] = []
    headers["never"] = []
    assert list(headers) == ["B", "c"]
    del headers["B"]
    assert headers.items() == [("c", "7")]
    with pytest.raises(KeyError):
        del headers["B"]


def test_a_refused_write_changes_nothing(headers: Headers):
    with pytest.raises(BadHeaderError):
        headers["a"] = ["x", "\n"]
    assert headers.get_all("a") == ["1", "3"]


def test_truth():
    assert not Headers()
    assert Headers({"a": ""})
    assert Headers(status=100)


def test_equality(headers: Headers):
    assert headers == Headers([("B", "2"), ("a", "1"), ("a", "3")])
    assert headers == {"a": ("1", "3"), "B": "2"}
    assert headers != Headers([("B", "2"), ("a", "3"), ("a", "1")])
    assert headers != {"a": ["1", "3"], "b": "2"}
    assert headers != {"a": ["1", "3"], "B": 2}
    assert headers != [("a", "1")]
    assert Headers(status=100) != Headers()
    assert Headers(status=100) != {}
    assert Headers(status=100, description="x") != Headers(status=100)


def test_not_hashable(headers: Headers):
    with pytest.raises(TypeError):
        hash(headers)


def test_repr(headers: Headers):
    assert repr(headers) == "Headers([('a', '1'), ('a', '3'), ('B', '2')])"
    assert repr(Headers(status=503, description="No")) == "Headers([], status=503, description='No')"


def test_copies_are_independent(headers: Headers):
    clones = [headers.copy(), Headers(headers), copy.copy(headers), copy.deepcopy(headers)]
    clones += [pickle.loads(pickle.dumps(headers, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for clone in clones:
        assert clone == headers
        clone.add("a", "x")
    assert headers.get_all("a") == ["1", "3"]


def test_copies_keep_the_status():
    headers = Headers({"a": "b"}, status=503, description="No Responders")
    for clone in (headers.copy(), pickle.loads(pickle.dumps(headers))):
        assert clone == headers


def test_unchecked_takes_what_a_server_sent():
    headers = Headers.unchecked([("a b", "x\ry"), ("ä", ""), ("a b", "z")], 42, "odd")
    assert headers.items() == [("a b", "x\ry"), ("a b", "z"), ("ä", "")]
    assert (headers.status, headers.description) == (42, "odd")
    assert pickle.loads(pickle.dumps(headers)) == headers == headers.copy()


def test_no_attribute_can_be_added():
    with pytest.raises(AttributeError):
        Headers().other = 1  # type: ignore[attr-defined]
