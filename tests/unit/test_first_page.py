"""A page whose caller accepts a snapshot, where none is fresh enough: it causes one listing of the whole, from which
the next callers are served."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalicelib.errors import PartyUnavailable
from chalicelib.fleet import many_sources, one_source, schedule
from chalicelib.fleet.lookup import Filter, Freshness
from chalicelib.model import Source, Window
from chalicelib.simulators.fleet import Fleet
from tests.fixtures import GZ, App

PAGE = f"{GZ}&f=1&t=10"
SOURCE = Source("123", "qcloud", "ap-guangzhou")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for each listing of a whole that begins."""
    begun: list[str] = []
    list_all = one_source.list_all

    def counting(plan: Any) -> Any:
        begun.append(plan.key)
        return list_all(plan)

    monkeypatch.setattr(one_source, "list_all", counting)
    return begun


@pytest.fixture
def cloud(served: App) -> Any:
    cloud: Any = served.clouds["qcloud"]
    cloud.rates.clear()
    return cloud


def until(check: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_first_page_of_a_small_list_has_it_kept_at_once(served: App, cloud: Any, whole: list[str]) -> None:
    live = served.get(f"{PAGE}&max_age=0")
    assert whole == []
    first = served.get(f"{PAGE}&max_age=3600")
    assert first.content == live.content
    assert "Cache-Status" not in first.headers
    assert first.headers["X-Total-Count"] == "25"
    calls = cloud.count()
    for more in ("", "&max_age=60"):
        second = served.get(f"{PAGE}&max_age=3600{more.replace('&max_age=60', '&view=full')}")
        assert second.headers["Cache-Status"] == "twocloud; hit"
        assert second.headers["X-List-Id"] == first.headers["X-List-Id"]
    assert served.get(f"{GZ}&f=21&max_age=3600").headers["Cache-Status"] == "twocloud; hit"
    assert (cloud.count(), len(whole)) == (calls, 1)


def test_a_small_list_whose_snapshot_is_too_old_costs_one_call(served: App, cloud: Any) -> None:
    served.get(GZ)
    served.clock.forward(61)
    calls = cloud.count()
    assert "Age" not in served.get(f"{PAGE}&max_age=60").headers
    assert cloud.count() == calls + 1
    assert served.get(f"{PAGE}&max_age=60").headers["Age"] == "0"


def test_fifty_callers_of_a_page_cause_one_listing(served: App, cloud: Any, whole: list[str]) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(served.get, [f"{PAGE}&max_age=3600"] * 50))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(whole) == 1


def test_a_large_list_is_listed_beside_the_answers(served: App, cloud: Any, whole: list[str]) -> None:
    cloud.fleets["ap-guangzhou"] = Fleet(1200)
    first = served.get(f"{PAGE}&max_age=3600")
    assert "X-List-Id" not in first.headers
    until(lambda: served.get(f"{PAGE}&max_age=3600").headers.get("Cache-Status") == "twocloud; hit")
    assert len(whole) == 1
    calls = cloud.count()
    assert len(served.get(f"{GZ}&max_age=3600").json()["vm_servers"]) == 1200
    assert cloud.count() == calls


def test_a_caller_who_accepts_no_snapshot_causes_none(served: App, cloud: Any, whole: list[str]) -> None:
    for fleet in (Fleet(25), Fleet(1200)):
        cloud.fleets["ap-guangzhou"] = fleet
        served.get(PAGE)
        served.get(PAGE, headers={"Cache-Control": "no-cache"})
    assert whole == []
    assert served.deployment.later.sent == {}


def test_the_page_stands_if_the_listing_fails(served: App, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def failing(plan: Any) -> Any:
        tried.append(plan.key)
        raise PartyUnavailable

    monkeypatch.setattr(one_source, "list_all", failing)
    for _ in range(3):
        page = served.get(f"{PAGE}&max_age=3600")
        assert (page.status_code, len(page.json()["vm_servers"]), page.json()["msg"]) == (200, 10, "")
    assert len(tried) == 1                  # a cloud that fails is not asked twice for each page
    served.clock.forward(121)
    served.get(f"{PAGE}&max_age=3600")
    assert len(tried) == 2


def test_of_many_processes_one_sends_it_and_again_later(app: App) -> None:
    here: Any = app.clouds["qcloud"]
    here.rates.clear()
    here.fleets["ap-guangzhou"] = Fleet(1200)
    twin = many_sources.open_deployment(app.deployment.settings, app.clock)
    sent: list[tuple[Source, float]] = []
    try:
        for deployment in (app.deployment, twin):
            deployment.later.send = lambda source, due: sent.append((source, due))
        for _ in range(3):
            for deployment in (app.deployment, twin):
                page = many_sources.list_servers(deployment, SOURCE, Window(1, 10), Filter(), Freshness(max_age=60))
                assert (len(page.servers), page.total) == (10, 1200)
        assert sent == [(SOURCE, app.clock() - 60)]
        app.clock.forward(121)
        many_sources.list_servers(twin, SOURCE, Window(1, 10), Filter(), Freshness(max_age=60))
        assert len(sent) == 2               # nothing came of the first
        counts = list[int]()
        for source, due in [*sent, *sent]:
            assert schedule.work(app.deployment, schedule.message_of(source, due)).error is None
            counts.append(here.count())
        assert len(set(counts)) == 1        # a message that comes late or twice finds the snapshot
    finally:
        twin.close()
