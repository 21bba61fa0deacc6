"""How results are shown: as a table for the terminal, and as the tables of the documentation."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from benchmarks import goals
from benchmarks.contenders import FLOOR, NATSYNC, NATSYNC_NEWER, PEERS
from benchmarks.scenarios import BY_KEY, METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.results import Results
    from benchmarks.scenarios import Scenario


def number(value: float) -> str:
    """Three digits that count: 12,300 and 0.0456."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def heading(results: Results) -> Iterator[str]:
    """What the figures were measured with."""
    for key, value in results.machine.items():
        yield f"{key:<12} {value}"
    for key, versions in results.contenders.items():
        yield f"{key:<16} " + ", ".join(f"{name} {version}" for name, version in versions.items())
    yield f"{results.rounds} rounds of about {results.seconds:g} s: median, least, most; natsync by each, same Python"


def block(results: Results, scenario: Scenario) -> Iterator[str]:
    """The figures of one scenario: a line for each contender and metric."""
    yield ""
    yield f"{scenario.title}  ({scenario.key})"
    takers = [contender for key, contender in results.series if key == scenario.key]
    for metric_key in scenario.metrics:
        lines = [line for each in takers if (line := _line(results, scenario, metric_key, each))]
        if lines:
            yield f"    {METRICS[metric_key].unit:<20}{'median':>12}{'min':>12}{'max':>12}"
            yield from lines


def _line(results: Results, scenario: Scenario, metric_key: str, contender: str) -> str | None:
    series, factor = results.series[scenario.key, contender], METRICS[metric_key].factor
    values = [value * factor for value in series.values.get(metric_key, ())]
    if values:
        figures = "".join(f"{number(each):>12}" for each in (statistics.median(values), min(values), max(values)))
    elif series.error is not None and metric_key == scenario.metrics[0]:
        figures = f"{'-':>12}"
    else:
        return None
    return f"      {contender:<18}{figures}{_remarks(results, scenario, metric_key, contender)}"


def _remarks(results: Results, scenario: Scenario, metric: str, contender: str) -> str:
    series = results.series[scenario.key, contender]
    remarks = []
    if contender not in (NATSYNC, NATSYNC_NEWER):
        ratio = results.ratio(scenario.key, metric, contender)
        if ratio is not None:
            remarks.append(f"{ratio:8.2f} x")
    if series.lost:
        remarks.append(f"LOST {series.lost:,} of {series.sent:,}")
    if series.error is not None:
        remarks.append(f"FAILED: {series.error}")
    return "  ".join(["", *remarks])


def goal_lines(results: Results) -> Iterator[str]:
    """Each goal, what was measured, and whether that reaches it."""
    yield ""
    yield f"{'goal':<72}{'limit':>14}  measured"
    for verdict in goals.judge(results):
        mark = {True: "reached", False: "MISSED", None: ""}[verdict.is_reached]
        yield f"{verdict.title:<72}{verdict.limit:>14}  {mark:<8} {verdict.text}"


def documentation(results: Results) -> Iterator[str]:
    """The tables of `docs/performance.rst`, in reStructuredText."""
    yield ".. Written by `make bench`; do not change by hand."
    yield ""
    yield from _rst_table("Where this was measured", ("", ""), [[key, value] for key, value in results.machine.items()])
    versions = [
        [key, ", ".join(f"{name} {version}" for name, version in each.items())]
        for key, each in results.contenders.items()
    ]
    yield from _rst_table("Contenders", ("contender", "versions"), versions)
    rows = [
        [
            verdict.title,
            verdict.limit,
            verdict.text,
            {True: "reached", False: "**missed**", None: "-"}[verdict.is_reached],
        ]
        for verdict in goals.judge(results)
    ]
    yield from _rst_table("Goals", ("goal", "limit", "measured", ""), rows)
    keys = [key for key in (FLOOR, NATSYNC, *PEERS[:-1], NATSYNC_NEWER, *PEERS[-1:]) if key in results.contenders]
    yield from _rst_table("Medians (least to most)", ("scenario", *keys), list(_median_rows(results, keys)))


def _median_rows(results: Results, keys: list[str]) -> Iterator[list[str]]:
    for scenario in BY_KEY.values():
        for metric_key in scenario.metrics:
            metric = METRICS[metric_key]
            cells = [_cell(results, scenario.key, key, metric_key) for key in keys]
            if any(cell != "-" for cell in cells):
                yield [f"{scenario.title}: {metric.unit}", *cells]


def _cell(results: Results, scenario: str, contender: str, metric_key: str) -> str:
    series = results.series.get((scenario, contender))
    if series is None or not series.values.get(metric_key):
        return "-" if series is None or series.error is None else "failed"
    factor = METRICS[metric_key].factor
    values = [value * factor for value in series.values[metric_key]]
    median = (series.median(metric_key) or 0.0) * factor
    text = f"{number(median)} ({number(min(values))} to {number(max(values))})"
    return f"{text}; lost {series.lost:,}" if series.lost else text


def _rst_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f".. list-table:: {title}"
    yield "    :header-rows: 1" if any(header) else "    :header-rows: 0"
    yield ""
    for row in [header, *rows] if any(header) else rows:
        for column, cell in enumerate(row):
            yield f"    {'* -' if column == 0 else '  -'} {cell}".rstrip()
    yield ""
