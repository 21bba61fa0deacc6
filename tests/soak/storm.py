"""The faults of the soak: each strikes one server, one wire or all of them; `Stage.mend()` heals them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from tests.soak.stage import Stage
    from tests.support.proxy import FaultProxy

Strike = Callable[["Stage", int, "random.Random"], object]


def _restart_all(stage: Stage, number: int, chance: random.Random) -> None:
    for server in stage.servers:
        server.kill()
    order = list(stage.servers)
    chance.shuffle(order)
    for server in order:
        server.start()


def _squeeze(stage: Stage, number: int, chance: random.Random) -> None:
    for proxy in stage.proxies:
        proxy.latency = chance.uniform(0.0, 0.05)
        proxy.rate = chance.uniform(50_000, 500_000)


def _crumble(stage: Stage, number: int, chance: random.Random) -> None:
    for proxy in stage.proxies:
        proxy.fragment = chance.choice((1, 2, 7, 100))


def _hole(stage: Stage, number: int, chance: random.Random) -> None:
    stage.proxies[number].black_hole(chance.choice(("up", "down", "both")))


def _cut_after(stage: Stage, number: int, chance: random.Random) -> None:
    for proxy in stage.proxies:
        proxy.cut_after(chance.randrange(1, 20_000), chance.choice(("up", "down")), reset=chance.random() < 0.5)


def _on_wires(act: Callable[[FaultProxy], object]) -> Strike:
    def strike(stage: Stage, number: int, chance: random.Random) -> None:
        # A cluster's client moves on when one wire fails, and has nowhere to go when all do.
        for proxy in stage.proxies if chance.random() < 0.5 else [stage.proxies[number]]:
            act(proxy)

    return strike


def _refuse(proxy: FaultProxy) -> None:
    proxy.refuse()
    proxy.cut()


def _be_silent(proxy: FaultProxy) -> None:
    proxy.accept_silent()
    proxy.cut()


STRIKES: dict[str, Strike] = {
    "kill": lambda stage, number, chance: stage.servers[number].kill(),
    "restart": lambda stage, number, chance: stage.servers[number].restart(),
    "restart all": _restart_all,
    "freeze": lambda stage, number, chance: stage.servers[number].pause(),
    "cut": _on_wires(lambda proxy: proxy.cut()),
    "reset": _on_wires(lambda proxy: proxy.reset()),
    "half close": _on_wires(lambda proxy: proxy.half_close()),
    "refuse": _on_wires(_refuse),
    "be silent": _on_wires(_be_silent),
    "black hole": _hole,
    "squeeze": _squeeze,
    "crumble": _crumble,
    "cut after": _cut_after,
}
