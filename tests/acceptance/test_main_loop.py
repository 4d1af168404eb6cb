"""A request in, a bundle out; the bundle in at the other site, the files out, equal."""

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.conftest import wait_until
from tests.sites import (
    Site,
    Status,
    request,
    run_tool,
    spoold,
    trust,
)

MakeSite = Callable[..., Site]


def build_one(site: Site, **fields: object) -> tuple[Status, Path]:
    """Drop one request and return its final status and the bundle."""
    site.drop("request-demo.json", request(**fields))
    status = site.final("request-demo.json")
    assert status["state"] == "succeeded", status
    return status, site.root / status["files"]["bundle"]


def test_a_request_becomes_a_bundle_with_a_signed_status(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, embedded=True)
    site.start()
    status, bundle = build_one(site, correlation_id="case-123", idempotency_key="incident-123/1")

    assert bundle.is_file()
    # Whoever may drop may fetch the result.
    assert bundle.stat().st_mode & 0o777 == 0o640
    assert bundle.stat().st_gid == site.inbox.stat().st_gid
    assert status["result"]["bytes"] == bundle.stat().st_size
    assert status["action"] == "bundle"
    assert status["correlation_id"] == "case-123"
    assert status["attempt"] == 1
    assert status["files"]["drop"] == "processed/request-demo.json"
    assert (site.root / status["files"]["drop"]).is_file()
    beside = site.root / "processed" / "request-demo.json.status.json"
    assert beside.samefile(site.status_path("request-demo.json"))
    site.verified("request-demo.json")
    wait_until(lambda: site.leftovers() == [], 5)


def test_the_bundle_is_restored_at_another_site(make_site: MakeSite, tmp_path: Path) -> None:
    root = tmp_path / "evidence"
    make_awkward_tree(root / "incident-123")
    first = make_site("site-a", roots={"evidence": root})
    second = make_site("site-b")
    trust(second, first)
    first.start()
    second.start()

    _, bundle = build_one(first, chunk_size="1MiB")
    second.drop(bundle.name, bundle)
    status = second.final(bundle.name)

    assert status["state"] == "succeeded", status
    assert status["action"] == "rehydrate"
    assert status["result"]["from"] == "site-a"
    restored = second.root / status["result"]["restored"]
    assert list(differences(root / "incident-123", restored)) == []
    second.verified(bundle.name)
    assert second.leftovers() == []


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
def test_ordinary_tools_can_check_a_bundle(
    make_site: MakeSite, evidence: Path, tmp_path: Path, algorithm: str
) -> None:
    for tool in ("jq", "openssl", "tar", "zstd", "sha256sum"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    site = make_site(roots={"evidence": evidence}, algorithm=algorithm, embedded=True)
    for name in ("one", "two"):
        (evidence / "incident-123" / name).write_bytes(os.urandom(1_500_000))
    site.drop("request-demo.json", request(chunk_size="1MiB"))
    assert site.run_once() == 0
    status = site.final("request-demo.json")
    bundle = site.root / status["files"]["bundle"]

    out = tmp_path / "out"
    out.mkdir()
    run_tool("tar", "--zstd", "-xf", bundle, cwd=out)
    bag = out / bundle.name.removesuffix(".tar.zst")
    key = site.root / "site.pub"
    verify = (
        ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin",
         "-in", "manifest.json", "-sigfile", "manifest.sig"]
        if algorithm == "ed25519"
        else ["openssl", "dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss",
              "-sigopt", "rsa_pss_saltlen:32", "-verify", key,
              "-signature", "manifest.sig", "manifest.json"]
    )  # fmt: skip
    run_tool(*verify, cwd=bag)
    run_tool(
        "sh",
        "-c",
        """jq -r '.entries.sha256 + "  entries.jsonl", .frames.sha256 + "  frames.jsonl"' """
        "manifest.json | sha256sum -c --quiet",
        cwd=bag,
    )
    run_tool(
        "sh",
        "-c",
        """jq -r 'select(.kind=="file")|(.member//("data/"+.path)) as $m|if .chunks then """
        """.chunks|to_entries[]|.value.sha256+"  "+$m+"."+("00000"+(.key|tostring))[-6:]"""
        """+".chunk" else .sha256+"  "+$m end' entries.jsonl | cmp - manifest-sha256.txt""",
        cwd=bag,
    )
    run_tool("sha256sum", "-c", "--strict", "--quiet", "manifest-sha256.txt", cwd=bag)
    run_tool(sys.executable, "-m", "bagit", "--validate", ".", cwd=bag)
    if algorithm == "rsa":
        answer = site.status_path("request-demo.json")
        check = (
            f"openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 "
            f"-verify '{key}' -signature <(jq -r '.signatures[0].signature' '{answer}' | base64 -d)"
            f" <(jq -cjS 'del(.signatures)' '{answer}')"
        )
        run_tool("bash", "-c", check)


SPOILT: dict[str, tuple[Callable[[bytes], bytes], str | None]] = {
    "flipped.tar.zst": (lambda data: flip(data, len(data) * 2 // 3), None),
    "head.tar.zst": (lambda data: flip(data, 700), None),
    "cut.tar.zst": (lambda data: data[: len(data) // 2], "bundle-truncated"),
    "tail.tar.zst": (lambda data: data + b"\0", None),
    "empty.tar.zst": (lambda data: b"", None),
    "text.tar.zst": (lambda data: b"no bundle" * 100, None),
}


def test_a_bundle_that_is_not_as_it_was_signed_is_refused(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence})
    site.start()
    _, bundle = build_one(site)
    for name, (spoil, _) in SPOILT.items():
        site.drop(name, spoil(bundle.read_bytes()))
    for name, (_, code) in SPOILT.items():
        status = site.final(name)
        assert status["state"] == "rejected", status
        assert status["error"]["hint"]
        assert code is None or status["error"]["code"] == code
        assert status["files"]["drop"] == f"failed/{name}"
        assert (site.root / "failed" / name).is_file()
        site.verified(name)
    assert list((site.root / "restored").iterdir()) == []
    wait_until(lambda: site.leftovers() == [], 5)


def test_a_bundle_of_an_untrusted_site_is_refused(make_site: MakeSite, evidence: Path) -> None:
    first = make_site("site-a", roots={"evidence": evidence})
    second = make_site("site-b")
    first.start()
    second.start()
    _, bundle = build_one(first)
    second.drop(bundle.name, bundle)
    status = second.final(bundle.name)
    assert status["state"] == "rejected"
    assert status["error"]["code"] == "signature-untrusted"
    assert list((second.root / "restored").iterdir()) == []

    # Once the key is trusted, the same bundle under the same name is a new drop and succeeds.
    trust(second, first)
    second.drop(bundle.name, bundle)
    status = second.final_after(bundle.name, status["job_id"])
    assert status["state"] == "succeeded", status


def test_e12_the_same_name_again_is_a_new_job_and_overwrites_nothing(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence})
    site.start()
    first, _ = build_one(site)
    site.drop("request-demo.json", request())
    second = site.final_after("request-demo.json", first["job_id"])
    assert first["files"]["drop"] == "processed/request-demo.json"
    digits = second["job_id"].replace("-", "")[-12:]
    assert second["files"]["drop"] == f"processed/request-demo~{digits}.json"
    # A bundle must be able to be dropped elsewhere: its own name stays.
    assert second["files"]["bundle"] == f"processed/demo-{digits}.tar.zst"
    assert (site.root / "processed" / f"request-demo~{digits}.json.status.json").is_file()

    # A consumer that takes everything away at once changes nothing of that.
    for path in (site.root / "processed").iterdir():
        path.unlink()
    site.drop("request-demo.json", request())
    third = site.final_after("request-demo.json", second["job_id"])
    digits = third["job_id"].replace("-", "")[-12:]
    assert third["files"]["drop"] == f"processed/request-demo~{digits}.json"
    assert third["files"]["bundle"] == f"processed/demo-{digits}.tar.zst"
    site.verified("request-demo.json")


def test_the_same_bundle_again_is_a_duplicate(make_site: MakeSite, evidence: Path) -> None:
    site = make_site(roots={"evidence": evidence})
    site.start()
    _, bundle = build_one(site)
    site.drop("first.tar.zst", bundle)
    first = site.final("first.tar.zst")
    site.drop("second.tar.zst", bundle)
    second = site.final("second.tar.zst")
    assert first["state"] == "succeeded", first
    assert second["state"] == "duplicate", second
    assert second["result"]["duplicate_of"] == first["job_id"]
    assert second["result"]["stands"] == first["result"]["restored"]
    assert second["files"]["drop"] == "processed/second.tar.zst"


@pytest.mark.parametrize(("links", "state"), [("inside", "rejected"), ("skip", "succeeded")])
def test_links_that_lead_out_are_restored_only_as_the_receiver_allows(
    make_site: MakeSite, evidence: Path, links: str, state: str
) -> None:
    (evidence / "incident-123" / "out").symlink_to("/etc/passwd")
    site = make_site(roots={"evidence": evidence}, restore_links=links)
    site.start()
    _, bundle = build_one(site)
    site.drop("again.tar.zst", bundle)
    status = site.final("again.tar.zst")
    assert status["state"] == state, status
    if state == "rejected":
        assert status["error"]["code"] == "symlink-leaves"
        assert list((site.root / "restored").iterdir()) == []
    else:
        restored = site.root / status["result"]["restored"]
        assert (restored / "notes.txt").is_file()
        assert not os.path.lexists(restored / "out")
        assert status["warnings"]


def test_a_request_can_restore_a_bundle_from_a_root(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    site = make_site(roots={"evidence": evidence, "usb": stick})
    site.start()
    _, bundle = build_one(site)
    bundle.rename(stick / "carried.tar.zst")
    site.drop(
        "request-restore.json",
        {
            "type": "spoold.request/1",
            "action": "rehydrate",
            "bundle": {"root": "usb", "path": "carried.tar.zst"},
        },
    )
    status = site.final("request-restore.json")
    assert status["state"] == "succeeded", status
    assert (stick / "carried.tar.zst").is_file()
    assert (site.root / status["result"]["restored"] / "notes.txt").is_file()


def test_run_once_with_plain_cp(make_site: MakeSite, evidence: Path, tmp_path: Path) -> None:
    site = make_site(roots={"evidence": evidence})
    (tmp_path / "request-x.json").write_text(json.dumps(request()))
    subprocess.run(["cp", tmp_path / "request-x.json", site.inbox], check=True)
    assert site.run_once() == 0
    assert site.final("request-x.json")["state"] == "succeeded"

    site.drop("request-bad.json", request(path="nowhere"))
    assert site.run_once() == 1
    status = site.final("request-bad.json")
    assert status["state"] == "failed"
    assert status["error"]["code"] == "source-missing"
    assert status["attempt"] == 1


def test_thousand_requests_at_once(make_site: MakeSite, evidence: Path) -> None:
    site = make_site(roots={"evidence": evidence})
    names = [f"request-{number:04}.json" for number in range(1000)]
    small = request(path="incident-123/notes.txt")
    for name in names:
        site.drop(name, small)
    site.start()
    statuses = [site.final(name, 300) for name in names]
    assert {status["state"] for status in statuses} == {"succeeded"}
    assert len({status["job_id"] for status in statuses}) == 1000
    assert len({status["result"]["bundle"] for status in statuses}) == 1000
    done = spoold("status", names[0], "--verify", "--json", "--spool", site.root)
    assert json.loads(done.stdout)["final"] is True
    verify_all(site, statuses)
    wait_until(lambda: site.leftovers() == [], 5)


def test_e11_two_daemons_on_one_spool_make_five_jobs_of_five_files(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence})
    first, second = site.start(), site.start()
    names = [f"request-{number}.json" for number in range(5)]
    for name in names:
        site.drop(name, request())
    statuses = [site.final(name) for name in names]
    assert {status["state"] for status in statuses} == {"succeeded"}
    assert len(list((site.root / "processed").glob("*.tar.zst"))) == 5
    # Whichever of them has the intake and started the database: the other one takes over.
    assert site.stop(first) == 0
    site.drop("request-after.json", request())
    assert site.final("request-after.json")["state"] == "succeeded"
    assert second.poll() is None


# --- what the tests are made of -------------------------------------------------------------------


def flip(data: bytes, position: int) -> bytes:
    """The same with one bit changed."""
    return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


def verify_all(site: Site, statuses: list[Status]) -> None:
    """Every signature, with a library of others."""
    key = serialization.load_pem_public_key((site.root / "site.pub").read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    for status in statuses:
        signature = base64.b64decode(status.pop("signatures")[0]["signature"])
        content = json.dumps(status, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        key.verify(signature, content.encode())


def make_awkward_tree(folder: Path) -> None:
    """Everything that a file name, a mode and a time can be."""
    folder.mkdir(parents=True)
    names = [
        b"with space", "Uml\u00e4ute-\u00df".encode(), "emoji-\U0001f692".encode(), b"100%",
        b"back\\slash", b"new\nline", b"not-utf8-\xff\xfe", b"x" * 255, b"-dash", b"trailing ",
        "e\u0301-nfd".encode(), "\u00e9-nfc".encode(), b"CASE", b"case", b"a.chunk", b"tab\there",
        b"_x", b"\x7f-del", b'quote"s',
    ]  # fmt: skip
    for number, name in enumerate(names):
        (folder / os.fsdecode(name)).write_bytes(name * number)
    deep = folder
    for level in range(40):
        deep = deep / f"level-{level}"
        deep.mkdir()
    (deep / "bottom").write_text("depth 40")
    (folder / "empty folder").mkdir()
    (folder / "link").symlink_to("level-0/level-1")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "large").write_bytes(os.urandom(5_000_001))
    (folder / "read-only").write_text("x")
    (folder / "read-only").chmod(0o400)
    (folder / "old").write_text("x")
    os.utime(folder / "old", ns=(-1_000_000_001, -1_000_000_001))
    locked = folder / "locked folder"
    locked.mkdir()
    (locked / "inside").write_text("x")
    os.utime(locked, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    locked.chmod(0o555)


def differences(one: Path, other: Path) -> Iterator[str]:
    """Names, kinds, content, modes and times that differ."""
    names = {path.relative_to(one) for path in one.rglob("*")}
    others = {path.relative_to(other) for path in other.rglob("*")}
    yield from (f"{name!r} on one side only" for name in sorted(names ^ others))
    for name in sorted(names & others):
        here, there = (one / name).lstat(), (other / name).lstat()
        if here.st_mode != there.st_mode:
            yield f"{name!r}: mode {here.st_mode:o} {there.st_mode:o}"
        elif stat.S_ISLNK(here.st_mode):
            if os.readlink(one / name) != os.readlink(other / name):
                yield f"{name!r}: target"
        elif here.st_mtime_ns != there.st_mtime_ns:
            yield f"{name!r}: time {here.st_mtime_ns} {there.st_mtime_ns}"
        elif (
            stat.S_ISREG(here.st_mode) and (one / name).read_bytes() != (other / name).read_bytes()
        ):
            yield f"{name!r}: content"
