import os

import pytest

from spoold.intake.inbox import Listing
from spoold.intake.names import NameKind, classify
from spoold.status import status_name, suffixed_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"request-demo.json", NameKind.REQUEST),
        (b"request-.json", NameKind.REQUEST),
        (b"request-\xff\xfe\n.json", NameKind.REQUEST),
        (b"request-" + b"x" * 242 + b".json", NameKind.REQUEST),
        (b"demo.tar.zst", NameKind.BUNDLE),
        (b"-rf.tar.gz", NameKind.BUNDLE),
        ("größe \U0001f600.tar.zst".encode(), NameKind.BUNDLE),
        (b"demo.tar", NameKind.FOREIGN),
        (b"Request-demo.json", NameKind.FOREIGN),
        (b"request.json", NameKind.FOREIGN),
        (b"readme.txt", NameKind.FOREIGN),
    ],
)
def test_a_name_says_whether_it_is_a_drop(name: bytes, kind: NameKind) -> None:
    assert classify(name) is kind


@pytest.mark.parametrize(
    "name",
    [
        b".hidden",
        b".sftpgo-upload.x.case.tar.zst",
        b"request-a.json.part",
        b"request-a.json.partial",
        b"x.tar.zst.filepart",
        b"x.tar.zst.tmp",
        b".request-a.json.swp",
        b"x.tar.zst.crdownload",
        b"request-a.json~",
    ],
)
def test_e19_an_unfinished_name_is_no_drop(name: bytes) -> None:
    assert classify(name) is NameKind.UNFINISHED


@pytest.mark.parametrize(
    "name",
    [
        b"request-x.json.status.json",
        b"request-x.status.json",
        b"x.log",
        b"request-x~0123456789ab.json",
        b"x~0123456789ab.tar.zst",
        b"x~0123456789ab.tar.gz",
        suffixed_name(b"request-x.json", "0123456789ab"),
        status_name(b"request-x.json"),
    ],
)
def test_e35_a_name_that_could_pass_for_an_answer_is_reserved(name: bytes) -> None:
    assert classify(name) is NameKind.RESERVED


@pytest.mark.parametrize(
    "name", [b"request-x~0123456789.json", b"request-x~0123456789AB.json", b"request-a~b.json"]
)
def test_a_tilde_alone_reserves_nothing(name: bytes) -> None:
    assert classify(name) is NameKind.REQUEST


def test_e16_e17_e19_a_listing_sorts_files_links_strays_and_unfinished(tmp_path: object) -> None:
    folder = os.fsencode(str(tmp_path))
    for name in (b"request-a.json", b"b.tar.zst", b"request-\xff.json", b"c.part", b"notes.txt"):
        with open(os.path.join(folder, name), "wb"):
            pass
    os.mkfifo(os.path.join(folder, b"request-fifo.json"))
    os.mkdir(os.path.join(folder, b"request-folder.json"))
    os.symlink(b"/nowhere", os.path.join(folder, b"request-link.json"))
    listing = Listing(folder)
    assert {(found.name, found.link) for batch in listing.batches(2) for found in batch} == {
        (b"request-a.json", False),
        (b"b.tar.zst", False),
        (b"request-\xff.json", False),
        (b"request-link.json", True),
    }
    strays = {b"request-fifo.json", b"request-folder.json", b"notes.txt"}
    assert set(listing.stray_names) == strays
    assert (listing.drops, listing.strays) == (4, 3)
    assert listing.unfinished == 1
