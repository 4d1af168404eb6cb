"""What a receiver takes, asked of a bundle before its content is read."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from spoold import errors
from spoold.actions.context import ActionSettings, Context, Quotas
from spoold.actions.rehydrate import run
from spoold.errors import Code, Ending, SpooldError
from spoold.trust import Trust
from tests.bundles import Document, Forge, signer, trusted

A, B = signer("site-a"), signer("site-b")


def edited(**fields: Any) -> Any:
    return lambda manifest: {**manifest, **fields}


def restored(
    folder: Path, data: bytes, settings: ActionSettings, keys: Trust | None = None
) -> Document:
    """Restore a bundle as a job of site-b would."""
    drop = folder / "demo.tar.zst"
    drop.write_bytes(data)
    scratch = folder / "scratch"
    scratch.mkdir()
    outcome = run(
        Context(
            request=None,
            request_sha256=None,
            digits="0" * 12,
            drop=drop,
            scratch=scratch,
            settings=settings,
            signer=B,
            trust=keys or trusted(A, B),
            report=lambda progress: None,
            take_key=lambda key, content: None,
        )
    )
    return dict(outcome.result)


def refusal(folder: Path, data: bytes, **settings: Any) -> Code:
    """The code of the refusal, which comes when nothing has been written yet."""
    with pytest.raises(SpooldError) as caught:
        restored(folder, data, ActionSettings(**settings))
    assert os.listdir(folder / "scratch") == []
    return caught.value.code


def test_a_bundle_within_all_limits_is_restored(tmp_path: Path) -> None:
    settings = ActionSettings(quotas=Quotas(100_000, 5, 2, 100))
    found = restored(tmp_path, Forge.good(edit_manifest=edited(to=["site-b"])).build(), settings)
    assert (found["from"], found["entries"]) == ("site-a", 5)


@pytest.mark.parametrize(
    "quotas",
    [Quotas(max_bytes=1000), Quotas(max_entries=4), Quotas(max_depth=1), Quotas(max_expansion=1)],
)
def test_h89_a_bundle_beyond_a_quota_is_refused_for_good(quotas: Quotas, tmp_path: Path) -> None:
    code = refusal(tmp_path, Forge.good().build(), quotas=quotas)
    assert code is errors.QUOTA_EXCEEDED
    assert (code.transient, code.state) == (False, Ending.REJECTED)


def test_h89_a_full_disk_may_pass(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    all_of_it = disk.f_blocks * disk.f_frsize  # what is free just now, others change meanwhile
    code = refusal(tmp_path, Forge.good().build(), min_free_bytes=all_of_it)
    assert code is errors.NO_SPACE
    assert (code.transient, code.state) == (True, Ending.FAILED)


def test_h29_a_bundle_for_other_sites_is_refused(tmp_path: Path) -> None:
    data = Forge.good(edit_manifest=edited(to=["site-c", "site-d"])).build()
    assert refusal(tmp_path, data) is errors.NOT_ADDRESSED


def test_h30_a_bundle_whose_time_has_passed_is_refused(tmp_path: Path) -> None:
    data = Forge.good(edit_manifest=edited(not_after="2020-01-01T00:00:00Z")).build()
    assert refusal(tmp_path, data) is errors.EXPIRED


def test_h12_a_bundle_that_too_few_have_signed_is_refused(tmp_path: Path) -> None:
    code = refusal(tmp_path, Forge.good().build(), threshold=2)
    assert code is errors.THRESHOLD_NOT_MET
    assert (code.transient, code.state) == (False, Ending.REJECTED)


def further(*by: Any) -> Any:
    """The head with further signatures, sorted as they must be."""

    def add(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        content = members[0][1]
        signed = sorted((f"signatures/{one.key_id}.sig", one.sign(content)) for one in by)
        return [*members[:2], *signed, *members[2:]]

    return add


@pytest.mark.parametrize(
    ("case", "change", "said"),
    [
        ("H05", {"revoked": True}, "of site-b is revoked"),
        ("H04", {"roles": frozenset()}, "of site-b may not sign bundles"),
        ("H12", None, "counts once"),
        ("H03", "unknown", "is not trusted here"),
    ],
)
def test_h03_h04_h05_h12_signatures_that_do_not_count_are_named(
    case: str, change: Any, said: str, tmp_path: Path
) -> None:
    other = dataclasses.replace(B.trusted(), **(change if isinstance(change, dict) else {}))
    keys = Trust([A.trusted()] if change == "unknown" else [A.trusted(), other])
    data = Forge.good(edit_head=further(A if change is None else B)).build()
    with pytest.raises(SpooldError) as caught:
        restored(tmp_path, data, ActionSettings(threshold=2), keys)
    assert caught.value.code is errors.THRESHOLD_NOT_MET, case
    assert said in caught.value.message
    assert f"signed by site-a ({A.key_id[:16]}): 1 more" in caught.value.message
