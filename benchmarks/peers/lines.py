"""What the harness and its processes say to each other: one JSON object a line, over stdin and stdout.

The harness sends `{"do": NAME, ...}`; the process calls its method of that name with the rest as keyword arguments and
answers with what that returns, or with `{"error": ...}`. It ends with its stdin.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any


def say(message: dict[str, Any]) -> None:
    """Send one message to the harness."""
    sys.__stdout__.write(json.dumps(message) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def serve(actor: object) -> None:
    """Do what the harness says until it says no more."""
    sys.stdout = sys.stderr  # what a client prints must not get between the lines
    for line in sys.stdin:
        message = json.loads(line)
        try:
            answer = getattr(actor, message.pop("do"))(**message)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        say(answer)
