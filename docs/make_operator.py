"""Make an operator, an account and a user, for trying things out: writes server.conf and user.creds."""

import base64
import hashlib
import json
import os
import pathlib
import time

import nkeys

NO_LIMITS = {"subs": -1, "data": -1, "payload": -1}


def new_key(kind):
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_jwt(issuer, subject, name, **nats):
    claims = {"iss": issuer.public_key.decode(), "sub": subject.public_key.decode(), "name": name}
    claims |= {"iat": int(time.time()), "nats": {**nats, "version": 2}}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    parts = {"typ": "JWT", "alg": "ed25519-nkey"}, claims
    signed = ".".join(base64url(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{base64url(issuer.sign(signed.encode()))}"


operator = new_key(nkeys.PREFIX_BYTE_OPERATOR)
account = new_key(nkeys.PREFIX_BYTE_ACCOUNT)
user = new_key(nkeys.PREFIX_BYTE_USER)

account_limits = {**NO_LIMITS, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
account_jwt = make_jwt(operator, account, "shop", type="account", limits=account_limits)
user_jwt = make_jwt(account, user, "joe", type="user", **NO_LIMITS, pub={"deny": ["secret.>"]})

pathlib.Path("server.conf").write_text(
    f"operator: {make_jwt(operator, operator, 'operator', type='operator')}\n"
    "resolver: MEMORY\n"
    f"resolver_preload {{ {account.public_key.decode()}: {account_jwt} }}\n"
)
credentials = pathlib.Path("user.creds")
credentials.touch(0o600)
credentials.write_text(
    f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
    f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
)
