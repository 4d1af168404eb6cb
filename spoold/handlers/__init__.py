"""External tools, one run for each drop of a name: what is configured, and how one is run.

`keeper` is a program of its own between a worker and a tool: whatever ends, the tool ends too.
"""

from spoold.handlers.handler import NO_HANDLERS, Handler, Handlers, Limits, Mode

__all__ = ["NO_HANDLERS", "Handler", "Handlers", "Limits", "Mode"]
