"""An operator with accounts and users: keys, JWTs, `.creds` files, and the server configurations that go with them.

What `nsc` does for people, as far as tests need it, with the package `nkeys` alone. Everything is made anew for each
test, so no two tests share a key. Claims are the operator's version 2 [nats-io/jwt]; a server that is given a wrong one
refuses to start, or refuses the user, which no test of ours would survive.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, Literal

import nkeys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Kind = Literal["operator", "account", "user"]
Claims = dict[str, Any]

_PREFIXES: dict[Kind, int] = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
_NO_LIMITS = {"subs": -1, "data": -1, "payload": -1}
_NO_ACCOUNT_LIMITS = {
    **_NO_LIMITS,
    "imports": -1,
    "exports": -1,
    "wildcards": True,
    "conn": -1,
    "leaf": -1,
}

PUSH_SUBJECT = "$SYS.REQ.CLAIMS.UPDATE"
"""Where a user of the system account sends an account's JWT, for a server with a `full` resolver."""


class Key:
    """An NKey pair, fresh from the system's source of chance."""

    def __init__(self, kind: Kind) -> None:
        seed = nkeys.encode_seed(os.urandom(32), _PREFIXES[kind])
        self._pair = nkeys.from_seed(seed)
        self.seed: str = seed.decode()
        self.public: str = self._pair.public_key.decode()

    def __repr__(self) -> str:
        return f"<Key {self.public}>"

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature: what `signature_cb` is to return."""
        signature: bytes = self._pair.sign(data)
        return signature


def make_jwt(claims: Claims, issuer: Key) -> str:
    """Sign claims; the issuer, the time of issue (unless `iat` is given) and the id are added."""
    claims = {"iat": int(time.time()), **claims, "iss": issuer.public}
    digest = hashlib.sha256(_compact(claims)).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    head = f"{_base64(_compact({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_base64(_compact(claims))}"
    return f"{head}.{_base64(issuer.sign(head.encode()))}"


def read_jwt(jwt: str) -> Claims:
    """Return the claims of a JWT, unverified."""
    middle = jwt.split(".")[1]
    claims: Claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return claims


def make_creds(jwt: str, seed: str) -> str:
    """Return the text of a `.creds` file, as `nsc` writes it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n"
        "NKEYs are sensitive and should be treated as secrets.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n"
        "*************************************************************\n"
    )


@dataclasses.dataclass(frozen=True)
class User:
    """A user: its key, and the JWT that its account gave it."""

    key: Key
    jwt: str = dataclasses.field(repr=False)

    @property
    def creds(self) -> str:
        """The text of its `.creds` file."""
        return make_creds(self.jwt, self.key.seed)

    @property
    def seed(self) -> str:
        return self.key.seed

    def write_creds(self, path: Path) -> Path:
        """Write the `.creds` file in one go, so that no reader finds half of it."""
        new = path.with_name(path.name + ".new")
        new.write_text(self.creds, "utf-8")
        new.replace(path)
        return path


class Account:
    """An account of an operator.

    Attributes:
        key: Its identity.
        limits: Claims over the default, which is no limits.
        exports: Claims, as `export_service` and `export_stream` make them.
        imports: Claims, as `import_from` makes them.
        revocations: Time by a user's public key: what was issued until then is void.
        signing_key: Signs users in place of `key` when it is set, and is named in the JWT.
    """

    def __init__(self, operator: Operator, name: str) -> None:
        self._operator = operator
        self.name = name
        self.key = Key("account")
        self.limits: Claims = {}
        self.exports: list[Claims] = []
        self.imports: list[Claims] = []
        self.revocations: dict[str, int] = {}
        self.signing_key: Key | None = None

    @property
    def jwt(self) -> str:
        """Its JWT as things stand now."""
        nats: Claims = {
            "limits": {**_NO_ACCOUNT_LIMITS, **self.limits},
            "exports": self.exports,
            "imports": self.imports,
            "revocations": self.revocations,
            "signing_keys": [self.signing_key.public] if self.signing_key else [],
            "default_permissions": {"pub": {}, "sub": {}},
            "type": "account",
            "version": 2,
        }
        return make_jwt({"sub": self.key.public, "name": self.name, "nats": nats}, self._operator.key)

    def user(
        self,
        name: str = "user",
        *,
        key: Key | None = None,
        publish: Claims | None = None,
        subscribe: Claims | None = None,
        limits: Claims | None = None,
        bearer: bool = False,
        expires: float | None = None,
    ) -> User:
        """Make a user.

        Args:
            name: For the server's log.
            key: Its key, to give a known user another JWT.
            publish: `{"allow": [...], "deny": [...]}`.
            subscribe: As `publish`.
            limits: Claims over the default, which is no limits.
            bearer: It need not sign the nonce.
            expires: Seconds from now; the server counts in whole ones. Negative: it has expired.
        """
        key = key or Key("user")
        nats: Claims = {
            "pub": publish or {},
            "sub": subscribe or {},
            **_NO_LIMITS,
            **(limits or {}),
            "type": "user",
            "version": 2,
        }
        if bearer:
            nats["bearer_token"] = True
        if self.signing_key is not None:
            nats["issuer_account"] = self.key.public
        claims: Claims = {"sub": key.public, "name": name, "nats": nats}
        if expires is not None:
            claims["exp"] = int(time.time() + expires)
        return User(key, make_jwt(claims, self.signing_key or self.key))

    def revoke(self, user: User) -> None:
        """Make void what the user was given until now; servers hear of it when `jwt` is pushed."""
        self.revocations[user.key.public] = int(time.time())

    def export_service(self, subject: str) -> None:
        """Let other accounts send requests to a subject of this one."""
        self.exports.append({"name": subject, "subject": subject, "type": "service"})

    def export_stream(self, subject: str) -> None:
        """Let other accounts subscribe to a subject of this one."""
        self.exports.append({"name": subject, "subject": subject, "type": "stream"})

    def import_from(self, account: Account, subject: str, kind: Literal["service", "stream"], *, to: str = "") -> None:
        """Use what another account exports, under the same subject or, here, under `to`."""
        claims = {"name": subject, "subject": subject, "account": account.key.public, "type": kind}
        if to:
            claims["local_subject"] = to
        self.imports.append(claims)


class Operator:
    """An operator with a system account; more accounts come with `account()`."""

    def __init__(self) -> None:
        self.key = Key("operator")
        self.accounts: list[Account] = []
        self.system = self.account("SYS")

    def account(self, name: str = "APP") -> Account:
        """Make an account; it is part of the configurations made from then on."""
        account = Account(self, name)
        self.accounts.append(account)
        return account

    @property
    def jwt(self) -> str:
        """Its JWT."""
        nats = {"type": "operator", "version": 2, "system_account": self.system.key.public}
        return make_jwt({"sub": self.key.public, "name": "OP", "nats": nats}, self.key)

    def config(self) -> str:
        """Return a configuration with all accounts in memory."""
        return self._config("resolver: MEMORY\n", self.accounts)

    def push_config(self, directory: Path) -> str:
        """Return one that keeps the accounts in a directory, where `PUSH_SUBJECT` changes them."""
        resolver = f"resolver {{ type: full, dir: {json.dumps(str(directory))}, allow_delete: true, interval: '2m' }}\n"
        return self._config(resolver, self.accounts)

    def _config(self, resolver: str, accounts: Sequence[Account]) -> str:
        preload = "".join(f"  {account.key.public}: {account.jwt}\n" for account in accounts)
        head = f"operator: {self.jwt}\nsystem_account: {self.system.key.public}\n"
        return f"{head}{resolver}resolver_preload {{\n{preload}}}\n"


def _compact(claims: Claims) -> bytes:
    return json.dumps(claims, separators=(",", ":"), sort_keys=True).encode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
