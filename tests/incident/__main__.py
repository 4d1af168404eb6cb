"""`python -m tests.incident`: the story in a temporary folder, told as it goes."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from spoold import log
from spoold.sinks.remove import remove_tree
from tests.incident import story


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.incident", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the folder, and say where it is")
    log.configure(log.Level.ERROR)  # of the servers that are started here
    keep = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="spoold-incident-"))
    started = time.monotonic()
    try:
        story.tell(folder, lambda line: print(line, flush=True))
        print(f"in {time.monotonic() - started:.0f} s")
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            remove_tree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
