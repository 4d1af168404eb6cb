"""What `doctor` looks at of the sinks: their names and owners, and stores of artifacts."""

import os
from collections.abc import Iterator

from spoold.config import Config
from spoold.doctor.finding import Finding, Level
from spoold.errors import SpooldError
from spoold.sinks.artifacts import ArtifactSettings
from spoold.sinks.sink import SinkSettings, open_sink


def examine_sinks(config: Config) -> Iterator[Finding]:
    """Open each sink, which connects to nothing; look at the folders of stores."""
    # Another user's doctor cannot know what the daemon may.
    ours = config.spool.root.stat().st_uid == os.geteuid()
    for settings in config.sinks:
        try:
            open_sink(settings, config.connections)
        except SpooldError as error:
            level = Level.FAIL if ours else Level.WARN
            yield Finding(level, f"sink {settings.name}", error.message, error.hint)
        else:
            yield _place(settings, ours=ours)


def _place(settings: SinkSettings, *, ours: bool) -> Finding:
    check = f"sink {settings.name}"
    if not isinstance(settings, ArtifactSettings):
        return Finding(Level.OK, check, f"kind {settings.kind}")
    if not os.path.isdir(settings.store):
        return Finding(
            Level.WARN,
            check,
            f"{settings.store} is no folder here, now",
            "mount it or make it before bundles come",
        )
    if ours and not os.access(settings.store, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            Level.FAIL,
            check,
            f"{settings.store} cannot be written",
            "let the daemon's user read and write there",
        )
    return Finding(Level.OK, check, settings.store)
