"""Root works on a spool that belongs to another user: what it makes there becomes that user's.

Else a key that root trusted, or a configuration that root wrote, could not be read by the daemon.
"""

import os
from pathlib import Path


def hand_over(*paths: Path) -> None:
    """Give each path that root made to the owner of its folder; above before below.

    For anyone but root this does nothing. Symbolic links are not followed.
    """
    if os.geteuid() != 0:
        return
    for path in paths:
        above, own = path.parent.stat(), path.lstat()
        if own.st_uid == 0 and above.st_uid != 0:
            os.chown(path, above.st_uid, above.st_gid, follow_symlinks=False)
