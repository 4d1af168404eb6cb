"""Object stores: what is listed, read and put, against a real server."""

import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold import errors
from spoold.bundle.entry import SourceEntry
from spoold.connections import Connections
from spoold.connections.stores import StoreSettings
from spoold.errors import SpooldError
from spoold.sources.s3 import S3Source, S3Spec
from spoold.sources.source import Gathering, raise_it
from spoold.stores import StoredObject, open_store, put_new
from tests.stores import Bucket

MIB = 1024 * 1024


def nothing(_bytes: int) -> None:
    pass


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    """Give a descriptor of a file of this content."""
    descriptors = []

    def opened(content: bytes) -> int:
        path = tmp_path / f"content-{len(descriptors)}"
        path.write_bytes(content)
        descriptors.append(os.open(path, os.O_RDONLY))
        return descriptors[-1]

    yield opened
    for descriptor in descriptors:
        os.close(descriptor)


def read_all(
    bucket: Bucket, problems: list[str] | None = None, **spec: object
) -> tuple[dict[str, bytes], list[str]]:
    """Every entry's path and content, in order, and the warnings."""
    connections = bucket.connections()
    found = {}

    def note(_path: bytes, error: SpooldError) -> None:
        assert problems is not None
        assert error.code is errors.PATH_UNSUPPORTED
        problems.append(error.message)

    with Gathering(connections) as gathering:
        parsed = S3Spec.model_validate({"kind": "s3", "store": "vault", **spec})
        source = S3Source.open(parsed, gathering, "s3:vault")
        for entry in source.entries(raise_it if problems is None else note):
            found[entry.path.decode()] = content_of(entry)
        return found, source.warnings


def content_of(entry: SourceEntry) -> bytes:
    assert entry.content is not None
    assert not isinstance(entry.content, int)
    with entry.content as content:
        data = content.read(entry.size or 0)
        assert content.read(1) == b""
        return data


# --- the source ---------------------------------------------------------------------------------


def test_objects_beneath_a_path_come_in_the_order_of_a_bundle(bucket: Bucket) -> None:
    names = ["b/c", "b-a", "b!", "ä", "a b+c%41", "Z", "b/c2", "z/.hidden"]
    for name in names:
        bucket.put(f"case/7/{name}", name.encode())
    bucket.put("case/70/other")
    bucket.put("case/7")
    found, warnings = read_all(bucket, path="case/7", into="artifacts")
    paths = sorted(f"artifacts/{name}".encode() for name in names)
    assert [path.encode() for path in found] == paths
    assert all(found[f"artifacts/{name}"] == name.encode() for name in names)
    assert warnings == []


def test_the_prefix_of_a_store_is_all_that_is_seen_of_it(bucket: Bucket) -> None:
    bucket.put("ours/a", b"1")
    bucket.put("theirs/b", b"2")
    with Gathering(bucket.connections(prefix="ours")) as gathering:
        spec = S3Spec(kind="s3", store="vault")
        entries = list(S3Source.open(spec, gathering, "s3:vault").entries(raise_it))
    assert [entry.path for entry in entries] == [b"a"]


def test_a_single_object_can_be_named(bucket: Bucket) -> None:
    bucket.put("case/notes.txt", b"what happened")
    assert read_all(bucket, path="case/notes.txt")[0] == {"notes.txt": b"what happened"}


def test_include_and_exclude_are_those_of_folders(bucket: Bucket) -> None:
    for name in ("logs/a.log", "logs/deep/b.log", "logs/c.tmp", "cache/d.log", "e.log"):
        bucket.put(name, b"x")
    found, _ = read_all(bucket, include=["logs", "*.log"], exclude=["**/*.tmp", "cache/"])
    assert list(found) == ["e.log", "logs/a.log", "logs/deep/b.log"]


def test_what_is_no_path_is_a_problem_of_its_entry(bucket: Bucket) -> None:
    for name in ("a//b", "a/../b", "a/./b", "/c", "d", "d/e", "d!", "f/", "x" * 300, "good"):
        bucket.put(f"top/{name}", b"content")
    problems: list[str] = []
    found, _ = read_all(bucket, problems, path="top")
    assert list(found) == ["d", "d!", "good"]
    assert [message.removeprefix("vault:top/")[:5] for message in problems] == [
        "/c: i",
        "a/../",
        "a/./b",
        "a//b:",
        "d/e: ",
        "f/: i",
        "xxxxx",
    ]
    with pytest.raises(SpooldError, match=r"vault:top//c: it is not a plain relative path"):
        read_all(bucket, path="top")


def test_empty_objects_that_mark_folders_are_left_out_and_counted(bucket: Bucket) -> None:
    for name in ("top/", "top/a/", "top/a/b", "top/c/"):
        bucket.put(name, b"" if name.endswith("/") else b"1")
    found, warnings = read_all(bucket, path="top")
    assert found == {"a/b": b"1"}
    assert warnings == ["2 empty objects that only mark a folder were left out"]


def test_a_listing_of_many_pages_is_followed(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # moto's own; Swift is configured so
    names = [f"a b+c%2F/{number:02d}" for number in range(25)]
    for name in names:
        bucket.put(name)
    assert [item.key.decode() for item in bucket.store().list(b"")] == names


def test_what_there_is_to_read_is_measured(bucket: Bucket) -> None:
    bucket.put("a", b"123")
    bucket.put("b", b"4567")
    with Gathering(bucket.connections()) as gathering:
        spec = S3Spec(kind="s3", store="vault", exclude=["a"])
        assert S3Source.open(spec, gathering, "s3:vault").measure() == 4


def test_an_object_that_is_replaced_while_it_is_read_is_source_changed(bucket: Bucket) -> None:
    bucket.put("a", b"first")
    with Gathering(bucket.connections()) as gathering:
        spec = S3Spec(kind="s3", store="vault")
        (entry,) = S3Source.open(spec, gathering, "s3:vault").entries(raise_it)
        bucket.put("a", b"other")
        with pytest.raises(SpooldError, match=r"vault:a: it was replaced or removed") as caught:
            content_of(entry)
    assert caught.value.code is errors.SOURCE_CHANGED
    assert caught.value.transient


def test_nothing_at_a_path_is_source_missing(bucket: Bucket) -> None:
    with pytest.raises(SpooldError) as caught:
        read_all(bucket, path="nowhere")
    assert (caught.value.code, caught.value.at) == (errors.SOURCE_MISSING, "path")


# --- what is put --------------------------------------------------------------------------------


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("size", [0, 5, 5 * MIB, 5 * MIB + 1, 12 * MIB])
def test_what_is_put_is_what_was_in_the_file(
    bucket: Bucket, opened: Callable[[bytes], int], size: int, checksums: bool
) -> None:
    content = os.urandom(size)
    told: list[int] = []
    store = bucket.store(part_bytes=5 * MIB, checksums=checksums)
    assert put_new(store, b"a/b c", opened(content), told.append)
    assert bucket.get("a/b c") == content
    assert sum(told) == size
    assert bucket.uploads() == []


@pytest.mark.parametrize("size", [5, 6 * MIB])
def test_what_stands_in_a_store_is_never_replaced(
    bucket: Bucket, opened: Callable[[bytes], int], size: int
) -> None:
    bucket.put("a", b"theirs")
    assert not put_new(bucket.store(part_bytes=5 * MIB), b"a", opened(bytes(size)), nothing)
    assert bucket.get("a") == b"theirs"
    assert bucket.uploads() == []


def test_parts_that_a_killed_worker_left_are_thrown_away(
    bucket: Bucket, opened: Callable[[bytes], int]
) -> None:
    for key in ("a", "a-neighbour"):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    assert put_new(bucket.store(part_bytes=5 * MIB), b"a", opened(bytes(6 * MIB)), nothing)
    assert bucket.uploads() == ["a-neighbour"]


def test_an_upload_that_is_stopped_leaves_nothing(
    bucket: Bucket, opened: Callable[[bytes], int]
) -> None:
    class StoppedError(Exception):
        pass

    sent = 0

    def stop(more: int) -> None:
        nonlocal sent
        sent += more
        if sent > 6 * MIB:
            raise StoppedError

    with pytest.raises(StoppedError):
        put_new(bucket.store(part_bytes=5 * MIB), b"a", opened(bytes(12 * MIB)), stop)
    assert bucket.uploads() == []
    assert bucket.keys() == []


# --- reading in places --------------------------------------------------------------------------


def test_an_object_reads_as_a_file(bucket: Bucket, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB)
    bucket.put("a", content)
    store = bucket.store()
    info = store.look(b"a")
    assert info is not None
    with StoredObject(store, b"a", info.size, info.etag) as stored:
        assert stored.read(100) == content[:100]
        assert stored.seek(50, os.SEEK_CUR) == 150
        assert stored.read(10) == content[150:160]
        stored.seek(2 * MIB)
        assert stored.read(MIB + 10) == content[2 * MIB :]
        assert stored.read(1) == b""
        stored.seek(0)
        assert stored.read() == content


def test_wherever_one_goes_in_an_object_its_bytes_are_those_of_a_file(swift_bucket: Bucket) -> None:
    content = os.urandom(4 * MIB)
    swift_bucket.put("a", content)
    store = swift_bucket.store()
    info = store.look(b"a")
    assert info is not None
    chance = random.Random(7)  # the same walk each time
    file = io.BytesIO(content)
    with StoredObject(store, b"a", info.size, info.etag) as stored:
        for _ in range(60):
            if chance.random() < 0.5:
                span = chance.choice((100, 200_000, len(content)))
                place = min(len(content), max(0, file.tell() + chance.randint(-span, span)))
                assert stored.seek(place) == file.seek(place)
            count = chance.choice((0, 1, 1000, 300_000, 3 * MIB))
            assert stored.read(count) == file.read(count)
            assert stored.tell() == file.tell()


# --- settings -----------------------------------------------------------------------------------


def test_a_store_that_is_not_configured_is_unknown() -> None:
    with pytest.raises(SpooldError) as caught:
        open_store("other", Connections())
    assert (caught.value.code, caught.value.at) == (errors.STORE_UNKNOWN, "store")


def test_a_secret_that_everybody_can_read_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    store = bucket.store()
    secret = tmp_path / "store-secret"
    secret.chmod(0o644)
    with pytest.raises(SpooldError, match="can be read or written by everybody") as caught:
        store.look(b"a")
    assert caught.value.code is errors.CONFIG_INVALID
    assert caught.value.at == "stores.vault.secret_access_key_file"
    assert bucket.server.secret_key not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"endpoint": "http://storage.example"}, "http:// shows everything"),
        ({"endpoint": "https://user:word@storage.example"}, "it is no endpoint"),
        ({"endpoint": "https://storage.example/path"}, "it is no endpoint"),
        ({"endpoint": "ftp://storage.example"}, "it is no endpoint"),
        ({"endpoint": "https://storage.example:99999"}, "it is no endpoint"),
        ({"prefix": "/a"}, "without / at either end"),
        ({"prefix": "a/../b"}, "without / at either end"),
        ({"secret_access_key_file": None}, "write access_key_id_file and secret_access_key_file"),
        ({"allow_ambient": True}, "write access_key_id_file and secret_access_key_file"),
        ({"part_bytes": "4MiB"}, "greater than or equal to 5242880"),
        ({"bucket": "a/b"}, "match pattern"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    given = {
        "kind": "s3",
        "bucket": "vault",
        "access_key_id_file": "id",
        "secret_access_key_file": "secret",
        **changes,
    }
    with pytest.raises(ValueError, match=said):
        StoreSettings.model_validate(given)


def test_http_is_for_this_host_or_for_those_who_insist() -> None:
    files = {"access_key_id_file": "id", "secret_access_key_file": "secret"}
    for endpoint in ("http://localhost:1", "http://127.0.0.9", "http://[::1]:9"):
        assert StoreSettings(kind="s3", bucket="vault", endpoint=endpoint, **files).url == endpoint
    insecure = StoreSettings(
        kind="s3", bucket="vault", endpoint="http://a.example", insecure=True, **files
    )
    assert insecure.url == "http://a.example"
