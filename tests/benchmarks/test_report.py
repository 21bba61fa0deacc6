"""What is printed, what the documentation gets, and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import main, parse
from benchmarks.results import Results, Series
from benchmarks.scenarios import BY_KEY, RATE


@pytest.fixture
def results() -> Results:
    results = Results(rounds=2, seconds=0.1, machine={"cpu": "fast"})
    for contender, values in (("floor", [4e6, 6e6]), ("natsync", [2e6, 1e6]), ("nats-py", [5e5, 5e5])):
        results.contenders[contender] = {"python": "3.11.7"}
        results.series["publish-16", contender] = Series({RATE: values})
    return results


@pytest.mark.parametrize(
    "value,text",
    [(0, "0"), (1234567, "1,230,000"), (12.34, "12.3"), (0.04567, "0.0457"), (999.6, "1,000"), (1, "1.00")],
)
def test_numbers_have_three_digits_that_count(value: float, text: str):
    assert report.number(value) == text


def test_a_block_has_median_least_most_and_ratio(results: Results):
    lines = list(report.block(results, BY_KEY["publish-16"]))
    assert [line.split() for line in lines if "nats" in line] == [
        ["natsync", "1,500,000", "1,000,000", "2,000,000"],
        ["nats-py", "500,000", "500,000", "500,000", "3.00", "x"],
    ]


def test_what_was_lost_and_what_failed_is_shown(results: Results):
    results.series["publish-16", "nats-py"].lost = 5
    results.series["publish-16", "nats-py"].sent = 1000
    results.series["publish-16", "natsrpy"] = Series(error="it has ended")
    text = "\n".join(report.block(results, BY_KEY["publish-16"]))
    assert "LOST 5 of 1,000" in text
    assert "FAILED: it has ended" in text


def test_goals_are_shown(results: Results):
    line = next(line for line in report.goal_lines(results) if line.startswith("publish 16 B, by the best"))
    assert line.split()[-4:] == ["reached", "3", "x", "nats-py"]


def test_the_documentation_has_a_row_for_each_figure(results: Results):
    text = "\n".join(report.documentation(results))
    assert "    * - publish 16 B: messages/s\n      - 5,000,000 (4,000,000 to 6,000,000)\n" in text


def test_results_can_be_shown_again(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "results.json"
    results.dump(path)
    assert main(["--load", str(path)]) == 0
    assert "publish 16 B  (publish-16)" in capsys.readouterr().out


def test_the_command_line_takes_lists():
    arguments = parse(["--scenario", "publish-16,tls-respond", "--peer", "nats-py,natsio"])
    assert arguments.scenario == ["publish-16", "tls-respond"]
    assert arguments.peer == ["nats-py", "natsio"]


def test_the_command_line_refuses_what_there_is_not(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(["--scenario", "nonsense"])
    assert "there is no 'nonsense'; there are publish-16, " in capsys.readouterr().err
