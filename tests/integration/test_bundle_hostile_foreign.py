"""What others make is no bundle: archives, streams, bags, JSON. It is refused, and makes no file.

Every archive is made here; tarfile and zipfile are for making them only.
"""

import gzip
import io
import json
import lzma
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bagit
import pytest
import zstandard

from spoold import canonical
from spoold.actions.bundle import BundleRequest
from spoold.actions.rehydrate import RehydrateRequest
from spoold.bundle import lines, manifest_parser
from spoold.bundle.frames import Codec
from spoold.bundle.reader import Policy, inspect
from spoold.errors import SpooldError
from spoold.intake import request
from spoold.trust import public_pem
from tests.bundles import (
    BUNDLE_ID,
    Forge,
    restore,
    signer,
    stored_frame,
    tar_header,
    trusted,
    zstd_frame,
)
from tests.bundles import canonical as canonical_bytes
from tests.hostile import CASES

CODES = {case.code for case in CASES}
MODELS = {"bundle": BundleRequest, "rehydrate": RehydrateRequest}


# --- archives -------------------------------------------------------------------------------------


def _tar(form: int, **options: object) -> bytes:
    """A tar with most kinds of members."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form, **options) as archive:  # type: ignore[call-overload]
        for name, content in (("a.txt", b"alpha"), ("x" * 90 + "/" + "y" * 90, b"beta" * 1000)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mtime = 1_700_000_000
            archive.addfile(member, io.BytesIO(content))
        for kind, link in (
            (tarfile.SYMTYPE, "../../etc/passwd"),
            (tarfile.LNKTYPE, "a.txt"),
            (tarfile.DIRTYPE, ""),
            (tarfile.FIFOTYPE, ""),
            (tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(f"kind-{kind.decode()}")
            member.type, member.linkname = kind, link
            archive.addfile(member)
    return target.getvalue()


def _long_names(form: int) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        member = tarfile.TarInfo("../" * 100 + "etc/passwd")
        member.pax_headers = {"comment": "\u00e4" * 300}
        archive.addfile(member)
    return target.getvalue()


def _named_like_ours() -> bytes:
    """A tar whose members are a bundle's, but that no spoold wrote."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("manifest.json", "manifest.sig", "bagit.txt", "data/a.txt"):
            member = tarfile.TarInfo(f"{BUNDLE_ID}/{name}")
            member.size = 2
            archive.addfile(member, io.BytesIO(b"{}"))
    return target.getvalue()


def _sparse(tmp_path: Path, *options: str) -> bytes:
    (tmp_path / "sparse").write_bytes(b"x")
    with open(tmp_path / "sparse", "r+b") as file:
        file.truncate(10_000_000)
    done = subprocess.run(
        ["tar", *options, "-cSf", "-", "-C", str(tmp_path), "sparse"],
        capture_output=True,
        check=True,
    )
    return done.stdout


def _bag(tmp_path: Path) -> bytes:
    folder = tmp_path / BUNDLE_ID
    folder.mkdir()
    (folder / "a.txt").write_text("alpha")
    bagit.make_bag(str(folder), checksums=["sha256"])
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, f"{BUNDLE_ID}/{path.relative_to(folder)}", recursive=False)
    return target.getvalue()


def _zip() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{BUNDLE_ID}/manifest.json", "{}")
        archive.writestr("../escaped", "x")
    return target.getvalue()


def _dictionary(raw: bytes) -> bytes:
    samples = [b"%06d alpha beta gamma %06d" % (n, n * 7) for n in range(2000)]
    trained = zstandard.train_dictionary(4096, samples)
    return zstandard.ZstdCompressor(dict_data=trained).compress(raw)


def _magicless(raw: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


SKIPPABLE = [bytes([0x50 + n]) + b"\x2a\x4d\x18\x04\0\0\0abcd" for n in range(16)]
PACKED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("as it is", lambda raw: raw),
    ("zstd", zstd_frame),
    ("zstd, no checksum", lambda raw: zstd_frame(raw, write_checksum=False)),
    ("zstd, no size", lambda raw: zstd_frame(raw, write_content_size=False)),
    ("zstd, level 22", lambda raw: zstd_frame(raw, level=22)),
    ("zstd, concatenated", lambda raw: zstd_frame(raw[:700]) + zstd_frame(raw[700:])),
    ("zstd, skippable frames", lambda raw: b"".join(SKIPPABLE) + zstd_frame(raw) + SKIPPABLE[3]),
    ("zstd, with a dictionary", _dictionary),
    ("zstd, without a magic", _magicless),
    ("zstd, stored", lambda raw: _stored(raw, Codec.ZSTD)),
    ("gzip", gzip.compress),
    ("gzip, no time", lambda raw: gzip.compress(raw, mtime=0)),
    ("gzip, concatenated", lambda raw: gzip.compress(raw[:700]) + gzip.compress(raw[700:])),
    ("gzip, stored", lambda raw: _stored(raw, Codec.GZIP)),
    ("gzip, level 0", lambda raw: gzip.compress(raw, 0, mtime=0)),
    ("xz", lzma.compress),
    ("lzma", lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE)),
]


def _stored(raw: bytes, codec: Codec) -> bytes:
    return stored_frame(codec, raw[:60_000])


def _archives(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    for name, form in (
        ("ustar", tarfile.USTAR_FORMAT),
        ("GNU", tarfile.GNU_FORMAT),
        ("pax", tarfile.PAX_FORMAT),
    ):
        yield name, _tar(form)
    yield "GNU, long names", _long_names(tarfile.GNU_FORMAT)
    yield "pax, long names", _long_names(tarfile.PAX_FORMAT)
    yield (
        "v7",
        b"".join(
            tar_header(name, 0, at_257=bytes(8))
            for name in (b"a", f"{BUNDLE_ID}/manifest.json".encode())
        )
        + bytes(1024),
    )
    yield "a global pax header", _tar(tarfile.PAX_FORMAT, pax_headers={"comment": "x"})
    yield "GNU sparse", _sparse(tmp_path, "--format=gnu")
    yield "pax sparse", _sparse(tmp_path, "--format=pax")
    yield "old sparse", _sparse(tmp_path, "--format=oldgnu")
    yield "named like a bundle", _named_like_ours()
    yield "a bag", _bag(tmp_path)
    yield "zip", _zip()
    yield "nothing but zeros", bytes(10240)
    yield "JSON", b'{"type":"spoold.manifest/1"}\n'
    yield "text", b"hello\n" * 100


def _refused(data: bytes, folder: Path, what: str) -> None:
    """Neither `restore` nor `inspect` knows it, and no file comes of it."""
    with pytest.raises(SpooldError) as refused:
        restore(io.BytesIO(data), folder / "restored", trusted(), Policy())
    assert refused.value.code.name in CODES, what
    with pytest.raises(SpooldError):
        inspect(io.BytesIO(data)).claims()
    assert not list(folder.iterdir()), what


def test_archives_of_others_are_no_bundles(tmp_path: Path) -> None:
    (folder := tmp_path / "store").mkdir()
    archives = list(_archives(tmp_path))
    assert len(archives) * len(PACKED) > 250
    for name, raw in archives:
        for how, pack in PACKED:
            _refused(pack(raw), folder, f"{name}, {how}")


def test_random_bytes_are_no_bundles(tmp_path: Path) -> None:
    randomly = random.Random(1)
    starts = [b"", bytes.fromhex("28b52ffda0"), bytes.fromhex("1f8b08000000000000ff")]
    starts += [start + bytes(randomly.randbytes(4)) for start in starts[1:]]
    starts.append(Forge.good().build()[:600])
    for length in [*range(40), 512, 513, 1024, 5000, 200_000]:
        for start in starts:
            _refused(start + randomly.randbytes(length), tmp_path, f"{start.hex()} and {length}")


def test_the_program_says_so_without_a_traceback(tmp_path: Path) -> None:
    key = tmp_path / "site-a.pub"
    key.write_bytes(public_pem(signer().private.public_key()))
    files = {
        "a.tar.zst": (zstd_frame(_named_like_ours()), 4),
        "b.tar.gz": (gzip.compress(_tar(tarfile.PAX_FORMAT)), 4),
        "c.tar.zst": (b"", 4),
        "d.tar.zst": (Forge.good().build()[:-1], 6),
        "e.tar.zst": (Forge.good(by=signer("site-b")).build(), 3),
    }
    before = set(files) | {key.name}
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    for name, (_, status) in files.items():
        for command in (["verify", name], ["restore", name, "--to", "restored"]):
            done = subprocess.run(
                [sys.executable, "-m", "spoold", *command, "--key", key, "--site", "site-a"],
                cwd=tmp_path,
                env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == status, (name, command, done.stderr)
            assert "Traceback" not in done.stderr + done.stdout
            assert {path.name for path in tmp_path.iterdir()} == before


# --- JSON -----------------------------------------------------------------------------------------


def _texts() -> Iterator[bytes]:
    """Small nasty JSON texts, good and bad; none is a manifest, a request or an entry."""
    scalars = [
        "0", "-0", "1", "-1", "00", "01", "-01", "+1", "1.", ".1", "1.0", "-1.5", "1e1", "1E+2",
        "1e-1", "1e", "1e+", "0x10", "1_000", "\u0663", "\uff11", "1e400", "-1e400", "true",
        "false", "null", "True", "TRUE", "nul", "tru", "nulll", "NaN", "nan", "Infinity",
        "-Infinity",
        *(str(2**power + step) for power in (31, 32, 53, 63, 64, 128) for step in (-1, 0, 1)),
        "9" * 5000, "-" + "9" * 5000, "0." + "1" * 5000, "-",
    ]  # fmt: skip
    strings = [
        '""', '"a"', "'a'", '"', '"a', 'a"', '"\\"', '"\\', '"\\u', '"\\u12"', '"\\u0000"',
        '"\\ud800"', '"\\udc00"', '"\\ud83d\\ude00"', '"\\ude00\\ud83d"', '"\\ud800\\u0041"',
        '"\\x41"', '"\\a"', '"\\/"', '"\\b\\f\\n\\r\\t"', '"\\u2028"', '"\u2028"', '"\t"', '"\n"',
        '"\x00"', '"\x1f"', '"\x7f"', '"\x85"', '"\ufeff"', '"\U0001f600"', '"\u0301"', '"\\U0041"',
        '"' + "a" * 70_000 + '"', '"\\u006b"', '"a" "b"', '"a""b"',
    ]  # fmt: skip
    shapes = [
        "", " ", "\n", "\t", "[]", "{}", "[", "]", "{", "}", "[[", "[]]", "{}}", "[}", "{]", "[,]",
        "[1,]", "[,1]", "[1 2]", "[1;2]", "{,}", '{"a"}', '{"a":}', '{:1}', '{"a":1,}', '{"a" 1}',
        '{"a":1 "b":2}', "{a:1}", "{'a':1}", "{1:1}", "{null:1}", '{"a":1,"a":1}', '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}', '{"":1}', '{" ":1}', '{"\u00e4":1}', '{"a":{"b":{"c":1}}}',
        '{"__proto__":1}', '{"a":1}{"b":2}', "[][]", "1 2", "// x", "/* x */ 1", "# x", "[1] // x",
        "\ufeff{}", "{}\ufeff", " {}", "{} ", "{}\r\n", "{}\n\n", "\x00", "{}\x00", "\x0c[]",
        "\u00a0[]", "[1\u00a0]", "*", "&x", "!!python/object:os.system", "---\na: 1", "<a/>",
        "[" * 9 + "]" * 9, "[" * 2000 + "]" * 2000, "[" * 100_000, '{"a":' * 9 + "1" + "}" * 9,
        '{"a":' * 100_000, "[" * 50_000 + "1" + "]" * 50_000, '{"' + "k" * 65 + '":1}',
        '1 "\x85"', '{"\x85":1,"\x85":2}', '{"b":1,"a":2}', '{ "a":1}', '{"a": 1}', '{"a":1 }',
        "[1, 2]", "{\n}", "[" + "1," * 5000 + "1]",
    ]  # fmt: skip
    whole = [*scalars, *strings, *shapes]
    for text in whole:
        raw = text.encode("utf-8", "surrogatepass")
        yield raw
        yield raw + b"\n"
        yield b'{"type":' + raw + b"}\n"
        yield b'{"type":"spoold.manifest/1","name":' + raw + b"}\n"
        yield b'{"type":"spoold.request/1","action":"bundle","name":' + raw + b"}\n"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"):
        yield '{"type":"spoold.manifest/1"}\n'.encode(encoding)
    for raw in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"):
        yield raw
        yield b'"' + raw + b'"\n'
        yield b'{"' + raw + b'":1}\n'
    good = json.loads(Forge.good().build()[9 + 3 + 512 :].split(b"\n", 1)[0])
    for name in good:
        for value in (None, -1, 2**53, True, 1.5, [[]], {"a": {}}):
            yield canonical_bytes({**good, name: value})
        yield canonical_bytes({key: value for key, value in good.items() if key != name})


TEXTS = list(_texts())


def test_no_json_gets_past_as_a_document() -> None:
    assert len(TEXTS) > 900
    for text in TEXTS:
        try:
            document = canonical.decode(text)
        except canonical.NotCanonicalError:
            continue
        assert canonical.encode(document) == text


@pytest.mark.parametrize(
    "parse",
    [
        manifest_parser.parse,
        lambda text: request.parse(text, MODELS),
        lambda text: lines.parse_entry(text.removesuffix(b"\n")),
        lambda text: lines.parse_frame(text.removesuffix(b"\n")),
    ],
    ids=["manifest", "request", "entry", "frame"],
)
def test_no_json_gets_past_a_parser(parse: Callable[[bytes], object]) -> None:
    for text in TEXTS:
        with pytest.raises(SpooldError) as refused:
            parse(text)
        assert refused.value.hint
        # A message can stand in a signed status and in one line of a log.
        assert canonical.text(str(refused.value)) == str(refused.value), text[:100]


def test_no_json_is_a_bundles_manifest(tmp_path: Path) -> None:
    for text in TEXTS[::5]:
        data = Forge.good(edit_manifest_bytes=lambda _, text=text: text).build()
        _refused(data, tmp_path, repr(text[:100]))
