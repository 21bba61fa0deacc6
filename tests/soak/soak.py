"""The soak: rounds of random faults, each followed by a settling of accounts.

A round strikes one stage with one fault or two, lets it last for up to a second, heals it, and waits until every
message has come or is written off. What is wrong is printed at once and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import secrets
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.soak import vitals
from tests.soak.party import Party
from tests.soak.stage import Stage
from tests.soak.storm import STRIKES
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WARM_UP = 30  # rounds; what is held then is what may be held at the end
_REPORT_EVERY = 60.0  # seconds
_FORCE = "force reconnect"


class Soak:
    """One run.

    Args:
        seed: Of all chances.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._stages = [Stage("single", 1), Stage("cluster", 3)]
        self._parties: list[Party] = []
        self._pause = threading.Event()
        self.strikes: Counter[str] = Counter()
        self.rounds = 0
        self.first = self.last = vitals.Vitals(0.0, 0, 0, 0)
        self.wrong: list[str] = []

    def run(self, seconds: float) -> None:
        """Go on for so long, or until something is wrong."""
        end = time.monotonic() + seconds
        report_at = time.monotonic() + _REPORT_EVERY
        with self._on_stage():
            while time.monotonic() < end and not self.wrong:
                self._round()
                if time.monotonic() > report_at:
                    report_at += _REPORT_EVERY
                    print(self.line(), flush=True)
            if not self.wrong:
                self._check_vitals()
        for party in self._parties:
            self.wrong += party.wrong_drops()

    @contextlib.contextmanager
    def _on_stage(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for stage in self._stages:
                stack.enter_context(stage)
                party = Party(stage)
                stack.callback(party.close)
                self._parties.append(party)
                party.start()
            yield

    def _round(self) -> None:
        self.rounds += 1
        index = self._chance.randrange(len(self._stages))
        names = self._chance.sample([*STRIKES, _FORCE], self._chance.choice((1, 1, 2)))
        self.strikes.update(names)
        try:
            self._strike(self._stages[index], self._parties[index], names)
            self._parties[index].settle()
            if self.rounds == _WARM_UP:
                self.first = vitals.look()
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        news = self._parties[index].wrong()
        self.wrong += news
        if self.wrong:
            print(f"round {self.rounds}, {self._stages[index].name}, {names}:", *self.wrong, sep="\n  ", flush=True)

    def _strike(self, stage: Stage, party: Party, names: Sequence[str]) -> None:
        try:
            for name in names:
                self._pause.wait(self._chance.uniform(0.0, 0.3))
                if name == _FORCE:
                    party.client.force_reconnect()
                else:
                    with contextlib.suppress(ConnectionError):  # the second fault meets a server that the first ended
                        STRIKES[name](stage, self._chance.randrange(len(stage.servers)), self._chance)
            self._pause.wait(self._chance.uniform(0.0, 0.9))
        finally:
            stage.mend()

    def _check_vitals(self) -> None:
        if self.rounds < _WARM_UP:
            return
        for party in self._parties:
            party.settle()

        def is_flat() -> bool:
            self.last = vitals.look()
            return not vitals.wrong(self.first, self.last)

        with contextlib.suppress(AssertionError):
            eventually(is_flat, 5.0)
        self.wrong += vitals.wrong(self.first, self.last)

    def line(self) -> str:
        """Return where it stands."""
        totals = [sum(getattr(ledger, what) for party in self._parties for ledger in party.ledgers) for what in _SUMS]
        sums = ", ".join(f"{total} {what}" for total, what in zip(totals, _SUMS, strict=True))
        return f"{self.rounds} rounds: {sums}; {vitals.look()}"

    def table(self) -> str:
        """Return the figures."""
        lines = [f"{'':<28}" + "".join(f"{stage.name:>12}" for stage in self._stages)]
        for what in _SUMS:
            sums = [sum(getattr(ledger, what) for ledger in party.ledgers) for party in self._parties]
            lines.append(f"{'messages ' + what:<28}" + "".join(f"{each:>12}" for each in sums))
        lines.append(_row("messages seen by a witness", [party.witness.seen for party in self._parties]))
        lines.append(_row("reported as dropped", [party.reported for party in self._parties]))
        lines.append(_row("reconnects", [party.client.stats.reconnects for party in self._parties]))
        lines.append(_row("broken in restoring", [party.half_restored for party in self._parties]))
        lines.append(_row("most bytes buffered", [party.peak for party in self._parties]))
        for what in ("request", "flush"):
            lines.append(_row(f"{what}: calls", [party.calls.made[what] for party in self._parties]))
            failed = [sum(n for (name, _), n in party.calls.raised.items() if name == what) for party in self._parties]
            lines.append(_row(f"{what}: errors", failed))
        lines += [f"rounds                      {self.rounds:>12}"]
        lines += [f"held after warm-up          {self.first}", f"held at the end             {self.last}"]
        lines += ["faults                      " + ", ".join(f"{name} {n}" for name, n in sorted(self.strikes.items()))]
        return "\n".join(lines)


_SUMS = ("published", "received", "refused", "lost", "late")


def _row(title: str, values: Sequence[int]) -> str:
    return f"{title:<28}" + "".join(f"{value:>12}" for value in values)


def main(argv: Sequence[str] | None = None) -> int:
    """Run as told by the command line; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Random faults against natsync.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--seed", type=int, default=None, help="of all chances; by default one is made up and printed")
    arguments = parser.parse_args(argv)
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.minutes:g} minutes", flush=True)
    logging.getLogger("natsync.events").setLevel(logging.CRITICAL)  # thousands of losses are the purpose
    logging.basicConfig(level=logging.ERROR)
    soak = Soak(seed)
    soak.run(arguments.minutes * 60.0)
    print(soak.table())
    print("WRONG" if soak.wrong else "all accounts are settled", *soak.wrong, sep="\n")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
