"""An incident from live systems, carried to another site, and back into live systems.

`python -m tests.incident` shows it: site-a gathers a timeline and artifacts from an API, alerts
from its database and files from a folder; site-b merges the alerts into its own database and keeps
the artifacts in a store. `site-a.toml`, `site-b.toml` and `request-inc-7.json` are what an operator
would write, used as they are. Linux only, like spoold: the API has an address of its own in
127.0.0.0/8.
"""
