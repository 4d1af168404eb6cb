"""What `retry` refuses before it asks the queue."""

import pytest
from click.testing import CliRunner

from spoold.cli import cli


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name jobs"),
        (("request-a.json", "--state", "failed"), "name jobs"),
        (("--code", "no-spcae"), "did you mean no-space?"),
        (("--state", "running"), "not one of"),
        (("--state", "failed", "--older-than", "1"), "no duration"),
    ],
)
def test_a_retry_of_nothing_in_particular_is_refused(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(cli, ["retry", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
