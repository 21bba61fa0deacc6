"""A script as cron runs it: asks all shops for their takings, publishes the sum, and ends.

NATS_URL=nats://127.0.0.1:4222 python report.py
"""

import os
import sys

import natsync

try:
    nc = natsync.connect(os.environ.get("NATS_URL"), name="report", connect_timeout=5.0)
except natsync.NatsError as error:
    sys.exit(f"report: {error}")

total = 0
try:
    for reply in nc.request_many("shops.takings", timeout=5.0, stall=0.5):
        print(reply.headers["Shop"], reply.data.decode())
        total += int(reply.data)
except natsync.NoRespondersError:
    sys.exit("report: no shop is open")
nc.publish("reports.takings", str(total).encode())
print("total", total)
# What was published is sent before the script has ended: nothing has to be closed.
