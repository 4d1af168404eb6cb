"""Every way spoold says no: one table of codes, one exception that carries a row of it.

A code is stable: scripts branch on it. `state` is how a job that meets it ends (`rejected`: the
drop itself was bad; `failed`: it could not be done here), `exit_status` what a command returns,
`transient` whether the same attempt may succeed later, `cases` the numbers of the edge cases (E)
and hostile bundles (H) it answers.
"""

import enum
import errno
import os
from dataclasses import dataclass
from typing import Final


class Exit(enum.IntEnum):
    """Exit statuses of every command; 69, 75 and 78 are those of sysexits.h."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_TRUSTED = 3
    REJECTED = 4
    DUPLICATE = 5
    BROKEN = 6
    TIMED_OUT = 7
    CANCELLED = 8
    UNAVAILABLE = 69
    LEFT_FOR_LATER = 75
    CONFIGURATION = 78


class Ending(enum.StrEnum):
    """The final state that an error leads a job to."""

    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table."""

    name: str
    sentence: str
    hint: str
    exit_status: Exit = Exit.FAILED
    state: Ending = Ending.FAILED
    transient: bool = False
    cases: str = ""


class SpooldError(Exception):
    """Something a user can act on: a code, what failed on what, the place, and the fix.

    `message` says what failed and on what; `hint` replaces the code's own hint where more is
    known; `at` is a JSON path, a member name or a configuration key. `transient` says so of this
    one where not all of its code are alike.
    """

    def __init__(
        self,
        code: Code,
        message: str = "",
        *,
        hint: str = "",
        at: str | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(message or code.sentence)
        self.code = code
        self.message = message or code.sentence
        self.hint = hint or code.hint
        self.at = at
        self.transient = code.transient if transient is None else transient

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


CODES: Final[dict[str, Code]] = {}


def disk_code(error: OSError) -> Code:
    """What a system call's failure on a file of ours is: no-space, read-only or disk-error."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NO_SPACE
    return READ_ONLY if error.errno == errno.EROFS else DISK_ERROR


FIX_PATH: Final = "check the path, its permissions and the disk"


def of_os_error(error: OSError, hint: str = "") -> SpooldError:
    """A system call's failure on a file, with its path; or out-of-memory.

    FIX_PATH is the hint for commands: the user named the file, and nothing tries again.
    """
    if error.errno == errno.ENOMEM:
        return SpooldError(OUT_OF_MEMORY, str(error.strerror))
    where = error.filename2 or error.filename
    shown = f"{os.fsdecode(where)}: " if isinstance(where, str | bytes) else ""
    return SpooldError(disk_code(error), f"{shown}{error.strerror or error}", hint=hint)


def of_failure(error: SpooldError | OSError) -> SpooldError:
    """What either of the two is: for those who meet a failing disk as any other failure."""
    return of_os_error(error) if isinstance(error, OSError) else error


def _code(
    name: str,
    sentence: str,
    hint: str,
    *,
    exit_status: Exit = Exit.FAILED,
    state: Ending = Ending.FAILED,
    transient: bool = False,
    cases: str = "",
) -> Code:
    assert name not in CODES, name
    CODES[name] = code = Code(name, sentence, hint, exit_status, state, transient, cases)
    return code


def _rejected(name: str, sentence: str, hint: str, cases: str = "") -> Code:
    """A drop that is no valid request or no bundle at all."""
    return _code(
        name, sentence, hint, exit_status=Exit.REJECTED, state=Ending.REJECTED, cases=cases
    )


def _untrusted(name: str, sentence: str, hint: str, cases: str = "") -> Code:
    """A bundle or document that nobody we trust, in this role, has signed for us."""
    return _code(
        name, sentence, hint, exit_status=Exit.NOT_TRUSTED, state=Ending.REJECTED, cases=cases
    )


def _broken(name: str, sentence: str, hint: str, cases: str = "") -> Code:
    """A bundle that differs from what was signed, or breaks the format."""
    return _code(name, sentence, hint, exit_status=Exit.BROKEN, state=Ending.REJECTED, cases=cases)


# --- requests and drops -------------------------------------------------------------------------
_FIX_REQUEST = "correct the request and drop it again; `spoold check FILE` tells all its mistakes"

REQUEST_INVALID = _rejected(
    "request-invalid", "the request does not match spoold.request/1", _FIX_REQUEST, "E22 E38"
)
REQUEST_NOT_JSON = _rejected(
    "request-not-json", "the request is not valid JSON", _FIX_REQUEST, "E22"
)
REQUEST_TRUNCATED = _rejected(
    "request-truncated",
    "the request ends before its JSON does",
    "its writer stopped half-way: write under another name, then rename it into the inbox",
    "E04",
)
REQUEST_TOO_LARGE = _rejected(
    "request-too-large",
    "the request is larger than [intake] max_request_bytes",
    "put large content beneath a root and name it, or raise the limit",
    "E21",
)
REQUEST_UNSIGNED = _untrusted(
    "request-unsigned",
    "requests must be signed here: [intake] require_signed",
    "sign it with a key that is trusted here for requests: `spoold sign FILE --key KEY`",
)
REQUEST_EXPIRED = _rejected(
    "request-expired",
    "the request's expires_at has passed",
    "drop a new one: `expires_at` says until when a request may be dropped",
)
TOO_MANY_DROPS = _code(
    "too-many-drops",
    "more drops than [intake] max_drops_per_minute allows, in all or of one owner",
    "nothing: it is taken when its turn comes",
    exit_status=Exit.LEFT_FOR_LATER,
    transient=True,
)
DROP_EMPTY = _rejected(
    "drop-empty", "the drop is an empty file", "write the whole file, then drop it again", "E21"
)
DROP_SYMLINK = _rejected(
    "drop-symlink", "the drop is a symbolic link", "drop the file itself, not a link to it", "E17"
)
DROP_HARD_LINKS = _rejected(
    "drop-hard-links",
    "the drop has other hard links, and its disk can never hold a copy of it",
    "drop it again by `mv`, when it has no other name",
    "E18",
)
DROP_UNREADABLE = _rejected(
    "drop-unreadable",
    "the drop cannot be read by the daemon",
    "make it readable for the daemon's user or group and drop it again",
    "E26",
)
DROP_INCOMPLETE = _rejected(
    "incomplete",
    "the drop still has a writer and has not changed for [intake] incomplete_seconds",
    "end the process that holds it open, then drop the finished file again",
    "E04",
)
DROP_REFUSED = _rejected(
    "drop-refused",
    "the database refused to store this drop",
    "correct the content named in the message and drop it again",
    "E38",
)
BUNDLE_TOO_LARGE = _rejected(
    "bundle-too-large",
    "the bundle is larger than [intake] max_bundle_bytes",
    "raise the limit if a bundle of this size is expected",
    "E21",
)
IDEMPOTENCY_KEY_REUSED = _rejected(
    "idempotency-key-reused",
    "this idempotency_key belongs to another request",
    "use a new key for a new request; the same key is only for the same request again",
    "E13",
)
DROP_MISSING = _code(
    "drop-missing",
    "the job's drop is missing from the spool",
    "somebody removed it from .spoold/claimed; drop it again",
)

# --- actions and sources ------------------------------------------------------------------------
ROOT_UNKNOWN = _code(
    "root-unknown",
    "the request names a root that is not configured",
    "name one of the roots in [roots] of spoold.toml, or add it there",
)
PATH_OUTSIDE_ROOT = _code(
    "path-outside-root",
    "the path does not stay beneath its root",
    "name a path beneath the root, without .. and not through symbolic links",
)
SOURCE_MISSING = _code(
    "source-missing", "the path does not exist beneath its root", "check root and path"
)
SOURCE_UNREADABLE = _code(
    "source-unreadable",
    "a file of the source cannot be read",
    'give the daemon\'s user read access, exclude it, or set "on_error": "skip"',
)
SOURCE_CHANGED = _code(
    "source-changed",
    "a file changed or vanished while it was read",
    'ask for it when nothing writes to it, or set "on_error": "skip"',
    transient=True,
)
NOTHING_TO_BUNDLE = _code(
    "nothing-to-bundle",
    "no regular file matches: a bundle needs at least one",
    "check path, include and exclude",
)
PATH_UNSUPPORTED = _code(
    "path-unsupported",
    "a path is longer or deeper than a bundle can hold",
    "shorten it (4,096 bytes, 128 segments of 255 bytes), or exclude it",
)
ARTIFACTS_AWAY = _code(
    "artifacts-away",
    "the folder of an artifact store is not there",
    "mount it or make it: `store` of the sink in spoold.toml names it. It is tried again",
    transient=True,
)
ARTIFACT_CONFLICT = _code(
    "artifact-conflict",
    "something else stands in the artifact store under a name that is to be stored",
    "move it away, or let `conflict` of the sink in spoold.toml say what becomes of it; then "
    "`spoold retry` the job",
)

NOTHING_TO_RESTORE = _code(
    "nothing-to-restore",
    "no entry of the bundle matches",
    'check `only`: globs over paths in the bundle, as in "alerts/**"',
)
QUERY_UNKNOWN = _code(
    "query-unknown",
    "the request names a query that is not configured",
    "name one of the [queries] in spoold.toml, or add it there",
)
ENDPOINT_UNKNOWN = _code(
    "endpoint-unknown",
    "the request names an endpoint that is not configured",
    "name one of the [endpoints] in spoold.toml, or add it there",
)
STORE_UNKNOWN = _code(
    "store-unknown",
    "the request names a store that is not configured",
    "name one of the [stores] in spoold.toml, or add it there",
)
STORE_AWAY = _code(
    "store-away",
    "an object store cannot be reached, or does not do its work now",
    "check its endpoint and this host's network; the job is tried again",
    transient=True,
)
STORE_REFUSED = _code(
    "store-refused",
    "an object store does not allow what was asked",
    "check the key files of the store, and what that key may do with the bucket",
)
STORE_ANSWER = _code(
    "store-answer",
    "an object store answers otherwise than S3 does",
    "check the endpoint of the store: something else may listen there",
)
STORE_KEY_TAKEN = _code(
    "store-key-taken",
    "another object has the key that a bundle is to have",
    "nothing is replaced in a store: remove that object, then `spoold retry` the job",
)
RECIPE_UNKNOWN = _code(
    "recipe-unknown",
    "the request names a recipe that is not configured",
    "name one of the [recipes] in spoold.toml, or add it there",
)
PARAMETERS_INVALID = _code(
    "parameters-invalid",
    "the request gives other parameters than are declared",
    "`parameters` of the query, endpoint or recipe in spoold.toml says which there are",
    exit_status=Exit.REJECTED,
)
SOURCE_AWAY = _code(
    "source-away",
    "a server that the request's rows come from cannot be reached",
    "start it, or correct its address in spoold.toml; it is tried again",
    transient=True,
)
SOURCE_REFUSED = _code(
    "source-refused",
    "a server that the request's rows come from refuses spoold",
    "see the message: the user, its password or certificate, or what it may read",
)
QUERY_FAILED = _code(
    "query-failed",
    "the database cannot answer the query",
    "correct the query's section in spoold.toml, or what the message names in the database",
)
ROWS_TOO_MANY = _code(
    "rows-too-many",
    "there are more rows than max_rows",
    "ask for less, or raise max_rows in spoold.toml",
    cases="H94",
)
ROWS_INVALID = _rejected(
    "rows-invalid",
    "rows of the bundle are not such as the sink's table takes",
    "nothing was merged: correct the rows where they come from, and send them again",
    "H94",
)
ROWS_CONFLICT = _code(
    "rows-conflict",
    "the table has other content under the key of a row, and the sink is to refuse that",
    'nothing was merged: compare the two, or set on_conflict = "skip" or "update" in [[sinks]]',
)
SINK_AWAY = _code(
    "sink-away",
    "a server that the bundle's content goes to cannot be reached",
    "start it, or correct its address in spoold.toml; it is tried again",
    transient=True,
)
SINK_REFUSED = _code(
    "sink-refused",
    "what the bundle's content goes to does not take it",
    "nothing was merged: see the message",
    cases="H94",
)
API_AWAY = _code(
    "api-away",
    "the API gave no answer that can be used, though it was asked several times",
    "see whether it is up; the job is tried again by itself",
    transient=True,
)
API_SLOW = _code(
    "api-slow",
    "the API's answers took longer than [apis] time_limit_seconds",
    "raise it if there is so much to fetch; the job is tried again by itself",
    transient=True,
)
API_REFUSED = _code(
    "api-refused",
    "the API refused the request",
    "compare path and query in [endpoints] and the request's parameters with what the API takes",
)
API_UNTRUSTED = _code(
    "api-untrusted",
    "the API's server cannot be trusted, or does not trust this site",
    "compare base, ca and client_certificate in [apis] with what the server shows and wants",
)
API_REDIRECT = _code(
    "api-redirect",
    "the API leads to another place than its own host",
    "nothing but `base` is spoken to: if the API has moved, correct it in [apis]",
)
API_ANSWER_INVALID = _code(
    "api-answer-invalid",
    "the API's answer is not what it must be",
    "compare items, pages, cursor and download in [endpoints] with what the API answers",
)
API_TOO_LARGE = _code(
    "api-too-large",
    "the API's answers are larger than they may be",
    "raise max_bytes in [apis] or max_page_bytes in [endpoints] if so much is expected",
)
SECRET_UNUSABLE = _code(
    "secret-unusable",
    "a file of secrets or certificates cannot be used",
    "the daemon's user must be able to read it, and others must not: chmod 600",
    exit_status=Exit.CONFIGURATION,
)

# --- handlers -----------------------------------------------------------------------------------
DROP_TOO_LARGE = _rejected(
    "drop-too-large",
    "the drop is larger than its handler's max_bytes",
    "raise max_bytes in its [[handlers]] if drops of this size are expected",
    "E21",
)
DROP_NOT_JSON = _rejected(
    "drop-not-json",
    "the drop is not the JSON that its handler wants",
    "correct it and drop it again; `spoold check FILE` tells what is wrong",
    "E22",
)
DROP_SCHEMA = _rejected(
    "drop-schema",
    "the drop does not fulfil its handler's schema",
    "correct it and drop it again; `spoold check FILE` tells what is wrong",
    "E22",
)
HANDLER_ARGUMENT = _rejected(
    "handler-argument",
    "a value of the drop cannot be an argument of its handler's command",
    "correct the field or the name and drop it again",
)
HANDLER_UNKNOWN = _code(
    "handler-unknown",
    "the drop's handler is not configured any more",
    "bring its [[handlers]] back, then `spoold retry` the job",
)
HANDLER_NOT_STARTED = _code(
    "handler-not-started",
    "the handler's program could not be started",
    "install it, or correct `command` in its [[handlers]]; `spoold doctor` tells if it is found",
    transient=True,
)
HANDLER_FAILED = _code(
    "handler-failed",
    "the handler's tool failed",
    "see its output: `log` in `files`, and the end of it in `result`. After an exit status of "
    "retry_codes, or a signal from outside, it is tried again",
)
HANDLER_TIMEOUT = _code(
    "handler-timeout",
    "the handler's tool took longer than its timeout, and was ended",
    "raise `timeout` in its [[handlers]], or mend the tool, then `spoold retry` the job",
)
HANDLER_OUTPUT_INVALID = _code(
    "handler-output-invalid",
    "what the handler's tool left in {out} cannot be published",
    "it may hold files, folders, and links that stay within, up to result_bytes",
)

# --- trust --------------------------------------------------------------------------------------
SIGNATURE_MISSING = _untrusted(
    "signature-missing", "there is no signature", "ask the sender to sign and send it again", "H02"
)
SIGNATURE_UNTRUSTED = _untrusted(
    "signature-untrusted",
    "no trusted key made this signature",
    "if the sender is genuine, get its public key (`spoold keys show` there), compare the key id "
    "by another channel, and `spoold keys trust FILE --site NAME` here",
    "H03 H06-H08 H10",
)
KEY_ROLE = _untrusted(
    "key-role",
    "the key that signed is trusted, but not for this",
    "add the role to the key with `spoold keys trust`, if it should have it",
    "H04",
)
KEY_REVOKED = _untrusted(
    "key-revoked",
    "the key that signed has been revoked here",
    "ask the sender to sign with its present key",
    "H05",
)
KEY_UNUSABLE = _code(
    "key-unusable",
    "the key cannot be used",
    "make a new one with `spoold keys generate`: RSA of 3072 bits or more with e = 65537, "
    "or Ed25519, in a file of mode 0600",
    exit_status=Exit.NOT_TRUSTED,
    cases="H09",
)
SITE_MISMATCH = _untrusted(
    "site-mismatch",
    "the bundle says it comes from another site than its key",
    "the sender's `site` and the name given to `spoold keys trust` must agree",
    "H100",
)
NOT_ADDRESSED = _untrusted(
    "not-addressed-here",
    "the bundle is addressed to other sites",
    "carry it to a site it names, or ask for one that names this site",
    "H29",
)
EXPIRED = _untrusted(
    "expired", "the bundle's not_after has passed", "ask the sender for a new one", "H30"
)
DOCUMENT_TYPE = _untrusted(
    "document-type", "the signed document is of another type", "send the right document", "H11 H23"
)
DOCUMENT_INVALID = _broken(
    "document-invalid", "the signed document is not canonical JSON", "ask for it again"
)
SIGNATURE_INVALID = _broken(
    "signature-invalid",
    "a signature by a known key does not fit the content",
    "it was changed after signing: ask the sender to send it again",
    cases="H03",
)

# --- publishing and the queue -------------------------------------------------------------------
BUNDLE_ID_TAKEN = _code(
    "bundle-id-taken",
    "another bundle of that site has this id and is restored already",
    "ask the sender for a bundle with an id of its own",
    cases="H33",
)
RESTORED_EXISTS = _code(
    "restored-exists",
    "this bundle's folder stands in restored/ already",
    "move that folder away, then `spoold retry` the job",
)
PUBLISH_LOST = _code(
    "publish-lost",
    "files of this job vanished while they were being published",
    "somebody moved them out of .spoold: put them back; the job goes on by itself",
    transient=True,
)
NO_SPACE = _code(
    "no-space",
    "the disk is full",
    "free some space; it goes on by itself",
    transient=True,
    cases="E23 H89",
)
READ_ONLY = _code(
    "read-only",
    "the file system can only be read",
    "see the kernel's log for the reason and mount it for writing again; it goes on by itself",
    transient=True,
    cases="E23",
)
DISK_ERROR = _code(
    "disk-error",
    "a file could not be read or written",
    "check the disk and its mount; the job is tried again",
    transient=True,
    cases="H93",
)
TIMEOUT = _code(
    "timeout",
    "the attempt took longer than its timeout",
    "raise the request's timeout, or [workers] timeout_seconds",
    transient=True,
)
WORKER_LOST = _code(
    "worker-lost",
    "the worker process died during the attempt",
    "see the daemon's log for that time; memory and the content itself are the usual causes",
    transient=True,
)
OUT_OF_MEMORY = _code(
    "out-of-memory",
    "the attempt needed more memory than it may use",
    "raise [workers] memory_bytes, or make less of it at once: fewer threads, a lower level",
    transient=True,
)
CPU_LIMIT = _code(
    "cpu-limit",
    "the attempt used more processor time than it may",
    "raise [workers] cpu_seconds, or make the work smaller",
    transient=True,
)
CANCELLED = _code(
    "cancelled",
    "an operator cancelled the job",
    "drop it again if it should run after all",
    exit_status=Exit.CANCELLED,
    state=Ending.CANCELLED,
)
INTERNAL = _code(
    "internal-error",
    "spoold met a condition it does not know",
    "report it with the daemon's log of that time; the job is tried again",
    transient=True,
)

# --- the spool, its database and its commands ---------------------------------------------------
USAGE = _code("usage", "the command line is wrong", "see --help", exit_status=Exit.USAGE)
CONFIG_INVALID = _code(
    "config-invalid",
    "the configuration is not valid",
    "correct the key named; `spoold config` shows what is in force",
    exit_status=Exit.CONFIGURATION,
)
SPOOL_MISSING = _code(
    "spool-missing",
    "there is no spool here",
    "make one with `spoold init SPOOL`, or name it: argument, SPOOLD_SPOOL, or ./spool",
    exit_status=Exit.CONFIGURATION,
)
SPOOL_INVALID = _code(
    "spool-invalid",
    "the spool tree cannot be used",
    "run `spoold doctor SPOOL`: it names each fault with its fix",
    exit_status=Exit.CONFIGURATION,
    cases="E33",
)
SPOOL_FOREIGN = _code(
    "spool-foreign",
    "this spool and this database do not belong together",
    "point [database_url] at the spool's own database; `spoold adopt` accepts a spool that was "
    "moved or restored from a backup; README.md says how a copy becomes a spool of its own",
    exit_status=Exit.CONFIGURATION,
    cases="E34",
)
DATABASE_LOST = _code(
    "database-lost",
    "the spool's database is not there any more",
    "bring it back from a backup, or set database_url if it is an external one; where it is gone "
    "for good, `spoold adopt --new-database` begins with an empty one: unfinished drops begin anew,"
    " what is answered stays answered",
    exit_status=Exit.CONFIGURATION,
    cases="E34",
)
SPOOL_BUSY = _code(
    "spool-busy",
    "a daemon runs on this spool",
    "stop it first; one that was killed is forgotten after half a minute",
    exit_status=Exit.LEFT_FOR_LATER,
    cases="E34",
)
DAEMON_AWAY = _code(
    "daemon-away",
    "no daemon takes drops in here",
    "start it: `spoold run`; drops wait in the inbox until then",
    exit_status=Exit.UNAVAILABLE,
)
DATABASE_AWAY = _code(
    "database-away",
    "the database cannot be reached",
    "start the daemon (`spoold run`) for the embedded server, or check database_url",
    exit_status=Exit.UNAVAILABLE,
    transient=True,
    cases="E28",
)
CIRCUMSTANCES: Final = frozenset({NO_SPACE, READ_ONLY, DATABASE_AWAY})
"""What is no fault of the job that meets it: such an attempt is made again, and not counted."""

DATABASE_UNFIT = _code(
    "database-unfit",
    "the database server cannot be used",
    "mend what the message names, then start the daemon again",
    exit_status=Exit.CONFIGURATION,
)
SCHEMA_NEWER = _code(
    "schema-newer",
    "a newer spoold has changed the queue's tables",
    "install that version on this host too, then start the daemon again: no job is lost",
    exit_status=Exit.CONFIGURATION,
)
JOB_UNKNOWN = _code("job-unknown", "there is no such job or drop", "see `spoold jobs`")
JOB_STATE = _code("job-state", "the job's state does not allow this", "see `spoold jobs`")
WAIT_TIMEOUT = _code(
    "wait-timeout",
    "the drop was not final in time",
    "it goes on: look again with `spoold status NAME`",
    exit_status=Exit.TIMED_OUT,
)

# --- commands -----------------------------------------------------------------------------------
DROP_NAME = _code(
    "drop-name",
    "no drop may have this name",
    "name it request-….json, ….tar.zst or ….tar.gz; --as NAME drops it under another name",
    exit_status=Exit.USAGE,
    cases="E35",
)
NAME_BUSY = _code(
    "name-busy",
    "a drop of this name stands in the inbox and waits to be taken",
    "wait until it is gone, or drop this one under another name (--as NAME)",
    exit_status=Exit.LEFT_FOR_LATER,
    transient=True,
    cases="E12",
)
DROP_GONE = _code(
    "drop-gone",
    "the drop was taken out of the inbox before the daemon took it",
    "drop it again",
)
KEY_EXISTS = _code(
    "key-exists", "the site has a signing key", "`spoold keys generate --rotate` replaces it"
)
KEY_UNKNOWN = _code("key-unknown", "there is no such key", "see `spoold keys list`")
BUNDLE_UNKNOWN = _code(
    "bundle-unknown", "there is no such bundle in this spool", "see `spoold bundles list`"
)
BUNDLE_PINNED = _code(
    "bundle-pinned",
    "the bundle is pinned",
    "`spoold bundles unpin` it first, if it may go",
)
BUNDLE_NEEDED = _code(
    "bundle-needed",
    "a job that is not final needs the bundle",
    "wait until that one is final, or cancel it: `spoold jobs` lists it",
    exit_status=Exit.LEFT_FOR_LATER,
    transient=True,
)
RETENTION_BUSY = _code(
    "retention-busy",
    "another process is removing files of this spool",
    "it takes seconds: try again",
    exit_status=Exit.LEFT_FOR_LATER,
    transient=True,
)

# --- bundles ------------------------------------------------------------------------------------
_SEND_AGAIN = "it was damaged or changed on the way: ask the sender to send it again"

NOT_A_BUNDLE = _rejected(
    "not-a-bundle",
    "the file is no spoold bundle",
    "drop a bundle made by spoold",
    "H01 H21 H77 H79 H85 H86 H90 H97",
)
BUNDLE_TRUNCATED = _broken(
    "bundle-truncated",
    "the bundle ends too early",
    "the copy was not complete: copy it again, then `sync`",
    "E04 H75 H77 H91",
)
HEAD_MALFORMED = _broken(
    "head-malformed",
    "the head frame is not what its own members make",
    _SEND_AGAIN,
    "H19 H21 H50-H68 H85 H97",
)
BUNDLE_ID_INVALID = _broken(
    "bundle-id-invalid",
    "the folder inside the bundle is not the bundle id of its manifest",
    _SEND_AGAIN,
    "H33",
)
MEMBER_UNEXPECTED = _broken(
    "member-unexpected",
    "a member stands where the format has none",
    _SEND_AGAIN,
    "H20 H21 H24",
)
MEMBER_HEADER = _broken(
    "member-header",
    "a member's header is not the one that its entry gives",
    _SEND_AGAIN,
    "H22 H24 H34-H39 H41 H42 H49-H68 H72 H88",
)
NOT_CANONICAL = _broken(
    "not-canonical", "a signed document is not canonical JSON", _SEND_AGAIN, "H11 H13-H18 H39 H40"
)
FIELD_UNKNOWN = _broken(
    "field-unknown",
    "a signed document has a field that version 1 does not know",
    "a newer spoold made it: bring this site to the sender's version",
    "H23",
)
MANIFEST_INVALID = _broken(
    "manifest-invalid", "the manifest breaks the format", _SEND_AGAIN, "H19 H23 H33 H84"
)
MANIFEST_KEY = _broken(
    "manifest-key",
    "the manifest names another key than the one that signed it",
    _SEND_AGAIN,
    "H03",
)
THRESHOLD_NOT_MET = _untrusted(
    "threshold-not-met",
    "fewer trusted keys than required have signed",
    "have it signed at more of the sites that are trusted here: `spoold resign`",
    "H12",
)
QUOTA_EXCEEDED = _untrusted(
    "quota-exceeded",
    "the bundle is larger than this site takes",
    "raise [restore] max_bytes, max_entries, max_depth or max_expansion, as named in the message, "
    "if bundles of this size are expected",
    "H89",
)
CODEC_MISMATCH = _broken(
    "codec-mismatch",
    "the file is not of the codec that its name or its manifest says",
    _SEND_AGAIN,
    "H78",
)
FRAME_DIGEST = _broken(
    "frame-digest-mismatch",
    "a frame is not the one that was signed",
    _SEND_AGAIN,
    "H69 H72 H78 H79 H81 H86 H91",
)
FRAME_INVALID = _broken(
    "frame-invalid",
    "a frame is of a kind that the format does not allow",
    _SEND_AGAIN,
    "H78-H84 H86 H97",
)
FRAME_CUT = _broken(
    "frame-cut",
    "the frames are not cut as the rule says",
    _SEND_AGAIN,
    "H20 H24 H34 H35 H49-H51 H54 H56-H58 H70 H71 H73 H74 H84 H86 H87",
)
PAD_INVALID = _broken(
    "pad-invalid", "the padding before the payload is not the one it must be", _SEND_AGAIN, "H79"
)
END_INVALID = _broken(
    "end-invalid", "the bundle does not end in the end frame", _SEND_AGAIN, "H71 H75 H79 H86 H97"
)
TRAILING_DATA = _broken(
    "trailing-data", "something stands after the end of the bundle", _SEND_AGAIN, "H74 H76 H91"
)
INDEX_DIGEST = _broken(
    "index-digest-mismatch",
    "an index file is not the one that was signed",
    _SEND_AGAIN,
    "H22",
)
TAG_FILE = _broken(
    "tag-file-mismatch",
    "a BagIt file says something else than the signed index",
    _SEND_AGAIN,
    "H22 H98",
)
ENTRY_INVALID = _broken(
    "entry-invalid",
    "a line of the index breaks the format",
    _SEND_AGAIN,
    "H40 H41 H43 H47 H62 H67 H88",
)
ENTRY_PATH = _broken(
    "entry-path",
    "an entry's path is not allowed",
    "do not trust this sender's program: nothing was written",
    "H34-H36 H41 H47",
)
ENTRY_ORDER = _broken("entry-order", "the entries are not in order", _SEND_AGAIN, "H72")
ENTRY_COLLIDES = _broken(
    "entry-collides",
    "two entries cannot stand beside each other",
    _SEND_AGAIN,
    "H45 H99",
)
ENTRY_MEMBER = _broken(
    "entry-member",
    "an entry's member is not the one that the rule gives",
    _SEND_AGAIN,
    "H34 H35 H37-H40 H43 H44 H47 H49",
)
ENTRY_CHUNKS = _broken(
    "entry-chunks", "an entry's chunks do not make up the file", _SEND_AGAIN, "H64 H88"
)
ENTRY_DIGEST = _broken(
    "entry-digest-mismatch",
    "a file's content is not the one that was signed",
    _SEND_AGAIN,
    "H69 H72 H88",
)
TOTALS_MISMATCH = _broken(
    "totals-mismatch",
    "the manifest's totals are not those of its entries",
    _SEND_AGAIN,
    "H22 H34 H35 H49-H51 H54 H56-H59 H70 H71 H73 H74 H86",
)
SYMLINK_LEAVES = _code(
    "symlink-leaves",
    "a symbolic link cannot be shown to stay inside the restored tree",
    "if the sender is to make such links: [restore] links, or `spoold restore --links skip`",
    exit_status=Exit.BROKEN,
    state=Ending.REJECTED,
    cases="H48",
)
SOURCES_COLLIDE = _code(
    "sources-collide",
    "two sources bring the same path",
    'give each source its own "into", or exclude the path in one of them',
)
ENTRY_TOO_LARGE = _code(
    "entry-too-large",
    "the content needs more chunks than a bundle can hold",
    "raise chunk_size (4GiB at most)",
)
MANIFEST_TOO_LARGE = _code(
    "manifest-too-large",
    "the manifest does not fit into the 4 MiB of a bundle's head",
    "use fewer or shorter labels, or make several bundles of it",
)
ALREADY_SIGNED = _code(
    "already-signed",
    "this key has signed the bundle already",
    "one signature of a key is enough: have another site sign, or name another --key",
)
SIGNATURES_FULL = _code(
    "signatures-full",
    "the bundle has as many signatures as a bundle can have",
    "16 further signatures are the limit",
)
TARGET_EXISTS = _code(
    "target-exists",
    "what is to be written stands there already",
    "move it away, write to another place, or restore with --conflict",
)
TARGET_COLLIDES = _code(
    "target-collides",
    "two entries become one name on the target's file system",
    "restore to a file system that tells upper from lower case and keeps names as they are",
)
