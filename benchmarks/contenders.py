"""Who takes part: one table, with what each one lacks and what its virtual environment needs."""

from __future__ import annotations

import dataclasses

THIS = "this"
NEWER = "newer"


@dataclasses.dataclass(frozen=True)
class Contender:
    """A client, or the floor.

    Attributes:
        key: What `--peer` takes.
        module: Its file in `peers`.
        requirements: What pip installs for it.
        python: `THIS` interpreter, or the one for clients that need a `NEWER` one.
        arguments: More words of its command line.
        does: The only kinds of scenario it can do; None does all.
        lacks: What scenarios may need and it does not have.
        most: The most messages of one run, for a client that would drop more than so many.
        imports: What `import` measures.
    """

    key: str
    module: str
    requirements: tuple[str, ...] = ()
    python: str = THIS
    arguments: tuple[str, ...] = ()
    does: frozenset[str] | None = None
    lacks: frozenset[str] = frozenset()
    most: int | None = None
    imports: str = ""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FLOOR = "floor"
NATSYNC = "natsync"
NATSYNC_NEWER = "natsync-newer"

_NATSYNC = Contender(NATSYNC, "natsync", imports="natsync")

CONTENDERS = (
    Contender(FLOOR, "floor", lacks=_words("memory_subscription memory_pending"), imports="ssl, json, threading"),
    _NATSYNC,
    Contender("nats-py", "nats_py", ("nats-py",), imports="nats"),
    Contender("nats-py+uvloop", "nats_py", ("nats-py", "uvloop"), arguments=("uvloop",), lacks=_words("import")),
    Contender(
        "nats-py+threads",
        "nats_py_threads",
        ("nats-py",),
        does=_words("publish request inflight"),
        lacks=_words("headers tls import"),
    ),
    Contender(
        "nats-py-sync",
        "nats_py_sync",
        ("nats-py-sync",),
        does=_words("publish subscribe request connect import"),
        lacks=_words("callback iteration threads headers tls"),
        imports="nats_sync",
    ),
    Contender(
        "natsrpy",
        "natsrpy",
        ("natsrpy",),
        lacks=_words("next_msg memory_pending"),
        most=60_000,  # its core drops what exceeds 65,536 pending messages
        imports="natsrpy",
    ),
    dataclasses.replace(_NATSYNC, key=NATSYNC_NEWER, python=NEWER, requirements=("nkeys", "pynacl")),
    Contender("natsio", "natsio", ("natsio",), python=NEWER, imports="natsio"),
)

BY_KEY = {contender.key: contender for contender in CONTENDERS}
ASYNCIO = ("nats-py", "nats-py+uvloop", "natsio")
PEERS = tuple(each.key for each in CONTENDERS if each.key not in (FLOOR, NATSYNC, NATSYNC_NEWER))


def takes_part(contender: Contender, kind: str, needs: frozenset[str]) -> bool:
    """Whether a contender can do a scenario of this kind with these needs."""
    return (contender.does is None or kind in contender.does) and not needs & contender.lacks
