"""`[apis]` and `[endpoints]`: HTTP servers that answers and files are fetched from."""

from pydantic import Field

from spoold.connections.parameters import Declaration
from spoold.section import Name, Section


class ApiSettings(Section):
    """An HTTP API. Nothing but its own host is ever spoken to."""

    base: str = Field(description='"https://host/path": endpoints lie beneath it')


class EndpointSettings(Section):
    """What a request may fetch of an API: it names this and gives values, never an address."""

    api: Name = Field(description="a key of [apis]")
    path: str = Field(description='beneath the base: "/incidents/{incident_id}/events"')
    parameters: Declaration = Field(
        default_factory=dict, description='name = "text", integer, numeric, boolean, …'
    )
