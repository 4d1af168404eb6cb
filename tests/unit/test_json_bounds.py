import json

import pytest

from spoold import json_bounds


@pytest.mark.parametrize(
    ("text", "depth"),
    [("1", 0), ("{}", 1), ("[1,2]", 1), ('{"a":[]}', 2), ('[1,[{"a":"["}],[]]', 3)],
)
def test_depth_counts_lists_and_objects_one_in_another(text: str, depth: int) -> None:
    assert json_bounds.depth(json.loads(text)) == depth


def test_depth_is_told_of_what_is_too_deep_for_recursion() -> None:
    value: list[object] = []
    for _ in range(99_999):
        value = [value]
    assert json_bounds.depth(value) == 100_000


def test_a_key_stands_once() -> None:
    assert json_bounds.unique_keys([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="duplicate key"):
        json_bounds.unique_keys([("a", 1), ("a", 1)])
