"""The command: see the package."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from spoold import log
from tests.bench.report import Row, machine, table
from tests.bench.rows import export, merge
from tests.bench.rows.table import make, server

_OPERATIONS = {"export": export.compare, "merge": merge.compare}
_HEAD = ("operation", "input", "by", "median", "ratio", "must", "peak memory")


def main() -> None:
    """Parse the arguments, run, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rows")
    parser.add_argument("--rows", type=int, default=5_000_000, help="how many; else 5,000,000")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; else 3")
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder")
    parser.add_argument("operations", nargs="*", choices=[*_OPERATIONS, []], metavar="OPERATION")
    arguments = parser.parse_args()
    log.configure("warning", "text")
    # So that server and folders do not stay behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="spoold-bench-", dir=arguments.folder) as temporary:
        folder = Path(temporary).resolve()
        with server(folder) as conninfo:
            make(conninfo, arguments.rows)
            for operation in arguments.operations or _OPERATIONS:
                found += _OPERATIONS[operation](folder, conninfo, arguments.rows, arguments.rounds)
        print(table(_HEAD, found))
        print(f"\n{machine(folder, 'psql')}")


if __name__ == "__main__":
    main()
