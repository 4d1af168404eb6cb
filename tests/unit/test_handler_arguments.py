"""Commands of handlers: placeholders fill parts of arguments, and never make an option."""

import json

import pytest

from spoold import errors
from spoold.actions import command
from spoold.errors import Code, SpooldError
from spoold.handlers import arguments
from tests.tools import handler

VALUES = {
    arguments.FILE: b"/scratch/in/intent-1.json",
    arguments.OUT: b"/scratch/out",
    arguments.JOB: b"0199",
    arguments.NAME: b"intent-1.json",
}


def filled(*texts: str, document: object = None, **values: bytes) -> list[bytes]:
    parsed = tuple(arguments.parse(text, structured=True) for text in texts)
    return arguments.fill(parsed, {**VALUES, **values}, document)


def refusal(text: str, document: object = None, **values: bytes) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        filled(text, document=document, **values)
    assert caught.value.code is errors.HANDLER_ARGUMENT
    return caught.value


def test_placeholders_are_filled_in_place() -> None:
    assert filled("-intent", "{file}", "--out={out}", "{{{job}}}", "a b;$x") == [
        b"-intent",
        b"/scratch/in/intent-1.json",
        b"--out=/scratch/out",
        b"{0199}",
        b"a b;$x",
    ]


@pytest.mark.parametrize("text", ["{fil}", "{}", "{", "}", "{file", "a}b", "{json.}", "\0"])
def test_what_is_no_placeholder_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        arguments.parse(text, structured=True)


def test_fields_are_for_structured_mode_only() -> None:
    with pytest.raises(ValueError, match="structured"):
        arguments.parse("{json.site}", structured=False)


def test_fields_become_arguments_as_they_are() -> None:
    document = {"a": "x; rm -rf /", "n": -3, "f": 1.5, "t": True, "u": "ä\n"}
    assert filled(
        "{json.a}", "n={json.n}", "{json.f}", "{json.t}", "{json.u}", document=document
    ) == [b"x; rm -rf /", b"n=-3", b"1.5", b"true", "ä\n".encode()]


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({}, "missing"),
        ({"a": None}, "no text"),
        ({"a": ["x"]}, "no text"),
        ({"a": {"b": 1}}, "no text"),
        ({"a": "--output=/etc/passwd"}, "begins with -"),
        ({"a": -1}, "begins with -"),
        ({"a": "x\0y"}, "NUL"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": "x" * 200_000}, "too long"),
        ([], "no JSON object"),
    ],
)
def test_a_field_that_cannot_be_an_argument_is_refused(document: object, what: str) -> None:
    assert what in refusal("{json.a}", document).message


def test_a_name_that_begins_with_a_dash_never_becomes_an_option() -> None:
    assert "begins with -" in refusal("{name}", name=b"--help.json").message
    assert filled("./{name}", name=b"--help.json") == [b"./--help.json"]
    # two placeholders, the first of them empty
    assert "begins" in refusal("{json.a}{json.b}", {"a": "", "b": "-x"}).message


def code(content: bytes, **fields: object) -> Code | None:
    try:
        command.check(handler("true", **fields), b"intent-1.json", content)
    except SpooldError as error:
        return error.code
    return None


def test_a_drop_is_checked_as_its_handler_would() -> None:
    structured = {"structured": True}
    assert code(b"anything") is None
    assert code(b"12345", max_bytes=4) is errors.DROP_TOO_LARGE
    assert code(b"{}", **structured) is None
    assert code(b"[]", **structured) is errors.DROP_NOT_JSON
    for bad in (b"{", b'{"a":1,"a":2}', b"NaN", b"\xff", b"[" * 100_000, b"[" * 100 + b"]" * 100):
        assert code(bad, **structured) is errors.DROP_NOT_JSON
    deep = json.dumps([[0] * 1_100_000]).encode()
    assert code(deep, **structured) is errors.DROP_NOT_JSON
