"""Recipes: values in their places, and nothing that they could widen."""

from typing import Any

import pytest

from spoold.connections.parameters import ParameterType, bind
from spoold.connections.recipes import filled_in, placeholders, samples
from spoold.errors import SpooldError

DECLARED = {
    "incident_id": ParameterType.TEXT,
    "number": ParameterType.INTEGER,
    "closed": ParameterType.BOOLEAN,
    "since": ParameterType.TIMESTAMP,
    "score": ParameterType.NUMERIC,
    "case": ParameterType.UUID,
}
GIVEN = {
    "incident_id": "INC-7",
    "number": 7,
    "closed": True,
    "since": "2026-11-20T10:00:00Z",
    "score": "1.50",
    "case": "0F8FAD5B-D9CB-469F-A165-70867728950E",
}


def fill(source: dict[str, Any], **given: Any) -> dict[str, object]:
    return filled_in(source, bind(DECLARED, {**GIVEN, **given}, at="parameters"))


def test_values_stand_in_every_text_however_deep() -> None:
    source = {
        "kind": "files",
        "path": "{incident_id}/{number}",
        "include": ["{closed}-*", "{other}"],
        "max": 3,
    }
    assert fill(source) == {
        "kind": "files",
        "path": "INC-7/7",
        "include": ["true-*", "{other}"],
        "max": 3,
    }


def test_parameters_of_a_source_keep_their_types() -> None:
    whole = {name: f"{{{name}}}" for name in DECLARED}
    assert fill({"parameters": whole})["parameters"] == {
        **GIVEN,
        "since": "2026-11-20T10:00:00+00:00",
        "case": GIVEN["case"].lower(),  # type: ignore[attr-defined]
    }
    assert fill({"parameters": {"text": "{number}/{closed}"}})["parameters"] == {"text": "7/true"}


@pytest.mark.parametrize(
    "value", ["", ".", "..", "a/b", "../..", "*", "a?", "[a]", "{number}", "a\nb", "a\\b"]
)
def test_a_value_is_one_plain_segment_of_a_path(value: str) -> None:
    with pytest.raises(SpooldError) as caught:
        fill({"path": "incidents/{incident_id}"}, incident_id=value)
    assert caught.value.code.name == "parameters-invalid"
    assert caught.value.at == "parameters.incident_id"
    assert fill({"parameters": {"id": "{incident_id}"}}, incident_id=value) == {
        "parameters": {"id": value}
    }


def test_placeholders_have_their_places() -> None:
    source = {"path": "{a}/{b}", "include": ["x", "{c}"], "parameters": {"d": "{d}"}, "max": 1}
    assert list(placeholders(source)) == [
        (("path",), "a"),
        (("path",), "b"),
        (("include", "1"), "c"),
        (("parameters", "d"), "d"),
    ]


def test_a_sample_is_a_value_of_its_type() -> None:
    declared = {wanted.value: wanted for wanted in ParameterType}
    assert set(bind(declared, samples(declared), at="")) == set(declared)
