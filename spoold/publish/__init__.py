"""Put a job's files and its signed final status into place: seven steps, each can be redone.

(1) names and the signed document, all in scratch and fsynced; (2) the job's row records outcome,
document, names and every move; (3) the results are renamed; (4) the drop; (5) the status, beside
the drop; (6) a hard link of it into `status/`; (7) the row becomes final.

Jobs that are ready together take each step together, with one commit and one fsync of a folder for
all.

Guarantees: what is visible is complete; the final document is signed once, kept in the row, and
written byte for byte by every redo; no file is overwritten; a worker that has lost its claim moves
nothing, because its scratch folder has been renamed away.
Not guaranteed: that a consumer leaves published files where they are. One that takes them at once
is met by comparing inodes, and by the final document under `status/`.
Crash: before (2) the attempt starts again from nothing. After it, whoever claims the row takes
over the scratch folder and goes through (3) to (7); a step found done is skipped.
"""

from spoold.publish.plan import LOG_FILE, Ending, Made
from spoold.publish.publisher import Publisher, Ready

__all__ = ["LOG_FILE", "Ending", "Made", "Publisher", "Ready"]
