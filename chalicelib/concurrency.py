"""Calls that run at the same time, in threads."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from . import log

T = TypeVar("T")


def run_all(calls: Iterable[Callable[[], T]], workers: int) -> list[T]:
    """The results of the calls, in their order; the first error ends the run without waiting for the others.

    No more calls are taken from the iterable than workers are free.
    """
    if isinstance(calls, Sequence) and len(calls) < 2:
        return [call() for call in calls]
    results: dict[int, T] = {}
    waiting: dict[Future[T], int] = {}
    following = enumerate(calls)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="twocloud")
    try:
        while True:
            while len(waiting) < workers and (entry := next(following, None)):
                waiting[pool.submit(log.carried(entry[1]))] = entry[0]
            if not waiting:
                return [results[n] for n in range(len(results))]
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=waiting.__getitem__):    # so that the same failures give the same error
                results[waiting.pop(future)] = future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
