"""What an attempt may use of the machine, as far as the kernel counts it (setrlimit(2)).

Memory is limited as RLIMIT_DATA: heap, anonymous mappings and thread stacks. RLIMIT_AS would count
what is only reserved, 64 MiB for each thread's heap, and mapped files and libraries: a worker that
has touched 80 MB has an address space of 240, with eight threads of 690. The limit is the worker
process's, which runs one attempt at a time; beyond it an allocation fails, and the attempt with it.

Processor time is counted over the life of a process, so each attempt's limit begins with what was
used before it. Beyond it the kernel ends the worker (SIGXCPU), in whatever code it is.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager


def limit_process(memory_bytes: int) -> None:
    """Limit this worker's memory, 0: not at all; and let it never leave a core: that has its key.

    Only the soft limits: what it starts may be given others.
    """
    _set_soft(resource.RLIMIT_CORE, 0)
    if memory_bytes:
        _set_soft(resource.RLIMIT_DATA, memory_bytes)


@contextmanager
def processor_time(seconds: int) -> Iterator[None]:
    """What runs inside may use so many seconds of processor time, one more at most; 0: any."""
    if not seconds:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_CPU)
    # Whole seconds, the one that has begun included.
    _set_soft(resource.RLIMIT_CPU, int(time.process_time()) + 1 + seconds)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def _set_soft(number: int, value: int) -> None:
    """Set a soft limit; where the hard one is lower, that stands."""
    hard = resource.getrlimit(number)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (most, hard))
