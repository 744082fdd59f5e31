"""The loops over pages against plain fleets: windows, totals that lie, duplicates, fleets that change."""

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.cloud.paging import Page, by_offset, by_page, by_token, reading
from chalicelib.concurrency import run_all
from chalicelib.errors import PartyMalformed, PartyThrottled
from chalicelib.model import WHOLE, Window

windows = st.builds(lambda first, size: Window(first, None if size is None else first + size - 1),
                    st.integers(1, 60), st.none() | st.integers(1, 60))


def pages_of(names: Sequence[str], calls: list[tuple[int, int]] | None = None):
    def fetch(offset: int, limit: int) -> Page[str]:
        if calls is not None:
            calls.append((offset, limit))
        return Page([(name, name) for name in names[offset:offset + limit]], len(names))

    return fetch


def fleet(size: int) -> list[str]:
    return [f"s{n}" for n in range(size)]


# ---------------------------------------------------------------- by offset

@given(st.integers(0, 60), windows, st.integers(1, 20), st.integers(1, 8))
def test_a_window_is_exactly_its_part_of_the_whole(size: int, window: Window, page: int, workers: int) -> None:
    names, calls = fleet(size), []
    listing = by_offset(pages_of(names, calls), window, page, workers)
    assert listing.rows == names[window.first - 1:window.last]
    assert listing.total == size
    assert all(0 < limit <= page for _, limit in calls)
    wanted = len(listing.rows)
    assert len(calls) == max(1, -(-wanted // page))             # the fewest calls that can carry it


@given(st.integers(0, 50), st.integers(1, 13))
def test_pages_join_to_the_whole(size: int, step: int) -> None:
    names = fleet(size)
    joined = [name for first in range(1, size + 1, step)
              for name in by_offset(pages_of(names), Window(first, first + step - 1), 7, 4).rows]
    assert joined == names == by_offset(pages_of(names), WHOLE, 7, 4).rows


def test_ten_records_anywhere_are_one_call() -> None:
    calls: list[tuple[int, int]] = []
    by_offset(pages_of(fleet(5000), calls), Window(4001, 4010), 100, 40)
    assert calls == [(4000, 10)]


@pytest.mark.parametrize("total", [None, -1])
def test_no_total_is_malformed(total: int | None) -> None:
    with pytest.raises(PartyMalformed):
        by_offset(lambda offset, limit: Page([("a", "a")], total), WHOLE, 10, 2)


@pytest.mark.parametrize("lie", [-3, -1, 1, 3, 50])
def test_a_total_that_the_rows_do_not_bear_out(lie: int) -> None:
    names, calls = fleet(25), []

    def fetch(offset: int, limit: int) -> Page[str]:
        calls.append(offset)
        return Page([(name, name) for name in names[offset:offset + limit]], 25 + lie)

    with pytest.raises(PartyMalformed, match="still disagree"):
        by_offset(fetch, WHOLE, 10, 2)
    assert calls.count(0) == 2                                  # one new listing, not more


def test_a_window_with_a_row_missing_is_malformed() -> None:
    with pytest.raises(PartyMalformed):
        by_offset(lambda offset, limit: Page([("a", "a")], 25), Window(3, 5), 10, 2)


def test_more_rows_than_asked_for_is_malformed() -> None:
    names = fleet(30)
    with pytest.raises(PartyMalformed):
        by_offset(lambda offset, limit: Page([(n, n) for n in names], 30), Window(1, 5), 10, 2)


def test_a_fleet_that_changes_once_is_listed_again() -> None:
    before, after, calls = fleet(25), fleet(26), []

    def fetch(offset: int, limit: int) -> Page[str]:
        calls.append(offset)
        names = before if len(calls) < 3 else after
        return Page([(name, name) for name in names[offset:offset + limit]], len(names))

    assert by_offset(fetch, WHOLE, 10, 1).rows == after


def test_a_server_on_two_pages_counts_once_and_is_then_missed() -> None:
    """A removal shifts the list: the second page repeats nothing but skips one. An insertion repeats one."""
    first, rest = ["a", "b", "c"], ["c", "d"]

    def fetch(offset: int, limit: int) -> Page[str]:
        names = first if offset == 0 else rest
        return Page([(name, name) for name in names], 5)

    with pytest.raises(PartyMalformed):
        by_offset(fetch, WHOLE, 3, 1)


@given(st.lists(st.sampled_from(["grow", "shrink", "stay", "shuffle"]), max_size=12), st.integers(0, 40), st.randoms())
def test_whatever_changes_meanwhile_the_list_is_never_short(steps: list[str], size: int, dice: object) -> None:
    """Either an error, or a list that holds nobody twice and whose total is the number of its rows; if nothing was
    shuffled and the totals told of the change, everybody who was there all the time is in it."""
    names, todo, totals = fleet(size), list(steps), set[int]()
    there = set(names)

    def fetch(offset: int, limit: int) -> Page[str]:
        what = todo.pop() if todo else "stay"
        if what == "grow":
            names.insert(dice.randrange(len(names) + 1), f"n{len(todo)}")      # type: ignore[attr-defined]
        elif what == "shrink" and names:
            there.discard(names.pop(dice.randrange(len(names))))               # type: ignore[attr-defined]
        elif what == "shuffle":
            dice.shuffle(names)                                                # type: ignore[attr-defined]
        totals.add(len(names))
        return Page([(name, name) for name in names[offset:offset + limit]], len(names))

    try:
        listing = by_offset(fetch, WHOLE, 7, 1)
    except PartyMalformed:
        assert steps
        return
    assert len(set(listing.rows)) == len(listing.rows) == listing.total
    assert there <= set(listing.rows) or len(totals) == 1 or "shuffle" in steps


@pytest.mark.parametrize("size", [10, 100])
def test_an_absurd_total_costs_one_call_and_no_memory(size: int) -> None:
    calls = []

    def fetch(offset: int, limit: int) -> Page[str]:
        calls.append(offset)
        return Page([(f"s{n}", "") for n in range(offset, offset + limit)], 10 ** 9)

    for loop in (by_offset, lambda fetch, *rest: by_page(lambda n, size: fetch((n - 1) * size, size), *rest)):
        calls.clear()
        with pytest.raises(PartyMalformed, match="states an impossible total"):
            loop(fetch, WHOLE, size, 4)
        assert calls == [0]


def test_a_total_that_the_documented_rate_does_not_allow_costs_one_call() -> None:
    calls: list[tuple[int, int]] = []
    with reading(seams=False, room=lambda: 8), pytest.raises(PartyThrottled, match="Request a range"):
        by_offset(pages_of(fleet(100), calls), WHOLE, 10, 4)
    assert len(calls) == 1
    with reading(seams=False, room=lambda: 9):
        assert by_offset(pages_of(fleet(100)), WHOLE, 10, 4).rows == fleet(100)


def test_pages_are_fed_lazily() -> None:
    """No more calls are made ready than workers are free."""
    made = []

    def calls():
        for n in range(1000):
            made.append(n)
            yield lambda n=n: n if n < 20 else (_ for _ in ()).throw(PartyThrottled())

    with pytest.raises(PartyThrottled):
        run_all(calls(), 4)
    assert len(made) < 40


# ---------------------------------------------------------------- by page

@given(st.integers(0, 60), windows, st.integers(1, 20), st.integers(1, 5))
def test_numbered_pages_are_cut_to_the_window(size: int, window: Window, page: int, least: int) -> None:
    names, calls = fleet(size), []

    def fetch(number: int, limit: int) -> Page[str]:
        calls.append((number, limit))
        return Page([(name, name) for name in names[(number - 1) * limit:number * limit]], size)

    least = min(least, page)
    listing = by_page(fetch, window, page, 3, least)
    assert listing.rows == names[window.first - 1:window.last]
    assert listing.total == size
    assert all(least <= limit <= page for _, limit in calls)
    assert len({limit for _, limit in calls}) == 1
    wanted = len(names) - window.first + 1 if window.last is None else window.last - window.first + 1
    assert len(calls) <= max(1, -(-wanted // page) + 1)


def test_ten_records_anywhere_are_one_numbered_page() -> None:
    for first in (1, 5, 91, 4001, 4007):
        calls: list[tuple[int, int]] = []

        def fetch(number: int, size: int, calls: list[tuple[int, int]] = calls) -> Page[int]:
            calls.append((number, size))
            return Page([(str(n), n) for n in range(5000)[(number - 1) * size:number * size]], 5000)

        assert by_page(fetch, Window(first, first + 9), 100, 4).rows == list(range(first - 1, first + 9))
        assert len(calls) == 1, (first, calls)


# ---------------------------------------------------------------- by token

def walk_of(names: Sequence[str], sizes: Sequence[int]):
    """Pages of any sizes, empty ones too, each with a token but the last."""
    def fetch(token: str | None) -> Page[str]:
        at, turn = map(int, (token or "0/0").split("/"))
        size = sizes[turn % len(sizes)] if sizes else len(names)
        if turn > 200:
            size = len(names)
        end = at + size
        return Page([(name, name) for name in names[at:end]], token=f"{end}/{turn + 1}" if end < len(names) else None)

    return fetch


@given(st.integers(0, 60), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_a_walk_follows_the_token_and_never_the_count(size: int, sizes: list[int]) -> None:
    names = fleet(size)
    listing = by_token(walk_of(names, sizes))
    assert (listing.rows, listing.total) == (names, size)


@given(st.integers(0, 60), windows, st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_a_walk_ends_when_it_knows_that_more_follow(size: int, window: Window, sizes: list[int]) -> None:
    names, calls = fleet(size), []
    walk = walk_of(names, sizes)

    def fetch(token: str | None) -> Page[str]:
        calls.append(token)
        return walk(token)

    listing = by_token(fetch, window)
    assert listing.rows == names[window.first - 1:window.last]
    assert listing.total == (size if listing.total is not None else None)
    if listing.total is None:
        assert window.last is not None
        assert size > window.last
    if window.last is not None:
        assert len(calls) <= window.last + 1


def test_a_token_that_comes_again_ends_in_an_error() -> None:
    calls = []

    def fetch(token: str | None) -> Page[str]:
        calls.append(token)
        return Page([("a", "a")], token="same")

    with pytest.raises(PartyMalformed, match="do not end"):
        by_token(fetch)
    assert calls == [None, "same", None, "same"]


def test_an_endless_walk_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chalicelib.cloud.paging._MOST_PAGES", 50)
    with pytest.raises(PartyMalformed):
        by_token(lambda token: Page([("a", "a")], token=str(int(token or 0) + 1)))


def test_a_token_that_the_party_refuses_restarts_the_walk_once() -> None:
    calls = []

    def fetch(token: str | None) -> Page[str]:
        calls.append(token)
        if token == "1" and len(calls) < 3:
            raise PartyMalformed(party_code="InvalidNextToken")
        return Page([(f"s{token}", f"s{token}")], token=None if token == "1" else "1")

    assert by_token(fetch).rows == ["sNone", "s1"]
    assert calls == [None, "1", None, "1"]

    def refuse(token: str | None) -> Page[str]:
        raise PartyMalformed(party_code="InvalidParameterValue")

    with pytest.raises(PartyMalformed, match="could not be understood"):
        by_token(refuse)                                        # not the token's fault: no second walk


def test_a_server_on_two_walked_pages_counts_once() -> None:
    pages = {None: (["a", "b"], "1"), "1": (["b", "c"], None)}
    assert by_token(lambda token: Page([(n, n) for n in pages[token][0]],
                                       token=pages[token][1])).rows == ["a", "b", "c"]


# ---------------------------------------------------------------- side by side

def test_results_come_in_the_order_of_the_calls() -> None:
    def call(n: int) -> int:
        threading.Event().wait((5 - n) / 100)
        return n

    assert run_all([lambda n=n: call(n) for n in range(5)], 5) == [0, 1, 2, 3, 4]
    assert run_all([], 5) == []


def test_the_first_error_does_not_wait_for_the_others() -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(20)

    def fail() -> None:
        raise PartyThrottled()

    try:
        with pytest.raises(PartyThrottled):
            run_all([hang, fail, hang], 3)
        assert not release.is_set()
    finally:
        release.set()


def test_after_an_error_nothing_more_is_started() -> None:
    started = []

    def call(n: int) -> None:
        started.append(n)
        if n == 0:
            raise PartyThrottled()
        threading.Event().wait(0.05)

    with pytest.raises(PartyThrottled):
        run_all([lambda n=n: call(n) for n in range(100)], 2)
    threading.Event().wait(0.2)
    assert len(started) < 10
