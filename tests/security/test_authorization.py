"""What a client may do once it is known: permissions, accounts, limits, a service that decides who logs in, time."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from natsync import (
    AuthorizationError,
    MaxConnectionsError,
    NatsTimeoutError,
    NoRespondersError,
    PermissionsError,
)
from natsync.events import AsyncError, Disconnected, Reconnected
from natsync.testing import NatsServer
from tests.support.operator import Key, Operator, make_jwt, read_jwt
from tests.support.waiting import TIME_FACTOR, Recorder, eventually, never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from natsync import Client, Msg
    from tests.security.conftest import Login
    from tests.support.scripted import Conn, ScriptedServer

    Scripted = Callable[..., ScriptedServer]

PATIENCE = 5.0 * TIME_FACTOR
PASSWORD = "correct-horse-battery"

# Permissions

PERMISSIONS = {
    "publish": {"deny": ["denied.>"]},
    "subscribe": {"deny": ["denied.>", "jobs them"]},
}


@pytest.fixture(params=["config", "JWT"])
def restricted(request: pytest.FixtureRequest, login: Login) -> Iterator[Client]:
    """A client that may not use `denied.>`, nor join the queue `them` on `jobs`; by a configuration, or by its JWT."""
    if request.param == "config":
        user = {"user": "friedrich", "password": PASSWORD, "permissions": PERMISSIONS}
        config = f"authorization {{ users: [ {json.dumps(user)} ] }}\n"
        options: dict[str, Any] = {"user": "friedrich", "password": PASSWORD}
    else:
        operator = Operator()
        made = operator.account().user(publish=PERMISSIONS["publish"], subscribe=PERMISSIONS["subscribe"])
        config, options = operator.config(), {"user_credentials_str": made.creds}
    with NatsServer(config) as server:
        yield login(server.url, **options)
        login.finish()


def refusals(login: Login, n: int) -> list[AsyncError]:
    return eventually(
        lambda: found if len(found := [each for each in login.events.items if type(each) is AsyncError]) >= n else [],
        message=f"{n} refusals in {login.events.items}",
    )


def check_alive(client: Client) -> None:
    with client.subscribe("allowed") as sub:
        client.publish("allowed", b"fine")
        assert sub.next_msg(timeout=PATIENCE).data == b"fine"
    assert client.stats.reconnects == 0


def test_a_refused_publish(restricted: Client, login: Login) -> None:
    restricted.publish("denied.Here", b"data")
    restricted.publish("denied.there", b"data", reply="a.reply")
    restricted.flush()
    first, second = refusals(login, 2)
    for event, subject in ((first, "denied.Here"), (second, "denied.there")):
        error = event.error
        assert isinstance(error, PermissionsError)
        assert (error.operation, error.subject, error.queue) == ("publish", subject, None)
        assert error.text == f'Permissions Violation for Publish to "{subject}"'
        assert error.server == restricted.connected_url
        assert event.subscription is None
    assert restricted.stats.errors == 2
    check_alive(restricted)


def test_a_refused_request_is_reported_and_times_out(restricted: Client, login: Login) -> None:
    with pytest.raises(NatsTimeoutError):
        restricted.request("denied.question", timeout=0.2)
    (event,) = refusals(login, 1)
    assert isinstance(event.error, PermissionsError)
    assert (event.error.operation, event.error.subject) == ("publish", "denied.question")
    check_alive(restricted)


def test_a_refused_subscription_is_told(restricted: Client, login: Login) -> None:
    sub = restricted.subscribe("denied.here")
    (event,) = refusals(login, 1)
    told = [event.error, *(login.failed(PermissionsError, sub.next_msg, timeout=PATIENCE) for _ in range(2))]
    told.append(login.failed(PermissionsError, next, iter(sub)))
    for error in told:
        assert isinstance(error, PermissionsError)
        assert (error.operation, error.subject, error.queue) == ("subscription", "denied.here", None)
    assert event.subscription is sub
    check_alive(restricted)


def test_a_refused_queue_is_told_and_others_are_not(restricted: Client, login: Login) -> None:
    ours, theirs = (restricted.subscribe("jobs", queue=queue) for queue in ("us", "them"))
    with pytest.raises(PermissionsError) as caught:
        theirs.next_msg(timeout=PATIENCE)
    assert (caught.value.operation, caught.value.subject, caught.value.queue) == ("subscription", "jobs", "them")
    restricted.publish("jobs", b"ours")
    assert ours.next_msg(timeout=PATIENCE).data == b"ours"
    assert [event.subscription for event in refusals(login, 1)] == [theirs]
    check_alive(restricted)


def test_a_refused_subscription_with_a_callback(restricted: Client, login: Login) -> None:
    called = Recorder()
    sub = restricted.subscribe("denied.here", cb=called)
    (event,) = refusals(login, 1)
    assert event.subscription is sub
    restricted.flush()
    assert not called.items
    check_alive(restricted)


def test_a_refused_inbox_is_reported(login: Login) -> None:
    user = {"user": "friedrich", "password": PASSWORD, "permissions": {"subscribe": ["_INBOX_f.>", "time"]}}
    with NatsServer(f"authorization {{ users: [ {json.dumps(user)} ] }}\n") as server:
        options: dict[str, Any] = {"user": "friedrich", "password": PASSWORD}
        wrong, right = login(server.url, **options), login(server.url, inbox_prefix="_INBOX_f", **options)
        with right.subscribe("time", cb=lambda msg: msg.respond(b"noon")):
            right.flush()
            with pytest.raises(NatsTimeoutError):
                wrong.request("time", timeout=0.2)
            (event, *_) = refusals(login, 1)
            assert isinstance(event.error, PermissionsError)
            assert event.error.operation == "subscription"
            assert event.error.subject is not None
            assert event.error.subject.startswith("_INBOX.")
            assert right.request("time", timeout=PATIENCE).data == b"noon"
        login.finish()


def test_permissions_that_come_with_a_reload(login: Login) -> None:
    """What is taken from a connected user is told too; what is given back works after the next connect."""
    free = {"user": "friedrich", "password": PASSWORD}
    config = "authorization {{ users: [ {} ] }}\n"
    with NatsServer(config.format(json.dumps(free))) as server:
        client = login(server.url, user="friedrich", password=PASSWORD)
        sub = client.subscribe("denied.later")
        client.publish("denied.later", b"still allowed")
        assert sub.next_msg(timeout=PATIENCE).data == b"still allowed"
        server.reload(config.format(json.dumps({**free, "permissions": PERMISSIONS})))
        with pytest.raises(PermissionsError):
            sub.next_msg(timeout=PATIENCE)
        server.reload(config.format(json.dumps(free)))
        client.force_reconnect()
        login.wait_event(Reconnected, client.stats.reconnects + 1)
        client.publish("denied.later", b"allowed again")
        assert sub.next_msg(timeout=PATIENCE).data == b"allowed again"
        login.finish()


# Accounts


def test_accounts_are_apart_but_for_what_they_share(login: Login) -> None:
    config = """
        accounts {
          SHOP { users: [ { user: shop, password: shop-password } ], exports: [ { service: "price.*" } ] }
          BANK {
            users: [ { user: bank, password: bank-password } ]
            imports: [ { service: { account: SHOP, subject: "price.*" }, to: "shop.price.*" } ]
          }
        }
    """
    with NatsServer(config) as server:
        shop = login(server.url, user="shop", password="shop-password")
        bank = login(server.url, user="bank", password="bank-password")
        check_accounts(shop, bank)
        login.finish()


def test_accounts_of_an_operator(login: Login) -> None:
    operator = Operator()
    one, two = operator.account("SHOP"), operator.account("BANK")
    one.export_service("price.*")
    two.import_from(one, "price.*", "service", to="shop.price.*")
    with NatsServer(operator.config()) as server:
        shop, bank = (login(server.url, user_credentials_str=account.user().creds) for account in (one, two))
        check_accounts(shop, bank)
        login.finish()


def check_accounts(shop: Client, bank: Client) -> None:
    shop.subscribe("price.apples", cb=lambda msg: msg.respond(b"3"))
    shop.flush()
    assert bank.request("shop.price.apples", timeout=PATIENCE).data == b"3"
    with pytest.raises(NoRespondersError):
        bank.request("price.apples", timeout=PATIENCE)
    with bank.subscribe("news") as news:
        bank.flush()
        shop.publish("news", b"not for the bank")
        shop.flush()
        bank.flush()
        assert news.pending_msgs == 0


def test_who_says_nothing_may_be_somebody(login: Login) -> None:
    guest = {"user": "guest", "password": "guest-password", "permissions": {"publish": ["hello"]}}
    config = f"accounts {{ APP {{ users: [ {json.dumps(guest)} ] }} }}\nno_auth_user: guest\n"
    with NatsServer(config) as server:
        client = login(server.url)
        client.publish("goodbye")
        (event,) = refusals(login, 1)
        assert isinstance(event.error, PermissionsError)
        login.finish()


# Auth callout: a service decides who logs in, and what they may do. For the client nothing is different.


class Doorman:
    """A callout service, on a client of its own: knows one password, and writes a JWT for whoever brings it."""

    def __init__(self, issuer: Key, client: Client) -> None:
        self._issuer = issuer
        self.asked: list[str] = []
        client.subscribe("$SYS.REQ.USER.AUTH", cb=self._decide)
        client.flush()

    def _decide(self, msg: Msg) -> None:
        claims = read_jwt(msg.data.decode())["nats"]
        said = claims["connect_opts"]
        user, key = said.get("user", ""), claims["user_nkey"]
        self.asked.append(user or said.get("auth_token", ""))
        answer: dict[str, Any] = {"type": "authorization_response", "version": 2}
        if said.get("pass") == PASSWORD or said.get("auth_token") == PASSWORD:
            rights = {"pub": {"deny": ["denied.>"]}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
            nats = {**rights, "type": "user", "version": 2}
            answer["jwt"] = make_jwt({"sub": key, "aud": "APP", "name": user, "nats": nats}, self._issuer)
        else:
            answer["error"] = "who are you?"
        server = claims["server_id"]["id"]
        msg.respond(make_jwt({"sub": key, "aud": server, "nats": answer}, self._issuer).encode())


@pytest.fixture
def guarded(login: Login) -> Iterator[tuple[NatsServer, Doorman]]:
    issuer = Key("account")
    config = f"""
        accounts {{ AUTH {{ users: [ {{ user: doorman, password: doorman-password }} ] }}, APP {{}}, SYS {{}} }}
        system_account: SYS
        authorization {{ auth_callout {{ issuer: {issuer.public}, auth_users: [ doorman ], account: AUTH }} }}
    """
    with NatsServer(config) as server:
        yield server, Doorman(issuer, login(server.url, user="doorman", password="doorman-password"))
        login.finish()


@pytest.mark.parametrize(
    "options", [{"user": "friedrich", "password": PASSWORD}, {"token": PASSWORD}], ids=["user", "token"]
)
def test_a_callout_lets_us_in(options: dict[str, Any], guarded: tuple[NatsServer, Doorman], login: Login) -> None:
    server, doorman = guarded
    client = login(server.url, **options)
    check_alive(client)
    client.publish("denied.here")
    (event,) = refusals(login, 1)
    assert isinstance(event.error, PermissionsError)
    client.force_reconnect()
    login.wait_event(Reconnected)
    client.flush()
    assert len(doorman.asked) == 2


def test_a_callout_refuses_us(guarded: tuple[NatsServer, Doorman], login: Login) -> None:
    server, doorman = guarded
    error = login.refused(AuthorizationError, server.url, user="friedrich", password="wrong-horse")
    assert error.text == "Authorization Violation"
    assert doorman.asked == ["friedrich"]


def test_an_empty_password_is_for_the_callout_to_judge(guarded: tuple[NatsServer, Doorman], login: Login) -> None:
    server, doorman = guarded
    login.refused(AuthorizationError, server.url, user="friedrich", password="")
    assert doorman.asked == ["friedrich"]


# Time


def test_who_is_too_slow_is_told(login: Login) -> None:
    with NatsServer(f"authorization {{ token: {PASSWORD}, timeout: 0.2 }}\n") as server:

        def too_slow() -> str:
            eventually(lambda: server.monitor("connz?state=closed")["connections"])
            return PASSWORD

        login.searcher.add_secret(PASSWORD)
        error = login.refused(
            AuthorizationError, server.url, within=5.0, token_cb=too_slow, connect_timeout=5.0 * TIME_FACTOR
        )
        assert error.text == "Authentication Timeout"
        assert "log in faster" in str(error)
        login.finish()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset may take along what has arrived")
def test_the_last_word_counts_although_nothing_can_be_sent(scripted: Scripted, login: Login) -> None:
    """A server that refuses and goes while a callback thinks: what it said is the cause, not the broken pipe."""
    asked, gone = Recorder(), Recorder()

    def script(conn: Conn) -> None:
        conn.send_info(auth_required=True)
        asked.wait_for(1)
        conn.send(b"-ERR 'Authentication Timeout'\r\n")
        conn.reset()
        gone(True)

    def slow() -> str:
        asked(True)
        gone.wait_for(1)
        return PASSWORD

    login.searcher.add_secret(PASSWORD)
    error = login.refused(AuthorizationError, scripted(script).url, within=5.0, token_cb=slow)
    assert error.text == "Authentication Timeout"


# As many as are allowed


def test_a_full_account(login: Login) -> None:
    operator = Operator()
    account = operator.account()
    account.limits = {"conn": 1}
    with NatsServer(operator.config()) as server:
        first = login(server.url, user_credentials_str=account.user().creds)
        error = login.refused(MaxConnectionsError, server.url, user_credentials_str=account.user().creds)
        assert error.text == "maximum account active connections exceeded"
        assert error.server == server.url
        first.close()
        eventually(lambda: not server.connz()["connections"])
        login(server.url, user_credentials_str=account.user().creds).flush()
        login.finish()


def test_a_full_server_is_asked_again_until_there_is_room(login: Login) -> None:
    with NatsServer("max_connections: 2\n") as server:
        client, other = login(server.url), login(server.url)
        login.refused(MaxConnectionsError, server.url)
        server.reload("max_connections: 1\n")
        lost = login.wait_event(Disconnected)
        assert type(lost.error) is MaxConnectionsError
        never(lambda: client.is_closed or other.is_closed, 0.1)
        server.reload("max_connections: 2\n")
        eventually(lambda: client.is_connected and other.is_connected)
        login.finish()
