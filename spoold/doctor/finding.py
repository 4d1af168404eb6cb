"""What a check says."""

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """How bad a finding is; only FAIL makes `doctor` fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    check: str
    detail: str
    fix: str = ""
