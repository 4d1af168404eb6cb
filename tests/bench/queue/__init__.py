"""Benchmarks of the queue: the whole daemon on the embedded server, in durable settings.

From the project's folder, with the development dependencies and, for the peer, procrastinate
(`pip install procrastinate`; without it that row is left out):

    python -m tests.bench.queue [--quick] [--jobs N] [drops|latency|idle|claim|fence]...
    python -m tests.bench.queue [--quick] burst|intake-latency

Without names, the first five.

drops    N requests for a bundle of one file of 1 KB, renamed into the inbox of a daemon that runs:
         from the first rename to the last final status. Beside it, in turns on the same server:
         procrastinate's no-op jobs, 10 at a time, and commits of one row on one connection. Ratios
         are of medians.
latency  single drops on an idle daemon: until the row is committed, until the final status is there
idle     CPU and memory of supervisor, workers and server while nothing happens
claim    cost of a claim with many other rows, against an empty queue; on PostgreSQL 15 too, where
         Debian's package is installed
burst    120,000 drops: what one costs the intake, beside one of 1,000; then the whole daemon, by
         rename and by copy, until each has its one answer; peaks of memory
intake-latency   single drops on an idle daemon: from the rename to the status `queued`
fence    jobs whose workers outsleep their leases of 15 ms: results accepted from those must be 0
"""
