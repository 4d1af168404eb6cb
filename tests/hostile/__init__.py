"""What a receiver must refuse, as one table: a row of the list, what is wrong, the code it gets.

Each case is a good bundle with one thing changed, signed again where the change is inside the
signed part, so that the check that is meant is the one that catches it. The tests that read this
table: the reader and the table of errors (unit), restoring (integration), verify-bundle.sh.
"""

from tests.hostile import documents, headers, members, names, signatures, stream
from tests.hostile.case import Case

CASES: list[Case] = [
    *signatures.CASES,
    *documents.CASES,
    *names.CASES,
    *headers.CASES,
    *members.CASES,
    *stream.CASES,
]

# Rows that no bundle of this table shows, with their codes: what they are stands in the name of the
# test that shows them, `test_h48_…`.
SURROUNDINGS: dict[str, set[str]] = {
    "H09": {"key-unusable"},
    "H33": {"bundle-id-taken"},
    "H48": {"symlink-leaves"},
    "H90": {"not-a-bundle"},
    "H91": {"bundle-truncated", "trailing-data", "frame-digest-mismatch"},
    "H93": {"disk-error"},
    "H94": {"rows-invalid", "rows-too-many", "sink-refused"},
}

# Rows that are no refusal; they have tests of their own too.
HARMLESS: dict[str, str] = {
    "H46": "names reserved on Windows are good names here",
    "H92": "two names of one inode are one bundle: the second is its duplicate",
    "H95": "archives inside payload are bytes like any other",
}
