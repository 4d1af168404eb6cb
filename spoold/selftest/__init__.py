"""`selftest fence`: workers that stall lose their jobs, and then neither row nor file obeys them.

Real claims, scratch folders and publications, in the database that the spool uses, but under a
spool id that no tree is bound to, and in a folder of `.spoold`: no job and no drop of the user is
touched. Workers stall at random between any two steps, as if they were stopped, past leases of
some milliseconds; their jobs are taken back, and claimed by others. Each that has lost a job goes
on as if it had not, and then tries every write and every rename that it could want.

Guarantees: rows and folder are removed at the end, however it ends.
Crash: they stay, and the next self-test of that spool removes them.
"""

from spoold.selftest.proof import JOBS, fence
from spoold.selftest.record import Fence

__all__ = ["JOBS", "Fence", "fence"]
