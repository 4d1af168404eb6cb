"""What a job does: one module an action, given a context, returns an outcome."""

from collections.abc import Mapping
from typing import Final

from spoold.actions import bundle, rehydrate
from spoold.actions.context import Action

ACTIONS: Final[Mapping[str, Action]] = {"bundle": bundle.ACTION, "rehydrate": rehydrate.ACTION}
