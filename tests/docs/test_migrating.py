"""The page for those who come from nats-py has all names of nats-py, and says what natsync really has."""

from __future__ import annotations

import dataclasses
import inspect
import re

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

import natsync
from natsync.policy.options import Options
from tests.support.pages import ROOT, code_in, rows_of

PAGE = ROOT / "docs" / "howto" / "migrating.rst"


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


THEIRS = {
    "Options of connect()": set(inspect.signature(Client.connect).parameters) - {"self"},
    "The client": public(Client) | {"stats"},
    "Subscriptions": public(Subscription),
    "Messages": public(Msg),
    "Errors": {
        name
        for name, kind in vars(nats.errors).items()
        if inspect.isclass(kind) and issubclass(kind, nats.errors.Error)
    },
}
OURS = {
    "Options of connect()": {field.name for field in dataclasses.fields(Options)},
    "The client": public(natsync.Client)
    | {"natsync.connect", "Status", "server_info.version", "server_info.client_ip"},
    "Subscriptions": public(natsync.Subscription) | {"__iter__"},
    "Messages": public(natsync.Msg),
    "Errors": set(natsync.errors.__all__),
}


def table_of(section: str) -> list[list[str]]:
    page = PAGE.read_text("utf-8")
    text = re.split(rf"^{re.escape(section)}\n~+\n", page, flags=re.MULTILINE)[1]
    return rows_of(re.split(r"^~+$", text, flags=re.MULTILINE)[0])


@pytest.mark.parametrize("section", THEIRS)
def test_the_table_has_all_names_of_nats_py_and_true_ones_of_natsync(section: str) -> None:
    rows = table_of(section)
    theirs = [name.removesuffix("()") for row in rows for name in code_in(row[0])]
    assert sorted(theirs) == sorted(THEIRS[section])
    for row in rows:
        ours = code_in(row[0]) if row[1] == "(same)" else code_in(row[1])
        assert ours or row[1] in ("not yet", "not needed"), row
        assert {name.removesuffix("()") for name in ours} <= OURS[section], row
