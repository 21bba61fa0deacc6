"""The benchmark against other clients: `python -m benchmarks`, `make bench`.

`--scenario` and `--peer` take names and lists of names with commas; natsync and the floor are always there. Without
either everything is measured, and what the documentation shows is written anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import contenders, environments, report, scenarios
from benchmarks.plot import plot
from benchmarks.results import Results
from benchmarks.runner import Bench
from benchmarks.worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DOCS = ROOT / "docs"
JSON = DOCS / "performance.json"


def main(words: list[str] | None = None) -> int:
    """Measure and print; 0 also if goals are missed, 2 for a bad command line."""
    arguments = parse(words)
    if arguments.list:
        print(*(f"{each.key:<24}{each.title}" for each in scenarios.SCENARIOS), sep="\n")
        print(*(each.key for each in contenders.CONTENDERS), sep=", ")
        return 0
    is_whole = arguments.load is None and arguments.scenario is None and arguments.peer is None
    if (arguments.docs or is_whole) and importlib.util.find_spec("matplotlib") is None:
        print('the plot needs matplotlib: pip install ".[server,bench]"', file=sys.stderr)
        return 2
    if arguments.load is not None:
        results = Results.load(arguments.load)
        show(results)
    else:
        results = measure(arguments)
        if arguments.json is not None:
            results.dump(arguments.json)
    if arguments.docs or is_whole:
        write_docs(results)
    return 0


def parse(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--scenario", type=names(scenarios.BY_KEY), help="one or several; all without it")
    parser.add_argument("--peer", type=names(contenders.BY_KEY), help="beside natsync and the floor; all without it")
    parser.add_argument("--rounds", type=int, default=5, help="figures of each (default 5)")
    parser.add_argument("--seconds", type=float, default=0.12, help="how long a run should take (default 0.12)")
    parser.add_argument("--json", type=Path, help="also write the results there")
    parser.add_argument("--load", type=Path, help="measure nothing, show results that were written before")
    parser.add_argument("--docs", action="store_true", help="write what the documentation shows")
    parser.add_argument("--list", action="store_true", help="list scenarios and contenders")
    return parser.parse_args(words)


def names(table: Mapping[str, object]) -> Callable[[str], list[str]]:
    """Make what reads some names of a table, with commas between them."""

    def read(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in table:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(table)}")
        return chosen

    return read


def measure(arguments: argparse.Namespace) -> Results:
    """Run what was asked for, and print each block as soon as it is known."""
    begin = time.monotonic()
    wanted = arguments.peer or list(contenders.BY_KEY)
    keys = [key for key in contenders.BY_KEY if key in wanted or key in (contenders.FLOOR, contenders.NATSYNC)]
    if any(contenders.BY_KEY[key].python == contenders.NEWER for key in keys):
        keys = [*dict.fromkeys([*keys, contenders.NATSYNC_NEWER])]
    if sys.version_info >= environments.NEWER_THAN:
        keys = [key for key in keys if key != contenders.NATSYNC_NEWER]  # it would be natsync once more
    with Bench(keys, rounds=arguments.rounds, seconds=arguments.seconds) as bench:
        bench.results.machine = environments.machine()
        print(*report.heading(bench.results), sep="\n", flush=True)
        for key in arguments.scenario or [each.key for each in scenarios.SCENARIOS]:
            started = time.monotonic()
            bench.run(scenarios.BY_KEY[key])
            print(*report.block(bench.results, scenarios.BY_KEY[key]), sep="\n")
            print(f"    in {time.monotonic() - started:.1f} s", flush=True)
    print(*report.goal_lines(bench.results), sep="\n")
    print(f"\nall in {time.monotonic() - begin:.0f} s")
    return bench.results


def show(results: Results) -> None:
    """Print results that were measured before."""
    print(*report.heading(results), sep="\n")
    for key in dict.fromkeys(scenario for scenario, _ in results.series):
        print(*report.block(results, scenarios.BY_KEY[key]), sep="\n")
    print(*report.goal_lines(results), sep="\n")


def write_docs(results: Results) -> None:
    """Write the tables, the figures they are made of, and the plot."""
    results.dump(JSON)
    (DOCS / "performance-figures.inc").write_text("\n".join(report.documentation(results)) + "\n", "utf-8")
    plot(results, DOCS / "performance.svg")
    print(f"written: {DOCS.relative_to(ROOT)}/performance.json, performance-figures.inc, performance.svg")


if __name__ == "__main__":
    raise SystemExit(main())
