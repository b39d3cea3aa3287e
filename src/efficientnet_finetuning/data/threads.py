"""Map a function over items on all cores, in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from efficientnet_finetuning.data.blocks import cut
from efficientnet_finetuning.workers import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map on all cores, in order, with a bounded number of items in flight. Pillow releases the GIL while it works."""

    def of_chunk(chunk: list[Item]) -> list[Result]:
        return [function(item) for item in chunk]

    workers = num_cores()
    # With single items, threads would spend a tenth of their time waiting for the GIL.
    chunks = cut(items, 8)
    pool = ThreadPoolExecutor(workers)
    try:
        pending: deque[Future[list[Result]]] = deque(
            pool.submit(of_chunk, chunk) for chunk in islice(chunks, 3 * workers)
        )
        while pending:
            results = pending.popleft().result()
            pending.extend(pool.submit(of_chunk, chunk) for chunk in islice(chunks, 1))
            yield from results
    finally:
        # Not waiting: Python may collect a forgotten generator while it starts a thread, and then would wait forever.
        pool.shutdown(wait=False, cancel_futures=True)
