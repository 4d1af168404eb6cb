"""The story, step by step; each step says what came of it, and every claim is compared."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.incident import api
from tests.incident.databases import alerts, database
from tests.sites import Site, Status, sites_in, spoold, trust

HERE: Final = Path(__file__).parent
REQUEST: Final = HERE / "request-inc-7.json"
EVIDENCE: Final = {
    "notes.txt": b"what happened\n",
    "host-7/auth.log": b"login failed\n" * 10_000,
    "host-7/sample.exe": api.ARTIFACTS["sample.exe"],  # which the API has, too
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """Two sites whose daemons run, each with its database's address."""

    first: Site
    second: Site
    source: str
    target: str

    @property
    def store(self) -> Path:
        """Site-b's store of artifacts."""
        return self.second.root.parent / "artifacts"


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """The API, two sites with their configuration and databases, and their daemons."""
    for path, content in EVIDENCE.items():
        file = folder / "evidence" / "INC-7" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (folder / "artifacts").mkdir()
    with ExitStack() as stack:
        stack.enter_context(api.serving())
        make = stack.enter_context(sites_in(folder))
        sites, addresses = [], []
        for name in ("site-a", "site-b"):
            site = make(name)
            shutil.copyfile(HERE / f"{name}.toml", site.root / "spoold.toml")
            addresses.append(stack.enter_context(database(site.root, HERE / f"{name}.sql")))
            sites.append(site)
        first, second = sites
        token = first.root / "cases.token"
        token.touch(mode=0o600)
        token.write_text(api.TOKEN + "\n")
        trust(second, first)
        for site in sites:
            site.start()
        yield Stage(first, second, *addresses)


def tell(folder: Path, say: Say) -> None:
    """The whole story. Raises AssertionError where something did not hold."""
    with stage(folder) as found:
        ours = alerts(found.source, "incident_id = 'INC-7'")
        say(f"site-a: {len(ours)} alerts in its database, {api.EVENTS} events and "
            f"{len(api.ARTIFACTS)} artifacts at the API, {len(EVIDENCE)} files")  # fmt: skip
        bundle = gather(found, say)
        result = carry(found, bundle, say)["result"]
        assert result["rows"] == {"inserted": len(ours), "skipped": 0, "conflicting": 0}
        compare(found, result, say)
        again(found, bundle, say)
        forgotten(found, bundle, say)
        say("all of it held")


def gather(found: Stage, say: Say) -> Path:
    """Three lines dropped at site-a become one signed bundle."""
    site, name = found.first, REQUEST.name
    say(f"\n{name} dropped at site-a:\n{REQUEST.read_text().rstrip()}")
    say(spoold("check", REQUEST, "--spool", site.root).stdout.partition(": ")[2].rstrip())
    status = drop(site, name, REQUEST)
    assert status["state"] == "succeeded", status
    bundle = site.root / status["files"]["bundle"]
    result = status["result"]
    say(f"{status['state']}: {result['bundle']}, {result['entries']} entries, "
        f"{result['bytes']} bytes")  # fmt: skip
    return bundle


def carry(found: Stage, bundle: Path, say: Say) -> Status:
    """The bundle goes to site-b, as any file would."""
    status = drop(found.second, bundle.name, bundle)
    say(f"\n{bundle.name} dropped at site-b:\n{status['state']}")
    for sink in (status.get("result") or {}).get("sinks", []):
        counts = {key: value for key, value in sink.items() if key not in {"name", "kind"}}
        say(f"  {sink['name']}: {json.dumps(counts)}")
    return status


def compare(found: Stage, result: dict[str, Any], say: Say) -> None:
    """What site-b has now is what site-a has."""
    assert alerts(found.target) == alerts(found.source, "incident_id = 'INC-7'")
    say("every alert is equal, value by value")
    kept = {
        path.parent.name + path.name: path
        for path in (found.store / "sha256").rglob("*")
        if path.is_file()
    }
    wanted = {hashlib.sha256(content).hexdigest() for content in contents()} | {
        hashlib.sha256(line_file(found, result)).hexdigest()
    }
    assert set(kept) == wanted
    for digest, path in kept.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    say(f"every artifact is there, each content once: {len(kept)} files")
    timeline = found.second.root / result["restored"] / "timeline.jsonl"
    assert [json.loads(line) for line in timeline.read_bytes().splitlines()] == api.events()
    say(f"the timeline is {timeline.relative_to(found.second.root)}: {api.EVENTS} events")


def again(found: Stage, bundle: Path, say: Say) -> None:
    """Carried twice, done once."""
    before = alerts(found.target)
    status = carry(found, bundle, say)
    assert status["state"] == "duplicate", status
    assert alerts(found.target) == before


def forgotten(found: Stage, bundle: Path, say: Say) -> None:
    """Even where it is restored once more on purpose, nothing comes twice."""
    before = alerts(found.target)
    restored = found.second.root / "restored" / "site-a" / bundle.name.removesuffix(".tar.zst")
    restored.rename(found.second.root.parent / "restored-before")
    spoold("forget", bundle, "--spool", found.second.root)
    say(f"\n{restored.relative_to(found.second.root)} moved away; spoold forget {bundle.name}")
    status = carry(found, bundle, say)
    assert status["state"] == "succeeded", status
    result = status["result"]
    assert result["rows"] == {"inserted": 0, "skipped": len(before), "conflicting": 0}, result
    [files] = [sink["files"] for sink in result["sinks"] if sink["kind"] == "files"]
    assert files["stored"] == 0
    assert alerts(found.target) == before


def drop(site: Site, name: str, content: Path) -> Status:
    """Drop a file; the final status, signed by the site, of the job that comes of it."""
    path = site.status_path(name)
    before = json.loads(path.read_bytes())["job_id"] if path.exists() else None
    site.drop(name, content)
    status = site.final(name) if before is None else site.final_after(name, before)
    site.verified(name)
    return status


def contents() -> Iterator[bytes]:
    """What is to be in the store, besides the list of the API's artifacts."""
    yield from api.ARTIFACTS.values()
    yield from EVIDENCE.values()


def line_file(found: Stage, result: dict[str, Any]) -> bytes:
    """That list, which the http source adds to the files."""
    folder = found.second.root / result["restored"] / "artifacts"
    return (folder / "artifacts.jsonl").read_bytes()
