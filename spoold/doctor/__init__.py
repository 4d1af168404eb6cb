"""`doctor`: the tree, the configuration, keys, the daemon, the database, the inbox, the space."""

from spoold.doctor.checks import examine
from spoold.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
