"""What was measured: figures of each round, their medians, and ratios between them; as JSON and back."""

from __future__ import annotations

import dataclasses
import json
import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import BY_KEY, NATSYNC, NATSYNC_NEWER, NEWER
from benchmarks.scenarios import METRICS

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass
class Series:
    """The figures of one contender in one scenario: one for each round and metric."""

    values: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    sent: int = 0
    lost: int = 0
    error: str | None = None

    def add(self, metric: str, value: float) -> None:
        """Add the figure of one round."""
        self.values.setdefault(metric, []).append(float(f"{value:.5g}"))

    def median(self, metric: str) -> float | None:
        """The median over the rounds; None without any."""
        values = self.values.get(metric)
        return statistics.median(values) if values else None


Key = tuple[str, str]  # scenario and contender


@dataclasses.dataclass
class Results:
    """All that one call of the benchmark has measured."""

    machine: dict[str, str] = dataclasses.field(default_factory=dict)
    contenders: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    rounds: int = 0
    seconds: float = 0.0
    series: dict[Key, Series] = dataclasses.field(default_factory=dict)

    def median(self, scenario: str, contender: str, metric: str) -> float | None:
        """The median of a figure; None if it was not measured."""
        series = self.series.get((scenario, contender))
        return series.median(metric) if series else None

    def ratio(self, scenario: str, metric: str, contender: str) -> float | None:
        """natsync's figure by that of a contender, both of the same Python."""
        ours = self.ours_beside(contender)
        mine, theirs = self.median(scenario, ours, metric), self.median(scenario, contender, metric)
        return mine / theirs if mine and theirs else None

    def ours_beside(self, contender: str) -> str:
        """natsync on the Python that a contender runs on."""
        is_newer = BY_KEY[contender].python == NEWER and NATSYNC_NEWER in self.contenders
        return NATSYNC_NEWER if is_newer else NATSYNC

    def ratio_to_best(self, scenario: str, metric: str, contenders: tuple[str, ...]) -> tuple[float, str] | None:
        """natsync's figure by that of the best of some contenders, and which one that is; None if there is none."""
        ratios = [(ratio, key) for key in contenders if (ratio := self.ratio(scenario, metric, key)) is not None]
        if not ratios:
            return None
        return min(ratios) if METRICS[metric].higher_is_better else max(ratios)

    def dump(self, path: Path) -> None:
        """Write everything as JSON."""
        series = [
            {"scenario": scenario, "contender": contender, **dataclasses.asdict(each)}
            for (scenario, contender), each in self.series.items()
        ]
        page = {**dataclasses.asdict(dataclasses.replace(self, series={})), "series": series}
        path.write_text(_with_short_lines(page) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `dump()` wrote."""
        page: dict[str, Any] = json.loads(path.read_text("utf-8"))
        series = {(each.pop("scenario"), each.pop("contender")): Series(**each) for each in page.pop("series")}
        return cls(**page, series=series)


def _with_short_lines(page: dict[str, Any]) -> str:
    """JSON with a line for each field, and for each element of the list of series."""
    fields = {key: json.dumps(value) for key, value in page.items()}
    fields["series"] = "[\n" + ",\n".join("  " + json.dumps(each) for each in page["series"]) + "\n ]"
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {text}" for key, text in fields.items()) + "\n}"
