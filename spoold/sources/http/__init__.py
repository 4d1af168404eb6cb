"""The http source: answers and files of a configured API, fetched by GET.

An endpoint's answer is a list of items, which become the lines of `<into>/<endpoint>.jsonl`; or it
is a file, `<into>/<file>`; or it is a list whose every item has a file, `<into>/<name>`, besides
the lines. A request names the endpoint and gives values; it never carries an address.

What an address may be is in `addresses`, what a page is in `pages`, how a request is made and made
again in `client`, how a file is resumed in `download`.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from spoold import errors
from spoold.bundle.entry import SourceEntry
from spoold.connections.parameters import Given, bind
from spoold.errors import SpooldError
from spoold.section import Name
from spoold.sources.fields import Into
from spoold.sources.http.addresses import require_address
from spoold.sources.source import Gathering, Problem, SourceSpec, raise_it


class HttpSpec(SourceSpec):
    """A request's source of kind `http`."""

    kind: Literal["http"]
    endpoint: Name = Field(description="a key of [endpoints] in the configuration")
    parameters: Given = Field(default_factory=dict, description="exactly those it declares")
    into: Into | None = Field(default=None, description="the folder in the bundle")

    def title(self) -> str:
        """Kind and endpoint."""
        return f"http:{self.endpoint}"

    def name(self) -> str:
        """The endpoint."""
        return self.endpoint


class HttpSource:
    """Fetches what one endpoint has."""

    Spec: ClassVar[type[HttpSpec]] = HttpSpec

    def __init__(self, spec: HttpSpec, gathering: Gathering, label: str) -> None:
        connections = gathering.connections
        endpoint = connections.endpoints.get(spec.endpoint)
        if endpoint is None:
            raise SpooldError(
                errors.ENDPOINT_UNKNOWN, f"there is no [endpoints.{spec.endpoint}]", at="endpoint"
            )
        self._spec, self._gathering, self._label = spec, gathering, label
        self._endpoint, self._api = endpoint, connections.apis[endpoint.api]
        self._values = bind(endpoint.parameters, spec.parameters, at="parameters")
        require_address(self._api.base, endpoint, self._values)
        self._warnings: list[str] = []

    @classmethod
    def open(cls, spec: HttpSpec, gathering: Gathering, label: str) -> "HttpSource":
        """The source that a spec names. Raises endpoint-unknown or parameters-invalid."""
        return cls(spec, gathering, label)

    @property
    def warnings(self) -> list[str]:
        """After the last entry: files that nothing could be compared with."""
        return self._warnings

    def measure(self) -> None:
        """Nobody knows before all is fetched."""

    def entries(self, on_problem: Problem = raise_it) -> Iterator[SourceEntry]:
        """Yield the lines and the files in bundle order; whoever takes one closes its content.

        Raises api-away, api-slow, api-refused, api-untrusted, api-redirect, api-answer-invalid,
        api-too-large, secret-unusable or parameters-invalid. The file of an item that the API
        refuses goes to `on_problem`.
        """
        # Every command loads this module, few fetch something: the HTTP library is loaded here.
        from spoold.sources.http.fetching import Fetch  # noqa: PLC0415

        fetch = Fetch(
            self._endpoint,
            self._api,
            self._values,
            self._gathering,
            label=self._label,
            name=self._spec.endpoint,
            into=self._spec.into,
        )
        yield from fetch.entries(on_problem)
        self._warnings += fetch.warnings
