"""The plot of the documentation: natsync's figure by each peer's, as SVG. Needs matplotlib (the extra `bench`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders import PEERS
from benchmarks.scenarios import BY_KEY, METRICS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.results import Results

SHOWN = (
    "publish-16",
    "publish-16-threads",
    "callback-16",
    "iteration-16",
    "next-msg-16",
    "request",
    "request-32-threads",
    "request-in-flight",
    "request-computing",
    "respond",
    "callback-64k",
    "tls-callback-16",
    "tls-request",
)


def plot(results: Results, path: Path) -> None:
    """Draw how many times faster natsync is than each peer; the line is as fast."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "natsync"  # the same figures make the same file
    mpl.rcParams["svg.fonttype"] = "none"  # letters, not their outlines
    from matplotlib import pyplot

    shown = [key for key in reversed(SHOWN) if any(scenario == key for scenario, _ in results.series)]
    peers = [key for key in PEERS if key in results.contenders]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.55 * len(shown)), layout="constrained")
    height = 0.8 / max(1, len(peers))
    for number, peer in enumerate(peers):
        places, ratios = [], []
        for place, key in enumerate(shown):
            metric = METRICS[BY_KEY[key].metrics[0]]
            ratio = results.ratio(key, metric.key, peer)
            if ratio is not None:
                places.append(place + 0.4 - (number + 0.5) * height)
                ratios.append(ratio if metric.higher_is_better else 1 / ratio)
        axes.barh(places, [ratio - 1 for ratio in ratios], height, left=1.0, label=peer)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    axes.set_xlim(0.1, 150)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set_xticks(ticks, [f"{tick:g} x" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(shown)), [BY_KEY[key].title for key in shown])
    axes.set_title(
        "natsync by each peer: rates, and inverse latencies (right of 1 x natsync is faster)", fontsize="medium"
    )
    figure.legend(loc="outside lower center", ncols=6, fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
