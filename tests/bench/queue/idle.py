"""What a daemon costs while nothing happens."""

import time
from typing import NamedTuple

from tests.bench.queue.site import Cpu, Memory, Site, memory

SETTLE_SECONDS = 10.0


class Idle(NamedTuple):
    """CPU in per cent of one core; memory of the supervisor and of the larger worker."""

    cpu: Cpu
    supervisor: Memory
    worker: Memory


def run(site: Site, seconds: float) -> Idle:
    """Let it settle, then watch it for so long."""
    time.sleep(SETTLE_SECONDS)
    before, begin = site.cpu(), time.perf_counter()
    time.sleep(seconds)
    spent = time.perf_counter() - begin
    used = site.cpu().since(before)
    return Idle(
        Cpu(*(100 * part / spent for part in used)),
        memory(site.supervisor),
        max(map(memory, site.workers())),
    )
