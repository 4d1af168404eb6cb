"""Bundles into an object store, and out of it again, by the actions themselves."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoold import errors
from spoold.actions import ACTIONS, rehydrate
from spoold.actions.context import ActionSettings, Context, Outcome
from spoold.connections import Connections
from spoold.errors import SpooldError
from tests.bundles import signer, trusted
from tests.stores import Bucket

A, B = signer("site-a"), signer("site-b")


@dataclasses.dataclass
class Site:
    """Runs actions in scratch folders of their own; a job keeps its digits."""

    folder: Path
    connections: Connections
    attempts: int = 0
    keys: list[bytes] = dataclasses.field(default_factory=list)
    check: Callable[[], None] = lambda: None

    def run(self, action: str, digits: str = "0123456789ab", **fields: Any) -> Outcome:
        """One attempt. What it made stands in `self.scratch`."""
        self.attempts += 1
        self.scratch.mkdir()
        request = {"type": "spoold.request/1", "action": action, **fields}
        return ACTIONS[action].run(
            Context(
                request=request,
                request_sha256=bytes(32),
                digits=digits,
                drop=self.folder / "no-drop",
                scratch=self.scratch,
                settings=ActionSettings(connections=self.connections),
                signer=A if action == "bundle" else B,
                trust=trusted(A, B),
                report=lambda progress: None,
                take_key=lambda key, content: self.keys.append(key),
                check=self.check,
            )
        )

    @property
    def scratch(self) -> Path:
        return self.folder / f"attempt-{self.attempts}"


@pytest.fixture
def site(bucket: Bucket, tmp_path: Path) -> Site:
    tree = tmp_path / "tree"
    for folder, name, content in (
        ("alerts", "a.jsonl", b'{"id":1}\n' * 1000),
        ("artifacts/deep", "dump.bin", bytes(range(256)) * 40_000),
        ("artifacts", "note", b"what happened"),
    ):
        (tree / folder).mkdir(parents=True, exist_ok=True)
        (tree / folder / name).write_bytes(content)
    made = bucket.connections(prefix="bundles", part_bytes=5 * 1024**2)
    return Site(tmp_path, dataclasses.replace(made, roots={"evidence": tree}))


SOURCES = [{"kind": "files", "root": "evidence"}]


def stored(site: Site, **fields: Any) -> dict[str, Any]:
    outcome = site.run("bundle", name="demo", sources=SOURCES, store="vault", **fields)
    return dict(outcome.result)


def test_a_bundle_is_stored_as_it_is_published(site: Site, bucket: Bucket) -> None:
    result = stored(site)
    key = "bundles/demo-0123456789ab.tar.zst"
    assert result["store"] == {"name": "vault", "key": key, "bytes": result["bytes"]}
    assert bucket.keys() == [key]
    (built,) = site.scratch.iterdir()
    assert bucket.get(key) == built.read_bytes()


def test_a_large_bundle_is_stored_in_parts(site: Site, bucket: Bucket, tmp_path: Path) -> None:
    noise = b"".join(n.to_bytes(8, "big") * 3 for n in range(0, 2**63, 2**44))
    (tmp_path / "tree" / "noise").write_bytes(noise)
    result = stored(site, compression={"codec": "gzip", "level": 1})
    (built,) = site.scratch.iterdir()
    assert bucket.get(result["store"]["key"]) == built.read_bytes()
    assert bucket.uploads() == []


def test_a_later_attempt_publishes_what_an_earlier_one_has_stored(
    site: Site, bucket: Bucket, tmp_path: Path
) -> None:
    first = stored(site)
    (tmp_path / "tree" / "later").write_text("added between the attempts")
    outcome = site.run("bundle", name="demo", sources=SOURCES, store="vault")
    assert outcome.result == first
    assert outcome.warnings == [
        "an earlier attempt had stored this bundle: it was fetched, not made again"
    ]
    (built,) = site.scratch.iterdir()
    assert outcome.made[0].source == built.name
    assert bucket.get(first["store"]["key"]) == built.read_bytes()


@pytest.mark.parametrize("what", ["text", "another job's", "damaged"])
def test_anything_else_under_its_key_is_left_alone(site: Site, bucket: Bucket, what: str) -> None:
    key = "bundles/demo-0123456789ab.tar.zst"
    other = b"just some text"
    if what != "text":
        digits = "0123456789ab" if what == "damaged" else "ba9876543210"
        result = stored(site, digits=digits)
        other = bucket.get(result["store"]["key"])
        bucket.client.delete_object(Bucket=bucket.name, Key=result["store"]["key"])
    if what == "damaged":
        middle = len(other) - 1000
        other = other[:middle] + bytes([other[middle] ^ 1]) + other[middle + 1 :]
    bucket.put(key, other)
    with pytest.raises(SpooldError) as caught:
        stored(site)
    assert (caught.value.code, caught.value.at) == (errors.STORE_KEY_TAKEN, "store")
    assert not caught.value.transient
    assert bucket.get(key) == other


def test_an_attempt_that_loses_its_database_takes_nothing_for_foreign(site: Site) -> None:
    stored(site)

    def check() -> None:
        raise SpooldError(errors.DATABASE_AWAY)

    site.check = check
    with pytest.raises(SpooldError) as caught:
        stored(site)
    assert caught.value.code is errors.DATABASE_AWAY


def test_a_bundle_is_restored_from_where_it_is_stored(site: Site) -> None:
    result = stored(site)
    path = result["store"]["key"].removeprefix("bundles/")
    outcome = site.run("rehydrate", bundle={"store": "vault", "path": path})
    assert outcome.result["restored"] == "restored/site-a/demo-0123456789ab"
    assert "partial" not in outcome.result
    tree = site.scratch / "restored"
    assert (tree / "artifacts" / "note").read_bytes() == b"what happened"
    assert (tree / "artifacts" / "deep" / "dump.bin").read_bytes() == bytes(range(256)) * 40_000


def test_a_part_is_restored_under_a_name_of_its_own(site: Site) -> None:
    path = stored(site)["store"]["key"].removeprefix("bundles/")
    outcome = site.run(
        "rehydrate", bundle={"store": "vault", "path": path}, only=["artifacts/note", "alerts/**"]
    )
    found = outcome.result
    assert (found["partial"], found["entries"], found["bytes"]) == (True, 4, 9013)
    assert found["only"] == ["artifacts/note", "alerts/**"]
    assert str(found["restored"]).startswith("restored/site-a/demo-0123456789ab.part-")
    assert outcome.warnings == ["4 of 6 entries were asked for: of the others nothing was read"]
    tree = site.scratch / "restored"
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    assert files == ["alerts/a.jsonl", "artifacts/note"]


def test_a_part_stands_in_no_whole_ones_place_and_can_be_asked_for_again(site: Site) -> None:
    path = stored(site)["store"]["key"].removeprefix("bundles/")
    results = [
        site.run("rehydrate", digits=digits, bundle={"store": "vault", "path": path}, **fields)
        for digits, fields in (
            ("1" * 12, {}),
            ("2" * 12, {"only": ["alerts/"]}),
            ("3" * 12, {"only": ["alerts/"]}),
        )
    ]
    assert [str(each.result["restored"]).partition("/demo")[2] for each in results] == [
        "-0123456789ab",
        "-0123456789ab.part-222222222222",
        "-0123456789ab.part-333333333333",
    ]
    assert len(site.keys) == 1
    taken = [ACTIONS["rehydrate"].key_of(each.result) for each in results]
    assert [each and each[0] for each in taken] == [site.keys[0], None, None]


def test_a_part_of_a_bundle_beneath_a_root_can_be_restored(site: Site, tmp_path: Path) -> None:
    built = site.run("bundle", name="demo", sources=SOURCES)
    name = built.made[0].source
    roots = {"usb": site.scratch}
    site.connections = Connections(roots=roots)
    outcome = site.run(
        "rehydrate", bundle={"root": "usb", "path": name}, only=["alerts"], dry_run=True
    )
    assert (outcome.result["entries"], outcome.result["dry_run"]) == (2, True)
    assert site.keys == []


def test_a_part_that_nothing_matches_is_refused(site: Site) -> None:
    path = stored(site)["store"]["key"].removeprefix("bundles/")
    with pytest.raises(SpooldError) as caught:
        site.run("rehydrate", bundle={"store": "vault", "path": path}, only=["alert"])
    assert (caught.value.code, caught.value.at) == (errors.NOTHING_TO_RESTORE, "only")


@pytest.mark.parametrize(
    ("store", "path", "code"),
    [
        ("vault", "missing.tar.zst", errors.SOURCE_MISSING),
        ("vault", "../bundles/x", errors.SOURCE_MISSING),
        ("other", "x", errors.STORE_UNKNOWN),
        ("vault", "text", errors.NOT_A_BUNDLE),
    ],
)
def test_what_is_no_bundle_in_a_store_is_refused(
    site: Site, bucket: Bucket, store: str, path: str, code: errors.Code
) -> None:
    bucket.put("bundles/text", b"just some text")
    with pytest.raises(SpooldError) as caught:
        site.run("rehydrate", bundle={"store": store, "path": path})
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("bundle", "code", "at"),
    [
        ({"root": "gone", "path": "x"}, errors.ROOT_UNKNOWN, "bundle.root"),
        ({"root": "usb", "path": "../x"}, errors.PATH_OUTSIDE_ROOT, "bundle.path"),
        ({"store": "other", "path": "x"}, errors.STORE_UNKNOWN, "bundle.store"),
        ({"store": "vault", "path": "../x"}, errors.SOURCE_MISSING, "bundle.path"),
    ],
)
def test_a_place_that_cannot_be_is_known_before_it_is_looked_at(
    site: Site, bundle: dict[str, str], code: errors.Code, at: str
) -> None:
    request = {"type": "spoold.request/1", "action": "rehydrate", "bundle": bundle}
    made = dataclasses.replace(site.connections, roots={"usb": site.folder})
    site.connections = made
    with pytest.raises(SpooldError) as caught:
        rehydrate.check(rehydrate.RehydrateRequest.model_validate(request), made)
    assert (caught.value.code, caught.value.at) == (code, at)
    with pytest.raises(SpooldError) as caught:
        site.run("rehydrate", bundle=bundle)
    assert (caught.value.code, caught.value.at) == (code, at)


def test_a_stored_bundle_that_is_replaced_while_it_is_read_is_tried_again(
    site: Site, bucket: Bucket
) -> None:
    key = stored(site)["store"]["key"]
    content = bucket.get(key)

    def replace() -> None:
        if bucket.get(key) == content:
            bucket.put(key, content + b"more")

    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            replace()

    site.check = check
    with pytest.raises(SpooldError) as caught:
        site.run("rehydrate", bundle={"store": "vault", "path": key.removeprefix("bundles/")})
    assert caught.value.code is errors.SOURCE_CHANGED
    assert caught.value.transient


def test_objects_of_a_store_become_a_bundle(site: Site, bucket: Bucket) -> None:
    bucket.put("bundles/case/7/a/b.bin", b"1" * 300_000)
    bucket.put("bundles/case/7/c.txt", b"2")
    source = {"kind": "s3", "store": "vault", "path": "case/7", "into": "artifacts"}
    outcome = site.run("bundle", sources=[source])
    assert str(outcome.result["bundle"]).startswith("7-")
    assert outcome.result["entries"] == 2


def test_one_bad_key_need_not_spoil_a_bundle(site: Site, bucket: Bucket) -> None:
    bucket.put("bundles/case/a//b", b"1")
    bucket.put("bundles/case/c", b"2")
    source = {"kind": "s3", "store": "vault", "path": "case"}
    with pytest.raises(SpooldError) as caught:
        site.run("bundle", sources=[source])
    assert caught.value.code is errors.PATH_UNSUPPORTED
    outcome = site.run("bundle", sources=[source], on_error="skip")
    assert outcome.result["entries"] == 1
    assert "1 entries were left out" in outcome.warnings[0]


def test_a_store_that_a_request_names_wrongly_is_placed(site: Site) -> None:
    with pytest.raises(SpooldError) as caught:
        site.run("bundle", sources=[{"kind": "s3", "store": "other"}])
    assert (caught.value.code, caught.value.at) == (errors.STORE_UNKNOWN, "sources[0].store")
