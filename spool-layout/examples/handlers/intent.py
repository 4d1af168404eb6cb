#!/usr/bin/env python3
"""intent.py --site=SITE FILE OUT: make one manifest for each replica that an intent asks for."""

import json
import os
import sys
from pathlib import Path


def main() -> int:
    """Write the manifests; returns the exit status."""
    site, file, out = sys.argv[1].removeprefix("--site="), Path(sys.argv[2]), Path(sys.argv[3])
    intent = json.loads(file.read_text())
    for number in range(1, intent["replicas"] + 1):
        manifest = {"site": site, "replica": number, "mode": os.environ["INTENT_MODE"]}
        (out / f"{site}-{number}.json").write_text(json.dumps(manifest) + "\n")
    print(f"{intent['replicas']} manifests for {site}")
    # 75 (EX_TEMPFAIL) would ask to be tried again, anything else says that this drop failed.
    return 0 if intent["replicas"] <= 10 else 3


if __name__ == "__main__":
    sys.exit(main())
