"""Configuration: TOML, environment and flags, read once, checked whole, each value's origin kept.

Importing this costs pydantic (some 70 ms): commands import it where they need it.
"""

from spoold.config.effective import Config, Origin, values, variable_of
from spoold.config.load import find, host_site, load
from spoold.config.template import template, toml_value
from spoold.connections.secrets import scrubbed

__all__ = [
    "Config",
    "Origin",
    "find",
    "host_site",
    "load",
    "scrubbed",
    "template",
    "toml_value",
    "values",
    "variable_of",
]
