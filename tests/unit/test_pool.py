"""Which servers there are and which is next; mostly what nats.go does."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from natsync.policy.pool import Server, ServerPool
from natsync.policy.urls import parse_servers, parse_url

if TYPE_CHECKING:
    from collections.abc import Sequence

THREE = "a:1,b:2,c:3"


def make_pool(servers: str, *, seed: int | None = None) -> ServerPool:
    """A pool in the order given, or shuffled by a seeded source of chance."""
    rng = None if seed is None else random.Random(seed)
    return ServerPool(parse_servers(servers), randomize=rng is not None, rng=rng)


def hosts(pool: ServerPool | Sequence[Server]) -> str:
    servers = pool.snapshot() if isinstance(pool, ServerPool) else pool
    return "".join(server.url.host for server in servers)


def attempts_of_an_outage(pool: ServerPool, lost: Server | None, limit: int | None, most: int = 100) -> str:
    """Walk until the pool is used up or `most` attempts have failed; return who was tried, in order."""
    tried = ""
    current = lost
    for _ in range(most):
        current = pool.next_server(current, limit)
        if current is None:
            break
        current.attempts += 1
        tried += current.url.host
    return tried


# The order.


def test_without_chance_the_order_is_the_one_given():
    assert hosts(make_pool("c,a,b")) == "cab"
    assert len(make_pool("c,a,b")) == 3


def test_with_chance_the_first_one_stays_first():
    orders = Counter(hosts(make_pool("a,b,c,d", seed=seed)) for seed in range(300))
    assert {order[0] for order in orders} == {"a"}
    assert {"".join(sorted(order)) for order in orders} == {"abcd"}
    assert len(orders) == 6, "every order of the others"


def test_without_a_given_source_chance_is_its_own():
    urls = parse_servers("a,b,c,d,e,f,g,h")
    assert len({hosts(ServerPool(urls, randomize=True)) for _ in range(20)}) > 1


def test_a_snapshot_does_not_change_with_the_pool():
    pool = make_pool(THREE)
    snapshot = pool.snapshot()
    pool.next_server(snapshot[0], 0)
    assert hosts(snapshot) == "abc"
    assert hosts(pool) == "bc"


def test_an_address_is_found_whatever_the_credentials():
    pool = make_pool("joe:pw@a:1,b:2")
    assert pool.find(parse_url("tls://token@a:1")) is pool.snapshot()[0]
    assert pool.find(parse_url("a:2")) is None


# The next one.


def test_the_lost_server_goes_to_the_tail():
    pool = make_pool(THREE)
    lost = pool.snapshot()[0]
    server = pool.next_server(lost, None)
    assert server is not None
    assert server.url.host == "b"
    assert hosts(pool) == "bca"


def test_without_a_lost_server_the_head_is_next():
    pool = make_pool(THREE)
    assert pool.next_server(None, None) is pool.snapshot()[0]
    assert hosts(pool) == "abc"


@pytest.mark.parametrize(
    "servers, limit, tried",
    [
        (THREE, 0, "bc"),
        (THREE, 1, "bca"),
        (THREE, 2, "bcabca"),
        (THREE, 6, "bca" * 6),
        ("a", 0, ""),
        ("a", 1, "a"),
        ("a", 3, "aaa"),
        ("a,b", 0, "b"),
        ("a,b", 2, "baba"),
    ],
)
def test_each_server_is_tried_so_many_times_and_with_none_the_lost_one_never(servers: str, limit: int, tried: str):
    pool = make_pool(servers)
    assert attempts_of_an_outage(pool, pool.snapshot()[0], limit) == tried
    assert len(pool) == 0
    assert pool.next_server(None, limit) is None


def test_without_a_limit_the_walk_goes_round_for_ever():
    pool = make_pool(THREE)
    assert attempts_of_an_outage(pool, pool.snapshot()[0], None, 9) == "bca" * 3
    assert len(pool) == 3


@pytest.mark.parametrize("limit, tried", [(0, "abc"), (1, "abc"), (2, "abcabc")])
def test_before_there_ever_was_a_connection_nobody_is_lost(limit: int, tried: str):
    assert attempts_of_an_outage(make_pool(THREE), None, limit) == tried


def test_what_was_tried_before_a_success_does_not_count_after_it():
    pool = make_pool(THREE)
    a, b, c = pool.snapshot()
    assert attempts_of_an_outage(pool, a, 6, 4) == "bcab"
    b.attempts = 0  # a success
    assert (a.attempts, c.attempts) == (1, 1)
    tried = attempts_of_an_outage(pool, b, 2)
    assert Counter(tried) == {"a": 1, "b": 2, "c": 1}


def test_a_lost_server_that_is_not_in_the_pool_any_more_is_not_put_back():
    pool = make_pool(THREE)
    gone = Server(parse_url("x:9"))
    assert pool.next_server(gone, None) is pool.snapshot()[0]
    assert hosts(pool) == "abc"


@pytest.mark.parametrize("limit, left", [(None, "abc"), (0, "a"), (1, "a"), (2, "ab"), (3, "abc")])
def test_used_up_servers_can_be_dropped(limit: int | None, left: str):
    pool = make_pool(THREE)
    for attempts, server in enumerate(pool.snapshot()):
        server.attempts = attempts
    pool.drop_exhausted(None, limit)
    assert hosts(pool) == left


@pytest.mark.parametrize("limit, left", [(None, "abc"), (0, "bc"), (1, "abc")])
def test_the_lost_server_has_no_attempt_when_there_are_none(limit: int | None, left: str):
    pool = make_pool(THREE)
    pool.drop_exhausted(pool.snapshot()[0], limit)
    assert hosts(pool) == left


# What a server says of its cluster.


def test_servers_never_seen_are_appended_and_returned():
    pool = make_pool("a:1,b:2")
    current = pool.snapshot()[0]
    fresh = pool.merge(["b:2", "c:3", "d:4", "c:3"], current)
    assert hosts(fresh) == "cd"
    assert hosts(pool) == "abcd"
    assert [server.discovered for server in pool.snapshot()] == [False, False, True, True]


def test_discovered_servers_that_are_not_named_any_more_go_but_no_configured_one():
    pool = make_pool("a:1,b:2")
    current = pool.snapshot()[0]
    pool.merge(["c:3", "d:4"], current)
    assert pool.merge(["d:4"], current) == []
    assert hosts(pool) == "abd"
    assert pool.merge(["e:5"], current)
    assert hosts(pool) == "abe"


def test_the_current_server_stays_also_when_it_is_not_named():
    pool = make_pool("a:1")
    pool.merge(["b:2", "c:3"], pool.snapshot()[0])
    current = pool.find(parse_url("b:2"))
    assert current is not None
    pool.merge(["c:3"], current)
    assert hosts(pool) == "abc"
    pool.merge(["c:3"], pool.snapshot()[0])
    assert hosts(pool) == "ac"


@pytest.mark.parametrize("named", [[], ["http://x"], ["", "x:port", "x:0", "[::1"]])
def test_who_names_nobody_says_nothing(named: list[str]):
    pool = make_pool("a:1")
    current = pool.snapshot()[0]
    pool.merge(["b:2"], current)
    assert pool.merge(named, current) == []
    assert hosts(pool) == "ab"


def test_urls_that_cannot_be_read_cost_the_others_nothing():
    pool = make_pool("a:1")
    assert hosts(pool.merge(["x:port", "b:2", "http://c", "\x00"], pool.snapshot()[0])) == "b"


def test_a_server_is_reported_the_first_time_only():
    """One that leaves and comes back is no news."""
    pool = make_pool("a:1")
    current = pool.snapshot()[0]
    assert hosts(pool.merge(["a:1", "b:2"], current)) == "b"
    pool.merge(["a:1"], current)
    assert hosts(pool) == "a"
    assert pool.merge(["a:1", "b:2"], current) == []
    assert hosts(pool) == "ab"


def test_a_configured_server_that_was_used_up_comes_back_without_being_news():
    pool = make_pool("a:1,b:2")
    b = pool.snapshot()[1]
    pool.next_server(b, 0)
    assert hosts(pool) == "a"
    assert pool.merge(["b:2"], pool.snapshot()[0]) == []
    assert hosts(pool) == "ab"


@pytest.mark.parametrize(
    "current, named, url, credentials, tls_name",
    [
        ("a:1", "b:2", "nats://b:2", (None, None, None), None),
        ("joe:pw@a:1", "b:2", "nats://b:2", ("joe", "pw", None), None),
        ("token@a:1", "b:2", "nats://b:2", (None, None, "token"), None),
        ("joe:pw@a:1", "other:creds@b:2", "nats://b:2", ("joe", "pw", None), None),
        ("tls://a:1", "b:2", "tls://b:2", (None, None, None), None),
        ("tls://a:1", "nats://b:2", "tls://b:2", (None, None, None), None),
        ("tls://a.example:1", "10.0.0.1:2", "tls://10.0.0.1:2", (None, None, None), "a.example"),
        ("a.example:1", "[::1]:2", "nats://[::1]:2", (None, None, None), "a.example"),
        ("tls://10.0.0.9:1", "10.0.0.1:2", "tls://10.0.0.1:2", (None, None, None), None),
    ],
)
def test_discovered_servers_inherit_scheme_credentials_and_a_name_for_tls(
    current: str,
    named: str,
    url: str,
    credentials: tuple[str | None, str | None, str | None],
    tls_name: str | None,
):
    pool = make_pool(current)
    (server,) = pool.merge([named], pool.snapshot()[0])
    assert server.url.redacted == url
    assert (server.url.user, server.url.password, server.url.token) == credentials
    assert server.tls_name == tls_name


def test_the_name_for_tls_is_handed_on_from_one_bare_address_to_the_next():
    pool = make_pool("tls://a.example:1")
    (second,) = pool.merge(["10.0.0.1:2"], pool.snapshot()[0])
    (third,) = pool.merge(["10.0.0.1:2", "10.0.0.2:3"], second)
    assert third.tls_name == "a.example"


def test_only_news_shuffles_and_the_head_stays():
    orders = set()
    for seed in range(60):
        pool = make_pool("a:1", seed=seed)
        current = pool.snapshot()[0]
        pool.merge(["b:2", "c:3", "d:4"], current)
        before = hosts(pool)
        pool.merge(["d:4", "b:2", "c:3"], current)
        assert hosts(pool) == before
        orders.add(before)
    assert {order[0] for order in orders} == {"a"}
    assert len(orders) == 6


# Another pool at run time.


def test_a_new_pool_keeps_what_is_known_of_those_that_stay():
    pool = make_pool(THREE)
    for attempts, server in enumerate(pool.snapshot(), 1):
        server.attempts = attempts
        server.auth_error = "no"
    pool.replace(parse_servers("c:3,d:4,a:1"))
    assert hosts(pool) == "cda"
    assert [server.attempts for server in pool.snapshot()] == [3, 0, 1]
    assert [server.auth_error for server in pool.snapshot()] == ["no", None, "no"]


def test_a_new_pool_takes_discovered_servers_for_configured_ones():
    pool = make_pool("a:1")
    (b,) = pool.merge(["b:2"], pool.snapshot()[0])
    pool.replace(parse_servers("b:2,c:3"))
    assert b in pool.snapshot()
    assert [server.discovered for server in pool.snapshot()] == [False, False]
    assert hosts(pool.merge(["d:4", "a:1"], b)) == "d", "the others are no news"
    assert hosts(pool) == "bcda"


def test_a_server_with_new_credentials_begins_anew():
    pool = make_pool("joe:old@a:1")
    pool.snapshot()[0].auth_error = "no"
    pool.replace(parse_servers("joe:new@a:1"))
    assert pool.snapshot()[0].auth_error is None


def test_a_new_pool_is_shuffled_behind_its_first_server():
    orders = set()
    for seed in range(60):
        pool = make_pool("x", seed=seed)
        pool.replace(parse_servers("a,b,c,d"))
        orders.add(hosts(pool))
    assert {order[0] for order in orders} == {"a"}
    assert len(orders) == 6


# Against a model.


class PoolMachine(RuleBasedStateMachine):
    """Outages, successes and news in any order, against plain lists of names."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = make_pool("a,b,c")
        self.order = ["a", "b", "c"]
        self.configured = {"a", "b", "c"}
        self.seen = {"a", "b", "c"}
        self.attempts = dict.fromkeys("abc", 0)
        self.current: Server | None = self.pool.snapshot()[0]

    names = st.sampled_from("abcdefg")

    @property
    def current_name(self) -> str | None:
        return None if self.current is None else self.current.url.host

    @rule(limit=st.sampled_from([None, None, 0, 1, 2, 5]))
    def next_attempt(self, limit: int | None) -> None:
        name = self.current_name
        if name in self.order:
            self.order.remove(name)
            if limit is None or self.attempts[name] < limit:
                self.order.append(name)
        self.current = self.pool.next_server(self.current, limit)
        assert self.current_name == (self.order[0] if self.order else None)
        if self.current is not None:
            self.current.attempts += 1
            self.attempts[self.current.url.host] += 1

    @precondition(lambda self: self.current is not None)
    @rule()
    def succeed(self) -> None:
        assert self.current is not None
        self.current.attempts = self.attempts[self.current.url.host] = 0

    @precondition(lambda self: self.current is not None)
    @rule(named=st.lists(names, max_size=5))
    def merge(self, named: list[str]) -> None:
        assert self.current is not None
        fresh = self.pool.merge(named, self.current)
        if named:
            self.order = [
                name for name in self.order if name in self.configured or name == self.current_name or name in named
            ]
            added = [name for name in dict.fromkeys(named) if name not in self.order]
            self.order += added
            self.attempts.update(dict.fromkeys(added, 0))
            self.configured -= set(added)  # used up, and told of again
            assert [server.url.host for server in fresh] == [name for name in added if name not in self.seen]
            self.seen |= set(named)
        else:
            assert fresh == []
        if self.current not in self.pool.snapshot():  # another entry of the same name took its place
            self.current = None

    @rule(names=st.lists(names, min_size=1, max_size=4, unique=True))
    def replace(self, names: list[str]) -> None:
        self.pool.replace(parse_servers(names))
        self.attempts = {name: self.attempts[name] if name in self.order else 0 for name in names}
        self.order = names
        self.configured = set(names)
        self.seen |= set(names)
        if self.current not in self.pool.snapshot():
            self.current = None

    @rule(limit=st.sampled_from([None, 0, 2, 5]))
    def drop_exhausted(self, limit: int | None) -> None:
        self.pool.drop_exhausted(self.current, limit)
        if limit is not None:
            self.order = [
                name for name in self.order if self.attempts[name] < (limit or int(name != self.current_name))
            ]

    @invariant()
    def facts_agree(self) -> None:
        servers = self.pool.snapshot()
        assert [server.url.host for server in servers] == self.order
        assert len(self.pool) == len(self.order)
        for server in servers:
            assert server.attempts == self.attempts[server.url.host]
            assert server.discovered is (server.url.host not in self.configured)
            assert self.pool.find(server.url) is server


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
