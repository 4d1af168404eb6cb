"""From the inbox to the queue: what is there, what is complete, claim and admit."""

from spoold.intake.loop import Intake
from spoold.intake.request import Idempotency, ParsedRequest, parse
from spoold.intake.settings import IntakeMetrics, IntakeSettings, ScanReport, WatchMode, WriterCheck

__all__ = [
    "Idempotency",
    "Intake",
    "IntakeMetrics",
    "IntakeSettings",
    "ParsedRequest",
    "ScanReport",
    "WatchMode",
    "WriterCheck",
    "parse",
]
