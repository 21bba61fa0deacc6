"""Celery tasks that use a client in a global variable; the queue is a folder, so that no broker is needed."""

from __future__ import annotations

import os

import celery

import natsync

FOLDER = os.environ["QUEUE_FOLDER"]

nc = natsync.connect(os.environ["NATS_URL"])
app = celery.Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": FOLDER,
    "data_folder_out": FOLDER,
    "control_folder": f"{FOLDER}/control",
}


@app.task
def publish(number: int) -> None:
    nc.publish("tasks.seen", b"%d %d" % (number, os.getpid()))


@app.task
def request(number: int) -> None:
    answer = nc.request("tasks.echo", b"%d" % number).data
    nc.publish("tasks.answered", answer)
