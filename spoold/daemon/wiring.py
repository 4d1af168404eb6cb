"""From the configuration to what each stage is given."""

import os
import socket

from spoold.actions.context import ActionSettings, Quotas
from spoold.config import Config
from spoold.intake.settings import Idempotency, IntakeSettings, WriterCheck
from spoold.queue.job import RetryPolicy
from spoold.retention import RetentionSettings
from spoold.sinks.tree import LinkPolicy
from spoold.trust import load_signer
from spoold.trust_store import FreshTrust
from spoold.worker.settings import WorkerSettings


def intake_settings(config: Config) -> IntakeSettings:
    """What the intake is given."""
    intake = config.intake
    return IntakeSettings(
        site=config.site,
        host=socket.gethostname(),
        settle_seconds=intake.settle_seconds,
        rescan_seconds=intake.rescan_seconds,
        incomplete_seconds=intake.incomplete_seconds,
        polling=intake.watch == "polling",
        writer_check=WriterCheck(intake.writer_check),
        idempotency=Idempotency(intake.idempotency),
        max_request_bytes=intake.max_request_bytes,
        max_bundle_bytes=intake.max_bundle_bytes,
        min_free_bytes=intake.min_free_bytes,
        max_drops_per_minute=intake.max_drops_per_minute,
        max_drops_per_minute_per_owner=intake.max_drops_per_minute_per_owner,
        max_attempts=config.retry.max_attempts,
        timeout_seconds=config.workers.timeout_seconds,
        require_signed=intake.require_signed,
        trust=FreshTrust(config.spool, lambda: load_signer(config.signing_key, config.site)),
        handlers=config.handlers,
    )


def worker_settings(config: Config) -> WorkerSettings:
    """What the workers and their supervisor are given."""
    return WorkerSettings(
        count=config.workers.count or len(os.sched_getaffinity(0)),
        drain_seconds=config.workers.drain_seconds,
        aging_seconds=config.workers.aging_seconds,
        retry=RetryPolicy(config.retry.base_seconds, config.retry.cap_seconds),
        memory_bytes=config.workers.memory_bytes,
        cpu_seconds=config.workers.cpu_seconds,
    )


def retention_settings(config: Config) -> RetentionSettings:
    """What is kept how long."""
    return RetentionSettings(**config.retention.model_dump())


def action_settings(config: Config) -> ActionSettings:
    """What the actions are given."""
    restore = config.restore
    return ActionSettings(
        connections=config.connections,
        sinks=config.sinks,
        threads=config.workers.threads,
        links=LinkPolicy(restore.links),
        threshold=config.trust.bundle_threshold,
        quotas=Quotas(
            max_bytes=restore.max_bytes or None,
            max_entries=restore.max_entries or None,
            max_depth=restore.max_depth or None,
            max_expansion=restore.max_expansion or None,
        ),
        min_free_bytes=config.intake.min_free_bytes,
        handlers=config.handlers,
    )
