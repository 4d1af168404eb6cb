"""Benchmarks of rows: out of PostgreSQL into a bundle, and back.

From the project's folder, with the development dependencies and `psql` installed:

    python -m tests.bench.rows [--rows N] [--rounds N] [--folder DIR] [export | merge]...

export   a bundle of all rows of a table, made as a worker makes it and synced, beside
         `psql -c "\\copy (select row_to_json(q) from (…) q) to 'file'"` and `sync -f`, in turns:
         both sides are durable. Seconds of spoold are those of the work in a process that runs
         already, as a worker does; the peak of memory is that process's.
merge    the same rows as JSON lines, planned and applied by the sink into an empty table with a
         primary key, beside `\\copy` into a temporary table of its types and `INSERT … ON CONFLICT
         DO NOTHING`, in turns; then the same lines once more.

5,000,000 rows of six columns, unless said otherwise, in the embedded server; both sides find the
table in its cache or in the system's. Ratios are of medians.
"""
