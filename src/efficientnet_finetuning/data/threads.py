"""Mapping on all cores, in order, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map on all cores, in order, with a bounded number of items in flight; Pillow releases the lock while it works."""
    workers = num_cores()
    with ThreadPoolExecutor(workers) as pool:
        remaining = iter(items)
        pending: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(remaining, 8 * workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
