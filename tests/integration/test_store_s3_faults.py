"""Object stores that are slow, refuse, lie and break: behind a door before a real one."""

import datetime
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spoold import errors
from spoold.errors import Code, SpooldError
from spoold.stores import Store, StoredObject, put_new
from tests.bundles import build_files
from tests.doors import Door, Fault, Passing, behind, door
from tests.integration.test_store_s3_bundles import Site
from tests.stores import Bucket

MIB = 1024 * 1024
SLOW = (503, "SlowDown", {})


@pytest.fixture
def way(swift_bucket: Bucket) -> Iterator[tuple[Door, Bucket]]:
    """The door, and the bucket behind it."""
    with swift_bucket.opened, door(swift_bucket.server) as (made, server):
        yield made, behind(swift_bucket, server)


def put(store: Store, content: bytes, folder: Path) -> bool:
    path = folder / "content"
    path.write_bytes(content)
    with open(path, "rb") as file:
        return put_new(store, b"a", file.fileno(), lambda _bytes: None)


def refusal(store: Store) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        list(store.list(b""))
    return caught.value


def is_part(passing: Passing) -> bool:
    return "partNumber=" in passing.target


def is_completion(passing: Passing) -> bool:
    return passing.method == "POST" and "uploadId=" in passing.target


@pytest.mark.parametrize(
    "answer",
    [
        SLOW,
        (500, "InternalError", {}),
        (429, "", {"Retry-After": "0"}),
        (400, "RequestTimeout", {}),
    ],
)
def test_what_may_pass_is_tried_again(
    way: tuple[Door, Bucket], answer: tuple[int, str, dict[str, str]]
) -> None:
    way[0].faults = [Fault(times=2, answer=answer)]
    assert list(way[1].store().list(b"")) == []
    assert len(way[0].passed) == 3


def test_retry_after_is_heeded(way: tuple[Door, Bucket]) -> None:
    way[0].faults = [Fault(answer=(503, "SlowDown", {"Retry-After": "1"}))]
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1

    with Store("vault", way[1].settings(), check) as store:
        assert list(store.list(b"")) == []
    assert calls >= 4  # twice a second while it waits, and before each try


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (Fault(times=9, answer=SLOW), errors.STORE_AWAY, "503 SlowDown as told"),
        (Fault(times=9, cut=-1), errors.STORE_AWAY, "without response"),
        (Fault(answer=(403, "AccessDenied", {})), errors.STORE_REFUSED, "403 AccessDenied"),
        (Fault(answer=(301, "PermanentRedirect", {})), errors.STORE_REFUSED, "301"),
        (Fault(answer=(404, "NoSuchBucket", {})), errors.STORE_REFUSED, "NoSuchBucket"),
        (Fault(answer=(200, "", {})), errors.STORE_ANSWER, "it is Error, not ListBucketResult"),
    ],
)
def test_what_does_not_pass_ends_in_a_code(
    way: tuple[Door, Bucket], fault: Fault, code: Code, said: str
) -> None:
    way[0].faults = [fault]
    error = refusal(way[1].store())
    assert error.code is code
    assert said in error.message
    assert way[1].server.secret_key not in str(error)


def test_a_wrong_secret_is_refused_with_the_fix(swift_bucket: Bucket) -> None:
    store = swift_bucket.store()
    (swift_bucket.folder / "store-secret").write_text("another\n")
    error = refusal(store)
    assert error.code is errors.STORE_REFUSED
    assert "SignatureDoesNotMatch" in error.message
    assert "key files" in error.hint


def test_a_store_that_is_not_there_is_away(swift_bucket: Bucket) -> None:
    error = refusal(swift_bucket.store(endpoint="http://127.0.0.1:9", attempts=2))
    assert error.code is errors.STORE_AWAY
    assert error.transient
    assert "refused" in error.message


def test_a_store_that_stalls_is_away(way: tuple[Door, Bucket]) -> None:
    event = threading.Event()
    way[0].faults = [Fault(stall=event)]
    try:
        error = refusal(way[1].store(attempts=1, read_timeout_seconds=0.2))
    finally:
        event.set()
    assert error.code is errors.STORE_AWAY
    assert "timed out" in error.message


def test_an_attempt_that_lost_its_job_does_not_go_on_waiting(way: tuple[Door, Bucket]) -> None:
    class LostError(Exception):
        pass

    def check() -> None:
        if way[0].passed:
            raise LostError

    way[0].faults = [Fault(times=9, answer=(503, "SlowDown", {"Retry-After": "25"}))]
    with Store("vault", way[1].settings(), check) as store, pytest.raises(LostError):
        list(store.list(b""))


@pytest.mark.parametrize("whole", [True, False])
def test_a_download_that_is_cut_goes_on_where_it_was_cut(
    way: tuple[Door, Bucket], whole: bool
) -> None:
    content = os.urandom(3 * MIB)
    way[1].put("a", content)
    store = way[1].store()
    info = store.look(b"a")
    assert info is not None
    way[0].faults = [Fault(lambda one: one.byte_range is not None, times=4, cut=300_000)]
    with StoredObject(store, b"a", info.size, info.etag, whole=whole) as stored:
        assert stored.read() == content
    starts = [one.byte_range for one in way[0].passed if one.byte_range]
    assert starts[1].startswith("bytes=300000-") and len(starts) >= 5  # noqa: PT018
    assert way[0].bytes_back < len(content) + 2 * MIB


def test_a_download_that_comes_to_nothing_is_away(way: tuple[Door, Bucket]) -> None:
    way[1].put("a", bytes(MIB))
    store = way[1].store()
    way[0].faults = [Fault(lambda one: one.byte_range is not None, times=99, cut=0)]
    with StoredObject(store, b"a", MIB, "") as stored, pytest.raises(SpooldError) as caught:
        stored.read(10)
    assert caught.value.code is errors.STORE_AWAY


@pytest.mark.parametrize("size", [MIB, 6 * MIB])
def test_an_upload_that_is_changed_on_the_way_is_sent_again(
    way: tuple[Door, Bucket], tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    way[0].faults = [Fault(lambda one: one.method == "PUT", flip=True)]
    assert put(way[1].store(part_bytes=5 * MIB), content, tmp_path)
    assert way[1].get("a") == content


def test_parts_that_fail_are_sent_again(way: tuple[Door, Bucket], tmp_path: Path) -> None:
    content = os.urandom(11 * MIB)
    way[0].faults = [Fault(is_part, times=1, answer=SLOW), Fault(is_part, times=1, cut=-1)]
    assert put(way[1].store(part_bytes=5 * MIB), content, tmp_path)
    assert way[1].get("a") == content


def test_an_upload_that_was_begun_twice_leaves_one_object(
    way: tuple[Door, Bucket], tmp_path: Path
) -> None:
    way[0].faults = [Fault(lambda one: one.target.endswith("?uploads="), cut=-1)]
    assert put(way[1].store(part_bytes=5 * MIB), bytes(6 * MIB), tmp_path)
    assert way[1].keys() == ["a"]
    assert way[1].uploads() == []


def test_a_store_that_cannot_tell_what_is_unfinished_is_used_all_the_same(
    way: tuple[Door, Bucket], tmp_path: Path
) -> None:
    telling = Fault(lambda one: "uploads=" in one.target and one.method == "GET", times=9)
    telling.answer = (501, "NotImplemented", {})
    way[0].faults = [telling]
    assert put(way[1].store(part_bytes=5 * MIB), bytes(6 * MIB), tmp_path)


def test_an_upload_that_fails_for_good_leaves_nothing(
    way: tuple[Door, Bucket], tmp_path: Path
) -> None:
    way[0].faults = [Fault(lambda one: "partNumber=2" in one.target, times=99, answer=SLOW)]
    with pytest.raises(SpooldError) as caught:
        put(way[1].store(part_bytes=5 * MIB), bytes(11 * MIB), tmp_path)
    assert caught.value.code is errors.STORE_AWAY
    assert way[1].keys() == []
    assert way[1].uploads() == []


@pytest.mark.parametrize("size", [MIB, 6 * MIB])
def test_a_bundle_whose_stored_answer_was_lost_is_known_again(
    way: tuple[Door, Bucket], tmp_path: Path, size: int
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(size))
    made = way[1].connections(part_bytes=5 * MIB)
    site = Site(tmp_path, made)
    site.connections = type(made)(roots={"evidence": tree}, stores=made.stores)
    way[0].faults = [
        Fault(lambda one: is_completion(one) or (one.method == "PUT" and size == MIB), cut=-1)
    ]
    sources = [{"kind": "files", "root": "evidence"}]
    outcome = site.run("bundle", name="demo", sources=sources, store="vault")
    (built,) = site.scratch.iterdir()
    assert way[1].get("demo-0123456789ab.tar.zst") == built.read_bytes()
    assert outcome.warnings == []
    assert way[1].uploads() == []


def test_a_part_of_a_bundle_is_read_by_a_part_of_its_bytes(
    way: tuple[Door, Bucket], tmp_path: Path
) -> None:
    noise = {f"noise/{number:02d}".encode(): os.urandom(2 * MIB) for number in range(16)}
    data = build_files({b"alerts/a": b"wanted", **noise}, tmp_path / "build")
    way[1].put("demo.tar.zst", data)
    site = Site(tmp_path, way[1].connections())
    bundle = {"store": "vault", "path": "demo.tar.zst"}
    for only, least, most in ((["alerts/"], 0, 7 * MIB), (["noise/09"], 2 * MIB, 9 * MIB)):
        way[0].bytes_back = 0
        outcome = site.run("rehydrate", bundle=bundle, only=only)
        assert outcome.result["partial"]
        assert least < way[0].bytes_back < most < len(data) // 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_killed_worker_had_begun_is_thrown_away_and_made_whole(
    way: tuple[Door, Bucket], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(11 * MIB))
    made = way[1].connections(part_bytes=5 * MIB)
    site = Site(tmp_path, type(made)(roots={"evidence": tree}, stores=made.stores))
    sources = [{"kind": "files", "root": "evidence"}]
    child = os.fork()
    if not child:
        calls = 0

        def die() -> None:
            # Its first part is on its way by then: the calls before are of five requests.
            nonlocal calls
            calls += 1
            if calls > 12:
                os.kill(os.getpid(), signal.SIGKILL)

        site.check = die
        try:
            site.run("bundle", name="demo", sources=sources, store="vault")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert way[1].uploads() == ["demo-0123456789ab.tar.zst"]
    assert way[1].keys() == []
    site.attempts += 1  # the child's
    site.run("bundle", name="demo", sources=sources, store="vault")
    (built,) = site.scratch.iterdir()
    assert way[1].uploads() == []
    assert way[1].get("demo-0123456789ab.tar.zst") == built.read_bytes()


# --- TLS ----------------------------------------------------------------------------------------


def authority(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that signed itself, for a host, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of a test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = folder / f"{host}.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = folder / f"{host}.key"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context


@pytest.mark.parametrize(
    ("host", "known", "said"),
    [
        ("localhost", True, None),
        ("localhost", False, "self-signed certificate"),
        ("other.example", True, "not valid for 'localhost'"),
    ],
)
def test_a_store_with_an_authority_of_its_own_is_believed_if_it_is_named(
    swift_bucket: Bucket, tmp_path: Path, host: str, known: bool, said: str | None
) -> None:
    public, context = authority(tmp_path, host)
    with door(swift_bucket.server, context) as (_, server), swift_bucket.opened:
        bucket = behind(swift_bucket, server)
        store = bucket.store(ca=str(public) if known else None)
        if said is None:
            assert list(store.list(b"")) == []
            return
        error = refusal(store)
    assert error.code is errors.STORE_REFUSED
    assert said in error.message
    assert "`ca`" in error.hint


def test_a_file_of_authorities_that_is_none_is_told(swift_bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(SpooldError) as caught:
        swift_bucket.store(endpoint="https://localhost:9", ca=str(tmp_path / "ca"))
    assert (caught.value.code, caught.value.at) == (errors.CONFIG_INVALID, "stores.vault.ca")
