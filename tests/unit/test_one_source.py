"""One source: how old a list may be, what is said of its age, who asks the party and how often (P3, P6, P7, P10)."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from chalicelib import parties
from chalicelib.access import accounts, sealing, tokens, users
from chalicelib.cloud import rate_limit
from chalicelib.cloud import sender as sender_module
from chalicelib.errors import (
    Conflict,
    PartyDenied,
    PartyError,
    PartyThrottled,
    PartyTimeout,
    PartyUnavailable,
    UnknownRegion,
)
from chalicelib.fleet import changes, lookup, many_sources, one_source, schedule, single_flight
from chalicelib.fleet.deployment import Deployment, OnFirstUse
from chalicelib.fleet.lookup import Filter, Freshness
from chalicelib.model import WHOLE, Source, Window
from chalicelib.parties.qcloud.simulator import Qcloud
from chalicelib.settings import ServerLimits
from chalicelib.simulators.fleet import Fleet, Machines
from chalicelib.storage import snapshots
from chalicelib.storage.store import Store
from tests.fixtures import GZ, START, US, App, Clock, limited, qcloud_keys, serving, settings_in
from tests.http.test_serve import error
from tests.unit.test_tokens import LOSSES

SOURCE = Source("123", "qcloud", "ap-guangzhou")
KEY = "123/qcloud/ap-guangzhou"
TEN = Window(1, 10)
KINDS = ("snapshot", "chunk", "change", "lease", "breaker", "interest", "regions")


@pytest.fixture(autouse=True)
def no_jitter(app: App) -> None:
    app.deployment.transport.jitter = lambda: 0.0


@pytest.fixture
def lasting(served: App) -> App:
    """Its token lives longer than any list."""
    user = users.find(served.deployment.store, "ann")
    assert user
    served.token = served.issue(user, 90 * 86_400)
    return served


def rows(store: Store) -> list[tuple[str, str]]:
    return [(kind, key) for kind in KINDS for key, _ in store.list(kind)]


def ask(app: App, window: Window = WHOLE, deployment: Deployment | None = None, seconds: float = 25.0,
        source: Source = SOURCE,
        **policy: Any) -> many_sources.Answer:
    return many_sources.list_servers(deployment or app.deployment, source, window, Filter(), Freshness(**policy),
                                  deadline=time.monotonic() + seconds)


def run_all(count: int, call: Callable[[], Any]) -> list[Any]:
    """What each of so many callers got, an answer or an error; they start together."""
    gate = threading.Barrier(count)

    def one(_: int) -> Any:
        gate.wait()
        try:
            return call()
        except Exception as problem:
            return problem

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def ticking(deployment: Deployment) -> Deployment:
    """With a clock that goes on by itself, as where many come at the same time."""
    begun = time.monotonic()
    return structs.replace(deployment, clock=lambda: START + time.monotonic() - begun)


@pytest.fixture
def twin(app: App) -> Iterator[Deployment]:
    """Another process's deployment over the same store."""
    made = many_sources.open_deployment(app.deployment.settings, app.clock)
    made.transport.jitter = lambda: 0.0
    yield made
    made.close()


# ---------------------------------------------------------------- fresh enough

def test_a_snapshot_that_is_fresh_enough_is_not_requested_again(served: App) -> None:
    cloud = served.clouds["qcloud"]
    first = served.get(GZ)
    assert "Age" not in first.headers
    assert "Cache-Status" not in first.headers
    assert first.json()["msg"] == ""
    served.clock.forward(60)
    kept = served.get(f"{GZ}&max_age=60")
    assert (kept.headers["Age"], kept.headers["Cache-Status"]) == ("60", "twocloud; hit")
    assert kept.json()["msg"] == ""
    assert kept.content == first.content
    assert kept.headers["ETag"] == first.headers["ETag"]
    assert cloud.count() == 1
    assert kept.headers["X-Total-Count"] == "25"
    served.clock.forward(1)
    assert "Age" not in served.get(f"{GZ}&max_age=60").headers
    assert cloud.count() == 2
    assert "Age" not in served.get(GZ).headers
    assert cloud.count() == 3


def test_windows_and_filters_of_a_snapshot_are_those_of_the_live_list(served: App) -> None:
    queries = ("f=1&t=10", "f=11&t=20", "f=21", "t=3", "f=26", "f=24&t=99", "status=ACTIVE", "name=WEB&f=2&t=3",
               "view=full&t=2",
               "ip=10.0.0.5")
    live = {query: served.get(f"{GZ}&{query}") for query in queries}
    served.get(GZ)
    calls = served.clouds["qcloud"].count()
    for query, before in live.items():
        kept = served.get(f"{GZ}&{query}&max_age=60")
        assert kept.headers["Cache-Status"] == "twocloud; hit"
        assert kept.content == before.content, query
        assert (kept.headers["X-Total-Count"], kept.headers["ETag"]) == (before.headers["X-Total-Count"],
                                                                         before.headers["ETag"])
        links, part = kept.headers.get("Link", ""), f"&list={kept.headers['X-List-Id']}"
        assert links.count(part) == links.count("rel=")         # to other parts of this very list
        assert links.replace(part, "").replace("&max_age=60", "") == before.headers.get("Link", "").replace(part, "")
        again = served.get(f"{GZ}&{query}&max_age=60", headers={"If-None-Match": before.headers["ETag"]})
        assert (again.status_code, again.headers["Age"]) == (304, "0")
    assert served.clouds["qcloud"].count() == calls


@pytest.mark.parametrize("form", ["json&view=full", "csv&view=full", "ndjson&view=full", "prometheus", "ansible"])
def test_tags_in_any_order_are_the_same_bytes(served: App, form: str) -> None:
    """Kept or live, and however the cloud orders them this time."""
    cloud: Any = served.clouds["qcloud"]
    tags = {"b": "1", "a-b": "2", "a": "3", "a.b": "4", "名": "5"}
    responses = []
    for order in (list(tags), sorted(tags)):
        cloud.fleets["ap-guangzhou"] = Machines(
            [dataclasses.replace(Fleet(3)[n], tags={name: tags[name] for name in order}) for n in range(3)])
        responses += [served.get(f"{GZ}&format={form}"), served.get(f"{GZ}&format={form}&max_age=60")]
    assert {answer.status_code for answer in responses} == {200}
    assert len({answer.content for answer in responses}) == 1
    assert len({answer.headers["ETag"] for answer in responses}) == 1


CACHE_CONTROL: list[tuple[str, str, int, str]] = [
    ("max-age=100", "", 100, "hit"), ("max-age=100", "", 101, "live"), ("MAX-AGE = 100", "", 100, "live"),
    ("Max-Age=100", "", 100, "hit"),
    ('max-age="100"', "", 100, "hit"), ("max-age=0", "", 0, "live"), ("no-cache", "", 0, "live"),
    ("max-age=100, no-cache", "", 0, "live"),
    ("max-age=100,max-age=10", "", 50, "live"), ("max-age=10,max-age=100", "", 50, "live"),
    ("max-age=100, max-age", "", 50, "hit"),
    ("max-age=99999999999999999999", "", 86_400, "hit"), ("max-age", "", 0, "live"), ("max-age=", "", 0, "live"),
    ("max-age=-1", "", 0, "live"), ("max-age=1.5", "", 0, "live"), ("max-age=１２", "", 0, "live"),
    ("max-age=abc", "", 0, "live"),
    (",,;=,max-age=100,=", "", 100, "hit"), ("public; max-age=100", "", 0, "live"), ("x" * 4000, "", 0, "live"),
    # the parameter wins
    ("max-age=100", "&max_age=10", 50, "live"), ("max-age=10", "&max_age=100", 50, "hit"),
    ("no-cache", "&max_age=100", 50, "hit"),
    ("max-age=100", "&max_age=0", 50, "live"),
    # no query: a snapshot as fresh as is wanted, or 504
    ("only-if-cached", "", 86_400, "hit"), ("only-if-cached", "", 86_401, "504"),
    ("only-if-cached, max-age=10", "", 10, "hit"),
    ("only-if-cached, max-age=10", "", 11, "504"), ("only-if-cached", "&max_age=10", 11, "504"),
    ("only-if-cached", "&max_age=10", 10, "hit"),
    ("only-if-cached, no-cache", "", 0, "504"), ("only-if-cached", "&max_age=0", 0, "live"),
    ("only-if-cached", "&f=1&t=3", 9, "hit"),
    ("only-if-cached", "&region=ap-shanghai", 0, "504"),
]


def test_what_the_requests_cache_control_means(lasting: App) -> None:
    cloud = lasting.clouds["qcloud"]
    for case in CACHE_CONTROL:
        cache_control, more, age, expected = case
        lasting.get(GZ)
        lasting.clock.forward(age)
        count = cloud.count()
        query = GZ.replace("gz", "sh") if "shanghai" in more else GZ + more
        answer = lasting.get(query, headers={"Cache-Control": cache_control.encode()})           # type: ignore[dict-item]
        assert cloud.count() - count == (1 if expected == "live" else 0), case
        if expected == "504":
            assert "forbids querying" in error(answer, 504, "party_timeout")
        else:
            assert answer.status_code == 200, case
            assert answer.headers.get("Cache-Status") == ("twocloud; hit" if expected == "hit" else None), case
            assert answer.headers.get("Age") == (str(age) if expected == "hit" else None), case


def test_the_settings_age_is_the_default(app: App) -> None:
    app.deployment = structs.replace(
        app.deployment, settings=structs.replace(app.deployment.settings, max_age=300))
    with serving(app):
        app.get(GZ)
        app.clock.forward(300)
        assert app.get(GZ).headers["Age"] == "300"
        assert "Age" not in app.get(f"{GZ}&max_age=0").headers
        app.clock.forward(301)
        assert "Age" not in app.get(GZ).headers


# ---------------------------------------------------------------- P6: stale if the party fails

FAILURES = {"500": "party_error", "429": "party_throttled", "503": "party_unavailable", "html": "party_malformed",
            "reset": "party_unavailable",
            "cut body": "party_malformed"}


@pytest.mark.parametrize("fault", FAILURES)
def test_the_stale_snapshot_up_to_the_second(lasting: App, fault: str) -> None:
    """Whole, a window, a filter: with the age and the reason; one second later the error."""
    good = {more: lasting.get(GZ + more).json()["vm_servers"]
            for more in ("&f=11&t=20", "&status=ACTIVE", "&name=none", "")}
    lasting.clouds["qcloud"].fail(fault)
    lasting.clock.forward(86_400)
    for more, rows in good.items():
        stale = lasting.get(GZ + more)
        assert stale.status_code == 200
        assert stale.json()["vm_servers"] == rows
        assert stale.headers["Age"] == "86400"
        assert stale.headers["Cache-Status"] == f"twocloud; hit; detail={FAILURES[fault]}"
        assert stale.json()["msg"].startswith("this is a stale snapshot, 86400 s old. ")
    lasting.clock.forward(1)
    for more in good:
        answer = lasting.get(GZ + more)
        error(answer, answer.status_code, FAILURES[fault])
        assert answer.status_code >= 500
        assert "Age" not in answer.headers


BORNE = [
    ("", "stale-if-error=10", 10, True), ("", "stale-if-error=10", 11, False), ("", "stale-if-error=0", 0, False),
    ("", "stale-if-error=99999999", 86_401, False), ("", "stale-if-error", 86_400, True),
    ("", "stale-if-error=x", 86_400, True),
    ("&on_error=fail", "", 0, False), ("&on_error=fail", "stale-if-error=99", 9, False),
    ("&on_error=stale", "stale-if-error=1", 9, True),
    ("&max_age=5", "", 6, True)]


def test_how_stale_a_caller_bears(lasting: App) -> None:
    for case in BORNE:
        more, header, age, borne = case
        lasting.clouds["qcloud"].forget()
        lasting.get(GZ)
        lasting.clouds["qcloud"].fail("503")
        lasting.clock.forward(age)
        answer = lasting.get(GZ + more, headers={"Cache-Control": header})
        if borne:
            assert answer.status_code == 200, case
            assert answer.headers["Age"] == str(age), case
            assert answer.headers["Cache-Status"] == "twocloud; hit; detail=party_unavailable"
        else:
            error(answer, 503, "party_unavailable")


def test_refused_credentials_are_no_outage(served: App) -> None:
    served.get(GZ)
    served.clouds["qcloud"].keys.clear()    # type: ignore[attr-defined]
    served.clock.forward(900)
    answer = served.get(GZ)
    assert answer.headers["Cache-Status"] == "twocloud; hit; detail=party_denied"
    assert "wrong key" in answer.json()["msg"]
    served.clock.forward(1)
    error(served.get(GZ), 502, "party_denied")
    error(served.get(f"{GZ}&f=1&t=10"), 502, "party_denied")
    # who accepts such an age has not asked the party
    assert served.get(f"{GZ}&max_age=901").headers["Age"] == "901"


def test_an_unknown_region_is_no_outage(served: App) -> None:
    """Nothing is kept of it, so that the schedule does not ask for it either."""
    error(served.get("party=qcloud&tenant_id=123&region=ap-nowhere"), 400, "invalid_parameter", "region")
    assert not [key for kind, key in rows(served.deployment.store) if kind in ("interest", "breaker", "lease")]


def test_a_region_that_was_listed_before_answers_its_snapshot(lasting: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The party suddenly says that there is no such region: marked like any other failure, and the schedule goes on."""
    lasting.get(GZ)
    monkeypatch.setattr("chalicelib.parties.qcloud.simulator.REGIONS", ("ap-shanghai",))
    lasting.clock.forward(86_400)
    for more in ("", "&f=1&t=3", "&status=ACTIVE"):
        answer = lasting.get(GZ + more)
        assert answer.headers["Age"] == "86400"
        assert answer.headers["Cache-Status"] == "twocloud; hit; detail=invalid_parameter"
        assert "no such region" in answer.json()["msg"]
    error(lasting.get(f"{GZ}&on_error=fail"), 400, "invalid_parameter", "region")
    assert [key for kind, key in rows(lasting.deployment.store) if kind == "interest"] == [KEY]
    assert lasting.deployment.noted
    lasting.clock.forward(1)
    error(lasting.get(GZ), 400, "invalid_parameter", "region")
    assert [key for kind, key in rows(lasting.deployment.store) if kind == "interest"] == [KEY]
    result = schedule.work(lasting.deployment, schedule.Message("123", "qcloud", "ap-guangzhou", lasting.clock()))
    assert isinstance(result.error, UnknownRegion)
    assert [key for kind, key in rows(lasting.deployment.store) if kind == "interest"] == [KEY]


def test_switched_off_and_on_again(served: App, stack: ExitStack) -> None:
    """The cloud is really gone: the same request still lists, says how old and why; then it is back."""
    cloud = served.clouds["qcloud"]
    before = served.get(GZ).json()["vm_servers"]
    cloud.close()
    served.clock.forward(3600)
    gone = served.get(GZ)
    assert gone.json()["vm_servers"] == before
    assert gone.headers["Age"] == "3600"
    assert gone.headers["Cache-Status"] == "twocloud; hit; detail=party_unavailable"
    assert gone.json()["msg"] == "this is a stale snapshot, 3600 s old. The party cannot be reached. Retry later."
    stack.enter_context(Qcloud(cloud.keys, {"ap-guangzhou": Fleet(26)}, port=cloud.port))        # type: ignore[attr-defined]
    back = served.get(GZ)
    assert len(back.json()["vm_servers"]) == 26
    assert back.json()["msg"] == ""
    assert "Age" not in back.headers


def test_nothing_kept_is_the_error(served: App) -> None:
    served.clouds["qcloud"].fail("503")
    assert int(served.get(GZ).headers["Retry-After"]) > 0
    error(served.get(GZ), 503, "party_unavailable")


# ---------------------------------------------------------------- P7: one listing for all

@pytest.mark.parametrize("callers", [50, 200])
def test_many_callers_of_a_cold_source_cost_one_listing(app: App, twin: Deployment, callers: int) -> None:
    cloud = app.clouds["qcloud"]
    cloud.latency = 0.3
    deployments = iter([ticking(app.deployment), ticking(twin)] * callers)
    windows = iter([WHOLE, Window(6), WHOLE] * callers)
    answers = run_all(callers, lambda: (window := next(windows), ask(app, window, next(deployments))))
    assert cloud.count() == 1
    for answer in answers:
        assert not isinstance(answer, Exception), answer
        window, result = answer
        assert result.total == 25
        assert len(result.servers) == 26 - window.first
    assert sum(not result.kept for _, result in answers) == 1       # the others are told that it is kept
    assert not any(kind == "lease" for kind, _ in rows(app.deployment.store))


@pytest.mark.sample(3)
@pytest.mark.parametrize(("fault", "calls", "kind"),
                         [("403", 1, PartyDenied), ("503", 2, PartyUnavailable), ("html", 1, PartyError)])
@pytest.mark.parametrize("callers", [50, 200])
def test_many_callers_share_one_failure(app: App, twin: Deployment, fault: str, calls: int, kind: type[Exception],
                                        callers: int) -> None:
    cloud = app.clouds["qcloud"]
    cloud.latency = 0.2
    cloud.fail(fault)
    deployments = iter([ticking(app.deployment), ticking(twin)] * callers)
    answers = run_all(callers, lambda: ask(app, WHOLE, next(deployments)))
    assert {type(answer) for answer in answers} <= {kind, *kind.__subclasses__()}
    assert len({str(answer) for answer in answers}) == 1
    assert cloud.count() == calls


def test_a_quick_failure_is_shared_too(app: App) -> None:
    """The party refuses at once: who gets the lease just after is told what happened since it came."""
    deployment = ticking(app.deployment)
    for _ in range(5):
        app.clouds["qcloud"].forget()
        app.clouds["qcloud"].fail("403")
        answers = run_all(20, lambda: ask(app, WHOLE, deployment))
        assert all(isinstance(answer, PartyDenied) for answer in answers)
        assert app.clouds["qcloud"].count() <= 3              # a few may have come after it


def test_an_unknown_region_is_asked_for_once(app: App) -> None:
    app.clouds["qcloud"].latency = 0.2
    deployment = ticking(app.deployment)
    answers = run_all(50, lambda: ask(app, WHOLE, deployment, source=Source("123", "qcloud", "ap-nowhere")))
    assert {type(answer) for answer in answers} == {UnknownRegion}
    assert app.clouds["qcloud"].count() == 1


def test_a_holder_that_died_is_outlived(app: App) -> None:
    """Its lease ends by itself; until then the others wait, as long as their own time allows."""
    app.deployment.store.put("lease", KEY, b"of the dead", version=0, expires=int(app.clock()) + 27)
    started = time.monotonic()
    with pytest.raises(PartyTimeout):
        ask(app, seconds=3.0)
    assert time.monotonic() - started < 3.0
    assert app.clouds["qcloud"].count() == 0
    threading.Timer(0.3, lambda: app.clock.forward(28)).start()
    assert ask(app).total == 25
    assert app.clouds["qcloud"].count() == 1


def test_the_lease_of_a_long_listing_is_renewed_while_its_holder_lives(app: App,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """If the holder died, its lease would be free within half a minute, whatever time the listing had."""
    monkeypatch.setattr(single_flight, "RENEW_SECONDS", 0.02)
    store = app.deployment.store

    def plan() -> lookup.SourcePlan:
        return lookup.Lookup(app.deployment, deadline=time.monotonic() + 120).plan(SOURCE)

    def end() -> int:
        with store.moment() as there:
            entry, = there.fetch([("lease", KEY)])
        assert entry.expires
        return entry.expires

    with single_flight.lease(plan()):
        for _ in range(3):
            app.clock.forward(20)
            until = time.monotonic() + 20
            while end() < app.clock() + 20:
                assert time.monotonic() < until
                time.sleep(0.01)
            assert end() <= app.clock() + 30
            with pytest.raises(Conflict), single_flight.lease(plan()):
                raise AssertionError("two hold it")
        store.put("lease", KEY, b"another's", expires=end())    # it is not taken back
        time.sleep(0.1)
        row = store.get("lease", KEY)
        assert row
        assert row.value == b"another's"
        app.clock.forward(40)             # nor deleted when the work ends
        store.put("lease", KEY, b"another's", expires=int(app.clock()) + 30)
    assert store.get("lease", KEY)


@pytest.mark.slow
def test_a_listing_that_began_long_ago_is_not_shared(app: App) -> None:
    """A worker may take minutes; who asks now gets what is at most as old as a request may last."""
    ask(app)
    for age, shared in ((24, True), (25, False)):
        app.clock.forward(1000)
        app.deployment.store.put("lease", KEY, b"a worker", version=0, expires=int(app.clock()) + 100)
        calls = app.clouds["qcloud"].count()

        def done(age: int = age) -> None:
            revision = accounts.find(app.deployment.store, "123", "qcloud").revision
            head = snapshots.find(app.deployment.store, SOURCE, revision)
            assert head
            snapshots.save(app.deployment.store, SOURCE, revision,
                           snapshots.read(app.deployment.store, SOURCE, head),
                           app.clock() - age, history=9999)
            app.deployment.store.delete("lease", KEY)

        threading.Timer(0.3, done).start()
        answer = ask(app)
        assert (answer.kept, app.clouds["qcloud"].count() - calls) == (shared, 0 if shared else 1)


def test_who_cannot_wait_longer_gets_the_last_list(app: App) -> None:
    ask(app)
    app.clock.forward(50)
    app.deployment.store.put("lease", KEY, b"somebody", version=0, expires=int(app.clock()) + 100)
    answer = ask(app, seconds=2.5, stale=100)
    assert answer.kept
    assert isinstance(answer.failure, PartyTimeout)
    assert answer.total == 25


def test_forced_refreshes_are_limited(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_source, "_LIVE_LISTINGS", 3)
    for _ in range(3):
        assert served.get(f"{GZ}&max_age=0").status_code == 200
    answer = served.get(f"{GZ}&max_age=0")
    assert "max_age" in error(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert served.get(f"{GZ}&max_age=1").headers["Age"] == "0"
    assert served.get(f"{GZ.replace('gz', 'sh')}").status_code == 200            # another source


# ---------------------------------------------------------------- P7: the breaker

def fail_until_open(app: App, deployments: list[Deployment], window: Window = WHOLE) -> None:
    for n in range(8):
        with pytest.raises(PartyError):
            ask(app, window, deployments[n % len(deployments)])
        app.clock.forward(1)


@pytest.mark.sample(2)
@pytest.mark.parametrize("window", [WHOLE, TEN])
def test_the_breaker(app: App, twin: Deployment, window: Window) -> None:
    """Opens after eight in a row, for all processes; one probe at a time; opens for longer; a success closes it."""
    cloud, both = app.clouds["qcloud"], [app.deployment, twin]
    cloud.fail("503")
    fail_until_open(app, both, window)
    assert cloud.count() == 16              # eight, and one retry each
    for deployment in both * 10:
        with pytest.raises(PartyUnavailable) as failure:
            ask(app, window, deployment)
        assert failure.value.retry_after
        assert 8 < failure.value.retry_after <= 9
    assert cloud.count() == 16
    app.clock.forward(9)                  # ten seconds after the eighth failure
    cloud.latency = 0.2
    deployments = iter(both * 20)
    assert {type(answer) for answer in run_all(20, lambda: ask(app, window, next(deployments)))} == {PartyUnavailable}
    assert cloud.count() == 18              # one probe and its retry
    app.clock.forward(29)
    with pytest.raises(PartyUnavailable):
        ask(app, window)
    assert cloud.count() == 18              # open for thirty seconds now
    app.clock.forward(1)
    cloud.forget()
    assert ask(app, window, twin).total == 25
    assert ("breaker", KEY) not in rows(app.deployment.store)
    cloud.fail("503")                       # and counts again
    for _ in range(7):
        with pytest.raises(PartyUnavailable):
            ask(app, window)
        app.clock.forward(1)
    cloud.forget()
    assert ask(app, window).total == 25


def test_probes_of_a_window_are_one_at_a_time(app: App) -> None:
    cloud = app.clouds["qcloud"]
    cloud.fail("503")
    fail_until_open(app, [app.deployment], TEN)
    app.clock.forward(10)
    cloud.forget()
    cloud.latency = 0.4
    answers = run_all(20, lambda: ask(app, TEN))
    assert cloud.count() == 1
    assert [type(answer) for answer in answers].count(many_sources.Answer) == 1


def test_one_burst_opens_it_once(app: App) -> None:
    """Thirty windows that were under way together: not ten seconds, thirty, a minute, … at once."""
    cloud = app.clouds["qcloud"]
    cloud.latency = 0.2
    cloud.fail("html")
    assert all(isinstance(answer, PartyError) for answer in run_all(30, lambda: ask(app, TEN)))
    app.clock.forward(10)
    cloud.forget()
    assert ask(app, TEN).total == 25


def test_failures_far_apart_are_not_in_a_row(app: App) -> None:
    app.clouds["qcloud"].fail("html")
    for _ in range(20):
        with pytest.raises(PartyError):
            ask(app)
        app.clock.forward(61)
    assert app.clouds["qcloud"].count() == 20


def test_a_refusal_opens_nothing(app: App) -> None:
    app.clouds["qcloud"].fail("403")
    for n in range(20):
        with pytest.raises(PartyDenied):
            ask(app, WHOLE if n % 2 else TEN)
        app.clock.forward(1)
    assert app.clouds["qcloud"].count() == 20                 # each asked, none twice


def test_our_own_restraint_opens_nothing(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is too long for the party's documented rate says: ask for a range; and then the range is there."""
    class Slow:
        def reserve(self, deadline: float) -> float:
            raise PartyThrottled("ask for a range", retry_after=100.0)

    with monkeypatch.context() as patch:
        patch.setattr(rate_limit.RateLimits, "limiter", lambda *_: Slow())
        for _ in range(12):
            with pytest.raises(PartyThrottled):
                ask(app)
            app.clock.forward(1)
    assert ask(app, TEN).total == 25


def test_another_tenants_source_has_a_breaker_of_its_own(app: App) -> None:
    cloud = app.clouds["qcloud"]
    app.account("qcloud", {"secret_id": "AKIDtest", "secret_key": cloud.keys["AKIDtest"]}, cloud.url, tenant="7")      # type: ignore[attr-defined]
    cloud.fail("html")
    fail_until_open(app, [app.deployment])
    cloud.forget()
    with pytest.raises(PartyError):
        ask(app)
    assert ask(app, source=Source("7", "qcloud", "ap-guangzhou")).total == 25
    assert ask(app, source=Source("123", "qcloud", "ap-shanghai")).total == 250


def test_an_outage_costs_the_party_little(served: App) -> None:
    """A hundred requests in a minute of outage, with a list kept: all answered, a dozen calls at the party."""
    served.get(GZ)
    cloud = served.clouds["qcloud"]
    cloud.forget()
    cloud.fail("503")
    for n in range(100):
        answer = served.get(GZ if n % 2 else f"{GZ}&f=1&t=10")
        assert answer.status_code == 200
        assert "detail=party_unavailable" in answer.headers["Cache-Status"]
        served.clock.forward(0.6)
    assert cloud.count() <= 2 * (8 + 3)     # eight, then a probe after 10 and 30 s


# ---------------------------------------------------------------- accounts that change meanwhile

def test_another_account_starts_without_a_list(served: App) -> None:
    served.get(GZ)
    cloud = served.clouds["qcloud"]
    served.account("qcloud", {"secret_id": "AKIDtest", "secret_key": cloud.keys["AKIDtest"]}, cloud.url)         # type: ignore[attr-defined]
    assert rows(served.deployment.store) == []
    cloud.fail("503")
    error(served.get(GZ), 503, "party_unavailable")
    error(served.get(GZ, headers={"Cache-Control": "only-if-cached"}), 504, "party_timeout")


@pytest.mark.parametrize("fault", [None, "503"])
@pytest.mark.parametrize("window", [WHOLE, Window(1, 100)])
@pytest.mark.parametrize("change", ["removed", "put again"])
def test_an_account_that_goes_while_it_is_listed_leaves_nothing(app: App, fault: str | None, window: Window,
                                                                change: str) -> None:
    """Nor does one that goes while its list is written down."""
    cloud = app.clouds["qcloud"]
    cloud.latency = 0.3
    if fault:
        cloud.fail(fault)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(ask, app, window)
        while not cloud.count():
            time.sleep(0.01)
        if change == "removed":
            accounts.remove(app.deployment.store, "123", "qcloud")
        else:
            app.account("qcloud", {"secret_id": "AKIDtest", "secret_key": cloud.keys["AKIDtest"]}, cloud.url)  # type: ignore[attr-defined]
        if fault:
            with pytest.raises(PartyError):
                under_way.result()
        else:
            assert under_way.result().total == 25
    assert rows(app.deployment.store) == []


@pytest.mark.parametrize("nth", [1, 2])
def test_an_account_that_goes_while_its_list_is_kept_leaves_nothing(app: App, monkeypatch: pytest.MonkeyPatch,
                                                                    nth: int) -> None:
    """Just before the chunk is written, or the head."""
    put, store, written = type(app.deployment.store).put, app.deployment.store, list[str]()

    def watched(self: Store, kind: str, *arguments: Any, **more: Any) -> None:
        if kind in ("chunk", "snapshot"):
            written.append(kind)
            if len(written) == nth:
                accounts.remove(store, "123", "qcloud")
        put(self, kind, *arguments, **more)

    monkeypatch.setattr(type(store), "put", watched)
    assert ask(app).total == 25
    assert written == ["chunk", "snapshot"]
    assert rows(store) == []


@pytest.mark.parametrize("damage", [lambda value: b"", lambda value: b"\x00\xffx", lambda value: value[:-1]],
                         ids=["empty", "garbage", "truncated"])
def test_a_damaged_row_that_can_be_made_again_spoils_nothing(served: App, damage: Callable[[bytes], bytes]) -> None:
    """Every kind of row but those that only an operator can make: accounts, users and tokens."""
    store, cloud = served.deployment.store, served.clouds["qcloud"]
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(served.clock()))
    for n in (25, 24):
        cloud.fleets["ap-guangzhou"] = Fleet(n)                 # type: ignore[attr-defined]
        served.clock.forward(10)
        assert served.get(f"{GZ},ap-shanghai").status_code == 200
    schedule.finish(served.deployment, schedule.survey(served.deployment), 300)
    cloud.fail("503")
    assert served.get(f"{GZ}&on_error=fail").status_code == 503
    cloud.forget()
    served.clock.forward(100)
    with store.moment() as there:
        entries = [entry for entry in there.walk() if entry.kind not in ("account", "named", "user", "token")]
    assert {"breaker", "change", "chunk", "health", "interest", "snapshot"} <= {entry.kind for entry in entries}
    for kind in {entry.kind for entry in entries}:
        own = [entry for entry in entries if entry.kind == kind]
        store.write([entry._replace(value=damage(entry.value)) for entry in own])
        for path, query in (("servers", f"{GZ}&max_age=3600"), ("servers", GZ), ("servers", f"{GZ},ap-shanghai"),
                            ("metrics", ""), ("me", ""), ("health", ""), ("changes", f"tenant_id=123&since={since}")):
            answer = served.get(query, path=f"/twocloud/{path}")
            assert answer.status_code == 200, (kind, path, answer.text)
            if path == "servers":
                assert len(answer.json()["vm_servers"]) == (274 if "shanghai" in query else 24), (kind, query)
        schedule.survey(served.deployment)
        store.write(own)


def test_a_store_that_fails_at_keeping_does_not_spoil_the_answer(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, store, n = served.clouds["qcloud"], type(served.deployment.store), 24
    for kind in ("snapshot", "chunk", "change", "interest", "breaker", "lease"):
        for verb in ("put", "delete"):
            cloud.forget()
            served.get(GZ)
            n -= 1
            cloud.fleets["ap-guangzhou"] = Fleet(n)             # type: ignore[attr-defined]
            served.deployment.noted.clear()
            with monkeypatch.context() as patch:
                def failing(self: Store, of: str, *args: Any, real: Any = getattr(store, verb), kind: str = kind,
                            **more: Any) -> Any:
                    if of == kind:
                        raise OSError("no space left on device")
                    return real(self, of, *args, **more)

                patch.setattr(store, verb, failing)
                assert len(served.get(GZ).json()["vm_servers"]) == n, (kind, verb)
                assert len(served.get(f"{GZ}&f=1&t=10").json()["vm_servers"]) == 10
                cloud.fail("503")
                served.clock.forward(30)                        # what has a lease that cannot be taken back ends
                stale = served.get(GZ)
                assert stale.status_code == 200, (kind, verb)
                assert stale.headers["Cache-Status"] == "twocloud; hit; detail=party_unavailable", (kind, verb)
            served.clock.forward(100)


# ---------------------------------------------------------------- P3: warm lists open nothing

@pytest.mark.parametrize("cause", LOSSES)
def test_loss_of_access_acts_with_every_list_warm(served: App, cause: str) -> None:
    served.get(f"{GZ}&view=full")
    warm = [(f"{GZ}{more}&max_age=999999", {}) for more in ("", "&f=1&t=2", "&status=ACTIVE", "&view=full")]
    warm += [(f"{GZ}&max_age=999999", {"If-None-Match": "*"}), (GZ, {"Cache-Control": "only-if-cached"}),
             ("party=qcloud&tenant_id=123&region=gz,sh&max_age=999999&on_error=partial", {})]
    assert {served.get(query, headers=headers).status_code for query, headers in warm} == {200, 304}
    lose, status = LOSSES[cause]
    lose(served)
    for query, headers in warm:
        answer = served.get(query, headers=headers)
        assert answer.status_code == status
        assert "Age" not in answer.headers
        assert "vm_servers" not in answer.text


def test_a_token_never_sees_another_tenants_list(served: App) -> None:
    """Neither by an ETag, nor by its age, nor while the party fails."""
    cloud = served.clouds["qcloud"]
    tag = served.get(GZ).headers["ETag"]
    other = served.issue(served.user("zed", tenants=("7",)))
    keys = qcloud_keys()
    mine = Qcloud({keys["secret_id"]: keys["secret_key"]}, {"ap-guangzhou": Fleet(3, "other")})
    with mine:
        served.account("qcloud", keys, mine.url, tenant="7")
        for more in ("", "&max_age=9999", "&on_error=stale", "&f=1&t=2"):
            for headers in ({}, {"If-None-Match": tag}, {"If-None-Match": "*"}, {"Cache-Control": "only-if-cached"}):
                assert served.get(GZ + more, token=other, headers=headers).status_code == 403
        cloud.fail("503")
        own = served.get(GZ.replace("123", "7"), token=other)
        assert len(own.json()["vm_servers"]) == 3
        assert served.get(GZ, token=other).status_code == 403
        assert served.get(GZ.replace("123", "7")).status_code == 403
        assert len(served.get(GZ).json()["vm_servers"]) == 25


# ---------------------------------------------------------------- P10: nobody waits for another

def test_a_hanging_source_does_not_hold_the_others(app: App, stack: ExitStack,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty callers wait for a cloud that hangs; meanwhile fifty requests of others are all answered before any of
    them."""
    monkeypatch.setattr(sender_module, "CALL_SECONDS", 6.0)
    served = stack.enter_context(limited(app, requests=ServerLimits().requests,
                                         tenant_requests=ServerLimits().tenant_requests))
    keys = qcloud_keys()
    with Qcloud({keys["secret_id"]: keys["secret_key"]}, {"ap-guangzhou": Fleet(5)}) as other:
        served.account("qcloud", keys, other.url, tenant="7")   # the same party, another tenant
        token = served.issue(served.user("zed", tenants=("7",)))
        served.clouds["qcloud"].fail("hang")
        with ThreadPoolExecutor(30) as pool:
            hanging = [pool.submit(served.get, GZ if n % 2 else f"{GZ}&f=1&t=5") for n in range(30)]
            while not served.clouds["qcloud"].count():
                time.sleep(0.01)
            for n in range(50):
                answer = served.get(US) if n % 2 else served.get(GZ.replace("123", "7"), token=token)
                assert answer.status_code == 200
                served.clock.forward(1)
            assert not any(call.done() for call in hanging)
            assert {call.result().status_code for call in hanging} == {504}


# ---------------------------------------------------------------- the other stores

@pytest.mark.sample(2)
def test_from_end_to_end_on_every_store(store: Store, clock: Clock, tmp_path: Path, stack: ExitStack) -> None:
    """List, keep, serve, stale, breaker, changes, remove: on SQLite and on two emulators of DynamoDB."""
    settings = settings_in(tmp_path)
    deployment = Deployment(settings, store, lambda: sealing.open_sealer(settings.key),
                            OnFirstUse(lambda: sender_module.Transport(jitter=lambda: 0.0)), clock)
    keys = qcloud_keys()
    cloud = stack.enter_context(Qcloud({keys["secret_id"]: keys["secret_key"]}, {"ap-guangzhou": Fleet(1250)},
                                       limited=False))
    account = accounts.check("123", parties.load("qcloud"), keys, project=None, regions=(), deep=False,
                             endpoint=cloud.url, local=True)
    accounts.put(store, deployment.sealer(), account, clock())

    def listed(window: Window = WHOLE, **policy: Any) -> many_sources.Answer:
        return many_sources.list_servers(deployment, SOURCE, window, Filter(), Freshness(**policy))

    answers = run_all(8, listed)
    assert {answer.total for answer in answers} == {1250}
    assert cloud.count() == 13
    clock.forward(30)
    assert listed(Window(391, 410), max_age=30).servers == answers[0].servers[390:410]
    assert listed(max_age=30).servers == answers[0].servers
    assert cloud.count() == 13
    cloud.fleets["ap-guangzhou"] = Fleet(1249)
    assert listed().total == 1249
    clock.forward(1)
    changed = changes.list_changes(lookup.Lookup(deployment, lookup.ANY_AGE).plan(SOURCE), clock() - 2)
    assert [server.id for server in changed.vanished] == [answers[0].servers[-1].id]
    assert changed.answer.servers == []
    cloud.fail("html")
    for _ in range(9):
        stale = listed(stale=60)
        assert stale.kept
        assert stale.failure
        assert stale.total == 1249
    assert cloud.count() <= 13 + 13 + 8 * 13
    calls = cloud.count()
    with suppress(PartyError):
        listed()
    assert cloud.count() == calls           # open
    accounts.remove(store, "123", "qcloud")
    assert rows(store) == []
    deployment.transport.close()


def test_snapshots_of_a_tenant_go_with_it(app: App) -> None:
    ask(app)
    ask(app, source=Source("123", "aws", "us-east-1"))
    for row in accounts.every(app.deployment.store, "123"):
        accounts.remove(app.deployment.store, "123", row.party)
    tokens.forget_tenant(app.deployment.store, "123")
    assert rows(app.deployment.store) == []
    assert snapshots.find(app.deployment.store, SOURCE, "") is None
