"""Fleets that change while they are listed (P8): every server that lives through a listing is in it exactly once,
"vanished" is never said of one that lives, and a quiet fleet costs no more calls than its pages.
"""

import importlib
import inspect
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib import parties, simulators
from chalicelib.cloud import cache, paging, rate_limit
from chalicelib.cloud.paging import Page, Rows, by_offset, by_page, by_place
from chalicelib.errors import PartyError, PartyMalformed
from chalicelib.fleet import lookup, many_sources, one_source
from chalicelib.model import WHOLE, Window
from chalicelib.simulators.fleet import Fleet, Machines, Moving, Reattaching
from chalicelib.storage import snapshots
from tests import canaries
from tests.fixtures import App
from tests.unit.test_parties import WHAT

ORDERS = ("oldest", "newest", "key")
Loop = Callable[[Callable[[int, int], Page[str]], Window, int, int], Rows[str]]
LOOPS: dict[str, Loop] = {"offset": by_offset, "page": lambda fetch, window, size, workers: by_page(
    lambda number, limit: fetch((number - 1) * limit, limit), window, size, workers)}


class Plain:
    """Names in a fixed order; `steps` are taken one before each call."""

    def __init__(self, size: int, order: str, steps: Sequence[tuple[str, float]]) -> None:
        self.order, self.steps, self.next = order, list(steps), size
        self.names = sorted(range(size), key=self.place)
        self.lived, self.calls = set(self.names), 0

    def place(self, number: int) -> float:
        return {"oldest": number, "newest": -number}.get(self.order, random.Random(number).random())

    def change(self, what: str, where: float) -> None:
        if what in ("remove", "both") and self.names:
            self.lived.discard(self.names.pop(int(where * len(self.names))))
        if what in ("add", "both"):
            self.names = sorted([*self.names, self.next], key=self.place)
            self.next += 1

    def fetch(self, offset: int, limit: int) -> Page[str]:
        if self.steps:
            self.change(*self.steps.pop(0))
        self.calls += 1
        return Page([(str(n), str(n)) for n in self.names[offset:offset + limit]], len(self.names))


changes = st.lists(st.tuples(st.sampled_from(["add", "remove", "both", "stay", "stay"]), st.floats(0, 0.999)),
                   max_size=14)


@settings(max_examples=400)
@given(st.sampled_from(sorted(LOOPS)), st.sampled_from(ORDERS), st.integers(0, 45), st.integers(5, 9), changes)
def test_whoever_lives_through_a_listing_with_seams_is_in_it_once(loop: str, order: str, size: int, page: int,
                                                                  steps: list[tuple[str, float]]) -> None:
    fleet = Plain(size, order, steps)
    try:
        with paging.reading(seams=True):
            listing = LOOPS[loop](fleet.fetch, WHOLE, page, 1)
    except PartyMalformed:                  # never a shorter list
        assert steps
        return
    assert len(set(listing.rows)) == len(listing.rows) == listing.total
    assert {str(n) for n in fleet.lived} <= set(listing.rows)


@settings(max_examples=300)
@given(st.sampled_from(sorted(LOOPS)), st.sampled_from(ORDERS), st.integers(0, 45), st.integers(5, 9), changes)
def test_pages_without_seams_lose_nobody_whom_the_ids_do_not_betray(loop: str, order: str, size: int, page: int,
                                                                    steps: list[tuple[str, float]]) -> None:
    """Joined by their count alone, they hold everybody, or another set of servers than the snapshot."""
    fleet = Plain(size, order, steps)
    before = {str(n) for n in fleet.names}
    try:
        with paging.reading(seams=False) as how:
            listing = LOOPS[loop](fleet.fetch, WHOLE, page, 1)
    except PartyMalformed:
        assert steps
        return
    assert len(set(listing.rows)) == len(listing.rows) == listing.total
    assert {str(n) for n in fleet.lived} <= set(listing.rows) or (how.joined and set(listing.rows) != before)


@settings(max_examples=200)
@given(st.sampled_from(sorted(LOOPS)), st.sampled_from(ORDERS), st.integers(20, 45), st.integers(5, 9),
       st.integers(0, 15),
       st.integers(8, 25), changes)
def test_a_window_has_no_hole(loop: str, order: str, size: int, page: int, first: int, wide: int,
                              steps: list[tuple[str, float]]) -> None:
    """Whoever lived and stands between two servers of a window is in it."""
    fleet = Plain(size, order, steps)
    try:
        with paging.reading(seams=True):
            listing = LOOPS[loop](fleet.fetch, Window(first + 1, first + wide), page, 1)
    except PartyMalformed:
        assert steps
        return
    assert len(set(listing.rows)) == len(listing.rows) <= wide
    rows = [int(name) for name in listing.rows]
    lived = [n for n in sorted(fleet.lived, key=fleet.place) if rows
             and fleet.place(rows[0]) <= fleet.place(n) <= fleet.place(rows[-1])]
    assert set(lived) <= set(rows)


@pytest.mark.parametrize("loop", sorted(LOOPS))
@pytest.mark.parametrize(("size", "page"), [(4000, 100), (10_000, 100), (950, 100), (100, 100), (99, 100), (230, 50)])
def test_a_quiet_fleet_costs_its_pages_and_one_in_a_hundred_more_at_first(loop: str, size: int, page: int) -> None:
    counted = []
    for first in (False, True):
        fleet = Plain(size, "oldest", [])
        with paging.reading(seams=False, first=first):
            assert len(LOOPS[loop](fleet.fetch, WHOLE, page, 1).rows) == size
        counted.append(fleet.calls)
    assert counted[0] == -(-size // page)
    assert counted[1] <= counted[0] * 1.01 + 1


@pytest.mark.parametrize("loop", sorted(LOOPS))
def test_a_window_of_a_quiet_fleet_costs_its_pages(loop: str) -> None:
    for first in (False, True):
        fleet = Plain(1000, "oldest", [])
        with paging.reading(seams=False, first=first):
            assert len(LOOPS[loop](fleet.fetch, Window(1, 1000), 100, 1).rows) == 1000
        assert fleet.calls == 10


@settings(max_examples=300)
@given(st.sampled_from(sorted(LOOPS)), st.sampled_from(ORDERS), st.integers(0, 45), st.integers(5, 9), changes)
def test_the_first_listing_of_a_fleet_in_the_order_of_its_creation(loop: str, order: str, size: int, page: int,
                                                                   steps: list[tuple[str, float]]) -> None:
    """Numbered pages are not proven by a first listing: the docstring of `paging` says so."""
    fleet = Plain(size, order, steps)
    try:
        with paging.reading(seams=False, first=True):
            listing = LOOPS[loop](fleet.fetch, WHOLE, page, 1)
    except PartyMalformed:
        assert steps
        return
    assert len(set(listing.rows)) == len(listing.rows) == listing.total
    assert {str(n) for n in fleet.lived} <= set(listing.rows) or loop == "page"


class Unpaged(Plain):
    """States no total."""

    def fetch(self, offset: int, limit: int) -> Page[str]:
        return Page(super().fetch(offset, limit).rows)


@settings(max_examples=300)
@given(st.sampled_from(ORDERS), st.integers(0, 45), st.integers(5, 9), changes)
def test_a_walk_by_place_loses_nobody(order: str, size: int, page: int, steps: list[tuple[str, float]]) -> None:
    fleet = Unpaged(size, order, steps)
    try:
        listing = by_place(fleet.fetch, page)
    except PartyMalformed:
        assert steps
        return
    assert len(set(listing.rows)) == len(listing.rows) == listing.total
    assert {str(n) for n in fleet.lived} <= set(listing.rows)


@pytest.mark.parametrize(("loop", "order", "runs"), [
    ("offset", "newest", 1), ("page", "oldest", 1),
    *(pytest.param(loop, order, 5, marks=pytest.mark.slow) for loop in sorted(LOOPS) for order in ORDERS)])
def test_ten_thousand_servers_at_two_changes_a_second(loop: str, order: str, runs: int) -> None:
    """100 ms a page, one page after another, on a clock of its own: 97 of 100 listings at least."""
    good, dice = 0, random.Random(f"{loop}{order}")
    for _ in range(runs):
        fleet, clock = Plain(10_000, order, []), [0.0, 0.0]

        def fetch(offset: int, limit: int, fleet: Plain = fleet, clock: list[float] = clock) -> Page[str]:
            clock[0] += 0.1
            while clock[1] < clock[0]:
                clock[1] += dice.expovariate(2)
                fleet.change(dice.choice(("add", "remove")), dice.random())
            return fleet.fetch(offset, limit)

        with paging.reading(seams=True):
            try:
                rows = LOOPS[loop](fetch, WHOLE, 100, 1).rows
            except PartyMalformed:
                continue
        assert {str(n) for n in fleet.lived} <= set(rows)
        assert len(set(rows)) == len(rows)
        good += clock[0] <= lookup.REQUEST_SECONDS - lookup.ANSWER_SECONDS
    assert good == runs


# ---------------------------------------------------------------- every party, through its simulator

CLOUDS = simulators.clouds()
PAGE, SIZE = 10, 34


def page_of(party: str) -> int:
    return WHAT[party].get("least_page", PAGE)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit.RateLimits, "limiter", lambda *_: None)
    monkeypatch.setattr(one_source, "_LIVE_LISTINGS", 10 ** 6)
    for party in CLOUDS:
        module = importlib.import_module(f"chalicelib.parties.{party}")
        if getattr(module, "_PAGE", 0) > PAGE:
            monkeypatch.setattr(module, "_PAGE", page_of(party))


def orders_of(party: str) -> tuple[str, ...]:
    return ("oldest",) if WHAT[party].get("sorts_itself") else ORDERS


# each party in one of its orders, in turn, and slowly in all
@pytest.mark.parametrize(("party", "orders"), [
    (party, orders_of(party)[number % len(orders_of(party)):][:1]) for number, party in enumerate(sorted(CLOUDS))] + [
    pytest.param(party, orders_of(party), marks=pytest.mark.slow) for party in sorted(CLOUDS)])
def test_a_fleet_in_motion_at_every_party(party: str, orders: tuple[str, ...], app: App, stack: ExitStack) -> None:
    """Between any two calls something may change; what is listed and what is said to have vanished is held to the
    fleet."""
    entry, listed, failures = CLOUDS[party], 0, list[str]()
    source = many_sources.source_of("123", party, entry.region)
    for order in orders:
        dice = random.Random(f"{party}{order}")
        fleet = Moving(SIZE * page_of(party) // PAGE, party, order, dice)
        cloud, credentials = entry.start({entry.region: fleet}, canaries.secret(party), limited=False)
        stack.enter_context(cloud)
        cache.forget()
        snapshots.forget_account(app.deployment.store, "123", party)
        app.account(party, credentials, cloud.url)
        for turn in range(5):
            cloud.between = fleet.change_now_and_then if turn else None
            fleet.begin()
            app.clock.forward(60)
            try:
                answer = many_sources.list_servers(app.deployment, source, WHOLE, deadline=time.monotonic() + 25)
            except PartyError as failure:
                failures.append(f"{order} {failure.code} {failure.text}")
                continue
            finally:
                settle()
            listed += 1
            names = [server.name for server in answer.servers]
            there = {fleet.machine(n).name for n in fleet.alive}
            assert len(set(names)) == len(names) == answer.total, (order, turn)
            missing = {fleet.machine(n).name for n in fleet.lived} - set(names)
            assert not missing, (order, turn, missing)
            gone = {entry.name for change in snapshots.changes(app.deployment.store, source, 0)
                    for entry in change.vanished}
            assert not gone & there, (order, turn)
    assert listed >= 0.8 * (listed + len(failures)), failures


@pytest.mark.sample(3)
@pytest.mark.parametrize("party", sorted(CLOUDS))
@pytest.mark.parametrize("far", [False, True])
def test_a_server_that_a_party_names_twice_is_listed_once(party: str, far: bool, app: App, stack: ExitStack) -> None:
    """Beside itself or pages away, on each listing: once and counted once, or the party contradicts itself."""
    entry = CLOUDS[party]
    fleet = Fleet(SIZE, party)
    machines = [fleet[n] for n in range(SIZE)]
    machines.insert(SIZE - 2 if far else 1, machines[0])
    cloud, credentials = entry.start({entry.region: Machines(machines)}, canaries.secret(party), limited=False)
    stack.enter_context(cloud)
    app.account(party, credentials, cloud.url)
    try:
        answer = many_sources.list_servers(app.deployment, many_sources.source_of("123", party, entry.region), WHOLE,
                                           deadline=time.monotonic() + 25)
    except PartyMalformed:
        return
    ids = [server.id for server in answer.servers]
    assert len(ids) == len(set(ids)) == answer.total == SIZE


@pytest.mark.sample(3)
@pytest.mark.parametrize("party", sorted(CLOUDS))
def test_a_disk_that_moves_between_two_calls(party: str, app: App, stack: ExitStack) -> None:
    """The list does not fail, the two servers have the size from before or after or none, and all others theirs."""
    entry = CLOUDS[party]
    source, fleet = many_sources.source_of("123", party, entry.region), Reattaching(6, party)
    cloud, credentials = entry.start({entry.region: fleet}, canaries.secret(party), limited=False)
    stack.enter_context(cloud)
    app.account(party, credentials, cloud.url)

    def sizes(move_at: int | None, calls: list[int]) -> list[int | None]:
        cache.forget()
        snapshots.forget_account(app.deployment.store, "123", party)
        app.clock.forward(60)

        def between() -> None:
            calls.append(1)
            fleet.moved = move_at is not None and len(calls) > move_at

        cloud.between = between
        answer = many_sources.list_servers(app.deployment, source, WHOLE, deadline=time.monotonic() + 25)
        settle()
        assert len(answer.servers) == 6
        return [server.disk_gib for server in sorted(answer.servers, key=lambda server: server.name)]

    before, after = sizes(None, calls := []), sizes(0, [])
    for move_at in range(1, min(len(calls), 12)):
        for old, new, size in zip(before, after, sizes(move_at, []), strict=True):
            assert size in ((old,) if old == new else (old, new, None)), (move_at, before, after)


@pytest.mark.parametrize("party", parties.names())
def test_each_party_states_its_order_and_its_pages(party: str) -> None:
    order, _, pages = parties.load(party).order.partition("; ")
    assert (order, pages) == ("no pages", "") or (re.match(r"none documented$|by .*(requested|documented)$", order)
                                                  and re.match(
        r"numbered pages|pages at any row|.*(token|cursor|marker)s?\b", pages))
    module = importlib.import_module(f"chalicelib.parties.{party}")
    if "prove nothing" in pages:
        assert "stable=False" in inspect.getsource(module)


def settle() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("twocloud"):
            thread.join(5)
