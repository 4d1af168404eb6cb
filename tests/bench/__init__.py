"""Benchmarks: bundles against the plain tools, on generated corpora.

From the project's folder, with the development dependencies installed:

    python -m tests.bench [--quick] [--folder DIR] [build|verify|restore|memory|inspect]...

Without names, all five. What is compared with what stands in `contestants`; both sides are durable:
the plain tools are followed by `sync -f`, spoold syncs what it makes. Runs are interleaved, so that
whatever else the machine does meets all of them; the table has medians, and ratios of medians.
The other peers run once; those that are not installed are left out; with --quick, all but the
plain tools. It ends with one Markdown table and the machine's limits.

Seconds of spoold are those of the work in a process that runs already, as a worker does; its start
is a line of its own. Everything is made from fixed seeds, in DIR or a temporary folder, and the
source is in the page cache when it is read. About 12 GB are needed, 1 GB with --quick.
"""
