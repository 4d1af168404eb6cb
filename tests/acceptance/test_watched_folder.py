"""What went wrong in another program that watches a folder, done to a daemon: none of it happens.

One daemon serves most of these tests, as it would its droppers: what one test drops must not
disturb the next. The docstrings say what went wrong there.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD, Mask

from spoold.bundle.frames import END_FRAME, Codec
from spoold.status import status_name
from tests.conftest import wait_until
from tests.sites import Site, make_evidence, request, sites_in, spoold, trust

MakeSite = Callable[..., Site]


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    databases: Callable[[], AbstractContextManager[str]],
) -> Iterator[Site]:
    """One site and its daemon, for all of these."""
    folder = tmp_path_factory.mktemp("watched")
    with sites_in(folder, databases) as make:
        site = make(roots={"evidence": make_evidence(folder / "evidence")})
        trust(site, site)
        site.start()
        yield site


def fine(site: Site, drop: str, **fields: Any) -> dict[str, Any]:
    """Drop a request that can be done, and see it done."""
    site.drop(drop, request(**fields))
    status = site.final(drop)
    assert status["state"] == "succeeded", status
    return status


def jobs(site: Site, prefix: str) -> list[dict[str, Any]]:
    """The jobs of drops whose names begin so."""
    said = spoold("jobs", "--json", "--limit", "1000", "--spool", site.root).stdout
    found: list[dict[str, Any]] = json.loads(said)["jobs"]
    return [job for job in found if job["drop"].startswith(prefix)]


def test_bad_files_stop_no_worker(site: Site) -> None:
    """Two bad files stopped both workers for ever."""
    bad: dict[str, bytes | dict[str, Any]] = {
        "request-bad-1.json": b"{",
        "request-bad-2.json": b"\xff" * 100,
        "request-bad-3.json": request("nowhere", max_attempts=1),
        "request-bad-4.json": request(timeout="1s", sources=[]),
        "bad-5.tar.zst": b"nothing of a bundle",
        "bad-6.tar.zst": b"x" + END_FRAME[Codec.ZSTD],
        "bad-7.tar.gz": b"",
    }
    for name, content in bad.items():
        site.drop(name, content)
    (site.inbox / "request-bad-8.json").symlink_to("/etc/passwd")
    with open(site.inbox / "request-bad-9.json", "wb") as file:
        file.truncate(2**40)
    codes = {"request-bad-8.json": "drop-symlink", "request-bad-9.json": "request-too-large"}
    for name in [*bad, *codes]:
        status = site.final(name)
        assert status["state"] in {"failed", "rejected"}, status
        assert status["error"]["hint"]
        assert codes.get(name) in {None, status["error"]["code"]}
        assert os.path.lexists(site.root / "failed" / name)
    site.verified("request-bad-1.json")
    for number in range(3):
        fine(site, f"request-after-bad-{number}.json")


def test_what_is_no_file_freezes_nothing(site: Site) -> None:
    """A FIFO froze it."""
    os.mkfifo(site.inbox / "request-fifo.json")
    os.mkfifo(site.inbox / "fifo.tar.zst")
    (site.inbox / "request-folder.json").mkdir()
    fine(site, "request-after-fifo.json")
    assert (site.inbox / "request-fifo.json").is_fifo()
    assert not site.status_path("request-fifo.json").exists()
    said = spoold("doctor", site.root, environment=site.environment).stdout
    assert "request-fifo.json: no regular file" in said
    for name in ("request-fifo.json", "fifo.tar.zst"):
        (site.inbox / name).unlink()
    (site.inbox / "request-folder.json").rmdir()


def test_e11_two_instances_do_each_file_once(site: Site) -> None:
    """Two instances ran 5 files 10 times."""
    second = site.start()
    wait_until(lambda: "intake.standing_by" in site.log, 30)
    names = [f"request-twice-{number}.json" for number in range(5)]
    for name in names:
        site.drop(name, request(name=name.removesuffix(".json")))
    bundles = {site.final(name)["result"]["bundle"] for name in names}
    assert len(bundles) == len(jobs(site, "request-twice-")) == 5
    assert len(list((site.root / "processed").glob("request-twice-*.tar.zst"))) == 5
    assert site.stop(second) == 0


def test_e01_a_slow_writers_file_is_not_taken_half_written(site: Site) -> None:
    """A slow writer's file was taken half-written."""
    content = b"{" + b" " * 2000 + json.dumps(request()).encode()[1:]
    with open(site.inbox / "request-slow.json", "wb", buffering=0) as writer:
        for start in range(0, len(content), 100):
            writer.write(content[start : start + 100])
            time.sleep(0.1)  # what is tested is a writer that takes longer than `settle_seconds`
        wait_until(site.status_path("request-slow.json").exists)
        waiting = json.loads(site.status_path("request-slow.json").read_bytes())
        assert (waiting["state"], waiting["reason"]) == ("waiting", "writer-open")
    assert site.final("request-slow.json")["state"] == "succeeded"
    assert (site.root / "processed/request-slow.json").read_bytes() == content


def test_a_duplicate_is_answered(site: Site) -> None:
    """A duplicate stayed without an answer."""
    first = fine(site, "request-first.json", idempotency_key="once")
    site.drop("request-second.json", request(idempotency_key="once"))
    second = site.final("request-second.json")
    assert second["state"] == "duplicate"
    assert second["result"]["duplicate_of"] == first["job_id"]
    assert second["result"]["stands"] == first["files"]["bundle"]
    site.verified("request-second.json")


def test_e14_failed_drops_of_one_name_are_all_kept(site: Site) -> None:
    """Three failed drops of one name left two files."""
    contents = [b'{"number": %d}' % number for number in range(3)]
    answers = []
    for content in contents:
        site.drop("request-again.json", content)
        answer = site.final("request-again.json")
        while answers and answer["job_id"] == answers[-1]["job_id"]:
            answer = site.final("request-again.json")
        answers.append(answer)
    kept = [site.root / answer["files"]["drop"] for answer in answers]
    assert [path.read_bytes() for path in kept] == contents
    for path, answer in zip(kept, answers, strict=True):
        beside = path.with_name(f"{path.name}.status.json")
        assert json.loads(beside.read_bytes()) == answer


def test_every_answer_is_signed_and_a_forged_one_is_found(site: Site) -> None:
    """Its status files were said to be signed, and were not."""
    fine(site, "request-signed.json")
    site.verified("request-signed.json")
    path = site.status_path("request-signed.json")
    forged = path.read_bytes().replace(b'"state":"succeeded"', b'"state":"cancelled"')
    path.unlink()  # which is a link to what stands in processed/
    path.write_bytes(forged)
    said = spoold("status", "request-signed.json", "--verify", "--spool", site.root, check=False)
    assert said.returncode == 6
    assert "changed after signing" in said.stdout + said.stderr


def test_e20_a_drops_name_leads_nowhere(site: Site) -> None:
    """Names were put into paths and commands."""
    names = [
        b"request-..%2f..%2fescape.json",
        b"request-\\..\\..\\escape.json",
        b"request-$(touch escape).json",
        b"request-; touch escape;.json",
        b"request-\n..\n.json",
        b"request-\xff\xfe.json",
        b"request-" + b"x" * 242 + b".json",
        b"-rf --no-preserve-root.tar.zst",
    ]
    before = set(site.root.parent.iterdir())
    for name in names:
        site.drop(name, request())
    for name in names:
        answer = site.root / "status" / os.fsdecode(status_name(name))
        wait_until(lambda answer=answer: answer.exists() and is_final(answer), 60)
        folder = "failed" if name.endswith(b".zst") else "processed"
        published = (site.root / folder / os.fsdecode(name)).read_bytes()
        assert published == json.dumps(request()).encode()
    assert set(site.root.parent.iterdir()) == before


def is_final(path: Path) -> bool:
    final: bool = json.loads(path.read_bytes())["final"]
    return final


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../../escape"},
        {"name": "/etc/escape"},
        {"sources": [{"kind": "files", "root": "evidence", "path": "../.."}]},
        {"sources": [{"kind": "files", "root": "evidence", "path": "/etc"}]},
        {"sources": [{"kind": "files", "root": "../evidence", "path": "x"}]},
        {"sources": [{"kind": "files", "root": "evidence", "path": ".", "into": "../x"}]},
    ],
)
def test_what_a_request_names_leads_nowhere(site: Site, change: dict[str, Any]) -> None:
    """Paths in a request were followed."""
    before = set(site.root.parent.iterdir())
    site.drop("request-escape.json", request(**change))
    status = site.final("request-escape.json")
    while status["job_id"] in _seen:
        status = site.final("request-escape.json")
    _seen.add(status["job_id"])
    assert set(site.root.parent.iterdir()) == before
    if status["state"] == "succeeded":  # a name is a label; what is made of it is a slug
        assert (site.root / "processed" / Path(status["result"]["bundle"]).name).exists()
    else:
        assert status["error"]["code"] in {"request-invalid", "path-outside-root", "root-unknown"}


_seen: set[str] = set()


def test_e35_no_drop_passes_for_an_answer(site: Site) -> None:
    """Whoever could drop could answer."""
    forged = ["request-x.json.status.json", "request-x.log", "request-x~0123456789ab.json"]
    for name in forged:
        site.drop(name, b'{"final":true,"state":"succeeded"}')
    fine(site, "request-after-forged.json")
    for name in forged:
        assert (site.inbox / name).exists()
        assert not (site.root / "status" / name).exists()
        assert not site.status_path(name).exists()
        (site.inbox / name).unlink()


def test_e18_who_keeps_another_name_of_a_drop_changes_nothing_of_what_is_published(
    site: Site, tmp_path: Path
) -> None:
    """Not one of theirs: a hard link to what was verified could change it afterwards."""
    bundle = site.root / fine(site, "request-for-link.json", name="linked")["files"]["bundle"]
    content = bundle.read_bytes()
    mine = site.root.parent / "mine"
    for name, kept in (("broken.tar.zst", content[:-1] + b"x"), ("linked.tar.zst", content)):
        mine.write_bytes(kept)
        os.link(mine, site.inbox / name)
        status = site.final(name)
        published = site.root / status["files"]["drop"]
        assert not published.samefile(mine)
        mine.write_bytes(b"something else")
        assert published.read_bytes() == kept
        mine.unlink()
    assert site.final("linked.tar.zst")["state"] == "succeeded"
    assert site.final("broken.tar.zst")["state"] == "rejected"


def test_e18_another_name_of_a_huge_drop_is_no_reason_to_copy_it(site: Site) -> None:
    """Not one of theirs: a drop is copied once it has verified, and this one does not."""
    mine = site.root.parent / "huge"
    mine.touch()
    os.truncate(mine, 1_000_000_000_000)
    os.link(mine, site.inbox / "huge.tar.zst")
    status = site.final("huge.tar.zst")
    assert (status["state"], status["error"]["code"]) == ("rejected", "not-a-bundle")
    assert (site.root / status["files"]["drop"]).stat().st_blocks == 0


def test_e33_nothing_lists_the_folders_of_finished_jobs(site: Site) -> None:
    """With many files there, each event listed them all."""
    listed: list[bytes] = []

    class Watching:
        def on_event(self, event: Any) -> None:
            listed.append(folders[event.wd])

        def on_watch_deleted(self, wd: Any) -> None: ...

        def on_queue_overflow(self) -> None: ...

    reader = InotifyFD()
    reader.start()
    mask = Mask(InotifyConstants.IN_ACCESS | InotifyConstants.IN_ONLYDIR)
    callback, names = Watching(), (b"processed", b"failed", b"status")
    folders = {
        reader.add_callback(
            os.fsencode(site.root) + b"/" + name, mask, callback, CallbackId(number)
        ): name
        for number, name in enumerate(names)
    }
    fine(site, "request-unlisted.json")
    site.drop("request-unlisted-bad.json", b"{")
    site.final("request-unlisted-bad.json")
    assert [name for name in listed if name in {b"processed", b"failed"}] == []
    list((site.root / "processed").iterdir())
    wait_until(lambda: b"processed" in listed)  # the test would have seen it
    reader.stop()
    reader.join()


def test_what_was_done_is_known_after_kill_and_restart(make_site: MakeSite, evidence: Path) -> None:
    """What it knew was lost at a restart: files were done again, or never."""
    site = make_site(roots={"evidence": evidence})
    daemon = site.start()
    first = fine(site, "request-first.json", idempotency_key="once")
    os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait()
    site.daemons.remove(daemon)
    site.drop("request-second.json", request(idempotency_key="once"))
    site.drop("request-meanwhile.json", request())
    site.start()
    assert site.final("request-second.json")["result"]["duplicate_of"] == first["job_id"]
    assert site.final("request-meanwhile.json")["state"] == "succeeded"
    assert len(jobs(site, "request-")) == 3


def test_a_flood_is_slowed_down_and_nothing_of_it_is_lost(
    make_site: MakeSite, evidence: Path
) -> None:
    """Above its rate limit it threw files away."""
    site = make_site(roots={"evidence": evidence}, intake_max_drops_per_minute=120)
    site.start()
    names = [f"request-flood-{number}.json" for number in range(130)]
    for name in names:
        site.drop(name, request("incident-123/logs"))

    def held_back() -> bool:
        texts = [site.status_path(name).read_bytes() for name in names if _has_status(site, name)]
        return any(b'"reason":"rate"' in text for text in texts)

    wait_until(held_back, 60)
    for name in names:
        assert site.final(name)["state"] == "succeeded"


def _has_status(site: Site, name: str) -> bool:
    return site.status_path(name).exists()
