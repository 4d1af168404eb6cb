"""JSON Schemas of handlers: what they refuse, with the place; and that nothing is ever fetched."""

import json
import signal
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from spoold import errors
from spoold.errors import SpooldError
from spoold.handlers.schema import Schema

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
INTENT = {
    "type": "object",
    "required": ["site", "replicas"],
    "properties": {
        "site": {"type": "string"},
        "replicas": {"$ref": "#/$defs/count"},
        "ports": {"type": "array", "items": {"$ref": "#/$defs/count"}},
    },
    "additionalProperties": False,
    "$defs": {"count": {"type": "integer", "minimum": 1}},
}


def refusal(schema: object, document: object) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        Schema(schema).check(document)
    return caught.value


def test_a_document_that_fulfils_it_passes() -> None:
    Schema(INTENT).check({"site": "a", "replicas": 2, "ports": [1]})


def test_every_mistake_is_told_with_its_place() -> None:
    error = refusal(INTENT, {"site": 1, "replicas": 2, "ports": [1, 0], "x\x1b": 1})
    assert error.code is errors.DROP_SCHEMA
    assert "ports[1]: 0 is less than the minimum of 1" in error.message
    assert "site: 1 is not of type 'string'" in error.message
    assert "the drop: Additional properties" in error.message
    assert "\x1b" not in error.message
    assert refusal(INTENT, {"site": "a", "replicas": 0}).at == "replicas"


def test_a_refusal_is_short_whatever_was_sent() -> None:
    error = refusal({"items": {"type": "string"}}, [["x" * 10_000]] * 1000)
    assert len(error.message) < 3000


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "https://example.org/schema.json"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"anyOf": [{"$dynamicRef": "other.json#a"}]},
        {"$ref": "//host/x"},
        [],
    ],
)
def test_what_is_no_schema_or_leads_elsewhere_is_refused(schema: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Schema(schema)


def test_a_base_that_names_a_server_is_never_asked() -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}/schema.json"
        schema = {"$id": base, "$schema": f"{base}#meta", "$ref": "#/$defs/gone"}
        error = refusal(schema, {})
        server.shutdown()
    assert error.code is errors.HANDLER_UNKNOWN
    assert asked == []


@pytest.mark.parametrize(
    ("schema", "reference"),
    [
        (INTENT, None),
        (True, None),
        ({"const": {"$ref": "#/gone"}, "properties": {"$ref": {"$ref": "#"}}}, None),
        ({"$id": "urn:a", "$defs": {"b": {"$anchor": "b"}}, "items": {"$ref": "#b"}}, None),
        ({"$defs": {"b": {"$id": "urn:b", "$ref": "#/$defs/c", "$defs": {"c": {}}}}}, None),
        ({"$ref": "#/$defs/gone"}, "#/$defs/gone"),
        ({"properties": {"a": {"items": {"$ref": "#gone"}}}}, "#gone"),
        ({"allOf": [{}], "not": {"$ref": "#/allOf/x"}}, "#/allOf/x"),
        ({"$schema": DRAFT_7, "$ref": "#/definitions/a"}, "#/definitions/a"),
    ],
)
def test_a_reference_that_leads_nowhere_is_found_without_a_drop(
    schema: object, reference: str | None
) -> None:
    assert Schema(schema).dangling() == reference


def test_schemas_of_an_older_draft_are_understood() -> None:
    schema = {"$schema": DRAFT_7, "items": [{"type": "integer"}]}
    assert refusal(schema, ["a"]).at == "[0]"
    assert json.dumps(schema)


def test_a_pattern_that_would_go_on_for_years_is_given_up() -> None:
    schema = Schema({"properties": {"n": {"pattern": "^(a+)+$"}}})
    schema.check({"n": "aaa"}, 0.2)
    with pytest.raises(SpooldError) as caught:
        schema.check({"n": "a" * 40 + "b"}, 0.2)
    assert caught.value.code is errors.DROP_SCHEMA
    assert "0.2 s of processor time" in caught.value.message
    assert signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
