import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Literal

import pytest
from pydantic import Field

from spoold import canonical, errors
from spoold.actions.request import Envelope, Part
from spoold.errors import SpooldError
from spoold.intake.request import parse
from spoold.intake.settings import Idempotency


class Files(Part):
    kind: Literal["files"]
    root: str
    path: str


class Rows(Part):
    kind: Literal["rows"]
    connection: str


class Build(Envelope):
    action: Literal["build"]
    sources: Annotated[
        list[Annotated[Files | Rows, Field(discriminator="kind")]], Field(min_length=1)
    ]


class Nothing(Envelope):
    action: Literal["nothing"]


MODELS = {"build": Build, "nothing": Nothing}
GOOD = {
    "type": "spoold.request/1",
    "action": "build",
    "sources": [{"kind": "files", "root": "a", "path": "b"}],
}


def encode(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def refusal(content: bytes) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        parse(content, MODELS)
    return caught.value


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", 12],
)
def test_a_moment_that_the_queue_could_not_hold_is_refused(moment: object) -> None:
    caught = refusal(encode(not_before=moment))
    assert caught.code is errors.REQUEST_INVALID
    assert caught.at == "not_before"


def test_a_moment_of_any_offset_is_taken_as_utc() -> None:
    parsed = parse(encode(not_before="2026-11-20T00:00:00+23:59"), MODELS)
    assert parsed.envelope.not_before == datetime(2026, 11, 19, 0, 1, tzinfo=UTC)
    assert parsed.envelope.not_before.tzinfo is UTC


def test_a_valid_request_keeps_its_document_and_its_canonical_hash() -> None:
    parsed = parse(encode(priority=7, labels={"case": "1"}, not_before=None), MODELS)
    document = {**GOOD, "priority": 7, "labels": {"case": "1"}, "not_before": None}
    assert parsed.document == document
    assert parsed.sha256 == hashlib.sha256(canonical.encode(document)).digest()
    assert isinstance(parsed.envelope, Build)
    assert parsed.envelope.priority == 7


def test_spaces_and_order_do_not_change_the_hash() -> None:
    spaced = json.dumps(dict(reversed(GOOD.items())), indent=4).encode()
    assert parse(spaced, MODELS).sha256 == parse(encode(), MODELS).sha256


def test_an_unknown_field_is_refused_with_the_nearest_name_and_its_path() -> None:
    error = refusal(encode(sources=[{"kind": "files", "rot": "a", "path": "b"}]))
    assert error.code is errors.REQUEST_INVALID
    assert 'sources[0].rot: is not a known field: did you mean "root"?' in error.message
    assert "sources[0].root: is missing" in error.message
    assert 'did you mean "priority"?' in refusal(encode(priorty=3)).message
    assert refusal(encode(priorty=3)).at == "priorty"


def test_a_unions_tag_is_no_part_of_the_path_and_picks_the_names() -> None:
    error = refusal(encode(sources=[{"kind": "rows", "connection": "c", "conection": "c"}]))
    assert error.at == "sources[0].conection"
    assert 'did you mean "connection"?' in error.message


def test_all_mistakes_come_at_once() -> None:
    error = refusal(encode(priority=2000, sources=[], labels={"bad name": "x"}, name=3))
    for path in ("priority:", "sources:", "labels", "name:"):
        assert path in error.message
    assert refusal(encode(type="x", action="bild", priority=-1)).message.count(";") == 2


def test_an_action_is_named_with_its_neighbours() -> None:
    error = refusal(encode(action="bild"))
    assert (error.at, error.message) == ("action", 'action: is "bild": did you mean "build"?')
    assert "the actions are build, nothing" in refusal(b"{}").message
    assert "type: is missing" in refusal(b"{}").message


@pytest.mark.parametrize("content", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_what_is_no_object_is_no_request(content: bytes) -> None:
    assert refusal(content).code is errors.REQUEST_INVALID


def test_e21_an_empty_file_is_called_that() -> None:
    assert refusal(b"").code is errors.DROP_EMPTY
    assert refusal(b" \n").code is errors.REQUEST_TRUNCATED


def test_e22_a_control_character_has_its_path() -> None:
    error = refusal(encode(sources=[{"kind": "files", "root": "a", "path": "b\x07"}]))
    assert error.code is errors.REQUEST_INVALID
    assert error.at == "sources[0].path"


def test_a_number_is_no_text_and_a_text_no_number() -> None:
    assert refusal(encode(priority="7")).at == "priority"
    assert refusal(encode(correlation_id=7)).at == "correlation_id"


def test_e13_only_a_key_makes_a_duplicate() -> None:
    keyed = parse(encode(idempotency_key="k"), MODELS)
    plain = parse(encode(), MODELS)
    expected = hashlib.sha256(b"request-key\0k").digest()
    assert keyed.dedup_key(Idempotency.KEY) == keyed.dedup_key(Idempotency.CONTENT) == expected
    assert plain.dedup_key(Idempotency.KEY) is None
    assert plain.dedup_key(Idempotency.CONTENT) not in {None, expected}


def test_a_thousand_mistakes_make_no_endless_message() -> None:
    message = refusal(encode(**{f"field{number}": 1 for number in range(1000)})).message
    assert message.endswith("and 950 more")
