"""Lose the connection, publish all the same, and find the way back.

python examples/reconnect.py [URL]      without a URL it starts a server of its own, kills it and starts it again

With a URL it leaves your server alone, and only drops its connection.
"""

import sys
import threading

import natsync
from natsync.testing import NatsServer


def main(url: str, server: NatsServer | None = None) -> None:
    lost, back = threading.Event(), threading.Event()

    def on_disconnected(event: natsync.events.Event) -> None:
        print("lost:", event.error or "as we wished")
        lost.set()

    def on_reconnected(event: natsync.events.Event) -> None:
        print("back on", event.server)
        back.set()

    nc = natsync.connect(
        url,
        name="reconnect",
        reconnect_time_wait=0.5,  # default: 2 seconds
        disconnected_cb=on_disconnected,
        reconnect_error_cb=lambda event: print("not yet:", event.error),
        reconnected_cb=on_reconnected,
    )
    with nc, nc.subscribe("examples.diary") as diary:
        nc.flush()
        if server is not None:
            server.kill()
        else:
            nc.force_reconnect()
        lost.wait(5.0)

        for number in range(3):
            nc.publish("examples.diary", f"entry {number}".encode())
        print(f"{nc.status.value}, {nc.buffered} bytes wait to be sent")

        if server is not None:
            server.start()
        back.wait(5.0)
        for _ in range(3):
            print(diary.next_msg(timeout=5.0).data.decode())
        print(f"{nc.stats.reconnects} reconnect, {nc.stats.dropped} messages dropped")
    print("the end")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with NatsServer() as server:
            main(server.url, server)
