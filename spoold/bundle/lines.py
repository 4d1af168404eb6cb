"""Lines of the index: entries.jsonl and frames.jsonl, to and from canonical JSON. Pure.

There is one line per file, so both ways are hot: a line is written by one formatted string, and
read by one regular expression that matches canonical lines only. What it does not match is parsed
again in the slow way, to say what is wrong with it.
"""

import base64
import binascii
import re
from typing import Final, NoReturn

from spoold import canonical, errors
from spoold.bundle.entry import MAX_MODE, SYMLINK_MODE, Chunk, Entry, Kind, chunk_members
from spoold.bundle.frame_table import Frame
from spoold.bundle.paths import path_fault
from spoold.canonical import MAX_INTEGER
from spoold.errors import SpooldError

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
MAX_TARGET_BYTES: Final = 4095

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f]")
_STRING = r'"([^"\\\x00-\x1f\x7f-\x9f]*+(?:\\["\\][^"\\\x00-\x1f\x7f-\x9f]*+)*)"'
_INTEGER = r"(0|[1-9][0-9]{0,15})"
_SHA256 = r'"([0-9a-f]{64})"'
_BASE64 = r'"([A-Za-z0-9+/]++={0,2})"'
_CHUNK = r'\{"sha256":"[0-9a-f]{64}","size":[1-9][0-9]{0,15}\}'
_ENTRY_LINE = re.compile(
    r"\{"
    rf'(?:"chunks":\[({_CHUNK}(?:,{_CHUNK})*)\],)?'
    rf'"gid":{_INTEGER},'
    r'"kind":"(file|dir|symlink)",'
    rf'(?:"media_type":{_STRING},)?'
    rf'(?:"member":{_STRING},)?'
    r'"mode":(0|[1-9][0-9]{0,2}),'
    r'"mtime_ns":"(0|-?[1-9][0-9]{0,18})",'
    rf'"path(?:":{_STRING}|_b64":{_BASE64}),'
    rf'(?:"sha256":{_SHA256},"size":{_INTEGER},)?'
    rf'"source":{_STRING},'
    rf'(?:"target(?:":{_STRING}|_b64":{_BASE64}),)?'
    rf'"uid":{_INTEGER}'
    r"\}"
)
_CHUNK_PARTS = re.compile(r'"sha256":"([0-9a-f]{64})","size":([0-9]+)')
_FRAME_LINE = re.compile(rf'\{{"raw":{_INTEGER},"sha256":{_SHA256},"size":{_INTEGER}\}}')
_ESCAPED = re.compile(r'\\(["\\])')
_ENTRY_FIELDS = frozenset(
    {
        "chunks",
        "gid",
        "kind",
        "media_type",
        "member",
        "mode",
        "mtime_ns",
        "path",
        "path_b64",
        "sha256",
        "size",
        "source",
        "target",
        "target_b64",
        "uid",
    }
)
_FRAME_FIELDS = frozenset(("raw", "sha256", "size"))


def quote(text: str) -> str:
    """A canonical JSON string. The text must be of the profile."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def as_text(raw: bytes) -> str | None:
    """The bytes as a string of the canonical profile, or None where they need base64."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if _FORBIDDEN.search(text) else text


def bytes_field(name: str, raw: bytes) -> str:
    """`"path":"…"`, or `"path_b64":"…"` where the profile forbids the bytes."""
    text = as_text(raw)
    if text is not None:
        return f'"{name}":{quote(text)}'
    return f'"{name}_b64":"{base64.b64encode(raw).decode()}"'


def entry_lines(entry: Entry) -> tuple[bytes, bytes]:
    """The line of entries.jsonl, and the shorter one that content_sha256 counts; no line feeds."""
    path = bytes_field("path", entry.path)
    if entry.kind is Kind.FILE:
        path += f',"sha256":"{entry.sha256}","size":{entry.size}'
    target = "" if entry.target is None else f",{bytes_field('target', entry.target)}"
    chunks = _chunks(entry.chunks) if entry.chunks else ""
    line = (
        f'{{{chunks}"gid":{entry.gid},"kind":"{entry.kind}",'
        f"{_media_type(entry.media_type)}{_member(entry)}"
        f'"mode":{entry.mode},"mtime_ns":"{entry.mtime_ns}",{path},'
        f'"source":{quote(entry.source)}{target},"uid":{entry.uid}}}'
    )
    short = f'{{"kind":"{entry.kind}","mode":{entry.mode},{path}{target}}}'
    return line.encode(), short.encode()


def content_line(entry: Entry) -> bytes:
    """The line that content_sha256 counts, without a line feed."""
    path = bytes_field("path", entry.path)
    if entry.kind is Kind.FILE:
        path += f',"sha256":"{entry.sha256}","size":{entry.size}'
    target = "" if entry.target is None else f",{bytes_field('target', entry.target)}"
    return f'{{"kind":"{entry.kind}","mode":{entry.mode},{path}{target}}}'.encode()


def frame_line(frame: Frame) -> bytes:
    """A line of frames.jsonl, with its line feed."""
    return b'{"raw":%d,"sha256":"%s","size":%d}\n' % (frame.raw, frame.sha256.encode(), frame.size)


def member_lines(entry: Entry) -> bytes:
    """The lines of manifest-sha256.txt that a file gives, with their line feeds."""
    if not entry.chunks:
        return f"{entry.sha256}  {entry.member}\n".encode()
    return b"".join(
        f"{chunk.sha256}  {member}\n".encode() for member, chunk in chunk_members(entry)
    )


def parse_entry(line: bytes) -> Entry:
    """Read a line of entries.jsonl, strictly. Raises not-canonical, field-unknown, entry-*.

    What one line can tell is checked here: not order, member name or chunk sizes.
    """
    try:
        match = _ENTRY_LINE.fullmatch(line.decode())
    except UnicodeDecodeError as error:
        raise SpooldError(errors.NOT_CANONICAL, f"entries.jsonl: {error}") from error
    if match is None:
        _explain(line, "entries.jsonl", _ENTRY_FIELDS)
    (
        chunks,
        gid,
        kind,
        media_type,
        member,
        mode_text,
        mtime_ns,
        path_text,
        path_base64,
        sha256,
        size_text,
        source,
        target_text,
        target_base64,
        uid,
    ) = match.groups()
    path = _bytes(path_text, path_base64)
    if fault := path_fault(path):
        raise SpooldError(errors.ENTRY_PATH, fault, at=canonical.text(path[:200]))
    target = None
    if target_text is not None or target_base64 is not None:
        target = _bytes(target_text, target_base64)
    name, size = "", 0
    if sha256 is not None:
        size = int(size_text)
        name = _unescape(member) if member is not None else "data/" + (as_text(path) or "")
    entry = Entry(
        path,
        Kind(kind),
        int(mode_text),
        int(mtime_ns),
        int(uid),
        int(gid),
        _unescape(source),
        size,
        sha256 or "",
        name,
        _parse_chunks(chunks),
        target,
        None if media_type is None else _unescape(media_type),
    )
    if max(entry.uid, entry.gid, entry.size) > MAX_INTEGER:
        raise SpooldError(errors.NOT_CANONICAL, "entries.jsonl: integer beyond 2^53 - 1")
    plain = chunks is None and member is None and media_type is None
    if fault := _entry_fault(entry, plain=plain):
        raise SpooldError(errors.ENTRY_INVALID, fault, at=canonical.text(path[:200]))
    if member is not None and name.encode() == b"data/" + path:
        raise SpooldError(
            errors.ENTRY_INVALID,
            "it names the member that goes without saying",
            at=canonical.text(path[:200]),
        )
    return entry


def _entry_fault(entry: Entry, *, plain: bool) -> str | None:
    if entry.mode > MAX_MODE:
        return f"mode {entry.mode:o} is above 777"
    if entry.kind is Kind.FILE:
        good = bool(entry.sha256) and entry.target is None
        return None if good else "a file has sha256 and size, and no target"
    if entry.sha256 or not plain:
        return "only a file has content"
    if entry.kind is Kind.DIR:
        return None if entry.target is None else "only a symbolic link has a target"
    return _link_fault(entry)


def _link_fault(entry: Entry) -> str | None:
    if entry.target is None or entry.mode != SYMLINK_MODE:
        return "a symbolic link has a target and the mode 511"
    if not 0 < len(entry.target) <= MAX_TARGET_BYTES or b"\0" in entry.target:
        return "a link's target is 1 to 4,095 bytes without NUL"
    return None


def parse_frame(line: bytes) -> Frame:
    """Read a line of frames.jsonl, strictly; not whether its sizes can be."""
    match = _FRAME_LINE.fullmatch(line.decode("latin-1"))
    if match is None:
        _explain(line, "frames.jsonl", _FRAME_FIELDS)
    return Frame(int(match[1]), match[2], int(match[3]))


def _chunks(chunks: tuple[Chunk, ...]) -> str:
    items = ",".join(f'{{"sha256":"{chunk.sha256}","size":{chunk.size}}}' for chunk in chunks)
    return f'"chunks":[{items}],'


def _parse_chunks(text: str | None) -> tuple[Chunk, ...]:
    if text is None:
        return ()
    return tuple(Chunk(sha256, int(size)) for sha256, size in _CHUNK_PARTS.findall(text))


def _member(entry: Entry) -> str:
    # By far most members are data/<path>: compare bytes, without building a string.
    if entry.kind is not Kind.FILE or entry.member.encode()[5:] == entry.path:
        return ""
    return f'"member":{quote(entry.member)},'


def _media_type(text: str | None) -> str:
    return "" if text is None else f'"media_type":{quote(text)},'


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def _bytes(text: str | None, base64_text: str | None) -> bytes:
    if text is not None:
        return _unescape(text).encode()
    assert base64_text is not None
    try:
        raw = base64.b64decode(base64_text, validate=True)
    except binascii.Error as error:
        raise SpooldError(errors.NOT_CANONICAL, "entries.jsonl: bad base64") from error
    if base64.b64encode(raw).decode() != base64_text or as_text(raw) is not None:
        raise SpooldError(
            errors.NOT_CANONICAL, "entries.jsonl: base64 that is not canonical, or not needed"
        )
    return raw


def _explain(line: bytes, where: str, fields: frozenset[str]) -> NoReturn:
    try:
        document = canonical.decode(line + b"\n")
    except canonical.NotCanonicalError as error:
        raise SpooldError(errors.NOT_CANONICAL, f"{where}: {error}") from error
    if isinstance(document, dict) and (unknown := sorted(set(document) - fields)):
        raise SpooldError(errors.FIELD_UNKNOWN, f"{where}: {unknown[0]}", at=unknown[0])
    shown = canonical.text(line[:200])
    raise SpooldError(errors.ENTRY_INVALID, f"{where}: fields missing or of a wrong kind: {shown}")
