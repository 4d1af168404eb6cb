"""What a job does: one module an action, given a context, returns an outcome."""

from collections.abc import Mapping
from typing import Final

from spoold.actions import bundle, command, rehydrate
from spoold.actions.context import Action
from spoold.actions.request import Envelope

ACTIONS: Final[Mapping[str, Action]] = {
    "bundle": bundle.ACTION,
    "rehydrate": rehydrate.ACTION,
    command.NAME: command.ACTION,
}
MODELS: Final[Mapping[str, type[Envelope]]] = {
    name: action.request for name, action in ACTIONS.items() if action.request is not None
}
"""The model of each action's requests; what no request can ask for has none."""
