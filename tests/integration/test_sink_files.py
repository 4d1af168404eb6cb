"""The store of artifacts: by path, by content, and what it never follows or replaces."""

import grp
import hashlib
import json
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest

from spoold import errors
from spoold.bundle.lines import parse_entry
from spoold.errors import SpooldError
from spoold.sinks.artifacts import ArtifactSettings, ArtifactSink
from spoold.sinks.places import LargeFile
from spoold.sinks.sink import Sink
from tests.contracts.sink import (
    BUNDLE_ID,
    LostError,
    SinkContract,
    apply,
    deliver,
    listing,
    lose_after,
)
from tests.faults.disks import FragileDisk, fragile_disk, small_disk

FILES = {
    "artifacts/memory.bin": b"m" * 300_000,
    "artifacts/logs/auth.log": b"login\n",
    "empty": b"",
}
INTO = f"site-a/{BUNDLE_ID}"


def sink(store: Path, **settings: Any) -> ArtifactSink:
    store.mkdir(exist_ok=True)
    found = ArtifactSettings.model_validate(
        {"name": "artifacts", "kind": "files", "entries": ["**"], "store": str(store), **settings}
    )
    return ArtifactSink(found)


def refusal(sink: Sink, folder: Path, files: dict[Any, bytes], **fields: Any) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        sink.plan(deliver(folder, files, **fields))
    return caught.value


class TestByPath(SinkContract):
    files = FILES
    refused: ClassVar[dict[str, bytes]] = {"artifacts/logs/auth.log": b"another", "new": b"new"}

    @pytest.fixture
    def sink(self, tmp_path: Path) -> Sink:
        """A store in which one of the files stands with another content."""
        store = tmp_path / "store"
        standing = store / "in" / "artifacts/logs/auth.log"
        standing.parent.mkdir(parents=True)
        standing.write_bytes(FILES["artifacts/logs/auth.log"])
        return sink(store, into="in")

    @pytest.fixture
    def state(self, tmp_path: Path) -> Callable[[], object]:
        return lambda: listing(tmp_path / "store")


class TestByContent(SinkContract):
    files = FILES

    @pytest.fixture
    def sink(self, tmp_path: Path) -> Sink:
        return sink(tmp_path / "store", layout="content")

    @pytest.fixture
    def state(self, tmp_path: Path) -> Callable[[], object]:
        return lambda: listing(tmp_path / "store")


def test_files_stand_beneath_site_and_bundle(tmp_path: Path) -> None:
    report = apply(
        sink(tmp_path / "store"), deliver(tmp_path, FILES, mode=0o755, mtime_ns=1_234_567_891)
    )
    assert report == {
        "files": {"stored": 3, "present": 0, "skipped": 0, "replaced": 0},
        "bytes": 300_006,
    }
    for path, content in FILES.items():
        stored = tmp_path / "store" / INTO / path
        assert stored.read_bytes() == content
        assert stored.stat().st_mode & 0o7777 == 0o640
        assert stored.parent.stat().st_mode & 0o7777 == 0o750
        assert stored.stat().st_mtime_ns == 1_234_567_891


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"into": ""}, ["a/b/one", "a/two"]),
        ({"into": "", "strip": 1}, ["b/one", "two"]),
        ({"into": "from/{site}", "strip": 1}, ["from/site-a/b/one", "from/site-a/two"]),
    ],
)
def test_paths_are_mapped(tmp_path: Path, settings: dict[str, Any], expected: list[str]) -> None:
    apply(sink(tmp_path / "store", **settings), deliver(tmp_path, {"a/b/one": b"1", "a/two": b"2"}))
    assert list(listing(tmp_path / "store")) == expected


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"a/x": b"1", "b/x": b"2"}, errors.ARTIFACT_CONFLICT),
        ({"a/x": b"1", "a/x-y": b"3", "b/x/y": b"2"}, errors.ARTIFACT_CONFLICT),
        ({"a/x": b"1", "top": b"2"}, errors.PATH_UNSUPPORTED),
    ],
)
def test_files_that_lose_their_folders_must_stay_apart(
    tmp_path: Path, files: dict[str, bytes], code: errors.Code
) -> None:
    assert refusal(sink(tmp_path / "store", strip=1), tmp_path, files).code is code
    assert listing(tmp_path / "store") == {}


def test_a_file_that_stands_there_is_refused_skipped_or_replaced(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store).mkdir()
    (store / "one").write_bytes(b"ours")
    (store / "two").write_bytes(b"2")
    files = {"one": b"theirs", "two": b"2", "three": b"3"}
    error = refusal(sink(store, into=""), tmp_path, files)
    assert error.code is errors.ARTIFACT_CONFLICT
    assert error.at == "one"
    assert len(listing(store)) == 2

    report = apply(sink(store, into="", conflict="skip"), deliver(tmp_path, files))
    assert report["files"] == {"stored": 1, "present": 1, "skipped": 1, "replaced": 0}
    assert (store / "one").read_bytes() == b"ours"

    before = (store / "one").stat().st_ino
    report = apply(sink(store, into="", conflict="replace"), deliver(tmp_path, files))
    assert report == {
        "files": {"stored": 0, "present": 2, "skipped": 0, "replaced": 1},
        "bytes": 6,
    }
    assert (store / "one").read_bytes() == b"theirs"
    assert (store / "one").stat().st_ino != before
    assert sorted(os.listdir(store)) == ["one", "three", "two"]


@pytest.mark.parametrize("conflict", ["refuse", "skip", "replace"])
@pytest.mark.parametrize("where", ["in/a/file", "in/a", "in"])
def test_a_link_that_stands_in_the_store_is_never_followed_or_replaced(
    tmp_path: Path, conflict: str, where: str
) -> None:
    outside, store = tmp_path / "outside", tmp_path / "store"
    (outside / "a").mkdir(parents=True)
    (outside / "file").write_bytes(b"content")
    (store / where).parent.mkdir(parents=True)
    (store / where).symlink_to(outside / "file" if where.endswith("file") else outside)
    error = refusal(
        sink(store, into="in", conflict=conflict), tmp_path, {"a/file": b"content", "b": b"b"}
    )
    assert error.code is errors.ARTIFACT_CONFLICT
    assert (store / where).is_symlink()
    assert listing(outside) == {"file": (0o100644, b"content")}


@pytest.mark.parametrize("conflict", ["refuse", "skip", "replace"])
def test_what_is_no_file_is_refused_whatever_is_configured(tmp_path: Path, conflict: str) -> None:
    store = tmp_path / "store"
    (store / "folder").mkdir(parents=True)
    (store / "file").write_bytes(b"")
    os.mkfifo(store / "fifo")
    for name in ("folder", "fifo", "file/beneath"):
        error = refusal(sink(store, into="", conflict=conflict), tmp_path, {name: b"x"})
        assert error.code is errors.ARTIFACT_CONFLICT, name


def test_the_stores_own_path_may_lead_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    apply(sink(tmp_path / "store", into=""), deliver(tmp_path, FILES))
    assert len(listing(tmp_path / "disk")) == len(FILES)


def test_a_store_that_is_not_there_is_waited_for_never_made(tmp_path: Path) -> None:
    one = sink(tmp_path / "store")
    (tmp_path / "store").rmdir()
    error = refusal(one, tmp_path, FILES)
    assert error.code is errors.ARTIFACTS_AWAY
    assert error.transient
    assert not (tmp_path / "store").exists()


def test_each_content_is_kept_once_and_found_by_its_names(tmp_path: Path) -> None:
    store = tmp_path / "store"
    files = {"a": b"same", "b/c": b"same", "d": b"other", os.fsdecode(b"\xff\n"): b"odd"}
    report = apply(sink(store, layout="content"), deliver(tmp_path, files, mode=0o600))
    assert report == {
        "files": {"stored": 3, "present": 1, "skipped": 0, "replaced": 0},
        "bytes": 12,
    }
    digest = hashlib.sha256(b"same").hexdigest()
    assert (store / "sha256" / digest[:2] / digest[2:]).read_bytes() == b"same"
    head, *lines = (store / "names" / "site-a" / f"{BUNDLE_ID}.artifacts.jsonl").read_bytes(
    ).splitlines()  # fmt: skip
    assert json.loads(head) == {
        "type": "spoold.names/1",
        "from": "site-a",
        "bundle_id": BUNDLE_ID,
        "manifest_sha256": "ab" * 32,
    }
    listed = {os.fsdecode(entry.path): entry.sha256 for entry in map(parse_entry, lines)}
    assert listed == {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}

    again = deliver(tmp_path, {**files, "e": b"more"}, bundle_id="demo-ffffffffffff")
    report = apply(sink(store, layout="content"), again)
    assert report["files"] == {"stored": 1, "present": 4, "skipped": 0, "replaced": 0}
    assert len(listing(store)) == 4 + 2


def test_a_content_that_was_spoilt_in_the_store_is_not_taken_for_present(tmp_path: Path) -> None:
    store = tmp_path / "store"
    apply(sink(store, layout="content"), deliver(tmp_path, {"a": b"good"}))
    digest = hashlib.sha256(b"good").hexdigest()
    (store / "sha256" / digest[:2] / digest[2:]).write_bytes(b"evil")
    error = refusal(sink(store, layout="content"), tmp_path, {"a": b"good"})
    assert error.code is errors.ARTIFACT_CONFLICT


def test_the_names_of_a_bundle_that_comes_in_parts_are_listed_together(tmp_path: Path) -> None:
    store = tmp_path / "store"
    names = store / "names" / "site-a" / f"{BUNDLE_ID}.artifacts.jsonl"
    for files in ({"b": b"1", "d": b"2"}, {"a": b"3", "b": b"1"}, {"c": b"1"}, {"c": b"1"}):
        apply(sink(store, layout="content"), deliver(tmp_path, files))
    assert names_in(names) == [b"a", b"b", b"c", b"d"]


def names_in(names: Path) -> list[bytes]:
    return [parse_entry(line).path for line in names.read_bytes().splitlines()[1:]]


@pytest.mark.parametrize("spoilt", [b"", b"{}\n", b"no newline"])
def test_another_bundle_of_the_same_id_or_what_is_no_list_is_refused(
    tmp_path: Path, spoilt: bytes
) -> None:
    store = tmp_path / "store"
    names = store / "names" / "site-a" / f"{BUNDLE_ID}.artifacts.jsonl"
    apply(sink(store, layout="content"), deliver(tmp_path, {"a": b"1"}))
    other = "cd" * 32
    error = refusal(sink(store, layout="content"), tmp_path, {"a": b"1"}, manifest_sha256=other)
    assert error.code is errors.ARTIFACT_CONFLICT
    names.write_bytes(spoilt)
    error = refusal(sink(store, layout="content"), tmp_path, {"a": b"1"})
    assert error.code is errors.ARTIFACT_CONFLICT


def test_content_that_differs_from_what_was_signed_gets_no_name(tmp_path: Path) -> None:
    delivery = deliver(tmp_path, {"a": b"signed", "b": b"fine"})
    (delivery.tree / "a").write_bytes(b"spoilt")
    plan = sink(tmp_path / "store", into="").plan(delivery)
    with pytest.raises(SpooldError) as caught:
        plan.apply()
    plan.close()
    assert caught.value.code is errors.DISK_ERROR
    assert caught.value.at == "a"
    assert listing(tmp_path / "store") == {}


@pytest.mark.parametrize("layout", ["path", "content"])
def test_an_attempt_that_is_killed_half_way_is_finished_by_the_next(
    tmp_path: Path, layout: str
) -> None:
    files = {f"{number:03}": b"%d" % number for number in range(600)}
    store = tmp_path / "store"
    one = sink(store, layout=layout)
    child = os.fork()
    if child == 0:  # pragma: no cover
        plan = one.plan(deliver(tmp_path, files, count=_dies_after(450)))
        plan.apply()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    begun = len(listing(store))
    assert 0 < begun < 600
    report = apply(sink(store, layout=layout), deliver(tmp_path, files))
    assert report["files"]["present"] == begun
    assert report["files"]["stored"] == 600 - begun
    assert len(listing(store)) == 600 + (layout == "content")


def _dies_after(calls: int) -> Callable[[int, int], None]:
    left = iter(range(calls))

    def count(_bytes: int, _rows: int) -> None:
        if next(left, None) is None:
            os._exit(9)

    return count


def test_two_jobs_with_the_same_artifact_both_succeed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    files = {"a": b"1", "b": b"2"}
    first = sink(store, layout="content").plan(deliver(tmp_path, files))
    second = sink(store, layout="content").plan(deliver(tmp_path, files, bundle_id="other-0"))
    assert first.report == second.report
    first.apply()
    second.apply()
    assert second.report["files"] == {"stored": 0, "present": 2, "skipped": 0, "replaced": 0}
    for plan in (first, second):
        plan.close()


def test_a_file_that_appears_between_plan_and_apply_is_not_replaced(tmp_path: Path) -> None:
    store = tmp_path / "store"
    plan = sink(store, into="").plan(deliver(tmp_path, {"a": b"1"}))
    (store / "a").write_bytes(b"foreign")
    with pytest.raises(SpooldError) as caught:
        plan.apply()
    plan.close()
    assert caught.value.code is errors.ARTIFACT_CONFLICT
    assert (store / "a").read_bytes() == b"foreign"


def test_an_attempt_that_loses_its_job_while_it_applies_stops(tmp_path: Path) -> None:
    files = {f"{number:03}": b"x" for number in range(200)}
    plan = sink(tmp_path / "store").plan(deliver(tmp_path, files, check=lose_after(500)))
    with pytest.raises(LostError):
        plan.apply()
    plan.close()
    assert len(listing(tmp_path / "store")) < 200


def test_files_that_their_modes_close_are_stored(public_folder: Path) -> None:
    public_folder.chmod(0o777)
    child = os.fork()
    if child == 0:  # pragma: no cover
        if os.geteuid() == 0:  # to root nothing is closed
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        delivery = deliver(public_folder, {"closed/file": b"content"}, mode=0)
        (delivery.tree / "closed").chmod(0)
        apply(sink(public_folder / "store", into=""), delivery)
        modes = [(delivery.tree / "closed").stat().st_mode & 0o777]
        (delivery.tree / "closed").chmod(0o700)
        modes.append((delivery.tree / "closed" / "file").stat().st_mode & 0o777)
        os._exit(0 if modes == [0, 0] else 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (public_folder / "store" / "closed" / "file").exists() or os.geteuid() != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_gives_files_and_folders_to_a_user_and_a_group(tmp_path: Path) -> None:
    user, group = pwd.getpwuid(65534), grp.getgrgid(65534)
    store = tmp_path / "store"
    given = {"owner": user.pw_name, "group": group.gr_name}
    apply(
        sink(store, file_mode="0440", folder_mode="0700", keep_times=False, **given),
        deliver(tmp_path, FILES),
    )
    for path in FILES:
        status = (store / INTO / path).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o440)
        assert status.st_mtime_ns > 0
    status = (store / "site-a").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o700)
    with pytest.raises(SpooldError) as caught:
        sink(store, owner="nobody-of-that-name")
    assert caught.value.code is errors.CONFIG_INVALID


def test_where_there_are_no_unnamed_files_a_name_of_our_own_goes_before(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"old")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for name, give in ((b"new", LargeFile.give_name), (b"taken", LargeFile.take_name)):
        file = LargeFile(name, folder, unnamed=False)
        os.write(file.descriptor, b"content")
        assert any(name.endswith(".restoring") for name in os.listdir(tmp_path))
        give(file)
        file.close()
    LargeFile(b"never", folder, unnamed=False).close()
    os.close(folder)
    assert {name: content for name, (_, content) in listing(tmp_path).items()} == {
        "new": b"content",
        "taken": b"content",
    }


def test_what_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.resize(free_bytes=1_000_000)
        error = refusal(sink(disk.place, into=""), tmp_path, {"big": bytes(1_100_000)})
        assert error.code is errors.NO_SPACE
        disk.leave_files(2)
        error = refusal(sink(disk.place, into=""), tmp_path, dict.fromkeys("abc", b""))
        assert error.code is errors.NO_SPACE
        assert os.listdir(disk.place) == []


def test_what_does_not_fit_a_disk_mounted_in_the_store_is_not_begun(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    files = {"site-a/new/big": bytes(1_100_000), "top": b"t"}
    with small_disk(store / "site-a") as disk:
        disk.resize(free_bytes=1_000_000)
        error = refusal(sink(store, into=""), tmp_path, files)
        assert error.code is errors.NO_SPACE
        assert str(disk.place) in error.message
        disk.leave_files(1)
        few = {"site-a/one": b"", "site-a/two": b""}
        assert refusal(sink(store, into=""), tmp_path, few).code is errors.NO_SPACE
        disk.leave_files(2)
        assert apply(sink(store, into=""), deliver(tmp_path, few))["bytes"] == 0


def test_what_fits_a_disk_mounted_in_the_store_needs_no_room_above_it(tmp_path: Path) -> None:
    content = bytes(1_100_000)
    files = {"site-a/new/big": content, "site-a/other": content, "top": b"t"}
    with small_disk(tmp_path / "store") as top:
        (top.place / "site-a").mkdir()
        with small_disk(top.place / "site-a") as inner:
            (inner.place / "other").write_bytes(b"o")
            top.resize(free_bytes=100_000)
            report = apply(sink(top.place, into="", conflict="replace"), deliver(tmp_path, files))
            assert report["files"] == {"stored": 2, "present": 0, "skipped": 0, "replaced": 1}
            assert (inner.place / "new" / "big").read_bytes() == content


@pytest.fixture
def inner_disk(tmp_path: Path) -> Iterator[tuple[FragileDisk, Callable[[], None]]]:
    """A disk that is mounted inside the store, and what unmounts it."""
    (tmp_path / "store").mkdir()
    with fragile_disk(tmp_path / "store") as (disk, stack):
        yield disk, stack.close


@pytest.mark.parametrize("count", [2, 40], ids=["few", "many"])
def test_what_a_disk_mounted_in_the_store_has_got_outlasts_a_power_cut(
    tmp_path: Path, inner_disk: tuple[FragileDisk, Callable[[], None]], count: int
) -> None:
    disk, unmount = inner_disk
    files = {f"disk/new/{number}": b"%d" % number * 5000 for number in range(count)}
    apply(sink(tmp_path / "store", into=""), deliver(tmp_path, {**files, "top": b"t"}))
    image = disk.cut()
    unmount()
    with disk.after(image):
        for name, content in files.items():
            assert (tmp_path / "store" / name).read_bytes() == content


def test_what_a_killed_attempt_has_left_there_outlasts_a_power_cut(
    tmp_path: Path, inner_disk: tuple[FragileDisk, Callable[[], None]]
) -> None:
    disk, unmount = inner_disk
    (disk.place / "present").write_bytes(b"p" * 5000)  # never synced
    report = apply(
        sink(tmp_path / "store", into=""), deliver(tmp_path, {"disk/present": b"p" * 5000})
    )
    assert report["files"] == {"stored": 0, "present": 1, "skipped": 0, "replaced": 0}
    image = disk.cut()
    unmount()
    with disk.after(image):
        assert (disk.place / "present").read_bytes() == b"p" * 5000


def test_a_disk_that_fills_up_meanwhile_ends_the_attempt_and_the_next_one_finishes(
    tmp_path: Path,
) -> None:
    files = {name: name.encode() * 200_000 for name in "abcdefgh"}
    with small_disk(tmp_path / "disk") as disk:
        plan = sink(disk.place, into="").plan(deliver(tmp_path, files))
        disk.resize(free_bytes=500_000)
        with pytest.raises(SpooldError) as caught:
            plan.apply()
        plan.close()
        assert caught.value.code is errors.NO_SPACE
        assert all(content == files[name] for name, (_, content) in listing(disk.place).items())
        disk.grow()
        report = apply(sink(disk.place, into=""), deliver(tmp_path, files))
        assert report["files"]["stored"] + report["files"]["present"] == len(files)
        assert len(listing(disk.place)) == len(files)


def test_a_folder_that_becomes_a_link_after_the_plan_is_not_gone_through(tmp_path: Path) -> None:
    outside, store = tmp_path / "outside", tmp_path / "store"
    outside.mkdir()
    (store / "in").mkdir(parents=True)
    plan = sink(store, into="in").plan(deliver(tmp_path, {"a/file": b"content"}))
    (store / "in" / "a").symlink_to(outside)
    with pytest.raises(SpooldError) as caught:
        plan.apply()
    plan.close()
    assert caught.value.code is errors.ARTIFACT_CONFLICT
    assert os.listdir(outside) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"store": ""},
        {"store": "~/store"},
        {"into": "/abs"},
        {"into": "a/../b"},
        {"into": "{incident}"},
        {"strip": -1},
        {"conflict": "merge"},
        {"file_mode": "0240"},
        {"folder_mode": "0600"},
        {"file_mode": "4755"},
        {"layout": "content", "strip": 1},
        {"layout": "content", "conflict": "replace"},
    ],
)
def test_settings_are_strict(wrong: dict[str, Any]) -> None:
    settings = {"name": "a", "kind": "files", "entries": ["**"], "store": "/store", **wrong}
    with pytest.raises(pydantic.ValidationError):
        ArtifactSettings.model_validate(settings)
