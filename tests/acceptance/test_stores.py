"""A bundle by way of an object store: one site puts it there, another restores a part of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sites import Site, request, trust
from tests.stores import Bucket

MakeSite = Callable[..., Site]


@pytest.fixture
def store(swift_bucket: Bucket) -> str:
    """The section of the configuration."""
    settings = swift_bucket.settings(prefix="bundles")
    keys = settings.model_dump(mode="json", exclude_unset=True)
    lines = (f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return "\n[stores.vault]\n" + "\n".join(lines) + "\n"


def test_a_bundle_goes_from_site_to_site_by_a_store(
    make_site: MakeSite, evidence: Path, store: str, swift_bucket: Bucket
) -> None:
    sender = make_site(roots={"evidence": evidence})
    receiver = make_site("site-b")
    trust(receiver, sender)
    for site in (sender, receiver):
        with open(site.root / "spoold.toml", "a") as file:
            file.write(store)
    sender.drop("request-demo.json", request(store="vault"))
    assert sender.run_once() == 0
    done = sender.final("request-demo.json")
    assert done["state"] == "succeeded", done
    name = done["result"]["bundle"]
    assert done["result"]["store"]["key"] == f"bundles/{name}"
    published = (sender.root / "processed" / name).read_bytes()
    assert swift_bucket.get(f"bundles/{name}") == published

    fetch = {
        "type": "spoold.request/1",
        "action": "rehydrate",
        "bundle": {"store": "vault", "path": name},
    }
    receiver.drop("request-part.json", {**fetch, "only": ["notes.txt"]})
    receiver.drop("request-whole.json", fetch)
    receiver.drop("request-none.json", {**fetch, "bundle": {"store": "vault", "path": "none"}})
    assert receiver.run_once() == 1  # one of them fails
    part = receiver.final("request-part.json")
    assert (part["state"], part["result"]["entries"]) == ("succeeded", 1), part
    tree = receiver.root / part["result"]["restored"]
    assert [path.name for path in tree.iterdir()] == ["notes.txt"]
    whole = receiver.final("request-whole.json")
    assert whole["result"]["restored"] == f"restored/site-a/{name.removesuffix('.tar.zst')}"
    assert (receiver.root / whole["result"]["restored"] / "logs" / "auth.log").exists()
    none = receiver.final("request-none.json")
    assert (none["state"], none["error"]["code"]) == ("failed", "source-missing")
    for site in (sender, receiver):
        assert site.leftovers() == []
        everything = "".join(path.read_text() for path in site.root.glob("status/*.json"))
        assert swift_bucket.server.secret_key not in everything + site.log
