"""Run the command line as a module: `python -m spoold`."""

from spoold.cli import main

main()
