"""Every drop is answered, soon, whatever it is; and the page's shell loop reads the answers."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoold.status import status_name
from spoold.trust import sign_document
from tests.bundles import signer
from tests.conftest import wait_until
from tests.sites import DEADLINE_SECONDS, Site, Status, request

MakeSite = Callable[..., Site]

README = Path(__file__).parents[2] / "README.md"
SOON_SECONDS = 1.0
SETTLE_SECONDS = 0.5  # as make_site has it
TRIES = 3

HANDLERS = """
[[handlers]]
pattern = "intent-*.json"
command = ["true"]
"""


def status_of(site: Site, name: str) -> Status | None:
    path = site.root / "status" / os.fsdecode(status_name(os.fsencode(name)))
    try:
        status: Status = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return status


def seconds_to_an_answer(site: Site, name: str, put: Callable[[Path], None]) -> float:
    """How long it takes from the moment a drop is complete until its status stands."""
    put(site.inbox / name)
    complete = time.monotonic()
    wait_until(lambda: status_of(site, name) is not None, DEADLINE_SECONDS)
    return time.monotonic() - complete


def final(site: Site, name: str) -> Status:
    wait_until(lambda: (status_of(site, name) or {}).get("final") is True, DEADLINE_SECONDS)
    status = status_of(site, name)
    assert status is not None
    return status


def test_every_drop_has_its_status_within_a_second_of_being_complete(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, intake_max_request_bytes=4096)
    with open(site.root / "spoold.toml", "a") as file:
        file.write(HANDLERS)
    site.start()
    site.drop("request-first.json", request(idempotency_key="key"))
    first = site.final("request-first.json")
    bundle = tmp_path / "bundle"
    shutil.copyfile(site.root / first["files"]["bundle"], bundle)
    good = json.dumps(request()).encode()

    def moved(content: bytes | Path) -> Callable[[Path], None]:
        def put(path: Path) -> None:
            site.drop(path.name, content)

        return put

    def copied(content: bytes) -> Callable[[Path], None]:
        def put(path: Path) -> None:
            path.write_bytes(content)

        return put

    # name, what puts it there, the state it ends in, the error's code, how long it must settle
    stranger = sign_document(request(), signer("site-b"))
    kinds: list[tuple[str, Callable[[Path], None], str, str | None, float]] = [
        ("request-{}-moved.json", moved(good), "succeeded", None, 0),
        ("request-{}-copied.json", copied(good), "succeeded", None, 0),
        ("request-{}-\n\x1b.json", moved(good), "succeeded", None, 0),
        ("request-{}-" + "ü" * 110 + ".json", moved(good), "succeeded", None, 0),
        (
            "request-{}-again.json",
            moved(json.dumps(request(idempotency_key="key")).encode()),
            "duplicate",
            None,
            0,
        ),
        (
            "request-{}-reused.json",
            moved(json.dumps(request(idempotency_key="key", name="x")).encode()),
            "rejected",
            "idempotency-key-reused",
            0,
        ),
        ("request-{}-out.json", moved(json.dumps(request("..")).encode()), "failed", None, 0),
        ("request-{}-wrong.json", copied(b'{"type": 1}'), "rejected", "request-invalid", 0),
        ("request-{}-no.json", moved(b"]"), "rejected", "request-not-json", 0),
        ("request-{}-half.json", copied(good[:-9]), "rejected", "request-truncated", 1),
        ("request-{}-empty.json", copied(b""), "rejected", "drop-empty", 1),
        ("request-{}-large.json", copied(b" " * 5000), "rejected", "request-too-large", 0),
        (
            "request-{}-link.json",
            lambda path: path.symlink_to("/etc/passwd"),
            "rejected",
            "drop-symlink",
            0,
        ),
        ("request-{}-signed.json", moved(stranger), "rejected", "signature-untrusted", 0),
        # before the whole one, or it would be taken for a second copy of it
        ("half-{}.tar.zst", copied(bundle.read_bytes()[:-9]), "rejected", "bundle-truncated", 1),
        ("bundle-{}.tar.zst", moved(bundle), "succeeded", None, 0),
        ("garbage-{}.tar.zst", moved(b"no bundle"), "rejected", "not-a-bundle", 0),
        ("intent-{}.json", moved(b"{}"), "succeeded", None, 0),
    ]
    names = {}
    for kind, put, state, code, settles in kinds:
        took = []
        for number in range(TRIES):
            name = kind.format(number)
            names[name] = (state, code)
            took.append(seconds_to_an_answer(site, name, put) - settles * SETTLE_SECONDS)
            if took[-1] <= SOON_SECONDS:  # a busy machine may hold the other tries up
                break
        assert min(took) <= SOON_SECONDS, (kind, took)
    # A bundle is restored once: other copies of it are duplicates.
    for name, (state, code) in names.items():
        status = final(site, name)
        duplicate = name.startswith("bundle-") and status["state"] == "duplicate"
        assert status["state"] == state or duplicate, (name, status)
        if code is not None:
            assert status["error"]["code"] == code, (name, status)
        assert status["signatures"], name


def test_once_takes_no_more_than_its_minutes_worth_and_leaves_the_rest(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, intake_max_drops_per_minute=2)
    for number in range(4):
        site.drop(f"request-{number}.json", request())
    assert site.run_once() == 75
    left = list(site.inbox.iterdir())
    assert 1 <= len(left) <= 2  # more come in while the first are worked at
    for path in left:
        assert (status_of(site, path.name) or {})["reason"] == "rate"


SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]


def test_the_pages_loop_reads_every_ending_in_every_shell(
    make_site: MakeSite, evidence: Path
) -> None:
    shells = [shell for shell in SHELLS if shutil.which(shell[0])]
    if not shells or shutil.which("jq") is None:
        pytest.skip("no shell or no jq")
    [loop] = [
        block
        for block in re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.M | re.S)
        if block.startswith("drop=request-demo.json")
    ]
    assert len(loop.splitlines()) <= 10
    site = make_site(roots={"evidence": evidence})
    site.start()
    for shell in shells:
        endings: dict[str, tuple[dict[str, Any], int, str]] = {
            "succeeded": (request(idempotency_key=shell[0]), 0, "made demo-"),
            "duplicate": (request(idempotency_key=shell[0]), 0, "done before, by job "),
            "failed": (request("nowhere"), 1, "source-missing: "),
            "rejected": ({"type": "x"}, 1, "request-invalid: "),
        }
        for ending, (content, exit_status, said) in endings.items():
            name = f"request-{shell[0]}-{ending}.json"
            site.drop(name, content)
            done = subprocess.run(
                [*shell, "-euc", loop.replace("request-demo.json", name)],
                cwd=site.root.parent,
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECONDS,
                check=False,
            )
            assert done.returncode == exit_status, (shell, ending, done)
            assert said in done.stdout + done.stderr, (shell, ending, done)
            assert (status_of(site, name) or {})["state"] == ending
