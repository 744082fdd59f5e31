"""The loops over pages, written once: window in, complete rows out, or an error.

An adapter gives a `fetch` that requests one page and uses one of
  by_offset  the party can start at any row and states the total: the first page, then the rest in parallel
  by_page    the party has numbered pages and states the total: the same, cut to the window
  by_place   the party can start at any row and states no total: a walk whose pages share a row
  by_token   the party returns an opaque token for the next page: a walk from the start

A fleet may change while its pages are read, and rows then shift from page to page. What proves that no row fell
between two pages is their seam: pages that share a row. In a fixed order, a server that lives through both reads
comes before the shared row, and is on the first page, or after it, and is on the second. A page that is not full ends
the list. Seams cost calls, so they are paid for only in doubt:
  - totals equal, pages full, every row once: joined without seams. A server can be lost so only if another one was
    created meanwhile, so the caller compares the ids with its snapshot (`Reading.joined`) and reads with seams if they
    differ;
  - totals differ, a row comes twice: each seam is mended by a page around it;
  - the caller asks for it (`reading(seams=True)`): pages are laid out to share a row;
  - the first listing of a source (`reading(first=True)`): pages at any row are laid out to share one, which costs one
    call in a hundred. Numbered pages cannot share a row at that price. Their last page is read before the others and
    compared with its later reading, from a hundred pages on the first page is read once more too, and only if one of
    them differs are the seams mended. This sees most changes and proves nothing: a server is lost if others came and
    went between the pages beside it. The next listing then finds other ids than the snapshot, and reads with seams.
A window without a snapshot is joined without seams too: a proof would cost a call.
An answer that contradicts itself (a page that is short although the total names more rows) is listed once more, then
it is PartyMalformed: never a shorter list.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Generic, TypeVar

import msgspec

from ..concurrency import run_all
from ..errors import PartyContradiction, PartyMalformed, PartyThrottled
from ..model import WHOLE, Listing, Server, Window

T = TypeVar("T")
U = TypeVar("U")
_MOST_PAGES = 20_000                        # of one list: a longer one is not believed
_DISAGREE = "The party's count and its rows still disagree after a second listing."
_MANY = 100                                 # pages, of which one more is one in a hundred
_ROUNDS = 8                                 # of mending, each a page for every seam that is still open


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One answer. `rows`: (id, row) in the party's order. `total`: of the whole list. `token`: of the next page."""

    rows: Sequence[tuple[str, T]]
    total: int | None = None
    token: str | None = None


class Rows(msgspec.Struct, Generic[T], frozen=True):
    """The rows of the window and the total of the whole list; None: not known, but more rows follow the window."""

    rows: list[T]
    total: int | None

    def listing(self, server: Callable[[T], Server]) -> Listing:
        """The servers that these rows describe."""
        return Listing([server(row) for row in self.rows], self.total)


# ---------------------------------------------------------------- how a listing is read

class Reading(msgspec.Struct):
    """How the lists of one listing are read.

    `seams`: neighbouring pages share a row. `first`: there is no snapshot to compare with. `twice`: a walk whose tokens
    prove nothing is walked twice. `room`: how many more calls like the last one fit before the deadline. `joined` is
    set when pages were joined without a proof.
    """

    seams: bool = False
    first: bool = False
    twice: bool = False
    room: Callable[[], float] = lambda: inf
    joined: bool = False


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading(*, seams: bool, first: bool = False, twice: bool = False, room: Callable[[], float] = lambda: inf,
            ) -> Generator[Reading]:
    """Around a listing: how its pages are read, and afterwards whether they were joined without seams."""
    how = Reading(seams, first, twice, room)
    token = _reading.set(how)
    try:
        yield how
    finally:
        _reading.reset(token)


# ---------------------------------------------------------------- by offset, by page

@dataclass(frozen=True, slots=True)
class _Piece(Generic[T]):
    """A page as it was read: `at` its first position, `turn` the round in which it was read. Its rows by id.

    `full`: it holds as many rows as were requested. `last`: the list ends with it. `repeats`: an id comes twice.
    """

    at: int
    total: int
    turn: int
    rows: dict[str, T] = field(repr=False)
    full: bool
    last: bool
    repeats: bool

    @property
    def end(self) -> int:
        return self.at + len(self.rows)


class _Offsets(msgspec.Struct, frozen=True):
    """Pages that may start at any row: each is (position, limit). `most`: rows of the largest page."""

    most: int

    def cover(self, place: int) -> tuple[int, int]:
        """The page around a position."""
        return max(0, place - self.most // 2), self.most

    def overlapping(self, place: int, goal: int) -> list[tuple[int, int]]:
        """Pages from just before `place` to `goal`, each sharing rows with the one before: as few as can be."""
        pages, places = -(-(goal - place) // (self.most - 1)), list[tuple[int, int]]()
        for number in range(pages, 0, -1):
            shared = self.most - -(-(goal - place) // number)
            places.append((max(0, place - shared), self.most))
            place = places[-1][0] + self.most
        return places


class _Numbers(msgspec.Struct, frozen=True):
    """Numbered pages of `least` to `most` rows: they overlap where their sizes differ."""

    most: int
    least: int

    def cover(self, place: int) -> tuple[int, int]:
        """The page that reaches farthest on both sides of a position."""
        def reach(size: int) -> int:
            return min(place % size, size - place % size)

        size = max(range(self.least, self.most + 1), key=lambda size: (reach(size), size))
        return place // size * size, size

    def overlapping(self, place: int, goal: int) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = []
        while place < goal:
            size = max(range(self.least, self.most + 1), key=lambda size: ((place - 1) // size + 1) * size)
            places.append(((place - 1) // size * size, size))
            if sum(places[-1]) <= place:     # all sizes end here: no page can share a row and go on
                places[-1] = (place, self.most)
            place = sum(places[-1])
        return places


def by_offset(fetch: Callable[[int, int], Page[T]], window: Window, page_size: int, workers: int) -> Rows[T]:
    """`fetch(offset, limit)`, offset from 0. A window that fits into one page is one call."""
    return _joined(fetch, window, _Offsets(page_size), workers)


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
    joined = _joined(lambda offset, limit: fetch(offset // limit + 1, limit), whole,
                    _Numbers(size, min(max(least, 2), size)), workers)
    end = None if window.last is None else window.last - skipped
    return Rows(joined.rows[start - skipped:end], joined.total)


def _joined(fetch: Callable[[int, int], Page[T]], window: Window, pages: "_Offsets | _Numbers", workers: int,
            ) -> Rows[T]:
    how = _reading.get() or Reading()
    loop = _Loop(fetch, window, pages, workers, how)
    with suppress(PartyContradiction):
        return loop.run()
    return loop.run()


class _Loop(msgspec.Struct, Generic[T], frozen=True):
    fetch: Callable[[int, int], Page[T]]
    window: Window
    pages: _Offsets | _Numbers
    workers: int
    how: Reading

    def run(self) -> Rows[T]:
        start, most = self.window.first - 1, self.pages.most
        first = self._read(start, self._limit(start), 0)
        end = first.total if self.window.last is None else min(first.total, self.window.last)
        follow = range(start + self._limit(start), end, most)
        self._check_room(len(follow))
        if self._seams and first.full and (follow or self.window.last is None):
            goal = end + 1 if self.window.last is None else end     # one more: the last page is then not full
            return self._proven([first, *self._read_all(self.pages.overlapping(first.end, goal), 0)])
        if self.how.first and self.window.last is None and first.full and not isinstance(self.pages, _Offsets):
            return self._framed(first, follow, end)
        pieces = [first, *self._read_all([(at, self._limit(at)) for at in follow], 0)]
        if (rows := self._quiet(pieces, end)) is not None:
            self.how.joined |= len(pieces) > 1 or (first.full and self.window.last is None)
            return Rows(rows, first.total)
        return self._proven(pieces)

    @property
    def _seams(self) -> bool:
        first = self.how.first and self.window.last is None and isinstance(self.pages, _Offsets)
        return self.pages.most > 1 and (self.how.seams or first)

    def _framed(self, first: _Piece[T], follow: range, end: int) -> Rows[T]:
        """The pages between two readings of the last one, and of the first one where that is one call in a hundred.
        Behind a single page, the page that follows must be empty."""
        if not follow:
            return self._proven([first, self._read(first.end, self.pages.most, 0)])
        before = [self._read(follow[-1], self.pages.most, 0)]
        pieces = [first, *self._read_all([(at, self.pages.most) for at in follow], 0)]
        after = [pieces[-1]]
        if len(pieces) >= _MANY:
            before.append(first)
            after.append(self._read(first.at, self.pages.most, 0))
        same = all(list(one.rows) == list(other.rows) for one, other in zip(before, after, strict=True))
        rows = self._quiet([*pieces, *before, *after], end)
        return Rows(rows, first.total) if same and rows is not None else self._proven(pieces)

    def _limit(self, at: int) -> int:       # not cut to the total: rows beyond it show that it is wrong
        return self.pages.most if self.window.last is None else min(self.pages.most, self.window.last - at)

    def _check_room(self, calls: int) -> None:
        """Refuse a total before memory or calls are spent on it."""
        if calls > _MOST_PAGES:
            raise PartyMalformed("The party states an impossible total.")
        if calls > self.how.room():
            raise PartyThrottled("The party's documented rate limit does not allow so many calls in one request. "
                                 "Request a range (`f`, `t`).")

    def _read(self, at: int, limit: int, turn: int) -> _Piece[T]:
        page = self.fetch(at, limit)
        count = len(page.rows)
        if page.total is None or page.total < 0:
            raise PartyMalformed("The party's answer lacks the total.")
        if count > limit:
            raise PartyMalformed("The party's page holds more rows than were requested.")
        if (count and at + count > page.total) or (count < limit and at + count < page.total):
            raise PartyContradiction(_DISAGREE)
        rows = dict(page.rows)
        last = count < limit or (at + count >= page.total and not self._seams)
        return _Piece(at, page.total, turn, rows, count == limit, last, len(rows) < count)

    def _read_all(self, places: Sequence[tuple[int, int]], turn: int) -> list[_Piece[T]]:
        return run_all((lambda at=at, limit=limit: self._read(at, limit, turn) for at, limit in places),
                            self.workers) if places else []

    def _quiet(self, pieces: list[_Piece[T]], end: int) -> list[T] | None:
        """The rows, if nothing tells of a change: one total, and every row once."""
        rows = {key: row for piece in pieces for key, row in piece.rows.items()}
        quiet = len({piece.total for piece in pieces}) == 1 and not any(piece.repeats for piece in pieces)
        return list(rows.values()) if quiet and len(rows) == max(0, end - pieces[0].at) else None

    def _proven(self, pieces: list[_Piece[T]]) -> Rows[T]:
        """The rows of pieces that share a row with their neighbours; pages are read where they do not."""
        totals = {piece.total for piece in pieces}
        for turn in range(1, _ROUNDS + 1):
            if any(piece.repeats for piece in pieces):
                raise PartyContradiction(_DISAGREE)
            pieces, open_ = _seams(pieces)
            rows = _merged(pieces)
            wanted = None if self.window.last is None else self.window.last - pieces[0].at
            if not open_ and (pieces[-1].last or (wanted is not None and len(rows) >= wanted)):
                return self._counted(rows, totals, pieces, wanted)
            places = [self.pages.cover(place) for place in open_.values()]
            if not open_:
                goal = max(pieces[-1].end, pieces[-1].total if wanted is None else pieces[0].at + wanted) + 1
                places = self.pages.overlapping(pieces[-1].end, goal)
            self._check_room(len(places))
            between = self._read_all(places, turn)
            totals |= {piece.total for piece in between}
            for at, piece in reversed(list(zip(open_ or [len(pieces)] * len(between), between, strict=True))):
                pieces.insert(at, piece)
        raise PartyContradiction(_DISAGREE)

    def _counted(self, rows: dict[str, T], totals: set[int], pieces: list[_Piece[T]], wanted: int | None) -> Rows[T]:
        """If all totals are the same, they must be that of the rows."""
        if wanted is not None:
            return Rows(list(rows.values())[:wanted], pieces[-1].total)
        count = pieces[0].at + len(rows)
        if len(totals) == 1 and count not in totals:
            raise PartyContradiction(_DISAGREE)
        return Rows(list(rows.values()), count)


def _seams(pieces: list[_Piece[T]]) -> tuple[list[_Piece[T]], dict[int, int]]:
    """The pieces up to the list's end, and where to read for those that share no row with the one before: index of
    the piece -> a position, by the newer of the two."""
    kept, open_ = pieces[:1], dict[int, int]()
    for piece in pieces[1:]:
        if kept[-1].last:
            break
        before = kept[-1]
        if not _fit(before, piece):
            edge = before.end if before.turn >= piece.turn else piece.at
            open_[len(kept)] = edge if piece.rows else min(edge, piece.total)
        kept.append(piece)
    return kept, open_


def _fit(one: _Piece[T], other: _Piece[T]) -> bool:
    """They share a row, and what they share stands in the same order."""
    shared = [key for key in one.rows if key in other.rows]
    return bool(shared) and shared == [key for key in other.rows if key in one.rows]


def _merged(pieces: list[_Piece[T]]) -> dict[str, T]:
    """Each row once. What a piece holds before the first row that it shares was not there, or was read before."""
    rows = dict(pieces[0].rows)
    for before, piece in pairwise(pieces):
        begun = False
        for key, row in piece.rows.items():
            begun = begun or key in before.rows
            if begun:
                rows.setdefault(key, row)
    return rows


# ---------------------------------------------------------------- by place

def by_place(fetch: Callable[[int, int], Page[T]], page_size: int) -> Rows[T]:
    """`fetch(offset, limit)`, offset from 0, of a party that states no total: a walk to the list's end.

    Each page begins with the last row of the page before it. A page that shares no row with it is read again from
    farther in front. The list ends with a page that holds nothing new: one that is merely short proves no end.
    """
    pieces, idle = [_placed(fetch, 0, page_size)], 0
    at = pieces[0].end - 1
    while pieces[0].rows:
        before, piece = pieces[-1], _placed(fetch, at, page_size)
        new = bool(piece.rows.keys() - before.rows.keys())
        if not piece.rows or not _fit(before, piece):
            idle, at = idle + 1, max(0, at - max(1, len(before.rows) // 2))
        elif not new and at == before.end - 1:
            break
        else:
            pieces.append(piece)
            idle, at = 0 if new else idle + 1, piece.end - 1
        if idle > _ROUNDS:
            raise PartyContradiction(_DISAGREE)
        if len(pieces) >= _MOST_PAGES:
            raise PartyMalformed("The party's pages do not end.")
    rows = list(_merged(pieces).values())
    return Rows(rows, len(rows))


def _placed(fetch: Callable[[int, int], Page[T]], at: int, limit: int) -> _Piece[T]:
    rows = fetch(at, limit).rows
    if len(rows) > limit:
        raise PartyMalformed("The party's page holds more rows than were requested.")
    by_id = dict(rows)
    if len(by_id) < len(rows):
        raise PartyContradiction(_DISAGREE)
    return _Piece(at, -1, 0, by_id, len(rows) == limit, not rows, repeats=False)


# ---------------------------------------------------------------- by token

class _Walk(msgspec.Struct, Generic[T], frozen=True):
    """What one walk saw. `whole`: it came to the list's end."""

    rows: dict[str, T]
    pages: int
    whole: bool


def by_token(fetch: Callable[[str | None], Page[T]], window: Window = WHOLE, *, stable: bool = True) -> Rows[T]:
    """A walk that ends with the list, or as soon as a row after the window is seen.

    `fetch(None)` is the first page; a page may be short or empty although more follow. `stable`: a token means the row
    after which to go on, so that no change before it can shift the rest. One that may be a position proves nothing:
    in doubt the list is walked twice, and holds what either walk has found.
    """
    how = _reading.get() or Reading()
    walk = _walk(fetch, window)
    if not stable and walk.pages > 1 and how.twice:
        again = _walk(fetch, window)
        walk = _Walk(_united(walk.rows, again.rows), walk.pages, walk.whole and again.whole)
    elif not stable and walk.pages > 1:
        how.joined = True
    whole = walk.whole and not (window.last is not None and len(walk.rows) > window.last and how.twice)
    return Rows(cut(list(walk.rows.values()), window), len(walk.rows) if whole else None)


def _walk(fetch: Callable[[str | None], Page[T]], window: Window) -> _Walk[T]:
    for _ in range(2):
        rows: dict[str, T] = {}
        ids: set[str] = set()
        token: str | None = None
        while True:
            try:
                page = fetch(token)
            except PartyMalformed as refused:
                if token is None or not refused.party_code:
                    raise
                break                       # the party itself refuses the token that it gave
            for key, row in page.rows:
                rows.setdefault(key, row)
            token = page.token
            if not token:
                return _Walk(rows, len(ids) + 1, True)
            if window.last is not None and len(rows) > window.last:
                return _Walk(rows, len(ids) + 1, False)
            if token in ids or len(ids) >= _MOST_PAGES:
                break
            ids.add(token)
    raise PartyMalformed("The party's pages do not end.")


def _united(one: dict[str, T], other: dict[str, T]) -> dict[str, T]:
    """The rows of either: the second walk's order, and what it lacks after the row that it followed in the first."""
    following: dict[str, list[str]] = {"": []}
    place = ""
    for key in one:
        if key in other:
            place = key
        else:
            following.setdefault(place, []).append(key)
    order = [*following[""], *(name for key in other for name in (key, *following.get(key, ())))]
    return {key: other[key] if key in other else one[key] for key in order}


def cut(rows: Sequence[T], window: Window) -> list[T]:
    return list(rows[window.first - 1:window.last])
