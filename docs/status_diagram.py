"""Draws the states of a client, docs/status.svg, from the table in the code.

    python docs/status_diagram.py           writes the picture
    python docs/status_diagram.py --check   says whether it is what the table says

Only the places of the boxes are chosen here; which arrows there are comes from the table.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from natsync.policy.status import TRANSITIONS, Status

PICTURE = Path(__file__).with_name("status.svg")
WIDTH, HEIGHT = 150, 40
PLACES = {
    Status.DISCONNECTED: (90, 40),
    Status.CONNECTING: (310, 40),
    Status.CONNECTED: (640, 40),
    Status.RECONNECTING: (530, 150),
    Status.DRAINING_SUBS: (890, 40),
    Status.DRAINING_PUBS: (890, 190),
    Status.CLOSED: (640, 340),
}
LABELS = {
    (Status.DISCONNECTED, Status.CONNECTING): "connect()",
    (Status.CONNECTING, Status.CONNECTED): "Connected",
    (Status.CONNECTING, Status.RECONNECTING): "retry",
    (Status.CONNECTING, Status.DISCONNECTED): "no server",
    (Status.CONNECTED, Status.RECONNECTING): "Disconnected",
    (Status.RECONNECTING, Status.CONNECTED): "Reconnected",
    (Status.CONNECTED, Status.DRAINING_SUBS): "drain()",
    (Status.DRAINING_SUBS, Status.DRAINING_PUBS): "handlers done",
    (Status.DRAINING_PUBS, Status.CLOSED): "Closed",
    (Status.RECONNECTING, Status.CLOSED): "Closed",
}


def draw() -> str:
    """Return the picture."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 390" font-family="sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="10" refY="5" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0,0 L10,5 L0,10 z" fill="#555"/></marker></defs>',
    ]
    for source, targets in TRANSITIONS.items():
        parts += [_arrow(source, target) for target in sorted(targets, key=lambda status: status.name)]
    parts += [_box(status) for status in Status]
    return "\n".join([*parts, "</svg>", ""])


def _box(status: Status) -> str:
    x, y = PLACES[status]
    return (
        f'<rect x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#eef4fb" '
        f'stroke="#346"/><text x="{x}" y="{y + 5}" text-anchor="middle">{status.name}</text>'
    )


def _arrow(source: Status, target: Status) -> str:
    # Two opposite arrows run beside each other.
    aside = 9 if source in TRANSITIONS[target] else 0
    (x1, y1), (x2, y2) = PLACES[source], PLACES[target]
    length = math.hypot(x2 - x1, y2 - y1)
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    x1, y1, x2, y2 = (x1 - dy * aside, y1 + dx * aside, x2 - dy * aside, y2 + dx * aside)
    start, end = _edge(dx, dy), _edge(dx, dy)
    line = (
        f'<line x1="{x1 + dx * start:.0f}" y1="{y1 + dy * start:.0f}" x2="{x2 - dx * end:.0f}" '
        f'y2="{y2 - dy * end:.0f}" stroke="#555" marker-end="url(#tip)"/>'
    )
    label = LABELS.get((source, target))
    if label is None:
        return line
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    anchor, shift = ("middle", -6 if aside <= 0 or dx < 0 else 16) if abs(dx) > abs(dy) else ("start", 4)
    if abs(dx) <= abs(dy) and dy > 0 and aside:
        anchor, x = "end", x - 6
    elif anchor == "start":
        x += 6
    return f'{line}<text x="{x:.0f}" y="{y + shift:.0f}" text-anchor="{anchor}" fill="#333">{label}</text>'


def _edge(dx: float, dy: float) -> float:
    """Return the way from a box's middle to its border in a direction."""
    return min(
        WIDTH / 2 / abs(dx) if dx else math.inf,
        HEIGHT / 2 / abs(dy) if dy else math.inf,
    )


if __name__ == "__main__":
    if "--check" in sys.argv:
        stale = PICTURE.read_text() != draw()
        sys.exit("docs/status.svg is out of date: python docs/status_diagram.py" if stale else None)
    PICTURE.write_text(draw())
