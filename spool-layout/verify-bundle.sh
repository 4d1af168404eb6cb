#!/bin/sh
# verify-bundle.sh BUNDLE PUBLIC-KEY [SITE]
#
# Says yes or no to a spoold bundle, without spoold: written from BUNDLE_FORMAT.md alone, for who
# wants a second opinion. PUBLIC-KEY is the sender's key (PEM), SITE the name it must give itself.
# Exit status: 0 yes · 1 no, one line says why · 2 wrong usage, or a tool is missing.
#
# Needs openssl, jq, tar, coreutils, awk, and zstd or gzip. Works on a copy in a private folder
# beneath TMPDIR, which it removes: that takes the room of the bundle and twice that of its content.
# Nothing is decompressed before its SHA-256 is known to be the signed one, nothing unpacked before
# every byte of its headers is known to be the one that the signed index gives.
#
# What it cannot see stands in README.md beside it, under "A second verifier".

# shellcheck disable=SC2016  # the programs for awk and jq are theirs to expand
# shellcheck disable=SC2015  # `no` ends the script, whichever of the two before it failed
set -u
LC_ALL=C
export LC_ALL
# What others may have set for their own use of the tools.
unset TAR_OPTIONS GZIP POSIXLY_CORRECT
umask 077

# --- programs ------------------------------------------------------------------------------------

# Blocks of a tar, as `od` shows them, to "size<TAB>name" of its members, whatever else they say.
LIST='
BEGIN {
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./_-"
    for (i = 1; i < 256; i++) {
        c = sprintf("%c", i)
        if (index(plain, c)) char[sprintf("%02x", i)] = c
    }
}
function text(from, count,   i, pair, out) {
    out = ""
    for (i = from; i < from + count; i++) {
        pair = substr($0, 3 * i + 2, 2)
        if (pair == "00") break
        if (!(pair in char)) { bad = 1; exit }
        out = out char[pair]
    }
    return out
}
skip { skip--; next }
{
    prefix = text(345, 155)
    name = (prefix == "" ? "" : prefix "/") text(0, 100)
    digits = text(124, 11)
    if (length(digits) != 11 || digits ~ /[^0-7]/) { bad = 1; exit }
    size = 0
    for (i = 1; i <= 11; i++) size = size * 8 + substr(digits, i, 1)
    printf "%.0f\t%s\n", size, name
    skip = int((size + 511) / 512)
}
END { exit bad || skip }
'

# A list of "size<TAB>name" to the "offset count" of what CHECK looks at: all but the content of
# large members. The last line is the size of the tar, and 0.
RANGES='
BEGIN { FS = "\t" }
{
    whole = int($1 / 512)
    at += 512
    if (whole >= 128) {
        printf "%.0f %.0f\n", from, at - from
        from = at + whole * 512
    }
    at += whole * 512 + ($1 % 512 ? 512 : 0)
}
END {
    if (at > from) printf "%.0f %.0f\n", from, at - from
    printf "%.0f 0\n", at
}
'

# Blocks of a tar against `list`: every header is the one that name and size give, every padding is
# zero, and there is nothing else.
CHECK='
BEGIN {
    FS = "\t"
    for (i = 1; i < 256; i++) {
        c = sprintf("%c", i)
        ord[c] = i
        hex[c] = sprintf(" %02x", i)
    }
    zero = " 00"
    while (length(zero) < 1536) zero = zero zero
    fixed = field("0000644", 8) field("0000000", 8) field("0000000", 8)
    time = field("00000000000", 12)
    after = field("0", 1) zeros(100) field("ustar", 6) field("00", 2) zeros(64)
    after = after field("0000000", 8) field("0000000", 8)
    constant = sum + 8 * 32
    want()
}
function zeros(count) { return substr(zero, 1, 3 * count) }
function field(text, width,   i, c, out) {
    out = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        sum += ord[c]
        out = out hex[c]
    }
    return out zeros(width - length(text))
}
function octal(value, width,   out) {
    out = ""
    while (width--) {
        out = (value % 8) out
        value = int(value / 8)
    }
    return out
}
function fail() { bad = 1; exit }
function want(   line, tab, name, prefix, i, size) {
    header = ""
    if ((getline line < list) <= 0) return
    tab = index(line, "\t")
    size = substr(line, 1, tab - 1) + 0
    name = substr(line, tab + 1)
    prefix = ""
    if (length(name) > 100) {
        for (i = length(name) - 100; i < length(name); i++) if (substr(name, i, 1) == "/") break
        if (i >= length(name) || i > 156) fail()
        prefix = substr(name, 1, i - 1)
        name = substr(name, i + 1)
    }
    if (name == "" || size >= 8589934592) fail()
    sum = constant
    header = field(name, 100) fixed field(octal(size, 11), 12) time
    line = field(prefix, 155)
    header = header field(octal(sum, 6), 6) " 00 20" after line zeros(12)
    whole = int(size / 512)
    rest = size % 512
}
bad { exit }
whole_left { whole_left--; next }
padding_left {
    padding_left = 0
    if (length($0) != 1536 || substr($0, 3 * rest + 1) != zeros(512 - rest)) fail()
    want()
    next
}
{
    if (header == "" || $0 != header) fail()
    whole_left = whole >= 128 ? 0 : whole
    padding_left = rest > 0
    if (!rest) want()
}
END { exit bad || whole_left || padding_left || header != "" }
'

# Sizes of members to the tar bytes of the frames that the rule cuts.
CUT='
function shut() { if (open) printf "%.0f\n", open; open = 0 }
BEGIN { FS = "\t"; frame = 4194304; open = 0 }
{
    size = 512 + int(($1 + 511) / 512) * 512
    if (size > frame) {
        shut()
        for (; size > 0; size -= frame) printf "%.0f\n", (size > frame ? frame : size)
    } else if (open + size <= frame) open += size
    else { shut(); open = size }
}
END { shut() }
'

# The first bytes of a zstd frame, as `od` shows them in decimal: a frame of the profile?
ZSTD='
{ for (i = 1; i <= NF; i++) b[++n] = $i }
END {
    single = int(b[5] / 32) % 2
    size = int(b[5] / 64)
    width = size ? 2 ^ size : single
    at = single ? 6 : 7
    base = 2 ^ (10 + int(b[6] / 8))
    value = width == 2 ? 256 : 0
    for (i = 0; i < width; i++) value += b[at + i] * 256 ^ i
    exit !(b[1] == 40 && b[2] == 181 && b[3] == 47 && b[4] == 253 && b[5] % 32 == 4 && width &&
        (single || base + base / 8 * (b[6] % 8) <= 8388608) && value == raw)
}
'

# What canonical JSON never has, in any line: controls, C1 controls in UTF-8, other escapes than two.
CONTROLS='
/[\001-\037\177]/ || /\302[\200-\237]/ || length($0) >= 4194304 { bad = 1 }
{ gsub(/\\["\\]/, "") }
/\\/ { bad = 1 }
END { exit bad }
'

# What is left of canonical JSON of ours without its strings: whole numbers and punctuation.
NUMBERS='
{ gsub(/"([^"\\]|\\.)*"/, ""); gsub(/[0-9,:{}[]/, ""); gsub(/]/, "") }
$0 != "" { bad = 1 }
END { exit bad }
'

JQ='
def fits($pattern): type == "string" and test("\\A(?:" + $pattern + ")\\z");
def natural: type == "number" and . >= 0 and . <= 9007199254740991 and . == floor;
def sha: fits("[0-9a-f]{64}");
def site: fits("[a-z0-9][a-z0-9-]{0,62}");
def fields($required; $optional):
  type == "object" and (keys - $required - $optional == []) and ($required - keys == []);
# Without fromdate, which knows neither the first centuries nor the last second before 1970.
def time:
  fits("[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3])"
    + ":[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?Z")
  and .[0:4] != "0000" and (.[5:10] | fits("(?:0[2469]|11)-31|02-30") | not)
  and (.[5:10] != "02-29"
    or (.[0:4] | fits("..(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00")));
def frame:
  fields(["raw", "sha256", "size"]; []) and (.raw | natural) and (.size | natural)
  and (.sha256 | sha) and .raw >= 1 and .raw <= 4194304 and .size >= 1
  and .size <= .raw + (.raw / 64 | floor) + 4096;
def counted: fields(["bytes", "count", "sha256"]; []) and (.bytes | natural) and (.count | natural)
  and (.sha256 | sha);
# Base64 to bytes, as numbers.
def bytes:
  [rtrimstr("=") | rtrimstr("=") | explode[] | if . >= 97 then . - 71 elif . >= 65 then . - 65
    elif . >= 48 then . + 4 elif . == 43 then 62 else 63 end] as $s
  | [range(0; $s | length * 3 / 4 | floor) | (. * 4 / 3 | floor) as $at | (. % 3) as $shift
    | ($s[$at] * 4096 + ($s[$at + 1] // 0) * 64 + ($s[$at + 2] // 0))
      / [1024, 256, 64][$shift] | floor % 256];
# Canonical base64 of bytes that a canonical string cannot hold.
def packed:
  fits("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?")
  and length > 0
  and ((try (@base64d | @base64) catch "") != .
    or (@base64d | explode | any(. < 32 or (. > 126 and . < 160))));
def either($name):
  if has($name) then (has($name + "_b64") | not) and (.[$name] | type == "string")
  else has($name + "_b64") and (.[$name + "_b64"] | packed) end;
'

MANIFEST=$JQ'
def skipped:
  if has("skipped") != has("skipped_count") then false
  elif has("skipped") | not then true
  else (.skipped_count | natural) and (.skipped | type == "array")
    and (.skipped | length >= 1 and length <= 1000) and (.skipped | length) <= .skipped_count
    and (.skipped | tojson | utf8bytelength <= 1048576)
    and all(.skipped[]; (fields(["path", "reason"]; []) or fields(["path_b64", "reason"]; []))
      and either("path") and (.reason | type == "string")) end;
if length != 1 then "manifest.json is not one document" else .[0] end
| if type == "string" then .
  elif type != "object" or .type != "spoold.manifest/1" then "it is no manifest of version 1"
  elif fields(["type", "bundle_id", "name", "created_at", "producer", "from", "to", "key_id",
      "algorithm", "compression", "chunk_size", "entries", "frames", "index", "totals",
      "content_sha256"]; ["not_after", "request_sha256", "correlation_id", "labels", "skipped",
      "skipped_count"]) | not then "manifest.json has a field too few, or one that is not known"
  elif ([.name, .producer, .correlation_id // ""] | all(type == "string"))
    and (.created_at | time) and (.not_after // .created_at | time)
    and (.request_sha256 // .content_sha256 | sha) and (.content_sha256 | sha) and (.key_id | sha)
    and (.to | type == "array" and all(site))
    and (.labels // {} | type == "object" and all(.[]; type == "string")
      and (keys | all(fits("[A-Za-z0-9_.-]{1,64}"))))
    and (.compression | fields(["codec", "level"]; []))
    and (.compression | (.codec == "zstd" or .codec == "gzip") and (.level | natural)
      and .level >= 1 and .level <= (if .codec == "zstd" then 19 else 9 end))
    and (.chunk_size | natural) and .chunk_size >= 1048576 and .chunk_size <= 4294967296
    and (.entries | counted) and (.frames | counted)
    and (.index | type == "array" and length > 0 and all(frame))
    and (.totals | fields(["bytes", "files", "raw"]; []) and ([.[]] | all(natural)))
    and skipped | not then "a field of manifest.json is not what it must be"
  elif .algorithm != $algorithm or .key_id != $key then "the manifest names another key"
  elif .from | site | not then "the sender is no site name"
  elif $site != "" and .from != $site then "it is from another site"
  elif .bundle_id != $id then "the folder inside is not the bundle id"
  elif .compression.codec != $codec then "the file is of another codec than the manifest says"
  elif has("not_after") and .not_after[0:19] <= $now then "it has expired"
  else "good", "\(.entries.bytes) \(.entries.count) \(.entries.sha256)",
    "\(.frames.bytes) \(.frames.count) \(.frames.sha256)",
    "\(.totals.files) \(.totals.bytes) \(.totals.raw)", .chunk_size, .content_sha256,
    .created_at[:10], .from, (.index[] | "\(.raw) \(.size) \(.sha256)") end
'

# "W why" for an entry that is wrong; else, with tabs between: P kind path member chunks source and
# whether the path is text (percent-encoded), M sha256 size name of each member, J sha256 name of
# what its chunks make.
ENTRIES=$JQ'
def text($name): either($name) and (if has($name) then .[$name] | length > 0 else true end);
def wrong:
  if fields(["gid", "kind", "mode", "mtime_ns", "source", "uid"]; ["chunks", "media_type",
      "member", "path", "path_b64", "sha256", "size", "target", "target_b64"]) | not then "fields"
  elif ([.gid, .mode, .uid] | all(natural)) and .mode <= 511
    and (.mtime_ns | fits("0|-?[1-9][0-9]{0,18}")) and (.source | type == "string")
    and ((.media_type // "") | type == "string") and text("path") | not
    then "values"
  elif .kind == "file" then
    if (.size | natural) and (.sha256 | sha) and (has("target") or has("target_b64") | not)
      and ((.member // "") | type == "string") | not then "file"
    elif (.member // "") == "data/" + (.path // "") then "member"
    elif .size <= $chunk then (if has("chunks") then "chunks" else empty end)
    elif .chunks | type == "array" and length > 0
      and all(fields(["sha256", "size"]; []) and (.sha256 | sha)) | not then "chunks"
    elif (.chunks | length) != ((.size + $chunk - 1) / $chunk | floor) then "chunks"
    elif [range(0; .size; $chunk) as $from | [.size - $from, $chunk] | min]
      != [.chunks[].size] then "chunks"
    else empty end
  elif has("sha256") or has("size") or has("member") or has("chunks") or has("media_type")
    then "content"
  elif .kind == "dir" then (if has("target") or has("target_b64") then "target" else empty end)
  elif .kind == "symlink" then
    if .mode == 511 and text("target")
      and (if has("target") then .target | utf8bytelength <= 4095
        else .target_b64 | bytes | length <= 4095 and all(. != 0) end) then empty
    else "target" end
  else "kind" end;
def digit: "0123456789ABCDEF"[. : . + 1];
def uri: if has("path") then .path | @uri
  else [.path_b64 | bytes[] | "%" + (. / 16 | floor | digit) + (. % 16 | digit)] | add end;
[wrong] as $wrong
| if $wrong != [] then "W\t" + $wrong[0]
  else (["P", .kind, uri, (.member // "" | @uri), (.chunks | length | tostring), (.source | @uri),
      (has("path") | tostring)] | join("\t")),
    (select(.kind == "file") | (.member // ("data/" + .path)) as $name
      | if .chunks then "J\t\(.sha256)\t\($name)", (.chunks | to_entries[]
          | "M\t\(.value.sha256)\t\(.value.size)\t\($name).\("00000\(.key)"[-6:]).chunk")
        else "M\t\(.sha256)\t\(.size)\t\($name)" end) end
'

# Paths, their order, and the members of files; `out` takes the sort keys and `folder` a file with
# the bytes of each path whose member is its hash, whose names must come out as `hashes` has them.
# Bytes are " xx" here: what is a prefix of another stays one.
NAMES='
BEGIN {
    FS = "\t"
    for (i = 1; i < 256; i++) {
        c = sprintf("%c", i)
        two = sprintf("%02x", i)
        hex[c] = " " two
        char[two] = c
        fold[two] = (i >= 65 && i <= 90) ? sprintf("%02x", i + 32) : two
    }
    data = bytes("data/")
    other = bytes("data/_x/")
}
function fail(why) { print why; bad = 1; exit }
function bytes(text,   i, c, out) {
    out = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (c == "%") {
            out = out " " tolower(substr(text, i + 1, 2))
            i += 2
        } else out = out hex[c]
    }
    return out
}
function folded(path,   i, out) {
    out = ""
    for (i = 2; i < length(path); i += 3) out = out " " fold[substr(path, i, 2)]
    return out
}
function ends(text, with) { return substr(text, length(text) - length(with) + 1) == with }
# Whether a path may be a member as it is: 1 yes, 0 no. Sets `ascii`.
function ordinary(path, low, chunked,   length_, i, at, name, segments, segment, count) {
    ascii = path !~ / [89abcdef]/
    if (low ~ / [01][0-9a-f]| 7f| 25| 5c| c2 [89]| e2 80 a[89]/) return 0
    if (low ~ /( 20| c2 a0| e1 9a 80| e2 80 8[0-9a]| e2 80 af| e2 81 9f| e3 80 80)$/) return 0
    count = split(low, segments, " 2f")
    if (segments[1] == " 5f 78") return 0
    for (i = 1; i <= count; i++) {
        segment = segments[i]
        if (substr(segment, 1, 3) == " 2d" || ends(segment, " 2e 63 68 75 6e 6b")) return 0
    }
    length_ = base + length(path) / 3 + (chunked ? 13 : 0)
    if (length_ > 100) {
        # The leftmost slash that leaves 100 bytes; the id and "data" are in front of the path.
        at = 0
        for (i = length_ - 100; i < length_; i++) {
            if (i == base - 5 || i == base) at = i
            else if (i > base && substr(path, 3 * (i - base) - 2, 3) == " 2f") at = i
            if (at) break
        }
        if (!at || at > 156 || at == length_) return 0
    }
    return 1
}
function free(path, low,   i, above) {
    if ((low in members) || (low in folders)) return 0
    for (i = 1; i < length(path); i += 3) if (substr(path, i, 3) == " 2f") {
        above = substr(low, 1, i - 1)
        if ((above in members) || ((above in folders) && folders[above] != substr(path, 1, i - 1)))
            return 0
    }
    return 1
}
function take(path, low,   i) {
    members[low]
    for (i = 1; i < length(path); i += 3) if (substr(path, i, 3) == " 2f")
        folders[substr(low, 1, i - 1)] = substr(path, 1, i - 1)
}
{
    path = bytes($2)
    size = length(path) / 3
    count = split(path, segments, " 2f")
    if (size < 1 || size > 4096 || path ~ / 00/ || count > 128) fail("a path is not allowed")
    for (i = 1; i <= count; i++) {
        segment = segments[i]
        if (segment == "" || segment == " 2e" || segment == " 2e 2e" || length(segment) > 765)
            fail("a path is not allowed")
    }
    key = $1 == "dir" ? path " 2f" : path
    if (NR == 1 || $5 "" != source) {
        source = $5 ""
        if (source in sources) fail("the entries are not in order")
        sources[source]
        last = ""
    } else if (key <= last) fail("the entries are not in order")
    last = key
    print key > out
    if ($1 != "file") next
    low = folded(path)
    may = ordinary(path, low, $4 > 0) && free(path, low) && $6 == "true"
    if ($3 == "") {
        if (!may) fail("a member is not the one that the rule gives")
        take(path, low)
        if (!ascii) foreign = 1
        next
    }
    # Names outside ASCII fold in ways that are not known here: then the sender may be right.
    if (may && ascii && !foreign) fail("a member is not the one that the rule gives")
    member = bytes($3)
    if (substr(member, 1, 24) != other) fail("a member is not the one that the rule gives")
    file = sprintf("%s/%07d", folder, ++hashed)
    for (i = 2; i < length(path); i += 3) printf "%s", char[substr(path, i, 2)] > file
    close(file)
    name = ""
    for (i = 26; i < length(member); i += 3) name = name char[substr(member, i, 2)]
    printf "%s  ./%07d\n", name, hashed > hashes
}
END { exit bad }
'

# Sort keys, sorted: no two alike, and nothing in what is no folder.
BESIDE='
BEGIN { top = 0 }
$0 == last { exit bad = 1 }
{
    last = $0
    while (top && substr($0, 1, length(stack[top])) != stack[top]) top--
    for (i = 1; i <= top; i++) if (substr($0, length(stack[i]) + 1, 3) == " 2f") exit bad = 1
    stack[++top] = $0
}
END { exit bad }
'

# --- the parts -----------------------------------------------------------------------------------

cannot() {
    printf 'verify-bundle.sh: %s\n' "$*" >&2
    exit 2
}

no() {
    # A full disk is no fault of the bundle, but looks like one.
    if [ -n "$folder" ]; then
        head -c 1048576 /dev/zero 2>/dev/null >"$folder/room" || cannot "$full"
    fi
    printf 'no: %s\n' "$*"
    exit 1
}

# FILE OFFSET COUNT: these bytes.
slice() {
    tail -c "+$(($2 + 1))" "$1" | head -c "$3"
}

# OFFSET COUNT: these bytes of the bundle, in hex.
hex() {
    od -An -v -tx1 -j "$1" -N "$2" "$bundle" | tr -d ' \n'
}

# OFFSET COUNT: these bytes of the bundle as a number, the lowest first, in `number`.
little() {
    number=0
    factor=1
    for byte in $(od -An -v -tu1 -j "$1" -N "$2" "$bundle"); do
        number=$((number + byte * factor))
        factor=$((factor * 256))
    done
}

# OFFSET: the bundle is no shorter.
need() {
    [ "$1" -le "$size" ] || no 'it ends too early'
}

# TAR LIST: the tar is what these members make.
check() {
    awk "$RANGES" "$2" >"$folder/ranges"
    [ "$(tail -n 1 "$folder/ranges")" = "$(($(wc -c <"$1"))) 0" ] || return 1
    while read -r from count; do
        [ "$count" -eq 0 ] || od -An -v -tx1 -w512 -j "$from" -N "$count" "$1"
    done <"$folder/ranges" | awk -v list="$2" "$CHECK"
}

digest() {
    sha256sum <"$1" | cut -c1-64
}

read_zstd_head() {
    little 5 4
    left=$number
    if [ "$left" -lt 1 ] || [ "$left" -gt 4194304 ]; then no 'the head is above 4 MiB'; fi
    at=9
    while [ "$left" -gt 0 ]; do
        count=131072
        last=0
        if [ "$left" -le "$count" ]; then
            count=$left
            last=1
        fi
        need $((at + 3 + count))
        little "$at" 3
        [ "$number" -eq $((count * 8 + last)) ] || no 'the head is not stored as it must be'
        slice "$bundle" $((at + 3)) "$count" >>"$folder/head.tar"
        at=$((at + 3 + count))
        left=$((left - count))
    done
}

read_gzip_head() {
    at=10
    last=0
    total=0
    while [ "$last" -eq 0 ]; do
        need $((at + 5))
        little "$at" 1
        last=$number
        little $((at + 1)) 2
        count=$number
        little $((at + 3)) 2
        if [ "$last" -gt 1 ] || [ "$count" -eq 0 ] || [ $((count ^ number)) -ne 65535 ]; then
            no 'the head is not stored as it must be'
        fi
        if [ "$count" -ne 65535 ] && [ "$last" -eq 0 ]; then
            no 'the head is not stored as it must be'
        fi
        total=$((total + count))
        [ "$total" -le 4194304 ] || no 'the head is above 4 MiB'
        need $((at + 5 + count))
        slice "$bundle" $((at + 5)) "$count" >>"$folder/head.tar"
        at=$((at + 5 + count))
    done
    need $((at + 8))
    trailer=$(gzip -cn1 "$folder/head.tar" | tail -c 8 | od -An -v -tx1 | tr -d ' \n')
    [ "$(hex "$at" 8)" = "$trailer" ] || no 'the checksum of the head does not fit'
    at=$((at + 8))
}

# FRAMES ("raw size sha256" a line) TAR: the frames from `at` on, checked, then decompressed.
unpack() {
    : >"$2"
    while read -r raw length sum; do
        need $((at + length))
        slice "$bundle" "$at" "$length" >"$folder/frame" || cannot "$full"
        [ "$(digest "$folder/frame")" = "$sum" ] || no 'a frame is not the one that was signed'
        if [ "$codec" = zstd ]; then
            od -An -v -tu1 -N14 "$folder/frame" | awk -v raw="$raw" "$ZSTD" ||
                no 'a frame is not of the kind that the format allows'
            zstd -l "$folder/frame" 2>/dev/null |
                awk '$1 == 1 && $2 == 0 { good = 1 } END { exit !good }' ||
                no 'a frame is more than one'
        else
            little "$at" 10
            [ "$(hex "$at" 10)" = 1f8b08000000000000ff ] ||
                no 'a frame is not of the kind that the format allows'
            little $((at + length - 4)) 4
            [ "$number" -eq "$raw" ] || no 'a frame does not hold what was signed'
        fi
        # No more than a frame may hold is written, whatever it makes of itself.
        (
            ulimit -f 8200
            exec "$codec" -dqc "$folder/frame" >"$folder/raw" 2>/dev/null
        ) || no 'a frame cannot be decompressed'
        [ "$(wc -c <"$folder/raw")" -eq "$raw" ] || no 'a frame does not hold what was signed'
        cat "$folder/raw" >>"$2" || cannot "$full"
        at=$((at + length))
    done <"$1"
}

# NAME: the canonical form of a file with one JSON document a line.
canonical() {
    awk "$CONTROLS" "$1" && awk "$NUMBERS" "$1" &&
        [ "$(tail -c 1 "$1" | od -An -tx1 | tr -d ' ')" = 0a ] &&
        jq -cS . "$1" 2>/dev/null | cmp -s - "$1"
}

# --- the order of things -------------------------------------------------------------------------

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    cannot 'usage: verify-bundle.sh BUNDLE PUBLIC-KEY [SITE]'
fi
for tool in openssl jq tar awk od tail head sha256sum cmp sort cut tr wc mktemp find; do
    command -v "$tool" >/dev/null || cannot "$tool is missing"
done
given=$1 public=$2 site=${3-} folder=''
full='there is no room for temporary files: set TMPDIR to where there is'
if [ ! -f "$public" ] || [ ! -r "$public" ]; then cannot "cannot read $public"; fi
if [ ! -e "$given" ] && [ ! -L "$given" ]; then cannot "there is no $given"; fi
if [ -L "$given" ] || [ ! -f "$given" ]; then no 'it is no regular file'; fi

folder=$(mktemp -d) || cannot 'there is no room for a temporary folder'
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
trap 'chmod -R u+rwx "$folder" 2>/dev/null; rm -rf "$folder"' EXIT
trap 'exit 2' HUP INT TERM
bundle=$folder/bundle
# A copy: what is checked first is what is checked last.
cat <"$given" >"$bundle" || cannot "it cannot be copied, or $full"
size=$(wc -c <"$bundle")
size=$((size))
[ "$size" -gt 0 ] || no 'it is empty'

openssl pkey -pubin -in "$public" -out "$folder/key.pem" 2>/dev/null ||
    cannot "$public is no public key in PEM"
algorithm=$(openssl pkey -pubin -in "$folder/key.pem" -noout -text | awk '
    NR == 1 && /^ED25519 Public-Key:/ { print "ed25519" }
    NR == 1 && match($0, /[0-9]+ bit/) { bits = substr($0, RSTART, RLENGTH) + 0 }
    $1 == "Exponent:" && $2 == "65537" && bits >= 3072 { print "rsa-pss-sha256" }
')
[ -n "$algorithm" ] || no 'the key is neither Ed25519 nor RSA of 3072 bits or more with e = 65537'
key=$(openssl pkey -pubin -in "$folder/key.pem" -outform DER | sha256sum | cut -c1-64)

# HEAD: sliced out of its stored frame.
begin=$(hex 0 10)
case $begin in
28b52ffda0*) codec=zstd ;;
1f8b08000000000000ff) codec=gzip ;;
*) no 'it does not begin with the head of a bundle' ;;
esac
command -v "$codec" >/dev/null || cannot "$codec is missing"
case $codec:$given in
zstd:*.tar.gz | gzip:*.tar.zst) no 'it is not of the codec that its name says' ;;
esac
: >"$folder/head.tar"
"read_${codec}_head"

od -An -v -tx1 -w512 "$folder/head.tar" | awk "$LIST" >"$folder/head.list" &&
    check "$folder/head.tar" "$folder/head.list" ||
    no 'the members of the head are outside the profile'
id=$(head -n 1 "$folder/head.list" | cut -f 2)
case $id in
*/manifest.json) id=${id%/manifest.json} ;;
*) no 'its first member is no manifest.json' ;;
esac
case $id in
'' | -* | *[!a-z0-9-]* | *tagmanifest-*) no 'the folder inside is no bundle id' ;;
esac
[ ${#id} -le 100 ] || no 'the folder inside is no bundle id'

# "offset size name" of its members, which are those of the format.
awk -v id="$id" '
    BEGIN {
        FS = "\t"
        split("manifest.json manifest.sig bagit.txt bag-info.txt tagmanifest-sha256.txt", want, " ")
        next_ = 1
    }
    {
        name = substr($2, length(id) + 2)
        if (substr($2, 1, length(id) + 1) != id "/") exit bad = 1
        digits = substr(name, 12, 64)
        if (next_ == 3 && name == "signatures/" digits ".sig" && length(digits) == 64 &&
            digits !~ /[^0-9a-f]/ && digits > last && ++further <= 16) {
            last = digits
            name = "signature." digits
        } else if (name != want[next_++]) exit bad = 1
        if (name ~ /sig/ && $1 > 8192) exit bad = 1
        printf "%.0f %.0f %s\n", at + 512, $1, name
        at += 512 + int(($1 + 511) / 512) * 512
    }
    END { exit bad || next_ != 6 }
' "$folder/head.list" >"$folder/head.members" ||
    no 'the members of the head are not those of the format'
mkdir "$folder/head"
while read -r from count name; do
    slice "$folder/head.tar" "$from" "$count" >"$folder/head/$name"
done <"$folder/head.members"
cd "$folder/head" || cannot 'the temporary folder is gone'

# The signature, over the bytes as they stand; then what they say.
[ -s manifest.sig ] || no 'there is no signature'
verified() {
    if [ "$algorithm" = ed25519 ]; then
        openssl pkeyutl -verify -pubin -inkey "$folder/key.pem" -rawin -in manifest.json \
            -sigfile "$1"
    else
        openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 \
            -sigopt rsa_mgf1_md:sha256 -verify "$folder/key.pem" -signature "$1" manifest.json
    fi >/dev/null 2>&1
}
verified manifest.sig || no 'the key did not sign this manifest'
if [ -e "signature.$key" ]; then
    verified "signature.$key" || no 'a further signature by this key does not fit'
fi

canonical manifest.json || no 'manifest.json is not canonical JSON'
jq -rs --arg id "$id" --arg site "$site" --arg key "$key" --arg algorithm "$algorithm" \
    --arg codec "$codec" --arg now "$(date -u +%Y-%m-%dT%H:%M:%S)" "$MANIFEST" manifest.json \
    >"$folder/facts" 2>/dev/null || no 'a field of manifest.json is not what it must be'
{
    read -r found
    read -r entries_bytes entries_count entries_sha256
    read -r frames_bytes frames_count frames_sha256
    read -r signed_totals
    read -r chunk_size
    read -r signed_content
    read -r date
    read -r from
    cat >"$folder/index.frames"
} <"$folder/facts"
[ "$found" = good ] || no "$found"

# INDEX.
unpack "$folder/index.frames" "$folder/index.tar"
frames_at=$((1024 + (entries_bytes + 511) / 512 * 512))
slice "$folder/index.tar" 512 "$entries_bytes" >entries.jsonl
slice "$folder/index.tar" "$frames_at" "$frames_bytes" >frames.jsonl
if [ "$(digest entries.jsonl) $(awk 'END { print NR }' entries.jsonl)" != \
    "$entries_sha256 $entries_count" ] ||
    [ "$(digest frames.jsonl) $(awk 'END { print NR }' frames.jsonl)" != \
        "$frames_sha256 $frames_count" ]; then
    no 'the index is not the one that was signed'
fi
canonical entries.jsonl && canonical frames.jsonl || no 'the index is not canonical JSON'
jq -r --argjson chunk "$chunk_size" "$ENTRIES" entries.jsonl >"$folder/lines" 2>/dev/null ||
    no 'an entry breaks the format'
awk '{ print substr($0, 3) > (folder "/" substr($0, 1, 1)) }' folder="$folder" "$folder/lines"
[ ! -e "$folder/W" ] || no "an entry breaks the format: $(head -n 1 "$folder/W")"
# jq goes on after a line it fails at, and then exits as if nothing had been.
[ "$(awk 'END { print NR }' "$folder/P" 2>/dev/null)" = "$entries_count" ] ||
    no 'an entry breaks the format'
jq -r "$JQ"'if frame then "\(.raw) \(.size) \(.sha256)" else "wrong" end' frames.jsonl \
    >"$folder/payload.frames" 2>/dev/null || no 'a line of frames.jsonl breaks the format'
awk '$0 == "wrong" { exit 1 }' "$folder/payload.frames" ||
    no 'a line of frames.jsonl breaks the format'

# Paths and members.
[ -e "$folder/M" ] || no 'there is no file in it'
mkdir "$folder/hashed"
: >"$folder/hashes"
wrong=$(awk -v out="$folder/keys" -v folder="$folder/hashed" -v hashes="$folder/hashes" \
    -v base=$((${#id} + 6)) "$NAMES" "$folder/P") || no "${wrong:-the names break the format}"
(cd "$folder/hashed" && find . -type f -exec sha256sum {} +) | sort -k 2 |
    cmp -s - "$folder/hashes" || no 'a member is not the one that the rule gives'
sort "$folder/keys" | awk "$BESIDE" || no 'two entries cannot stand beside each other'
awk 'BEGIN { FS = "\t" } $4 > 0 { n += $4 } END { exit n > 1000000 }' "$folder/P" ||
    no 'it has more than a million chunks'
awk 'BEGIN { FS = "\t" } { print $1 "  " $3 }' "$folder/M" >manifest-sha256.txt
digests_bytes=$(($(wc -c <manifest-sha256.txt)))
printf '%s\t%s/%s\n' "$entries_bytes" "$id" entries.jsonl "$frames_bytes" "$id" frames.jsonl \
    "$digests_bytes" "$id" manifest-sha256.txt >"$folder/index.list"
check "$folder/index.tar" "$folder/index.list" ||
    no 'the members of the index are not those of the format'
slice "$folder/index.tar" $((frames_at + 512 + (frames_bytes + 511) / 512 * 512)) "$digests_bytes" |
    cmp -s - manifest-sha256.txt || no 'manifest-sha256.txt is not the one that the entries make'

# Totals, the cut, and the files that are functions of the rest.
awk -v id="$id" 'BEGIN { FS = "\t" } { print $2 "\t" id "/" $3 }' "$folder/M" \
    >"$folder/payload.list"
awk "$CUT" "$folder/payload.list" >"$folder/cut"
totals=$(awk '{ n += $1 } END { printf "%.0f", n }' "$folder/payload.list")
files=$(awk '$1 == "file" { n++ } END { print n + 0 }' "$folder/P")
raws=$(awk '{ n += $1 } END { printf "%.0f", n }' "$folder/cut")
[ "$signed_totals" = "$files $totals $raws" ] || no 'the totals are not those of the entries'
cut -d ' ' -f 1 "$folder/payload.frames" | cmp -s - "$folder/cut" ||
    no 'the frames are not cut as the rule says'
awk "$CUT" "$folder/index.list" >"$folder/cut"
cut -d ' ' -f 1 "$folder/index.frames" | cmp -s - "$folder/cut" ||
    no "the index's frames are not cut as the rule says"
content=$(jq -cS 'del(.chunks, .gid, .media_type, .member, .mtime_ns, .source, .uid)' \
    entries.jsonl | sort | sha256sum | cut -c1-64)
[ "$content" = "$signed_content" ] || no 'content_sha256 is not that of the entries'

printf 'BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n' | cmp -s - bagit.txt ||
    no 'bagit.txt is not the one it must be'
printf 'Bagging-Date: %s\nExternal-Identifier: %s\nPayload-Oxum: %s.%s\nSource-Organization: %s\n' \
    "$date" "$id" "$totals" "$(awk 'END { print NR }' "$folder/M")" "$from" |
    cmp -s - bag-info.txt || no 'bag-info.txt is not the one that the manifest makes'
sha256sum bag-info.txt bagit.txt entries.jsonl frames.jsonl manifest-sha256.txt manifest.json |
    cmp -s - tagmanifest-sha256.txt || no 'tagmanifest-sha256.txt is not the one it must be'

# PAD.
if [ "$codec" = zstd ]; then
    count=$(((4096 - at % 4096) % 4096))
    [ "$count" -ge 8 ] || count=$((count + 4096))
    need $((at + count))
    rest=$((count - 8))
    expected=$(printf '502a4d18%02x%02x0000' $((rest % 256)) $((rest / 256)))
    [ "$(hex "$at" 8)" = "$expected" ] || no 'the padding is not the one it must be'
    slice "$bundle" $((at + 8)) "$rest" | tr -d '\000' | cmp -s - /dev/null ||
        no 'the padding is not the one it must be'
    at=$((at + count))
fi

# PAYLOAD, and the end.
unpack "$folder/payload.frames" "$folder/payload.tar"
if [ "$codec" = zstd ]; then
    expected=28b52ffd6400034d00001000000100fb2b8005cdac85f0
else
    expected=1f8b08000000000000ff63601805a360148c5400002eafb5ef00040000
fi
need $((at + ${#expected} / 2))
[ "$(hex "$at" $((${#expected} / 2)))" = "$expected" ] || no 'it does not end in the end frame'
[ $((at + ${#expected} / 2)) -eq "$size" ] || no 'something stands after its end'

check "$folder/payload.tar" "$folder/payload.list" ||
    no 'the members are not those of the entries'
mkdir "$folder/tree"
tar -xf "$folder/payload.tar" -C "$folder/tree" --no-same-owner --no-same-permissions \
    2>/dev/null || no 'the payload cannot be unpacked'
cp manifest-sha256.txt "$folder/tree/$id/" && cd "$folder/tree/$id" || no 'it has no payload'
sha256sum -c --strict --quiet manifest-sha256.txt >/dev/null 2>&1 ||
    no "a file's content is not the one that was signed"
: >>"$folder/J"
while IFS='	' read -r sum name; do
    [ "$(cat "$name".??????.chunk | sha256sum | cut -c1-64)" = "$sum" ] ||
        no 'the chunks of a file do not make up the file'
done <"$folder/J"

printf 'yes: %s from %s, %s files, %s bytes, manifest %s\n' "$id" \
    "$from" "$files" "$totals" \
    "$(digest "$folder/head/manifest.json")"
