"""What the operator has configured that jobs may use: the only things that a request can name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spoold.connections.apis import ApiSettings, EndpointSettings
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.connections.recipes import RecipeSettings
from spoold.connections.stores import StoreSettings

__all__ = ["NO_CONNECTIONS", "Connections"]


@dataclass(frozen=True, slots=True)
class Connections:
    """Each by its name."""

    roots: Mapping[str, Path] = field(default_factory=dict)
    databases: Mapping[str, DatabaseSettings] = field(default_factory=dict)
    queries: Mapping[str, QuerySettings] = field(default_factory=dict)
    apis: Mapping[str, ApiSettings] = field(default_factory=dict)
    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict)
    stores: Mapping[str, StoreSettings] = field(default_factory=dict)
    recipes: Mapping[str, RecipeSettings] = field(default_factory=dict)
    plugins: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """`[plugins.<kind>]`, for kinds of others."""


NO_CONNECTIONS = Connections()
