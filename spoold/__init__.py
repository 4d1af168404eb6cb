"""A folder as a durable, signed job system, and a link between networks that never touch."""

__version__ = "1.0.0.dev0"
