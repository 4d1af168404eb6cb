"""Good bundles for tests, and a forge that makes bundles which are wrong in one thing only.

The forge puts a bundle together by hand from the format page, so that what it leaves alone stays
consistent: hashes are counted again and the manifest is signed again after each change.
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from spoold import trust
from spoold.bundle.entry import Kind, SourceEntry
from spoold.bundle.frames import END_FRAME, Codec
from spoold.bundle.manifest import DEFAULT_CHUNK_SIZE, Compression
from spoold.bundle.reader import (
    BundleReader,
    Discard,
    Policy,
    VerifiedHead,
    verify,
    verify_head,
)
from spoold.bundle.writer import BuiltBundle, BundleWriter, ManifestFields
from spoold.errors import SpooldError
from spoold.sinks.tree import LinkPolicy, Restored, restore_payload
from spoold.sources.files import FilesSource, FilesSpec
from spoold.trust import Algorithm, Signer, Trust

BUNDLE_ID = "demo-0123456789ab"
CREATED_AT = datetime.datetime(2026, 11, 20, 10, 0, tzinfo=datetime.UTC)
FRAME = 4 * 1024 * 1024
Document = dict[str, Any]


def signer(site: str = "site-a", algorithm: Algorithm = Algorithm.ED25519) -> Signer:
    """A site's key: the same one for a whole run."""
    return _signer(site, algorithm)


@cache
def _signer(site: str, algorithm: Algorithm) -> Signer:
    private = trust.generate(algorithm)
    return Signer(trust.key_id(private.public_key()), site, algorithm, private)


def trusted(*signers: Signer) -> Trust:
    """A trust store with these sites' keys."""
    return Trust([one.trusted() for one in signers or (signer(),)])


def build_tree(
    tree: Path,
    scratch: Path,
    *,
    codec: Codec = Codec.ZSTD,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    by: Signer | None = None,
    threads: int = 2,
    to: tuple[str, ...] = (),
    bundle_id: str = BUNDLE_ID,
    **spec: Any,
) -> BuiltBundle:
    """A bundle of a folder, by the real source and writer."""
    scratch.mkdir(parents=True, exist_ok=True)
    source = FilesSource(FilesSpec(kind="files", root="root", **spec), {"root": tree})
    with BundleWriter(
        scratch,
        bundle_id=bundle_id,
        compression=Compression.default(codec),
        chunk_size=chunk_size,
        threads=threads,
    ) as writer:
        for entry in source.entries():
            writer.add(entry)
        return writer.finish(ManifestFields("demo", CREATED_AT, to=to), by or signer())


def build_files(
    files: Mapping[bytes, bytes], scratch: Path, *, codec: Codec = Codec.ZSTD, threads: int = 1
) -> bytes:
    """The bytes of a bundle of these contents."""
    scratch.mkdir(parents=True, exist_ok=True)
    with BundleWriter(
        scratch, bundle_id=BUNDLE_ID, compression=Compression.default(codec), threads=threads
    ) as writer:
        for path, content in sorted(files.items()):
            writer.add(stream_entry(path, content))
        built = writer.finish(ManifestFields("demo", CREATED_AT), signer())
    data = built.path.read_bytes()
    built.path.unlink()
    return data


def stream_entry(
    path: bytes, content: bytes, *, size: int | None = -1, source: str = "test"
) -> SourceEntry:
    """A file entry whose content comes from memory; size None for a stream of unknown length."""
    known = len(content) if size == -1 else size
    return SourceEntry(
        path, Kind.FILE, 0o644, 0, 0, 0, source, known, None, None, io.BytesIO(content)
    )


class Collect(Discard):
    """A visitor that keeps everything, and notices a piece that was never committed."""

    def __init__(self) -> None:
        self.files: dict[bytes, bytes] = {}
        self.others: list[bytes] = []
        self._open: tuple[bytes, list[bytes]] | None = None

    def entry(self, entry: Any) -> None:
        self.others.append(entry.path)

    def whole(self, entry: Any, content: memoryview) -> None:
        self.files[entry.path] = bytes(content)

    def begin(self, entry: Any) -> None:
        self._open = (entry.path, [])

    def write(self, content: memoryview) -> None:
        assert self._open is not None
        self._open[1].append(bytes(content))

    def commit(self) -> None:
        assert self._open is not None
        self.files[self._open[0]] = b"".join(self._open[1])


def check(data: bytes, keys: Trust | None = None, policy: Policy | None = None) -> VerifiedHead:
    """Verify bytes as a whole bundle."""
    return verify(io.BytesIO(data), keys or trusted(), policy or Policy(), threads=1)


def refusal(data: bytes, keys: Trust | None = None, policy: Policy | None = None) -> str:
    """The code with which bytes are refused; `accepted` where they are not."""
    try:
        check(data, keys, policy)
    except SpooldError as error:
        return error.code.name
    return "accepted"


def restore(
    file: BinaryIO,
    path: Path,
    keys: Trust,
    policy: Policy,
    *,
    links: LinkPolicy = LinkPolicy.INSIDE,
    owners: bool = False,
    scratch: Path | None = None,
    threads: int = 1,
) -> Restored:
    """Verify a bundle and write its tree at `path`."""
    with BundleReader(file, scratch=scratch, threads=threads) as reader:
        index = reader.read_index(verify_head(reader.read_head(), keys, policy), policy)
        return restore_payload(reader, index, path, links=links, owners=owners, scratch=scratch)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(document: Document) -> bytes:
    """Canonical JSON by the page's own words."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def tar_header(name: bytes, size: int, **changes: Any) -> bytes:
    """A ustar header by the page's own words; `changes` replaces bytes at offsets `at_<n>`."""
    prefix = b""
    if len(name) > 100:
        cut = name.index(b"/", len(name) - 101)
        prefix, name = name[:cut], name[cut + 1 :]
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:124] = b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[329:345] = b"0000000\0" * 2
    block[345 : 345 + len(prefix)] = prefix
    for key, value in changes.items():
        at = int(key.removeprefix("at_"))
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_member(name: bytes, content: bytes, **changes: Any) -> bytes:
    return tar_header(name, len(content), **changes) + content + bytes(-len(content) % 512)


def cut_frames(members: list[bytes]) -> list[bytes]:
    """The cutting rule by the page's own words."""
    frames: list[bytes] = []
    frame = b""
    for member in members:
        if len(member) > FRAME:
            if frame:
                frames.append(frame)
            frame = b""
            frames += [member[at : at + FRAME] for at in range(0, len(member), FRAME)]
        elif len(frame) + len(member) <= FRAME:
            frame += member
        else:
            frames.append(frame)
            frame = member
    return [*frames, frame] if frame else frames


def zstd_frame(raw: bytes, **options: Any) -> bytes:
    settings = {"level": 3, "write_checksum": True, "write_content_size": True} | options
    return zstandard.ZstdCompressor(**settings).compress(raw)


def gzip_frame(raw: bytes) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (
        bytes.fromhex("1f8b08000000000000ff")
        + deflate.compress(raw)
        + deflate.flush()
        + struct.pack("<II", zlib.crc32(raw), len(raw))
    )


def stored_frame(codec: Codec, raw: bytes) -> bytes:
    if codec is Codec.ZSTD:
        blocks = [raw[at : at + 131072] for at in range(0, len(raw), 131072)]
        frame = bytes.fromhex("28b52ffda0") + struct.pack("<I", len(raw))
        for number, block in enumerate(blocks):
            last = number == len(blocks) - 1
            frame += (len(block) << 3 | last).to_bytes(3, "little") + block
        return frame
    blocks = [raw[at : at + 65535] for at in range(0, len(raw), 65535)]
    frame = bytes.fromhex("1f8b08000000000000ff")
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        frame += struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block
    return frame + struct.pack("<II", zlib.crc32(raw), len(raw))


def file_entry(path: str, content: bytes, **changes: Any) -> Document:
    document = {
        "gid": 0,
        "kind": "file",
        "mode": 0o644,
        "mtime_ns": "0",
        "path": path,
        "sha256": sha256(content),
        "size": len(content),
        "source": "test",
        "uid": 0,
    } | changes
    return {name: value for name, value in document.items() if value is not None}


def plain_entry(path: str, kind: str, **changes: Any) -> Document:
    mode = 0o777 if kind == "symlink" else 0o755
    entry = file_entry(path, b"", kind=kind, mode=mode, sha256=None, size=None)
    return {**entry, **changes}


def _same(value: Any) -> Any:
    return value


@dataclass
class Forge:
    """What a bundle is made of; change one thing, then `build`."""

    codec: Codec = Codec.ZSTD
    bundle_id: str = BUNDLE_ID
    chunk_size: int = DEFAULT_CHUNK_SIZE
    by: Signer = field(default_factory=signer)
    entries: list[Document] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)  # by member name, data/...
    compress: Callable[[bytes], bytes] | None = None
    compress_index: Callable[[bytes], bytes] | None = None
    edit_members: Callable[[list[bytes]], list[bytes]] = _same  # PAYLOAD, in tar form
    edit_payload: Callable[[list[bytes]], list[bytes]] = _same  # raw frames
    edit_packed: Callable[[list[bytes]], list[bytes]] = _same  # compressed frames, before hashing
    edit_lines: Callable[[list[bytes]], list[bytes]] = _same  # entries.jsonl
    edit_frame_lines: Callable[[list[bytes]], list[bytes]] = _same
    edit_digests: Callable[[bytes], bytes] = _same  # manifest-sha256.txt
    edit_index: Callable[[list[bytes]], list[bytes]] = _same  # members in tar form
    edit_index_frames: Callable[[list[bytes]], list[bytes]] = _same
    edit_manifest: Callable[[Document], Document] = _same
    edit_manifest_bytes: Callable[[bytes], bytes] = _same
    sign: Callable[[bytes], bytes] | None = None
    edit_tags: Callable[[dict[str, bytes]], dict[str, bytes]] = _same
    edit_head: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]] = _same
    edit_head_raw: Callable[[bytes], bytes] = _same
    pad: bytes | None = None
    end: bytes | None = None
    totals: Document = field(default_factory=dict)

    @classmethod
    def good(cls, codec: Codec = Codec.ZSTD, **changes: Any) -> "Forge":
        """Three files, a folder and a link."""
        contents = {"data/a.txt": b"alpha\n", "data/b/c.bin": bytes(range(256)) * 40}
        contents["data/b/empty"] = b""
        entries = [
            file_entry("a.txt", contents["data/a.txt"]),
            plain_entry("b", "dir"),
            file_entry("b/c.bin", contents["data/b/c.bin"]),
            file_entry("b/empty", b""),
            plain_entry("b/link", "symlink", target="c.bin"),
        ]
        return cls(codec=codec, entries=entries, contents=contents, **changes)

    @classmethod
    def of(cls, files: Mapping[str, bytes], **changes: Any) -> "Forge":
        """Files under paths that are their members' names."""
        return cls(
            entries=[file_entry(path, content) for path, content in files.items()],
            contents={f"data/{path}": content for path, content in files.items()},
            **changes,
        )

    def build(self) -> bytes:
        """The bytes of the bundle."""
        prefix = self.bundle_id.encode() + b"/"
        usual = zstd_frame if self.codec is Codec.ZSTD else gzip_frame
        pack = self.compress or usual
        members = self.edit_members(
            [tar_member(prefix + name.encode(), data) for name, data in self.contents.items()]
        )
        raws = self.edit_payload(cut_frames(members))
        packed = self.edit_packed([pack(raw) for raw in raws])
        frame_lines = self.edit_frame_lines(
            [
                canonical({"raw": len(raw), "sha256": sha256(data), "size": len(data)})
                for raw, data in zip(raws, packed, strict=True)
            ]
        )
        entry_lines = self.edit_lines([canonical(entry) for entry in self.entries])
        entries_file, frames_file = b"".join(entry_lines), b"".join(frame_lines)
        digests = self.edit_digests(
            "".join(f"{sha256(data)}  {name}\n" for name, data in self.contents.items()).encode()
        )
        index_members = self.edit_index(
            [
                tar_member(prefix + b"entries.jsonl", entries_file),
                tar_member(prefix + b"frames.jsonl", frames_file),
                tar_member(prefix + b"manifest-sha256.txt", digests),
            ]
        )
        index_raws = self.edit_index_frames(cut_frames(index_members))
        pack_index = self.compress_index or usual
        index = [pack_index(raw) for raw in index_raws]
        files = [entry for entry in self.entries if entry["kind"] == "file"]
        manifest = self.edit_manifest(
            {
                "type": "spoold.manifest/1",
                "bundle_id": self.bundle_id,
                "name": "demo",
                "created_at": "2026-11-20T10:00:00Z",
                "producer": "forge",
                "from": self.by.site,
                "to": [],
                "key_id": self.by.key_id,
                "algorithm": self.by.algorithm.value,
                "compression": {
                    "codec": self.codec.value,
                    "level": self.codec.default_level,
                },
                "chunk_size": self.chunk_size,
                "entries": {
                    "bytes": len(entries_file),
                    "count": len(entry_lines),
                    "sha256": sha256(entries_file),
                },
                "frames": {
                    "bytes": len(frames_file),
                    "count": len(frame_lines),
                    "sha256": sha256(frames_file),
                },
                "index": [
                    {"raw": len(raw), "sha256": sha256(data), "size": len(data)}
                    for raw, data in zip(index_raws, index, strict=True)
                ],
                "totals": {
                    "files": len(files),
                    "bytes": sum(entry["size"] for entry in files),
                    "raw": sum(map(len, raws)),
                }
                | self.totals,
                "content_sha256": content_sha256(self.entries),
            }
        )
        manifest_bytes = self.edit_manifest_bytes(canonical(manifest))
        tags = self.edit_tags(self._tags(manifest, manifest_bytes, digests))
        head = self.edit_head(
            [
                ("manifest.json", manifest_bytes),
                ("manifest.sig", (self.sign or self.by.sign)(manifest_bytes)),
                ("bagit.txt", tags["bagit.txt"]),
                ("bag-info.txt", tags["bag-info.txt"]),
                ("tagmanifest-sha256.txt", tags["tagmanifest-sha256.txt"]),
            ]
        )
        raw_head = b"".join(
            tar_member(
                name[1:].encode() if name.startswith("!") else prefix + name.encode(), content
            )
            for name, content in head
        )
        front = stored_frame(self.codec, self.edit_head_raw(raw_head)) + b"".join(index)
        pad = padding(self.codec, len(front)) if self.pad is None else self.pad
        end = END_FRAME[self.codec] if self.end is None else self.end
        return front + pad + b"".join(packed) + end

    def _tags(self, manifest: Document, manifest_bytes: bytes, digests: bytes) -> dict[str, bytes]:
        bagit = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
        info = (
            f"Bagging-Date: {str(manifest.get('created_at', ''))[:10]}\n"
            f"External-Identifier: {manifest.get('bundle_id')}\n"
            f"Payload-Oxum: {manifest['totals']['bytes']}.{digests.count(10)}\n"
            f"Source-Organization: {manifest.get('from')}\n"
        ).encode()
        sums = {
            "bag-info.txt": sha256(info),
            "bagit.txt": sha256(bagit),
            "entries.jsonl": manifest["entries"]["sha256"],
            "frames.jsonl": manifest["frames"]["sha256"],
            "manifest-sha256.txt": sha256(digests),
            "manifest.json": sha256(manifest_bytes),
        }
        listed = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
        return {"bagit.txt": bagit, "bag-info.txt": info, "tagmanifest-sha256.txt": listed}


def content_sha256(entries: list[Document]) -> str:
    """What the page's jq line prints."""
    left_out = {"chunks", "gid", "media_type", "member", "mtime_ns", "source", "uid"}
    lines = sorted(
        canonical({name: value for name, value in entry.items() if name not in left_out})
        for entry in entries
    )
    return sha256(b"".join(lines))


def padding(codec: Codec, length: int) -> bytes:
    if codec is Codec.GZIP:
        return b""
    total = -length % 4096
    total += 4096 * (total < 8)
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", total - 8) + bytes(total - 8)


def frame_edges(data: bytes, codec: Codec) -> list[int]:
    """Offsets at which a frame of a bundle begins or ends."""
    edges, position = [], 0
    while position < len(data):
        edges.append(position)
        if codec is Codec.GZIP:
            inflate = zlib.decompressobj(31)
            inflate.decompress(data[position:])
            position = len(data) - len(inflate.unused_data)
        elif data[position : position + 4] == b"\x50\x2a\x4d\x18":
            position += 8 + struct.unpack("<I", data[position + 4 : position + 8])[0]
        else:
            whole = zstandard.ZstdDecompressor().decompressobj()
            whole.decompress(data[position:])
            position = len(data) - len(whole.unused_data)
    return edges


def plain_tar(data: bytes, codec: Codec) -> bytes:
    """The tar stream as another program decompresses it."""
    if codec is Codec.GZIP:
        return gzip.decompress(data)
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
    return reader.read()


def listing(tree: Path) -> list[tuple[str, ...]]:
    """Every path of a tree with kind, mode, time and content: equal trees have equal listings."""
    lines = []
    for folder, folders, files in os.walk(os.fsencode(tree)):
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if os.path.islink(path):
                content = "-> " + os.fsdecode(os.readlink(path))
            elif os.path.isdir(path):
                content = "/"
            else:
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            shown = os.fsdecode(os.path.relpath(path, os.fsencode(tree)))
            lines.append((shown, oct(status.st_mode), str(status.st_mtime_ns), content))
    return sorted(lines)
