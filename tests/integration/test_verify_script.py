"""verify-bundle.sh, the second verifier: the same verdicts as ours, but for what it cannot see."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from spoold.bundle.frames import Codec
from spoold.trust import Algorithm, PublicKey, public_pem
from tests.bundles import Forge, build_tree, file_entry, frame_edges, refusal, sha256, signer
from tests.faults.disks import small_disk
from tests.hostile import CASES
from tests.hostile.case import MIB, Case, edited
from tests.integration.test_bundle_trees import make_awkward

LAYOUT = Path(__file__).parents[2] / "spool-layout"
SCRIPT = LAYOUT / "verify-bundle.sh"
TOOLS = ["sh", "openssl", "jq", "tar", "zstd", "gzip", "awk", "sha256sum"]
CODECS = pytest.mark.parametrize("codec", list(Codec))

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"
)

# All cases where it is asked for (minutes), else one of each code and of each kind not seen.
THOROUGH = bool(os.environ.get("SPOOLD_TEST_THOROUGH"))
FIRST = {case.unseen or case.code: case for case in reversed(CASES)}
CHOSEN = CASES if THOROUGH else list(FIRST.values())

# Why, and in which rows: the table of spool-layout/README.md.
UNSEEN: dict[str, str] = {
    "it is given one key: it knows no roles, revocations or thresholds": "H03 H04 H05 H12",
    "it does not know which site asks": "H29",
    "it has no limits but the format's": "H89",
    "it folds ASCII only": "H43 H44",
    "it does not know which code points are assigned": "H44",
    "gzip does not tell how many members it read": "H86",
}


@pytest.fixture
def verdict(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Exit status and words of the script; what it leaves in its temporary folder is a fault."""

    def run(
        data: bytes | Path, public: PublicKey | None = None, *site: str, name: str = "b.tar.zst"
    ) -> tuple[int, str]:
        bundle = data if isinstance(data, Path) else tmp_path / name
        if not isinstance(data, Path):
            bundle.write_bytes(data)
        key = tmp_path / "site.pub"
        key.write_bytes(public_pem(public or signer().private.public_key()))
        temporary = tmp_path / "temporary"
        temporary.mkdir(exist_ok=True)
        done = subprocess.run(
            ["sh", SCRIPT, bundle, key, *site],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not list(temporary.iterdir())
        assert done.stderr == ""
        assert done.stdout.count("\n") == 1
        assert done.stdout.startswith("no: " if done.returncode else "yes: ")
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize(
    ("time", "good"),
    [
        ("0001-01-01T00:00:00Z", True),
        ("1969-12-31T23:59:59Z", True),
        ("2000-02-29T00:00:00.5Z", True),
        ("1900-02-29T00:00:00Z", False),
        ("2026-11-31T00:00:00Z", False),
        ("2026-11-20T24:00:00Z", False),
        ("2026-11-20T23:59:60Z", False),
    ],
)
def test_a_time_is_what_it_is_for_spoold(
    time: str, good: bool, verdict: Callable[..., tuple[int, str]]
) -> None:
    data = Forge.good(edit_manifest=edited(created_at=time)).build()
    assert verdict(data)[0] == (0 if good else 1)
    assert refusal(data) == ("accepted" if good else "manifest-invalid")


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_the_same_verdict(case: Case, verdict: Callable[..., tuple[int, str]]) -> None:
    keys = list(case.trust) or [signer().trusted()]
    for codec in case.codecs if THOROUGH else case.codecs[:1]:
        name = "b" + (case.policy.codec or codec).suffix
        status, said = verdict(case.make(codec), keys[0].public, keys[0].site, name=name)
        assert status == (0 if case.unseen else 1), said


def test_what_it_cannot_see_stands_in_the_table() -> None:
    found: dict[str, list[str]] = {}
    for case in CASES:
        rows = found.setdefault(case.unseen, [])
        if case.unseen and case.row not in rows:
            rows.append(case.row)
    assert {why: " ".join(rows) for why, rows in found.items() if why} == UNSEEN
    page = (LAYOUT / "README.md").read_text()
    for why, rows in UNSEEN.items():
        assert f"| {rows} | {why} |" in page


@CODECS
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_good_bundle_is_good(
    codec: Codec,
    algorithm: Algorithm,
    tmp_path: Path,
    verdict: Callable[..., tuple[int, str]],
) -> None:
    by = signer("site-p", algorithm)
    public = by.private.public_key()
    data = Forge.good(codec, by=by).build()
    name = f"b{codec.suffix}"
    assert verdict(data, public, name=name)[0] == 0
    status, said = verdict(data, public, "site-p", name=name)
    assert status == 0
    assert verdict(data, public, "site-q", name=name)[0] == 1
    assert verdict(data, signer("site-q", algorithm).private.public_key(), name=name)[0] == 1
    if not THOROUGH and (codec is Codec.GZIP) is (algorithm is Algorithm.RSA):
        return
    make_awkward(tmp_path / "tree")
    built = build_tree(
        tmp_path / "tree", tmp_path / "work", codec=codec, chunk_size=MIB, by=by, into="in/to"
    )
    status, said = verdict(built.path, public, "site-p")
    assert status == 0, said
    assert built.manifest_sha256 in said
    assert verdict(built.path.read_bytes()[:-1], public, name=name)[0] == 1


def test_a_further_signature_of_a_stranger_is_no_matter(
    verdict: Callable[..., tuple[int, str]],
) -> None:
    other = signer("site-x")

    def add(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        further = f"signatures/{other.key_id}.sig", other.sign(members[0][1])
        return [*members[:2], further, *members[2:]]

    assert verdict(Forge.good(edit_head=add).build())[0] == 0


@CODECS
def test_files_larger_than_a_frame(codec: Codec, verdict: Callable[..., tuple[int, str]]) -> None:
    data = Forge.of({"a": b"x", "big": bytes(9 * MIB + 7), "c": bytes(600)}, codec=codec).build()
    assert verdict(data, name=f"b{codec.suffix}")[0] == 0


def test_names_that_python_puts_aside_are_put_aside(
    verdict: Callable[..., tuple[int, str]],
) -> None:
    aside = f"data/_x/{sha256(b'a.txt')}"
    data = Forge(
        entries=[file_entry("A.txt", b"1"), file_entry("a.txt", b"2", member=aside)],
        contents={"data/A.txt": b"1", aside: b"2"},
    ).build()
    assert verdict(data)[0] == 0


@pytest.mark.parametrize("at", ["not_after", "correlation_id", "labels", "to", "skipped"])
def test_every_optional_field_is_known(at: str, verdict: Callable[..., tuple[int, str]]) -> None:
    fields = {
        "not_after": {"not_after": "2126-11-20T10:00:00.5Z"},
        "correlation_id": {"correlation_id": "x", "request_sha256": "0" * 64},
        "labels": {"labels": {"A.b_c-1": 'quoted "\\" \u00e4\U0001f600'}},
        "to": {"to": ["site-b", "c"]},
        "skipped": {
            "skipped": [{"path": "a", "reason": "b"}, {"path_b64": "/w==", "reason": "c"}],
            "skipped_count": 7,
        },
    }
    status, said = verdict(Forge.good(edit_manifest=edited(**fields[at])).build())
    assert status == 0, said


@CODECS
def test_it_sees_bits_that_were_flipped(
    codec: Codec, verdict: Callable[..., tuple[int, str]]
) -> None:
    data = Forge.good(codec).build()
    edges = frame_edges(data, codec)
    chosen = range(0, len(data), 37) if THOROUGH else {edge + 4 for edge in edges}
    for position in sorted({*chosen, len(data) - 1}):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        status, said = verdict(bytes(damaged), name=f"b{codec.suffix}")
        assert status == 1, (position, said)


def test_h09_keys_that_are_too_weak(verdict: Callable[..., tuple[int, str]]) -> None:
    data = Forge.good().build()
    for weak in (
        rsa.generate_private_key(65537, 2048),
        rsa.generate_private_key(3, 3072),
        ec.generate_private_key(ec.SECP256R1()),
    ):
        assert verdict(data, weak.public_key())[0] == 1


def test_h90_a_link_to_a_bundle(tmp_path: Path, verdict: Callable[..., tuple[int, str]]) -> None:
    (tmp_path / "real.tar.zst").write_bytes(Forge.good().build())
    (tmp_path / "link.tar.zst").symlink_to("real.tar.zst")
    assert verdict(tmp_path / "real.tar.zst")[0] == 0
    assert verdict(tmp_path / "link.tar.zst")[0] == 1
    assert verdict(b"")[0] == 1


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    """The arguments for a bundle that is good."""
    (tmp_path / "b.tar.zst").write_bytes(Forge.of({"a": os.urandom(3 * MIB)}).build())
    (tmp_path / "site.pub").write_bytes(public_pem(signer().private.public_key()))
    return [tmp_path / "b.tar.zst", tmp_path / "site.pub"]


def test_its_environment_does_not_change_the_verdict(tmp_path: Path, good: list[Path]) -> None:
    (tmp_path / "a folder").mkdir()
    done = subprocess.run(
        ["sh", SCRIPT, *good],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": "a folder",
            "TAR_OPTIONS": "--exclude=*",
            "GZIP": "--test",
            "POSIXLY_CORRECT": "1",
            "CDPATH": "/",
            "IFS": "abc",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert not list((tmp_path / "a folder").iterdir())


@pytest.mark.parametrize("mebibytes", [2, 5, 8])
def test_a_full_disk_is_no_verdict(mebibytes: int, tmp_path: Path, good: list[Path]) -> None:
    with small_disk(tmp_path / "small") as disk:
        disk.resize(free_bytes=mebibytes * MIB)
        done = subprocess.run(
            ["sh", SCRIPT, *good],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(disk.place)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert "there is no room" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["one"], ["a", "b", "c", "d"], ["none", "none"]])
def test_wrong_usage_is_no_verdict(arguments: list[str]) -> None:
    done = subprocess.run(["sh", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""


def test_a_missing_tool_is_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "awk", "tar"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        ["sh", SCRIPT, SCRIPT, SCRIPT],
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "is missing" in done.stderr
