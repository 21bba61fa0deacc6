"""Medians, ratios between natsync and its peers, and JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import contenders, goals
from benchmarks.results import Results, Series
from benchmarks.scenarios import BY_KEY, METRICS, P50, RATE, SCENARIOS, SECONDS, SIZE


def results_of(*figures: tuple[str, str, str, list[float]]) -> Results:
    results = Results(rounds=3, seconds=0.1)
    for scenario, contender, metric, values in figures:
        results.contenders[contender] = {"python": "3.11.7"}
        series = results.series.setdefault((scenario, contender), Series())
        for value in values:
            series.add(metric, value)
    return results


def test_a_figure_is_the_median_of_its_rounds():
    results = results_of(("publish-16", "natsync", RATE, [30.0, 10.0, 20.0]))
    assert results.median("publish-16", "natsync", RATE) == 20.0


@pytest.mark.parametrize(
    "key", [("publish-16", "nats-py", RATE), ("request", "natsync", RATE), ("publish-16", "natsync", P50)]
)
def test_what_was_not_measured_has_no_figure(key: tuple[str, str, str]):
    results = results_of(("publish-16", "natsync", RATE, [30.0]))
    assert results.median(*key) is None


def test_a_ratio_is_natsync_by_the_peer():
    results = results_of(("publish-16", "natsync", RATE, [30.0]), ("publish-16", "nats-py", RATE, [10.0]))
    assert results.ratio("publish-16", RATE, "nats-py") == pytest.approx(3)


def test_a_peer_on_a_newer_python_is_compared_with_natsync_on_that_python():
    results = results_of(
        ("publish-16", "natsync", RATE, [30.0]),
        ("publish-16", "natsync-newer", RATE, [50.0]),
        ("publish-16", "natsio", RATE, [10.0]),
    )
    assert results.ratio("publish-16", RATE, "natsio") == pytest.approx(5)


def test_without_a_second_natsync_there_is_one_python_for_all():
    results = results_of(("publish-16", "natsync", RATE, [30.0]), ("publish-16", "natsio", RATE, [10.0]))
    assert results.ratio("publish-16", RATE, "natsio") == pytest.approx(3)


def test_the_best_peer_is_the_one_that_natsync_beats_least():
    results = results_of(
        ("publish-16", "natsync", RATE, [30.0]),
        ("publish-16", "nats-py", RATE, [10.0]),
        ("publish-16", "nats-py+uvloop", RATE, [15.0]),
    )
    assert results.ratio_to_best("publish-16", RATE, contenders.ASYNCIO) == (2.0, "nats-py+uvloop")


def test_the_best_peer_has_the_shortest_latency():
    results = results_of(
        ("request", "natsync", P50, [40.0]), ("request", "nats-py", P50, [100.0]), ("request", "natsrpy", P50, [80.0])
    )
    assert results.ratio_to_best("request", P50, contenders.PEERS) == (0.5, "natsrpy")


def test_without_peers_there_is_no_best_one():
    assert results_of(("request", "natsync", P50, [60.0])).ratio_to_best("request", P50, contenders.PEERS) is None


def test_json_has_everything(tmp_path: Path):
    results = results_of(("publish-16", "natsync", RATE, [30.0]), ("request", "nats-py", P50, [1.0]))
    results.machine = {"cpu": "fast"}
    results.series["request", "nats-py"].lost = 3
    results.series["request", "nats-py"].error = "gone"
    path = tmp_path / "results.json"
    results.dump(path)
    assert Results.load(path) == results


def verdict(title: str, results: Results) -> goals.Verdict:
    return next(each for each in goals.judge(results) if each.title.startswith(title))


def test_a_goal_of_at_least():
    peers = [("publish-16", "nats-py", RATE, [10.0])]
    assert verdict("publish 16 B, by the best", results_of(("publish-16", "natsync", RATE, [20.0]), *peers)).is_reached
    missed = verdict("publish 16 B, by the best", results_of(("publish-16", "natsync", RATE, [19.0]), *peers))
    assert missed.is_reached is False
    assert missed.text == "1.9 x nats-py"


def test_a_goal_of_at_most():
    floor = [("request", "floor", P50, [100e-6])]
    assert verdict(
        "request, median, by the floor", results_of(("request", "natsync", P50, [110e-6]), *floor)
    ).is_reached
    missed = verdict("request, median, by the floor", results_of(("request", "natsync", P50, [120e-6]), *floor))
    assert missed.is_reached is False


def test_a_goal_that_was_not_measured_is_neither_reached_nor_missed():
    assert all(each.is_reached is None for each in goals.judge(Results()))


def test_goals_of_memory_and_import():
    results = results_of(
        ("memory-pending", "natsync", SIZE, [153.0]),
        ("import", "natsync", SECONDS, [0.075]),
        ("import", "floor", SECONDS, [0.010]),
    )
    assert verdict("memory of a pending", results).is_reached
    missed = verdict("import", results)
    assert missed.value == pytest.approx(65)
    assert missed.is_reached is False


def test_a_place_lost_over_tls():
    results = results_of(
        ("publish-16", "natsync", RATE, [20.0]),
        ("publish-16", "nats-py", RATE, [10.0]),
        ("publish-16", "natsrpy", RATE, [30.0]),
        ("tls-publish-16", "natsync", RATE, [9.0]),
        ("tls-publish-16", "nats-py", RATE, [10.0]),
        ("tls-publish-16", "natsrpy", RATE, [30.0]),
    )
    assert verdict("places lost", results).value == 1


def test_the_tables_agree():
    assert all(metric in METRICS for scenario in BY_KEY.values() for metric in scenario.metrics)
    assert {scenario.key for scenario in SCENARIOS} <= BY_KEY.keys()
    assert contenders.PEERS[-1] == "natsio"
    needed = frozenset().union(*(scenario.needs for scenario in BY_KEY.values()))
    assert all(contender.lacks <= needed for contender in contenders.CONTENDERS)
