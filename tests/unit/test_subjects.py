from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsync.errors import BadQueueError, BadSubjectError
from natsync.subjects import (
    check_inbox_prefix,
    check_publish_subject,
    check_queue,
    check_subscribe_subject,
    encode_subject,
    subject_matches,
)

LITERAL = [
    "foo",
    "foo.bar",
    "a.b.c.d",
    "$SYS.REQ",
    "_INBOX.abc.1",
    "caf\u00e9",
    "a\u00a0b",
    "x" * 5000,
    "f\udcff",
    "-+/\"'",
]
WILDCARD = ["*", ">", "foo.*", "*.foo", "foo.>", "*.*.>", "foo.*.bar", "a*b", "foo.a>", "foo.b>c.d"]
INNER_GREATER = [">.foo", "foo.>.bar", ">.>", "foo.>.>"]
EMPTY_TOKEN = [".", "..", ".foo", "foo.", "foo..bar", "foo...bar", "foo.>."]
BREAKING = ["foo bar", " foo", "foo ", "foo\tbar", "foo\r\nPUB x 0", "foo\n", "\n", "foo\x00", "\x7f", "a.\x01.b"]


@pytest.mark.parametrize("subject", LITERAL + WILDCARD + INNER_GREATER)
def test_publish_takes(subject: str):
    check_publish_subject(subject)


@pytest.mark.parametrize("subject", LITERAL + WILDCARD)
def test_subscribe_takes(subject: str):
    check_subscribe_subject(subject)


@pytest.mark.parametrize("subject", ["", *EMPTY_TOKEN, *BREAKING])
@pytest.mark.parametrize("check", [check_publish_subject, check_subscribe_subject, check_inbox_prefix])
def test_bad_subject(check, subject: str):
    with pytest.raises(BadSubjectError) as caught:
        check(subject)
    reason = "is empty" if not subject else "empty token" if subject in EMPTY_TOKEN else "control characters"
    assert reason in str(caught.value)
    assert caught.value.option == ("inbox_prefix" if check is check_inbox_prefix else "subject")


@pytest.mark.parametrize("subject", INNER_GREATER)
def test_subscribe_refuses_an_inner_greater(subject: str):
    with pytest.raises(BadSubjectError, match="before its last token"):
        check_subscribe_subject(subject)


def test_publish_names_another_option():
    with pytest.raises(BadSubjectError, match=r"^reply is empty") as caught:
        check_publish_subject("", "reply")
    assert caught.value.option == "reply"


@pytest.mark.parametrize("queue", ["q", "workers.*", "a..b", ".", "caf\u00e9"])
def test_queue_takes(queue: str):
    check_queue(queue)


@pytest.mark.parametrize("queue", ["", *BREAKING])
def test_bad_queue(queue: str):
    with pytest.raises(BadQueueError, match=r"^queue ") as caught:
        check_queue(queue)
    assert caught.value.option == "queue"


@pytest.mark.parametrize("prefix", ["_INBOX", "my.inbox", "a"])
def test_inbox_prefix_takes(prefix: str):
    check_inbox_prefix(prefix)


@pytest.mark.parametrize("prefix", ["*", ">", "foo.*", "foo.>", "a*b"])
def test_bad_inbox_prefix(prefix: str):
    with pytest.raises(BadSubjectError, match="wildcard"):
        check_inbox_prefix(prefix)


@pytest.mark.parametrize("value", [None, b"foo", 5, ["foo"]])
@pytest.mark.parametrize("check", [check_publish_subject, check_subscribe_subject, check_queue, check_inbox_prefix])
def test_wrong_type(check, value: Any):
    with pytest.raises(TypeError, match=f"is {type(value).__name__}; it takes str"):
        check(value)


@pytest.mark.parametrize(
    "subject, encoded", [("foo", b"foo"), ("caf\u00e9", b"caf\xc3\xa9"), ("f\udcff.\udc80", b"f\xff.\x80")]
)
def test_encode(subject: str, encoded: bytes):
    assert encode_subject(subject) == encoded
    assert encoded.decode("utf-8", "surrogateescape") == subject


@pytest.mark.parametrize("subject", ["\ud800", "a\udfff", "b\udc00"])
def test_encode_refuses_other_lone_surrogates(subject: str):
    with pytest.raises(BadSubjectError, match="lone surrogate") as caught:
        encode_subject(subject)
    assert caught.value.option == "subject"


@pytest.mark.parametrize(
    "pattern, subject, expected",
    [
        ("foo", "foo", True),
        ("foo", "Foo", False),
        ("foo", "foo.bar", False),
        ("foo.bar", "foo", False),
        ("foo.*", "foo.bar", True),
        ("foo.*", "foo", False),
        ("foo.*", "foo.bar.baz", False),
        ("*.bar", "foo.bar", True),
        ("*", "foo", True),
        ("foo.*.baz", "foo.bar.baz", True),
        ("foo.*.baz", "foo.bar.bax", False),
        (">", "foo", True),
        (">", "foo.bar", True),
        ("foo.>", "foo", False),
        ("foo.>", "foo.bar", True),
        ("foo.>", "foo.bar.baz", True),
        ("foo.>", "fox.bar", False),
        ("*.>", "foo.bar.baz", True),
        ("*.>", "foo", False),
        ("a*", "ab", False),
        ("a*", "a*", True),
        ("a>", "ab", False),
    ],
)
def test_matches(pattern: str, subject: str, expected: bool):
    assert subject_matches(pattern, subject) is expected


@given(st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4), st.booleans(), st.text("ab.", max_size=8))
def test_matches_as_a_regex_does(tokens: list[str], tail: bool, subject: str):
    tokens = [*tokens, ">"] if tail else tokens
    regex = r"\.".join({"*": r"[^.]*", ">": r".*"}.get(token, token) for token in tokens)
    assert subject_matches(".".join(tokens), subject) is (re.fullmatch(regex, subject) is not None)


@given(st.text(max_size=20))
def test_what_passes_keeps_its_line_whole(subject: str):
    """Whatever is let through is one word on its line, and keeps all its tokens."""
    try:
        check_publish_subject(subject)
        encoded = encode_subject(subject)
    except BadSubjectError:
        return
    assert encoded.split() == [encoded]
    assert all(subject.split("."))
