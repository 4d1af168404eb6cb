"""Frames in parallel: a bounded number in flight, results in order.

Compressing, decompressing and hashing release the interpreter's lock, so threads use all cores;
each frame is one single-threaded call, so that bytes do not depend on how many there are.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

_AHEAD: Final = 2  # frames in flight beyond one a thread: what keeps threads busy between collects

_Result = TypeVar("_Result")


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Pool:
    """A few threads, and a limit to what is under way.

    No threads: each call is made at once, by its caller. For a frame or two that is cheaper.
    """

    def __init__(self, threads: int) -> None:
        assert threads >= 0
        self._executor = (
            ThreadPoolExecutor(threads, thread_name_prefix="frame") if threads else _Caller()
        )
        self.limit = threads + _AHEAD

    def close(self) -> None:
        """Wait for what is under way, forget the rest."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, call: Callable[[], _Result]) -> "Future[_Result]":
        """Have a call made by one of the threads."""
        return self._executor.submit(call)


class _Caller(Executor):
    """Runs every call in the thread that submits it."""

    def submit(
        self, call: Callable[..., _Result], /, *args: object, **kwargs: object
    ) -> "Future[_Result]":
        future: Future[_Result] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # raised where the result is asked for
            future.set_exception(error)
        return future


class Ordered(Generic[_Result]):
    """Results of submitted calls, in the order of submission."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._futures: deque[Future[_Result]] = deque()

    def submit(self, call: Callable[[], _Result]) -> Iterator[_Result]:
        """Submit a call; yield the results that have to be taken to stay within the limit."""
        self._futures.append(self._pool.submit(call))
        while len(self._futures) > self._pool.limit or (self._futures and self._futures[0].done()):
            yield self._futures.popleft().result()

    def drain(self) -> Iterator[_Result]:
        """Yield all that is still under way."""
        while self._futures:
            yield self._futures.popleft().result()


def ordered_map(pool: Pool, calls: Iterable[Callable[[], _Result]]) -> Iterator[_Result]:
    """Make calls as results are taken, a few ahead; yield their results in order."""
    futures: deque[Future[_Result]] = deque()
    try:
        for call in calls:
            futures.append(pool.submit(call))
            if len(futures) >= pool.limit:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
