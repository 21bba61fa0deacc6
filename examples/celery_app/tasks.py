"""A Celery task that tells the world over NATS how it gets on.

The client is made at import, in the worker's parent process. The processes that Celery forks connect by themselves, at
their first use of it: no signal such as worker_process_init is needed.
"""

import os

from celery import Celery

import natsync

folder = os.environ["CELERY_FOLDER"]
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder,
    "data_folder_out": folder,
    "control_folder": os.path.join(folder, "control"),  # noqa: PTH118
}

nc = natsync.connect(os.environ.get("NATS_URL"), name="tasks", retry_on_failed_connect=True)


@app.task
def add_up(numbers, inbox):
    """Add numbers, and publish the sum so far after each of them."""
    total = 0
    for number in numbers:
        total += number
        nc.publish(inbox, str(total).encode(), headers={"Process": str(os.getpid())})
    nc.flush()  # the task is over when the server has it all
    return total
