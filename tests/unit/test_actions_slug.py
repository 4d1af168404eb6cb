import pytest

from spoold.actions.bundle import slug


@pytest.mark.parametrize(
    "name",
    ["tagmanifest", "tagmanifest-", "a tagmanifest", "Tagmanifest-x", "x" * 69 + "tagmanifest-y"],
)
def test_a_bundle_id_never_looks_like_a_tag_manifest(name: str) -> None:
    assert "tagmanifest-" not in f"{slug(name)}-0123456789ab"
