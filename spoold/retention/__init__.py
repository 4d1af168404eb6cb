"""How long what is finished stays in the tree: the rules, what holds a file back, its removal.

Guarantees: only files that a job has published are removed, known by inode, size and time, or by
what a status file says of itself; never a link, never what an unfinished job names, never a pinned
bundle. One process at a time removes. A signed final status goes after all else of its job.
Not guaranteed: anything against somebody who replaces a file in the instant in which it is renamed
away; he gets it back, unless the process is ended just then.
Crash: a file in `trash/` is removed by the next sweep; a name whose file is gone is given up by the
next round.
"""

from spoold.retention.lock import removing
from spoold.retention.remover import Removed, Remover
from spoold.retention.rounds import Retention, Round, prune_jobs
from spoold.retention.rules import Limits, RetentionSettings, beyond

__all__ = [
    "Limits",
    "Removed",
    "Remover",
    "Retention",
    "RetentionSettings",
    "Round",
    "beyond",
    "prune_jobs",
    "removing",
]
