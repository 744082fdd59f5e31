"""The loops over pages, written once: window in, complete rows out, or an error.

An adapter gives a `fetch` that asks for one page and takes one of
  by_offset  the party can start at any row and tells the total: the first page, then the rest side by side
  by_page    the party knows numbered pages and tells the total: the same, cut to the window
  by_token   the party hands out an opaque token for the next page: a walk from the start
A server that shows up on two pages counts once. If the count and the rows disagree, or a walk meets a token
again, the listing is done once anew, then it is PartyMalformed: never a shorter list.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from chalicelib import journal
from chalicelib.errors import PartyMalformed
from chalicelib.model import WHOLE, Window

T = TypeVar("T")
U = TypeVar("U")
_MOST_PAGES = 20_000                        # of one walk: an endless one ends here, if not at its deadline


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One answer. `rows`: (id, row) in the party's order. `total`: of the whole list. `token`: of the next page."""

    rows: Sequence[tuple[str, T]]
    total: int | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Rows(Generic[T]):
    """The rows of the window and the total of the whole list; None: not known, but more rows follow the window."""

    rows: list[T]
    total: int | None


def side_by_side(calls: Sequence[Callable[[], T]], workers: int) -> list[T]:
    """The results of the calls, in their order; the first error ends it all without waiting for the others."""
    if len(calls) < 2:
        return [call() for call in calls]
    pool = ThreadPoolExecutor(min(workers, len(calls)), thread_name_prefix="twocloud")
    try:
        futures = [pool.submit(journal.carried(call)) for call in calls]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:              # in order, so that the same failures give the same error
            if future in done:
                future.result()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def both(one: Callable[[], T], other: Callable[[], U]) -> tuple[T, U]:
    """The results of two calls made at the same time; the first error ends it without waiting for the other."""
    results = side_by_side([one, other], 2)
    return cast(tuple[T, U], tuple(results))


def by_offset(fetch: Callable[[int, int], Page[T]], window: Window, page_size: int, workers: int) -> Rows[T]:
    """`fetch(offset, limit)`, offset from 0. A window that fits into one page is one call."""
    for _ in range(2):
        rows = _offsets_once(fetch, window, page_size, workers)
        if rows is not None:
            return rows
    raise PartyMalformed("The party's count and its rows still disagree after a second listing.")


def _offsets_once(fetch: Callable[[int, int], Page[T]], window: Window, page_size: int, workers: int,
                  ) -> Rows[T] | None:
    def limit(at: int) -> int:              # not cut to the total: rows beyond it show that it is wrong
        return page_size if window.last is None else min(page_size, window.last - at)

    start = window.first - 1
    first = fetch(start, limit(start))
    total = _total(first)
    end = total if window.last is None else min(total, window.last)
    offsets = range(start + limit(start), end, page_size)
    rest = side_by_side([lambda at=at: fetch(at, limit(at)) for at in offsets], workers)
    rows: dict[str, T] = {}
    for page in (first, *rest):
        if _total(page) != total:
            return None
        for key, row in page.rows:
            rows.setdefault(key, row)
    return Rows(list(rows.values()), total) if len(rows) == max(0, end - start) else None


def _total(page: Page[T]) -> int:
    if page.total is None or page.total < 0:
        raise PartyMalformed("The party's answer holds no total.")
    return page.total


def by_page(fetch: Callable[[int, int], Page[T]], window: Window, page_size: int, workers: int, least: int = 1,
            ) -> Rows[T]:
    """`fetch(number, size)`, number from 1, size from `least` to `page_size`.

    A window gets the smallest size at which one page holds it, or else whole pages that are cut: the fewest calls.
    """
    size, start = page_size, window.first - 1
    if window.last is not None:
        size = next((size for size in range(max(least, window.last - start), page_size + 1)
                     if start // size == (window.last - 1) // size), page_size)
    skipped = start // size * size
    whole = Window(skipped + 1, window.last and -(-window.last // size) * size)
    found = by_offset(lambda offset, limit: fetch(offset // size + 1, limit), whole, size, workers)
    end = None if window.last is None else window.last - skipped
    return Rows(found.rows[start - skipped:end], found.total)


def by_token(fetch: Callable[[str | None], Page[T]], window: Window = WHOLE) -> Rows[T]:
    """A walk that ends with the list, or as soon as a row after the window is seen.

    `fetch(None)` is the first page; a page may be short or empty although more follow.
    """
    for _ in range(2):
        rows: dict[str, T] = {}
        seen: set[str] = set()
        token: str | None = None
        while True:
            try:
                page = fetch(token)
            except PartyMalformed as refused:
                if token is None or not refused.party_word:
                    raise
                break                       # the party itself refuses the token that it gave
            for key, row in page.rows:
                rows.setdefault(key, row)
            token = page.token
            if not token:
                return Rows(cut(list(rows.values()), window), len(rows))
            if window.last is not None and len(rows) > window.last:
                return Rows(cut(list(rows.values()), window), None)
            if token in seen or len(seen) >= _MOST_PAGES:
                break
            seen.add(token)
    raise PartyMalformed("The party's pages do not come to an end.")


def cut(rows: Sequence[T], window: Window) -> list[T]:
    return list(rows[window.first - 1:window.last])
